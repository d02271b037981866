"""Every flow, killed at every point that it has, and under every trouble; writes docs/reliability.md.

    python -m tests.crash [--flows NAME,NAME] [--parts all|kills|troubles] [--at-most N] [--seed S]
                          [--keep-document]

Takes hours on two cores. Each violation is printed, and the exit code is 1 if there was one.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.crash.case import rehearse, run_case
from tests.crash.flows import FLOWS, Flow
from tests.crash.report import Recorded, replace_section, rows, table
from tests.crash.troubles import TROUBLES, run_trouble
from tests.crash.world import DEVNET_OPTIONS, World, running_world
from tests.support.processes import start_devnet


@asynccontextmanager
async def fresh_world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="barkd-crash-", ignore_cleanup_errors=True) as directory:
        devnet = start_devnet(Path(directory) / "devnet", *DEVNET_OPTIONS)
        try:
            async with running_world(Path(directory) / "world", devnet) as world:
                yield world
        finally:
            devnet.process.kill()


async def kill_everywhere(flow: Flow, at_most: int | None, seed: int) -> AsyncIterator[Recorded]:
    """All points of a flow, or a random choice; in a world of its own, a new one after each violation."""
    points, next_point = None, 0
    while points is None or next_point < len(points):
        async with fresh_world() as world:
            if points is None:
                points = await rehearse(world, flow)
                if at_most is not None and at_most < len(points):
                    points = random.Random(f"{seed} {flow.name}").sample(points, at_most)
            while next_point < len(points):
                point = points[next_point]
                next_point += 1
                fault = "killed at a commit" if point.what == "commit" else "killed at a network call"
                try:
                    outcome = await run_case(world, flow, point)
                except Exception as error:
                    print(f"VIOLATION {flow.name}, {point}: {error}", flush=True)
                    yield Recorded(flow.name, fault, struck=True, happened=0, failure=f"{point}: {error}")
                    break
                yield Recorded(flow.name, fault, outcome.was_killed, outcome.happened)


async def trouble_everywhere(flow: Flow) -> AsyncIterator[Recorded]:
    """All troubles on one flow; in a new world after each violation."""
    waiting = list(TROUBLES)
    while waiting:
        async with fresh_world() as world:
            while waiting:
                trouble = waiting.pop(0)
                try:
                    outcome = await run_trouble(world, flow, trouble)
                except Exception as error:
                    print(f"VIOLATION {flow.name}, {trouble.name}: {error}", flush=True)
                    yield Recorded(flow.name, trouble.name, struck=True, happened=0, failure=str(error))
                    break
                yield Recorded(flow.name, trouble.name, outcome.was_killed, outcome.happened)


async def run(flows: Sequence[Flow], at_most: int | None, seed: int, parts: str) -> list[Recorded]:
    recorded: list[Recorded] = []
    for flow in flows:
        began, before = time.monotonic(), len(recorded)
        if parts != "troubles":
            recorded += [each async for each in kill_everywhere(flow, at_most, seed)]
        if parts != "kills":
            recorded += [each async for each in trouble_everywhere(flow)]
        took = time.monotonic() - began
        print(f"{flow.name}: {len(recorded) - before} runs, {took:.0f} s", flush=True)
    return recorded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", help="names, separated by commas; all by default")
    parser.add_argument("--at-most", type=int, help="points of each flow, chosen at random")
    parser.add_argument("--parts", choices=["all", "kills", "troubles"], default="all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep-document", action="store_true", help="do not write docs/reliability.md")
    options = parser.parse_args()
    chosen = [flow for flow in FLOWS if not options.flows or flow.name in options.flows.split(",")]
    recorded = asyncio.run(run(chosen, options.at_most, options.seed, options.parts))
    summary = table(rows(recorded))
    print(summary)
    if not options.keep_document:
        day = datetime.now(UTC).date().isoformat()
        replace_section("crashes", f"`python -m tests.crash`, {day}:\n\n{summary}")
    sys.exit(any(each.failure for each in recorded))


if __name__ == "__main__":
    main()
