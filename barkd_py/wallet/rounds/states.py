"""What a participation can be, as values, and how it is stored. Which state follows which is `machine`.

In person the wallet cosigns the tree while the round is held; a delegated participation is left to the
server. Both end with the same swap.

    in person   Waiting ─▶ Joining ─▶ Registered ─▶ Signed ─▶ Issued ─▶ Completed
    delegated   Submitting ─▶ Delegated ────────────────────▶ Issued ─▶ Completed

Nothing here is secret: nonces and cosign keys never leave the memory of the process that made them.

Source: sheet 04 §11.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.rounds import RoundOutput
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Txid
from barkd_py.server_rpc.api import VtxoRequest
from barkd_py.wallet.store.payloads import (
    HexBytes,
    PayloadFormat,
    PublicKeyHex,
    TxHex,
    TxidText,
    VtxoHex,
    VtxoIdText,
)

# --- states


@dataclass(frozen=True, slots=True)
class Waiting:
    """For the next round. The inputs are free for other uses."""

    type: Literal["waiting"] = "waiting"


@dataclass(frozen=True, slots=True)
class Joining:
    """The inputs are locked, and the server has perhaps registered us. challenge: of the attempt."""

    round_seq: int
    attempt_seq: int
    challenge: HexBytes
    type: Literal["joining"] = "joining"


@dataclass(frozen=True, slots=True)
class Registered:
    """The server has registered us, and will propose a tree. Nothing is signed."""

    round_seq: int
    attempt_seq: int
    unlock_hash: HexBytes
    type: Literal["registered"] = "registered"


@dataclass(frozen=True, slots=True)
class Signed:
    """We have signed the tree, and the server perhaps has our signatures: it may finish the round.

    spec: the encoded tree. cosign_pubkeys: one per output.
    """

    round_seq: int
    attempt_seq: int
    unlock_hash: HexBytes
    spec: HexBytes
    funding_tx: TxHex
    cosign_pubkeys: tuple[PublicKeyHex, ...]
    type: Literal["signed"] = "signed"


@dataclass(frozen=True, slots=True)
class Submitting:
    """The server is to take part for us; perhaps it knows already."""

    type: Literal["submitting"] = "submitting"


@dataclass(frozen=True, slots=True)
class Delegated:
    """The server takes part for us, or has finished a round of which we have missed the end.

    funding_txid: once the server says that the round was held; the inputs are locked from then on.
    """

    unlock_hash: HexBytes
    funding_txid: TxidText | None = None
    type: Literal["delegated"] = "delegated"


@dataclass(frozen=True, slots=True)
class Issued:
    """The new VTXOs exist, locked. What is left is the swap, once the funding transaction is deep enough.

    is_delegated: how the round was joined. forfeits_sent: the server perhaps has our forfeits, so the
    preimage must be had; the leaves of `vtxos` are signed then.
    """

    unlock_hash: HexBytes
    funding_tx: TxHex
    vtxos: tuple[VtxoHex, ...]
    is_delegated: bool
    forfeits_sent: bool = False
    type: Literal["issued"] = "issued"


@dataclass(frozen=True, slots=True)
class Completed:
    """The new VTXOs are ours."""

    unlock_hash: HexBytes
    funding_tx: TxHex
    vtxos: tuple[VtxoHex, ...]
    is_delegated: bool
    type: Literal["completed"] = "completed"


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing was given away, or it came back to us on the chain."""

    error: str
    type: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Canceled:
    """Called off, or there is nothing left to refresh."""

    reason: str
    type: Literal["canceled"] = "canceled"


Ongoing = Joining | Registered | Signed
"""An attempt is being held with us in it."""

Final = Completed | Failed | Canceled
"""The row is gone."""

RoundState = (
    Waiting | Joining | Registered | Signed | Submitting | Delegated | Issued | Completed | Failed | Canceled
)


def holds_inputs(state: RoundState) -> bool:
    """Whether the inputs are locked for the participation in this state."""
    match state:
        case Joining() | Registered() | Signed() | Issued():
            return True
        case Delegated():
            return state.funding_txid is not None
        case _:
            return False


def is_held(state: RoundState) -> bool:
    """Whether the round was held with the inputs: the server has them as spent."""
    return isinstance(state, Issued) or (isinstance(state, Delegated) and state.funding_txid is not None)


# --- a participation


@dataclass(frozen=True, slots=True)
class Output:
    """A VTXO that we want."""

    amount_sat: int
    user_pubkey: PublicKeyHex

    @property
    def policy(self) -> PubkeyPolicy:
        return PubkeyPolicy(self.user_pubkey)

    @property
    def request(self) -> VtxoRequest:
        return VtxoRequest(self.amount_sat, self.policy)

    def cosigned_by(self, cosign_pubkey: PublicKey | None) -> RoundOutput:
        return RoundOutput(self.amount_sat, self.policy, cosign_pubkey)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the server announced when a participation began: it may announce something else later."""

    exit_delta: int
    lifetime: int


@dataclass(frozen=True, slots=True)
class Round:
    """A participation.

    scheduled_height: the server waits for this height; delegated ones only.
    failures: attempts that came to nothing; last_error: why the last one did.
    agreed: None if it was found at the server.
    """

    inputs: tuple[VtxoIdText, ...]
    outputs: tuple[Output, ...]
    state: Annotated[RoundState, Field(discriminator="type")]
    scheduled_height: int | None = None
    failures: int = 0
    last_error: str | None = None
    agreed: Agreed | None = None


_FORMAT: PayloadFormat[Round] = PayloadFormat("round", lambda: TypeAdapter(Round))

encode_round = _FORMAT.encode
decode_round = _FORMAT.decode


# --- what others are told


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """The round was held; its funding transaction is not deep enough yet."""

    funding_txid: Txid


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Done."""

    funding_txid: Txid


@dataclass(frozen=True, slots=True)
class Pending:
    """Nothing has gone wrong, and nothing is final."""


@dataclass(frozen=True, slots=True)
class SyncError:
    """It goes on, but the last try did not work out."""

    error: str


RoundStatus = Confirmed | Unconfirmed | Pending | SyncError | Failed | Canceled


@dataclass(frozen=True, slots=True)
class RoundInfo:
    """A participation as clients see it. funding_tx: once it is known, signed, and only in person."""

    id: int
    round: Round
    status: RoundStatus
    movement_id: int | None = field(default=None)
