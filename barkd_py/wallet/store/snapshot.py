"""The whole database as one file, while a daemon writes to it; and back again.

The file is a SQLite database, whichever database the wallet is in: it holds the wallet's tables as they were
at one moment, and a table `backup` with what describes them. From SQLite it is made by SQLite's own online
backup, which holds one read transaction; from PostgreSQL the rows are read in one transaction (REPEATABLE
READ). So a wallet can move from one kind of database to the other by way of a backup.
"""

import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.errors import StoreError
from barkd_py.wallet.store import engine
from barkd_py.wallet.store.backups import BackupNumber, BackupRepository
from barkd_py.wallet.store.migrate import HEAD, version
from barkd_py.wallet.store.tables import OUTLIVING, last_backup, lease, metadata
from barkd_py.wallet.store.transaction import Store, Transaction

_T = TypeVar("_T")

_ROWS_AT_ONCE = 1000


class NoDatabase(StoreError):
    """There is nothing to back up."""

    def __init__(self) -> None:
        super().__init__("there is no wallet database")


class NotABackup(StoreError):
    """The file is no backup of a wallet, or is damaged."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a backup of a wallet, or damaged: {reason}")


class SchemaDiffers(StoreError):
    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database has schema version {found} and this program {HEAD}: "
            "start the daemon of this version once"
        )


class Overtaken(StoreError):
    """Its number would say that it is older than another one, and what is in it might be newer."""

    def __init__(self) -> None:
        super().__init__("another backup of the wallet was begun elsewhere at the same moment; make it again")


class DatabaseNotEmpty(StoreError):
    def __init__(self) -> None:
        super().__init__("the database holds a wallet already")


# --- their numbers


async def count(database: str, fingerprint: str, *, above: int, made_at: str) -> int | None:
    """Take the next number of a backup, in the database of the wallet. A daemon may be running on it.

    above: what is known of elsewhere. None: it is not counted there, since it is another wallet's database,
    or its schema another one. Raises NoDatabase, StoreError.
    """

    async def next_number(backups: BackupRepository) -> int | None:
        last = await backups.last(fingerprint)
        highest = above if last is None else max(above, last.number)
        return await backups.count(fingerprint, above=highest, made_at=made_at)

    return await _counting(database, next_number)


async def check_counted_last(database: str, fingerprint: str, number: int) -> None:
    """Nobody has taken a number since: what was copied meanwhile is older than all with a higher one.

    Raises Overtaken, NoDatabase, StoreError.
    """
    if await _counting(database, lambda backups: backups.taken(fingerprint)) != number:
        raise Overtaken


async def announce(database: str, fingerprint: str, coming: BackupNumber) -> None:
    """A backup is about to be where it belongs. Raises NoDatabase, StoreError."""
    await _counting(database, lambda backups: backups.announce(fingerprint, coming))


async def withdraw(database: str, fingerprint: str, number: int) -> None:
    """What was announced comes to nothing. Raises NoDatabase, StoreError."""
    await _counting(database, lambda backups: backups.withdraw(fingerprint, number))


async def note(database: str, fingerprint: str, made: BackupNumber) -> None:
    """A backup is where it belongs: those before it are old now. Raises NoDatabase, StoreError."""
    await _counting(database, lambda backups: backups.note(fingerprint, made))


async def _counting(database: str, work: Callable[[BackupRepository], Awaitable[_T]]) -> _T | None:
    """None, and nothing was done, in a database of another schema."""
    url = engine.parse_url(database)
    if engine.is_missing_file(url):
        raise NoDatabase
    writer = engine.create_writer(url)
    try:
        async with writer.begin() as connection:
            if await connection.run_sync(version) != HEAD:
                return None
            return await work(BackupRepository(connection))
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise StoreError(f"the backup cannot be counted: {type(error).__name__}") from None
    finally:
        await writer.dispose()


async def last_number(database: str, fingerprint: str) -> BackupNumber | None:
    """The newest backup of a wallet, as far as a database knows; nothing is changed. Raises StoreError."""
    url = engine.parse_url(database)
    if engine.is_missing_file(url):
        return None
    reader = engine.create_reader(url)
    try:
        async with reader.connect() as connection:
            if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table(last_backup.name)):
                return None
            return await BackupRepository(connection).last(fingerprint)
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise StoreError(f"the database cannot be read: {type(error).__name__}") from None
    finally:
        await reader.dispose()


# --- making one


async def take(database: str, target: Path) -> None:
    """Copy a database to a new file that only its owner can read; nothing else is changed.

    database: a path or URL. Raises NoDatabase, SchemaDiffers, StoreError.
    """
    _make_private(target)
    url = engine.parse_url(database)
    if url.get_backend_name() == "sqlite":
        _take_sqlite(Path(url.database or ""), target)
    else:
        await _take_rows(database, target)


def _uri(file: Path, mode: str) -> str:
    """Of a file whose name may have anything in it."""
    return f"{file.resolve().as_uri()}?mode={mode}"


def _make_private(file: Path) -> None:
    """A new file, empty, for its owner alone."""
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600))


def _take_sqlite(source: Path, target: Path) -> None:
    if not source.exists():
        raise NoDatabase
    try:
        # Writable, though nothing is written: readers of a WAL keep their place in it.
        with (
            closing(sqlite3.connect(_uri(source, "rw"), uri=True, timeout=30)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
    except sqlite3.Error as error:
        raise StoreError(f"the database cannot be copied: {error}") from None


async def _take_rows(database: str, target: Path) -> None:
    reader = engine.create_reader(engine.parse_url(database))
    try:
        async with reader.connect() as connection:
            await _require_this_schema(connection)
            copy = await Store.open(str(target))
            try:
                async with copy.transaction() as tx:
                    await _copy_rows(connection, tx._connection)
            finally:
                await copy.close()
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(f"the database cannot be copied: {type(error).__name__}") from None
    finally:
        await reader.dispose()


async def _require_this_schema(connection: AsyncConnection) -> None:
    found = await connection.run_sync(version)
    if found is None:
        raise NoDatabase
    if found != HEAD:
        raise SchemaDiffers(found)


async def _copy_rows(source: AsyncConnection, target: AsyncConnection) -> None:
    for table in metadata.sorted_tables:
        if table in OUTLIVING:
            continue
        rows = (await source.execute(sa.select(table))).all()
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            await target.execute(sa.insert(table), [dict(row._mapping) for row in some])


# --- describing and checking one


def describe(target: Path, facts: Mapping[str, str]) -> None:
    """Write what describes a snapshot into it."""
    with closing(sqlite3.connect(target)) as copy:
        copy.execute("CREATE TABLE backup (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        copy.executemany("INSERT INTO backup VALUES (?, ?)", facts.items())
        copy.commit()
    make_whole(target)


def make_whole(file: Path) -> None:
    """One file, without a log beside it, and on the disk."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
    with file.open("rb") as written:
        os.fsync(written.fileno())


def read_description(snapshot: Path) -> Mapping[str, str]:
    """What describes a backup. The file is checked as a whole. Raises NotABackup."""
    try:
        with closing(sqlite3.connect(_uri(snapshot, "ro"), uri=True)) as copy:
            (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise NotABackup("its integrity check fails")
            if not _has_table(copy, "backup") or not _has_table(copy, "properties"):
                raise NotABackup("it has no description")
            return dict(copy.execute("SELECT name, value FROM backup").fetchall())
    except sqlite3.Error as error:
        raise NotABackup(str(error)) from None


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(query, (name,)).fetchone() is not None


def holds_wallet(file: Path) -> bool:
    """Whether a SQLite file, if it exists, is more than an empty database; in doubt it is."""
    if not file.exists():
        return False
    try:
        with closing(sqlite3.connect(_uri(file, "rw"), uri=True, timeout=30)) as database:
            if _has_table(database, "properties"):
                return database.execute("SELECT 1 FROM properties").fetchone() is not None
            return database.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
    except sqlite3.Error:
        return True


# --- putting one back


async def to_database_file(snapshot: Path, target: Path) -> None:
    """Make a new SQLite database of a backup, of the newest schema. Raises StoreError."""
    _without_description(snapshot, target)
    await (await Store.open(str(target))).close()


def _without_description(snapshot: Path, target: Path) -> None:
    _make_private(target)
    try:
        with (
            closing(sqlite3.connect(_uri(snapshot, "ro"), uri=True)) as backup,
            closing(sqlite3.connect(target)) as copy,
        ):
            backup.backup(copy)
            copy.execute("DROP TABLE backup")
            copy.commit()
    except sqlite3.Error as error:  # the backup was looked through before: it is rather the disk
        raise StoreError(f"the backup cannot be copied to {target.parent}: {error}") from None


async def let_it_recover(file: Path, newest: BackupNumber) -> None:
    """Whatever happened since the backup is to be found out before anything is received or spent.

    newest: of the wallet's backups, as far as is known; the next ones are newer.
    """
    store = await Store.open(str(file))
    try:
        async with store.transaction() as tx:
            await tx.properties.set_recovery_pending(True)
            await tx.recovery.forget()
            await tx.backups.note((await tx.properties.get()).fingerprint, newest)
    finally:
        await store.close()
    make_whole(file)


async def to_database(file: Path, database: str) -> None:
    """Copy the wallet of a database file into an empty database. Raises DatabaseNotEmpty, StoreError."""
    store = await Store.open(database)
    try:
        async with store.read() as tx:
            if await tx.properties.find() is not None:
                raise DatabaseNotEmpty
        await store.erase()
        reader = engine.create_reader(engine.parse_url(str(file)))
        try:
            async with reader.connect() as source, store.transaction() as tx:
                await _copy_rows(source, tx._connection)
                await _copy_number(source, tx)
                if tx._connection.dialect.name == "postgresql":
                    await _move_sequences(tx._connection)
        finally:
            await reader.dispose()
    finally:
        await store.close()


async def _copy_number(source: AsyncConnection, target: Transaction) -> None:
    """Which stays as it is if it is higher."""
    fingerprint = (await target.properties.get()).fingerprint
    if (number := await BackupRepository(source).last(fingerprint)) is not None:
        await target.backups.note(fingerprint, number)


async def _move_sequences(connection: AsyncConnection) -> None:
    """New rows are numbered behind the copied ones."""
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None or table is lease:
            continue
        name = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
        highest = sa.select(sa.func.max(column)).scalar_subquery()
        await connection.execute(
            sa.select(sa.func.setval(sa.text(name), sa.func.coalesce(highest, 1), highest.is_not(None)))
        )
