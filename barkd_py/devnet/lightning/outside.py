"""Lightning nodes outside Ark, for whoever controls devnet: they ask for money, and they pay."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from secrets import token_bytes

from sqlalchemy import Connection

from barkd_py.bitcoin.bolt11 import (
    DEFAULT_EXPIRY_SECS,
    DEFAULT_MIN_FINAL_CLTV_DELTA,
    Bolt11Invoice,
    create_invoice,
)
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.lightning_rows import FailureReason
from barkd_py.devnet.lightning import rows
from barkd_py.devnet.lightning.behaviour import Behaviour
from barkd_py.devnet.lightning.offers import OfferTerms, write_offer
from barkd_py.devnet.lightning.rows import Incoming, OutsideInvoice
from barkd_py.devnet.lightning.server_node import ServerNode
from barkd_py.errors import InvalidInput, NotFound


@dataclass(frozen=True, slots=True)
class InvoiceTerms:
    """What an invoice is to say. preimage: None for a new one."""

    amount_msat: int | None
    description: str = ""
    description_hash: bytes | None = None
    expiry_secs: int = DEFAULT_EXPIRY_SECS
    min_final_cltv_delta: int = DEFAULT_MIN_FINAL_CLTV_DELTA
    network: Network = Network.REGTEST
    preimage: bytes | None = None
    comment: str | None = None


class Outside:
    """The nodes. Payees have one key, which is also its name; payers have none that anybody sees."""

    def __init__(
        self, node: ServerNode, chain: ServerChain, clock: Callable[[], float], secret: SecretKey
    ) -> None:
        self._node = node
        self._store = node.store
        self._chain = chain
        self._clock = clock
        self._secret = secret

    @classmethod
    async def open(cls, node: ServerNode, chain: ServerChain, clock: Callable[[], float]) -> "Outside":
        secret = await node.store.transact(partial(rows.secret_of, name="outside"))
        return cls(node, chain, clock, secret)

    @property
    def store(self) -> Store:
        return self._store

    @property
    def node_id(self) -> str:
        return str(self._secret.public_key)

    # --- being paid

    async def invoice(self, terms: InvoiceTerms, behaviour: Behaviour) -> Bolt11Invoice:
        """Ask for money."""
        preimage = terms.preimage or token_bytes(32)
        invoice = create_invoice(
            self._secret,
            network=terms.network,
            amount_msat=terms.amount_msat,
            payment_hash=sha256(preimage),
            payment_secret=token_bytes(32),
            timestamp=int(self._clock()),
            description=terms.description,
            description_hash=terms.description_hash,
            expiry_secs=terms.expiry_secs,
            min_final_cltv_delta=terms.min_final_cltv_delta,
        )
        new = OutsideInvoice(
            payment_hash=invoice.payment_hash,
            text=invoice.text,
            amount_msat=invoice.amount_msat,
            preimage=preimage,
            behaviour=behaviour,
            expires_at=invoice.expires_at,
            min_final_cltv_delta=invoice.min_final_cltv_delta,
            comment=terms.comment,
        )
        await self._store.transact(partial(rows.put_invoice, new=new))
        return invoice

    async def offer(self, terms: OfferTerms, behaviour: Behaviour) -> Offer:
        """Ask for money as often as somebody wants to pay."""
        secret = SecretKey.generate()
        offer = write_offer(secret, terms)
        await self._store.transact(
            partial(rows.put_offer, data=offer.data, secret=secret, behaviour=behaviour)
        )
        return offer

    async def settle(self, payment_hash: bytes) -> bytes:
        """Take a payment that is held, or that never gets an answer; the preimage. Raises InvalidInput,
        NotFound.
        """
        payment, invoice = await self._waiting(payment_hash)
        await self._node.take(payment, invoice)
        return invoice.preimage

    async def fail(self, payment_hash: bytes, reason: FailureReason) -> None:
        """Send such a payment back. Raises InvalidInput, NotFound."""
        payment, _ = await self._waiting(payment_hash)
        await self._store.transact(partial(rows.set_invoice, payment_hash=payment_hash, state="open"))
        await self._node.end_payment(payment, "failed", reason=reason)

    async def _waiting(self, payment_hash: bytes) -> tuple[rows.Payment, OutsideInvoice]:
        invoice = await self._store.transact(partial(rows.find_invoice, payment_hash=payment_hash))
        if invoice is None:
            raise NotFound(f"no invoice of {payment_hash.hex()}", [payment_hash.hex()])
        payment = await self._store.transact(partial(rows.latest_payment, payment_hash=payment_hash))
        if payment is None or payment.state != "pending":
            raise InvalidInput("no payment is waiting")
        return payment, invoice

    # --- paying

    async def pay(self, text: str, *, amount_msat: int | None = None, extra_cltv: int = 0) -> Incoming:
        """Pay an invoice of the Ark server's, or a part of it; the payment, held or refused at once.

        extra_cltv: blocks more than the invoice wants. Raises InvalidInput.
        """
        invoice = Bolt11Invoice.parse(text)
        sent_msat = amount_msat if amount_msat is not None else invoice.amount_msat
        if sent_msat is None or sent_msat <= 0:
            raise InvalidInput("the invoice has no amount")
        tip_height = (await self._chain.tip()).height
        payment = Incoming(
            id=0,
            payment_hash=invoice.payment_hash,
            amount_msat=sent_msat,
            expiry_height=tip_height + invoice.min_final_cltv_delta + extra_cltv,
            arrived_at=self._clock(),
        )
        sent = await self._store.transact(partial(_arrive, payment=payment, text=text, now=self._clock()))
        self._node.tell(invoice.payment_hash)
        return sent

    async def outcome(self, payment: Incoming) -> Incoming:
        """The same payment when it is over."""
        while True:
            news = self._node.news
            now = await self._store.transact(partial(rows.get_incoming, number=payment.id))
            if now.state != "held":
                return now
            await asyncio.shield(news.wait())


def _arrive(connection: Connection, payment: Incoming, text: str, now: float) -> Incoming:
    """Store a payment as the node sees it: it holds it, unless it is not for an invoice that is open."""
    invoice = rows.find_hold_invoice(connection, payment.payment_hash)
    reason = FailureReason.UNSPECIFIED
    if invoice is None or invoice.text.lower() != text.lower():
        reason = FailureReason.NO_ROUTE
    elif invoice.state != "open" or now > invoice.expires_at:
        reason = FailureReason.DESTINATION_REJECTED
    else:
        parts = rows.held_for(connection, payment.payment_hash)
        already_msat = sum(each.amount_msat for each in parts)
        if (
            already_msat + payment.amount_msat > 2 * invoice.amount_msat
            or already_msat >= invoice.amount_msat
        ):
            reason = FailureReason.DESTINATION_REJECTED
    state = "failed" if reason is not FailureReason.UNSPECIFIED else "held"
    number = rows.insert_incoming(
        connection,
        Incoming(
            id=0,
            payment_hash=payment.payment_hash,
            amount_msat=payment.amount_msat,
            expiry_height=payment.expiry_height,
            arrived_at=payment.arrived_at,
            state=state,
            reason=reason,
        ),
    )
    return rows.get_incoming(connection, number)
