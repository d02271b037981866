"""Who may run the wallet of a PostgreSQL database, where several daemons may know its URL.

Two things together make the lease. The writing connection holds an advisory lock for as long as it lives,
so there is never more than one writer; PostgreSQL lets go of it when the process dies, and, since the
server's side of the connection sends keepalives, within `SILENT_SECS` when the whole machine does. And a
counter in the database grows each time somebody takes the lock to open the wallet: a daemon that lost its
connection, and comes back to find another number, knows that somebody else ran the wallet meanwhile. What it
remembers is out of date then, and it never writes again (`TakenOver`).

A connection may live on while nobody is at its other end: the process was stopped, its virtual machine is
frozen, or something between them keeps the connection and carries nothing. So who runs the wallet says
something every `CHECK_SECS`; and who wants to open it ends the session of a holder that PostgreSQL has been
waiting for longer than `SILENT_SECS`. That is safe even if the holder is only slow: the lock's session is the
one that writes, and whatever wakes up without it finds the other number.

SQLite files need none of this: a daemon locks its data directory, and a file that is elsewhere.
"""

import asyncio
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

SILENT_SECS = 10
"""Three checks are missing by then; with a second to notice, the wallet is elsewhere within 15 seconds."""

_KEEPALIVE = {"tcp_keepalives_idle": "4", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}

SERVER_SETTINGS = {**_KEEPALIVE, "tcp_user_timeout": str(SILENT_SECS * 1000)}
"""Of the writing connection; all of them are the server's, about its own side of the connection."""

# A session waits for "Client" between statements, and when it cannot get rid of an answer. Of another role's
# sessions PostgreSQL tells nothing, so those are left alone.
_END_A_SILENT_HOLDER = f"""
    SELECT pg_terminate_backend(holder.pid)
    FROM pg_locks AS held JOIN pg_stat_activity AS holder USING (pid)
    WHERE held.locktype = 'advisory' AND held.granted AND holder.datname = current_database()
      AND held.database = holder.datid AND held.objsubid = 1
      AND held.classid = {_LOCK >> 32} AND held.objid = {_LOCK & 0xFFFFFFFF}
      AND holder.wait_event_type = 'Client'
      AND holder.state_change < clock_timestamp() - interval '{SILENT_SECS} seconds'
"""  # noqa: S608, numbers of ours


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
        self.lost = asyncio.Event()
        sa.event.listen(writer.sync_engine, "connect", self._claim)

    def check(self) -> None:
        """Raises TakenOver if that is known."""
        if self.lost.is_set():
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
            await self._compare_by(self._writer)
        except DatabaseInUse:
            # Another daemon, or a connection of our own that the server does not know to be dead.
            await self._compare_by(self._reader)

    async def _compare_by(self, engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            self._compare((await connection.execute(sa.select(t.c.term))).scalar_one())

    def _compare(self, term: int) -> None:
        if term != self._term:
            self.lost.set()
            raise TakenOver

    def _claim(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        """Each new writing connection takes the lock; and finds the term unchanged."""
        cursor = connection.cursor()
        is_opening = self._term is None
        if not _takes_lock(cursor) and not (is_opening and _ends_silent(cursor) and _takes_lock(cursor)):
            raise DatabaseInUse
        if self._term is not None:
            cursor.execute("SELECT term FROM lease")
            self._compare(cursor.fetchone()[0])
        cursor.close()
        connection.rollback()  # ends the transaction that the driver opened; the lock belongs to the session


def _takes_lock(cursor: Any) -> bool:
    for _ in range(_TRIES):
        cursor.execute(f"SELECT pg_try_advisory_lock({_LOCK})")
        if cursor.fetchone()[0]:
            return True
        cursor.execute("SELECT pg_sleep(0.1)")
    return False


def _ends_silent(cursor: Any) -> bool:
    """End the session of a holder that says nothing any more; whether there is one."""
    cursor.execute(_END_A_SILENT_HOLDER)
    found = bool(cursor.fetchall())
    if found:
        log.warning(
            "the process that used this database has been silent for %d s: it is cut off", SILENT_SECS
        )
    return found
