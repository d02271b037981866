"""The poller alone, with a machine that does what a test says."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest
from pydantic import TypeAdapter

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import BarkdError, StoreError
from barkd_py.wallet.actions.executor import ActionExecutor, Done, Outcome, Park, Retry
from barkd_py.wallet.lightning.poller import MAX_DRIVEN_AT_ONCE, Poller
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionCheckpoint, ActionKind
from barkd_py.wallet.store.payloads import PayloadFormat

URGENT = "urgent"


class AsItIs(PayloadFormat[str]):
    def __init__(self) -> None:
        super().__init__("text", lambda: TypeAdapter(str))

    def encode(self, state: str) -> str:
        return state

    def decode(self, text: str) -> str:
        return text


class Machine:
    """Parks until it is told otherwise. gate: steps wait here, except urgent ones."""

    kind = ActionKind.LIGHTNING_RECEIVE
    format = AsItIs()

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.outcome: Outcome[str] | Exception = Park("waiting")
        self.gate = asyncio.Event()
        self.gate.set()
        self.inside = self.most_inside = 0

    def reports(self, state: str) -> Sequence[VtxoId]:
        return ()

    async def step(self, action_id: str, state: str) -> Outcome[str]:
        self.steps[action_id] += 1
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        if not action_id.startswith(URGENT):
            await self.gate.wait()
        self.inside -= 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Bench:
    """A poller, and a clock that stands still."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 0.0
        self.pause = 5.0
        self.machine = Machine()
        self.executor = ActionExecutor(store, NamedLocks())
        self.poller = Poller(
            store,
            self.executor,
            self.machine,
            lambda row: self.pause,
            lambda row: row.id.startswith(URGENT),
            monotonic=lambda: self.now,
        )

    async def add(self, action_id: str) -> None:
        async def prepare(tx: Transaction) -> str:
            return "waiting"

        await self.executor.store_new(self.machine, action_id, prepare)

    async def poll(self, seconds: float = 0.0) -> int:
        """Let time pass, poll, and tell how many steps were made."""
        before = self.machine.steps.total()
        self.now += seconds
        await self.poller.poll()
        await self.poller.settle_down()
        return self.machine.steps.total() - before


@pytest.fixture
async def bench(sqlite_store: Store) -> AsyncIterator[Bench]:
    made = Bench(sqlite_store)
    yield made
    await made.poller.close()


async def test_nothing_to_do(bench: Bench) -> None:
    assert not await bench.poller.is_pending()
    assert await bench.poll() == 0


async def test_what_was_there_before_is_looked_at_at_once(bench: Bench) -> None:
    await bench.add("one")
    assert await bench.poller.is_pending()
    assert await bench.poll() == 1


async def test_each_has_its_own_pace(bench: Bench) -> None:
    await bench.add("one")
    assert await bench.poll() == 1
    assert await bench.poll(4.9) == 0
    assert await bench.poll(0.2) == 1


@pytest.mark.parametrize(("wanted", "given"), [(0.0, 1.0), (1_000.0, 120.0)])
async def test_the_pace_has_limits(bench: Bench, wanted: float, given: float) -> None:
    await bench.add("one")
    bench.pause = wanted
    await bench.poll()
    assert await bench.poll(given - 0.1) == 0
    assert await bench.poll(0.2) == 1


async def test_trouble_slows_it_down_until_it_is_over(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.add("one")
    bench.machine.outcome = Retry(BarkdError("away"))
    with caplog.at_level(logging.WARNING):
        assert await bench.poll() == 1
        looks = sum([await bench.poll(1.0) for _ in range(200)])
    assert 5 <= looks <= 9
    assert [record.message for record in caplog.records] == ["one goes on: away"]
    bench.machine.outcome = Park("waiting")
    assert await bench.poll(60.0) == 1
    assert await bench.poll(5.0) == 1


async def test_one_that_cannot_be_read_is_named_once_and_stops_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def is_urgent(row: ActionCheckpoint) -> bool:
        if row.id == "rotten":
            raise StoreError("malformed")
        return False

    await bench.add("rotten")
    await bench.add("one")
    bench.poller._is_urgent = is_urgent
    with caplog.at_level(logging.WARNING):
        for _ in range(30):
            await bench.poll(5.1)
    assert bench.machine.steps == {"one": 30}
    assert [record.message for record in caplog.records] == ["rotten goes on: malformed"]


async def test_what_is_finished_is_forgotten(bench: Bench) -> None:
    await bench.add("one")
    bench.machine.outcome = Done()
    await bench.poll()
    assert not await bench.poller.is_pending()
    assert await bench.poll(100.0) == 0


async def test_news_are_looked_at_at_once(bench: Bench) -> None:
    await bench.add("one")
    await bench.poll()
    bench.poller.drive_now("one")
    await bench.poller.settle_down()
    assert bench.machine.steps["one"] == 2


async def test_news_that_come_during_a_look_are_another_look(bench: Bench) -> None:
    """It may have asked just before they were true."""
    await bench.add("one")
    bench.machine.gate.clear()
    bench.poller.drive_now("one")
    while not bench.machine.steps["one"]:
        await asyncio.sleep(0)
    bench.poller.drive_now("one")
    bench.poller.drive_now("one")
    bench.machine.gate.set()
    await bench.poller.settle_down()
    assert bench.machine.steps["one"] == 2


async def test_a_new_one_is_looked_at_soon(bench: Bench) -> None:
    assert not await bench.poller.is_pending()
    await bench.add("one")
    bench.poller.expect("one")
    assert await bench.poller.is_pending()
    assert await bench.poll() == 0
    assert await bench.poll(1.0) == 1


async def test_a_new_one_is_known_before_any_was_read(bench: Bench) -> None:
    """What reads them may have begun before it was stored."""
    bench.poller.expect("one")
    assert await bench.poller.is_pending()
    await bench.add("one")
    assert await bench.poll(1.0) == 1


async def test_a_new_one_of_the_same_name_is_not_forgotten(bench: Bench) -> None:
    """It came while the one before was ending."""
    await bench.add("one")
    await bench.poll()
    bench.machine.outcome = Done()
    bench.machine.gate.clear()
    bench.poller.drive_now("one")
    while not bench.machine.inside:
        await asyncio.sleep(0)
    bench.poller.expect("one")
    bench.machine.gate.set()
    await bench.poller.settle_down()
    assert await bench.poller.is_pending()
    assert await bench.poll(1.0) == 0
    assert not await bench.poller.is_pending()


async def test_those_that_hang_do_not_keep_urgent_ones_waiting(bench: Bench) -> None:
    for number in range(3 * MAX_DRIVEN_AT_ONCE):
        await bench.add(f"number-{number}")
    await bench.add("urgent-one")
    bench.machine.gate.clear()
    await bench.poller.poll()
    while bench.machine.inside < MAX_DRIVEN_AT_ONCE or not bench.machine.steps["urgent-one"]:
        await asyncio.sleep(0.001)
    bench.poller.drive_now("urgent-one")
    while bench.machine.steps["urgent-one"] < 2:
        await asyncio.sleep(0.001)
    assert bench.machine.most_inside <= MAX_DRIVEN_AT_ONCE + 1
    bench.machine.gate.set()


async def test_not_too_many_at_once(bench: Bench) -> None:
    for number in range(3 * MAX_DRIVEN_AT_ONCE):
        await bench.add(f"number-{number}")
    bench.machine.gate.clear()
    await bench.poller.poll()
    while bench.machine.inside < MAX_DRIVEN_AT_ONCE:
        await asyncio.sleep(0.001)
    bench.machine.gate.set()
    await bench.poller.settle_down()
    assert bench.machine.most_inside == MAX_DRIVEN_AT_ONCE
    assert set(bench.machine.steps.values()) == {1}


async def test_a_bug_is_logged_and_ends_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.add("one")
    bench.machine.outcome = RuntimeError("a bug")
    with caplog.at_level(logging.ERROR):
        assert await bench.poll() == 1
    assert caplog.records[0].exc_info is not None
    bench.machine.outcome = Park("waiting")
    assert await bench.poll() == 1


async def test_closing_stops_what_is_being_driven(bench: Bench) -> None:
    await bench.add("one")
    bench.machine.gate.clear()
    bench.poller.drive_now("one")
    while not bench.machine.inside:
        await asyncio.sleep(0)
    await bench.poller.close()
    await bench.poller.settle_down()
