"""Creation, recovery and import, each killed at a few points. All points: `make crash`."""

import pytest

from tests.crash.case import run_case
from tests.crash.flows import Flow, wallets
from tests.crash.quick import cases, name_of
from tests.crash.world import KillPoint, World

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


FLOWS = [flow for flow in wallets.FLOWS if flow is not wallets.ASKED_RECOVERY]
"""That one has a test of its own, which kills it more often."""


@pytest.mark.parametrize(("flow", "point"), cases(FLOWS), ids=name_of)
async def test_money_survives_a_kill(world: World, flow: Flow, point: KillPoint) -> None:
    await run_case(world, flow, point)
