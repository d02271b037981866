"""Payments over Lightning: one at a time, and a hundred at once.

Devnet's nodes outside Ark pay and are paid; they take no time of their own, so times are those of the daemon
and of the Ark server. A receive counts from the payer's request until the payer has the preimage, a send from
the request until the daemon says that it is paid.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from tests.bench.daemons import Subject, cpu_ms, find_subjects, post_nothing
from tests.bench.report import OURS, Goal, Report
from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet

AT_ONCE = 100
ONE_BY_ONE = 10
RECEIVED_SAT = 20_000
SENT_SAT = 10_000
PATIENCE_SECS = 300.0

CPU = Goal(1, of_theirs=True)


async def measure_lightning(report: Report) -> None:
    for subject in find_subjects():
        with tempfile.TemporaryDirectory(prefix="barkd-bench-") as name:
            directory = Path(name)
            devnet = start_devnet(directory / "devnet")
            daemon = subject.daemon(directory / "wallet")
            daemon.http.timeout = httpx.Timeout(PATIENCE_SECS)
            try:
                await daemon.start()
                await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
                await _measure(report, subject, daemon, devnet)
            except (AssertionError, httpx.HTTPError, TimeoutError) as error:
                if subject.name == OURS:
                    raise
                print(f"{subject.name} did not get through: {error!r}", file=sys.stderr)
            finally:
                await daemon.close()
                devnet.process.kill()


async def _measure(report: Report, subject: Subject, daemon: Daemon, devnet: Devnet) -> None:
    async with httpx.AsyncClient(base_url=devnet.control_url, timeout=PATIENCE_SECS) as levers:
        bench = _Lightning(report, subject, daemon, levers)
        await bench.receive("one at a time", ONE_BY_ONE, at_once=1)
        await bench.receive(f"{AT_ONCE} at once", AT_ONCE, at_once=AT_ONCE)
        await bench.send("one at a time", ONE_BY_ONE, at_once=1)
        await bench.send(f"{AT_ONCE} at once", AT_ONCE, at_once=AT_ONCE)


class _Lightning:
    def __init__(self, report: Report, subject: Subject, daemon: Daemon, levers: httpx.AsyncClient) -> None:
        self._report = report
        self._who = subject.name
        self._daemon = daemon
        self._levers = levers

    async def receive(self, how: str, count: int, *, at_once: int) -> None:
        invoices = [
            (await self._daemon.post("/lightning/receives/invoice", {"amount_sat": RECEIVED_SAT}))["invoice"]
            for _ in range(count)
        ]

        async def be_paid(index: int) -> None:
            answer = await self._pull("/lightning/pay", invoice=invoices[index])
            assert answer["status"] == "settled", answer

        await self._time(f"receive, {how}", count, at_once, be_paid)
        await eventually(self._nb_waiting, lambda waiting: waiting == 0, within_secs=PATIENCE_SECS)

    async def _nb_waiting(self) -> int:
        """Receives that the daemon is not done with."""
        return len(await self._daemon.get("/lightning/receives"))

    async def send(self, how: str, count: int, *, at_once: int) -> None:
        invoices = [await self._pull("/lightning/invoice", amount_sat=SENT_SAT) for _ in range(count)]

        async def pay(index: int) -> None:
            asked = invoices[index]
            await self._daemon.post("/lightning/pay", {"destination": asked["invoice"]})

            async def state() -> str:
                send = await self._daemon.get(f"/lightning/sends/{asked['payment_hash']}")
                return str(send["state"])

            # Looking costs the daemon time, so that a hundred look less often.
            while await state() != "paid":
                await asyncio.sleep(0.01 * at_once)

        await self._time(f"send, {how}", count, at_once, pay)

    async def _time(self, what: str, count: int, at_once: int, one: Callable[[int], Awaitable[None]]) -> None:
        taken: list[float] = []
        room = asyncio.Semaphore(at_once)

        async def timed(index: int) -> None:
            async with room:
                began = time.perf_counter()
                await one(index)
                taken.append(time.perf_counter() - began)

        await post_nothing(self._daemon, "/wallet/sync")
        cpu, began = cpu_ms(self._daemon.process.pid), time.perf_counter()
        async with asyncio.timeout(PATIENCE_SECS):
            await asyncio.gather(*(timed(index) for index in range(count)))
        elapsed = time.perf_counter() - began
        cpu = cpu_ms(self._daemon.process.pid) - cpu
        if at_once > 1:
            self._report.add(f"Lightning {what}", self._who, count / elapsed, "payments/s")
        self._report.add(f"Lightning {what}, p50", self._who, 1000 * statistics.median(taken), "ms")
        self._report.add(f"Lightning {what}, slowest", self._who, 1000 * max(taken), "ms")
        self._report.add(f"Lightning {what}, CPU of the daemon", self._who, cpu / count, "ms CPU", CPU)

    async def _pull(self, lever: str, **arguments: Any) -> Any:
        answer = await self._levers.post(lever, json=arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()
