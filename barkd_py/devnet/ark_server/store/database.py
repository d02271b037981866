"""The server's database: one SQLite file, one thread, one transaction at a time.

What a transaction does is a plain function of a connection; it runs in the store's own thread, so that the
event loop never waits for the disk, and it is committed before `Store.transact` returns. An answer that gives
value away is made after that. An error rolls the transaction back.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Insert, MetaData, create_engine, event, inspect

from barkd_py.devnet.ark_server.failures import Failure, TxBodyError
from barkd_py.devnet.ark_server.store.tables import metadata

T = TypeVar("T")

DATABASE_FILE = "ark-server.sqlite"


class Store:
    """The database, open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ark-server-store")

    @classmethod
    async def open(cls, directory: Path, file: str = DATABASE_FILE, tables: MetaData = metadata) -> "Store":
        """Open the database in a directory; tables and columns are made if they are missing."""
        engine = create_engine(f"sqlite:///{directory / file}")
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin_immediate)
        store = cls(engine)
        await store._run(lambda: _create_missing(engine, tables))
        return store

    async def transact(self, body: Callable[[Connection], T]) -> T:
        """Run a function in a transaction and commit it. A `Failure` in it gets `TxBodyError` in front."""

        def run() -> T:
            try:
                with self._engine.begin() as connection:
                    return body(connection)
            except Failure as failure:
                raise TxBodyError from failure

        return await self._run(run)

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def close(self) -> None:
        await self._run(self._engine.dispose)
        self._thread.shutdown()


def inserted_id(connection: Connection, statement: Insert) -> int:
    """Insert one row; its number."""
    key = connection.execute(statement).inserted_primary_key
    assert key is not None
    return int(key[0])


def _create_missing(engine: Engine, tables: MetaData) -> None:
    tables.create_all(engine)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            known = {column["name"] for column in inspect(connection).get_columns(table.name)}
            for column in table.columns:
                if column.name not in known:
                    # Only columns that may be empty are ever added to a table that is in use.
                    kind = column.type.compile(engine.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")


def _configure(connection: Any, _record: object) -> None:
    # SQLAlchemy sends BEGIN itself (`_begin_immediate`), so the driver must not.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
