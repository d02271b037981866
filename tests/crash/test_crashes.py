"""Every flow that moves money is killed at a point chosen by a seed, and each trouble strikes one of them.

All points, and all troubles on all flows, by `make crash`. BARKD_CRASH_SEED chooses others here.
"""

import os
import random
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.crash.case import rehearse, run_case
from tests.crash.flows import FLOWS, Flow
from tests.crash.troubles import TROUBLES, Trouble, run_trouble
from tests.crash.world import DEVNET_OPTIONS, World, running_world
from tests.support.processes import Devnet, start_devnet

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

# Exits take many blocks; whatever goes wrong around them is tried by `make crash`.
QUICK_FLOWS = [flow for flow in FLOWS if flow.name not in ("exit", "claim")]

SEED = os.environ.get("BARKD_CRASH_SEED", "1")


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
    await run_case(world, flow, random.Random(f"{SEED} {flow.name}").choice(points))


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: str(trouble.name))
async def test_money_survives_every_trouble(world: World, trouble: Trouble) -> None:
    await run_trouble(world, random.Random(f"{SEED} {trouble.name}").choice(QUICK_FLOWS), trouble)
