"""The data directory: which files it holds, with which modes, and who may use it.

Two locks guard it. `barkd.lock` (flock) is held for the life of a daemon process. `LOCK` (fcntl) is held
while a wallet is open, by whichever program opened it. The real barkd takes the same locks on the same files
with the same primitives, so the two programs exclude each other. An fcntl lock belongs to the process and is
dropped as soon as *any* descriptor of the file is closed: nothing but `WalletLock` may open that file.

Secrets are written to a fresh file of mode 0600 that then replaces the old one, so a reader never sees half
a file and a symbolic link is never followed.

Source: protocol sheet 07 §9.6.
"""

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Final, Self

from barkd_py.errors import BarkdError, chain_text

log = logging.getLogger(__name__)

AUTH_TOKEN_FILE: Final = "auth_token"  # noqa: S105 (a file name)
BACKUPS_FILE: Final = "backups"
CONFIG_FILE: Final = "config.toml"
CREATION_FILE: Final = ".creation"
_CONFIG_EXISTED: Final = "config.toml existed"
_CREATION: Final = "creation"
_DELETION: Final = "deletion"
DATABASE_FILE: Final = "db.sqlite"
_BESIDE_DATABASE: Final = ("-wal", "-shm", "-journal")
DEBUG_LOG_FILE: Final = "debug.log"
MNEMONIC_FILE: Final = "mnemonic"
PROCESS_LOCK_FILE: Final = "barkd.lock"
WALLET_LOCK_FILE: Final = "LOCK"
_LOCK_SUFFIX: Final = ".lock"
_SCRATCH_PREFIX: Final = ".restore-"
_SCRATCH_SUFFIX: Final = ".scratch"
_SCRATCH: Final = re.compile(r"\.restore-[a-z0-9_]{8}\.scratch")

_MOVED_PREFIX: Final = f"{DATABASE_FILE}.moved-"
_SURVIVE_DELETE: Final = frozenset({PROCESS_LOCK_FILE, AUTH_TOKEN_FILE, BACKUPS_FILE})
_EXPECTED_WITHOUT_WALLET: Final = (
    CONFIG_FILE,
    DEBUG_LOG_FILE,
    "stdout.log",
    "stderr.log",
    WALLET_LOCK_FILE,
    AUTH_TOKEN_FILE,
    PROCESS_LOCK_FILE,
    BACKUPS_FILE,
)
_TEMP_NAME_TRIES: Final = 16


class DatadirError(BarkdError):
    """The data directory is not as it should be."""


class DatadirLocked(DatadirError):
    """Another process holds a lock on the data directory."""


class UnexpectedContents(DatadirError):
    """There are files that a directory without a wallet should not have."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"Datadir has unexpected contents: {path}")
        self.path = path


class FileFailure(DatadirError):
    """The operating system refused a file operation."""

    def __init__(self, error: OSError) -> None:
        super().__init__(os_error_text(error))


def os_error_text(error: OSError) -> str:
    """What went wrong, in the words that users of barkd know: `Permission denied (os error 13)`."""
    if error.errno is None:
        return str(error)
    return f"{os.strerror(error.errno)} (os error {error.errno})"


class Datadir:
    """One data directory. Making the object touches nothing.

    path: as the user named it; messages repeat it unchanged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / CONFIG_FILE
        self.mnemonic = path / MNEMONIC_FILE
        self.database = path / DATABASE_FILE
        self.auth_token = path / AUTH_TOKEN_FILE
        self.debug_log = path / DEBUG_LOG_FILE

    def prepare(self) -> bool:
        """Create the directory with mode 0700 if it is missing; True if it existed (its mode is kept)."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700)
        except FileExistsError as error:
            if self.path.is_dir():
                return True
            raise DatadirError(f"failed to create datadir {self.path}") from FileFailure(error)
        except OSError as error:
            raise DatadirError(f"failed to create datadir {self.path}") from FileFailure(error)
        self.path.chmod(0o700)  # whatever the umask made of it
        return False

    def check_contents(self, *, clean: bool) -> bool:
        """Make sure that only files from before a wallet are there; True if config.toml is one of them.

        clean: remove the others; raises DatadirLocked, and removes nothing, if somebody runs on a database
        in here. Otherwise raises UnexpectedContents and removes nothing. A lock that some daemon holds is
        nothing unexpected: without its file, a second one would get a lock of its own.
        """
        if clean:
            with self._only_user() as unused_locks:
                for entry in self._unexpected():
                    if entry in unused_locks or not _is_held_lock(entry):
                        _remove(entry)
        else:
            for entry in self._unexpected():
                if not _is_held_lock(entry):
                    raise UnexpectedContents(entry)
        return os.path.lexists(self.config)

    def _unexpected(self) -> list[Path]:
        return [
            entry
            for entry in self._entries()
            if entry.name != CONFIG_FILE and not _is_expected_without_wallet(entry.name)
        ]

    def check_only_user(self) -> None:
        """Raises DatadirLocked if a daemon of another data directory runs on a database in this one."""
        with self._only_user():
            pass

    @contextlib.contextmanager
    def _only_user(self) -> Iterator[frozenset[Path]]:
        """Nobody but this process runs on a database in the directory, or in one inside, nor begins to.

        Yields the locks that nobody had. The one of the directory itself is the caller's. Raises
        DatadirLocked, DatadirError.
        """
        taken: set[Path] = set()
        with contextlib.ExitStack() as held:
            for directory, _, names in os.walk(self.path):
                for path in (Path(directory, name) for name in names if name.endswith(_LOCK_SUFFIX)):
                    if path == self.path / PROCESS_LOCK_FILE or path.is_symlink() or not path.is_file():
                        continue
                    of = path.with_name(path.name.removesuffix(_LOCK_SUFFIX))
                    is_of_directory = path.name == PROCESS_LOCK_FILE
                    lock = ProcessLock(
                        path, f"datadir {path.parent}" if is_of_directory else f"database {of}"
                    )
                    if not lock.is_held_here():
                        held.callback(lock.acquire().release)
                        taken.add(path)
            yield frozenset(taken)

    def begin_creation(self, *, config_existed: bool, database: str, backup: str = "") -> None:
        """Note that what comes into the directory from now on is no wallet yet.

        config_existed: config.toml was there before, and stays if the creation comes to nothing. database:
        where the wallet's rows will be, by a name; empty for the directory's own. backup: which one is put
        back, by a name; empty if none is.
        """
        self._begin_change(_CONFIG_EXISTED if config_existed else _CREATION, database, backup)

    def begin_deletion(self, *, database: str) -> None:
        """Note that what is in the directory will soon be no wallet any more."""
        self._begin_change(_DELETION, database)

    def _begin_change(self, before: str, database: str, backup: str = "") -> None:
        write_private(self.path / CREATION_FILE, f"{before}\n{database}\n{backup}\n".encode())

    def changing_database(self) -> str:
        """Where the rows of the wallet are that was being made or deleted. Raises DatadirError."""
        return self._read_change()[1]

    def changing_backup(self) -> str:
        """Which backup was being put back; empty if none was. Raises DatadirError."""
        return self._read_change()[2] if self.is_changing() else ""

    def _read_change(self) -> tuple[str, str, str]:
        try:
            text = (self.path / CREATION_FILE).read_text(encoding="utf-8")
        except OSError as error:
            raise DatadirError("error accessing datadir") from FileFailure(error)
        except UnicodeDecodeError as error:
            raise DatadirError("error accessing datadir") from error
        before, database, backup, *_ = [*text.split("\n"), "", "", ""]
        return before, database, backup

    def is_changing(self) -> bool:
        """Whether something was begun that has come to no end: a creation, or a deletion."""
        return (self.path / CREATION_FILE).exists()

    def is_being_wiped(self) -> bool:
        """Whether `undo_change` removes everything: a deletion has come to no end. Raises DatadirError."""
        return self.is_changing() and self._read_change()[0] == _DELETION

    def may_be_deletion(self) -> bool:
        """Whether the note does not say what was begun, as those of earlier versions. Raises DatadirError."""
        return not self._read_change()[0]

    def is_own_name(self, file: Path) -> bool:
        """Whether this program would take a file of that name for one that it has made."""
        own = {*_EXPECTED_WITHOUT_WALLET, MNEMONIC_FILE, CREATION_FILE, DATABASE_FILE}
        names = own | {f"{DATABASE_FILE}{part}" for part in _BESIDE_DATABASE}
        is_own = file.name in names or file.name.startswith(_MOVED_PREFIX)
        return is_own and file.parent.resolve() == self.path.resolve()

    def contains(self, file: Path) -> bool:
        return file.resolve().is_relative_to(self.path.resolve())

    def undo_change(self, *, database_file: Path | None = None) -> None:
        """Remove what belongs to no wallet. A deletion is completed: it was to remove everything.

        Of a creation, or of a restore, goes only what it may have made: a backup that somebody has put here
        may be all that there is. database_file: what was to hold the wallet's rows, and holds none.
        """
        before, database, _ = self._read_change()
        if before == _DELETION:
            self.wipe_wallet()
            return
        made = [MNEMONIC_FILE, CREATION_FILE]
        if before != _CONFIG_EXISTED:
            made.append(CONFIG_FILE)
        if not database:
            made += [f"{DATABASE_FILE}{ending}" for ending in ("", *_BESIDE_DATABASE)]
        if database_file is not None:
            for part in (*_BESIDE_DATABASE, ""):
                _remove(database_file.with_name(f"{database_file.name}{part}"))
        for entry in self._entries():
            if entry.name in made or any(_is_temporary(entry.name, of) for of in made):
                _remove(entry)

    def end_change(self) -> None:
        """There is a wallet."""
        (self.path / CREATION_FILE).unlink(missing_ok=True)

    def wipe_wallet(self) -> None:
        """Remove everything but held locks and the token, so the daemon can go on without a wallet.

        Raises DatadirLocked, and removes nothing, if somebody else runs on a database in here.
        """
        with self._only_user() as unused_locks:
            for entry in self._entries():
                if entry.name not in _SURVIVE_DELETE and (entry in unused_locks or not _is_held_lock(entry)):
                    _remove(entry)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory inside, for its owner alone, for what is no wallet yet. The process lock is held."""
        try:
            made = tempfile.TemporaryDirectory(
                _SCRATCH_SUFFIX, _SCRATCH_PREFIX, self.path, ignore_cleanup_errors=True
            )
        except OSError as error:
            raise DatadirError(f"failed to write to {self.path}") from FileFailure(error)
        with made as path:
            yield Path(path)

    def remove_scratch(self) -> None:
        """Remove what is left of `scratch` of processes that were killed.

        The caller holds the process lock, as each of them did until its end: they are gone.
        """
        for entry in self._entries():
            if _SCRATCH.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
                log.warning("removing %s, which a killed restore has left", entry)
                try:
                    _remove(entry)
                except DatadirError as error:  # another user's, say; it is in nobody's way
                    log.warning("%s", chain_text(error))

    def remove_locks_unless_used(self) -> None:
        """Remove the files of the locks, which the caller holds, if there is nothing else."""
        if {entry.name for entry in self._entries()} <= {PROCESS_LOCK_FILE, WALLET_LOCK_FILE}:
            for name in (PROCESS_LOCK_FILE, WALLET_LOCK_FILE):
                (self.path / name).unlink(missing_ok=True)

    def remove_if_empty(self) -> None:
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def read_mnemonic(self) -> str:
        """The phrase, without the blanks around it. Raises DatadirError if there is no such file."""
        try:
            return self.mnemonic.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise DatadirError(f"failed to read mnemonic file at {self.mnemonic}") from FileFailure(error)
        except UnicodeDecodeError as error:
            raise DatadirError(f"failed to read mnemonic file at {self.mnemonic}") from error

    def write_mnemonic(self, phrase: str) -> None:
        """Create the mnemonic file, durably. Never replaces one: it may be all that is left of some money."""
        try:
            fd = os.open(self.mnemonic, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(phrase.encode())
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self.path)
        except OSError as error:
            raise DatadirError(f"failed to create {self.mnemonic}") from FileFailure(error)

    def loose_modes(self, *paths: Path, mode: int) -> Iterator[str]:
        """A warning for each of the paths that others may use; paths that do not exist are passed over."""
        for path in paths:
            try:
                actual = stat.S_IMODE(path.stat().st_mode)
            except OSError:
                continue
            if actual & 0o077:
                yield (
                    f"{path} is accessible by other users (mode {actual:o}); "
                    f"run `chmod {mode:o} {path}` to secure it"
                )

    def put_database_aside(self, now: datetime) -> Path | None:
        """Rename db.sqlite, which nobody has open, to `db.sqlite.moved-<date>`; None if there is none."""
        if not self.database.exists():
            return None
        name = f"{_MOVED_PREFIX}{now:%Y-%m-%d}"
        taken = {entry.name for entry in self._entries()}
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(2)))
        aside = self.path / next(free for free in names if free not in taken)
        self._rename(self.database, aside)
        return aside

    def take_database(self, file: Path) -> None:
        """The file is db.sqlite from now on: one that was put aside, or a new one."""
        self._rename(file, self.database)

    def databases_aside(self) -> list[Path]:
        """What `put_database_aside` has made of earlier databases, the newest last."""
        return [entry for entry in self._entries() if entry.name.startswith(_MOVED_PREFIX)]

    def _rename(self, old: Path, new: Path) -> None:
        try:
            old.rename(new)
            sync_directory(self.path)
        except OSError as error:
            raise DatadirError(f"failed to rename {old} to {new.name}") from FileFailure(error)

    def lock_process(self) -> "ProcessLock":
        return ProcessLock(self.path / PROCESS_LOCK_FILE, f"datadir {self.path}")

    def lock_database_elsewhere(self, database: Path) -> "ProcessLock | None":
        """The lock of a database file, None if that of this directory, which its daemon holds, will do.

        A file in a data directory is that directory's: whoever uses it takes `barkd.lock` there. Others have
        a lock beside them, for all daemons, also if the directory becomes a data directory later.
        """
        file = database.resolve()
        directory = file.parent
        beside = file.with_name(f"{file.name}{_LOCK_SUFFIX}")
        if file.name == DATABASE_FILE or not beside.exists():
            if directory == self.path.resolve():
                return None
            if file.name == DATABASE_FILE or any(
                (directory / name).exists() for name in (PROCESS_LOCK_FILE, MNEMONIC_FILE)
            ):
                return ProcessLock(directory / PROCESS_LOCK_FILE, f"database {database}")
        return ProcessLock(beside, f"database {database}")

    def lock_wallet(self) -> "WalletLock":
        return WalletLock(self.path)

    def _entries(self) -> list[Path]:
        """All files, the mnemonic first: without it there is no wallet, whatever else is left of one.

        The note of a creation is the last, so that a removal that is cut short is made up for.
        """
        places = {MNEMONIC_FILE: 0, CREATION_FILE: 2}
        try:
            return sorted(self.path.iterdir(), key=lambda entry: (places.get(entry.name, 1), entry))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DatadirError("error accessing datadir") from FileFailure(error)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably; only the owner may read it, at no time anybody else."""
    try:
        temporary, fd = _open_temporary(path)
    except OSError as error:
        raise DatadirError(f"failed to write {path}") from FileFailure(error)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DatadirError(f"failed to write {path}") from FileFailure(error)


class ProcessLock:
    """One daemon per data directory (`barkd.lock`), or per database file that is in none.

    Released when the process ends or at `release`. of: what it is of, for messages.
    """

    _held_here: ClassVar[set[Path]] = set()

    def __init__(self, path: Path, of: str) -> None:
        self._path = path
        self._of = of
        self._fd: int | None = None

    def acquire(self) -> Self:
        """Take the lock at once or raise DatadirLocked."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DatadirError(f"failed to open {self._path}") from FileFailure(error)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_pid(fd)
            os.close(fd)
            known = "" if holder is None else f" (pid {holder})"
            raise DatadirLocked(f"another barkd is already running on {self._of}{known}") from None
        except OSError as error:
            os.close(fd)
            raise DatadirError(f"failed to lock {self._path}") from FileFailure(error)
        _write_pid(fd)
        self._held_here.add(self._path.resolve())
        self._fd = fd
        return self

    def is_held_here(self) -> bool:
        """Whether this process has it, by this object or another one."""
        return self._path.resolve() in self._held_here

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two different files."""
        if self._fd is not None:
            self._held_here.discard(self._path.resolve())
            os.close(self._fd)
            self._fd = None


class WalletLock:
    """`LOCK`: one open wallet per data directory, across processes and within this one."""

    _held_here: ClassVar[set[Path]] = set()  # fcntl locks do not exclude the own process

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / WALLET_LOCK_FILE
        self._key = directory.resolve()
        self._fd: int | None = None

    def acquire(self) -> Self:
        """Take the lock at once or raise DatadirLocked."""
        if self._key in self._held_here:
            raise self._locked(os.getpid())
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DatadirError("failed to acquire datadir lock") from FileFailure(error)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read_pid(fd)
            os.close(fd)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise self._locked(holder) from None
            raise DatadirError("failed to acquire datadir lock") from FileFailure(error)
        _write_pid(fd)
        self._held_here.add(self._key)
        self._fd = fd
        return self

    def release(self) -> None:
        if self._fd is not None:
            self._held_here.discard(self._key)
            os.close(self._fd)
            self._fd = None

    def _locked(self, holder: int | None) -> DatadirLocked:
        known = "unknown" if holder is None else str(holder)
        return DatadirLocked(
            f"another process is already using datadir {self._directory} (holder PID: {known})"
        )


def _is_expected_without_wallet(name: str) -> bool:
    """One of the known files, or what an interrupted `write_private` of one left behind."""
    return name in _EXPECTED_WITHOUT_WALLET or any(
        _is_temporary(name, expected) for expected in _EXPECTED_WITHOUT_WALLET
    )


def _is_temporary(name: str, of: str) -> bool:
    return name.startswith(f".{of}.temp.") and name.endswith(".tmp")


def _is_held_lock(entry: Path) -> bool:
    """Whether it is the file of a `ProcessLock` that somebody has, maybe this process."""
    if not entry.name.endswith(_LOCK_SUFFIX) or entry.is_symlink() or not entry.is_file():
        return False
    try:
        fd = os.open(entry, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _remove(entry: Path) -> None:
    try:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    except OSError as error:
        raise DatadirError("error deleting datadir content") from FileFailure(error)


def _open_temporary(path: Path) -> tuple[Path, int]:
    """A new, empty sibling of `path` that nobody else has open."""
    nanos = time.time_ns()
    for attempt in range(_TEMP_NAME_TRIES):
        temporary = path.with_name(f".{path.name}.temp.{nanos}.{attempt}.tmp")
        with contextlib.suppress(FileExistsError):
            return temporary, os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def sync_directory(directory: Path) -> None:
    """Make the renames and creations in a directory survive a power failure."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _write_pid(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
