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

from sqlalchemy import Connection, Engine, create_engine, event

from barkd_py.devnet.ark_server.failures import Failure, TxBodyError
from barkd_py.devnet.ark_server.tables import metadata

T = TypeVar("T")

DATABASE_FILE = "ark-server.sqlite"


class Store:
    """The database, open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ark-server-store")

    @classmethod
    async def open(cls, directory: Path) -> "Store":
        """Open the database in a directory; its tables are made if they are missing."""
        engine = create_engine(f"sqlite:///{directory / DATABASE_FILE}")
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin_immediate)
        store = cls(engine)
        await store._run(lambda: metadata.create_all(engine))
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


def _configure(connection: Any, _record: object) -> None:
    # SQLAlchemy sends BEGIN itself (`_begin_immediate`), so the driver must not.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
