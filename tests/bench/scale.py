"""A wallet that has grown for years, with 10,000 VTXOs, and one with a tenth of them.

First it is used: payments, addresses, single VTXOs and movements, whose cost should not depend on its size.
Then the server goes away, so that what is under way stays so, and is driven again and again as in the field.
Several clients ask for everything at once, some read slowly, and meanwhile another one wants the balance. At
the end nobody asks for anything.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import sqlalchemy as sa

from barkd_py.bitcoin.keys import SecretKey
from barkd_py.wallet.arkoor.states import FORMAT, Cosigning
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.tables import action_checkpoint
from barkd_py.wallet.vtxo_states import ActionHolder, StateKind, WalletVtxo
from tests.bench.daemons import cpu_ms, first_balance, memory_mb, peak_memory_mb, post_nothing
from tests.bench.report import Goal, Report
from tests.bench.rows import add_movements, add_vtxos, payee_of
from tests.bench.sizes import LARGE, SMALL, Size
from tests.support.processes import Daemon, Devnet, esplora, eventually, free_port, start_devnet

STARTS = 3
SAMPLES = 15
PAYMENTS = 20
READS = 100
PAYMENT_SAT = 1_000
COIN_SAT = 200_000
IDLE_SECONDS = 60
IDLE_MS = 50
"""Of CPU in two seconds."""
READERS = 4
SLOW_READERS = 8

MEMORY = Goal(300)
START = Goal(3)
MEANWHILE = Goal(100)
"""Milliseconds for a balance, whatever else goes on."""

LISTS = ("/history", "/wallet/vtxos?all=true", "/wallet/vtxos")


async def measure_scale(report: Report) -> None:
    for size in (SMALL, LARGE):
        with tempfile.TemporaryDirectory(prefix="barkd-bench-") as name:
            directory = Path(name)
            devnet = start_devnet(directory / "devnet")
            daemon = Daemon(directory / "datadir")
            payee = Daemon(directory / "payee")
            try:
                await daemon.start()
                await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
                await _board(daemon, devnet)
                daemon.process.terminate()
                await _fill(daemon.datadir, size)
                await payee.start()
                await payee.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
                scale = _Scale(report, size, daemon)
                await scale.measure_use((await post_nothing(payee, "/wallet/addresses/next"))["address"])
                await payee.close()
                await _put_payments_under_way(daemon.datadir, size)
                _send_the_server_away(daemon.datadir)
                await scale.measure(devnet.mine)
            finally:
                await daemon.close()
                await payee.close()
                devnet.process.kill()


@dataclass
class _Scale:
    report: Report
    size: Size
    daemon: Daemon

    def add(self, what: str, value: float, unit: str, goal: Goal | None = None) -> None:
        self.report.add(f"scale: {what}", str(self.size), value, unit, goal)

    async def measure_use(self, ark_address: str) -> None:
        """What it costs to use it, none of which has an answer that grows. The server is there."""
        await self.daemon.start()
        await self.daemon.get("/wallet/balance")
        await self._until_idle()
        send = {"destination": ark_address, "amount_sat": PAYMENT_SAT}
        await self._cpu_of("arkoor send", lambda: self.daemon.post("/wallet/send", send))
        await self._cpu_of("new address", lambda: post_nothing(self.daemon, "/wallet/addresses/next"))
        await self._cpu_of("invoice", lambda: self.daemon.post(*_INVOICE))
        middle = self.size.movements // 2
        await self._cpu_of("metadata of a movement", lambda: self._patch_movement(middle))
        await self._cpu_of("metadata of a movement, and the balance after it", lambda: self._change(middle))
        vtxo_id, payee = await self._some_vtxo(), payee_of(middle)
        address = (await post_nothing(self.daemon, "/onchain/addresses/next"))["address"]
        for what, path in (
            ("one VTXO", f"wallet/vtxos/{vtxo_id}"),
            ("one VTXO, encoded", f"wallet/vtxos/{vtxo_id}/encoded"),
            ("the history of one payee", f"history?type={payee.kind.value}&value={payee.value}"),
            ("estimate of a send on chain", f"fees/send-onchain?amount_sat={PAYMENT_SAT}&address={address}"),
            ("exits under way", "exits/status/live"),
            ("invoices under way", "lightning/receives"),
            ("boards under way", "boards/pending"),
            ("rounds under way", "wallet/rounds"),
        ):
            await self._cpu_of(what, partial(self.daemon.get, f"/{path}"), times=READS)

    async def measure(self, mine: Callable[[], Awaitable[object]]) -> None:
        """The server is away, and payments are under way."""
        await self._measure_start()
        async with self._balance_meanwhile("the flows are driven after the start"):
            await asyncio.sleep(5)
        async with self._balance_meanwhile(f"{READERS} clients read the lists for the first time"):
            await self._read_at_once("first")
        async with self._balance_meanwhile("they read them again"):
            await self._read_at_once("again")
        async with (
            self._balance_meanwhile(f"{SLOW_READERS} more do not read on"),
            self._slow_readers(),
        ):
            await asyncio.sleep(2)
        await self._measure_reads()
        async with self._balance_meanwhile("a sync goes on"):
            await self._timed("sync", self.daemon.post("/wallet/sync"))
        await mine()
        async with self._balance_meanwhile("a sync after a block goes on"):
            await self._timed("sync after a block", self.daemon.post("/wallet/sync"))
        await self._measure_reads("after a sync, ")
        pid = self.daemon.process.pid
        cpu = cpu_ms(pid)
        await asyncio.sleep(IDLE_SECONDS)
        self.add("idle", (cpu_ms(pid) - cpu) / IDLE_SECONDS, "ms CPU/s")
        self.add("memory after all that", memory_mb(pid), "MB", MEMORY)
        self.add("memory, the highest it was", peak_memory_mb(pid), "MB", MEMORY)

    async def _cpu_of(
        self, what: str, work: Callable[[], Awaitable[object]], *, times: int = PAYMENTS
    ) -> None:
        """CPU of the daemon for each of some calls, one after another."""
        cpu = cpu_ms(self.daemon.process.pid)
        for _ in range(times):
            await work()
        self.add(what, (cpu_ms(self.daemon.process.pid) - cpu) / times, "ms CPU")

    async def _until_idle(self) -> None:
        """What follows a start is over."""
        while True:
            cpu = cpu_ms(self.daemon.process.pid)
            await asyncio.sleep(2)
            if cpu_ms(self.daemon.process.pid) - cpu < IDLE_MS:
                return

    async def _patch_movement(self, movement_id: int) -> None:
        patch = {"seen": time.time()}
        answer = await self.daemon.http.post(f"/history/{movement_id}/metadata", json=patch)
        assert answer.status_code == 200, answer.text

    async def _change(self, movement_id: int) -> None:
        await self._patch_movement(movement_id)
        await self.daemon.get("/wallet/balance")

    async def _some_vtxo(self) -> str:
        vtxo_id: str = (await self.daemon.get("/wallet/vtxos"))[self.size.vtxos // 2]["id"]
        return vtxo_id

    async def _measure_start(self) -> None:
        taken, cpu = [], []
        process = self.daemon.process
        for _ in range(STARTS):
            if process.running:
                process.terminate()
            began = time.perf_counter()
            process.launch()
            await first_balance(self.daemon)
            taken.append(time.perf_counter() - began)
            cpu.append(cpu_ms(process.pid) / 1000)
        self.add("start to the first balance", statistics.median(taken), "s", START)
        self.add("start to the first balance, CPU", statistics.median(cpu), "s CPU")
        self.add("memory after the start", memory_mb(process.pid), "MB", MEMORY)

    async def _measure_reads(self, when: str = "") -> None:
        """One client, one read after another, of what has not changed."""
        for path, samples in (("/wallet/balance", SAMPLES), ("/wallet/vtxos", SAMPLES), ("/history", 5)):
            taken = []
            cpu = cpu_ms(self.daemon.process.pid)
            for _ in range(samples):
                taken.append(await self._read(path))
            cpu = cpu_ms(self.daemon.process.pid) - cpu
            self.add(f"{when}GET {path}", statistics.median(taken), "ms")
            self.add(f"{when}GET {path}, slowest", max(taken), "ms")
            self.add(f"{when}GET {path}, CPU", cpu / samples, "ms CPU")
        await post_nothing(self.daemon, "/wallet/addresses/next")
        self.add(f"{when}GET /history after a change", await self._read("/history"), "ms")

    async def _read_at_once(self, which: str) -> None:
        cpu = cpu_ms(self.daemon.process.pid)
        taken = await asyncio.gather(*(self._read(path) for path in LISTS for _ in range(READERS)))
        cpu = cpu_ms(self.daemon.process.pid) - cpu
        self.add(f"{READERS} clients read the lists at once, {which}, slowest", max(taken) / 1000, "s")
        self.add(f"{READERS} clients read the lists at once, {which}, CPU", cpu / 1000, "s CPU")
        self.add(f"memory after that, {which}", memory_mb(self.daemon.process.pid), "MB", MEMORY)

    async def _read(self, path: str) -> float:
        """Milliseconds to the last byte. The bytes are not kept: this process is not what is measured."""
        began = time.perf_counter()
        async with self.daemon.http.stream("GET", path, timeout=300) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_raw():
                pass
        return 1000 * (time.perf_counter() - began)

    async def _timed(self, what: str, work: Awaitable[object]) -> None:
        began = time.perf_counter()
        await work
        self.add(what, time.perf_counter() - began, "s")

    @asynccontextmanager
    async def _balance_meanwhile(self, what: str) -> AsyncIterator[None]:
        """How long a client waits for the balance while something else goes on."""
        taken: list[float] = []

        async def ask() -> None:
            while True:
                taken.append(await self._read("/wallet/balance"))
                await asyncio.sleep(0.02)

        asking = asyncio.create_task(ask())
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.wait([asking])
        taken.sort()
        if taken:
            self.add(f"GET /wallet/balance while {what}, p50", taken[len(taken) // 2], "ms")
            self.add(f"GET /wallet/balance while {what}, p99", taken[len(taken) * 99 // 100], "ms", MEANWHILE)

    @asynccontextmanager
    async def _slow_readers(self) -> AsyncIterator[None]:
        """Clients that ask for the history and read its first line."""
        request = f"GET /api/v1/history HTTP/1.1\r\nHost: 127.0.0.1:{self.daemon.port}\r\n\r\n".encode()
        writers = []
        for _ in range(SLOW_READERS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.daemon.port, limit=4096)
            writer.write(request)
            await reader.readline()
            writers.append(writer)
        try:
            yield
        finally:
            for writer in writers:
                writer.transport.abort()


_INVOICE = ("/lightning/receives/invoice", {"amount_sat": 1_000})


async def _board(daemon: Daemon, devnet: Devnet) -> None:
    """A coin that pays for what follows."""
    address = (await post_nothing(daemon, "/onchain/addresses/next"))["address"]
    await devnet.fund(address, 2 * COIN_SAT)
    await post_nothing(daemon, "/onchain/sync")
    await daemon.post("/boards/board-amount", {"amount_sat": COIN_SAT})
    await devnet.mine(6)

    async def spendable_sat() -> int:
        await post_nothing(daemon, "/wallet/sync")
        amount_sat: int = (await daemon.get("/wallet/balance"))["spendable_sat"]
        return amount_sat

    await eventually(spendable_sat, lambda amount_sat: amount_sat > 0)


async def _fill(datadir: Path, size: Size) -> None:
    store = await Store.open(str(datadir / "db.sqlite"))
    await add_vtxos(store, size.vtxos)
    await add_movements(store, size.movements)
    await store.close()


async def _put_payments_under_way(datadir: Path, size: Size) -> None:
    store = await Store.open(str(datadir / "db.sqlite"))
    async with store.transaction() as tx:
        await tx._connection.execute(sa.delete(action_checkpoint))  # invoices; the server knows them no more
        vtxos = list(islice(await tx.vtxos.list([StateKind.SPENDABLE]), size.flows))
    async with store.transaction() as tx:
        for number, vtxo in enumerate(vtxos):
            action_id = f"{number:032x}"
            await tx.actions.save(action_id, ActionKind.ARKOOR_SEND, _payment_of(vtxo), [vtxo.id])
            await tx.vtxos.lock([vtxo.id], ActionHolder(action_id))
    await store.close()


def _payment_of(vtxo: WalletVtxo) -> str:
    """The whole VTXO to somebody, not yet cosigned."""
    return FORMAT.encode(
        Cosigning(
            address="tark1" + "q" * 100,
            recipient=SecretKey(bytes([7] * 32)).public_key,
            amount_sat=vtxo.amount_sat,
            input_ids=(vtxo.id,),
            change_pubkey=SecretKey(bytes([8] * 32)).public_key,
            change_sat=(),
            blinded_ids=(SecretKey(bytes([9] * 32)).public_key.data,),
        )
    )


def _send_the_server_away(datadir: Path) -> None:
    config = datadir / "config.toml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("server_address")]
    config.write_text("\n".join([*lines, f'server_address = "http://127.0.0.1:{free_port()}"', ""]))
