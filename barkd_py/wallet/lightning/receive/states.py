"""What a payment that comes in over Lightning can be, as values; which follows which is `lightning_receive`.

The preimage is in every state from the first on. Until `PreimageRevealed` is stored it has left the wallet
nowhere, and giving up costs nobody anything; from then on the sender may have paid. Source: sheet 05 §5.2.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from barkd_py.ark.arkoor import ArkoorDestination
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.wallet.store.payloads import (
    BlockRefJson,
    PayloadFormat,
    PreimageHex,
    PublicKeyHex,
    VtxoHex,
    VtxoIdText,
)


@dataclass(frozen=True, slots=True)
class ReceiveTerms:
    """What was fixed when the invoice was made.

    fee_sat: the server's fee at that time. cltv_delta: blocks that the server was asked to keep for us.
    user_pubkey: our key of the HTLC VTXOs. payee_pubkey: the key that the money is claimed to. deliver_to:
    the Ark address of another wallet that gets it; None if it is ours. token: for a server that asks for one.
    """

    invoice: str
    preimage: PreimageHex
    amount_sat: int
    fee_sat: int
    cltv_delta: int
    user_pubkey: PublicKeyHex
    payee_pubkey: PublicKeyHex
    deliver_to: str | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def payment_hash(self) -> bytes:
        """32 bytes."""
        return self.preimage.payment_hash

    @property
    def expires_at(self) -> int:
        """Unix seconds."""
        return Bolt11Invoice.parse(self.invoice).expires_at

    def claim_destination(self, amount_sat: int) -> ArkoorDestination:
        """Always the same for the same amount: the server cosigns a claim once, and then only repeats it."""
        return ArkoorDestination(amount_sat, PubkeyPolicy(self.payee_pubkey))


@dataclass(frozen=True, slots=True)
class AwaitingPayment:
    """The invoice is out. refusals: how often the server refused the grant, or granted something unfit."""

    terms: ReceiveTerms
    refusals: int = 0
    type: Literal["awaiting-payment"] = "awaiting-payment"


@dataclass(frozen=True, slots=True)
class HtlcsReady:
    """The server has granted HTLC VTXOs that were found good. htlc_ids: ascending."""

    terms: ReceiveTerms
    htlc_ids: tuple[VtxoIdText, ...]
    type: Literal["htlcs-ready"] = "htlcs-ready"


@dataclass(frozen=True, slots=True)
class PreimageRevealed:
    """The preimage is out, or is about to be.

    claim_attempts: how often a claim failed without a refusal. is_exiting: exits of the HTLC VTXOs were
    started, or they are on the chain. is_sent: False as long as the preimage is certainly still ours, because
    the HTLC VTXOs were on the chain before it was sent to anybody. expired_since: the tip at which some of
    them were first seen to have expired, as long as that holds.
    """

    terms: ReceiveTerms
    htlc_ids: tuple[VtxoIdText, ...]
    revealed_at: datetime
    claim_attempts: int = 0
    is_exiting: bool = False
    is_sent: bool = True
    expired_since: BlockRefJson | None = None
    type: Literal["preimage-revealed"] = "preimage-revealed"


@dataclass(frozen=True, slots=True)
class Delivering:
    """Claimed for another wallet, which has to be told. vtxos: theirs, and stored nowhere else."""

    terms: ReceiveTerms
    vtxos: tuple[VtxoHex, ...]
    revealed_at: datetime
    type: Literal["delivering"] = "delivering"


State = AwaitingPayment | HtlcsReady | PreimageRevealed | Delivering

FORMAT: PayloadFormat[State] = PayloadFormat(
    "lightning receive", lambda: TypeAdapter(Annotated[State, Field(discriminator="type")])
)


def reported_vtxos(state: State) -> tuple[VtxoId, ...]:
    """What the balance counts: HTLC VTXOs whose preimage is out, unless they are for another wallet."""
    if isinstance(state, PreimageRevealed) and state.terms.deliver_to is None:
        return state.htlc_ids
    return ()
