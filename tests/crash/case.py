"""One run of one flow, disturbed at one point; and what must hold after it."""

from dataclasses import dataclass

from tests.crash.flows import UNRELATED, Flow
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
    points = world.points_seen(UNRELATED)
    missing = flow.calls - {point.what for point in points}
    assert not missing, f"{flow.name} made no call of {missing}"
    return points


async def run_case(world: World, flow: Flow, point: KillPoint | None) -> Outcome:
    """Prepare, act, kill, restart, and bring everything to its end. Raises AssertionError."""
    act = await flow.prepare(world)
    done_before = await flow.done(world)
    failed_before = await failed_movements(world)
    was_killed = await world.interrupted(point, act)
    await world.settle()
    where = f"{flow.name}, killed {point}"
    happened = await flow.done(world) - done_before
    assert happened in (0, 1), f"{where}: {happened} times"
    if not was_killed or not flow.may_not_happen:
        assert happened == 1, where
    failed = await failed_movements(world) - failed_before
    assert failed <= (1 if flow.fails_once and was_killed else 0), f"{where}: {failed} failed movements"
    assert not world.nonces.reused, f"{where}: {world.nonces.reused}"
    return Outcome(flow.name, "undisturbed" if point is None else str(point), was_killed, happened)


async def failed_movements(world: World) -> int:
    history = await world.victim.get("/history")
    return sum(each["status"] in ("failed", "canceled") for each in history)
