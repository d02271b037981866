"""`POST /wallet/recovery`, killed at some of its commits. All points: `make crash`."""

import pytest

from tests.crash.case import rehearse, run_case
from tests.crash.flows.wallets import ASKED_RECOVERY
from tests.crash.world import KillPoint, World

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

TRIED = 5


async def test_what_a_wallet_lacks_is_found_whenever_the_search_is_killed(world: World) -> None:
    commits = [point for point in await rehearse(world, ASKED_RECOVERY) if point.what == "commit"]
    count = len(commits) // 2
    assert count >= TRIED
    killed = 0
    for nth in sorted({number * (count - 1) // (TRIED - 1) for number in range(TRIED)}):
        point = KillPoint("commit", "before" if nth % 2 else "after", nth)
        killed += (await run_case(world, ASKED_RECOVERY, point)).was_killed
    assert killed >= TRIED // 2  # some of the commits were of what the daemon does beside it
