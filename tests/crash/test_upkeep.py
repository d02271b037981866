"""What the daemon does unasked, killed at a few points. All points: `make crash`."""

import pytest

from tests.crash.case import run_case
from tests.crash.flows import Flow, upkeep
from tests.crash.quick import cases, name_of
from tests.crash.world import KillPoint, World

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

(DEVNET,) = {flow.devnet_options for flow in upkeep.FLOWS}


@pytest.mark.parametrize(("flow", "point"), cases(upkeep.FLOWS), ids=name_of)
async def test_money_survives_a_kill(world: World, flow: Flow, point: KillPoint) -> None:
    await run_case(world, flow, point)
