"""The daemon as its clients see it, on devnet: requests per second, start, memory, payments.

The same is measured with a real ``barkd``, if there is one: named by BARKD_EXEC, or on the path.
"""

import asyncio
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from barkd_py.wallet.store import Store
from tests.bench.http_load import run_load
from tests.bench.report import OURS, THEIRS, Goal, Report
from tests.bench.rows import add_movements, add_vtxos
from tests.support.processes import Daemon, Devnet, Process, esplora, eventually, start_devnet

VTXOS = 140
MANY = 10_000
BOARD_SAT = 30_000
COIN_SAT = 10 * BOARD_SAT + 20_000  # ten boards and their fees
SEND_SAT = 500
SENDS = 30
ADDRESSES = 50
CHANGES = 15
STARTS = 5
LOAD_SECONDS = 3.0

START = Goal(0.6)
MEMORY = Goal(120)
REQUESTS = {
    "balance": Goal(2_000, at_least=True),
    "vtxos": Goal(1, at_least=True, of_theirs=True),
    "history": Goal(1, at_least=True, of_theirs=True),
}
ADDRESS = Goal(0.5, of_theirs=True)
SEND = Goal(0.6, of_theirs=True)

_CLOCK_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Subject:
    """A program under test. command: without the options that every daemon takes."""

    name: str
    command: tuple[str, ...]

    def daemon(self, datadir: Path, settings: Mapping[str, str] | None = None) -> Daemon:
        """settings: as environment variables."""
        daemon = Daemon(datadir)
        options = ("--datadir", str(datadir), "--port", str(daemon.port), "--no-auth")
        # Compiled modules are kept, as they are where the program is installed.
        env = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(datadir.parent / "pycache")}
        env |= settings or {}
        daemon.process = Process((*self.command, *options), daemon.process.log, env)
        return daemon


def find_subjects() -> list[Subject]:
    """Ours, and the real one if it is here."""
    subjects = [Subject(OURS, (sys.executable, "-m", "barkd_py.cli"))]
    named = os.environ.get("BARKD_EXEC") or shutil.which("barkd")
    if named is not None and not _is_script(Path(named)):  # ours may be on the path by the same name
        subjects.append(Subject(THEIRS, (named,)))
    return subjects


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


async def measure_daemons(report: Report) -> None:
    subjects = find_subjects()
    if len(subjects) == 1:
        print(
            "No real barkd here: name one with BARKD_EXEC to have it measured beside ours.", file=sys.stderr
        )
    with tempfile.TemporaryDirectory(prefix="barkd-bench-") as name:
        directory = Path(name)
        devnet = start_devnet(directory / "devnet")
        payee = subjects[0].daemon(directory / "payee")
        try:
            await payee.start()
            await payee.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
            for subject in subjects:
                await _measure_subject(
                    report, subject, directory / subject.name.replace(" ", "-"), devnet, payee
                )
        finally:
            await payee.close()
            devnet.process.kill()


async def _measure_subject(
    report: Report, subject: Subject, datadir: Path, devnet: Devnet, payee: Daemon
) -> None:
    who = subject.name
    daemon = subject.daemon(datadir)
    try:
        await daemon.start()
        await _fill_by_boarding(daemon, devnet)
        daemon.process.terminate()
        await _measure_start(report, who, daemon)
        report.add(f"memory, {VTXOS} VTXOs", who, memory_mb(daemon.process.pid), "MB", MEMORY)
        await _measure_load(report, who, daemon, f"{VTXOS} VTXOs")
        await _measure_after_change(report, who, daemon, f"{VTXOS} VTXOs")
        await _measure_addresses(report, who, daemon)
        await _measure_sends(report, who, daemon, payee)
        report.add("memory after all that", who, memory_mb(daemon.process.pid), "MB")
        if who == OURS:
            daemon.process.terminate()
            await _fill_by_rows(datadir)
            await daemon.start()
            await _measure_load(report, who, daemon, f"{MANY} VTXOs and movements")
            await _measure_after_change(report, who, daemon, f"{MANY} VTXOs and movements")
            report.add(
                f"memory, {MANY} VTXOs and movements, after that", who, memory_mb(daemon.process.pid), "MB"
            )
    finally:
        await daemon.close()


async def _fill_by_boarding(daemon: Daemon, devnet: Devnet) -> None:
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    for _ in range(VTXOS // 10):
        address = (await post_nothing(daemon, "/onchain/addresses/next"))["address"]
        await devnet.fund(address, COIN_SAT)
    for _ in range(VTXOS // 10):
        await post_nothing(daemon, "/onchain/sync")
        for _ in range(10):
            await daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
        await devnet.mine()
    await devnet.mine(6)

    async def spendable() -> int:
        await post_nothing(daemon, "/wallet/sync")
        return sum(vtxo["state"]["type"] == "spendable" for vtxo in await daemon.get("/wallet/vtxos"))

    await eventually(spendable, lambda count: count == VTXOS)


async def _fill_by_rows(datadir: Path) -> None:
    """Rows that no server knows: the daemon must not try to bring them up to date."""
    config = datadir / "config.toml"
    config.write_text(f"daemon_manual_sync = true\n{config.read_text()}")
    store = await Store.open(str(datadir / "db.sqlite"))
    await add_vtxos(store, MANY)
    await add_movements(store, MANY)
    await store.close()


async def _measure_start(report: Report, who: str, daemon: Daemon) -> None:
    """From the launch to the first balance. Leaves the daemon running."""
    taken = []
    for _ in range(STARTS):
        if daemon.process.running:
            daemon.process.terminate()
        began = time.perf_counter()
        daemon.process.launch()
        await first_balance(daemon)
        taken.append(time.perf_counter() - began)
    report.add(f"start to the first balance, {VTXOS} VTXOs", who, statistics.median(taken), "s", START)


async def first_balance(daemon: Daemon) -> None:
    async with asyncio.timeout(120):
        while True:
            try:
                if (await daemon.http.get("/wallet/balance")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.005)


async def _measure_load(report: Report, who: str, daemon: Daemon, size: str) -> None:
    for what, path in (("balance", "wallet/balance"), ("vtxos", "wallet/vtxos"), ("history", "history")):
        await run_load(daemon.port, f"/api/v1/{path}", seconds=0.5)
        cpu = cpu_ms(daemon.process.pid)
        load = await run_load(daemon.port, f"/api/v1/{path}", seconds=LOAD_SECONDS)
        cpu = cpu_ms(daemon.process.pid) - cpu
        report.add(f"GET {what}, {size}", who, load.requests_per_second, "req/s", REQUESTS[what])
        report.add(f"GET {what}, {size}, p50", who, load.p50_ms, "ms")
        report.add(f"GET {what}, {size}, p99", who, load.p99_ms, "ms")
        report.add(
            f"GET {what}, {size}, CPU", who, cpu / (load.requests_per_second * LOAD_SECONDS), "ms/request"
        )


async def _measure_after_change(report: Report, who: str, daemon: Daemon, size: str) -> None:
    """What a client waits for when something was written since it last asked."""
    for what, path in (("balance", "/wallet/balance"), ("vtxos", "/wallet/vtxos"), ("history", "/history")):
        taken = []
        for _ in range(CHANGES):
            await post_nothing(daemon, "/wallet/addresses/next")
            began = time.perf_counter()
            await daemon.http.get(path)
            taken.append(time.perf_counter() - began)
        report.add(f"GET {what} after a change, {size}", who, 1000 * statistics.median(taken), "ms")


async def post_nothing(daemon: Daemon, path: str) -> Any:
    """barkd cuts the connection if it has answered before a body has arrived that it does not want."""
    response = await daemon.http.post(path)
    assert response.status_code == 200, response.text
    return response.json() if response.content else None


async def _measure_addresses(report: Report, who: str, daemon: Daemon) -> None:
    taken = []
    for _ in range(ADDRESSES):
        began = time.perf_counter()
        await post_nothing(daemon, "/wallet/addresses/next")
        taken.append(time.perf_counter() - began)
    report.add("new address", who, 1000 * statistics.median(taken), "ms", ADDRESS)


async def _measure_sends(report: Report, who: str, daemon: Daemon, payee: Daemon) -> None:
    address = (await payee.post("/wallet/addresses/next"))["address"]
    taken, cpu = [], cpu_ms(daemon.process.pid)
    for _ in range(SENDS):
        began = time.perf_counter()
        await daemon.post("/wallet/send", {"destination": address, "amount_sat": SEND_SAT})
        taken.append(time.perf_counter() - began)
    cpu = cpu_ms(daemon.process.pid) - cpu
    report.add("arkoor send, request to reply", who, 1000 * statistics.median(taken), "ms", SEND)
    report.add("arkoor send, CPU of the daemon", who, cpu / SENDS, "ms CPU", SEND)


def cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _CLOCK_TICK_MS


def memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1_000_000


def peak_memory_mb(pid: int) -> float:
    """The most that the process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1_000_000
    raise ValueError("the system does not say")
