"""SQLite without a thread per connection.

aiosqlite sends every cursor, statement and fetch to a thread of the connection, four hand-overs for a query
that takes SQLite 20 microseconds; a payment needs dozens of queries, and spent more on hand-overs than on
signatures. Here a statement runs where it is asked for. Only what has to wait goes to a thread: to begin a
transaction while another process writes, and to commit to a disk that has shown to be slow. Such work runs to
its end even if the task is cancelled, so a connection is never left with half a statement.

SQLAlchemy's aiosqlite dialect is given `connect` as its way to connect, so the classes have the methods that
the dialect calls, under its names.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

# Statements with more rows than this would keep everything else waiting for milliseconds.
_MANY_ROWS = 200

# What everything else may be kept waiting for a commit. A solid state disk takes a fraction of a millisecond.
_QUICK_COMMIT_SECONDS = 0.005


async def connect(database: str, *, timeout: float, uri: bool = False) -> "Connection":
    """Open a file; only statements begin transactions. timeout: seconds to wait for another writer."""
    raw = sqlite3.connect(
        database,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        uri=uri,
        cached_statements=256,
    )
    return Connection(raw)


class Connection:
    """An open file. Used by one task at a time; the pool sees to that."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._connection: sqlite3.Connection | None = raw
        self._executor: ThreadPoolExecutor | None = None
        self._commits_are_quick = True

    @property
    def raw(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError("no active connection")
        return self._connection

    @property
    def isolation_level(self) -> str | None:
        return self.raw.isolation_level

    def cursor(self) -> "Cursor":
        return Cursor(self)

    async def create_function(self, *arguments: Any, **options: Any) -> None:
        self.raw.create_function(*arguments, **options)

    async def begin_immediate(self) -> None:
        """Begin a transaction that may write, as soon as no other process does."""
        begin = "BEGIN IMMEDIATE"
        (patience_ms,) = self.raw.execute("PRAGMA busy_timeout").fetchone()
        self.raw.execute("PRAGMA busy_timeout = 0")
        try:
            self.raw.execute(begin)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
        finally:
            self.raw.execute(f"PRAGMA busy_timeout = {patience_ms}")
        await self.in_thread(lambda: self.raw.execute(begin))

    async def commit(self) -> None:
        began = time.perf_counter()
        if self._commits_are_quick:
            self.raw.commit()
        else:
            await self.in_thread(self.raw.commit)
        self._commits_are_quick = time.perf_counter() - began < _QUICK_COMMIT_SECONDS

    async def rollback(self) -> None:
        self.raw.rollback()

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run the work in a thread, to its end even if this task is cancelled."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        running = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # seen, or asyncio complains
            raise


class Cursor:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._raw = connection.raw.cursor()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()

    @property
    def description(self) -> Any:
        return self._raw.description

    @property
    def rowcount(self) -> int:
        return self._raw.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._raw.lastrowid

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        if statement == "BEGIN IMMEDIATE":
            await self._connection.begin_immediate()
        else:
            self._raw.execute(statement, parameters)
        return self

    async def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> Self:
        rows = list(rows)
        if len(rows) > _MANY_ROWS:
            await self._connection.in_thread(lambda: self._raw.executemany(statement, rows))
        else:
            self._raw.executemany(statement, rows)
        return self

    async def fetchall(self) -> list[Any]:
        return self._raw.fetchall()

    async def close(self) -> None:
        self._raw.close()
