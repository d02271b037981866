"""A wallet that has grown for years: 10,000 VTXOs, 100,000 movements, 1,000 payments under way.

The server is away, so that what is under way stays so, and is driven again and again as in the field.
"""

import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

from barkd_py.bitcoin.keys import SecretKey
from barkd_py.wallet.arkoor.machine import ArkoorSendMachine
from barkd_py.wallet.arkoor.states import Cosigning
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxos.states import ActionHolder, WalletVtxo
from tests.bench.daemons import cpu_ms, first_balance, memory_mb
from tests.bench.report import OURS, Report
from tests.bench.rows import add_movements, add_vtxos
from tests.support.processes import Daemon, esplora, free_port, start_devnet

VTXOS = 10_000
MOVEMENTS = 100_000
FLOWS = 1_000
STARTS = 3
SAMPLES = 15

SIZE = f"{VTXOS:,} VTXOs, {MOVEMENTS:,} movements, {FLOWS:,} flows"


async def measure_scale(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="barkd-bench-") as name:
        directory = Path(name)
        devnet = start_devnet(directory / "devnet")
        daemon = Daemon(directory / "datadir")
        try:
            await daemon.start()
            await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
            daemon.process.terminate()
            await _fill(daemon.datadir)
            _send_the_server_away(daemon.datadir)
            taken, cpu = [], []
            for _ in range(STARTS):
                if daemon.process.running:
                    daemon.process.terminate()
                began = time.perf_counter()
                daemon.process.launch()
                await first_balance(daemon)
                taken.append(time.perf_counter() - began)
                cpu.append(cpu_ms(daemon.process.pid) / 1000)
            report.add(f"start to the first balance, {SIZE}", OURS, statistics.median(taken), "s")
            report.add(f"the same, CPU of the daemon, {SIZE}", OURS, statistics.median(cpu), "s CPU")
            report.add(f"memory after the start, {SIZE}", OURS, memory_mb(daemon.process.pid), "MB")
            await _measure_reads(report, daemon)
            await daemon.post("/wallet/sync")
            await _measure_reads(report, daemon, "after a sync, ")
            report.add(f"memory after reads and syncs, {SIZE}", OURS, memory_mb(daemon.process.pid), "MB")
            await devnet.mine()
            began = time.perf_counter()
            await daemon.post("/wallet/sync")
            report.add(f"sync after a block, {SIZE}", OURS, time.perf_counter() - began, "s")
        finally:
            await daemon.close()
            devnet.process.kill()


async def _measure_reads(report: Report, daemon: Daemon, when: str = "") -> None:
    """Balance and VTXOs; the whole history once, as it is not made for wallets of this age."""
    for path, samples in (("/wallet/balance", SAMPLES), ("/wallet/vtxos", SAMPLES), ("/history", 2)):
        taken = []
        for _ in range(samples):
            began = time.perf_counter()
            answer = await daemon.http.get(path, timeout=300)
            assert answer.status_code == 200
            taken.append(1000 * (time.perf_counter() - began))
        report.add(f"{when}GET {path}, {SIZE}", OURS, statistics.median(taken), "ms")


async def _fill(datadir: Path) -> None:
    store = await Store.open(str(datadir / "db.sqlite"))
    await add_vtxos(store, VTXOS)
    await add_movements(store, MOVEMENTS)
    async with store.read() as tx:
        vtxos = list(islice(await tx.vtxos.list(), FLOWS))
    async with store.transaction() as tx:
        for number, vtxo in enumerate(vtxos):
            action_id = f"{number:032x}"
            await tx.actions.save(action_id, ActionKind.ARKOOR_SEND, _payment_of(vtxo), [vtxo.id])
            await tx.vtxos.lock([vtxo.id], ActionHolder(action_id))
    await store.close()


def _payment_of(vtxo: WalletVtxo) -> str:
    """The whole VTXO to somebody, not yet cosigned."""
    machine = ArkoorSendMachine.__new__(ArkoorSendMachine)  # encoding needs none of what it works with
    return machine.encode(
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
