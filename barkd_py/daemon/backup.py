"""Backups of a whole wallet: made while the daemon runs, put back only if they are the newest state.

A backup is one file (`wallet.store.snapshot`): the database, config.toml, and what describes both. The words
are in it only if asked for: whoever has the words has the money, and they belong on paper. Whoever has the
file without them has preimages and keys of unfinished operations, the history, and whatever secrets
config.toml holds; so it is readable by its owner alone.

An old backup is a trap: what was received since is not in it. It is refused, loudly, if

* a newer backup was made, or was about to be there when its making was killed: backups are numbered. They
  are counted in the wallet's database, so that machines that share one count together; and a file beside the
  data directory, or in it if there is no writing beside it, has the last number too, since a SQLite file is
  lost with what a backup is made for. A higher number is of a later state: two that are made at once wait for
  each other, or one of them fails;
* the server or the chain say that the wallet has moved on (`wallet.recovery.freshness`), or cannot be asked.

Whoever has nothing newer puts it back all the same (`accept_stale`). In any case the wallet runs a recovery
before it does anything else, and so finds what it can of the time in between.
"""

import asyncio
import errno
import fcntl
import json
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import InvalidMnemonic, Seed, parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.config import load_config
from barkd_py.daemon import leftovers
from barkd_py.daemon.backend import Backend, is_elsewhere, lock_database
from barkd_py.datadir import (
    BACKUPS_FILE,
    Datadir,
    DatadirError,
    os_error_text,
    sync_directory,
    write_private,
)
from barkd_py.errors import BarkdError, KnownError, chain_text
from barkd_py.wallet.recovery.freshness import Staleness
from barkd_py.wallet.store import Store, engine, snapshot
from barkd_py.wallet.store.backups import BackupNumber, announced
from barkd_py.wallet.wallet import Wallet

log = logging.getLogger(__name__)

FORMAT = "1"

_UNSYNCED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})
"""What a directory answers that cannot be synced, on some network file systems, or may not be read."""

_PATIENCE_SECS = 600.0
"""How long a backup waits for another one; copying takes a while if the disk is slow."""

# What is written into a backup, by name.
_FORMAT, _MADE_AT, _NUMBER = "format", "made_at", "number"
_FINGERPRINT, _NETWORK, _CONFIG, _MNEMONIC = "fingerprint", "network", "config", "mnemonic"


class BackupError(BarkdError):
    """A backup cannot be made, or not be put back."""


class StaleBackup(BackupError):
    """It is not the newest state of the wallet."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"THIS BACKUP IS STALE: {reason}. Money that came in since may be lost if it is put back. "
            "Look for a newer backup, or for the wallet itself; if there is none, say --accept-stale"
        )


class UncheckedBackup(BackupError):
    """Nobody can tell whether it is stale; the cause says why."""

    def __init__(self) -> None:
        super().__init__(
            "refusing a backup that cannot be checked; make server and chain source reachable, or say "
            "--accept-stale"
        )


class NotNoted(BackupError):
    """It was made, and nobody will know that those before it are old; the cause says why."""

    def __init__(self, target: Path) -> None:
        super().__init__(
            f"the backup {target} is made, and whole, but could not be noted as the newest one: an older one "
            "may not be refused by its number"
        )


class AlreadyThere(BackupError):
    """An earlier restore, or move, came to its end, and nobody has noted of which backup."""

    def __init__(self) -> None:
        super().__init__(
            "the wallet is in this database already: start the daemon; to put a backup in its place, delete "
            "the wallet first"
        )


class InTheWay(BackupError):
    """It would go with what is left of the wallet that was there."""

    def __init__(self, source: Path) -> None:
        super().__init__(
            f"the deletion of the wallet in this directory was killed, and is completed first, with all that "
            f"is in the directory: move {source} out of it"
        )


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says of itself. number: they count up per wallet. mnemonic: if it was taken along."""

    fingerprint: str
    network: Network
    number: int
    made_at: str
    config: str
    mnemonic: str | None

    @property
    def name(self) -> str:
        """No other backup has it."""
        return f"{self.fingerprint} {self.number} {self.made_at}"

    @classmethod
    def read(cls, path: Path) -> "Backup":
        """Raises NotABackup, BackupError for one of a newer program."""
        facts = snapshot.read_description(path)
        if facts.get(_FORMAT) != FORMAT:
            raise BackupError(f"the backup has format {facts.get(_FORMAT)}, and this program knows {FORMAT}")
        try:
            return cls(
                facts[_FINGERPRINT],
                Network.from_bitcoin_name(facts[_NETWORK]),
                int(facts[_NUMBER]),
                facts[_MADE_AT],
                facts[_CONFIG],
                facts.get(_MNEMONIC),
            )
        except (KeyError, ValueError) as error:
            raise snapshot.NotABackup("its description is incomplete") from error


# --- the numbers


class BackupNumbers:
    """The file of this machine that knows the number of the newest backup of each wallet.

    Beside the data directory it survives the loss of that; in a container nothing else can be written.
    """

    def __init__(self, datadir: Datadir) -> None:
        path = datadir.path.absolute()
        self.beside = path.with_name(f"{path.name}.backups")
        self.inside = path / BACKUPS_FILE

    def last(self, fingerprint: str) -> BackupNumber | None:
        """None: it knows of none. Raises DatadirError."""
        return _highest(_last_in(path, fingerprint) for path in (self.beside, self.inside))

    def last_readable(self, fingerprint: str) -> BackupNumber | None:
        """As `last`, without what cannot be read; for a new backup, which the database counts as well."""
        numbers = []
        for path in (self.beside, self.inside):
            try:
                numbers.append(_last_in(path, fingerprint))
            except DatadirError as error:
                log.warning("%s; making a backup without its numbers", chain_text(error))
        return _highest(numbers)

    def announce(self, fingerprint: str, coming: BackupNumber) -> None:
        """That this one is about to be there (`store.backups`). Raises DatadirError."""
        self._change(lambda known: known.update({announced(fingerprint, coming.number): coming}))

    def withdraw(self, fingerprint: str, number: int) -> None:
        """It is not there after all. Raises DatadirError."""
        for path in (self.inside, self.beside):
            if path.exists() and announced(fingerprint, number) in _numbers_in(path):
                _change_in(path, lambda known: known.pop(announced(fingerprint, number)))

    def note(self, fingerprint: str, newest: BackupNumber) -> None:
        """That this one is there. Raises DatadirError.

        A number that is lower than the one that is noted changes nothing: its backup was overtaken.
        """

        def note(known: dict[str, BackupNumber]) -> None:
            known[fingerprint] = _highest((known.get(fingerprint), newest)) or newest
            for name in [name for name in known if name.startswith(announced(fingerprint))]:
                if known[name].number <= newest.number:
                    del known[name]

        self._change(note)

    def _change(self, change: Callable[[dict[str, BackupNumber]], object]) -> None:
        try:
            _change_in(self.beside, change)
        except DatadirError as error:
            log.debug("%s; noting it in the data directory", chain_text(error))
            _change_in(self.inside, change)


def _highest(numbers: Iterable[BackupNumber | None]) -> BackupNumber | None:
    return max((each for each in numbers if each is not None), key=lambda each: each.number, default=None)


def _last_in(path: Path, fingerprint: str) -> BackupNumber | None:
    return _highest(
        number
        for name, number in _numbers_in(path).items()
        if name == fingerprint or name.startswith(announced(fingerprint))
    )


def _change_in(path: Path, change: Callable[[dict[str, BackupNumber]], object]) -> None:
    known = dict(_numbers_in(path))
    change(known)
    facts = {name: {"number": each.number, "made_at": each.made_at} for name, each in known.items()}
    write_private(path, json.dumps(facts, indent=2).encode() + b"\n")


def _numbers_in(path: Path) -> Mapping[str, BackupNumber]:
    try:
        found = json.loads(path.read_text())
        return {name: BackupNumber(int(each["number"]), str(each["made_at"])) for name, each in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DatadirError(f"failed to read {path}") from BarkdError(str(error))


@dataclass(frozen=True, slots=True)
class _Notes:
    """Where the number of one backup is noted: on this machine, and in a database that counts."""

    numbers: BackupNumbers
    database: str | None
    fingerprint: str

    async def announce(self, coming: BackupNumber) -> None:
        """Where that fails, the noting will too, and says so."""
        failures = await self._each(
            lambda: self.numbers.announce(self.fingerprint, coming),
            lambda database: snapshot.announce(database, self.fingerprint, coming),
        )
        for failure in failures:
            log.debug("%s", chain_text(failure))

    async def withdraw(self, number: int) -> None:
        """Where that fails, older backups are refused."""
        failures = await self._each(
            lambda: self.numbers.withdraw(self.fingerprint, number),
            lambda database: snapshot.withdraw(database, self.fingerprint, number),
        )
        for failure in failures:
            log.warning("%s; backups before number %d may be refused", chain_text(failure), number)

    async def note(self, made: BackupNumber) -> list[KnownError]:
        return await self._each(
            lambda: self.numbers.note(self.fingerprint, made),
            lambda database: snapshot.note(database, self.fingerprint, made),
        )

    async def _each(
        self, here: Callable[[], None], there: Callable[[str], Awaitable[None]]
    ) -> list[KnownError]:
        """What went wrong; one place does not keep the other from being written to."""
        failures: list[KnownError] = []
        try:
            here()
        except KnownError as error:
            failures.append(error)
        if self.database is not None:
            try:
                await there(self.database)
            except KnownError as error:
                failures.append(error)
        return failures


@asynccontextmanager
async def _one_at_a_time(datadir: Datadir) -> AsyncIterator[None]:
    """Those who make backups of a data directory wait for each other. Raises BackupError."""
    try:
        directory = os.open(datadir.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BackupError(f"failed to open {datadir.path}") from BarkdError(str(error))
    try:
        await _lock(directory, datadir.path)
        yield
    finally:
        os.close(directory)


async def _lock(directory: int, path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECS
    is_told = False
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BackupError(f"another backup of {path} has been under way for too long") from None
            if not is_told:
                log.info("waiting until another backup of %s is made", path)
                is_told = True
            await asyncio.sleep(0.1)
        except OSError as error:  # some network file systems lock no directories
            log.warning("%s cannot be locked: make no other backup meanwhile: %s", path, os_error_text(error))
            return
        else:
            return


# --- making one


async def make(
    datadir: Datadir, database_url: str | None, target: Path, *, now: datetime, with_mnemonic: bool
) -> Backup:
    """Write a backup of the wallet in a data directory. The daemon may be running.

    Its number is announced before it gets its name, and noted after that: whenever it is killed, no older one
    passes for the newest, unless it is surely that.
    Raises KnownError; then there is no file, an existing one is as it was, and the one before it is still the
    newest. Raises NotNoted; it is there.
    """
    words = datadir.read_mnemonic()
    fingerprint = _keys(parse_mnemonic(words)).fingerprint
    async with _one_at_a_time(datadir):
        try:
            _check_target(target, datadir)
            # In a directory of its own: what SQLite puts beside a file goes with it, whatever happens.
            with tempfile.TemporaryDirectory(
                ".tmp", f".{target.name}.", target.parent, ignore_cleanup_errors=True
            ) as scratch:
                unfinished = Path(scratch) / "backup"
                backup, is_counted = await _write(
                    unfinished, datadir, database_url, fingerprint, now, words if with_mnemonic else None
                )
                database = database_url or str(datadir.database)
                notes = _Notes(BackupNumbers(datadir), database if is_counted else None, fingerprint)
                try:
                    await notes.announce(_coming(backup, target))
                    _publish(unfinished, target)
                except (OSError, asyncio.CancelledError):
                    await notes.withdraw(backup.number)
                    raise
        except (OSError, sqlite3.Error) as error:
            raise BackupError(f"failed to write {target}") from BarkdError(str(error))
        if failures := await notes.note(BackupNumber(backup.number, backup.made_at)):
            raise NotNoted(target) from BarkdError("; ".join(map(chain_text, failures)))
        return backup


async def _write(
    unfinished: Path,
    datadir: Datadir,
    database_url: str | None,
    fingerprint: str,
    now: datetime,
    words: str | None,
) -> tuple[Backup, bool]:
    """All of a backup but its name; and whether the wallet's database has counted it.

    words: to be taken along. Raises KnownError, OSError, sqlite3.Error.
    """
    database = database_url or str(datadir.database)
    noted = BackupNumbers(datadir).last_readable(fingerprint)
    above = 0 if noted is None else noted.number
    made_at = now.isoformat(timespec="seconds")
    number = await snapshot.count(database, fingerprint, above=above, made_at=made_at)
    await snapshot.take(database, unfinished)
    if number is not None:
        await snapshot.check_counted_last(database, fingerprint, number)
    facts = {
        _FORMAT: FORMAT,
        _MADE_AT: made_at,
        _NUMBER: str(above + 1 if number is None else number),
        _CONFIG: _read_config(datadir),
        **await _identity(unfinished),
    }
    if facts[_FINGERPRINT] != fingerprint:
        raise BackupError("the database belongs to another mnemonic than the one in the data directory")
    if words is not None:
        facts[_MNEMONIC] = words
    snapshot.describe(unfinished, facts)
    return Backup.read(unfinished), number is not None


def _coming(backup: Backup, target: Path) -> BackupNumber:
    """What is said of it if nothing is heard of it any more."""
    where = os.fsencode(target.absolute()).decode("utf-8", "replace")
    return BackupNumber(
        backup.number, f"{backup.made_at}, and was about to be at {where} when it was interrupted: look there"
    )


def _publish(unfinished: Path, target: Path) -> None:
    """Give a file its name, durably, and never another file's. Raises OSError; then it has not got it."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        raise
    except OSError:  # FAT and exFAT know no links
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        try:
            unfinished.rename(target)  # over the file that nobody else has made
        except OSError:
            target.unlink()
            raise
    try:
        sync_directory(target.parent)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            target.unlink()
            raise
        log.warning(
            "%s is made; its directory cannot be synced to the disk: %s", target, os_error_text(error)
        )


def _check_target(target: Path, datadir: Datadir) -> None:
    """Nothing of that name, nor what SQLite would take for a part of it, nor it for a part of something.

    Raises BackupError, LeftBeside, OSError.
    """
    if os.path.lexists(target):
        raise BackupError(f"{target} exists already")
    engine.require_alone(target)
    is_number_file = target.parent.resolve() / target.name == BackupNumbers(datadir).beside
    if is_number_file or datadir.is_own_name(target) or engine.is_part_of_database(target):
        raise BackupError(f"{target} would be taken for something else: choose another name")


def _read_config(datadir: Datadir) -> str:
    return datadir.config.read_text() if datadir.config.exists() else ""


async def _identity(database: Path) -> Mapping[str, str]:
    store = await Store.open(str(database))
    try:
        async with store.read() as tx:
            properties = await tx.properties.find()
    finally:
        await store.close()
    if properties is None:
        raise snapshot.NoDatabase
    return {_FINGERPRINT: properties.fingerprint, _NETWORK: properties.network}


# --- putting one back


@dataclass(frozen=True, slots=True)
class Restored:
    """staleness: what has happened since; None if nobody could tell. warnings: what was passed over.

    aside: where the db.sqlite is now that the wallet was in before it moved to another database.
    """

    backup: Backup
    staleness: Staleness | None
    warnings: tuple[str, ...]
    aside: Path | None = None


async def restore(
    source: Path,
    datadir: Datadir,
    database_url: str | None,
    *,
    ask_mnemonic: Callable[[], str],
    accept_stale: bool,
    now: datetime,
    environment: Mapping[str, str] | None = None,
) -> Restored:
    """Put a backup back into a data directory without a wallet; no daemon runs on it.

    At another database the directory may have a db.sqlite: the wallet moves, and that file is put aside.
    ask_mnemonic: called if neither the directory nor the backup has the words.
    If it was killed when all was done but its last word, a repetition does no more than say that.
    Raises StaleBackup, UncheckedBackup, BarkdError; the directory is as it was then, or was not.
    """
    backup = Backup.read(source)
    with ExitStack() as held:
        existed = datadir.prepare()
        if not existed:
            held.callback(datadir.remove_if_empty)
        held.callback(datadir.lock_process().acquire().release)
        held.callback(datadir.lock_wallet().acquire().release)
        if not existed:
            held.callback(datadir.remove_locks_unless_used)
        if (lock := lock_database(database_url, datadir)) is not None:
            held.callback(lock.release)
        begun = datadir.changing_backup()
        if datadir.is_being_wiped() and datadir.contains(source):
            raise InTheWay(source)
        await leftovers.settle(datadir, Backend(database_url))
        if begun == backup.name and await Backend(database_url).holds_wallet(datadir.path):
            return Restored(backup, None, ())
        await _check_empty(datadir, database_url)
        seed = _seed(datadir, backup, ask_mnemonic)
        with datadir.scratch() as scratch:
            prepared = scratch / "db.sqlite"
            try:
                await snapshot.to_database_file(source, prepared)
                newest = await _newest(backup, datadir, database_url)
                restored = await _check_fresh(
                    backup,
                    prepared,
                    seed,
                    datadir,
                    newest,
                    accept_stale=accept_stale,
                    environment=environment,
                )
                await snapshot.let_it_recover(prepared, newest)
            except (OSError, sqlite3.Error) as error:
                raise BackupError(f"failed to write to {datadir.path}") from BarkdError(str(error))
            aside = await _put_back(prepared, datadir, database_url, backup, seed, now)
            return replace(restored, aside=aside)


async def _put_back(
    prepared: Path, datadir: Datadir, database_url: str | None, backup: Backup, seed: Seed, now: datetime
) -> Path | None:
    """All the files, the words before the rows (`leftovers`); returns where an earlier db.sqlite is now."""
    new = [file for file in (datadir.mnemonic, datadir.config) if not file.exists()]
    aside = None
    try:
        if datadir.mnemonic in new:
            datadir.begin_creation(
                config_existed=datadir.config not in new,
                database=Backend(database_url).database_name(datadir),
                backup=backup.name,
            )
            datadir.write_mnemonic(seed.words)
        if datadir.config in new:
            write_private(datadir.config, backup.config.encode())
        if database_url is not None:
            with _aside(datadir, database_url, now) as aside:
                await snapshot.to_database(prepared, database_url)
        else:
            datadir.take_database(prepared)
    except KnownError:
        if not await Backend(database_url).holds_wallet(datadir.path):  # else it was the answer that was lost
            for file in new:
                file.unlink(missing_ok=True)
        datadir.end_change()
        raise
    datadir.end_change()
    return aside


async def _check_empty(datadir: Datadir, database_url: str | None) -> None:
    """Raises BackupError, DatabaseNotEmpty, LeftBeside. An empty db.sqlite is in nobody's way."""
    elsewhere = database_url if is_elsewhere(database_url, datadir) else None
    if elsewhere is not None:
        if await Backend(elsewhere).holds_wallet(datadir.path):
            raise AlreadyThere
        if await Store.peek(elsewhere) is not None:
            raise snapshot.DatabaseNotEmpty
    moves = elsewhere is not None and datadir.mnemonic.exists()
    if snapshot.holds_wallet(datadir.database) and not moves:
        raise BackupError(
            f"{datadir.path} holds a wallet database: move the directory away, or delete the wallet, first"
        )
    if datadir.database.exists():
        _settle(datadir.database)
    elif elsewhere is None:
        engine.require_alone(datadir.database)


def _settle(database: Path) -> None:
    """Nothing of the database is in files beside it any more. Raises BackupError."""
    try:
        snapshot.make_whole(database)
    except sqlite3.Error as error:
        name = database.name
        raise BackupError(
            f"{database} is damaged or in use: move it away first, with {name}-wal, {name}-shm and "
            f"{name}-journal, if they are there"
        ) from BarkdError(str(error))


@contextmanager
def _aside(datadir: Datadir, database_url: str, now: datetime) -> Iterator[Path | None]:
    """While another database gets the wallet, and from then on, it is not in db.sqlite; unless that fails.

    First, because a kill in between must not leave two: with none, no start works, and this is done again.
    """
    aside = datadir.put_database_aside(now) if is_elsewhere(database_url, datadir) else None
    try:
        yield aside
    except BaseException:
        if aside is not None:
            datadir.take_database(aside)
        raise


def _seed(datadir: Datadir, backup: Backup, ask_mnemonic: Callable[[], str]) -> Seed:
    """The words of the wallet, from wherever they are. Raises BackupError."""
    if datadir.mnemonic.exists():
        words = datadir.read_mnemonic()
    else:
        words = backup.mnemonic if backup.mnemonic is not None else ask_mnemonic()
    try:
        seed = parse_mnemonic(words)
    except InvalidMnemonic as error:
        raise BackupError("Invalid mnemonic") from error
    if _keys(seed).fingerprint != backup.fingerprint:
        raise BackupError(
            f"the backup is of the wallet {backup.fingerprint}, and the mnemonic of {_keys(seed).fingerprint}"
        )
    return seed


async def _newest(backup: Backup, datadir: Datadir, database_url: str | None) -> BackupNumber:
    """The newest backup that is known of: to this one itself, this machine, or a database."""
    itself = BackupNumber(backup.number, backup.made_at)
    known = [
        itself,
        BackupNumbers(datadir).last(backup.fingerprint),
        # That of a wallet that moves; and where it moves to, or was before.
        await snapshot.last_number(str(datadir.database), backup.fingerprint),
        None if database_url is None else await snapshot.last_number(database_url, backup.fingerprint),
    ]
    return _highest(known) or itself


async def _check_fresh(
    backup: Backup,
    database: Path,
    seed: Seed,
    datadir: Datadir,
    newest: BackupNumber,
    *,
    accept_stale: bool,
    environment: Mapping[str, str] | None,
) -> Restored:
    """Raises StaleBackup, UncheckedBackup, unless whatever it is was accepted."""
    warnings: list[str] = []

    def object_(error: BackupError) -> None:
        if not accept_stale:
            raise error
        warnings.append(str(error).replace("; if there is none, say --accept-stale", ""))

    if newest.number > backup.number:
        made = f"number {newest.number} was made at {newest.made_at}"
        object_(StaleBackup(f"it is number {backup.number}, and {made}"))
    staleness: Staleness | None = None
    try:
        staleness = await _staleness(backup, database, seed, datadir, environment)
    except KnownError as error:
        unchecked = UncheckedBackup()
        unchecked.__cause__ = error
        object_(unchecked)
    if staleness is not None and staleness.is_stale:
        object_(StaleBackup(str(staleness)))
    return Restored(backup, staleness, tuple(warnings))


async def _staleness(
    backup: Backup, database: Path, seed: Seed, datadir: Datadir, environment: Mapping[str, str] | None
) -> Staleness:
    """Ask server and chain, with a copy: nothing of the backup is changed by looking."""
    scratch = database.with_name("look.sqlite")
    shutil.copyfile(database, scratch)
    config_file = datadir.config
    if not config_file.exists():
        config_file = database.with_name("config.toml")
        write_private(config_file, backup.config.encode())
    wallet = await Wallet.open(
        scratch, seed=seed, load_config=lambda network: load_config(config_file, network, environment)
    )
    try:
        return await wallet.look_for_staleness()
    finally:
        await wallet.close()


def _keys(seed: Seed) -> WalletKeys:
    return WalletKeys(seed)
