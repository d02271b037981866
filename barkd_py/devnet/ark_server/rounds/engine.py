"""The round engine: one task that holds rounds, one after the other.

    sleep ─▶ attempt: registrations ─▶ proposal ─▶ signatures ─▶ books ─▶ funding tx ─▶ finished
      ▲          ▲ └ nobody: failed                    │ a cosigner is silent
      │          └──── next attempt, without them ─────┘
      └── the interval is over, or a trigger

What participants send waits in one queue and is answered by the engine alone, so there is nothing to lock.
While it sleeps, everything is answered with success and thrown away: that is what the real server does, and
clients have to notice.

A round is booked before its funding transaction is signed, and that before it is broadcast: whatever happens
in between, the server knows what it promised. A start finishes what a kill interrupted. Where the real server
shuts down because it cannot write, this one goes on with the next round.

Source: sheet 10 §6.7, §8, §12; sheet 04 §10.
"""

import asyncio
import enum
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from secrets import token_bytes
from typing import TypeAlias

from sqlalchemy import Connection

from barkd_py.ark.tree import TreeSpec
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.tx import Tx
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.failures import BadArgument, Failure
from barkd_py.devnet.ark_server.faults import EngineHalted, Faults
from barkd_py.devnet.ark_server.funds.fee_rates import FeeRates
from barkd_py.devnet.ark_server.funds.treasury import Draft, Treasury
from barkd_py.devnet.ark_server.rounds import booking
from barkd_py.devnet.ark_server.rounds.attempt import (
    PaymentRequest,
    Registration,
    Registrations,
    TreeSigning,
)
from barkd_py.devnet.ark_server.rounds.booking import SignedRound
from barkd_py.devnet.ark_server.rounds.checks import check_all_spendable, check_amounts, check_fee
from barkd_py.devnet.ark_server.rounds.events import (
    AttemptStarted,
    RoundEvents,
    RoundFailed,
    RoundFinished,
    TreeProposed,
)
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.store import participation_rows, round_rows, vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.participation_rows import Participation, Swap
from barkd_py.devnet.ark_server.store.vtxo_rows import VtxoRow
from barkd_py.devnet.ark_server.vtxos.flux import AlreadyLocked, FluxLocks
from barkd_py.devnet.ark_server.vtxos.mailboxes import Mailboxes
from barkd_py.errors import BarkdError, ChainError

log = logging.getLogger(__name__)

_FIRST_SEQ_AT = 1_741_015_334
"""Numbers of rounds count from the seconds since then, so that they grow over restarts."""


class _Wake(enum.Enum):
    """What ends a wait of the engine's before its time."""

    TRIGGER = enum.auto()
    GO_ON = enum.auto()


@dataclass(frozen=True, slots=True)
class _Submission:
    request: PaymentRequest
    preimage: bytes
    answered: "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class _Delivery:
    cosign_pubkey: PublicKey
    partials: tuple[bytes, ...]
    answered: "asyncio.Future[None]"


_Message: TypeAlias = _Submission | _Delivery


@dataclass(frozen=True, slots=True)
class RoundParts:
    """What rounds are made with. clock: Unix seconds. prune: called before each round."""

    settings: ServerSettings
    keys: ServerKeys
    store: Store
    chain: ServerChain
    locks: FluxLocks
    treasury: Treasury
    fee_rates: FeeRates
    mailboxes: Mailboxes
    faults: Faults
    clock: Callable[[], float]
    prune: Callable[[], None]


class RoundEngine:
    """Holds rounds while `run` runs. next_round_at: Unix seconds."""

    def __init__(self, parts: RoundParts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._store = parts.store
        self.events = RoundEvents()
        self.next_round_at = 0.0
        self._wake_at = 0.0
        self._seq = int(parts.clock()) - _FIRST_SEQ_AT
        self._triggered = False
        self._inbox: asyncio.Queue[_Message | _Wake] = asyncio.Queue()

    # --- for everybody

    def trigger(self) -> None:
        """Hold a round now, or right after the one that is being held."""
        if not self._triggered:
            self._triggered = True
            self._inbox.put_nowait(_Wake.TRIGGER)

    def go_on(self) -> None:
        """End the window that is open now: for registrations, or for signatures."""
        self._inbox.put_nowait(_Wake.GO_ON)

    async def submit_payment(self, request: PaymentRequest) -> bytes:
        """Take part in person; the unlock hash of the new coins. Raises Failure."""
        # Made before any check: every call gets another hash, also one that is thrown away.
        preimage = token_bytes(32)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(_Submission(request, preimage, answered))
        await answered
        return Swap((), (), preimage).unlock_hash

    async def provide_signatures(self, cosign_pubkey: PublicKey, partials: tuple[bytes, ...]) -> None:
        """Sign the proposed tree with one cosign key. Raises Failure."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(_Delivery(cosign_pubkey, partials, answered))
        await answered

    # --- holding rounds

    async def resume(self) -> None:
        """Finish the rounds that were booked, but not signed. Call it before `run`."""
        self._plan_next()
        if not self._settings.resume_rounds:
            return
        for tx in await self._store.transact(round_rows.unsigned):
            log.warning("round %s was not signed: signing it now", tx.txid)
            await self._sign(await self._parts.treasury.draft_of(tx))

    async def run(self) -> None:
        """Hold rounds for ever."""
        while True:
            await self._sleep()
            self._plan_next()
            self._parts.prune()
            await self._hold_round()

    def _plan_next(self) -> None:
        interval_secs = self._settings.round_interval_secs
        self.next_round_at = self._parts.clock() + interval_secs
        self._wake_at = asyncio.get_running_loop().time() + interval_secs

    async def _sleep(self) -> None:
        """Wait for the next round. Whoever sends something now is told that all is well."""
        while not self._triggered:
            message = await self._receive(self._wake_at)
            if message is None:
                break
            _accept(message)
        self._triggered = False
        while not self._inbox.empty():
            _accept(self._inbox.get_nowait())

    async def _receive(self, until: float) -> _Message | _Wake | None:
        """The next message; None when it is late. until: by the event loop's clock."""
        try:
            async with asyncio.timeout_at(until):
                return await self._inbox.get()
        except TimeoutError:
            return None

    async def _hold_round(self) -> None:
        try:
            # A wallet that hears a number again takes it for the round that it has already dealt with.
            self._seq = await self._store.transact(partial(round_rows.begin, at_least=self._seq))
            registrations: Registrations | None = Registrations(self._settings, self._seq)
            while registrations is not None:
                registrations = await self._hold_attempt(registrations)
        except EngineHalted:
            raise
        except BarkdError as error:
            log.warning("round %d failed", self._seq, exc_info=error)
            self.events.publish(RoundFailed(self._seq))
        except Exception:
            log.exception("round %d failed", self._seq)
            self.events.publish(RoundFailed(self._seq))

    async def _hold_attempt(self, registrations: Registrations) -> Registrations | None:
        """One attempt; the next one if a cosigner was silent, None when the round is over."""
        try:
            self.events.publish(AttemptStarted(self._seq, registrations.attempt_seq, registrations.challenge))
            await self._collect(registrations)
            await self._take_delegated(registrations)
            if not registrations.everybody:
                self.events.publish(RoundFailed(self._seq))
                return None
            return await self._make_tree(registrations)
        finally:
            self._parts.locks.release(registrations.input_ids)

    # --- registrations

    async def _collect(self, registrations: Registrations) -> None:
        """Take registrations until the window closes."""
        until = asyncio.get_running_loop().time() + self._settings.round_submit_secs
        while not registrations.is_full:
            match await self._receive(until):
                case None | _Wake.GO_ON:
                    return
                case _Submission() as submission:
                    await _answer(submission, self._register(registrations, submission))
                case _Delivery() as delivery:
                    _refuse(delivery, BadArgument("unexpected message. current step is payment registration"))
                case _Wake.TRIGGER:
                    pass

    async def _register(self, registrations: Registrations, submission: _Submission) -> None:
        """Check a participation and lock its inputs. Raises Failure."""
        request = submission.request
        registrations.check_request(request)
        try:
            self._parts.locks.lock(request.input_ids)
        except AlreadyLocked as error:
            raise BadArgument("input VTXO already locked") from error
        try:
            await self._check_registration(registrations, request)
        except BaseException:
            self._parts.locks.release(request.input_ids)
            raise
        swap = Swap(
            request.input_ids, tuple(output.wanted for output in request.outputs), submission.preimage
        )
        registrations.in_person.append(Registration(swap, request.outputs))

    async def _check_registration(self, registrations: Registrations, request: PaymentRequest) -> None:
        rows, vtxos = await self._fetch(request.input_ids)
        tip = await self._parts.chain.tip()
        check_all_spendable(rows, tip_height=tip.height, text="input vtxo(s) not spendable")
        registrations.check_attestations(request, vtxos)
        wanted = [output.wanted for output in request.outputs]
        try:
            check_amounts(vtxos, wanted)
            check_fee(self._settings.fees, vtxos, wanted, tip.height)
        except BadArgument as error:
            raise Failure("amounts check failed") from error

    async def _fetch(self, vtxo_ids: tuple[VtxoId, ...]) -> tuple[list[VtxoRow], list[Vtxo]]:
        def read(connection: Connection) -> tuple[list[VtxoRow], list[Vtxo]]:
            rows = vtxo_rows.get_all(connection, vtxo_ids)
            return rows, [row.user_vtxo() for row in rows]

        return await self._store.transact(read)

    async def _take_delegated(self, registrations: Registrations) -> None:
        """Add the stored swaps that are due. Those that cannot take part now are deleted."""
        tip = await self._parts.chain.tip()
        for stored in await self._store.transact(partial(participation_rows.due, tip_height=tip.height)):
            if len(stored.swap.outputs) > registrations.free_leaves:
                continue
            if await self._can_take(registrations, stored, tip.height):
                registrations.delegated.append(Registration(stored.swap, stored_id=stored.id))
            else:
                log.info("participation %d cannot take part: deleted", stored.id)
                await self._store.transact(partial(participation_rows.remove, number=stored.id))

    async def _can_take(self, registrations: Registrations, stored: Participation, tip_height: int) -> bool:
        """Whether a stored swap takes part; its inputs are locked then."""
        swap = stored.swap
        most_sat = self._settings.max_vtxo_amount_sat
        if not swap.inputs or not swap.outputs:
            return False
        if most_sat is not None and any(output.amount_sat > most_sat for output in swap.outputs):
            return False
        if not all(registrations.is_allowed(vtxo_id) for vtxo_id in swap.inputs):
            return False
        try:
            self._parts.locks.lock(swap.inputs)
        except AlreadyLocked:
            return False
        try:
            rows, _ = await self._fetch(swap.inputs)
            check_all_spendable(rows, tip_height=tip_height, text="input vtxo(s) unusable")
        except Failure:
            self._parts.locks.release(swap.inputs)
            return False
        return True

    # --- the tree

    async def _make_tree(self, registrations: Registrations) -> Registrations | None:
        cosign_secret = SecretKey.generate()
        spec = await self._tree_spec(registrations, cosign_secret.public_key)
        draft = await self._parts.treasury.draft([spec.funding_output], self._parts.fee_rates.fast)
        try:
            signing = TreeSigning(registrations, spec, draft, cosign_secret)
            self._propose(signing)
            await self._collect_signatures(signing)
            if signing.is_complete:
                await self._finish(signing)
                return None
        finally:
            self._parts.treasury.release(draft)
        allowed = signing.allowed_again()
        if not allowed:
            self.events.publish(RoundFailed(self._seq))
            return None
        return Registrations(self._settings, self._seq, registrations.attempt_seq + 1, allowed)

    async def _tree_spec(self, registrations: Registrations, cosign_pubkey: PublicKey) -> TreeSpec:
        tip = await self._parts.chain.tip()
        spec = registrations.tree_spec(
            expiry_height=tip.height + self._settings.vtxo_lifetime,
            server_pubkey=self._parts.keys.server_pubkey,
            cosign_pubkey=cosign_pubkey,
        )
        return await self._parts.faults.reshape("round.spec", spec)

    def _propose(self, signing: TreeSigning) -> None:
        self.events.publish(
            TreeProposed(
                self._seq,
                signing.registrations.attempt_seq,
                signing.tree.spec.encode(),
                signing.draft.tx,
                signing.agg_nonces,
            )
        )

    async def _collect_signatures(self, signing: TreeSigning) -> None:
        """Take signatures until all are there, or the window closes."""
        until = asyncio.get_running_loop().time() + self._settings.round_sign_secs
        while not signing.is_complete:
            match await self._receive(until):
                case None | _Wake.GO_ON:
                    return
                case _Delivery() as delivery:
                    await _answer(delivery, _add_signatures(signing, delivery))
                case _Submission() as submission:
                    late = "Round already started. Message arrived late or round was full."
                    _refuse(submission, BadArgument(late))
                case _Wake.TRIGGER:
                    pass

    # --- the end

    async def _finish(self, signing: TreeSigning) -> None:
        signatures = signing.combine()
        signed = SignedRound(signing.registrations, signing.tree, signatures, signing.draft.tx)
        await self._parts.faults.pass_point("round.book")
        await self._book(signed, signing.draft)
        await self._parts.faults.pass_point("round.sign")
        funding_tx = await self._sign(signing.draft)
        await self._broadcast(funding_tx)
        await self._parts.faults.pass_point("round.announce")
        self.events.publish(
            RoundFinished(self._seq, signing.registrations.attempt_seq, funding_tx, signatures)
        )
        log.info("round %d finished in %s", self._seq, funding_tx.txid)

    async def _book(self, signed: SignedRound, draft: Draft) -> None:
        def write(connection: Connection) -> None:
            booking.book(connection, signed)
            Treasury.record(connection, draft)
            self._parts.mailboxes.note_rounds(connection, signed.notices)

        await self._store.transact(write)
        for mailbox_id, _ in signed.notices:
            self._parts.mailboxes.wake(mailbox_id)

    async def _sign(self, draft: Draft) -> Tx:
        """Sign a booked funding transaction, and book that. The same id whenever it is signed."""
        funding_tx = self._parts.treasury.sign(draft)

        def write(connection: Connection) -> None:
            booking.book_signature(connection, funding_tx)
            Treasury.record(connection, draft, funding_tx)

        await self._store.transact(write)
        return funding_tx

    async def _broadcast(self, funding_tx: Tx) -> None:
        if not await self._parts.faults.pass_point("round.broadcast"):
            self._parts.treasury.withhold(funding_tx.txid)
            return
        try:
            await self._parts.chain.broadcast(funding_tx)
        except ChainError:
            # The treasury tries again, and so do the wallets.
            log.warning("round %s is not accepted", funding_tx.txid, exc_info=True)


async def _add_signatures(signing: TreeSigning, delivery: _Delivery) -> None:
    signing.add(delivery.cosign_pubkey, delivery.partials)


async def _answer(message: _Message, work: Coroutine[None, None, None]) -> None:
    """Do what a message asks for, and say how it went."""
    try:
        await work
    except Exception as error:
        _refuse(message, error)
    else:
        _accept(message)


def _accept(message: _Message | _Wake) -> None:
    if not isinstance(message, _Wake) and not message.answered.done():
        message.answered.set_result(None)


def _refuse(message: _Message, error: Exception) -> None:
    if not message.answered.done():
        message.answered.set_exception(error)
