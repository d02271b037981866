"""What the database does for a read: no sorting and no scanning that grows with the history."""

from typing import Any

import pytest
import sqlalchemy as sa

from barkd_py.wallet.movements import BOARD, PaymentMethod, PaymentMethodKind
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.vtxo_states import StateKind
from tests.wallet.samples import insert, make_id, make_vtxo


async def plan_of(store: Store, read: str, tx: Transaction) -> list[str]:
    """SQLite's plan of the statements that a read sends, given as an expression in `tx`."""
    sent: list[tuple[str, Any]] = []

    def note(*arguments: Any) -> None:
        sent.append((str(arguments[2]), arguments[3]))

    sa.event.listen(store._reader.sync_engine, "before_cursor_execute", note)
    await eval(read, {"tx": tx, "make_id": make_id, "METHOD": METHOD, "StateKind": StateKind})
    sa.event.remove(store._reader.sync_engine, "before_cursor_execute", note)
    steps: list[str] = []
    for statement, parameters in sent:
        if statement.startswith(("SELECT", "WITH")):
            rows = await tx._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps += [row.detail for row in rows]
    assert steps
    return steps


METHOD = PaymentMethod(PaymentMethodKind.ARK, "tark1")


@pytest.mark.parametrize(
    "read",
    [
        "tx.vtxos.list()",
        "tx.vtxos.list(limit=5, after=make_id(1))",
        "tx.vtxos.list(frozenset(StateKind), limit=5)",
        "tx.vtxos.list(frozenset(StateKind), limit=5, after=make_id(1))",
        "tx.vtxos.first_payable(5)",
        "tx.vtxos.first_payable(5, expires_after_height=100)",
        "tx.vtxos.unspent_ids()",
        "tx.vtxos.unregistered()",
        "tx.vtxos.get(make_id(1))",
        "tx.vtxos.has_spendable(expiring_before=100, min_exit_depth=5)",
        "tx.movements.list(limit=5)",
        "tx.movements.list(limit=5, before=1)",
    ],
)
async def test_nothing_is_sorted_and_everything_uses_an_index(sqlite_store: Store, read: str) -> None:
    await insert(sqlite_store, make_vtxo(1), make_vtxo(2))
    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)
    async with sqlite_store.read() as tx:
        plan = await plan_of(sqlite_store, read, tx)
    steps = [step for step in plan if not step.startswith("CORRELATED")]  # what it does are steps of its own
    # A page of the history is read in the order in which its rows are, as far as its limit.
    in_order = {"SCAN movement"} if "limit=5" in read else set()
    assert all("INDEX" in step or "PRIMARY KEY" in step or step in in_order for step in steps), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize(
    "read",
    [
        "tx.balance.sums(1, 1)",
        "tx.movements.list_by_method(METHOD)",
        "tx.movements.find_by_action('a')",
        "tx.keys.next_index()",
        "tx.vtxos.held_by(None)",
    ],
)
async def test_nothing_reads_a_whole_table(sqlite_store: Store, read: str) -> None:
    async with sqlite_store.read() as tx:
        plan = await plan_of(sqlite_store, read, tx)
    scans = [step for step in plan if step.startswith("SCAN") and "INDEX" not in step]
    assert [step for step in scans if step.split()[1] not in ("spendable", "locked_vtxo", "by_holder")] == []


async def test_what_was_no_income_is_found_without_the_rest_of_the_history(sqlite_store: Store) -> None:
    async with sqlite_store.read() as tx:
        plan = await plan_of(sqlite_store, "tx.movements.failed_receipts([make_id(1)])", tx)
    assert "ix_movement_failed" in plan[0], plan
    assert all(step.startswith("SEARCH") for step in plan[1:]), plan
