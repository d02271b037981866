"""Payments that come in over Lightning: making invoices, looking at them, canceling them, driving them.

An invoice is given out only after it was verified and the preimage is stored with a key of ours. What becomes
of it then is `actions.lightning_receive`.

Who drives: the mailbox, when the server says that a payment has come; a sync; and `poll`, which the daemon
calls about once a second, because a server tells of a payment hash only once. `poll` looks at each payment at
its own pace: often while somebody may be standing there and waiting, ever less often as the invoice grows old
or as trouble lasts.

Source: protocol sheet 05 §5.1, §5.8, §5.10.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.fees import lightning_receive_fee, subtract_fee
from barkd_py.ark.lightning_receive import ClaimWindow, Preimage, verify_invoice
from barkd_py.ark.mailbox import decode_blinded_id
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.bolt11 import Bolt11Invoice, InvalidInvoice
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import Network, format_btc
from barkd_py.errors import (
    BarkdError,
    InvalidInput,
    NotFound,
    ProtocolViolation,
    StateConflict,
    StoreError,
    chain_text,
)
from barkd_py.server_rpc.api import ArkServerApi, LightningReceiveState
from barkd_py.wallet.actions.arkoor_send import UnusableMailbox
from barkd_py.wallet.actions.executor import ActionExecutor
from barkd_py.wallet.actions.lightning_receive import LightningReceiveMachine, NoMailbox
from barkd_py.wallet.actions.lightning_receive_states import (
    AwaitingPayment,
    Delivering,
    HtlcsReady,
    PreimageRevealed,
    ReceiveState,
    ReceiveTerms,
)
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.lightning.ids import receive_action_id
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionCheckpoint, ActionKind
from barkd_py.wallet.vtxos import WalletVtxo

log = logging.getLogger(__name__)

MAX_DRIVEN_AT_ONCE = 8
CANCEL_WAIT_SECS = 10.0

MIN_LOOK_SECS = 1.0
MAX_LOOK_SECS = 60.0
LOOKS_PER_AGE = 30
"""An invoice is looked at when its age has grown by this part."""

SETTLED = "settled"


class ZeroInvoice(BarkdError):
    def __init__(self) -> None:
        super().__init__(
            "Cannot create invoice for 0 sats "
            "(this would create an explicit 0 sat invoice, not an any-amount invoice)"
        )


class UnreadableInvoice(ProtocolViolation):
    """What the server returned is no invoice; the cause says why."""

    def __init__(self) -> None:
        super().__init__("invalid bolt11 invoice returned by Ark server")


class UnknownReceive(NotFound):
    """No payment of this hash is expected."""

    def __init__(self, payment_hash: bytes) -> None:
        text = payment_hash.hex()
        super().__init__("no pending lightning receive found for this payment hash", (text,))


class CannotCancelReceive(StateConflict):
    """It is too late. Nothing was changed."""


class AboveMaximum(BarkdError):
    """The server holds no VTXO of this amount."""

    def __init__(self, amount_sat: int, maximum_sat: int) -> None:
        super().__init__(
            f"amount of {format_btc(amount_sat)} exceeds maximum value of {format_btc(maximum_sat)}"
        )


@dataclass(frozen=True, slots=True)
class LightningReceive:
    """A payment that comes in, as clients see it. payment_hash: 32 bytes.

    state: its name in the JSON. htlc_vtxos: those that the server has granted, until they are claimed.
    """

    payment_hash: bytes
    state: str
    invoice: str
    preimage: Preimage
    amount_sat: int
    htlc_vtxos: tuple[WalletVtxo, ...] = ()
    preimage_revealed_at: datetime | None = None
    settled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReceiveEstimate:
    """gross: what the sender pays; net: what is left of it."""

    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...] = ()


@dataclass(slots=True)
class _Schedule:
    """When to look at a payment again. next_at: monotonic seconds. failures: in a row."""

    next_at: float = 0.0
    failures: int = 0
    trouble: str = ""


class LightningReceives:
    """Made by the wallet. Close it when done.

    wakeup: set when there is something to poll for that was not there before.
    now: Unix seconds. monotonic: seconds.
    """

    def __init__(
        self,
        store: Store,
        executor: ActionExecutor,
        machine: LightningReceiveMachine,
        keychain: Keychain,
        server: ArkServerApi,
        locks: NamedLocks,
        *,
        network: Network,
        window: ClaimWindow,
        wakeup: asyncio.Event,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._executor = executor
        self._machine = machine
        self._keychain = keychain
        self._server = server
        self._locks = locks
        self._network = network
        self._window = window
        self._wakeup = wakeup
        self._now = now
        self._monotonic = monotonic
        self._schedules: dict[str, _Schedule] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._turns = asyncio.Semaphore(MAX_DRIVEN_AT_ONCE)

    # --- making invoices

    async def create(
        self, amount_sat: int, *, description: str | None = None, token: str | None = None
    ) -> str:
        """A new invoice; its preimage is stored when this returns.

        token: for a server that asks strangers for one. Raises ZeroInvoice, FeeExceedsAmount, CltvTooLarge,
        the server's refusal, UnreadableInvoice, InvoiceMismatch.
        """
        return await self._create(amount_sat, description, token, address=None)

    async def create_for(
        self, address: ArkAddress, amount_sat: int, *, description: str | None = None
    ) -> str:
        """As `create`; the money goes to an Ark address, which may be another wallet's.

        The address has been found payable by `check_address`.
        """
        return await self._create(amount_sat, description, None, address)

    async def check_address(self, address: ArkAddress) -> None:
        """Raises InvalidInput for an address that nothing could be delivered to."""
        info = await self._server.info()
        address.validate_for(info.server_pubkey, self._network)
        if await self._keychain.find(address.user_pubkey) is not None:
            return  # our own: nothing has to be delivered
        if not address.mailbox_ids():
            raise InvalidInput(str(NoMailbox()))
        for blinded_id in address.mailbox_ids():
            try:
                decode_blinded_id(blinded_id)
            except DecodeError as error:
                raise UnusableMailbox from error

    async def _create(
        self, amount_sat: int, description: str | None, token: str | None, address: ArkAddress | None
    ) -> str:
        if amount_sat == 0:
            raise ZeroInvoice
        info = await self._server.info()
        subtract_fee(amount_sat, lightning_receive_fee(info.fees, amount_sat))
        cltv_delta = self._window.min_cltv_delta(info)
        preimage = Preimage.generate()
        text = await self._server.start_lightning_receive(
            payment_hash=preimage.payment_hash,
            amount_sat=amount_sat,
            min_cltv_delta=cltv_delta,
            mailbox_id=self._keychain.mailbox_key.public_key,
            description=description,
        )
        try:
            invoice = Bolt11Invoice.parse(text)
        except InvalidInvoice as error:
            raise UnreadableInvoice from error
        verify_invoice(
            invoice,
            payment_hash=preimage.payment_hash,
            amount_sat=amount_sat,
            description=description,
            network=self._network,
            now=self._now(),
        )
        is_ours = address is None or await self._keychain.find(address.user_pubkey) is not None

        async def prepare(tx: Transaction) -> ReceiveState:
            key = await self._keychain.reserve_in(tx)
            payee: PublicKey = key.public_key if address is None else address.user_pubkey
            terms = ReceiveTerms(
                invoice=text,
                preimage=preimage,
                amount_sat=amount_sat,
                cltv_delta=cltv_delta,
                user_pubkey=key.public_key,
                payee_pubkey=payee,
                deliver_to=None if is_ours else str(address),
                token=token,
            )
            return AwaitingPayment(terms)

        action_id = receive_action_id(preimage.payment_hash)
        await self._executor.store_new(self._machine, action_id, prepare)
        if self._schedules is not None:
            self._schedules[action_id] = _Schedule(self._monotonic() + MIN_LOOK_SECS)
        self._wakeup.set()
        return text

    async def estimate(self, amount_sat: int) -> ReceiveEstimate:
        """What the server would keep of an amount. Raises AboveMaximum, FeeOverflow."""
        info = await self._server.info()
        if info.max_vtxo_amount_sat is not None and amount_sat > info.max_vtxo_amount_sat:
            raise AboveMaximum(amount_sat, info.max_vtxo_amount_sat)
        fee_sat = lightning_receive_fee(info.fees, amount_sat)
        return ReceiveEstimate(amount_sat, fee_sat, max(0, amount_sat - fee_sat))

    # --- looking

    async def pending(self) -> Sequence[LightningReceive]:
        """Those that are not finished, oldest first."""
        async with self._store.read() as tx:
            rows = await tx.actions.list(ActionKind.LIGHTNING_RECEIVE)
            return [await _shown(tx, self._machine.decode(row.payload)) for row in rows]

    async def find(self, payment_hash: bytes) -> LightningReceive:
        """One of them, or one that was settled. Raises UnknownReceive."""
        async with self._store.read() as tx:
            row = await tx.actions.find(receive_action_id(payment_hash))
            if row is not None:
                return await _shown(tx, self._machine.decode(row.payload))
            settled = await tx.lightning.find_settled(payment_hash)
        if settled is None:
            raise UnknownReceive(payment_hash)
        return LightningReceive(
            payment_hash,
            SETTLED,
            settled.invoice,
            Preimage(settled.preimage),
            settled.amount_sat,
            preimage_revealed_at=settled.settled_at,
            settled_at=settled.settled_at,
        )

    # --- canceling

    async def cancel(self, payment_hash: bytes) -> None:
        """Give up an invoice that nobody has paid.

        The server is told, but need not listen: without the preimage it cannot keep a payment. Only one that
        is on its way already is not canceled: within one server that would leave its sender without an
        answer for days. Raises UnknownReceive, CannotCancelReceive, LockTimeout.
        """
        action_id = receive_action_id(payment_hash)
        busy = "receive operation already in progress for this payment"
        async with self._locks.hold(action_id, timeout_seconds=CANCEL_WAIT_SECS, timeout_text=busy):
            async with self._store.read() as tx:
                row = await tx.actions.find(action_id)
            if row is None:
                raise UnknownReceive(payment_hash)
            match self._machine.decode(row.payload):
                case AwaitingPayment():
                    await self._cancel_at_server(payment_hash)
                case HtlcsReady():
                    raise CannotCancelReceive(
                        "cannot cancel: HTLCs already granted; "
                        "the receive will complete or be abandoned near expiry"
                    )
                case PreimageRevealed() | Delivering():
                    raise CannotCancelReceive("cannot cancel: preimage has already been revealed")
                case unreachable:
                    assert_never(unreachable)
            async with self._store.transaction() as tx:
                await tx.actions.delete(action_id)
        self._forget(action_id)

    async def _cancel_at_server(self, payment_hash: bytes) -> None:
        """Raises CannotCancelReceive if a payment has arrived; all other trouble is logged."""
        try:
            status = await self._server.check_lightning_receive(payment_hash)
            if status.state in (LightningReceiveState.ACCEPTED, LightningReceiveState.HTLCS_READY):
                raise CannotCancelReceive("cannot cancel: the payment has arrived and is being claimed")
            await self._server.cancel_lightning_receive(payment_hash)
        except (StoreError, CannotCancelReceive):
            raise
        except BarkdError as error:
            log.warning("lightning receive %s: cancel: %s", payment_hash.hex(), chain_text(error))

    # --- driving

    async def on_incoming(self, payment_hash: bytes) -> None:
        """The mailbox: the server says that a payment has come. Nobody waits for what follows."""
        async with self._store.read() as tx:
            row = await tx.actions.find(receive_action_id(payment_hash))
        if row is None:
            log.warning("no lightning receive is pending for payment hash %s", payment_hash.hex())
            return
        if row.id in self._tasks:
            self._again.add(row.id)  # it may have looked just before
        self._start([row.id])

    async def drive_all(self) -> None:
        """Drive each of them until it pauses; trouble is logged."""
        async with self._store.read() as tx:
            rows = await tx.actions.list(ActionKind.LIGHTNING_RECEIVE)
        tasks = self._start([row.id for row in rows])
        await asyncio.gather(*tasks)

    async def is_pending(self) -> bool:
        """Whether any is not finished."""
        return bool(await self._load())

    async def poll(self) -> None:
        """Drive those whose time has come, in the background."""
        now = self._monotonic()
        self._start([action_id for action_id, entry in (await self._load()).items() if entry.next_at <= now])

    async def settle_down(self) -> None:
        """Wait until nothing is being driven."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Stop driving; every payment is where its row says."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self) -> dict[str, _Schedule]:
        if self._schedules is None:
            async with self._store.read() as tx:
                rows = await tx.actions.list(ActionKind.LIGHTNING_RECEIVE)
            if self._schedules is None:
                self._schedules = {row.id: _Schedule() for row in rows}
        return self._schedules

    def _forget(self, action_id: str) -> None:
        if self._schedules is not None:
            self._schedules.pop(action_id, None)

    def _start(self, action_ids: Iterable[str]) -> list[asyncio.Task[None]]:
        """The tasks that drive them; one that is being driven is not driven twice."""
        tasks = []
        for action_id in action_ids:
            task = self._tasks.get(action_id)
            if task is None:
                task = asyncio.create_task(self._drive(action_id), name=action_id)
                self._tasks[action_id] = task
                task.add_done_callback(self._ended)
            tasks.append(task)
        return tasks

    def _ended(self, task: asyncio.Task[None]) -> None:
        action_id = task.get_name()
        self._tasks.pop(action_id, None)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("%s", action_id, exc_info=error)
        if action_id in self._again:
            self._again.discard(action_id)
            self._start([action_id])

    async def _drive(self, action_id: str) -> None:
        async with self._turns:
            trouble: BarkdError | None = None
            try:
                await self._executor.drive(self._machine, action_id)
            except BarkdError as error:
                trouble = error
            async with self._store.read() as tx:
                row = await tx.actions.find(action_id)
        self._reschedule(action_id, row, trouble)

    def _reschedule(self, action_id: str, row: ActionCheckpoint | None, trouble: BarkdError | None) -> None:
        entry = _Schedule() if self._schedules is None else self._schedules.setdefault(action_id, _Schedule())
        text = "" if trouble is None else chain_text(trouble)
        if row is None:
            self._forget(action_id)
            if text:
                log.warning("%s ended: %s", action_id, text)
            return
        if text and text != entry.trouble:
            log.warning("%s goes on: %s", action_id, text)
        entry.trouble = text
        entry.failures = entry.failures + 1 if text else 0
        pause = MIN_LOOK_SECS * 2.0 ** min(entry.failures, 10)
        if not text and isinstance(self._machine.decode(row.payload), AwaitingPayment):
            pause = (self._now() - row.created_at.timestamp()) / LOOKS_PER_AGE
        entry.next_at = self._monotonic() + min(MAX_LOOK_SECS, max(MIN_LOOK_SECS, pause))


async def _shown(tx: Transaction, state: ReceiveState) -> LightningReceive:
    terms = state.terms
    htlc_ids = state.htlc_ids if isinstance(state, HtlcsReady | PreimageRevealed) else ()
    revealed_at = state.revealed_at if isinstance(state, PreimageRevealed | Delivering) else None
    return LightningReceive(
        terms.payment_hash,
        state.type,
        terms.invoice,
        terms.preimage,
        terms.amount_sat,
        await tx.vtxos.get_many(htlc_ids),
        revealed_at,
    )
