"""The SQLite driver where it leaves the event loop's thread, and when it is cancelled there."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from barkd_py.wallet.store.sqlite_driver import Connection, connect


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    opened = await connect(str(tmp_path / "db.sqlite"), timeout=20)
    await opened.cursor().execute("CREATE TABLE t (a INTEGER)")
    yield opened
    await opened.close()


@pytest.fixture
async def rival(connection: Connection, tmp_path: Path) -> AsyncIterator[Connection]:
    """Another process, as far as SQLite can tell."""
    opened = await connect(str(tmp_path / "db.sqlite"), timeout=20)
    yield opened
    await opened.close()


async def rows(connection: Connection) -> list[tuple[int]]:
    cursor = await connection.cursor().execute("SELECT a FROM t ORDER BY a")
    return await cursor.fetchall()


async def insert(connection: Connection, value: int) -> None:
    await connection.cursor().execute("BEGIN IMMEDIATE")
    await connection.cursor().execute("INSERT INTO t VALUES (?)", (value,))
    await connection.commit()


async def test_beginning_waits_for_another_writer_and_lets_the_loop_go_on(
    connection: Connection, rival: Connection
) -> None:
    await rival.cursor().execute("BEGIN IMMEDIATE")
    await rival.cursor().execute("INSERT INTO t VALUES (1)")
    waiting = asyncio.create_task(insert(connection, 2))
    await asyncio.wait({waiting}, timeout=0.05)
    assert not waiting.done()

    await rival.commit()
    await waiting

    assert await rows(connection) == [(1,), (2,)]


async def test_who_gives_up_beginning_leaves_no_transaction_open_that_nobody_knows(
    connection: Connection, rival: Connection
) -> None:
    await rival.cursor().execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(insert(connection, 2))
    await asyncio.wait({waiting}, timeout=0.05)
    waiting.cancel()
    await rival.rollback()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    await connection.rollback()
    await insert(rival, 1)
    assert await rows(connection) == [(1,)]


async def test_a_disk_that_was_slow_is_waited_for_in_a_thread(connection: Connection) -> None:
    connection._commits_are_quick = False
    await insert(connection, 1)
    assert await rows(connection) == [(1,)]


async def test_a_slow_commit_that_is_cancelled_is_committed(connection: Connection) -> None:
    connection._commits_are_quick = False
    await connection.cursor().execute("BEGIN IMMEDIATE")
    await connection.cursor().execute("INSERT INTO t VALUES (1)")
    committing = asyncio.create_task(connection.commit())
    await asyncio.sleep(0)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing

    assert not connection.raw.in_transaction
    assert await rows(connection) == [(1,)]


async def test_many_rows_are_written_in_a_thread(connection: Connection) -> None:
    await connection.cursor().executemany("INSERT INTO t VALUES (?)", ((number,) for number in range(1_000)))
    assert await rows(connection) == [(number,) for number in range(1_000)]


async def test_errors_are_those_of_sqlite(connection: Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await connection.cursor().execute("SELECT * FROM missing")
    await connection.cursor().execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
        await connection.cursor().execute("BEGIN IMMEDIATE")


async def test_a_closed_connection_says_so(connection: Connection) -> None:
    await connection.close()
    await connection.close()
    with pytest.raises(ValueError, match="no active connection"):
        connection.cursor()
