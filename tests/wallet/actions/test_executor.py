"""The executor: what each outcome stores and returns, what an error does, who drives if several want."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from pydantic import TypeAdapter

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import BarkdError, StoreError
from barkd_py.wallet.actions.executor import (
    MAX_RETRY_PAUSE_SECS,
    ActionExecutor,
    Done,
    Failed,
    Machine,
    Next,
    Outcome,
    Park,
    Retry,
    Until,
)
from barkd_py.wallet.actions.failures import StillPending
from barkd_py.wallet.locks import LockBusy, NamedLocks
from barkd_py.wallet.movements import ARKOOR_SEND
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.payloads import PayloadFormat
from barkd_py.wallet.vtxo_states import ActionHolder, NewVtxo, Spendable, StateKind
from tests.wallet.samples import user_vtxos

ACTION = "some.action"
TROUBLE = BarkdError("trouble")


class Numbers(PayloadFormat[int]):
    def __init__(self) -> None:
        super().__init__("number", lambda: TypeAdapter(int))

    def encode(self, state: int) -> str:
        return str(state)

    def decode(self, text: str) -> int:
        return int(text)


@dataclass
class Scripted:
    """A machine whose states are numbers, and whose outcomes and errors are written down in advance."""

    outcomes: list[Outcome[int] | Exception]
    seen: list[int] = field(default_factory=list)
    kind: ActionKind = ActionKind.ARKOOR_SEND
    format: PayloadFormat[int] = field(default_factory=Numbers)

    def reports(self, state: int) -> Sequence[VtxoId]:
        return ()

    async def step(self, action_id: str, state: int) -> Outcome[int]:
        self.seen.append(state)
        await asyncio.sleep(0)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


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


async def begin(executor: ActionExecutor, machine: Machine[int], *, until: Until) -> None:
    async def prepare(tx: Transaction) -> int:
        return 0

    await executor.begin(machine, ACTION, prepare, until=until)


@pytest.mark.parametrize("until", list(Until))
async def test_it_goes_from_state_to_state_until_it_is_done(
    store: Store, executor: ActionExecutor, until: Until
) -> None:
    machine = Scripted([Next(1), Next(2), Done()])
    await begin(executor, machine, until=until)
    assert machine.seen == [0, 1, 2]
    assert await stored(store) is None


async def test_a_failure_ends_it_and_is_told(store: Store, executor: ActionExecutor) -> None:
    with pytest.raises(BarkdError, match="trouble"):
        await begin(executor, Scripted([Next(1), Failed(TROUBLE)]), until=Until.DONE)
    assert await stored(store) is None


async def test_parking_returns_with_the_state_stored(store: Store, executor: ActionExecutor) -> None:
    machine = Scripted([Next(1), Park(7, wake_after_secs=5.0), Done()])
    await begin(executor, machine, until=Until.PARK)
    assert await stored(store) == "7"
    await executor.drive_all(machine)
    assert machine.seen == [0, 1, 7]
    assert await stored(store) is None


async def test_only_who_waits_for_the_end_sleeps_and_a_pause_without_end_ends_both(
    store: Store, executor: ActionExecutor, pauses: Pauses
) -> None:
    machine = Scripted([Park(1, wake_after_secs=7.0), Park(2, wake_after_secs=8.0), Park(3), Done()])
    await begin(executor, machine, until=Until.PARK)
    assert (machine.seen, pauses.taken, await stored(store)) == ([0], [], "1")
    await executor.drive(machine, ACTION, until=Until.DONE)
    assert (machine.seen, pauses.taken, await stored(store)) == ([0, 1, 2], [8.0], "3")
    await executor.drive(machine, ACTION, until=Until.DONE)
    assert await stored(store) is None


async def test_nothing_is_written_where_nothing_has_changed(store: Store, executor: ActionExecutor) -> None:
    """Thousands may wait, and are looked at every minute."""
    written: list[object] = []

    async def write(tx: Transaction) -> None:
        written.append(tx)

    machine = Scripted([Park(1), Park(1), Park(1, writes=write), Park(2)])
    await begin(executor, machine, until=Until.PARK)
    revisions = [store.revision]
    for _ in range(3):
        await executor.drive(machine, ACTION)
        revisions.append(store.revision)
    assert [revision - revisions[0] for revision in revisions] == [0, 0, 1, 2]
    assert len(written) == 1
    assert await stored(store) == "2"


async def test_who_waits_for_the_end_sleeps_through_a_pause(executor: ActionExecutor, pauses: Pauses) -> None:
    machine = Scripted([Park(1, wake_after_secs=5.0, error=TROUBLE), Done()])
    await begin(executor, machine, until=Until.DONE)
    assert pauses.taken == [5.0]


async def test_the_error_of_a_pause_is_told_to_who_does_not_wait(
    store: Store, executor: ActionExecutor
) -> None:
    with pytest.raises(BarkdError, match="trouble"):
        await begin(executor, Scripted([Park(1, wake_after_secs=7.0, error=TROUBLE)]), until=Until.PARK)
    assert await stored(store) == "1"


@pytest.mark.parametrize("until", list(Until))
async def test_a_pause_without_end_is_told_to_whoever_waits(
    store: Store, executor: ActionExecutor, until: Until
) -> None:
    with pytest.raises(BarkdError, match="trouble"):
        await begin(executor, Scripted([Park(3, error=TROUBLE)]), until=until)
    assert await stored(store) == "3"


async def test_retries_come_ever_more_slowly_up_to_a_minute(
    store: Store, executor: ActionExecutor, pauses: Pauses
) -> None:
    machine = Scripted([*(Retry(TROUBLE) for _ in range(9)), Next(1), Retry(TROUBLE), Done()])
    await begin(executor, machine, until=Until.DONE)
    squares = [1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0, MAX_RETRY_PAUSE_SECS, MAX_RETRY_PAUSE_SECS]
    assert pauses.taken == [*squares, 1.0]  # progress starts the count anew


async def test_a_retry_leaves_the_state_to_the_next_drive(store: Store, executor: ActionExecutor) -> None:
    with pytest.raises(BarkdError, match="trouble"):
        await begin(executor, Scripted([Next(4), Retry(TROUBLE)]), until=Until.PARK)
    assert await stored(store) == "4"


async def test_an_error_that_a_step_does_not_handle_is_a_retry(
    store: Store, executor: ActionExecutor, pauses: Pauses
) -> None:
    machine = Scripted([Next(4), TROUBLE, TROUBLE, TROUBLE, Done()])
    with pytest.raises(BarkdError, match="trouble"):
        await begin(executor, machine, until=Until.PARK)
    assert (machine.seen, await stored(store)) == ([0, 4], "4")
    await executor.drive(machine, ACTION, until=Until.DONE)
    assert (machine.seen, pauses.taken) == ([0, 4, 4, 4, 4], [1.0, 4.0])
    assert await stored(store) is None


async def test_a_bug_ends_even_a_drive_that_waits(store: Store, executor: ActionExecutor) -> None:
    with pytest.raises(IndexError):
        await begin(executor, Scripted([Next(4), IndexError("a bug")]), until=Until.DONE)
    assert await stored(store) == "4"


async def test_a_broken_store_ends_a_drive_and_whoever_began_it_knows_that_it_goes_on(
    store: Store, executor: ActionExecutor
) -> None:
    machine = Scripted([Next(4), StoreError("the disk is full"), StoreError("the disk is full"), Done()])
    with pytest.raises(StillPending, match="continues in the background"):
        await begin(executor, machine, until=Until.DONE)
    assert await stored(store) == "4"
    with pytest.raises(StoreError, match="the disk is full"):
        await executor.drive(machine, ACTION, until=Until.DONE)
    await executor.drive(machine, ACTION)
    assert await stored(store) is None


async def test_one_that_fails_or_rests_does_not_stop_the_others_of_its_kind(
    store: Store, executor: ActionExecutor
) -> None:
    machine = Scripted([Failed(TROUBLE), Retry(TROUBLE), Done()])
    async with store.transaction() as tx:
        for action_id in ("first", "second", "third"):
            await tx.actions.save(action_id, machine.kind, "0", ())
        await tx.actions.save("board.x.0", ActionKind.BOARD, "0", ())
    await executor.drive_all(machine)
    async with store.read() as tx:
        assert [row.id for row in await tx.actions.list()] == ["second", "board.x.0"]


@pytest.mark.parametrize("last", [Done(), Failed(TROUBLE)])
async def test_the_end_releases_what_the_action_held_and_nothing_else(
    store: Store, executor: ActionExecutor, last: Outcome[int]
) -> None:
    mine, theirs = user_vtxos()[:2]

    async def lock(tx: Transaction) -> int:
        await tx.actions.save(ACTION, ActionKind.ARKOOR_SEND, "0", ())
        await tx.vtxos.lock([mine.id], ActionHolder(ACTION))
        return 0

    async with store.transaction() as tx:
        await tx.vtxos.insert([NewVtxo(mine, Spendable()), NewVtxo(theirs, Spendable())])
        await tx.actions.save("other", ActionKind.ARKOOR_SEND, "0", ())
        await tx.vtxos.lock([theirs.id], ActionHolder("other"))
    with contextlib.suppress(BarkdError):
        await executor.begin(Scripted([Next(1), last]), ACTION, lock, until=Until.DONE)
    async with store.read() as tx:
        (locked,) = await tx.vtxos.list([StateKind.LOCKED])
    assert locked.id == theirs.id


async def test_writes_share_the_fate_of_the_state(store: Store, executor: ActionExecutor) -> None:
    """Both or neither: what cannot be written leaves the state before it."""

    async def writes(tx: Transaction) -> None:
        await tx.movements.create(ARKOOR_SEND)
        raise BarkdError("no room")

    with pytest.raises(BarkdError, match="no room"):
        await begin(executor, Scripted([Next(1, writes)]), until=Until.DONE)
    assert await stored(store) == "0"
    async with store.read() as tx:
        assert await tx.movements.list() == ()


async def test_nothing_is_stored_if_the_first_state_cannot_be_made(
    store: Store, executor: ActionExecutor
) -> None:
    async def prepare(tx: Transaction) -> int:
        await tx.movements.create(ARKOOR_SEND)
        raise BarkdError("no money")

    with pytest.raises(BarkdError, match="no money"):
        await executor.begin(Scripted([]), ACTION, prepare, until=Until.DONE)
    assert await stored(store) is None
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
                await asyncio.create_task(begin(executor, Scripted([]), until=Until.DONE))
            return await super().step(action_id, state)

    await begin(executor, Nested([Done()]), until=Until.DONE)


async def test_a_finished_action_is_not_driven(store: Store, executor: ActionExecutor) -> None:
    machine = Scripted([Done()])
    await begin(executor, machine, until=Until.DONE)
    await executor.drive(machine, ACTION)
    assert machine.seen == [0]
    assert await stored(store) is None
