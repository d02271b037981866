"""Rounds as a part of the wallet: refreshes are started here, and everything under way is kept going.

A refresh is stored with its movement before anything is asked of the server; then the stream of round events
drives it (`on_event`), and `sync` looks after what no event tells. Both may be called at any time.

Source: sheet 04 §12-§20, §22.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError, KnownError, NotFound, StateConflict, StoreError, chain_text
from barkd_py.server_rpc.api import ArkServerApi, RoundAttempt, RoundEvent
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.movements import ROUND_REFRESH
from barkd_py.wallet.rounds import machine
from barkd_py.wallet.rounds.bounds import (
    AbsurdFee,
    UnattendedBounds,
    WorseTerms,
    check_asked_fee,
    check_lifetime,
)
from barkd_py.wallet.rounds.driver import Rescue, RoundDriver
from barkd_py.wallet.rounds.maintenance import select_inputs
from barkd_py.wallet.rounds.participation import (
    DuplicateInput,
    InputNotSpendable,
    UnknownInput,
    cut_to_size,
    has_counterparty_risk,
    movement_update,
    output_amount_sat,
)
from barkd_py.wallet.rounds.records import Record
from barkd_py.wallet.rounds.recovery import ParticipationRecovery
from barkd_py.wallet.rounds.states import (
    Agreed,
    Canceled,
    Delegated,
    Failed,
    Joining,
    Output,
    Pending,
    Registered,
    Round,
    RoundInfo,
    Signed,
    Submitting,
    Waiting,
    decode_round,
    encode_round,
    is_held,
)
from barkd_py.wallet.rounds.swap import SwapLimits
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.rounds import RoundRow
from barkd_py.wallet.store.unreadable import PassedOver
from barkd_py.wallet.vtxo_states import Locked, MovementHolder, Spendable, WalletVtxo
from barkd_py.wallet.vtxos.registration import Registration
from barkd_py.wallet.vtxos.selection import RefreshRules

log = logging.getLogger(__name__)

CONCURRENT_SYNCS = 10
MAX_MAINTENANCE_TRIES = 10
MAX_RESTORES = 3

_DRIVEN_BY_EVENTS = (Waiting, Joining, Registered, Signed)
_DRIVEN_BY_SERVER = (Submitting, Delegated)


class NothingToRefresh(BarkdError):
    def __init__(self) -> None:
        super().__init__("No VTXOs to refresh")


class NotBuilt(BarkdError):
    """The inputs do not make a refresh; the cause says why. Nothing was stored."""

    def __init__(self) -> None:
        super().__init__("Failed to build round participation")


class NotStored(BarkdError):
    """The refresh does not take place; the cause says why."""

    def __init__(self) -> None:
        super().__init__("Failed to store round participation")


class RefusedByServer(BarkdError):
    """The server will not take part for us. Nothing is left of the participation but its movement."""


class NotHandedOver(BarkdError):
    """Whether the server takes part for us is not known yet."""

    def __init__(self, round_id: int, reason: str) -> None:
        super().__init__(
            f"round participation {round_id} could not be handed to the server yet; "
            f"it remains pending and will be retried on wallet sync: {reason}"
        )
        self.round_id = round_id


class UnknownRound(NotFound):
    def __init__(self, round_id: int) -> None:
        super().__init__("round state not found", (str(round_id),))


class CannotCancel(StateConflict):
    """It has gone too far."""


class Rounds:
    """Made by the wallet. unattended: what may be refreshed without anybody asking for it."""

    def __init__(
        self,
        store: Store,
        server: ArkServerApi,
        chain: ChainSource,
        keychain: Keychain,
        registration: Registration,
        locks: NamedLocks,
        *,
        limits: SwapLimits,
        unattended: UnattendedBounds,
        rescue: Rescue,
        gap_limit: int,
    ) -> None:
        self.rescue = rescue
        self._store = store
        self._server = server
        self._chain = chain
        self._keychain = keychain
        self._unattended = unattended
        self._exit_margin = limits.exit_margin
        self._driver = RoundDriver(
            store, server, chain, keychain, registration, locks, limits, unattended, rescue
        )
        self._recovery = ParticipationRecovery(
            store, server, chain, keychain, unattended, gap_limit=gap_limit
        )
        self._passed_over = PassedOver("rounds")
        self._starting = asyncio.Lock()
        self._last_event: RoundEvent | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    async def close(self) -> None:
        """Stop what is under way in the background; every participation is where its row says."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._driver.forget()

    # --- starting

    async def refresh(self, vtxo_ids: Sequence[VtxoId]) -> RoundInfo:
        """Refresh exactly these in the next round; returns once that is stored.

        Raises NothingToRefresh, NotBuilt, NotStored.
        """
        if not vtxo_ids:
            raise NothingToRefresh
        record = await self._start(vtxo_ids, Waiting())
        self._join_what_is_open(record.id)
        return _info(record)

    async def refresh_all(self) -> RoundInfo:
        """Refresh every spendable VTXO that can be. Raises as `refresh`."""
        tip = await self._chain.tip()
        async with self._store.read() as tx:
            spendable = await tx.vtxos.refreshable(tip.height)
        return await self.refresh([vtxo.id for vtxo in spendable])

    async def refresh_counterparty(self) -> RoundInfo:
        """Refresh the spendable VTXOs that somebody else could undo. Raises as `refresh`."""
        tip = await self._chain.tip()
        async with self._store.read() as tx:
            spendable = await tx.vtxos.refreshable(tip.height)
            bodies, unreadable = await tx.vtxos.readable_bodies([vtxo.id for vtxo in spendable])
            signers = {key for vtxo in bodies for keys in vtxo.past_arkoor_pubkeys for key in keys}
            signers.update(vtxo.user_pubkey for vtxo in bodies)
            own_keys = frozenset(await tx.keys.find_many(list(signers)))
        for error in unreadable:
            self._passed_over.note(error.vtxo_id, error)
        return await self.refresh([vtxo.id for vtxo in bodies if has_counterparty_risk(vtxo, own_keys)])

    async def refresh_delegated(self, vtxo_ids: Sequence[VtxoId], height: int | None = None) -> RoundInfo:
        """Let the server refresh these for us, in the next round or the first one from a height on.

        The inputs stay free for other uses until the round is held. Raises NothingToRefresh, NotStored;
        caused by NotHandedOver, it goes on all the same.
        """
        if not vtxo_ids:
            raise NothingToRefresh
        try:
            record = await self._start(vtxo_ids, Submitting(), scheduled_height=height)
        except NotBuilt as error:
            raise NotStored from error.__cause__
        driven = await self._driver.submit(record.id)
        match driven:
            case Record(round=Round(state=Failed(reason) | Canceled(reason))):
                raise NotStored from RefusedByServer(reason)
            case Record(round=Round(state=Submitting(), last_error=reason)):
                raise NotStored from NotHandedOver(record.id, reason or "unknown")
        return _info(driven or record)

    async def _start(
        self,
        vtxo_ids: Sequence[VtxoId],
        state: Waiting | Submitting,
        *,
        scheduled_height: int | None = None,
    ) -> Record:
        """Store a participation with its movement. Raises NotBuilt, NotStored."""
        try:
            info = await self._server.info()
            tip = await self._chain.tip()
        except BarkdError as error:
            raise NotBuilt from error
        height = tip.height if scheduled_height is None else scheduled_height
        async with self._store.transaction() as tx:
            try:
                inputs = await _inputs(tx, vtxo_ids)
                amount_sat = output_amount_sat(inputs, info, height)
                check_asked_fee(inputs, amount_sat)
                check_lifetime(inputs, info, tip_height=tip.height, exit_margin=self._exit_margin)
            except BarkdError as error:
                raise NotBuilt from error
            for vtxo in inputs:
                if vtxo.state != Spendable():
                    raise NotStored from InputNotSpendable(vtxo)
            return await self._insert(tx, inputs, amount_sat, info, state, scheduled_height)

    async def _insert(
        self,
        tx: Transaction,
        inputs: Sequence[WalletVtxo],
        amount_sat: int,
        info: ArkInfo,
        state: Waiting | Submitting,
        scheduled_height: int | None = None,
    ) -> Record:
        key = await self._keychain.reserve_in(tx)
        round_ = Round(
            inputs=tuple(vtxo.id for vtxo in inputs),
            outputs=(Output(amount_sat, key.public_key),),
            state=state,
            scheduled_height=scheduled_height,
            agreed=Agreed(info.vtxo_exit_delta, info.vtxo_lifetime),
        )
        movement = await tx.movements.create(ROUND_REFRESH, movement_update(inputs, amount_sat))
        round_id = await tx.rounds.insert(encode_round(round_), round_.inputs, movement_id=movement.id)
        return Record(round_id, movement.id, round_)

    def _join_what_is_open(self, round_id: int) -> None:
        """An attempt that the stream has announced before may still take participants."""
        event = self._last_event
        if isinstance(event, RoundAttempt) and event.attempt_seq == 0:
            self._in_background(self._feed([round_id], event), f"join round {event.round_seq}")

    def _in_background(self, work: Awaitable[object], name: str) -> None:
        async def run() -> None:
            await work

        task: asyncio.Task[object] = asyncio.create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- events

    async def run_events(self, events: AsyncGenerator[RoundEvent, None]) -> None:
        """Follow the stream until it ends."""
        async with aclosing(events):
            async for event in events:
                await self.on_event(event)

    async def on_event(self, event: RoundEvent) -> None:
        """Let every participation see an event of the stream, and join it for maintenance. Never fails."""
        self._last_event = event
        rounds = await self._read()
        concerned = [
            round_id for round_id, round_ in rounds.items() if isinstance(round_.state, _DRIVEN_BY_EVENTS)
        ]
        work: list[Awaitable[object]] = [self._feed(concerned, event)]
        if isinstance(event, RoundAttempt) and event.attempt_seq == 0:
            work.append(self._join_for_maintenance(event))
        await asyncio.gather(*work)

    async def _feed(self, round_ids: Iterable[int], seen: machine.Observation) -> list[Record]:
        """Those that could be driven, as they are now; errors are logged."""
        ids = tuple(round_ids)
        outcomes = await asyncio.gather(
            *(self._driver.feed(round_id, seen) for round_id in ids), return_exceptions=True
        )
        for round_id, outcome in zip(ids, outcomes, strict=True):
            _log_failure(f"round state {round_id}", outcome)
        return [outcome for outcome in outcomes if isinstance(outcome, Record)]

    # --- maintenance

    async def _join_for_maintenance(self, attempt: RoundAttempt) -> None:
        """Refresh what must be. Where the server refuses inputs, it is tried again without them."""
        for _ in range(MAX_MAINTENANCE_TRIES):
            try:
                round_ids = await self.start_maintenance()
            except BarkdError as error:
                log.warning("Failed to join round for maintenance refresh: %s", chain_text(error))
                return
            records = await self._feed(round_ids, attempt)
            if not any(isinstance(record.round.state, Failed) for record in records):
                return
        log.warning("Maintenance refresh failed after %d retries", MAX_MAINTENANCE_TRIES)

    async def start_maintenance(self) -> list[int]:
        """Store refreshes of what must be refreshed; the ids of the participations, for the next attempt."""
        info = await self._server.info()
        tip = await self._chain.tip()
        # What an exit costs only says what goes along; asking for it may take a while.
        threshold = self._unattended.refresh_threshold
        rules = RefreshRules(tip.height, threshold, info.max_vtxo_exit_depth, FeeRate(0))
        async with self._store.read() as tx:
            if not await tx.vtxos.has_spendable(
                expiring_before=rules.must_before_height, min_exit_depth=rules.max_exit_depth
            ):
                return []
        rules = replace(rules, fee_rate=(await self._chain.fee_rates()).fast)
        async with self._starting, self._store.transaction() as tx:
            rounds = self._readable(await tx.rounds.list())
            under_way = rounds.values()
            unreadable = {
                vtxo_id
                for vtxo_id, ids in (await tx.rounds.by_input()).items()
                if not rounds.keys() >= {*ids}
            }
            selected = select_inputs(
                await tx.vtxos.refreshable(tip.height),
                rules,
                joining=_inputs_of(under_way, _DRIVEN_BY_EVENTS) | unreadable,
                delegated=_inputs_of(under_way, _DRIVEN_BY_SERVER),
                refused=self._driver.refused,
            )
            return [
                record.id
                for group in cut_to_size(selected, info.max_vtxo_amount_sat)
                if (record := await self._insert_automatic(tx, group, info, tip.height)) is not None
            ]

    async def _insert_automatic(
        self, tx: Transaction, inputs: Sequence[WalletVtxo], info: ArkInfo, height: int
    ) -> Record | None:
        try:
            amount_sat = output_amount_sat(inputs, info, height)
            self._unattended.check(inputs, amount_sat, info)
            check_lifetime(inputs, info, tip_height=height, exit_margin=self._exit_margin)
        except (AbsurdFee, WorseTerms) as error:
            log.error("%d VTXOs are not refreshed: %s", len(inputs), chain_text(error))
            self._driver.leave_alone([vtxo.id for vtxo in inputs], height)
            return None
        except BarkdError as error:
            log.warning("%d VTXOs cannot be refreshed: %s", len(inputs), chain_text(error))
            return None
        return await self._insert(tx, inputs, amount_sat, info, Waiting())

    async def lets_go(self, vtxo: WalletVtxo) -> bool:
        """Whether it is an input of a round that is not known to be held. See `exits.starts.LetsGo`.

        Also when the tree is signed: the server can end the round then, but forfeits come later, and the new
        VTXOs are worth nothing before. Later it is `round_rescue` that has inputs exit.
        """
        match vtxo.state:
            case Locked(MovementHolder(movement_id)):
                async with self._store.read() as tx:
                    rows = await tx.rounds.list()
                return any(
                    row.movement_id == movement_id and not is_held(decode_round(row.payload).state)
                    for row in rows
                )
            case _:
                return False

    # --- looking after

    async def sync(self) -> None:
        """Look what became of every participation; errors of one do not stop the others."""
        rounds = await self._read()
        if any(isinstance(round_.state, Signed | Registered | Joining) for round_ in rounds.values()):
            await self._catch_up_with_events(rounds)
        slots = asyncio.Semaphore(CONCURRENT_SYNCS)

        async def look(round_id: int) -> None:
            async with slots:
                await self._driver.sync(round_id)

        outcomes = await asyncio.gather(*map(look, rounds), return_exceptions=True)
        for round_id, outcome in zip(rounds, outcomes, strict=True):
            _log_failure(f"round state {round_id}", outcome)

    async def _catch_up_with_events(self, round_ids: Iterable[int]) -> None:
        """The stream may have missed the end of an attempt."""
        try:
            last = await self._server.last_round_event()
        except BarkdError as error:
            log.warning("last round event: %s", chain_text(error))
            return
        await self._feed(round_ids, machine.ServerRestarted() if last is None else last)

    async def list(self) -> Sequence[RoundInfo]:
        """Every participation, after looking what became of it; oldest first. Raises LockTimeout."""
        infos = [await self._driver.sync(round_id) for round_id in await self._read()]
        return [info for info in infos if info is not None]

    async def cancel(self, round_id: int) -> None:
        """Call a participation off.

        Raises UnknownRound; CannotCancel for one that is delegated, or that the server may finish.
        """
        record = await self._driver.feed(round_id, machine.CancelRequested())
        match None if record is None else record.round.state:
            case None:
                raise UnknownRound(round_id)
            case Canceled() | Failed():
                return
            case Submitting() | Delegated():
                raise CannotCancel("it is currently not yet possible to cancel pending delegated rounds")
            case _:
                raise CannotCancel("failed to cancel round")

    async def on_completed(self, unlock_hash: bytes) -> None:
        """The mailbox says that a delegated participation was held; one that we lost is found again.

        Raises what keeps it from being looked at: the message comes again.
        """
        for _ in range(MAX_RESTORES):
            unanswered = await self._recovery.restore(unlock_hash)
            if unanswered is None or await self._feed([unanswered], machine.Accepted(unlock_hash)):
                break
            # It ended while we looked: the server refuses to be handed what it has held already.
        else:
            raise StateConflict("a round that was held is not taken over yet")
        self._in_background(self.sync(), "rounds after a mailbox message")

    async def _read(self) -> dict[int, Round]:
        """Every participation that can be read, by its id, oldest first."""
        async with self._store.read() as tx:
            rows = await tx.rounds.list()
        return self._readable(rows)

    def _readable(self, rows: Iterable[RoundRow]) -> dict[int, Round]:
        rounds: dict[int, Round] = {}
        for row in rows:
            try:
                rounds[row.id] = decode_round(row.payload)
            except StoreError as error:
                self._passed_over.note(f"round state {row.id}", error)
        return rounds


async def _inputs(tx: Transaction, vtxo_ids: Sequence[VtxoId]) -> list[WalletVtxo]:
    """Raises DuplicateInput, UnknownInput."""
    stored = await tx.vtxos.find_many(dict.fromkeys(vtxo_ids))
    inputs: dict[VtxoId, WalletVtxo] = {}
    for vtxo_id in vtxo_ids:
        if vtxo_id in inputs:
            raise DuplicateInput(vtxo_id)
        if vtxo_id not in stored:
            raise UnknownInput(vtxo_id)
        inputs[vtxo_id] = stored[vtxo_id]
    return list(inputs.values())


def _inputs_of(rounds: Iterable[Round], states: tuple[type, ...]) -> set[VtxoId]:
    """Of the participations in one of the states."""
    return {vtxo_id for round_ in rounds if isinstance(round_.state, states) for vtxo_id in round_.inputs}


def _info(record: Record) -> RoundInfo:
    return RoundInfo(record.id, record.round, Pending(), record.movement_id)


def _log_failure(what: str, outcome: object) -> None:
    match outcome:
        case KnownError():
            log.warning("%s: %s", what, chain_text(outcome))
        case Exception():
            log.error("%s failed", what, exc_info=outcome)
        case BaseException():
            raise outcome
