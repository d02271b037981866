"""One run of one flow, disturbed at one point; and what must hold after it."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from barkd_py.bitcoin.tx import OutPoint, Tx
from tests.crash.flows.flow import Act, Flow
from tests.crash.world import KillPoint, World


@dataclass(frozen=True, slots=True)
class Outcome:
    """was_killed: the point was reached. happened: how often the flow took place, 0 or 1."""

    flow: str
    point: str
    was_killed: bool
    happened: int


async def rehearse(world: World, flow: Flow) -> list[KillPoint]:
    """The flow undisturbed; where it can be interrupted."""
    outcome = await run_case(world, flow, None)
    assert outcome.happened == 1, flow.name
    world.rehearsed = flow.name
    points = world.points_seen(flow.unrelated)
    missing = set(flow.calls) - {point.what for point in points}
    assert not missing, f"{flow.name} made no call of {missing}"
    return points


async def run_case(world: World, flow: Flow, point: KillPoint | None) -> Outcome:
    """Prepare, act, kill, restart, and bring everything to its end. Raises AssertionError."""
    async with prepared(world, flow) as case:
        was_killed = await world.interrupted(point, case.act)
        may_fail = flow.always_fails or (flow.fails_once and was_killed)
        happened = await case.settled(f"killed {point}", may_fail=may_fail)
        if not was_killed or not flow.may_not_happen:
            assert happened == 1, f"{flow.name}, killed {point}"
        return Outcome(flow.name, "undisturbed" if point is None else str(point), was_killed, happened)


@dataclass(frozen=True)
class Case:
    """A flow that is about to be acted out."""

    world: World
    flow: Flow
    act: Act
    done_before: int
    failed_before: int

    async def settled(self, trouble: str, *, may_fail: bool = True) -> int:
        """What the person does after it, and what must hold then; how often the flow happened, 0 or 1."""
        world, flow = self.world, self.flow
        where = f"{flow.name}, {trouble}"
        if flow.again is not None:
            await flow.again(world)
        await world.settle()
        happened = await flow.done(world) - self.done_before
        assert happened in (0, 1), f"{where}: {happened} times"
        failed = await failed_movements(world) - self.failed_before
        if flow.always_fails:
            assert failed == happened, f"{where}: {failed} failed movements"
        assert failed <= may_fail, f"{where}: {failed} failed movements"
        assert not world.nonces.reused, f"{where}: {world.nonces.reused}"
        twice = await coins_spent_twice(world)
        assert not twice, f"{where}: {twice}"
        return happened


@asynccontextmanager
async def prepared(world: World, flow: Flow) -> AsyncIterator[Case]:
    async with AsyncExitStack() as world.after_run:
        await world.keep_in_funds()
        before = await _told(world, flow) if flow.starts_daemon else None
        act = await flow.prepare(world)
        yield Case(world, flow, act, *(before or await _told(world, flow)))


async def _told(world: World, flow: Flow) -> tuple[int, int]:
    return await flow.done(world), await failed_movements(world)


async def coins_spent_twice(world: World) -> list[OutPoint]:
    """Coins that more than one of the victim's on-chain transactions spends."""
    listed = await world.victim.get("/onchain/transactions")
    spent = Counter(each.prevout for tx in listed for each in Tx.parse(bytes.fromhex(tx["tx"])).inputs)
    return [coin for coin, times in spent.items() if times > 1]


async def failed_movements(world: World) -> int:
    answer = await world.victim.http.get("/history")
    history = answer.json() if answer.status_code == 200 else []  # there may be no wallet yet
    return sum(each["status"] in ("failed", "canceled") for each in history)
