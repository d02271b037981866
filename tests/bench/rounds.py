"""Refreshes of many VTXOs: how long they take, and what they cost the daemon.

The daemons are as in `daemons`. The Ark server runs in this process and holds a round when it is told to, and
each of its windows ends when the daemon has done its part: so times are the work of both, and CPU is the
daemon's alone.

    ask        the requests of the refreshes
    in round   joining, signing the tree, checking the signed one
    swap       leaves, forfeits, preimages, and the validation of the new VTXOs
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.ark_server.faults import Fault
from barkd_py.devnet.ark_server.rounds.events import RoundFinished
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.runner import Devnet, DevnetOptions, running_devnet
from tests.bench.daemons import Subject, cpu_ms, find_subjects, post_nothing
from tests.bench.report import OURS, Report
from tests.support.processes import Daemon, esplora

VTXOS = 200
BOARD_SAT = 30_000
BOARDS_PER_BLOCK = 10
REQUEST_SECS = 900.0

# Nothing happens but what is measured: the daemon looks at the world when it is told to.
QUIET = {"BARK_DAEMON_SYNC_INTERVAL_SECS": "3600"}
SETTINGS = ServerSettings(round_interval_secs=86_400, round_submit_secs=900, round_sign_secs=900)


async def measure_rounds(report: Report) -> None:
    for subject in find_subjects():
        with tempfile.TemporaryDirectory(prefix="barkd-bench-") as name:
            directory = Path(name)
            options = DevnetOptions(directory / "devnet", ark_settings=SETTINGS)
            async with running_devnet(options) as devnet:
                daemon = subject.daemon(directory / "wallet", QUIET)
                daemon.http.timeout = httpx.Timeout(REQUEST_SECS)
                try:
                    await daemon.start()
                    await _fill(daemon, devnet)
                    rounds = _Rounds(report, subject, daemon, devnet)
                    for count in (1, 20, VTXOS):
                        await rounds.measure(count, together=False)
                    await rounds.measure(VTXOS, together=True)
                except (AssertionError, httpx.HTTPError, TimeoutError) as error:
                    if subject.name == OURS:
                        raise
                    print(f"{subject.name} did not get through: {error!r}", file=sys.stderr)
                finally:
                    await daemon.close()


async def _fill(daemon: Daemon, devnet: Devnet) -> None:
    """Board one VTXO after the other."""
    await daemon.create_wallet(devnet.urls.ark_server_url, esplora(devnet.urls.esplora_url))
    address = (await post_nothing(daemon, "/onchain/addresses/next"))["address"]
    script = parse_address(address, Network.REGTEST)
    coin = TxOut(BOARDS_PER_BLOCK * (BOARD_SAT + 2_000), script)
    await faucet.pay(devnet.node, [coin] * (VTXOS // BOARDS_PER_BLOCK))
    await devnet.node.mine()
    for _ in range(VTXOS // BOARDS_PER_BLOCK):
        await post_nothing(daemon, "/onchain/sync")
        for _ in range(BOARDS_PER_BLOCK):
            await daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
        await devnet.node.mine()

    async def is_filled() -> bool:
        await post_nothing(daemon, "/wallet/sync")
        return len(await _spendable(daemon)) == VTXOS

    await _until(is_filled)


async def _spendable(daemon: Daemon) -> list[str]:
    vtxos = await daemon.get("/wallet/vtxos")
    return [vtxo["id"] for vtxo in vtxos if vtxo["state"]["type"] == "spendable"]


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(REQUEST_SECS):
        while not await condition():
            await asyncio.sleep(0.005)


class _Rounds:
    """Rounds of one daemon."""

    def __init__(self, report: Report, subject: Subject, daemon: Daemon, devnet: Devnet) -> None:
        self._report = report
        self._who = subject.name
        self._daemon = daemon
        self._devnet = devnet
        self._server = devnet.ark_server

    async def measure(self, count: int, *, together: bool) -> None:
        """together: all become one VTXO, in one participation; else each takes part by itself."""
        vtxo_ids = (await _spendable(self._daemon))[:count]
        asked = [vtxo_ids] if together else [[vtxo_id] for vtxo_id in vtxo_ids]
        what = f"refresh {count} VTXOs into {len(asked)}" if count > 1 else "refresh 1 VTXO"
        await self._step(what, "ask", count, self._ask(asked))
        await self._step(what, "in round", count, self._hold_round(len(asked)))
        await self._devnet.node.mine()
        await self._step(what, "swap", count, self._swap(len(asked)))

    async def _step(self, what: str, step: str, count: int, work: Awaitable[None]) -> None:
        cpu, began = cpu_ms(self._daemon.process.pid), time.perf_counter()
        await work
        took_ms = 1000 * (time.perf_counter() - began)
        cpu = cpu_ms(self._daemon.process.pid) - cpu
        self._report.add(f"{what}: {step}", self._who, took_ms, "ms")
        self._report.add(f"{what}: {step}, CPU per VTXO", self._who, cpu / count, "ms CPU")

    async def _ask(self, asked: Sequence[Sequence[str]]) -> None:
        for vtxo_ids in asked:
            await self._daemon.post("/wallet/refresh/vtxos", {"vtxos": list(vtxo_ids)})

    async def _hold_round(self, nb_participations: int) -> None:
        faults, engine = self._server.faults, self._server.rounds
        # A delay of nothing: it counts the registrations.
        counter = faults.set(
            Fault.from_json({"rpc": "SubmitPayment", "stage": "after-commit", "kind": "delay", "count": None})
        )

        async def all_joined() -> bool:
            return any(
                fault["id"] == counter and fault["hits"] >= nb_participations for fault in faults.list()
            )

        async def is_finished() -> bool:
            return isinstance(engine.events.last, RoundFinished)

        engine.trigger()
        await _until(all_joined)
        faults.remove(counter)
        engine.go_on()
        await _until(is_finished)
        await self._until_told(nb_participations)

    async def _until_told(self, nb_participations: int) -> None:
        """Until the daemon has dealt with the end of the round."""

        async def has_it() -> bool:
            # Asking for the rounds themselves would make the daemon look what became of them.
            await asyncio.sleep(0.25)
            history = await self._daemon.get("/history")
            return sum(_is_held(movement) for movement in history) == nb_participations

        await _until(has_it)

    async def _swap(self, nb_participations: int) -> None:
        async def is_done() -> bool:
            if self._who != OURS:
                # Its list looks at the rounds too, but keeps nothing of what it saw.
                await post_nothing(self._daemon, "/wallet/sync")
            return bool(await self._daemon.get("/wallet/rounds") == [])

        await _until(is_done)


def _is_held(movement: dict[str, Any]) -> bool:
    """Whether it is a refresh whose round was held, and that is not finished."""
    return movement["status"] == "pending" and "funding_txid" in movement.get("metadata", {})
