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
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import assert_never

from barkd_py.ark.arkoor import ArkoorDestination, plan_outputs
from barkd_py.ark.deadlines import ARKOOR_EXIT_DEPTH
from barkd_py.ark.fees import VtxoFeeInfo
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.units import Network
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.actions.drives import WAIT_SECS, Drives
from barkd_py.wallet.actions.executor import ActionExecutor, Until
from barkd_py.wallet.actions.holding import state_of_holder
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.lightning.ids import send_action_id
from barkd_py.wallet.lightning.poller import MIN_PAUSE_SECS, Poller, pace_by_age
from barkd_py.wallet.lightning.send.adoption import HtlcAdoption
from barkd_py.wallet.lightning.send.change_queue import ChangeQueue
from barkd_py.wallet.lightning.send.errors import (
    AlreadyPaid,
    HtlcsOnChain,
    PaymentInProgress,
    PaymentNotMade,
)
from barkd_py.wallet.lightning.send.invoices import InvoiceSource, LightningDestination, Order
from barkd_py.wallet.lightning.send.machine import LightningSendMachine
from barkd_py.wallet.lightning.send.states import (
    FORMAT,
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
from barkd_py.wallet.lightning.send.terms import (
    CannotCoverLightningPayment,
    PayEstimate,
    PayTerms,
)
from barkd_py.wallet.locks import LockBusy
from barkd_py.wallet.movements import LIGHTNING_SEND, MovementDestination, MovementUpdate
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionCheckpoint
from barkd_py.wallet.vtxo_states import ActionHolder, WalletVtxo
from barkd_py.wallet.vtxos.inputs import choose
from barkd_py.wallet.vtxos.selection import CannotCoverPaymentAndFees, FeeSelection

log = logging.getLogger(__name__)

# How long a payment waits for the change of others. Theirs takes a few calls of the server.
CHANGE_WAIT_SECS = 10.0
MAX_RETRY_FOR_SECS = 2**32 - 1

STUCK_LOOK_SECS = 30.0
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


_ENDED = frozenset({SendState.UNKNOWN, SendState.PAID})


@dataclass(frozen=True, slots=True)
class LightningSend:
    """A payment as clients see it. payment_hash, preimage: 32 bytes.

    invoice: while it is under way; None of one that a recovery found. preimage: once it is paid.
    """

    payment_hash: bytes
    state: SendState
    invoice: str | None = None
    preimage: bytes | None = None


class _AlreadyStarted(BarkdError):
    """There is a payment of this hash. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class SendRules:
    """Of the configuration. exit_margin: in blocks."""

    change_split_factor: int
    exit_margin: int


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
        change_wait_secs: float = CHANGE_WAIT_SECS,
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
        self._now = now
        self.drives = Drives(machine.kind.spoken, wait_secs)
        self._begun: set[str] = set()
        self._change_queue = ChangeQueue(change_wait_secs)
        self._adoption = HtlcAdoption(store, machine, keychain, chain, exit_margin=rules.exit_margin)
        self.poller = Poller(store, executor, machine, self._pace, self._is_urgent, monotonic=monotonic)

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
        HtlcsOnChain, CannotCoverLightningPayment, AbsurdFee; the server's refusal; StillPending;
        PaymentNotMade if waiting.
        """
        order = await self._invoices.order(destination, amount_sat, comment)
        action_id = send_action_id(order.payment_hash)
        if action_id in self.drives:
            raise PaymentInProgress
        until = Until.DONE if wait else Until.PARK
        pay = self._pay(action_id, order, retry_for_secs, until)
        await self.drives.run(action_id, pay, to_the_end=wait)
        if wait:
            await self._wait_for_end(order.payment_hash)
        return order.payment_hash

    async def _wait_for_end(self, payment_hash: bytes) -> None:
        """Raises PaymentNotMade. Somebody else may be driving it."""
        while (found := await self.find(payment_hash)).state not in _ENDED:
            await asyncio.sleep(MIN_PAUSE_SECS)
            self.poller.drive_now(send_action_id(payment_hash))
            await self.poller.settle_down()
        if found.state is not SendState.PAID:
            raise PaymentNotMade

    async def _pay(self, action_id: str, order: Order, retry_for_secs: int | None, until: Until) -> None:
        try:
            await self._begin_or_go_on(action_id, order, retry_for_secs, until)
        finally:
            self._begun.discard(action_id)

    async def _begin_or_go_on(
        self, action_id: str, order: Order, retry_for_secs: int | None, until: Until
    ) -> None:
        row = await self._unpaid(action_id, order.payment_hash)
        if row is not None and self._is_on_chain(row):
            await self._executor.drive(self._machine, action_id)  # it may be over
            row = await self._unpaid(action_id, order.payment_hash)
            if row is not None and self._is_on_chain(row):
                raise HtlcsOnChain
        if row is None:
            try:
                await self._change_queue.begin(
                    lambda on_stored: self._begin(
                        action_id, order, retry_for_secs, until, on_stored=on_stored
                    ),
                    lambda: self.drives.tasks(self._begun),
                )
            except _AlreadyStarted:
                pass
            else:
                return
        await self._executor.drive(self._machine, action_id, until=until)

    async def _unpaid(self, action_id: str, payment_hash: bytes) -> ActionCheckpoint | None:
        """The payment under way, if there is one. Raises AlreadyPaid."""
        async with self._store.read() as tx:
            await _check_not_paid(tx, payment_hash)
            return await tx.actions.find(action_id)

    def _is_on_chain(self, row: ActionCheckpoint) -> bool:
        state = FORMAT.decode(row.payload)
        return isinstance(state, Stuck) and bool(state.exiting)

    async def _begin(
        self,
        action_id: str,
        order: Order,
        retry_for_secs: int | None,
        until: Until,
        *,
        on_stored: Callable[[], None],
    ) -> None:
        """Raises _AlreadyStarted, CannotCoverLightningPayment."""
        info = await self._server.info()
        tip = await self._chain.tip()
        amount_sat = order.payable_sat(self._network)
        terms = PayTerms(info, tip.height, self._rules.exit_margin)

        async def prepare(tx: Transaction) -> State:
            await _check_not_paid(tx, order.payment_hash)
            if await tx.actions.find(action_id) is not None:
                raise _AlreadyStarted
            payment = await self._plan(tx, action_id, order, amount_sat, retry_for_secs, terms)
            self._begun.add(action_id)
            return Locked(payment)

        try:
            await self._executor.begin(self._machine, action_id, prepare, until=until, on_stored=on_stored)
        except LockBusy:  # an earlier payment of this invoice is ending just now
            raise PaymentInProgress from None
        finally:
            self.poller.expect(action_id)
            self._wakeup.set()

    async def _plan(
        self,
        tx: Transaction,
        action_id: str,
        order: Order,
        amount_sat: int,
        retry_for_secs: int | None,
        terms: PayTerms,
    ) -> Payment:
        """Choose, reserve and write down everything, once there is something to pay with."""
        selection = await _select(tx, terms, amount_sat)
        terms.check_fee(selection.fee_sat, amount_sat)
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
        if any(vtxo.expiry_height < terms.htlc_expiry_height for vtxo in selection.vtxos):
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
                selection.vtxos,
                terms.exit_margin,
                deeper_by=ARKOOR_EXIT_DEPTH,
                tip_height=terms.tip_height,
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
        state = FORMAT.decode(row.payload)
        return LightningSend(payment_hash, _name_of(state), invoice=state.payment.invoice or None)

    async def estimate(self, amount_sat: int) -> PayEstimate:
        """What a payment would cost; where it cannot be paid, what it costs at most."""
        info = await self._server.info()
        tip = await self._chain.tip()
        terms = PayTerms(info, tip.height, self._rules.exit_margin)
        async with self._store.read() as tx:
            try:
                selection = await _select(tx, terms, amount_sat)
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
        if preimage is not None and sha256(preimage) != payment_hash:
            log.error("the server's notice has a preimage for %s that is none", payment_hash.hex())
        elif preimage is not None:
            self._machine.note_preimage(payment_hash, preimage)
        self.poller.drive_now(action_id)

    async def lets_go(self, vtxo: WalletVtxo) -> bool:
        """Whether it is an input, out of which no HTLCs were made. See `exits.starts.LetsGo`.

        Without our signature nobody else can make them. HTLCs leave when it is time (`states.must_exit`).
        """
        state: State | None = await state_of_holder(self._store, self._machine, vtxo)
        return isinstance(state, Locked)

    async def adopt(self, vtxo_ids: Collection[VtxoId]) -> None:
        """HTLCs that a recovery found: from now on they are asked back. Raises ChainUnavailable."""
        for action_id in await self._adoption.adopt(vtxo_ids):
            self.poller.expect(action_id)
            self._wakeup.set()

    async def close(self) -> None:
        """Stop driving; every payment is where its row says."""
        await self.drives.close()
        await self.poller.close()

    def _is_urgent(self, row: ActionCheckpoint) -> bool:
        """HTLCs that the server has to give back go on the chain before it may take them."""
        return isinstance(FORMAT.decode(row.payload), Revocable | Stuck)

    def _pace(self, row: ActionCheckpoint) -> float:
        """Often while somebody may be standing there; stuck HTLCs wait for blocks."""
        if isinstance(FORMAT.decode(row.payload), Stuck):
            return STUCK_LOOK_SECS
        return min(MAX_PENDING_LOOK_SECS, pace_by_age(row, self._now()))


async def _select(tx: Transaction, terms: PayTerms, amount_sat: int) -> FeeSelection[WalletVtxo]:
    """Inputs whose trees outlive the HTLCs, if there are enough of these; else any that have not expired.

    Raises CannotCoverLightningPayment.
    """

    async def of_those_after(
        height: int, suits: Callable[[WalletVtxo], bool] | None = None
    ) -> FeeSelection[WalletVtxo]:
        return await choose(
            tx,
            lambda payable: terms.select(list(filter(suits, payable)), amount_sat),
            expires_after_height=height,
        )

    try:
        return await of_those_after(terms.htlc_expiry_height, terms.outlives_htlcs)
    except CannotCoverPaymentAndFees:
        pass
    try:
        return await of_those_after(terms.tip_height)
    except CannotCoverPaymentAndFees as error:
        raise CannotCoverLightningPayment from error


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
