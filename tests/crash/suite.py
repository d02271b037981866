"""What `python -m tests.crash` runs, in as many processes as it is told: each does one flow after another."""

import argparse
import asyncio
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.queues import Queue
from pathlib import Path

import asyncpg

from tests.crash import report
from tests.crash.case import rehearse, run_case
from tests.crash.flows import FLOWS, Flow
from tests.crash.report import Run
from tests.crash.troubles import TROUBLES, Trouble, run_trouble
from tests.crash.world import BOTH, KillPoint, World, running_world
from tests.support import postgres
from tests.support.processes import start_devnet
from tests.support.secret_watch import assert_no_secrets


@asynccontextmanager
async def fresh_world(flow: Flow) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        directory = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="barkd-crash-", ignore_cleanup_errors=True)
            )
        )
        urls = await stack.enter_async_context(databases()) if flow.in_postgresql else {}
        devnet = start_devnet(directory / "devnet", *flow.devnet_options)
        stack.callback(devnet.process.kill)
        async with running_world(directory / "world", devnet, urls) as world:
            yield world
        assert_no_secrets(directory / "world")


@asynccontextmanager
async def databases() -> AsyncIterator[dict[str, str]]:
    """The URLs of an empty one in PostgreSQL for each of the two."""
    binaries = postgres.find_binaries()
    assert binaries is not None, "no binaries of PostgreSQL"
    with postgres.run_cluster(binaries) as cluster:
        connection = await asyncpg.connect(cluster.url("postgres"))
        for name in BOTH:
            await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        yield {name: cluster.url(name) for name in BOTH}


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
        troubles = self.troubles if parts != "kills" and flow.under_troubles else ()
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


async def run(suite: Suite, flow: Flow, parts: str) -> list[Run]:
    task, began = asyncio.current_task(), time.monotonic()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # what was started is ended
    try:
        runs = await suite.run(flow, parts)
    except Exception as error:  # of the world, or of the flow undisturbed
        print(f"{flow.name}: VIOLATION undisturbed: {type(error).__name__}: {error}", flush=True)
        runs = [suite.run_of(flow, "undisturbed", "", True, 0, str(error))]
    print(f"{flow.name}: {len(runs)} runs, {time.monotonic() - began:.0f} s", flush=True)
    return runs


def work(options: argparse.Namespace, results: Path, commit: str, names: "Queue[str | None]") -> None:
    """What one process does: one flow after the other, as long as there are names."""
    known = report.recorded(results) if options.missing else []
    suite = Suite(
        options.at_most,
        not options.without_look_ups,
        [each for each in TROUBLES if not options.troubles or each.name in options.troubles.split(",")],
        options.seed,
        results,
        commit,
        frozenset(
            run.key for run in known if not run.failure and (run.struck or not run.fault.startswith("killed"))
        ),
    )
    failed = False
    while (name := names.get()) is not None:
        (flow,) = (each for each in FLOWS if each.name == name)
        failed |= any(run.failure for run in asyncio.run(run(suite, flow, options.parts)))
    sys.exit(failed)


def share_out(options: argparse.Namespace, flows: Sequence[Flow], results: Path) -> bool:
    """Among processes that do one flow each at a time; whether all went well. gRPC survives no fork."""
    context = multiprocessing.get_context("spawn")
    names: Queue[str | None] = context.Queue()
    for flow in sorted(flows, key=lambda flow: flow.takes_long, reverse=True):
        names.put(flow.name)
    for _ in range(options.processes):
        names.put(None)
    arguments = (options, results, report.current_commit(), names)
    if options.afresh:
        results.write_text("")
    workers = [context.Process(target=work, args=arguments) for _ in range(options.processes)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
    return not any(worker.exitcode for worker in workers)
