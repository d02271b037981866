"""The executor: what each outcome stores and returns, and who drives when several want to."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import BarkdError
from barkd_py.wallet.actions.executor import (
    MAX_RETRY_PAUSE_SECS,
    ActionExecutor,
    Done,
    Failed,
    Next,
    Outcome,
    Park,
    Retry,
    Until,
)
from barkd_py.wallet.locks import LockBusy, NamedLocks
from barkd_py.wallet.movements import ARKOOR_SEND
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxos.states import ActionHolder, NewVtxo, Spendable, StateKind
from tests.wallet.samples import user_vtxos

ACTION = "some.action"
TROUBLE = BarkdError("trouble")


@dataclass
class Scripted:
    """A machine whose states are numbers, and whose outcomes are written down in advance."""

    outcomes: list[Outcome[int]]
    seen: list[int] = field(default_factory=list)
    kind: ActionKind = ActionKind.ARKOOR_SEND

    def encode(self, state: int) -> str:
        return str(state)

    def decode(self, payload: str) -> int:
        return int(payload)

    def reports(self, state: int) -> Sequence[VtxoId]:
        return ()

    async def step(self, action_id: str, state: int) -> Outcome[int]:
        self.seen.append(state)
        await asyncio.sleep(0)
        return self.outcomes.pop(0)


@dataclass
class Pauses:
    """Sleeps that take no time."""

    taken: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def executor(store: Store, pauses: Pauses) -> ActionExecutor:
    return ActionExecutor(store, NamedLocks(), sleep=pauses)


async def stored(store: Store) -> str | None:
    async with store.read() as tx:
        row = await tx.actions.find(ACTION)
    return None if row is None else row.payload


async def test_it_goes_from_state_to_state_until_it_is_done(store: Store, executor: ActionExecutor) -> None:
    machine = Scripted([Next(1), Next(2), Done()])
    await executor.start(machine, ACTION, 0, until=Until.DONE)
    assert machine.seen == [0, 1, 2]
    assert await stored(store) is None


async def test_a_failure_ends_it_and_is_told(store: Store, executor: ActionExecutor) -> None:
    with pytest.raises(BarkdError, match="trouble"):
        await executor.start(Scripted([Next(1), Failed(TROUBLE)]), ACTION, 0, until=Until.DONE)
    assert await stored(store) is None


async def test_parking_returns_with_the_state_stored(store: Store, executor: ActionExecutor) -> None:
    machine = Scripted([Next(1), Park(7, wake_after_secs=5.0), Done()])
    await executor.start(machine, ACTION, 0, until=Until.PARK)
    assert await stored(store) == "7"
    await executor.drive_all(machine)
    assert machine.seen == [0, 1, 7]
    assert await stored(store) is None


async def test_who_waits_for_the_end_sleeps_through_a_pause(executor: ActionExecutor, pauses: Pauses) -> None:
    machine = Scripted([Park(1, wake_after_secs=5.0, error=TROUBLE), Done()])
    await executor.start(machine, ACTION, 0, until=Until.DONE)
    assert pauses.taken == [5.0]


@pytest.mark.parametrize("until", list(Until))
async def test_a_pause_without_end_is_told_to_whoever_waits(
    store: Store, executor: ActionExecutor, until: Until
) -> None:
    with pytest.raises(BarkdError, match="trouble"):
        await executor.start(Scripted([Park(3, error=TROUBLE)]), ACTION, 0, until=until)
    assert await stored(store) == "3"


async def test_retries_come_ever_more_slowly_up_to_a_minute(
    store: Store, executor: ActionExecutor, pauses: Pauses
) -> None:
    machine = Scripted([*(Retry(TROUBLE) for _ in range(9)), Next(1), Retry(TROUBLE), Done()])
    await executor.start(machine, ACTION, 0, until=Until.DONE)
    squares = [1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0, MAX_RETRY_PAUSE_SECS, MAX_RETRY_PAUSE_SECS]
    assert pauses.taken == [*squares, 1.0]  # progress starts the count anew


async def test_a_retry_leaves_the_state_to_the_next_drive(store: Store, executor: ActionExecutor) -> None:
    with pytest.raises(BarkdError, match="trouble"):
        await executor.start(Scripted([Next(4), Retry(TROUBLE)]), ACTION, 0, until=Until.PARK)
    assert await stored(store) == "4"


async def test_a_bug_leaves_the_state_as_it_was(store: Store, executor: ActionExecutor) -> None:
    with pytest.raises(IndexError):
        await executor.start(Scripted([Next(4)]), ACTION, 0, until=Until.DONE)
    assert await stored(store) == "4"


async def test_one_that_fails_does_not_stop_the_others(store: Store, executor: ActionExecutor) -> None:
    machine = Scripted([Failed(TROUBLE), Done()])
    for action_id in ("first", "second"):
        async with store.transaction() as tx:
            await tx.actions.save(action_id, machine.kind, "0", ())
    await executor.drive_all(machine)
    async with store.read() as tx:
        assert await tx.actions.list() == ()


@pytest.mark.parametrize("last", [Done(), Failed(TROUBLE)])
async def test_the_end_releases_what_the_action_held_and_nothing_else(
    store: Store, executor: ActionExecutor, last: Outcome[int]
) -> None:
    mine, theirs = user_vtxos()[:2]

    async def lock(tx: Transaction) -> None:
        await tx.vtxos.lock([mine.id], ActionHolder(ACTION))

    async with store.transaction() as tx:
        await tx.vtxos.insert([NewVtxo(mine, Spendable()), NewVtxo(theirs, Spendable())])
        await tx.actions.save("other", ActionKind.ARKOOR_SEND, "0", ())
        await tx.vtxos.lock([theirs.id], ActionHolder("other"))
    with contextlib.suppress(BarkdError):
        await executor.start(Scripted([last]), ACTION, 0, until=Until.DONE, writes=lock)
    async with store.read() as tx:
        (locked,) = await tx.vtxos.list([StateKind.LOCKED])
    assert locked.id == theirs.id


async def test_writes_share_the_fate_of_the_state(store: Store, executor: ActionExecutor) -> None:
    """Both or neither: what cannot be written leaves the state before it."""

    async def writes(tx: Transaction) -> None:
        await tx.movements.create(ARKOOR_SEND)
        raise BarkdError("no room")

    with pytest.raises(BarkdError, match="no room"):
        await executor.start(Scripted([Next(1, writes)]), ACTION, 0, until=Until.DONE)
    assert await stored(store) == "0"
    async with store.read() as tx:
        assert await tx.movements.list() == ()


async def test_a_second_driver_goes_away(store: Store, executor: ActionExecutor) -> None:
    machine = Scripted([Next(1), Done()])
    async with store.transaction() as tx:
        await tx.actions.save(ACTION, machine.kind, "0", ())
    await asyncio.gather(*(executor.drive(machine, ACTION) for _ in range(3)))
    assert machine.seen == [0, 1]


async def test_a_late_driver_does_not_bring_a_finished_action_back(
    store: Store, executor: ActionExecutor
) -> None:
    """It listed the action before it was finished, and comes to it afterwards."""
    machine = Scripted([Done(), Done()])
    for action_id in ("first", "second"):
        async with store.transaction() as tx:
            await tx.actions.save(action_id, machine.kind, "0", ())

    class Overtaking(Scripted):
        async def step(self, action_id: str, state: int) -> Outcome[int]:
            if action_id == "first":
                await executor.drive(machine, "second")
            return await super().step(action_id, state)

    overtaking = Overtaking([Done()])
    await executor.drive_all(overtaking)
    assert (overtaking.seen, machine.seen) == ([0], [0])
    async with store.read() as tx:
        assert await tx.actions.list() == ()


async def test_an_action_that_is_driven_cannot_be_started_again(executor: ActionExecutor) -> None:
    class Nested(Scripted):
        async def step(self, action_id: str, state: int) -> Outcome[int]:
            with pytest.raises(LockBusy):
                await asyncio.create_task(executor.start(Scripted([]), ACTION, 0, until=Until.DONE))
            return await super().step(action_id, state)

    await executor.start(Nested([Done()]), ACTION, 0, until=Until.DONE)
