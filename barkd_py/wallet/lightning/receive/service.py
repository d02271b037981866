"""Payments that come in over Lightning: making invoices, looking at them, canceling them, driving them.

An invoice is given out only after it was verified and the preimage is stored with a key of ours. What becomes
of it then is decided by `machine`.

Who drives: the mailbox, when the server says that a payment has come; a sync; and `poll`, which the daemon
calls about once a second, because a server tells of a payment hash only once. An invoice is looked at often
while somebody may be standing there and waiting, and ever less often as it grows old (`poller`).

Source: protocol sheet 05 §5.1, §5.8, §5.10.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.fees import lightning_receive_fee, subtract_fee
from barkd_py.ark.lightning_receive import ClaimWindow, Preimage, verify_invoice
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.bolt11 import Bolt11Invoice, InvalidInvoice
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import InvalidInput, OutsideError, StoreError, log_text
from barkd_py.server_rpc.api import ArkServerApi, LightningReceiveState
from barkd_py.wallet.actions.executor import ActionExecutor
from barkd_py.wallet.arkoor.recipient import verify_mailboxes, verify_server
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.lightning.bounds import max_receive_fee_sat
from barkd_py.wallet.lightning.ids import receive_action_id
from barkd_py.wallet.lightning.poller import Poller, pace_by_age
from barkd_py.wallet.lightning.receive.errors import (
    AboveMaximum,
    AbsurdFee,
    CannotCancelReceive,
    NoMailbox,
    UnknownReceive,
    UnreadableInvoice,
    ZeroInvoice,
)
from barkd_py.wallet.lightning.receive.machine import EXIT_LOOK_SECS, LightningReceiveMachine
from barkd_py.wallet.lightning.receive.states import (
    FORMAT,
    AwaitingPayment,
    Delivering,
    HtlcsReady,
    PreimageRevealed,
    ReceiveTerms,
    State,
)
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionCheckpoint, ActionKind
from barkd_py.wallet.vtxo_states import WalletVtxo

log = logging.getLogger(__name__)

CANCEL_WAIT_SECS = 10.0

SETTLED = "settled"
REVEALED = "preimage-revealed"


@dataclass(frozen=True, slots=True)
class LightningReceive:
    """A payment that comes in, as clients see it. payment_hash: 32 bytes.

    state: its name in the JSON. htlc_vtxos: those that the server has granted, until they are claimed.
    finished_at: when it ended, which may be without the money: then it was never settled.
    """

    payment_hash: bytes
    state: str
    invoice: str
    preimage: Preimage
    amount_sat: int
    htlc_vtxos: tuple[WalletVtxo, ...] = ()
    preimage_revealed_at: datetime | None = None
    settled_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReceiveEstimate:
    """gross: what the sender pays; net: what is left of it."""

    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...] = ()


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
        self.poller = Poller(store, executor, machine, self._pace, self._is_urgent, monotonic=monotonic)

    # --- making invoices

    async def create(
        self, amount_sat: int, *, description: str | None = None, token: str | None = None
    ) -> str:
        """A new invoice; its preimage is stored when this returns.

        token: for a server that asks strangers for one. Raises ZeroInvoice, FeeExceedsAmount, AbsurdFee,
        CltvTooLarge, the server's refusal, UnreadableInvoice, InvoiceMismatch.
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
        await verify_server(address, self._server, self._network)
        if await self._keychain.find(address.user_pubkey) is not None:
            return  # our own: nothing has to be delivered
        if not address.mailbox_ids():
            raise InvalidInput(str(NoMailbox()))
        verify_mailboxes(address)

    async def _create(
        self, amount_sat: int, description: str | None, token: str | None, address: ArkAddress | None
    ) -> str:
        if amount_sat == 0:
            raise ZeroInvoice
        info = await self._server.info()
        fee_sat = lightning_receive_fee(info.fees, amount_sat)
        subtract_fee(amount_sat, fee_sat)
        if fee_sat > max_receive_fee_sat(amount_sat):
            raise AbsurdFee(fee_sat, amount_sat)
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

        async def prepare(tx: Transaction) -> State:
            key = await self._keychain.reserve_in(tx)
            payee: PublicKey = key.public_key if address is None else address.user_pubkey
            terms = ReceiveTerms(
                invoice=text,
                preimage=preimage,
                amount_sat=amount_sat,
                fee_sat=fee_sat,
                cltv_delta=cltv_delta,
                user_pubkey=key.public_key,
                payee_pubkey=payee,
                deliver_to=None if is_ours else str(address),
                token=token,
            )
            return AwaitingPayment(terms)

        action_id = receive_action_id(preimage.payment_hash)
        await self._executor.store_new(self._machine, action_id, prepare)
        self.poller.expect(action_id)
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
            states = []
            for row in rows:
                with suppress(StoreError):  # one that cannot be read: whoever drives it says so
                    states.append(FORMAT.decode(row.payload))
            return [await _shown(tx, state) for state in states]

    async def find(self, payment_hash: bytes) -> LightningReceive:
        """One of them, or one that is over and whose preimage went out. Raises UnknownReceive.

        One that neither the server nor the chain paid stays `preimage-revealed`, and is finished.
        """
        action_id = receive_action_id(payment_hash)
        async with self._store.read() as tx:
            row = await tx.actions.find(action_id)
            if row is not None:
                return await _shown(tx, FORMAT.decode(row.payload))
            settled = await tx.lightning.find_settled(payment_hash)
            movement = await tx.movements.find_by_action(action_id)
        if settled is None:
            raise UnknownReceive(payment_hash)
        is_lost = (
            movement is not None
            and movement.status is MovementStatus.FAILED
            and movement.effective_balance_sat <= 0
        )
        return LightningReceive(
            payment_hash,
            REVEALED if is_lost else SETTLED,
            settled.invoice,
            Preimage(settled.preimage),
            settled.amount_sat,
            preimage_revealed_at=settled.settled_at,
            settled_at=None if is_lost else settled.settled_at,
            finished_at=settled.settled_at,
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
            match FORMAT.decode(row.payload):
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
        self.poller.forget(action_id)

    async def _cancel_at_server(self, payment_hash: bytes) -> None:
        """Raises CannotCancelReceive if a payment has arrived; all other trouble is logged."""
        try:
            status = await self._server.check_lightning_receive(payment_hash)
            if status.state in (LightningReceiveState.ACCEPTED, LightningReceiveState.HTLCS_READY):
                raise CannotCancelReceive("cannot cancel: the payment has arrived and is being claimed")
            await self._server.cancel_lightning_receive(payment_hash)
        except OutsideError as error:
            log.warning("lightning receive %s: cancel: %s", payment_hash.hex(), log_text(error))

    # --- driving

    async def on_incoming(self, payment_hash: bytes) -> None:
        """The mailbox: the server says that a payment has come. Nobody waits for what follows."""
        async with self._store.read() as tx:
            row = await tx.actions.find(receive_action_id(payment_hash))
        if row is None:
            # It is over: looking for it is faster than the mailbox.
            log.debug("no lightning receive is pending for payment hash %s", payment_hash.hex())
            return
        self.poller.drive_now(row.id)

    def _is_urgent(self, row: ActionCheckpoint) -> bool:
        """The server has the preimage: what it does not pay has to go on the chain in time."""
        return isinstance(FORMAT.decode(row.payload), PreimageRevealed)

    def _pace(self, row: ActionCheckpoint) -> float:
        if isinstance(FORMAT.decode(row.payload), AwaitingPayment):
            return pace_by_age(row, self._now())
        return EXIT_LOOK_SECS  # on its way on the chain: all other states end, or end in trouble


async def _shown(tx: Transaction, state: State) -> LightningReceive:
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


async def revealed_preimage(tx: Transaction, payment_hash: bytes) -> bytes | None:
    """The preimage of a payment that is not settled yet, once it may go out; for exits and their claims."""
    row = await tx.actions.find(receive_action_id(payment_hash))
    if row is None:
        return None
    state = FORMAT.decode(row.payload)
    return state.terms.preimage.data if isinstance(state, PreimageRevealed | Delivering) else None
