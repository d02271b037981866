"""Driving Lightning: what happens to receives and payments between the calls of their wallets.

The engine is woken with a payment hash whenever something about it may have changed: the node reports, a
wallet has claimed, the chain has shown a preimage. It then takes every step that is due, and tells the
mailboxes. Every second it also looks for what is overdue. All steps are compare-and-set on the books, so it
does not matter how often it looks, and a restart goes on where the books are.

| a receive becomes | when |
|---|---|
| accepted | the node holds all of the invoice's amount, and for long enough; else it is canceled |
| settled | it was claimed (or the chain shows its preimage): the payer is settled with |
| canceled | its invoice expires, or the receiver does not come for what is held |

| a payment becomes | when |
|---|---|
| succeeded | the node has the preimage, or the receive that it pays is settled |
| failed | the node gave up or has never heard of it, or the receive that it pays timed out |

Source: sheet 10 §9.1.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial

from sqlalchemy import Connection

from barkd_py.ark.mailbox import MailboxType
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.devnet.ark_server.failures import Failure
from barkd_py.devnet.ark_server.lightning.node import Failed, NodeAway, Pending, Succeeded
from barkd_py.devnet.ark_server.lightning.parts import LightningParts
from barkd_py.devnet.ark_server.settings import Emulation
from barkd_py.devnet.ark_server.store import lightning_rows, vtxo_rows
from barkd_py.devnet.ark_server.store.lightning_rows import (
    Attempt,
    AttemptStatus,
    FailureReason,
    ReceiveStatus,
    Subscription,
)
from barkd_py.devnet.ark_server.vtxos.mailboxes import Delivery

log = logging.getLogger(__name__)

_SWEEP_SECS = 1.0

#: How old an attempt must be before a node that does not know it has never heard of it.
_UNKNOWN_AFTER_SECS = 5.0

_Wakes = list[PublicKey]


class LightningEngine:
    """See the module."""

    def __init__(self, parts: LightningParts) -> None:
        self._parts = parts
        self._woken: asyncio.Queue[bytes] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._next_sweep = 0.0
        parts.node.listen(self.wake)

    def wake(self, payment_hash: bytes) -> None:
        """Look at a hash soon."""
        self._woken.put_nowait(payment_hash)

    @property
    def changed(self) -> asyncio.Event:
        """It is set when the books may have changed; take it before looking."""
        return self._changed

    async def run(self) -> None:
        """Drive everything for ever."""
        # The node was not heard while the server was down.
        for payment_hash in await self._parts.node.held_hashes():
            self.wake(payment_hash)
        while True:
            try:
                await self._pass()
            except Exception:
                log.exception("Lightning failed")
                await asyncio.sleep(_SWEEP_SECS)

    async def _pass(self) -> None:
        try:
            hashes = {await asyncio.wait_for(self._woken.get(), _SWEEP_SECS)}
        except TimeoutError:
            hashes = set()
        while not self._woken.empty():
            hashes.add(self._woken.get_nowait())
        for payment_hash in hashes:
            await self.advance(payment_hash)
        if time.monotonic() >= self._next_sweep:
            await self.sweep()
            self._next_sweep = time.monotonic() + _SWEEP_SECS

    async def sweep(self) -> None:
        """Look for what is overdue, and for what nobody has woken the engine for."""
        await self._cancel_overdue()
        await self._parts.pool.fill_up_after_use()
        hashes = await self._parts.store.transact(lightning_rows.settleable_hashes)
        hashes += await self._parts.store.transact(lightning_rows.open_external_hashes)
        for payment_hash in hashes:
            await self.advance(payment_hash)

    # --- one hash

    async def advance(self, payment_hash: bytes) -> None:
        """Take all steps of a hash that are due. Safe to repeat."""
        store = self._parts.store
        attempt = await store.transact(partial(lightning_rows.open_attempt, payment_hash=payment_hash))
        if attempt is not None and attempt.subscription is None:
            await self._ask_node(attempt)
        receive = await store.transact(partial(lightning_rows.latest_subscription, payment_hash=payment_hash))
        if receive is not None and receive.status is ReceiveStatus.CREATED:
            await self._accept_held(receive)
        preimage = await store.transact(partial(lightning_rows.preimage_of, payment_hash=payment_hash))
        if receive is not None and receive.status is ReceiveStatus.HTLCS_READY and preimage is not None:
            await self._settle_receive(receive, preimage)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _ask_node(self, attempt: Attempt) -> None:
        match await self._parts.node.payment(attempt.payment_hash):
            case Pending():
                pass
            case Succeeded(preimage):
                await self.succeed(attempt, preimage)
            case Failed(reason, preimage):
                await self.fail(attempt, reason, learned=preimage)
            case None if self._parts.clock() - attempt.created_at > _UNKNOWN_AFTER_SECS:
                await self.fail(attempt, FailureReason.OTHER)

    async def _accept_held(self, receive: Subscription) -> None:
        held = await self._parts.node.held(receive.payment_hash)
        if held is None:
            return
        tip_height = (await self._parts.chain.tip()).height
        if held.lowest_expiry_height < tip_height + receive.min_final_cltv_delta - 1:
            log.info("payment %s expires too early", receive.payment_hash.hex())
            await self._cancel_receive(receive, FailureReason.OTHER)
            return
        accept = partial(self.accept, receive=receive, lowest_expiry_height=held.lowest_expiry_height)
        self._wake_mailboxes(await self._parts.store.transact(accept))

    def accept(self, connection: Connection, receive: Subscription, lowest_expiry_height: int) -> _Wakes:
        """Note inside a transaction that a payment is held; which mailboxes to wake after it."""
        accepted = lightning_rows.move_subscription(
            connection,
            receive.id,
            allowed={ReceiveStatus.CREATED},
            to=ReceiveStatus.ACCEPTED,
            accepted_at=self._parts.clock(),
            lowest_expiry_height=lowest_expiry_height,
        )
        if not accepted or receive.mailbox_id is None:
            return []
        incoming = Delivery(
            MailboxType.LN_RECV_PENDING,
            payment_hash=receive.payment_hash,
            amount_msat=receive.amount_sat * 1000,
        )
        self._parts.mailboxes.note(connection, receive.mailbox_id, incoming)
        return [receive.mailbox_id]

    async def _settle_receive(self, receive: Subscription, preimage: bytes) -> None:
        store = self._parts.store
        attempt = await store.transact(partial(lightning_rows.open_attempt_on, subscription=receive.id))
        if attempt is not None:
            await self.succeed(attempt, preimage)
        else:
            try:
                await self._parts.node.settle_hold_invoice(receive.payment_hash, preimage)
            except NodeAway:
                # Tried again by every sweep.
                return
        await store.transact(
            partial(
                lightning_rows.move_subscription,
                number=receive.id,
                allowed={ReceiveStatus.HTLCS_READY},
                to=ReceiveStatus.SETTLED,
            )
        )

    # --- the end of attempts

    async def succeed(self, attempt: Attempt, preimage: bytes) -> None:
        """The payee has been paid. Safe to repeat."""

        def write(connection: Connection) -> _Wakes:
            lightning_rows.settle(connection, attempt.payment_hash, preimage)
            if not lightning_rows.finish_attempt(connection, attempt.id, AttemptStatus.SUCCEEDED):
                return []
            vtxo_rows.settle_htlcs(connection, lightning_rows.vtxos_of_attempt(connection, attempt.id))
            return self._note_finished(connection, attempt, preimage=preimage)

        self._wake_mailboxes(await self._parts.store.transact(write))

    async def fail(self, attempt: Attempt, reason: FailureReason, *, learned: bytes | None = None) -> None:
        """The payment will not be made. Safe to repeat. learned: a preimage that came all the same."""

        def write(connection: Connection) -> _Wakes:
            if learned is not None:
                lightning_rows.settle(connection, attempt.payment_hash, learned)
            return self.fail_in(connection, attempt, reason)

        self._wake_mailboxes(await self._parts.store.transact(write))

    def fail_in(self, connection: Connection, attempt: Attempt, reason: FailureReason) -> _Wakes:
        """The same inside a transaction; which mailboxes to wake after it."""
        if not lightning_rows.finish_attempt(connection, attempt.id, AttemptStatus.FAILED, reason):
            return []
        log.info("payment %s failed: %s", attempt.payment_hash.hex(), reason.name)
        return self._note_finished(connection, attempt, reason=reason)

    def _note_finished(
        self,
        connection: Connection,
        attempt: Attempt,
        *,
        preimage: bytes | None = None,
        reason: FailureReason | None = None,
    ) -> _Wakes:
        if attempt.mailbox_id is None:
            return []
        tells_reason = reason is not None and self._parts.settings.emulate is Emulation.V0_8
        finished = Delivery(
            MailboxType.LN_SEND_FINISHED,
            payment_hash=attempt.payment_hash,
            preimage=preimage,
            failure_reason=int(reason) if reason is not None and tells_reason else None,
        )
        self._parts.mailboxes.note(connection, attempt.mailbox_id, finished)
        return [attempt.mailbox_id]

    def _wake_mailboxes(self, mailbox_ids: Iterable[PublicKey]) -> None:
        for mailbox_id in mailbox_ids:
            self._parts.mailboxes.wake(mailbox_id)

    # --- what is overdue

    async def _cancel_overdue(self) -> None:
        now = self._parts.clock()
        accepted_before = now - self._parts.settings.receive_htlc_forward_timeout_secs
        overdue = await self._parts.store.transact(
            partial(lightning_rows.overdue_subscriptions, now=now, accepted_before=accepted_before)
        )
        for receive in overdue:
            await self._cancel_receive(receive, FailureReason.SETUP_TIMEOUT)

    async def _cancel_receive(self, receive: Subscription, reason: FailureReason) -> None:
        """Give a payment back that nobody came for; whoever pays inside the server is told."""

        def write(connection: Connection) -> tuple[bool, _Wakes]:
            if lightning_rows.preimage_of(connection, receive.payment_hash) is not None:
                return False, []
            canceled = lightning_rows.move_subscription(
                connection, receive.id, allowed={receive.status}, to=ReceiveStatus.CANCELED
            )
            attempt = lightning_rows.open_attempt_on(connection, receive.id)
            if not canceled or attempt is None:
                return canceled, []
            return True, self.fail_in(connection, attempt, reason)

        canceled, wakes = await self._parts.store.transact(write)
        self._wake_mailboxes(wakes)
        if not canceled:
            return
        log.info("receive %s canceled: htlc vtxo setup timed out", receive.payment_hash.hex())
        try:
            await self._parts.node.cancel_hold_invoice(receive.payment_hash)
        except Failure as error:
            log.info("hold invoice %s: %s", receive.payment_hash.hex(), error)
