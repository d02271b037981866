"""Each trouble strikes one flow. All troubles on all flows: `make crash`."""

import pytest

from tests.crash.flows import FLOWS
from tests.crash.troubles import TROUBLES, Trouble, run_trouble
from tests.crash.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

ACT_SECS = 4.0

STRUCK = {
    "disk full": "board",
    "disk full in the middle": "refresh",
    "database locked": "offboard",
    "clock 2 h ahead": "Lightning send",
    "clock 2 h behind": "arkoor receive",
    "server away": "send on-chain",
    "chain source away": "on-chain send",
    "every second answer lost": "arkoor send",
    "slow network": "import",
    "server lies: a bit of each answer": "arkoor send",
    "chain source lies: knows no transaction": "board",
    "chain source lies: broadcasts swallowed": "on-chain send",
}


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
async def test_money_survives_a_trouble(world: World, trouble: Trouble) -> None:
    (flow,) = (each for each in FLOWS if each.name == STRUCK[trouble.name])
    await run_trouble(world, flow, trouble, ACT_SECS)
