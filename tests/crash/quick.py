"""The points at which every run of the tests kills each flow: few, and always the same.

BARKD_CRASH_SEED chooses others at random.
"""

import os
import random
from collections.abc import Sequence

from tests.crash.flows import Flow
from tests.crash.world import KillPoint

EARLY_COMMITS = 3


def quick_points(flow: Flow) -> list[KillPoint]:
    """The other side has done the last that it is asked for, and nobody heard; a commit is not acted upon."""
    if (seed := os.environ.get("BARKD_CRASH_SEED")) is None:
        return [KillPoint(flow.calls[-1], "after", 0), KillPoint("commit", "after", 0)]
    chance = random.Random(f"{seed} {flow.name}")
    phases = ("before", "after")
    return [
        KillPoint(chance.choice(flow.calls), chance.choice(phases), 0),
        KillPoint("commit", chance.choice(phases), chance.randrange(EARLY_COMMITS)),
    ]


def cases(flows: Sequence[Flow]) -> list[tuple[Flow, KillPoint]]:
    """For `pytest.mark.parametrize`."""
    return [(flow, point) for flow in flows for point in quick_points(flow)]


def name_of(value: object) -> str:
    return value.name if isinstance(value, Flow) else str(value)
