"""Leaving Ark: VTXOs against an output of a transaction that the server makes and pays for.

    Splitting ─▶ Registering ─┐                     send-onchain: first a payment to ourselves, so that the
                              ▼                     offboarded VTXOs hold exactly amount and fee
                           Preparing ◀── the session is lost ── Prepared ── forfeits ──▶ Broadcasting
                              │  ▲                                │                          │
                 refused:     │  └── not on chain ── look ◀───────┘ refused                  ▼
                 done, undone ▼                        └── on chain: ──────────────────▶ Confirming ─▶ done

The server proposes a transaction, and we sign a forfeit of each VTXO that is worth nothing without that very
transaction. Before the first forfeit has left us, everything can be undone. From then on the server may let
the transaction out whenever it likes: the inputs stay locked until it is confirmed, until a transaction that
it conflicts with is, until the server itself proves that it never took the forfeits, or until all of them
have left by exits of ours.

What is paid is fixed at the start, and no repetition changes it: the server answers an equal request with the
same session, and forgets a session after half a minute.

Source: sheet 03 §3.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from barkd_py.ark.arkoor import ArkoorDestination
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import FeeRate
from barkd_py.server_rpc.api import OffboardRequest
from barkd_py.wallet.store.payloads import (
    HexBytes,
    PayloadFormat,
    PublicKeyHex,
    TxHex,
    TxidText,
    VtxoIdText,
)


@dataclass(frozen=True, slots=True)
class Payment:
    """What leaves, fixed for good.

    net_amount_sat: the output's. deducts_fee: whole VTXOs leave, and the fee is taken from them; else it is a
    send, with the fee on top. input_ids: the VTXOs that were chosen at the start.
    """

    address: str
    script_pubkey: HexBytes
    net_amount_sat: int
    fee_sat: int
    fee_rate_sat_per_kwu: int
    deducts_fee: bool
    input_ids: tuple[VtxoIdText, ...]

    @property
    def destination(self) -> TxOut:
        return TxOut(self.net_amount_sat, self.script_pubkey)

    @property
    def request(self) -> OffboardRequest:
        return OffboardRequest(
            net_amount_sat=self.net_amount_sat,
            script_pubkey=self.script_pubkey,
            deduct_fees_from_gross_amount=self.deducts_fee,
            fee_rate=FeeRate(self.fee_rate_sat_per_kwu),
        )


@dataclass(frozen=True, slots=True)
class Splitting:
    """The inputs of a send are locked; the server has perhaps cosigned the split.

    change_sat: the pieces of change, all to change_pubkey.
    """

    payment: Payment
    offboard_pubkey: PublicKeyHex
    change_pubkey: PublicKeyHex
    change_sat: tuple[int, ...]
    bad_answers: int = 0
    type: Literal["splitting"] = "splitting"

    @property
    def outputs(self) -> tuple[ArkoorDestination, ...]:
        change_policy = PubkeyPolicy(self.change_pubkey)
        gross_sat = self.payment.net_amount_sat + self.payment.fee_sat
        return (
            ArkoorDestination(gross_sat, PubkeyPolicy(self.offboard_pubkey)),
            *(ArkoorDestination(amount_sat, change_policy) for amount_sat in self.change_sat),
        )


@dataclass(frozen=True, slots=True)
class Registering:
    """The split is done and stored; the server needs the chains of both sides of it."""

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    change_ids: tuple[VtxoIdText, ...]
    type: Literal["registering"] = "registering"


@dataclass(frozen=True, slots=True)
class Preparing:
    """To be asked for a transaction.

    vtxo_ids: sorted, because the server knows an equal request by the order too. earlier: transactions for
    which forfeits have left us; any of them may appear.
    """

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    earlier: tuple[TxHex, ...] = ()
    type: Literal["preparing"] = "preparing"


@dataclass(frozen=True, slots=True)
class Prepared:
    """The transaction is proposed and checked; the server perhaps has our forfeits."""

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    tx: TxHex
    pub_nonces: tuple[HexBytes, ...]
    earlier: tuple[TxHex, ...] = ()
    type: Literal["prepared"] = "prepared"


@dataclass(frozen=True, slots=True)
class Broadcasting:
    """The transaction is signed."""

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    tx: TxHex
    earlier: tuple[TxHex, ...] = ()
    type: Literal["broadcasting"] = "broadcasting"


@dataclass(frozen=True, slots=True)
class Confirming:
    """The transaction is out. since: Unix seconds."""

    payment: Payment
    vtxo_ids: tuple[VtxoIdText, ...]
    tx: TxHex
    since: float
    earlier: tuple[TxHex, ...] = ()
    trouble: str | None = None
    type: Literal["confirming"] = "confirming"

    @property
    def txid(self) -> TxidText:
        return self.tx.txid


State = Splitting | Registering | Preparing | Prepared | Broadcasting | Confirming
FORMAT: PayloadFormat[State] = PayloadFormat(
    "offboard", lambda: TypeAdapter(Annotated[State, Field(discriminator="type")])
)


def not_given_up(state: State) -> tuple[VtxoId, ...]:
    """VTXOs of an offboard that the server cannot have taken, as far as it has come in this state."""
    match state:
        case Registering():
            return (*state.vtxo_ids, *state.change_ids)
        case Preparing(earlier=()):
            return state.vtxo_ids
        case _:
            return ()


UPSTREAM_NAMES: dict[type[State], str] = {
    Splitting: "SplitWithArkoor",
    Registering: "ArkoorRegistrationRequired",
    Preparing: "ReadyForOffboard",
    Prepared: "OffboardTxPrepared",
    Broadcasting: "ReadyForBroadcast",
    Confirming: "AwaitingConfirmations",
}
"""As clients know them."""
