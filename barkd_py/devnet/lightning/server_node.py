"""The Ark server's Lightning node, and the network around it.

There is no routing and no channel: a payment is a row with a state. What an onion would carry, and what a
node would refuse, is kept: amounts, expiries, fees and how far away a payee is, a payment that comes in
parts, one that is held and goes back by itself when its time is over.

`ServerNode` is what the Ark server talks to (`LightningNode`); `Outside` is everybody else, for whoever
controls devnet. Both live on the same rows.

Source: sheet 10 §9.3.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from secrets import token_bytes

from sqlalchemy import Connection

from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.failures import Failure
from barkd_py.devnet.ark_server.lightning.invoice import read_offer
from barkd_py.devnet.ark_server.lightning.node import (
    Failed,
    HeldPayment,
    HoldInvoiceTerms,
    NodeAway,
    NodePayment,
    PaymentOrder,
    Pending,
    Succeeded,
)
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.lightning_rows import FailureReason
from barkd_py.devnet.lightning import rows
from barkd_py.devnet.lightning.offers import Bolt12Terms, write_invoice
from barkd_py.devnet.lightning.rows import HoldInvoice, Incoming, OutsideInvoice, Payment
from barkd_py.devnet.lightning.tables import metadata

log = logging.getLogger(__name__)

DATABASE_FILE = "lightning.sqlite"

PARTS_TIMEOUT_SECS = 60.0
"""How long a node waits for the other parts of a payment. Source: BOLT-4, basic multi-part payments."""

_LOOK_SECS = 1.0
_BOLT12_EXPIRY_SECS = 7200
_BOLT12_CLTV_DELTA = 18
_RETRY_SECS = 1.0


class ServerNode:
    """The node of the Ark server. clock: Unix seconds."""

    def __init__(
        self, store: Store, chain: ServerChain, clock: Callable[[], float], secret: SecretKey
    ) -> None:
        self._store = store
        self._chain = chain
        self._clock = clock
        self._secret = secret
        self._changed: Callable[[bytes], None] = lambda payment_hash: None
        self._tries: dict[int, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._is_closed = False
        self.is_online = True

    @classmethod
    async def open(cls, directory: Path, chain: ServerChain, clock: Callable[[], float]) -> "ServerNode":
        """Open or create the nodes' data in a directory."""
        store = await Store.open(directory, DATABASE_FILE, metadata)
        secret = await store.transact(partial(rows.secret_of, name="ark-server"))
        return cls(store, chain, clock, secret)

    async def close(self) -> None:
        """Stop; what is under way goes on after the next start. Safe to repeat."""
        if self._is_closed:
            return
        self._is_closed = True
        tries = list(self._tries.values())
        for task in tries:
            task.cancel()
        await asyncio.gather(*tries, return_exceptions=True)
        await self._store.close()

    @property
    def store(self) -> Store:
        return self._store

    @property
    def node_id(self) -> str:
        return str(self._secret.public_key)

    @property
    def news(self) -> asyncio.Event:
        """It is set when something has changed; take it before looking."""
        return self._news

    def tell(self, payment_hash: bytes) -> None:
        """Let everybody look at a payment hash again."""
        self._changed(payment_hash)
        self._news.set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Go on with what was under way, and let go of what is over, for ever."""
        for each in await self._store.transact(rows.pending_payments):
            if each.id not in self._tries:
                self._drive(each)
        while True:
            try:
                await self.let_go()
            except Exception:
                log.exception("the Lightning node failed")
            await asyncio.sleep(_LOOK_SECS)

    async def let_go(self) -> None:
        """Give back what was held for too long."""
        tip_height = (await self._chain.tip()).height
        now = self._clock()
        for held in await self._store.transact(rows.all_held):
            incomplete = await self.held(held.payment_hash) is None
            is_late = incomplete and now - held.arrived_at > PARTS_TIMEOUT_SECS
            if tip_height >= held.expiry_height or is_late:
                end = partial(
                    rows.end_incoming, number=held.id, state="failed", reason=FailureReason.SETUP_TIMEOUT
                )
                await self._store.transact(end)
                self.tell(held.payment_hash)
        for each in await self._store.transact(rows.pending_payments):
            invoice = await self._store.transact(
                partial(rows.find_invoice, payment_hash=each.order.payment_hash)
            )
            never = invoice is not None and invoice.behaviour.never
            if tip_height >= each.expiry_height and not never:
                if invoice is not None and invoice.state == "held":
                    await self._store.transact(
                        partial(rows.set_invoice, payment_hash=invoice.payment_hash, state="open")
                    )
                await self.end_payment(each, "failed", reason=FailureReason.OTHER)

    # --- LightningNode: receiving

    def listen(self, changed: Callable[[bytes], None]) -> None:
        self._changed = changed

    def _check_online(self, what: str) -> None:
        if not self.is_online:
            raise NodeAway(what)

    async def add_hold_invoice(self, terms: HoldInvoiceTerms) -> str:
        self._check_online("no active hold-compatible cln node")
        invoice = create_invoice(
            self._secret,
            network=terms.network,
            amount_msat=terms.amount_msat,
            payment_hash=terms.payment_hash,
            payment_secret=token_bytes(32),
            timestamp=int(self._clock()),
            description=terms.description,
            expiry_secs=terms.expiry_secs,
            min_final_cltv_delta=terms.min_final_cltv_delta,
        )
        new = HoldInvoice(
            payment_hash=terms.payment_hash,
            text=invoice.text,
            amount_msat=terms.amount_msat,
            expires_at=invoice.expires_at,
            min_final_cltv_delta=terms.min_final_cltv_delta,
        )
        await self._store.transact(partial(rows.put_hold_invoice, new=new))
        return invoice.text

    async def reinstate_hold_invoice(self, payment_hash: bytes) -> None:
        self._check_online("no active hold-compatible cln node")
        await self._store.transact(partial(rows.set_hold_invoice, payment_hash=payment_hash, state="open"))

    async def held(self, payment_hash: bytes) -> HeldPayment | None:
        return await self._store.transact(partial(_held, payment_hash=payment_hash))

    async def held_hashes(self) -> list[bytes]:
        held = await self._store.transact(rows.all_held)
        return list(dict.fromkeys(each.payment_hash for each in held))

    async def settle_hold_invoice(self, payment_hash: bytes, preimage: bytes) -> None:
        self._check_online("no active hold-compatible cln node")

        def write(connection: Connection) -> None:
            rows.set_hold_invoice(connection, payment_hash, "settled")
            for each in rows.held_for(connection, payment_hash):
                rows.end_incoming(connection, each.id, "settled", preimage=preimage)

        await self._store.transact(write)
        self.tell(payment_hash)

    async def cancel_hold_invoice(self, payment_hash: bytes) -> None:
        self._check_online("no active hold-compatible cln node")

        def write(connection: Connection) -> None:
            found = rows.find_hold_invoice(connection, payment_hash)
            if found is None or found.state == "settled":
                return
            rows.set_hold_invoice(connection, payment_hash, "canceled")
            for each in rows.held_for(connection, payment_hash):
                rows.end_incoming(connection, each.id, "failed", reason=FailureReason.DESTINATION_REJECTED)

        await self._store.transact(write)
        self.tell(payment_hash)

    # --- LightningNode: paying

    async def pay(self, order: PaymentOrder) -> None:
        self._check_online("no active cln node")
        # Whoever asked may be gone before it is written; it is tried all the same.
        await asyncio.shield(self._write_and_try(order))

    async def _write_and_try(self, order: PaymentOrder) -> None:
        tip_height = (await self._chain.tip()).height
        now = self._clock()

        def write(connection: Connection) -> Payment:
            invoice = rows.find_invoice(connection, order.payment_hash)
            number = rows.insert_payment(
                connection, order, now + order.retry_secs, tip_height + _cltv_delta(invoice)
            )
            latest = rows.latest_payment(connection, order.payment_hash)
            assert latest is not None
            assert latest.id == number
            return latest

        self._drive(await self._store.transact(write))

    async def payment(self, payment_hash: bytes) -> NodePayment | None:
        latest = await self._store.transact(partial(rows.latest_payment, payment_hash=payment_hash))
        if latest is None:
            return None
        if latest.state == "pending":
            return Pending()
        if latest.state == "succeeded":
            assert latest.preimage is not None
            return Succeeded(latest.preimage)
        return Failed(latest.reason, latest.preimage)

    async def fetch_invoice(self, offer: bytes, amount_msat: int) -> bytes:
        self._check_online("no active cln node")
        found = await self._store.transact(partial(rows.find_offer, data=offer))
        if found is None:
            raise Failure("nobody answers who made the offer")
        secret, behaviour = found
        preimage = token_bytes(32)
        invoice = write_invoice(
            SecretKey.generate() if behaviour.foreign_key else secret,
            read_offer(offer),
            Bolt12Terms(
                amount_msat=behaviour.answer_msat or amount_msat,
                payment_hash=sha256(preimage),
                created_at=int(self._clock()),
                expiry_secs=_BOLT12_EXPIRY_SECS,
                min_final_cltv_delta=_BOLT12_CLTV_DELTA,
            ),
        )
        new = OutsideInvoice(
            payment_hash=invoice.payment_hash,
            text=str(invoice),
            amount_msat=invoice.amount_msat,
            preimage=preimage,
            behaviour=behaviour,
            expires_at=invoice.expires_at,
            min_final_cltv_delta=_BOLT12_CLTV_DELTA,
        )
        await self._store.transact(partial(rows.put_invoice, new=new))
        return invoice.data

    def _drive(self, payment: Payment) -> None:
        task = asyncio.create_task(self._try(payment), name=f"payment-{payment.id}")
        self._tries[payment.id] = task
        task.add_done_callback(lambda done: self._tries.pop(payment.id, None))

    async def _try(self, payment: Payment) -> None:
        """Try to pay, again and again until the time is over."""
        while True:
            reason = await self._try_once(payment)
            if reason is None:
                return
            retriable = reason in (FailureReason.NO_ROUTE, FailureReason.OTHER)
            if not retriable or payment.order.retry_secs == 0:
                await self.end_payment(payment, "failed", reason=reason)
                return
            if self._clock() >= payment.retry_until:
                await self.end_payment(payment, "failed", reason=FailureReason.RETRIES_EXHAUSTED)
                return
            await asyncio.sleep(_RETRY_SECS)

    async def _try_once(self, payment: Payment) -> FailureReason | None:
        """One try: why it failed; None if it did not, or if the payee has it now."""
        find = partial(rows.find_invoice, payment_hash=payment.order.payment_hash)
        invoice = await self._store.transact(find)
        if invoice is None or invoice.text != payment.order.invoice:
            return FailureReason.NO_ROUTE
        behaviour = invoice.behaviour
        if behaviour.never or invoice.state == "held":
            return None
        if behaviour.delay_secs:
            await asyncio.sleep(behaviour.delay_secs)
        if (refusal := self._refusal(payment.order, invoice)) is not None:
            return refusal
        is_refused = behaviour.fail_times is None or invoice.refused < behaviour.fail_times
        if behaviour.reason is not None and is_refused:
            refused = partial(
                rows.set_invoice, payment_hash=invoice.payment_hash, refused=invoice.refused + 1
            )
            await self._store.transact(refused)
            return behaviour.reason
        if behaviour.hold:
            hold = partial(rows.set_invoice, payment_hash=invoice.payment_hash, state="held")
            await self._store.transact(hold)
            self.tell(invoice.payment_hash)
            return None
        await self.take(payment, invoice)
        return None

    def _refusal(self, order: PaymentOrder, invoice: OutsideInvoice) -> FailureReason | None:
        """Why no payee would take it, or no route lead there."""
        if invoice.state == "paid" or self._clock() > invoice.expires_at:
            return FailureReason.INVOICE_STATE
        if invoice.amount_msat is not None and order.amount_msat < invoice.amount_msat:
            return FailureReason.DESTINATION_REJECTED
        if invoice.behaviour.route_fee_msat > order.max_fee_msat:
            return FailureReason.FEE_TOO_LOW
        if _cltv_delta(invoice) > order.max_cltv_delta:
            return FailureReason.CLTV_TOO_LONG
        return None

    async def take(self, payment: Payment, invoice: OutsideInvoice) -> None:
        """The payee takes the payment."""
        await self._store.transact(partial(rows.set_invoice, payment_hash=invoice.payment_hash, state="paid"))
        state = "failed" if invoice.behaviour.late else "succeeded"
        await self.end_payment(payment, state, preimage=invoice.preimage)

    async def end_payment(
        self,
        payment: Payment,
        state: str,
        *,
        reason: FailureReason = FailureReason.UNSPECIFIED,
        preimage: bytes | None = None,
    ) -> None:
        await self._store.transact(
            partial(rows.end_payment, number=payment.id, state=state, reason=reason, preimage=preimage)
        )
        self.tell(payment.order.payment_hash)


def _cltv_delta(invoice: OutsideInvoice | None) -> int:
    """How many blocks a payment needs to get to a payee and be taken."""
    return 0 if invoice is None else invoice.min_final_cltv_delta + invoice.behaviour.route_cltv_delta


def _held(connection: Connection, payment_hash: bytes) -> HeldPayment | None:
    invoice = rows.find_hold_invoice(connection, payment_hash)
    parts: list[Incoming] = rows.held_for(connection, payment_hash)
    total_msat = sum(each.amount_msat for each in parts)
    if invoice is None or invoice.state != "open" or total_msat < invoice.amount_msat:
        return None
    return HeldPayment(total_msat, min(each.expiry_height for each in parts))
