"""Who may run the wallet of a PostgreSQL database, where several daemons may know its URL.

Two things together make the lease. The writing connection holds an advisory lock for as long as it lives,
so there is never more than one writer; PostgreSQL lets go of it when the process dies, and, since the
server's side of the connection sends keepalives, within `_DEAD_HOST_SECS` when the whole machine does. And a
counter in the database grows each time somebody takes the lock to open the wallet: a daemon that lost its
connection, and comes back to find another number, knows that somebody else ran the wallet meanwhile. What it
remembers is out of date then, and it never writes again (`TakenOver`).

SQLite files need none of this: their data directory is locked.
"""

import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from barkd_py.errors import StoreError
from barkd_py.wallet.store.tables import lease as t

log = logging.getLogger(__name__)

CHECK_SECS = 3.0
"""How often a daemon makes sure that the wallet is still its own."""

# Any constant will do; it names "the writer of a barkd-py wallet" within one database.
_LOCK = 0x6261726B64

# A tenth of a second each: the server takes a moment to notice that a killed daemon is gone.
_TRIES = 10

_KEEPALIVE = {"tcp_keepalives_idle": "4", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}
_DEAD_HOST_SECS = 10

SERVER_SETTINGS = {**_KEEPALIVE, "tcp_user_timeout": str(_DEAD_HOST_SECS * 1000)}
"""Of the writing connection; all of them are the server's, about its own side of the connection."""


class DatabaseInUse(StoreError):
    """Another process writes to this database."""

    def __init__(self) -> None:
        super().__init__("another process is already using this database")


class TakenOver(StoreError):
    """Another process has run the wallet since this one opened it. This one must open it anew."""

    def __init__(self) -> None:
        super().__init__("another process has taken this database over")


class Lease:
    """The claim of one open store."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._writer = writer
        self._reader = reader
        self._term: int | None = None
        self.is_lost = False
        sa.event.listen(writer.sync_engine, "connect", self._claim)

    def check(self) -> None:
        """Raises TakenOver if that is known."""
        if self.is_lost:
            raise TakenOver

    async def begin(self, connection: AsyncConnection) -> None:
        """A new term, in the transaction that opens the wallet."""
        taken = await connection.execute(sa.update(t).values(term=t.c.term + 1).returning(t.c.term))
        self._term = taken.scalar_one_or_none()
        if self._term is None:
            self._term = 1
            await connection.execute(sa.insert(t).values(id=1, term=1))

    async def verify(self) -> None:
        """Look whether the wallet is still ours, and take the lock again if it was let go.

        Raises TakenOver; or an error of the database, when nothing is known.
        """
        self.check()
        try:
            async with self._writer.connect() as connection:
                self._compare((await connection.execute(sa.select(t.c.term))).scalar_one())
        except DatabaseInUse:
            # Another daemon, or a connection of our own that the server does not know to be dead.
            async with self._reader.connect() as connection:
                self._compare((await connection.execute(sa.select(t.c.term))).scalar_one())

    def _compare(self, term: int) -> None:
        if term != self._term:
            self.is_lost = True
            raise TakenOver

    def _claim(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        """Each new writing connection takes the lock; and finds the term unchanged."""
        cursor = connection.cursor()
        for _ in range(_TRIES):
            cursor.execute(f"SELECT pg_try_advisory_lock({_LOCK})")
            if cursor.fetchone()[0]:
                break
            cursor.execute("SELECT pg_sleep(0.1)")
        else:
            raise DatabaseInUse
        if self._term is not None:
            cursor.execute("SELECT term FROM lease")
            self._compare(cursor.fetchone()[0])
        cursor.close()
        connection.rollback()  # ends the transaction that the driver opened; the lock belongs to the session
