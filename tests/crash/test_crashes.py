"""Every flow that moves money is killed at a point chosen by a seed, and some troubles strike some of them.

All points, and all troubles on all flows, by `make crash`. BARKD_CRASH_SEED chooses others here.
"""

import os
import random
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.crash.case import run_case
from tests.crash.flows import FLOWS, Flow
from tests.crash.troubles import TROUBLES, Trouble, run_trouble
from tests.crash.world import DEVNET_OPTIONS, KillPoint, World, running_world
from tests.support.processes import Devnet, start_devnet

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

# Exits take many blocks; whatever goes wrong around them is tried by `make crash`.
QUICK_FLOWS = [flow for flow in FLOWS if flow.name not in ("exit", "claim")]

SEED = os.environ.get("BARKD_CRASH_SEED", "1")
EARLY_COMMITS = 3
SOME_TROUBLES = 4
ACT_SECS = 4.0


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    running = start_devnet(tmp_path_factory.mktemp("devnet"), *DEVNET_OPTIONS)
    yield running
    running.process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, devnet: Devnet) -> AsyncIterator[World]:
    async with running_world(tmp_path_factory.mktemp("world"), devnet) as running:
        yield running
        assert running.nonces.seen, "no nonce was seen at all"


def some_point(flow: Flow) -> KillPoint:
    """One of the calls that the flow cannot do without, or one of its first commits."""
    phases = ("before", "after")
    points = [KillPoint(call, phase, 0) for call in sorted(flow.calls) for phase in phases]
    points += [KillPoint("commit", phase, nth) for nth in range(EARLY_COMMITS) for phase in phases]
    return random.Random(f"{SEED} {flow.name}").choice(points)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: str(flow.name))
async def test_money_survives_every_kill(world: World, flow: Flow) -> None:
    await run_case(world, flow, some_point(flow))


@pytest.mark.parametrize(
    "trouble", random.Random(SEED).sample(TROUBLES, SOME_TROUBLES), ids=lambda trouble: str(trouble.name)
)
async def test_money_survives_every_trouble(world: World, trouble: Trouble) -> None:
    flow = random.Random(f"{SEED} {trouble.name}").choice(QUICK_FLOWS)
    await run_trouble(world, flow, trouble, ACT_SECS)
