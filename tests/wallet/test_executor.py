"""The executor with a machine whose outcomes the test writes."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import BarkdError, ServerUnavailable
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
from barkd_py.wallet.vtxos.states import ActionHolder, Spendable
from tests.wallet.samples import insert, make_vtxo, states

ID = "0123456789abcdef0123456789abcdef"
TROUBLE = ServerUnavailable("away")


class Script:
    """States are texts; each has the outcomes of its visits, the last one for good."""

    kind = ActionKind.ARKOOR_SEND

    def __init__(self, **outcomes: Sequence[Outcome[str]]) -> None:
        self._outcomes = {state: list(steps) for state, steps in outcomes.items()}
        self.visited: list[str] = []
        self.during: Callable[[], object] = lambda: None

    def encode(self, state: str) -> str:
        return state

    def decode(self, payload: str) -> str:
        return payload

    def reports(self, state: str) -> Sequence[VtxoId]:
        return ()

    async def step(self, action_id: str, state: str) -> Outcome[str]:
        assert action_id == ID
        self.visited.append(state)
        result = self.during()
        if asyncio.iscoroutine(result):
            await result
        waiting = self._outcomes[state]
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


class Sleeps(list[float]):
    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


async def start(
    store: Store, machine: Any, until: Until, sleeps: Sleeps | None = None, first: str = "a"
) -> ActionExecutor:
    executor = ActionExecutor(store, NamedLocks(), sleep=Sleeps() if sleeps is None else sleeps)

    async def prepare(tx: Transaction) -> str:
        return first

    await executor.begin(machine, ID, prepare, until=until)
    return executor


async def stored(store: Store) -> str | None:
    async with store.read() as tx:
        row = await tx.actions.find(ID)
    return None if row is None else row.payload


@pytest.mark.parametrize("until", list(Until))
async def test_steps_follow_each_other_to_the_end(sqlite_store: Store, until: Until) -> None:
    machine = Script(a=[Next("b")], b=[Next("c")], c=[Done()])
    await start(sqlite_store, machine, until)
    assert machine.visited == ["a", "b", "c"]
    assert await stored(sqlite_store) is None


async def test_trouble_ends_a_drive_that_does_not_wait(sqlite_store: Store) -> None:
    machine = Script(a=[Next("b")], b=[Retry(TROUBLE), Done()])
    with pytest.raises(ServerUnavailable):
        await start(sqlite_store, machine, Until.PARK)
    assert await stored(sqlite_store) == "b"


async def test_pauses_grow_to_a_minute_and_start_anew_after_progress(sqlite_store: Store) -> None:
    sleeps = Sleeps()
    machine = Script(a=[Retry(TROUBLE)] * 9 + [Next("b")], b=[Retry(TROUBLE), Done()])
    await start(sqlite_store, machine, Until.DONE, sleeps)
    assert sleeps == [1, 4, 9, 16, 25, 36, 49, MAX_RETRY_PAUSE_SECS, MAX_RETRY_PAUSE_SECS, 1]


async def test_parking(sqlite_store: Store) -> None:
    sleeps = Sleeps()
    machine = Script(a=[Park("b", 7.0)], b=[Park("c")], c=[Done()])
    executor = await start(sqlite_store, machine, Until.PARK, sleeps)
    assert (machine.visited, await stored(sqlite_store)) == (["a"], "b")
    await executor.drive(machine, ID, until=Until.DONE)
    assert (machine.visited, await stored(sqlite_store), sleeps) == (["a", "b"], "c", [])
    await executor.drive(machine, ID, until=Until.DONE)
    assert await stored(sqlite_store) is None


async def test_a_waiting_drive_sleeps_through_a_pause(sqlite_store: Store) -> None:
    sleeps = Sleeps()
    machine = Script(a=[Park("b", 7.0, TROUBLE)], b=[Done()])
    await start(sqlite_store, machine, Until.DONE, sleeps)
    assert sleeps == [7.0]
    assert await stored(sqlite_store) is None


async def test_parking_with_an_error_raises_it(sqlite_store: Store) -> None:
    machine = Script(a=[Park("b", 7.0, TROUBLE)])
    with pytest.raises(ServerUnavailable):
        await start(sqlite_store, machine, Until.PARK)
    assert await stored(sqlite_store) == "b"


async def test_failing_raises_and_forgets_the_action(sqlite_store: Store) -> None:
    machine = Script(a=[Failed(BarkdError("no"))])
    with pytest.raises(BarkdError, match="no"):
        await start(sqlite_store, machine, Until.DONE)
    assert await stored(sqlite_store) is None


@pytest.mark.parametrize("last", [Done(), Failed(BarkdError("no"))])
async def test_the_end_releases_what_the_action_holds(sqlite_store: Store, last: Outcome[str]) -> None:
    (vtxo_id,) = await insert(sqlite_store, make_vtxo(1))

    async def lock(tx: Transaction) -> None:
        await tx.vtxos.lock([vtxo_id], ActionHolder(ID))

    machine = Script(a=[Next("b", writes=lock)], b=[Park("c")], c=[last])
    executor = await start(sqlite_store, machine, Until.PARK)
    assert (await states(sqlite_store))[vtxo_id] != Spendable()
    try:
        await executor.drive(machine, ID)
    except BarkdError:
        assert isinstance(last, Failed)
    assert (await states(sqlite_store))[vtxo_id] == Spendable()


async def test_writes_and_state_are_stored_together_or_not_at_all(sqlite_store: Store) -> None:
    async def write_and_fail(tx: Transaction) -> None:
        await tx.movements.create(ARKOOR_SEND)
        raise ZeroDivisionError

    machine = Script(a=[Next("b", writes=write_and_fail)])
    with pytest.raises(ZeroDivisionError):
        await start(sqlite_store, machine, Until.DONE)
    assert await stored(sqlite_store) == "a"
    async with sqlite_store.read() as tx:
        assert await tx.movements.list() == ()


async def test_nothing_is_stored_if_the_first_state_cannot_be_made(sqlite_store: Store) -> None:
    executor = ActionExecutor(sqlite_store, NamedLocks())

    async def prepare(tx: Transaction) -> str:
        await tx.movements.create(ARKOOR_SEND)
        raise BarkdError("no money")

    with pytest.raises(BarkdError, match="no money"):
        await executor.begin(Script(), ID, prepare, until=Until.DONE)
    assert await stored(sqlite_store) is None
    async with sqlite_store.read() as tx:
        assert await tx.movements.list() == ()


async def test_one_drive_at_a_time(sqlite_store: Store) -> None:
    release = asyncio.Event()
    machine = Script(a=[Done()])
    machine.during = release.wait
    locks = NamedLocks()
    executor = ActionExecutor(sqlite_store, locks)

    async def prepare(tx: Transaction) -> str:
        return "a"

    first = asyncio.create_task(executor.begin(machine, ID, prepare, until=Until.DONE))
    while not machine.visited:
        await asyncio.sleep(0)
    await executor.drive(machine, ID)  # returns: somebody else has it
    assert machine.visited == ["a"]
    with pytest.raises(LockBusy):
        await executor.begin(machine, ID, prepare, until=Until.DONE)
    release.set()
    await first
    await executor.drive(machine, ID)  # finished: nothing to do, and nothing comes back
    assert machine.visited == ["a"]
    assert await stored(sqlite_store) is None


async def test_one_action_in_trouble_does_not_stop_the_others(sqlite_store: Store) -> None:
    visited: list[str] = []

    class Two(Script):
        async def step(self, action_id: str, state: str) -> Outcome[str]:
            visited.append(action_id)
            return Retry(TROUBLE) if action_id == "first" else Done()

    machine = Two()
    async with sqlite_store.transaction() as tx:
        await tx.actions.save("first", machine.kind, "a")
        await tx.actions.save("second", machine.kind, "a")
        await tx.actions.save("board.x.0", ActionKind.BOARD, "a")
    await ActionExecutor(sqlite_store, NamedLocks()).drive_all(machine)
    assert visited == ["first", "second"]
    async with sqlite_store.read() as tx:
        assert [row.id for row in await tx.actions.list()] == ["first", "board.x.0"]
