"""The store and its unit of work.

    async with store.transaction() as tx:      # one at a time; commits at the end, rolls back on an error
        await tx.vtxos.lock(ids, holder)
        await tx.actions.save(...)

    async with store.read() as tx:             # any number at a time; one consistent moment; cannot write
        vtxos = await tx.vtxos.list()

A transaction is the unit in which a crash may happen: either all of it is stored, or nothing. So nothing in
it awaits anything but the store. Notifications that it causes are collected and go out after the commit.

A task that is cancelled is cancelled between two statements, never within one: SQLAlchemy gives up a
connection whose statement was cut off, and with SQLite such a connection takes the write lock along.

`Store.revision` grows with each commit. Whoever keeps an answer beside the revision at which it was read
knows when to ask again; this is what makes reads cheap (`cache`).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import StoreError
from barkd_py.wallet.notifications import WalletEvent
from barkd_py.wallet.store import engine, migrate
from barkd_py.wallet.store.actions import ActionRepository
from barkd_py.wallet.store.backups import BackupRepository
from barkd_py.wallet.store.balance import BalanceRepository
from barkd_py.wallet.store.exits import ExitRepository
from barkd_py.wallet.store.keys import KeyRepository
from barkd_py.wallet.store.lease import CHECK_SECS, Lease
from barkd_py.wallet.store.lightning import LightningRepository
from barkd_py.wallet.store.mailbox import MailboxRepository
from barkd_py.wallet.store.movements import MovementRepository
from barkd_py.wallet.store.onchain import OnchainRepository
from barkd_py.wallet.store.properties import PropertiesRepository
from barkd_py.wallet.store.recovery import RecoveryRepository
from barkd_py.wallet.store.rounds import RoundRepository
from barkd_py.wallet.store.tables import OUTLIVING, metadata, properties
from barkd_py.wallet.store.vtxos import VtxoRepository

log = logging.getLogger(__name__)

_T = TypeVar("_T")

Clock = Callable[[], datetime]
CommitListener = Callable[[Sequence[WalletEvent]], None]
VtxoListener = Callable[[Collection[VtxoId]], None]


class OpenStore(Protocol):
    """Opens a database by its URL or path."""

    def __call__(self, url: str, *, clock: Clock) -> Awaitable["Store"]: ...


def clock_of(now: Callable[[], float]) -> Clock:
    """The same clock. now: Unix seconds."""
    return lambda: datetime.fromtimestamp(now(), UTC)


system_clock = clock_of(time.time)


class Transaction:
    """The repositories, bound to one database transaction. All times within it are the same moment."""

    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self._now = now
        self.events: list[WalletEvent] = []
        self.changed_vtxos: set[VtxoId] = set()

    def emit(self, event: WalletEvent) -> None:
        """Publish the event if, and after, this transaction commits."""
        self.events.append(event)

    @cached_property
    def properties(self) -> PropertiesRepository:
        return PropertiesRepository(self._connection)

    @cached_property
    def vtxos(self) -> VtxoRepository:
        return VtxoRepository(self._connection, self._now, self.changed_vtxos.update)

    @cached_property
    def keys(self) -> KeyRepository:
        return KeyRepository(self._connection)

    @cached_property
    def movements(self) -> MovementRepository:
        return MovementRepository(self._connection, self._now, self.emit)

    @cached_property
    def actions(self) -> ActionRepository:
        return ActionRepository(self._connection, self._now)

    @cached_property
    def mailbox(self) -> MailboxRepository:
        return MailboxRepository(self._connection, self._now)

    @cached_property
    def recovery(self) -> RecoveryRepository:
        return RecoveryRepository(self._connection, self._now)

    @cached_property
    def rounds(self) -> RoundRepository:
        return RoundRepository(self._connection, self._now)

    @cached_property
    def lightning(self) -> LightningRepository:
        return LightningRepository(self._connection, self._now)

    @cached_property
    def exits(self) -> ExitRepository:
        return ExitRepository(self._connection)

    @cached_property
    def balance(self) -> BalanceRepository:
        return BalanceRepository(self._connection)

    @cached_property
    def backups(self) -> BackupRepository:
        return BackupRepository(self._connection)

    @cached_property
    def onchain(self) -> OnchainRepository:
        return OnchainRepository(self._connection)


class Store:
    """An open database. Use `Store.open`."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine, clock: Clock) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._write_lock = asyncio.Lock()
        self._writing_task: asyncio.Task[object] | None = None
        self._listeners: list[CommitListener] = []
        self._vtxo_listeners: list[VtxoListener] = []
        self._doubt_listeners: list[Callable[[], None]] = []
        self._revision = 0
        self._lease = None if writer.dialect.name == "sqlite" else Lease(writer, reader)
        self._lease_keeper: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str | URL, *, clock: Clock = system_clock, make: bool = True) -> "Store":
        """Open a database, make it if it does not exist, and bring it to the newest schema.

        url: ``postgresql://…``, ``sqlite:///path``, or the path of a SQLite file.
        make: False makes none; a database without a wallet's tables is then DatabaseEmpty.
        Raises StoreError; SchemaTooNew and DatabaseInUse among others. Nothing was changed then.
        """
        parsed = engine.parse_url(url) if isinstance(url, str) else url
        if make:
            engine.create_file(parsed)
        elif engine.is_missing_file(parsed):
            raise migrate.DatabaseEmpty
        store = cls(engine.create_writer(parsed), engine.create_reader(parsed), clock)
        try:
            with _translated():
                await migrate.migrate(store._writer, make=make)
                if store._lease is not None:
                    async with store._writer.begin() as connection:
                        await store._lease.begin(connection)
                    keeping = store._keep_lease(store._lease)
                    store._lease_keeper = asyncio.create_task(keeping, name="lease of the database")
        except BaseException:
            await store.close()
            raise
        return store

    @classmethod
    async def open_existing(cls, url: str, *, clock: Clock = system_clock) -> "Store":
        """Open a database that is there; see `open`. Raises DatabaseEmpty, StoreError."""
        return await cls.open(url, clock=clock, make=False)

    @staticmethod
    async def probe(url: str) -> None:
        """Look whether a database can be reached; nothing is changed. Raises StoreError."""
        parsed = engine.parse_url(url)
        if engine.is_missing_file(parsed):
            return
        writer = engine.create_writer(parsed)
        try:
            with _translated():
                async with writer.connect():
                    pass
        finally:
            await writer.dispose()

    @staticmethod
    async def peek(url: str) -> str | None:
        """The fingerprint of the wallet that a database holds, whoever runs it; None if it holds none.

        Nothing is changed. Raises StoreError.
        """
        parsed = engine.parse_url(url)
        if engine.is_missing_file(parsed):
            return None
        reader = engine.create_reader(parsed)
        try:
            with _translated():
                async with reader.connect() as connection:
                    if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table("properties")):
                        return None
                    found = await connection.execute(sa.select(properties.c.fingerprint))
                    return found.scalar_one_or_none()
        finally:
            await reader.dispose()

    async def erase(self) -> None:
        """Delete every row; what is left is an empty wallet database. Dangerous: coins are lost with it."""
        async with self.transaction() as tx:
            for table in reversed(metadata.sorted_tables):
                if table in OUTLIVING:
                    continue
                await tx._connection.execute(table.delete())

    async def close(self) -> None:
        """Close every connection, after the transaction in hand."""
        if self._lease_keeper is not None:
            self._lease_keeper.cancel()
            await asyncio.gather(self._lease_keeper, return_exceptions=True)
        async with self._write_lock:
            await self._reader.dispose()
            await self._writer.dispose()

    async def until_taken_over(self) -> None:
        """Return when another process has taken the database over; with SQLite that never happens."""
        if self._lease is None:
            await asyncio.Event().wait()
        else:
            await self._lease.lost.wait()

    async def _keep_lease(self, lease: Lease) -> None:
        """Say every few seconds that somebody is here, and hear whether somebody else was."""
        while not lease.lost.is_set():
            await asyncio.sleep(CHECK_SECS)
            try:
                async with self._write_lock:
                    with _translated():
                        await _uninterrupted(lease.verify())
            except StoreError as error:
                log.warning("the lease of the database: %s", error)
            except Exception:  # whatever it is: who falls silent is taken for dead
                log.exception("the lease of the database could not be looked at")

    @property
    def revision(self) -> int:
        """Grows with each commit. What was read at an equal revision is still true."""
        return self._revision

    def on_commit(self, listener: CommitListener) -> Callable[[], None]:
        """Call the listener after each commit with the transaction's events, possibly none.

        It must neither block nor raise. Returns the function that ends this.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A unit of work, the only one that writes at this time.

        Commits when the block ends; an exception in it, cancellation included, leaves the database as it was.
        Do not await anything but the transaction inside, nor start another one.
        """
        task = asyncio.current_task()
        if task is not None and task is self._writing_task:
            raise RuntimeError("this task is inside a store transaction already")
        async with self._write_lock:
            if self._lease is not None:
                self._lease.check()
            self._writing_task = task
            try:
                with _translated():
                    async with _unit(self._writer) as (connection, unit):
                        tx = Transaction(_steady(connection), self._clock())
                        yield tx
                        await _uninterrupted(self._commit(connection, unit, tx))
            finally:
                self._writing_task = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A consistent view of one moment. Writing through it fails."""
        with _translated():
            async with _unit(self._reader) as (connection, _):
                yield Transaction(_steady(connection), self._clock())

    def on_vtxos_changed(self, listener: VtxoListener) -> Callable[[], None]:
        """Call the listener after each commit that stored, changed or removed VTXOs, before `on_commit`'s.

        It must neither block nor raise. Returns the function that ends this.
        """
        self._vtxo_listeners.append(listener)
        return lambda: self._vtxo_listeners.remove(listener)

    def on_doubt(self, listener: Callable[[], None]) -> None:
        """Call the listener when a commit has failed: whether it is in the database, only reading it tells.

        It must neither block nor raise.
        """
        self._doubt_listeners.append(listener)

    async def _commit(self, connection: AsyncConnection, unit: AsyncTransaction, tx: Transaction) -> None:
        try:
            await unit.commit()
        except DBAPIError:
            # With its connection, the answer "done" may have been lost.
            for doubt_listener in tuple(self._doubt_listeners):
                doubt_listener()
            # A commit that SQLite refuses leaves the transaction open, which SQLAlchemy does not know.
            await connection.run_sync(lambda sync: sync.connection.rollback())
            raise
        finally:
            self._revision += 1
        if tx.changed_vtxos:
            for vtxo_listener in tuple(self._vtxo_listeners):
                _tell(vtxo_listener, frozenset(tx.changed_vtxos))
        for listener in tuple(self._listeners):
            _tell(listener, tx.events)


def _tell(listener: Callable[[_T], None], news: _T) -> None:
    try:
        listener(news)
    except Exception:
        log.exception("a listener failed after a commit")


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the database, as ours. The driver's text names no values."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(f"database error: {cause}") from None
    except OSError as error:
        raise StoreError(f"cannot reach the database: {error}") from None


class _Steady(AsyncConnection):
    """A view of a connection, for the repositories: every statement runs to its end."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection.engine, connection.sync_connection)
        self._steadied = connection

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        return await _uninterrupted(self._steadied.execute(*args, **kwargs))


def _steady(connection: AsyncConnection) -> AsyncConnection:
    """A connection whose statements run to their end; those of SQLite do so by themselves."""
    return connection if connection.dialect.name == "sqlite" else _Steady(connection)


@asynccontextmanager
async def _unit(engine: AsyncEngine) -> AsyncIterator[tuple[AsyncConnection, AsyncTransaction]]:
    """A connection in a transaction; what is not committed is rolled back."""
    connection = engine.connect()

    async def begin() -> AsyncTransaction:
        await connection.start()
        return await connection.begin()

    try:
        unit = await _uninterrupted(begin())
        yield connection, unit
    finally:
        if connection.sync_connection is not None:
            await _uninterrupted(connection.close())


async def _uninterrupted(work: Coroutine[Any, Any, _T]) -> _T:
    """Await the work to its end even if this task is cancelled, then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error from None
        raise
