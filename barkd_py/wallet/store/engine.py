"""Connections: what SQLite and PostgreSQL must be told so that both behave alike.

One connection writes, a few read; a reader sees the state of one moment and never waits for a writer.

SQLite: WAL with ``synchronous=FULL`` (a commit survives a power cut), foreign keys on, and
``BEGIN IMMEDIATE`` for writers, so that a transaction that reads first and then writes cannot find that
somebody was faster. PostgreSQL: readers are REPEATABLE READ; a second daemon on the same database cannot
write, wherever it runs (`lease`).
"""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from barkd_py.errors import StoreError
from barkd_py.wallet.store import sqlite_driver
from barkd_py.wallet.store.lease import SERVER_SETTINGS

READERS = 4
BUSY_TIMEOUT_SECONDS = 30

_POSTGRES_PARAMETERS = frozenset({"host", "port", "user", "password", "database", "passfile", "ssl"})


def parse_url(text: str) -> URL:
    """A database URL with the driver that this package uses. A path without scheme is a SQLite file.

    Raises StoreError for anything but SQLite and PostgreSQL. The text may hold a password: it is in no error.
    """
    if "://" not in text:
        return URL.create("sqlite+aiosqlite", database=text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError, which quotes it
        raise StoreError("the database URL cannot be parsed") from None
    match url.get_backend_name():
        case "sqlite":
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres":
            return _for_asyncpg(url)
        case other:
            raise StoreError(f"unsupported database: {other} (use sqlite or postgresql)")


def name_of(text: str) -> str:
    """Which database a URL means: without password, driver and parameters. Raises StoreError."""
    url = parse_url(text)
    return URL.create(
        url.get_backend_name(), username=url.username, host=url.host, port=url.port, database=url.database
    ).render_as_string()


def _for_asyncpg(url: URL) -> URL:
    """With the parameters that asyncpg takes; what libpq calls sslmode, it calls ssl."""
    query = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
    if not query.keys() <= _POSTGRES_PARAMETERS:
        raise StoreError(
            f"the database URL has an unknown parameter (known: {', '.join(sorted(_POSTGRES_PARAMETERS))})"
        )
    return url.set(drivername="postgresql+asyncpg", query=query)


class LeftBeside(StoreError):
    """There is what SQLite kept beside a database, and the database itself is gone.

    SQLite would play a log into whichever file has that name next, and never notice that it is another one's.
    """

    def __init__(self, database: Path, files: Sequence[Path]) -> None:
        names = ", ".join(file.name for file in files)
        super().__init__(
            f"{database} is gone, and beside it is still what belongs to it, maybe with its last changes: "
            f"{names}; move that to where {database.name} is now, or away"
        )


_PARTS = ("-wal", "-shm", "-journal")
"""What SQLite puts beside a database: its log, the index of that, its journal."""


def is_part_of_database(file: Path) -> bool:
    """Whether SQLite would take a file of that name for its own, and overwrite it."""
    return any(
        file.name.endswith(part) and file.with_name(file.name.removesuffix(part)).exists()
        for part in _PARTS
        if file.name != part
    )


def require_alone(database: Path) -> None:
    """Before a file gets the name of a database that is not there. Raises LeftBeside."""
    files = [database.with_name(f"{database.name}{part}") for part in _PARTS]
    left = [file for file in files if file.exists()]
    if left and not database.exists():
        raise LeftBeside(database, left)


def create_file(url: URL) -> None:
    """Make the SQLite file, readable by its owner alone, which its WAL inherits. An existing file stays.

    Raises LeftBeside, StoreError.
    """
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return
    assert url.database is not None
    require_alone(Path(url.database))
    try:
        os.close(os.open(Path(url.database), os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(f"cannot open the database file {url.database}: {error.strerror}") from error


def is_missing_file(url: URL) -> bool:
    """Whether it is a SQLite file that nobody has made."""
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return is_file and not Path(url.database or "").exists()


def create_writer(url: URL) -> AsyncEngine:
    """An engine with a single connection, whose transactions may write."""
    if url.get_backend_name() == "sqlite":
        engine = _sqlite_engine(url, pool_size=1)
        sa.event.listen(engine.sync_engine, "connect", _configure_sqlite_writer)
        sa.event.listen(engine.sync_engine, "begin", _begin_immediate)
        return engine
    _require_postgres_driver()
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=1,
        max_overflow=0,
        connect_args={"server_settings": SERVER_SETTINGS},
    )


def create_reader(url: URL) -> AsyncEngine:
    """An engine whose transactions see one moment, and cannot write."""
    if url.get_backend_name() == "sqlite":
        engine = _sqlite_engine(url, pool_size=READERS)
        sa.event.listen(engine.sync_engine, "connect", _configure_sqlite_reader)
        sa.event.listen(engine.sync_engine, "begin", _begin_deferred)
        return engine
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=READERS,
        max_overflow=0,
        execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    )


def _sqlite_engine(url: URL, pool_size: int) -> AsyncEngine:
    database = url.database or ":memory:"
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=pool_size,
        max_overflow=0,
        async_creator=lambda: sqlite_driver.connect(database, timeout=BUSY_TIMEOUT_SECONDS),
    )


def _configure_sqlite_writer(connection: Any, entry: ConnectionPoolEntry) -> None:
    _run(connection, "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON")


def _configure_sqlite_reader(connection: Any, entry: ConnectionPoolEntry) -> None:
    _run(connection, "PRAGMA query_only=ON")


def _require_postgres_driver() -> None:
    if importlib.util.find_spec("asyncpg") is None:
        raise StoreError("PostgreSQL needs a driver that is not installed: the extra 'postgres' of barkd-py")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    """Straight to SQLite, which only takes a note of it: every read begins so."""
    driver: sqlite_driver.Connection | None = connection.connection.driver_connection
    assert driver is not None
    driver.raw.execute("BEGIN")


def _run(connection: Any, *statements: str) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()
