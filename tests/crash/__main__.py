"""Every flow, killed at every point that it has, and under every trouble; writes docs/reliability.md.

    python -m tests.crash [--flows NAME,NAME] [--parts all|kills|troubles] [--troubles NAME,NAME]
                          [--at-most N] [--seed S] [--missing] [--without-look-ups] [--results FILE] [--list]

Takes hours on two cores. Each run is noted as it ends, so that what was interrupted may go on with
``--missing``. Each violation is printed, and the exit code is 1 if there was one.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.crash import report
from tests.crash.case import rehearse, run_case
from tests.crash.flows import FLOWS, Flow
from tests.crash.report import Run
from tests.crash.troubles import TROUBLES, Trouble, run_trouble
from tests.crash.world import KillPoint, World, running_world
from tests.support.processes import start_devnet
from tests.support.secret_watch import assert_no_secrets


@asynccontextmanager
async def fresh_world(flow: Flow) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="barkd-crash-", ignore_cleanup_errors=True) as directory:
        devnet = start_devnet(Path(directory) / "devnet", *flow.devnet_options)
        try:
            async with running_world(Path(directory) / "world", devnet) as world:
                yield world
            assert_no_secrets(Path(directory) / "world")
        finally:
            devnet.process.kill()


@dataclass(frozen=True)
class Suite:
    """What is to be tried. at_most: points of each flow; None: all. look_ups: also where it reads the chain.

    done: what need not be tried again.
    """

    at_most: int | None
    look_ups: bool
    troubles: Sequence[Trouble]
    seed: int
    results: Path
    commit: str
    done: frozenset[tuple[str, str, str]]

    async def run(self, flow: Flow, parts: str) -> list[Run]:
        """A world serves until a violation has upset it."""
        runs: list[Run] = []
        waiting: list[KillPoint | Trouble] | None = None
        while waiting is None or waiting:
            async with fresh_world(flow) as world:
                if waiting is None:
                    waiting = await self._faults(world, flow, parts)
                while waiting:
                    runs.append(await self._try(world, flow, waiting.pop(0)))
                    if runs[-1].failure:
                        break
        return runs

    async def _faults(self, world: World, flow: Flow, parts: str) -> list[KillPoint | Trouble]:
        """What is to be tried yet. In no order, so that what is broken off has tried a bit of everything."""
        points: list[KillPoint] = []
        if parts != "troubles":
            points = [point for point in await rehearse(world, flow) if self._is_wanted(flow, point)]
            random.Random(f"{self.seed} {flow.name}").shuffle(points)
            points = sorted(points, key=lambda point: point.is_look_up)[: self.at_most]
        troubles = self.troubles if parts != "kills" else ()
        return [*points, *(trouble for trouble in troubles if self._is_wanted(flow, trouble))]

    def _is_wanted(self, flow: Flow, what: KillPoint | Trouble) -> bool:
        if isinstance(what, KillPoint) and what.is_look_up and not self.look_ups:
            return False
        return (flow.name, *_names(what)) not in self.done

    async def _try(self, world: World, flow: Flow, what: KillPoint | Trouble) -> Run:
        began, struck, happened, failure = time.monotonic(), True, 0, ""
        try:
            if isinstance(what, KillPoint):
                outcome = await run_case(world, flow, what)
            else:
                outcome = await run_trouble(world, flow, what)
            struck, happened = outcome.was_killed, outcome.happened
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        run = self.run_of(flow, *_names(what), struck, happened, failure)
        report.record(run, self.results)
        verdict = f"VIOLATION {failure}" if failure else f"struck {struck}, happened {happened}"
        print(f"{time.monotonic() - began:5.1f} s  {flow.name}, {what}: {verdict}", flush=True)
        return run

    def run_of(self, flow: Flow, fault: str, point: str, struck: bool, happened: int, failure: str) -> Run:
        day = datetime.now(UTC).date().isoformat()
        return Run(flow.name, fault, point, struck, happened, failure, self.commit, day)


def _names(what: KillPoint | Trouble) -> tuple[str, str]:
    """What a run calls its fault, and its point."""
    if isinstance(what, Trouble):
        return what.name, ""
    return "killed at a commit" if what.what == "commit" else "killed at a network call", str(what)


async def list_points(flow: Flow) -> None:
    async with fresh_world(flow) as world:
        points = await rehearse(world, flow)
    kinds = Counter(f"{point.phase} {point.what}" for point in points)
    print(f"{flow.name}: {len(points)} points: {dict(kinds)}", flush=True)


async def run(suite: Suite, flows: Sequence[Flow], parts: str) -> list[Run]:
    runs: list[Run] = []
    for flow in flows:
        began = time.monotonic()
        try:
            found = await suite.run(flow, parts)
        except Exception as error:  # of the world, or of the flow undisturbed
            print(f"{flow.name}: {type(error).__name__}: {error}", flush=True)
            found = [suite.run_of(flow, "undisturbed", "", True, 0, str(error))]
        runs += found
        print(f"{flow.name}: {len(found)} runs, {time.monotonic() - began:.0f} s", flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--flows", help="names, separated by commas; all by default")
    parser.add_argument("--troubles", help="names, separated by commas; all by default")
    parser.add_argument("--at-most", type=int, help="points of each flow, chosen at random")
    parser.add_argument("--parts", choices=["all", "kills", "troubles"], default="all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--missing", action="store_true", help="only what has not struck without a violation")
    parser.add_argument("--without-look-ups", action="store_true", help="not where it reads the chain")
    parser.add_argument("--results", type=Path, help="note runs there, and write no document")
    parser.add_argument("--list", action="store_true", help="say where flows can be killed, and kill none")
    options = parser.parse_args()
    names = options.flows.split(",") if options.flows else [flow.name for flow in FLOWS]
    flows = [flow for name in names for flow in FLOWS if flow.name == name]
    if options.list:
        for flow in flows:
            asyncio.run(list_points(flow))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended
    results = options.results or report.RESULTS
    known = report.recorded(results) if options.missing else []
    done = frozenset(
        run.key for run in known if not run.failure and (run.struck or not run.fault.startswith("killed"))
    )
    suite = Suite(
        options.at_most,
        not options.without_look_ups,
        [each for each in TROUBLES if not options.troubles or each.name in options.troubles.split(",")],
        options.seed,
        results,
        report.current_commit(),
        done,
    )
    runs = asyncio.run(run(suite, flows, options.parts))
    print(report.table(runs))
    if options.results is None:
        report.write_document()
    sys.exit(any(run.failure for run in runs))


if __name__ == "__main__":
    main()
