"""What an exit can be, as values. Which state follows which is `machine`; how they are stored is `payloads`.

An exit brings one VTXO onto the chain: its exit transactions are confirmed one after the other, each paid for
by a child that spends its fee anchor; then the exit delta runs; then the output is claimed.

Heights are block heights, `tip_height` is the tip when the state was entered. Source: sheet 06 §2.1, §2.3.
"""

import enum
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Tx
from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.source import PackageFee
from barkd_py.wallet.exits.errors import ExitError
from barkd_py.wallet.store.payloads import BlockRefJson, OutPointText, TxidText

TxidSet = Annotated[frozenset[TxidText], PlainSerializer(lambda txids: sorted(map(str, txids)))]

# --- where a child comes from


@dataclass(frozen=True, slots=True)
class WalletOrigin:
    """Our on-chain wallet made it."""

    confirmed_in: BlockRefJson | None = None
    type: Literal["wallet"] = "wallet"


@dataclass(frozen=True, slots=True)
class MempoolOrigin:
    """Somebody else made it, and it is not confirmed."""

    type: Literal["mempool"] = "mempool"


@dataclass(frozen=True, slots=True)
class BlockOrigin:
    """Somebody else made it, and it is confirmed."""

    confirmed_in: BlockRefJson
    type: Literal["block"] = "block"


ExitTxOrigin = WalletOrigin | MempoolOrigin | BlockOrigin


# --- status of one exit transaction


@dataclass(frozen=True, slots=True)
class VerifyInputs:
    """Nothing is known yet."""

    type: Literal["verify-inputs"] = "verify-inputs"


@dataclass(frozen=True, slots=True)
class AwaitingInputConfirmation:
    """A transaction that it spends from is not in a block. txids: those; their order means nothing."""

    txids: TxidSet
    type: Literal["awaiting-input-confirmation"] = "awaiting-input-confirmation"


@dataclass(frozen=True, slots=True)
class AwaitingCpfpBroadcast:
    """It could be confirmed, and nobody pays for it yet."""

    type: Literal["awaiting-cpfp-broadcast"] = "awaiting-cpfp-broadcast"


@dataclass(frozen=True, slots=True)
class AwaitingConfirmation:
    """It has a child that pays.

    in_mempool: whether the chain source has them; if not, they are to be broadcast again.
    fee: of both together; None if it is not known.
    """

    child_txid: TxidText
    origin: Annotated[ExitTxOrigin, Field(discriminator="type")]
    in_mempool: bool = True
    fee: PackageFee | None = None
    type: Literal["awaiting-confirmation"] = "awaiting-confirmation"


@dataclass(frozen=True, slots=True)
class TxConfirmed:
    """It is in a block. child_txid: None if it was mined although nobody has spent its anchor."""

    child_txid: TxidText | None
    block: BlockRefJson
    origin: Annotated[ExitTxOrigin, Field(discriminator="type")]
    type: Literal["confirmed"] = "confirmed"


ExitTxStatus = (
    VerifyInputs | AwaitingInputConfirmation | AwaitingCpfpBroadcast | AwaitingConfirmation | TxConfirmed
)


@dataclass(frozen=True, slots=True)
class ExitTx:
    """One transaction of the chain from the anchor to the VTXO."""

    txid: TxidText
    status: Annotated[ExitTxStatus, Field(discriminator="type")]


# --- states of an exit


@dataclass(frozen=True, slots=True)
class Start:
    """Asked for; nothing has been looked at. is_automatic: nobody but the wallet itself asked for it."""

    tip_height: int
    is_automatic: bool = False
    type: Literal["start"] = "start"


@dataclass(frozen=True, slots=True)
class Processing:
    """Exit transactions are being confirmed. transactions: in order, from the anchor on."""

    tip_height: int
    transactions: tuple[ExitTx, ...]
    type: Literal["processing"] = "processing"


@dataclass(frozen=True, slots=True)
class AwaitingDelta:
    """Every exit transaction is confirmed; the delay of the claim runs. confirmed_block: of the last one."""

    tip_height: int
    confirmed_block: BlockRefJson
    claimable_height: int
    type: Literal["awaiting-delta"] = "awaiting-delta"


@dataclass(frozen=True, slots=True)
class Claimable:
    """The output may be spent. claimable_since: the block at the claimable height."""

    tip_height: int
    claimable_since: BlockRefJson
    last_scanned_block: BlockRefJson | None = None
    type: Literal["claimable"] = "claimable"


@dataclass(frozen=True, slots=True)
class ClaimInProgress:
    """A transaction that spends the output waits for a block."""

    tip_height: int
    claimable_since: BlockRefJson
    claim_txid: TxidText
    type: Literal["claim-in-progress"] = "claim-in-progress"


@dataclass(frozen=True, slots=True)
class Claimed:
    """The output is spent: by our claim, or by whoever else may."""

    tip_height: int
    txid: TxidText
    block: BlockRefJson
    type: Literal["claimed"] = "claimed"


@dataclass(frozen=True, slots=True)
class VtxoAlreadySpent:
    """The wallet has spent the VTXO off-chain before it was on chain."""

    tip_height: int
    type: Literal["vtxo-already-spent"] = "vtxo-already-spent"


@dataclass(frozen=True, slots=True)
class VtxoSwept:
    """An output on the way to the VTXO was spent for good by something else, as after the expiry."""

    tip_height: int
    spent_inputs: tuple[OutPointText, ...]
    type: Literal["vtxo-swept"] = "vtxo-swept"


@dataclass(frozen=True, slots=True)
class Canceled:
    """The user has called it off; it may be started again."""

    tip_height: int
    type: Literal["canceled"] = "canceled"


ExitState = (
    Start
    | Processing
    | AwaitingDelta
    | Claimable
    | ClaimInProgress
    | Claimed
    | VtxoAlreadySpent
    | VtxoSwept
    | Canceled
)
Finished = Claimed | VtxoAlreadySpent | VtxoSwept | Canceled
Pending = Start | Processing | AwaitingDelta
"""Not claimable yet, and not finished."""


def is_live(state: ExitState) -> bool:
    return not isinstance(state, Finished)


CANCELABLE_STATUSES = (VerifyInputs, AwaitingInputConfirmation, AwaitingCpfpBroadcast)


def is_cancelable(state: ExitState) -> bool:
    """Whether the VTXO itself is not on its way yet. The chain may know better."""
    match state:
        case Start() | Processing(transactions=()):
            return True
        case Processing(transactions=(*_, last)):
            return isinstance(last.status, CANCELABLE_STATUSES)
        case _:
            return False


# --- what others are told


class ExitFilter(enum.Enum):
    ALL = "all"
    LIVE = "live"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class ExitChild:
    """A transaction that pays for an exit transaction. fee: of both, while unconfirmed and known."""

    tx: Tx
    origin: ExitTxOrigin
    fee: PackageFee | None = None


@dataclass(frozen=True, slots=True)
class ExitPackage:
    """An exit transaction and the child that pays for it."""

    tx: Tx
    child: ExitChild | None


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """One exit.

    history: the earlier states, oldest first; empty if not asked for.
    packages: the exit transactions in order; empty if not asked for.
    error: what kept it from going on when it was last tried, since the wallet was opened.
    """

    vtxo_id: VtxoId
    state: ExitState
    history: tuple[ExitState, ...] = ()
    packages: tuple[ExitPackage, ...] = ()
    error: ExitError | None = None


@dataclass(frozen=True, slots=True)
class ExitProgress:
    """What `progress` came to.

    exits: all that are live, or were finished by it other than by a claim.
    is_done: none has anything left to wait for before its claim.
    claimable_height: by when all of them that have such a height are claimable.
    """

    exits: tuple[ExitStatus, ...]
    is_done: bool
    claimable_height: int | None


@dataclass(frozen=True, slots=True)
class ExitFeeEstimate:
    """What an exit would cost on chain.

    broadcast_fee_sat: of the children, margin included. claim_fee_sat: of one claim of everything.
    txs_to_broadcast: how many exit transactions have to be paid for.
    is_fundable: whether the on-chain wallet holds the broadcast fee.
    """

    broadcast_fee_sat: int
    claim_fee_sat: int
    fee_rate: FeeRate
    txs_to_broadcast: int
    is_fundable: bool
    skipped: tuple[VtxoId, ...] = field(default=())
    """VTXOs left out because they cannot be exited; only where no ids were given."""

    @property
    def total_fee_sat(self) -> int:
        return self.broadcast_fee_sat + self.claim_fee_sat
