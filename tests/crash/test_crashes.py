"""Every flow that moves money is killed at points chosen by a seed, and nothing is lost.

Here a few points of each; all of them, and more troubles, by `make crash`. BARKD_CRASH_SEED chooses others.
"""

import os
import random
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.crash.case import rehearse, run_case
from tests.crash.flows import FLOWS, Flow
from tests.crash.world import DEVNET_OPTIONS, World, running_world
from tests.support.processes import Devnet, start_devnet

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

SEED = os.environ.get("BARKD_CRASH_SEED", "1")
POINTS = 2


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


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: str(flow.name))
async def test_money_survives_every_kill(world: World, flow: Flow) -> None:
    points = await rehearse(world, flow)
    for point in random.Random(f"{SEED} {flow.name}").sample(points, POINTS):
        await run_case(world, flow, point)
