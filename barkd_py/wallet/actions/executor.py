"""Drives actions: operations on money that survive the death of the program.

An action is a persisted state machine. Its row exists exactly while it is not finished, and holds the state
from which it goes on. A *step* looks at the state, calls the server or the chain, and says what came of it:

    Next(state)         go on from there
    Park(state)         nothing to do until somebody drives the action again
    Retry(error)        the outcome is unknown, or the far side was away: same state, later again
    Done()              finished well
    Failed(error)       finished badly, and everything undone that had to be

An error that a step does not handle is a Retry, so that a machine handles those only that mean something to
it. Not so a StoreError: it ends the drive, and the state stays.

Each outcome may carry `writes`: what else must be stored in the very transaction that stores the state or
deletes the row. So a crash falls between steps, never inside one, and the only thing a step may lose is an
answer: it MUST be safe to repeat from the same state (*persist, then call*).

One drive of an action at a time, by a lock with the action's name. The row is read after the lock is taken:
a drive that waited would else go on from a state that is no longer true.

Source: sheet 09 §2; sheet 03 §5.
"""

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, assert_never

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import BarkdError, KnownError, ServerError, StoreError, causes, log_text
from barkd_py.wallet.actions.failures import StillPending
from barkd_py.wallet.locks import LockBusy, NamedLocks
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.payloads import PayloadFormat
from barkd_py.wallet.vtxo_states import ActionHolder

log = logging.getLogger(__name__)

S = TypeVar("S")

# Upstream's pause grows for ever; a server that is back after an hour should not wait for us another one.
MAX_RETRY_PAUSE_SECS = 60.0

Writes = Callable[[Transaction], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]

Prepare = Callable[[Transaction], Awaitable[S]]
"""Makes the first state of an action inside the transaction that stores it."""


@dataclass(frozen=True, slots=True)
class Next(Generic[S]):
    state: S
    writes: Writes | None = None


@dataclass(frozen=True, slots=True)
class Park(Generic[S]):
    """wake_after_secs: when somebody who waits for the end looks again; None: not by itself."""

    state: S
    wake_after_secs: float | None = None
    error: BarkdError | None = None
    writes: Writes | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    error: BarkdError


@dataclass(frozen=True, slots=True)
class Done:
    writes: Writes | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    error: BarkdError
    writes: Writes | None = None


Outcome = Next[S] | Park[S] | Retry | Done | Failed


class Until(enum.Enum):
    """How long a drive goes on: to the first pause, or to the end, sleeping through pauses."""

    PARK = enum.auto()
    DONE = enum.auto()


class Machine(Protocol[S]):
    """One kind of action: what a step does, and how its states are stored."""

    @property
    def kind(self) -> ActionKind: ...

    @property
    def format(self) -> PayloadFormat[S]: ...

    def reports(self, state: S) -> Sequence[VtxoId]:
        """The VTXOs that the balance counts as this action's in this state."""

    async def step(self, action_id: str, state: S) -> Outcome[S]:
        """Do the next thing. MUST be repeatable from the same state.

        Raises BarkdError for `Retry`. Any other exception is a bug, and a StoreError a broken store: they end
        the drive, and the state stays.
        """


async def step_once(machine: Machine[S], action_id: str, state: S) -> Outcome[S]:
    """One step, with its outcome if it raised. Nothing is stored."""
    try:
        return await machine.step(action_id, state)
    except BarkdError as error:
        return Retry(error)


async def save_action(tx: Transaction, machine: Machine[S], action_id: str, state: S) -> None:
    await tx.actions.save(action_id, machine.kind, machine.format.encode(state), machine.reports(state))


class ActionExecutor:
    """Drives actions of every kind.

    on_refused: told of the VTXOs of an action that the server made fail, once they are free again: something
    may be the matter with them.
    """

    def __init__(self, store: Store, locks: NamedLocks, *, sleep: Sleep = asyncio.sleep) -> None:
        self._store = store
        self._locks = locks
        self._sleep = sleep
        self.on_refused: Callable[[Sequence[VtxoId]], Awaitable[None]] | None = None

    async def store_new(self, machine: Machine[S], action_id: str, prepare: Prepare[S]) -> S:
        """Store a new action without driving it: the state that `prepare` makes, and all that it writes.

        Raises what `prepare` raises; nothing was stored then.
        """
        async with self._store.transaction() as tx:
            state = await prepare(tx)
            await save_action(tx, machine, action_id, state)
        return state

    async def begin(
        self,
        machine: Machine[S],
        action_id: str,
        prepare: Prepare[S],
        *,
        until: Until,
        on_stored: Callable[[], None] | None = None,
    ) -> None:
        """`store_new`, then drive it. The lock is held before the row exists: nobody drives it first.

        on_stored: called once the action is stored. Raises the action's error if it fails, or parks with one;
        the action goes on in the latter case. A StoreError means that nothing was stored; a store that breaks
        later is a StillPending, lest the caller begin once more what happens all the same.
        """
        async with self._locks.try_hold(action_id):
            state = await self.store_new(machine, action_id, prepare)
            if on_stored is not None:
                on_stored()
            try:
                await self._drive_from(machine, action_id, state, until)
            except StoreError as error:
                raise StillPending(machine.kind.spoken) from error

    async def drive(self, machine: Machine[S], action_id: str, *, until: Until = Until.PARK) -> None:
        """Drive a stored action; nothing happens if it is finished, or if somebody else drives it.

        Raises the action's error if it fails, or pauses with one.
        """
        try:
            async with self._locks.try_hold(action_id):
                await self._drive(machine, action_id, until)
        except LockBusy:
            log.debug("action %s is being driven already", action_id)

    async def drive_all(self, machine: Machine[S]) -> None:
        """Drive every stored action of a kind until it pauses; one that fails does not stop the others."""
        async with self._store.read() as tx:
            pending = await tx.actions.list(machine.kind)
        for checkpoint in pending:
            try:
                await self.drive(machine, checkpoint.id)
            except KnownError as error:
                log.warning("%s %s did not finish: %s", machine.kind, checkpoint.id, log_text(error))

    async def _drive(self, machine: Machine[S], action_id: str, until: Until) -> None:
        async with self._store.read() as tx:
            checkpoint = await tx.actions.find(action_id)
        if checkpoint is None:
            return
        await self._drive_from(machine, action_id, machine.format.decode(checkpoint.payload), until)

    async def _drive_from(self, machine: Machine[S], action_id: str, state: S, until: Until) -> None:
        """state: the stored one."""
        failures = 0
        while True:
            outcome = await step_once(machine, action_id, state)
            match outcome:
                case Next():
                    state = outcome.state
                    await self._save(machine, action_id, state, outcome.writes)
                    failures = 0
                case Park():
                    if outcome.state != state or outcome.writes is not None:  # else it only waited
                        state = outcome.state
                        await self._save(machine, action_id, state, outcome.writes)
                    if until is Until.DONE and outcome.wake_after_secs is not None:
                        await self._sleep(outcome.wake_after_secs)
                    elif outcome.error is not None:
                        raise outcome.error
                    else:
                        return
                case Retry():
                    if until is Until.PARK:
                        raise outcome.error
                    failures += 1
                    log.warning("%s %s, try %d: %s", machine.kind, action_id, failures, outcome.error)
                    await self._sleep(min(MAX_RETRY_PAUSE_SECS, float(failures * failures)))
                case Done():
                    await self._finish(action_id, outcome.writes)
                    return
                case Failed():
                    await self._finish(action_id, outcome.writes)
                    await self._look_into(machine.reports(state), outcome.error)
                    raise outcome.error
                case _:
                    assert_never(outcome)

    async def _look_into(self, vtxo_ids: Sequence[VtxoId], error: BarkdError) -> None:
        if self.on_refused is None or not any(isinstance(cause, ServerError) for cause in causes(error)):
            return
        try:
            await self.on_refused(vtxo_ids)
        except BarkdError as trouble:
            log.warning("looking at refused inputs failed: %s", log_text(trouble))

    async def _save(self, machine: Machine[S], action_id: str, state: S, writes: Writes | None) -> None:
        async with self._store.transaction() as tx:
            # The row first: locks taken in `writes` name it as their holder.
            await save_action(tx, machine, action_id, state)
            if writes is not None:
                await writes(tx)

    async def _finish(self, action_id: str, writes: Writes | None) -> None:
        async with self._store.transaction() as tx:
            if writes is not None:
                await writes(tx)
            await tx.vtxos.release_held_by(ActionHolder(action_id))
            await tx.actions.delete(action_id)
