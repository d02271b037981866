"""Payments over Lightning: starting them, looking at them, driving them.

One payment per invoice, however often it is asked for: what is paid is never paid again, and what is under
way goes on. Whoever starts a payment finds that out in the very transaction that locks the inputs.

Who drives: the call that pays, up to the point where the server has been told; then the mailbox, a sync, and
`poll`, which the daemon calls about once a second. A server tells of a payment hash only once, and perhaps to
another wallet, so `poll` looks at each payment at its own pace.

Source: protocol sheet 05 §4.2, §4.12, §6.
"""

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from barkd_py.ark.arkoor import ArkoorDestination, plan_outputs
from barkd_py.ark.fees import VtxoFeeInfo, lightning_send_fee
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.units import Network, format_btc
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError, InsufficientFunds, chain_text
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.actions.executor import ActionExecutor, Until
from barkd_py.wallet.actions.failures import StillPending
from barkd_py.wallet.actions.lightning_send import LightningSendMachine
from barkd_py.wallet.actions.lightning_send_states import (
    Funded,
    Initiated,
    Locked,
    Payment,
    Revocable,
    State,
    Stuck,
    exit_by,
    htlc_policy,
)
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.lightning.ids import send_action_id
from barkd_py.wallet.lightning.invoices import InvoiceSource, LightningDestination, Order
from barkd_py.wallet.locks import LockBusy
from barkd_py.wallet.movements import LIGHTNING_SEND, MovementDestination, MovementUpdate
from barkd_py.wallet.selection import (
    CannotCoverPaymentAndFees,
    FeeSelection,
    SelectionLimits,
    select_with_fee,
)
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionCheckpoint, ActionKind
from barkd_py.wallet.vtxos import ActionHolder, StateKind, WalletVtxo

log = logging.getLogger(__name__)

# How long a caller waits for the server to be told. The payment goes on by itself.
WAIT_SECS = 60.0
MAX_RETRY_FOR_SECS = 2**32 - 1
# No schedule that anybody would agree to takes more than the payment itself and this.
FEE_ALLOWANCE_SAT = 10_000
MAX_DRIVEN_AT_ONCE = 8

MIN_LOOK_SECS = 1.0
MAX_LOOK_SECS = 60.0
STUCK_LOOK_SECS = 30.0
# A payment is looked at when its age has grown by this part, but every so often.
LOOKS_PER_AGE = 30
MAX_PENDING_LOOK_SECS = 10.0


class SendState(enum.StrEnum):
    """How far a payment is, by the names of the JSON. UNKNOWN: never started, or undone."""

    UNKNOWN = "unknown"
    START = "start"
    INPUTS_LOCKED = "inputs-locked"
    HTLC_RECEIVED = "htlc-received"
    PAYMENT_INITIATED = "payment-initiated"
    REVOCABLE_HTLCS = "revocable-htlcs"
    REVOCATION_STUCK = "revocation-stuck"
    PAID = "paid"


@dataclass(frozen=True, slots=True)
class LightningSend:
    """A payment as clients see it. payment_hash, preimage: 32 bytes.

    invoice: while it is under way. preimage: once it is paid.
    """

    payment_hash: bytes
    state: SendState
    invoice: str | None = None
    preimage: bytes | None = None


@dataclass(frozen=True, slots=True)
class PayEstimate:
    """gross: what leaves the wallet. vtxos_spent: none if no choice covers it."""

    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...]


class AlreadyPaid(BarkdError):
    def __init__(self) -> None:
        super().__init__("Invoice has already been paid")


class PaymentInProgress(BarkdError):
    """Another call is paying this invoice at this moment."""

    def __init__(self) -> None:
        super().__init__("Payment operation already in progress for this invoice")


class CannotCoverLightningPayment(InsufficientFunds):
    """The cause says what is missing."""

    def __init__(self) -> None:
        super().__init__("Could not find enough suitable VTXOs to cover lightning payment")


class AbsurdFee(BarkdError):
    """The server's schedule asks for more than anybody would pay. Nothing was paid."""

    def __init__(self, fee_sat: int, amount_sat: int) -> None:
        super().__init__(
            f"the server asks for a fee of {format_btc(fee_sat)} for a payment of {format_btc(amount_sat)}"
        )


class PaymentNotMade(BarkdError):
    """The payment failed; what it cost is in the history."""

    def __init__(self) -> None:
        super().__init__("Lightning payment failed")


class _AlreadyStarted(BarkdError):
    """There is a payment of this hash. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class SendRules:
    """Of the configuration. exit_margin: in blocks."""

    change_split_factor: int
    exit_margin: int


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a payment costs at this moment."""

    info: ArkInfo
    tip_height: int
    exit_margin: int

    @property
    def htlc_expiry_height(self) -> int:
        return self.tip_height + self.info.htlc_send_expiry_delta

    def fee_sat(self, amount_sat: int, infos: Sequence[VtxoFeeInfo]) -> int:
        """The fee at this tip, or at the one before if that is more: the server may be a block behind. What
        is too much goes into the search for a route.
        """
        before = [replace(info, expiry_blocks=info.expiry_blocks + 1) for info in infos]
        return max(lightning_send_fee(self.info.fees, amount_sat, each) for each in (infos, before))

    def select(self, spendable: Sequence[WalletVtxo], amount_sat: int) -> FeeSelection[WalletVtxo]:
        """Inputs whose trees outlive the HTLCs, if there are enough of these; else any.

        A tree that expires first forces stuck HTLCs on the chain early. Raises CannotCoverLightningPayment.
        """
        outlives = self.htlc_expiry_height + 2 * self.info.vtxo_exit_delta + self.exit_margin
        try:
            return self._select(spendable, amount_sat, outlives)
        except CannotCoverPaymentAndFees:
            pass
        try:
            return self._select(spendable, amount_sat, self.tip_height)
        except CannotCoverPaymentAndFees as error:
            raise CannotCoverLightningPayment from error

    def _select(
        self, spendable: Sequence[WalletVtxo], amount_sat: int, expires_after_height: int
    ) -> FeeSelection[WalletVtxo]:
        limits = SelectionLimits(
            max_exit_depth=self.info.max_vtxo_exit_depth, expires_after_height=expires_after_height
        )
        return select_with_fee(spendable, amount_sat, self.fee_sat, tip_height=self.tip_height, limits=limits)


@dataclass(slots=True)
class _Schedule:
    """When to look at a payment again. next_at: monotonic seconds. failures: in a row."""

    next_at: float = 0.0
    failures: int = 0
    trouble: str = ""


class LightningSends:
    """Made by the wallet. Close it when done.

    wakeup: set when there is something to poll for that was not there before. now: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        executor: ActionExecutor,
        machine: LightningSendMachine,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        invoices: InvoiceSource,
        *,
        network: Network,
        rules: SendRules,
        wakeup: asyncio.Event,
        wait_secs: float = WAIT_SECS,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._executor = executor
        self._machine = machine
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._invoices = invoices
        self._network = network
        self._rules = rules
        self._wakeup = wakeup
        self._wait_secs = wait_secs
        self._now = now
        self._monotonic = monotonic
        self._paying: dict[str, asyncio.Task[None]] = {}
        self._driving: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._schedules: dict[str, _Schedule] | None = None
        self._turns = asyncio.Semaphore(MAX_DRIVEN_AT_ONCE)

    # --- paying

    async def pay(
        self,
        destination: LightningDestination,
        amount_sat: int | None,
        *,
        comment: str | None = None,
        retry_for_secs: int | None = None,
        wait: bool = False,
    ) -> bytes:
        """See `daemon.wallet_api.LightningApi`. The payment goes on if the caller is cancelled.

        Raises what `InvoiceSource.order` and `Order.payable_sat` raise, AlreadyPaid, PaymentInProgress,
        CannotCoverLightningPayment, AbsurdFee; the server's refusal; StillPending; PaymentNotMade if waiting.
        """
        order = await self._invoices.order(destination, amount_sat, comment)
        action_id = send_action_id(order.payment_hash)
        if action_id in self._paying:
            raise PaymentInProgress
        until = Until.DONE if wait else Until.PARK
        task = asyncio.create_task(self._pay(action_id, order, retry_for_secs, until), name=action_id)
        self._paying[action_id] = task
        task.add_done_callback(self._paid)
        done, _ = await asyncio.wait({task}, timeout=None if wait else self._wait_secs)
        if not done or task.cancelled():
            raise StillPending("Lightning payment")
        task.result()
        if wait:
            await self._wait_for_end(order.payment_hash)
        return order.payment_hash

    async def _wait_for_end(self, payment_hash: bytes) -> None:
        """Raises PaymentNotMade. Somebody else may be driving it."""
        while (found := await self.find(payment_hash)).invoice is not None:
            await asyncio.sleep(MIN_LOOK_SECS)
            await asyncio.gather(*self._start([send_action_id(payment_hash)]))
        if found.state is not SendState.PAID:
            raise PaymentNotMade

    def _paid(self, task: asyncio.Task[None]) -> None:
        self._paying.pop(task.get_name(), None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("%s: %s", task.get_name(), chain_text(error))

    async def _pay(self, action_id: str, order: Order, retry_for_secs: int | None, until: Until) -> None:
        async with self._store.read() as tx:
            await _check_not_paid(tx, order.payment_hash)
            row = await tx.actions.find(action_id)
        if row is None:
            try:
                await self._begin(action_id, order, retry_for_secs, until)
            except _AlreadyStarted:
                pass
            else:
                return
        await self._executor.drive(self._machine, action_id, until=until)

    async def _begin(self, action_id: str, order: Order, retry_for_secs: int | None, until: Until) -> None:
        """Raises _AlreadyStarted."""
        info = await self._server.info()
        tip = await self._chain.tip()
        amount_sat = order.payable_sat(self._network)
        terms = _Terms(info, tip.height, self._rules.exit_margin)

        async def prepare(tx: Transaction) -> State:
            await _check_not_paid(tx, order.payment_hash)
            if await tx.actions.find(action_id) is not None:
                raise _AlreadyStarted
            return Locked(await self._plan(tx, action_id, order, amount_sat, retry_for_secs, terms))

        try:
            await self._executor.begin(self._machine, action_id, prepare, until=until)
        except LockBusy:  # an earlier payment of this invoice is ending just now
            raise PaymentInProgress from None
        finally:
            if self._schedules is not None:
                self._schedules.setdefault(action_id, _Schedule(self._monotonic() + MIN_LOOK_SECS))
            self._wakeup.set()

    async def _plan(
        self,
        tx: Transaction,
        action_id: str,
        order: Order,
        amount_sat: int,
        retry_for_secs: int | None,
        terms: _Terms,
    ) -> Payment:
        """Choose, reserve and write down everything, once there is something to pay with."""
        selection = terms.select(await tx.vtxos.list([StateKind.SPENDABLE]), amount_sat)
        if selection.fee_sat > amount_sat + FEE_ALLOWANCE_SAT:
            raise AbsurdFee(selection.fee_sat, amount_sat)
        input_ids = tuple(vtxo.id for vtxo in selection.vtxos)
        htlc_key = (await self._keychain.reserve_in(tx)).public_key
        revocation_key = (await self._keychain.reserve_in(tx)).public_key
        policy = htlc_policy(htlc_key, order.payment_hash, terms.htlc_expiry_height)
        outputs = plan_outputs(
            [vtxo.amount_sat for vtxo in selection.vtxos],
            ArkoorDestination(amount_sat + selection.fee_sat, policy),
            PubkeyPolicy(htlc_key),
            split_factor=self._rules.change_split_factor,
        )
        movement = await tx.movements.create(
            LIGHTNING_SEND,
            MovementUpdate(
                intended_balance_sat=-amount_sat,
                offchain_fee_sat=selection.fee_sat,
                input_vtxos=input_ids,
                sent_to=(MovementDestination(order.method, amount_sat),),
                metadata={
                    "htlc_vtxos": [],
                    "payment_hash": order.payment_hash.hex(),
                    "payment_preimage": None,
                },
            ),
        )
        min_expiry_height = min(vtxo.expiry_height for vtxo in selection.vtxos)
        if min_expiry_height < terms.htlc_expiry_height:
            log.warning("%s: an input expires before the HTLCs do", action_id)
        await tx.vtxos.lock(input_ids, ActionHolder(action_id))
        return Payment(
            payment_hash=order.payment_hash,
            invoice=str(order.invoice),
            method=order.method,
            amount_sat=amount_sat,
            fee_sat=selection.fee_sat,
            input_ids=input_ids,
            change_sat=tuple(piece.amount_sat for piece in outputs[1:]),
            htlc_pubkey=htlc_key,
            revocation_pubkey=revocation_key,
            htlc_expiry_height=terms.htlc_expiry_height,
            exit_by_height=exit_by(
                min_expiry_height=min_expiry_height,
                tip_height=terms.tip_height,
                exit_margin=terms.exit_margin,
            ),
            movement_id=movement.id,
            retry_for_secs=None if retry_for_secs is None else min(retry_for_secs, MAX_RETRY_FOR_SECS),
        )

    # --- looking

    async def find(self, payment_hash: bytes) -> LightningSend:
        """How far a payment is."""
        async with self._store.read() as tx:
            paid = await tx.lightning.find_paid(payment_hash)
            row = await tx.actions.find(send_action_id(payment_hash))
        if paid is not None:
            return LightningSend(payment_hash, SendState.PAID, preimage=paid.preimage)
        if row is None:
            return LightningSend(payment_hash, SendState.UNKNOWN)
        state = self._machine.decode(row.payload)
        return LightningSend(payment_hash, _name_of(state), invoice=state.payment.invoice)

    async def estimate(self, amount_sat: int) -> PayEstimate:
        """What a payment would cost; where it cannot be paid, what it costs at most."""
        info = await self._server.info()
        tip = await self._chain.tip()
        terms = _Terms(info, tip.height, self._rules.exit_margin)
        async with self._store.read() as tx:
            spendable = await tx.vtxos.list([StateKind.SPENDABLE])
        try:
            selection = terms.select(spendable, amount_sat)
            fee_sat, spent = selection.fee_sat, tuple(vtxo.id for vtxo in selection.vtxos)
        except BarkdError:
            fee_sat, spent = terms.fee_sat(amount_sat, [VtxoFeeInfo.fresh(amount_sat)]), ()
        return PayEstimate(amount_sat + fee_sat, fee_sat, amount_sat, spent)

    # --- driving

    async def on_finished(self, payment_hash: bytes, preimage: bytes | None) -> None:
        """The mailbox: the server says how a payment ended. Nobody waits for what follows."""
        action_id = send_action_id(payment_hash)
        async with self._store.read() as tx:
            row = await tx.actions.find(action_id)
        if row is None:
            log.info("no lightning send is pending for payment hash %s", payment_hash.hex())
            return
        if preimage is not None:
            self._machine.note_preimage(payment_hash, preimage)
        if action_id in self._driving or action_id in self._paying:
            self._again.add(action_id)  # it may have looked just before
        self._start([action_id])

    async def drive_all(self) -> None:
        """Drive each of them until it pauses; trouble is logged."""
        async with self._store.read() as tx:
            rows = await tx.actions.list(ActionKind.LIGHTNING_SEND)
        await asyncio.gather(*self._start([row.id for row in rows]))

    async def is_pending(self) -> bool:
        """Whether any is not finished."""
        return bool(await self._load())

    async def poll(self) -> None:
        """Drive those whose time has come, in the background."""
        now = self._monotonic()
        self._start([action_id for action_id, entry in (await self._load()).items() if entry.next_at <= now])

    async def close(self) -> None:
        """Stop driving; every payment is where its row says."""
        tasks = [*self._paying.values(), *self._driving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self) -> dict[str, _Schedule]:
        if self._schedules is None:
            async with self._store.read() as tx:
                rows = await tx.actions.list(ActionKind.LIGHTNING_SEND)
            if self._schedules is None:
                self._schedules = {row.id: _Schedule() for row in rows}
        return self._schedules

    def _start(self, action_ids: Iterable[str]) -> list[asyncio.Task[None]]:
        """The tasks that drive them; one that is being driven is not driven twice."""
        tasks = []
        for action_id in action_ids:
            if action_id in self._paying:
                continue
            task = self._driving.get(action_id)
            if task is None:
                task = asyncio.create_task(self._drive(action_id), name=action_id)
                self._driving[action_id] = task
                task.add_done_callback(self._driven)
            tasks.append(task)
        return tasks

    def _driven(self, task: asyncio.Task[None]) -> None:
        action_id = task.get_name()
        self._driving.pop(action_id, None)
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
        text = "" if trouble is None else chain_text(trouble)
        if row is None:
            if self._schedules is not None:
                self._schedules.pop(action_id, None)
            if text:
                log.warning("%s ended: %s", action_id, text)
            return
        entry = _Schedule() if self._schedules is None else self._schedules.setdefault(action_id, _Schedule())
        if text and text != entry.trouble:
            log.warning("%s goes on: %s", action_id, text)
        entry.trouble = text
        entry.failures = entry.failures + 1 if text else 0
        if text:
            pause = min(MAX_LOOK_SECS, MIN_LOOK_SECS * 2.0 ** min(entry.failures, 10))
        elif isinstance(self._machine.decode(row.payload), Stuck):
            pause = STUCK_LOOK_SECS
        else:
            age = self._now() - row.created_at.timestamp()
            pause = min(MAX_PENDING_LOOK_SECS, max(MIN_LOOK_SECS, age / LOOKS_PER_AGE))
        entry.next_at = self._monotonic() + pause


async def _check_not_paid(tx: Transaction, payment_hash: bytes) -> None:
    if await tx.lightning.find_paid(payment_hash) is not None:
        raise AlreadyPaid


def _name_of(state: State) -> SendState:
    match state:
        case Locked():
            return SendState.INPUTS_LOCKED
        case Funded():
            return SendState.HTLC_RECEIVED
        case Initiated():
            return SendState.PAYMENT_INITIATED
        case Revocable():
            return SendState.REVOCABLE_HTLCS
        case Stuck():
            return SendState.REVOCATION_STUCK
        case _:
            assert_never(state)
