"""What the Ark server asks of its Lightning node.

The node issues *hold invoices*: a payment to one is held until the server settles it with the preimage, or
cancels it. And it pays invoices of others. It keeps what is in flight over restarts; the server asks it for
the state, and is called when something changes.

Devnet's node is `barkd_py.devnet.lightning`.

Source: sheet 10 §9.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from barkd_py.bitcoin.units import Network
from barkd_py.devnet.ark_server.failures import Failure
from barkd_py.devnet.ark_server.store.lightning_rows import FailureReason


class NodeAway(Failure):
    """There is no node that could do it now."""


@dataclass(frozen=True, slots=True)
class HoldInvoiceTerms:
    """What an invoice is to say. amount_msat: what it asks for. expiry_secs: for how long it is valid."""

    payment_hash: bytes
    amount_msat: int
    description: str
    expiry_secs: int
    min_final_cltv_delta: int
    network: Network


@dataclass(frozen=True, slots=True)
class HeldPayment:
    """A payment that has arrived in full. lowest_expiry_height: when the payer gets it back by itself."""

    amount_msat: int
    lowest_expiry_height: int


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """What to pay. amount_msat: what the invoice asks for, or what the payer chose. retry_secs: 0 for one
    try.
    """

    payment_hash: bytes
    invoice: str
    amount_msat: int
    max_fee_msat: int
    max_cltv_delta: int
    retry_secs: int


@dataclass(frozen=True, slots=True)
class Pending:
    """The payment is under way."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """preimage: 32 bytes. despite_failure: the node had called it failed before."""

    preimage: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The payment will never be made. preimage: it was made all the same; the node learned of it too late."""

    reason: FailureReason
    preimage: bytes | None = None


NodePayment = Pending | Succeeded | Failed


class LightningNode(Protocol):
    """The server's node. Everything but looking raises NodeAway while it is away."""

    def listen(self, changed: Callable[[bytes], None]) -> None:
        """Whom to call, with a payment hash, when something about it has changed."""

    async def add_hold_invoice(self, terms: HoldInvoiceTerms) -> str:
        """Issue an invoice."""

    async def reinstate_hold_invoice(self, payment_hash: bytes) -> None:
        """Make an invoice that was cancelled payable again."""

    async def held(self, payment_hash: bytes) -> HeldPayment | None:
        """What is held for a hold invoice, once it is all of its amount."""

    async def held_hashes(self) -> list[bytes]:
        """For which hashes anything is held now."""

    async def settle_hold_invoice(self, payment_hash: bytes, preimage: bytes) -> None:
        """Take what is held. Safe to repeat."""

    async def cancel_hold_invoice(self, payment_hash: bytes) -> None:
        """Give back what is held, and refuse what may still come. Safe to repeat."""

    async def pay(self, order: PaymentOrder) -> None:
        """Start to pay."""

    async def payment(self, payment_hash: bytes) -> NodePayment | None:
        """How the latest payment of a hash stands; None if the node knows of none."""

    async def fetch_invoice(self, offer: bytes, amount_msat: int) -> bytes:
        """Ask who made an offer for an invoice, both as TLV streams. Raises Failure."""


class NoNode:
    """A server without Lightning."""

    def listen(self, changed: Callable[[bytes], None]) -> None:
        pass

    async def add_hold_invoice(self, terms: HoldInvoiceTerms) -> str:
        raise NodeAway("no active hold-compatible cln node")

    async def reinstate_hold_invoice(self, payment_hash: bytes) -> None:
        raise NodeAway("no active hold-compatible cln node")

    async def held(self, payment_hash: bytes) -> HeldPayment | None:
        return None

    async def held_hashes(self) -> list[bytes]:
        return []

    async def settle_hold_invoice(self, payment_hash: bytes, preimage: bytes) -> None:
        raise NodeAway("no active hold-compatible cln node")

    async def cancel_hold_invoice(self, payment_hash: bytes) -> None:
        raise NodeAway("no active hold-compatible cln node")

    async def pay(self, order: PaymentOrder) -> None:
        raise NodeAway("no active cln node")

    async def payment(self, payment_hash: bytes) -> NodePayment | None:
        return None

    async def fetch_invoice(self, offer: bytes, amount_msat: int) -> bytes:
        raise NodeAway("no active cln node")
