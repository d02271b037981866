"""Reads of the store by size of the wallet: what a client waits for when nothing is cached."""

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from barkd_py.wallet.movements import PaymentMethod, PaymentMethodKind
from barkd_py.wallet.store import Store, Transaction
from tests.bench.report import OURS, Report
from tests.bench.rows import add_movements, add_vtxos, address_of

SIZES = ((140, 140), (10_000, 100_000))
SAMPLES = 7

Read = Callable[[Transaction], Awaitable[object]]


async def measure_storage(report: Report) -> None:
    for vtxos, movements in SIZES:
        with tempfile.TemporaryDirectory() as directory:
            store = await Store.open(str(Path(directory) / "db.sqlite"))
            try:
                await add_vtxos(store, vtxos)
                await add_movements(store, movements)
                reads = _reads(vtxos, movements)
                for what, read in reads.items():
                    report.add(f"store: {what}", OURS, await _best_ms(store, read), "ms")
                report.add(f"store: commit, {vtxos} VTXOs", OURS, await _commit_ms(store), "ms")
            finally:
                await store.close()


def _reads(vtxos: int, movements: int) -> dict[str, Read]:
    middle = movements // 2
    method = PaymentMethod(PaymentMethodKind.ARK, address_of(middle))
    return {
        f"balance, {vtxos} VTXOs": lambda tx: tx.balance.sums(100, 5),
        f"100 of {vtxos} VTXOs": lambda tx: tx.vtxos.list(limit=100),
        f"all of {vtxos} VTXOs": lambda tx: tx.vtxos.list(),
        f"newest 100 of {movements} movements": lambda tx: tx.movements.list(limit=100),
        f"100 from the middle of {movements}": lambda tx: tx.movements.list(limit=100, before=middle),
        f"one of {movements} by its address": lambda tx: tx.movements.list_by_method(method),
    }


async def _best_ms(store: Store, read: Read) -> float:
    best = float("inf")
    for _ in range(SAMPLES):
        began = time.perf_counter()
        async with store.read() as tx:
            await read(tx)
        best = min(best, time.perf_counter() - began)
    return 1000 * best


async def _commit_ms(store: Store) -> float:
    best = float("inf")
    for number in range(1, SAMPLES + 1):
        began = time.perf_counter()
        async with store.transaction() as tx:
            await tx.mailbox.advance(number)
        best = min(best, time.perf_counter() - began)
    return 1000 * best
