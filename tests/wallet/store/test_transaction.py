"""The unit of work: one writer, atomic, and silent until it has committed."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from barkd_py.errors import StoreError
from barkd_py.wallet.movements import ARKOOR_RECEIVE
from barkd_py.wallet.notifications import MovementCreated, WalletEvent
from barkd_py.wallet.store import Store, transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.lease import DatabaseInUse
from tests.wallet.samples import Clock, insert, make_id, make_vtxo, states


async def test_an_error_leaves_the_database_as_it_was(store: Store) -> None:
    revision = store.revision
    with pytest.raises(ZeroDivisionError):
        await _create_and_fail(store)
    async with store.read() as tx:
        assert await tx.movements.list() == ()
    assert store.revision == revision


async def _create_and_fail(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.movements.create(ARKOOR_RECEIVE)
        raise ZeroDivisionError


async def test_cancelling_in_mid_transaction_leaves_the_database_as_it_was(store: Store) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with store.transaction() as tx:
            await tx.movements.create(ARKOOR_RECEIVE)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with store.read() as tx:
        assert await tx.movements.list() == ()
    async with store.transaction() as tx:  # and the store is free again
        await tx.movements.create(ARKOOR_RECEIVE)


async def test_cancelling_during_the_commit_does_not_tear_events_from_rows(store: Store) -> None:
    """Wherever cancellation hits, either the rows and the event are there, or neither."""
    for delay in range(40):
        events: list[WalletEvent] = []
        stop = store.on_commit(events.extend)
        async with store.read() as tx:
            before = len(await tx.movements.list())

        async def work() -> None:
            async with store.transaction() as tx:
                await tx.movements.create(ARKOOR_RECEIVE)

        task = asyncio.create_task(work())
        for _ in range(delay):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        stop()
        async with store.read() as tx:
            assert len(await tx.movements.list()) - before == len(events)


async def test_events_come_after_the_commit_and_only_then(store: Store) -> None:
    seen: list[tuple[int, Sequence[WalletEvent]]] = []
    store.on_commit(lambda events: seen.append((store.revision, tuple(events))))
    revision = store.revision

    async with store.transaction() as tx:
        movement = await tx.movements.create(ARKOOR_RECEIVE)
        assert seen == []
    with pytest.raises(ZeroDivisionError):
        await _create_and_fail(store)

    assert seen == [(revision + 1, (MovementCreated(movement),))]


async def test_a_failing_listener_does_not_undo_the_commit(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    later: list[WalletEvent] = []

    def fail(events: Sequence[WalletEvent]) -> None:
        raise ZeroDivisionError

    store.on_commit(fail)
    store.on_commit(later.extend)
    async with store.transaction() as tx:
        await tx.movements.create(ARKOOR_RECEIVE)
    assert len(later) == 1
    assert "a listener failed after a commit" in caplog.text


async def test_writers_take_turns(store: Store) -> None:
    order: list[str] = []

    async def work(name: str) -> None:
        async with store.transaction() as tx:
            order.append(f"{name} in")
            await tx.mailbox.checkpoint()
            order.append(f"{name} out")

    await asyncio.gather(work("a"), work("b"))

    assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])


async def test_a_transaction_inside_a_transaction_is_a_bug_and_no_deadlock(store: Store) -> None:
    async with store.transaction():
        with pytest.raises(RuntimeError, match="inside a store transaction"):
            async with store.transaction():
                pytest.fail("nested")


async def test_readers_do_not_wait_for_the_writer_and_see_one_moment(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.mailbox.advance(1)
    async with store.read() as reader:
        assert await reader.mailbox.checkpoint() == 1
        async with store.transaction() as tx:
            await tx.mailbox.advance(2)
            async with store.read() as other:
                assert await other.mailbox.checkpoint() == 1
        assert await reader.mailbox.checkpoint() == 1
    async with store.read() as reader:
        assert await reader.mailbox.checkpoint() == 2


async def test_nothing_can_be_written_while_reading(store: Store) -> None:
    with pytest.raises(StoreError):
        async with store.read() as tx:
            await tx.mailbox.advance(1)
    async with store.read() as tx:
        assert await tx.mailbox.checkpoint() == 0


async def test_all_times_of_a_transaction_are_one_moment(store: Store, clock: Clock) -> None:
    began = clock.now
    async with store.transaction() as tx:
        first = await tx.movements.create(ARKOOR_RECEIVE)
        clock.advance(minutes=5)
        second = await tx.movements.create(ARKOOR_RECEIVE)
    assert first.created_at == second.created_at == began


async def test_what_is_committed_is_there_after_reopening(database: str) -> None:
    store = await Store.open(database)
    await insert(store, make_vtxo(1))
    await store.close()

    again = await Store.open(database)
    try:
        assert set(await states(again)) == {make_id(1)}
    finally:
        await again.close()


async def test_two_programs_do_not_write_to_one_postgresql_database(postgres_database: str) -> None:
    """A SQLite file is guarded by the lock of the data directory instead."""
    first = await Store.open(postgres_database)
    with pytest.raises(DatabaseInUse, match=r"^another process is already using this database$"):
        await Store.open(postgres_database)
    await first.close()
    await (await Store.open(postgres_database)).close()


async def test_a_bug_does_not_end_the_signs_of_life(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Or another daemon would take over from a healthy one."""
    monkeypatch.setattr(transaction, "CHECK_SECS", 0)
    answers = [RuntimeError("a bug"), StoreError("away"), ValueError("another")]

    class Trouble:
        lost = asyncio.Event()

        async def verify(self) -> None:
            if answers:
                raise answers.pop(0)
            self.lost.set()

    await asyncio.wait_for(store._keep_lease(Trouble()), 60)  # type: ignore[arg-type]
    said = [record.levelname for record in caplog.records if record.name == transaction.log.name]
    assert said == ["ERROR", "WARNING", "ERROR"]
    assert "RuntimeError: a bug" in caplog.text


async def test_two_programs_on_one_sqlite_file_wait_for_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "db.sqlite")
    first, second = await Store.open(path), await Store.open(path)
    try:
        async with first.transaction() as tx:
            await tx.mailbox.advance(5)
            waiting = asyncio.create_task(_advance(second, 6))
            await asyncio.wait({waiting}, timeout=0.05)
            assert not waiting.done()
        await waiting
        async with first.read() as tx:
            assert await tx.mailbox.checkpoint() == 6
    finally:
        await first.close()
        await second.close()


async def _advance(store: Store, checkpoint: int) -> None:
    async with store.transaction() as tx:
        await tx.mailbox.advance(checkpoint)


async def test_a_new_sqlite_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    store = await Store.open(str(path))
    try:
        await insert(store, make_vtxo(1))
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    finally:
        await store.close()
    assert modes == {"db.sqlite": 0o600, "db.sqlite-wal": 0o600, "db.sqlite-shm": 0o600}


async def test_a_directory_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open the database file .*: No such file or directory"):
        await Store.open(str(tmp_path / "missing" / "db.sqlite"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://localhost/wallet", "unsupported database: mysql"),
        ("://secret", "cannot be parsed"),
    ],
)
async def test_other_databases_are_refused(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as raised:
        await Store.open(url)
    assert "secret" not in str(raised.value)


async def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(StoreError, match="cannot reach the database") as raised:
        await Store.open("postgresql://wallet:secret@127.0.0.1:1/wallet")
    assert "secret" not in str(raised.value)


KILLED = """
import asyncio, sys
from barkd_py.wallet.movements import ARKOOR_RECEIVE
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import ActionHolder
from tests.wallet.samples import ACTION_ID, add_holders, make_id

async def main():
    store = await Store.open(sys.argv[1])
    async with store.transaction() as tx:
        await add_holders(tx)
        await tx.vtxos.lock([make_id(1)], ActionHolder(ACTION_ID))
        await tx.vtxos.mark_spent([make_id(2)])
        await tx.movements.create(ARKOOR_RECEIVE)
        await tx.mailbox.advance(9)
        print("written", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_kill_in_mid_transaction_leaves_the_old_state(database: str) -> None:
    store = await Store.open(database)
    await insert(store, make_vtxo(1), make_vtxo(2))
    before = await states(store)
    await store.close()

    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, database],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    process.stdout.close()

    store = await Store.open(database)
    try:
        assert await states(store) == before
        async with store.read() as tx:
            assert await tx.movements.list() == ()
            assert await tx.actions.list() == ()
            assert await tx.mailbox.checkpoint() == 0
    finally:
        await store.close()


async def test_a_cancelled_transaction_leaves_nothing_locked(store: Store) -> None:
    """Wherever the cancellation strikes: SQLAlchemy drops a connection whose statement is cut off."""

    async def work() -> None:
        async with store.transaction() as tx:
            for number in range(3):
                await tx.actions.save(f"action{number}", ActionKind.BOARD, "{}")

    for steps in range(60):
        task = asyncio.create_task(work())
        for _ in range(steps):
            await asyncio.sleep(0)
        if steps % 3 == 0:
            await asyncio.sleep(steps / 20_000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(60), store.transaction() as tx:
            assert len(await tx.actions.list()) in (0, 3)
            for row in await tx.actions.list():
                await tx.actions.delete(row.id)
