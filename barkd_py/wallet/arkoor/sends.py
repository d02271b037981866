"""Paying an Ark address out of round.

    Cosigning ── cosigned by both ──▶ Delivering ── a mailbox took it ──▶ done: successful
        │                                 │
        └── refused ──▶ done, undone      └── every mailbox refuses, again and again ──▶ done: failed

A server whose answers are wrong is asked again; it counts as a refusal if the server still has the inputs as
spendable.

`ArkoorSends.send` chooses inputs, change key and outputs, and stores them with the inputs locked, in one
transaction. From then on the payment is fixed, and so every repetition of the cosign request asks for the
very same transactions, with fresh nonces: a server that has cosigned already does it again. For the same
reason a *refusal* proves that it never did, and the inputs can be released.

Once cosigned, the money is the recipient's. Inputs stay locked until the recipient has been told; then they
are spent and the change is stored, in the transaction that ends the action.

A caller waits a minute at most; after that the payment goes on by itself.

Source: sheet 03 §2.8.
"""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, assert_never

from pydantic import Field, TypeAdapter

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.arkoor import ArkoorDestination, ChangeToDestination, plan_outputs
from barkd_py.ark.mailbox import decode_blinded_id
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.units import Network
from barkd_py.chain.source import ChainSource
from barkd_py.errors import (
    BarkdError,
    InsufficientFunds,
    InvalidInput,
    OutsideError,
    ProtocolViolation,
    ServerRejected,
    chain_text,
)
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.actions.blame import blamed_inputs
from barkd_py.wallet.actions.executor import (
    ActionExecutor,
    Done,
    Failed,
    Next,
    Outcome,
    Park,
    Until,
    Writes,
)
from barkd_py.wallet.actions.failures import StillPending, Unworkable, is_final
from barkd_py.wallet.actions.server_books import are_spendable
from barkd_py.wallet.arkoor.package import cosign_package, is_refused
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.movements import (
    ARKOOR_SEND,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.payloads import HexBytes, PayloadFormat, PublicKeyHex, VtxoHex, VtxoIdText
from barkd_py.wallet.vtxos.registration import Registration
from barkd_py.wallet.vtxos.selection import SelectionLimits, select
from barkd_py.wallet.vtxos.states import ActionHolder, Locked, NewVtxo, Spendable, StateKind

log = logging.getLogger(__name__)

DELIVERY_RETRY_SECS = 60.0
# How often every mailbox may refuse before the payment is given up as undeliverable.
MAX_REFUSED_DELIVERIES = 5
# How often the server's answer may be malformed or wrong before it is not asked again.
MAX_BAD_ANSWERS = 5
# How often other inputs are chosen because the server refused some.
MAX_SELECTIONS = 20
# How long a caller waits; upstream waits for ever.
WAIT_SECS = 60.0


class ZeroAmount(BarkdError):
    """Upstream takes it, and never finishes."""

    def __init__(self) -> None:
        super().__init__("Cannot send 0 sats")


class UnusableMailbox(InvalidInput):
    """The address names a mailbox that no server could find: a payment to it would be lost."""

    def __init__(self) -> None:
        super().__init__("Ark address has an invalid mailbox id")


class DeliveryFailed(BarkdError):
    """The recipient could not be told. The payment is cosigned and theirs all the same."""

    def __init__(self) -> None:
        super().__init__("arkoor payment could not be delivered")


# --- states


@dataclass(frozen=True, slots=True)
class Cosigning:
    """Inputs are locked, outputs are fixed; the server has perhaps cosigned.

    change_sat: the pieces of change, all to change_pubkey.
    """

    address: str
    recipient: PublicKeyHex
    amount_sat: int
    input_ids: tuple[VtxoIdText, ...]
    change_pubkey: PublicKeyHex
    change_sat: tuple[int, ...]
    blinded_ids: tuple[HexBytes, ...]
    bad_answers: int = 0
    type: Literal["cosigning"] = "cosigning"

    @property
    def outputs(self) -> tuple[ArkoorDestination, ...]:
        change_policy = PubkeyPolicy(self.change_pubkey)
        return (
            ArkoorDestination(self.amount_sat, PubkeyPolicy(self.recipient)),
            *(ArkoorDestination(amount_sat, change_policy) for amount_sat in self.change_sat),
        )


@dataclass(frozen=True, slots=True)
class Delivering:
    """Cosigned: `payment` belongs to the recipient, `change` to us; neither is stored anywhere else.

    registered: the server has the chains of all of them. refusals: how often every mailbox refused.
    """

    input_ids: tuple[VtxoIdText, ...]
    payment: tuple[VtxoHex, ...]
    change: tuple[VtxoHex, ...]
    blinded_ids: tuple[HexBytes, ...]
    registered: bool = False
    refusals: int = 0
    type: Literal["delivering"] = "delivering"


_State = Cosigning | Delivering
_FORMAT: PayloadFormat[_State] = PayloadFormat(
    "arkoor send", TypeAdapter(Annotated[Cosigning | Delivering, Field(discriminator="type")])
)


# --- the machine


class ArkoorSendMachine:
    """The steps of a payment."""

    kind = ActionKind.ARKOOR_SEND

    def __init__(
        self, store: Store, keychain: Keychain, server: ArkServerApi, registration: Registration
    ) -> None:
        self._store = store
        self._keychain = keychain
        self._server = server
        self._registration = registration

    def encode(self, state: _State) -> str:
        return _FORMAT.encode(state)

    def decode(self, payload: str) -> _State:
        return _FORMAT.decode(payload)

    def reports(self, state: _State) -> Sequence[VtxoId]:
        return state.input_ids

    async def step(self, action_id: str, state: _State) -> Outcome[_State]:
        match state:
            case Cosigning():
                return await self._cosign(action_id, state)
            case Delivering():
                return await self._deliver(action_id, state)
            case _:
                assert_never(state)

    # --- Cosigning

    async def _cosign(self, action_id: str, state: Cosigning) -> Outcome[_State]:
        try:
            vtxos = await cosign_package(
                self._store, self._keychain, self._server, state.input_ids, state.outputs
            )
        except ProtocolViolation as error:
            return await self._after_bad_answer(action_id, state, error)
        except (OutsideError, Unworkable) as error:
            if is_refused(error):
                return Failed(error)  # the executor releases the inputs
            raise
        recipient = PubkeyPolicy(state.recipient)
        payment = tuple(vtxo for vtxo in vtxos if vtxo.policy == recipient)
        change = tuple(vtxo for vtxo in vtxos if vtxo.policy != recipient)
        return Next(
            Delivering(state.input_ids, payment, change, state.blinded_ids),
            writes=_create_movement(action_id, state),
        )

    async def _after_bad_answer(
        self, action_id: str, state: Cosigning, error: ProtocolViolation
    ) -> Outcome[_State]:
        """Ask again a few times: a server may be mended. Then undo, but only what the server did not book.

        We signed nothing, so nobody can move the inputs. But where the server has spent them in its books, it
        has for this very payment, and would refuse them for any other: then the payment stays as it is.
        """
        answers = min(state.bad_answers + 1, MAX_BAD_ANSWERS)
        state = replace(state, bad_answers=answers)
        log.warning("arkoor send %s: bad answer of the server: %s", action_id, chain_text(error))
        if answers < MAX_BAD_ANSWERS:
            return Park(state, 1.0, error)
        if await are_spendable(self._store, self._keychain, self._server, state.input_ids):
            return Failed(error)
        pending = StillPending("arkoor send")
        pending.__cause__ = error
        return Park(state, error=pending)

    # --- Delivering

    async def _deliver(self, action_id: str, state: Delivering) -> Outcome[_State]:
        if not state.registered:
            try:
                await self._server.register_vtxo_transactions(state.payment + state.change)
                self._registration.note_registered(vtxo.id for vtxo in state.change)
            except ServerRejected as error:
                # The recipient registers them too, and can exit without.
                log.warning("arkoor send %s: registration refused: %s", action_id, chain_text(error))
            state = replace(state, registered=True)
        if not state.blinded_ids:
            return self._finish(action_id, state, MovementStatus.SUCCESSFUL)
        errors = []
        for blinded_id in state.blinded_ids:
            try:
                await self._server.post_arkoor_message(blinded_id, state.payment)
            except OutsideError as error:
                log.warning("arkoor send %s: delivery failed: %s", action_id, chain_text(error))
                errors.append(error)
        if len(errors) < len(state.blinded_ids):
            return self._finish(action_id, state, MovementStatus.SUCCESSFUL)
        if all(is_final(error) for error in errors):
            state = replace(state, refusals=state.refusals + 1)
            if state.refusals >= MAX_REFUSED_DELIVERIES:
                return self._finish(action_id, state, MovementStatus.FAILED)
        return Park(state, DELIVERY_RETRY_SECS, errors[0])

    def _finish(self, action_id: str, state: Delivering, status: MovementStatus) -> Done | Failed:
        async def write(tx: Transaction) -> None:
            await tx.vtxos.steal_spent(state.input_ids)  # an exit that was started meanwhile keeps its coin
            await tx.vtxos.insert(NewVtxo(vtxo, Spendable()) for vtxo in state.change)
            movement = await tx.movements.find_by_action(action_id)
            assert movement is not None, "stored before this state"
            update = MovementUpdate(output_vtxos=tuple(vtxo.id for vtxo in state.change))
            if status is MovementStatus.FAILED:
                # Nobody else has them: whoever helps the recipient will need them.
                update = replace(
                    update, metadata={"undelivered_vtxos": [vtxo.encode().hex() for vtxo in state.payment]}
                )
            await tx.movements.finish_with_update(movement.id, status, update)
            self._registration.wake_at_commit()

        return Done(write) if status is MovementStatus.SUCCESSFUL else Failed(DeliveryFailed(), write)


def _create_movement(action_id: str, state: Cosigning) -> Writes:
    async def write(tx: Transaction) -> None:
        method = PaymentMethod(PaymentMethodKind.ARK, state.address)
        update = MovementUpdate(
            intended_balance_sat=-state.amount_sat,
            effective_balance_sat=-state.amount_sat,
            input_vtxos=state.input_ids,
            sent_to=(MovementDestination(method, state.amount_sat),),
        )
        await tx.movements.get_or_create(action_id, ARKOOR_SEND, update)

    return write


# --- starting


class ArkoorSends:
    """Starts payments and drives those that are under way."""

    def __init__(
        self,
        store: Store,
        executor: ActionExecutor,
        machine: ArkoorSendMachine,
        keychain: Keychain,
        server: ArkServerApi,
        chain: ChainSource,
        *,
        network: Network,
        change_split_factor: int,
        wait_secs: float = WAIT_SECS,
    ) -> None:
        self._store = store
        self._executor = executor
        self._machine = machine
        self._keychain = keychain
        self._server = server
        self._chain = chain
        self._network = network
        self._change_split_factor = change_split_factor
        self._wait_secs = wait_secs
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, address_text: str, amount_sat: int) -> None:
        """Pay; when this returns, the recipient's mailbox has the payment.

        Raises InvalidInput for the address, NotEnoughVtxos, the server's refusal, or StillPending after a
        minute. The payment goes on if the caller is cancelled.
        """
        if amount_sat <= 0:
            raise ZeroAmount
        address = ArkAddress.parse(address_text)
        info = await self._server.info()
        address.validate_for(info.server_pubkey, self._network)
        for blinded_id in address.mailbox_ids():
            _check_blinded_id(blinded_id)
        tip = await self._chain.tip()
        limits = SelectionLimits(max_exit_depth=info.max_vtxo_exit_depth, expires_after_height=tip.height)
        refusal: BarkdError | None = None
        for _ in range(MAX_SELECTIONS):
            chosen: list[VtxoId] = []
            try:
                await self._attempt(address_text, address, amount_sat, limits, chosen)
                return
            except InsufficientFunds as error:
                if refusal is None:
                    raise
                raise error from refusal
            except BarkdError as error:
                unfit = blamed_inputs(error, chosen) | await self._taken_out(chosen)
                if not unfit:
                    raise
                log.warning("paying without %d VTXOs that the server refuses: %s", len(unfit), error)
                refusal, limits = error, replace(limits, exclude=frozenset(limits.exclude) | unfit)
        assert refusal is not None
        raise refusal

    async def _attempt(
        self,
        address_text: str,
        address: ArkAddress,
        amount_sat: int,
        limits: SelectionLimits,
        chosen: list[VtxoId],
    ) -> None:
        """One payment. chosen: where the inputs are told. It goes on if the caller is cancelled."""
        action_id = secrets.token_hex(16)

        async def prepare(tx: Transaction) -> _State:
            state = await self._plan(tx, address_text, address, amount_sat, limits)
            await tx.vtxos.lock(state.input_ids, ActionHolder(action_id))
            chosen.extend(state.input_ids)
            return state

        drive = self._executor.begin(self._machine, action_id, prepare, until=Until.DONE)
        task = asyncio.create_task(drive, name=f"arkoor send {action_id}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=self._wait_secs)
        if not done or task.cancelled():
            chosen.clear()
            raise StillPending("arkoor send")
        task.result()

    async def _taken_out(self, vtxo_ids: Sequence[VtxoId]) -> frozenset[VtxoId]:
        """Those that turned out to be unfit for payments after a refusal."""
        async with self._store.read() as tx:
            rows = await tx.vtxos.find_many(vtxo_ids)
        return frozenset(row.id for row in rows.values() if row.state == Locked(None))

    async def drive_all(self) -> None:
        await self._executor.drive_all(self._machine)

    async def close(self) -> None:
        """Stop driving; every payment is where its row says."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("%s: %s", task.get_name(), error)

    async def _plan(
        self,
        tx: Transaction,
        address_text: str,
        address: ArkAddress,
        amount_sat: int,
        limits: SelectionLimits,
    ) -> Cosigning:
        """Choose inputs and outputs from what is spendable in this very transaction.

        The change key is taken only once there is something to send. Raises NotEnoughVtxos,
        ChangeToDestination.
        """
        spendable = await tx.vtxos.list([StateKind.SPENDABLE])
        inputs = select(spendable, amount_sat, limits)
        change_key = await self._keychain.peek_in(tx)
        if change_key.public_key == address.user_pubkey:
            raise ChangeToDestination
        outputs = plan_outputs(
            [vtxo.amount_sat for vtxo in inputs],
            ArkoorDestination(amount_sat, address.policy),
            PubkeyPolicy(change_key.public_key),
            split_factor=self._change_split_factor,
        )
        change = outputs[1:]
        if change:
            await self._keychain.reserve_in(tx)
        return Cosigning(
            address=address_text,
            recipient=address.user_pubkey,
            amount_sat=amount_sat,
            input_ids=tuple(vtxo.id for vtxo in inputs),
            change_pubkey=change_key.public_key,
            change_sat=tuple(piece.amount_sat for piece in change),
            blinded_ids=address.mailbox_ids(),
        )


def _check_blinded_id(data: bytes) -> None:
    """Raises UnusableMailbox: parsing an address looks at the length only."""
    try:
        decode_blinded_id(data)
    except DecodeError as error:
        raise UnusableMailbox from error
