"""Reads of the store by size of the wallet: what a client waits for when nothing is cached. CPU time."""

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.vtxo_states import StateKind
from barkd_py.wallet.vtxos.inputs import choose
from barkd_py.wallet.vtxos.selection import select
from tests.bench.report import Report
from tests.bench.rows import add_movements, add_vtxos, payee_of
from tests.bench.sizes import LARGE, SMALL, Size

SAMPLES = 15
PAYMENT_SAT = 5_000

Read = Callable[[Transaction], Awaitable[object]]


async def measure_storage(report: Report) -> None:
    for size in (SMALL, LARGE):
        with tempfile.TemporaryDirectory() as directory:
            store = await Store.open(str(Path(directory) / "db.sqlite"))
            try:
                await add_vtxos(store, size.vtxos)
                await add_movements(store, size.movements)
                for what, read in (await _reads(store, size)).items():
                    report.add(f"store: {what}", str(size), await _best_ms(store, read), "ms CPU")
                report.add("store: commit", str(size), await _commit_ms(store), "ms CPU")
            finally:
                await store.close()


async def _reads(store: Store, size: Size) -> dict[str, Read]:
    """Those whose answer is equally long at every size, and lists."""
    middle = size.movements // 2
    async with store.read() as tx:
        vtxo_id = (await tx.vtxos.list(limit=size.vtxos // 2))[-1].id
    return {
        "balance": lambda tx: tx.balance.sums(100, 5),
        "one VTXO": lambda tx: tx.vtxos.get(vtxo_id),
        "one VTXO with its chain": lambda tx: tx.vtxos.body(vtxo_id),
        "100 VTXOs from the middle": lambda tx: tx.vtxos.list(limit=100, after=vtxo_id),
        "100 from the middle, spent ones too": lambda tx: tx.vtxos.list(
            frozenset(StateKind), limit=100, after=vtxo_id
        ),
        "inputs of a payment": lambda tx: choose(tx, lambda payable: select(payable, PAYMENT_SAT)),
        "whether one must be refreshed": lambda tx: tx.vtxos.has_spendable(
            expiring_before=100, min_exit_depth=5
        ),
        "what the server does not know": lambda tx: tx.vtxos.unregistered(),
        "one movement": lambda tx: tx.movements.get(middle),
        "newest 100 movements": lambda tx: tx.movements.list(limit=100),
        "100 movements from the middle": lambda tx: tx.movements.list(limit=100, before=middle),
        "a movement by its payee": lambda tx: tx.movements.list_by_method(payee_of(middle)),
        "next key": lambda tx: tx.keys.next_index(),
        "all unspent VTXOs": lambda tx: tx.vtxos.list(),
        "their ids": lambda tx: tx.vtxos.unspent_ids(),
    }


async def _best_ms(store: Store, read: Read) -> float:
    best = float("inf")
    for _ in range(SAMPLES):
        began = time.thread_time()
        async with store.read() as tx:
            await read(tx)
        best = min(best, time.thread_time() - began)
    return 1000 * best


async def _commit_ms(store: Store) -> float:
    best = float("inf")
    for number in range(1, SAMPLES + 1):
        began = time.thread_time()
        async with store.transaction() as tx:
            await tx.mailbox.advance(number)
        best = min(best, time.thread_time() - began)
    return 1000 * best
