"""A SQLite file that a URL names, and daemons with different data directories that know it."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from barkd_py.api.errors import status_of
from barkd_py.bitcoin.units import Network
from barkd_py.daemon import leftovers
from barkd_py.daemon.backend import Backend, lock_database
from barkd_py.daemon.errors import OthersInside
from barkd_py.daemon.new_wallet import CreateWallet, Esplora
from barkd_py.daemon.runtime import Runtime
from barkd_py.datadir import Datadir, DatadirError, DatadirLocked
from barkd_py.errors import chain_text
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.properties import WalletProperties
from tests.fakes.wallet import FakeBackend

WORDS = "abandon " * 11 + "about"
REQUEST = CreateWallet(
    Network.REGTEST, ark_server="http://127.0.0.1:3535", chain_source=Esplora("http://127.0.0.1:3000")
)


@pytest.fixture
def datadirs(tmp_path: Path) -> tuple[Datadir, Datadir]:
    for name in ("first", "second"):
        (tmp_path / name).mkdir(mode=0o700)
    return Datadir(tmp_path / "first"), Datadir(tmp_path / "second")


def test_a_file_is_one_daemons(tmp_path: Path, datadirs: tuple[Datadir, Datadir]) -> None:
    first, second = datadirs
    (tmp_path / "link").symlink_to(tmp_path)
    url, other_way = f"sqlite:///{tmp_path}/rows", f"sqlite:///{tmp_path}/link/rows"
    lock = lock_database(url, first)
    assert lock is not None
    with pytest.raises(DatadirLocked, match=rf"running on database .*/link/rows \(pid {os.getpid()}\)"):
        lock_database(other_way, second)
    lock.release()
    after = lock_database(other_way, second)
    assert after is not None
    after.release()
    with pytest.raises(DatadirError, match="failed to open"):
        lock_database(f"sqlite:///{tmp_path}/nowhere/rows", first)


def _exclude_each_other(url: str, first: Datadir, second: Datadir) -> None:
    """A daemon on the first, in which the file is, and one on the second."""
    own = first.lock_process().acquire()
    assert lock_database(url, first) is None  # it has it already
    with pytest.raises(DatadirLocked):
        lock_database(url, second)
    own.release()
    _second_keeps_first_out(url, first, second)


def _second_keeps_first_out(url: str, first: Datadir, second: Datadir) -> None:
    lock = lock_database(url, second)
    assert lock is not None
    with pytest.raises(DatadirLocked):
        first.lock_process().acquire()
    lock.release()


def test_the_file_of_another_data_directory_is_that_ones(datadirs: tuple[Datadir, Datadir]) -> None:
    first, second = datadirs
    url = f"sqlite:///{first.database}"
    _exclude_each_other(url, first, second)


def test_a_file_in_a_data_directory_is_that_ones_whatever_it_is_called(
    datadirs: tuple[Datadir, Datadir],
) -> None:
    first, second = datadirs
    url = f"sqlite:///{first.path}/wallet.sqlite"
    _exclude_each_other(url, first, second)
    assert [path.name for path in first.path.iterdir()] == ["barkd.lock"]
    (first.path / "barkd.lock").unlink()  # as in a copy of the directory, which no daemon was started on yet
    first.write_mnemonic("words")
    _second_keeps_first_out(url, first, second)


def test_a_directory_that_becomes_a_data_directory_later_minds_the_lock_that_is_there(
    datadirs: tuple[Datadir, Datadir],
) -> None:
    first, second = datadirs
    url = f"sqlite:///{first.path}/wallet.sqlite"
    lock = lock_database(url, second)
    assert lock is not None
    own = first.lock_process().acquire()
    with pytest.raises(DatadirLocked):
        lock_database(url, first)
    lock.release()
    lock = lock_database(url, first)
    assert lock is not None
    first.check_contents(clean=False)  # it is in no wallet's way
    with pytest.raises(DatadirLocked):
        lock_database(url, second)
    lock.release()
    own.release()


@pytest.mark.parametrize("remove", ["a wipe", "a forced creation", "a completed deletion"])
def test_nobody_removes_the_file_of_a_lock_that_is_held(
    datadirs: tuple[Datadir, Datadir], remove: str
) -> None:
    first, second = datadirs
    url = f"sqlite:///{first.path}/wallet.sqlite"
    lock = lock_database(url, second)
    assert lock is not None
    (first.path / "other.lock").touch()
    if remove == "a wipe":
        first.wipe_wallet()
    elif remove == "a forced creation":
        first.check_contents(clean=True)
    else:
        first.begin_deletion(database="")
        first.undo_change()
    assert [path.name for path in first.path.iterdir()] == ["wallet.sqlite.lock"]
    with pytest.raises(DatadirLocked):
        lock_database(url, first)
    lock.release()


@pytest.mark.parametrize("force", [False, True])
async def test_wallets_come_and_go_in_a_directory_whose_lock_is_held(
    datadirs: tuple[Datadir, Datadir], force: bool
) -> None:
    """The database is a file in the directory; for the second one, it was somebody's before."""
    for datadir in datadirs:
        url = f"sqlite:///{datadir.path}/wallet.sqlite"
        if datadir is datadirs[1]:
            before = lock_database(url, datadirs[0])
            assert before is not None
            before.release()
        own = datadir.lock_process().acquire()
        lock = lock_database(url, datadir)
        runtime = Runtime(datadir, FakeBackend(), environment={})
        for _ in range(2):
            fingerprint = await runtime.create(replace(REQUEST, force=force))
            assert (await runtime.delete(fingerprint, dangerous=True)).deleted
        await runtime.close()
        with pytest.raises(DatadirLocked):
            lock_database(url, Datadir(datadir.path.parent / "third"))
        if lock is not None:
            lock.release()
        own.release()


_HOLD = """
import sys
from pathlib import Path
from barkd_py.daemon.backend import lock_database
from barkd_py.datadir import Datadir
lock = lock_database(sys.argv[1], Datadir(Path(sys.argv[2])))
print("held" if lock else "nothing to hold", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_daemon(url: str, datadir: Datadir) -> Iterator[int]:
    """Has a database as long as the block lasts; its pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, url, str(datadir.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid  # leaving the block closes its standard input


def _contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "LOCK"
    }


@pytest.mark.parametrize("remove", ["a forced creation", "a deletion", "a deletion of what is loaded"])
@pytest.mark.parametrize("where", ["wallet.sqlite", "deeper/wallet.sqlite", "deeper/db.sqlite"])
async def test_nobody_removes_the_database_of_another_daemon(
    datadirs: tuple[Datadir, Datadir], where: str, remove: str
) -> None:
    """It was there before the directory became a data directory, or is in another one inside."""
    first, second = datadirs
    database = first.path / where
    database.parent.mkdir(exist_ok=True)
    with another_daemon(f"sqlite:///{database}", second) as pid:
        own = first.lock_process().acquire()
        runtime = Runtime(first, FakeBackend(), environment={})
        fingerprint = "any"
        if remove == "a deletion of what is loaded":
            if database.parent != first.path:
                database.parent.rename(second.path / "deeper")  # else it would be in the creation's way
            fingerprint = await runtime.create(REQUEST)
            if database.parent != first.path:
                (second.path / "deeper").rename(database.parent)
        database.write_bytes(b"somebody's wallet")
        database.with_name(f"{database.name}-wal").write_bytes(b"and its log")
        before = _contents(first.path)

        async def remove_all() -> None:
            if remove == "a forced creation":
                await runtime.create(replace(REQUEST, force=True))
            else:
                await runtime.delete(fingerprint, dangerous=True)

        with pytest.raises(OthersInside) as refused:
            await remove_all()
        assert chain_text(refused.value).endswith(f" (pid {pid})")
        assert status_of(refused.value) == 400
        assert _contents(first.path) == before
        assert (runtime.fingerprint is not None) is (remove == "a deletion of what is loaded")
    # It has ended: whoever says so again means it.
    await remove_all()
    assert not database.exists()
    assert not database.with_name(f"{database.name}.lock").exists()
    await runtime.close()
    own.release()


@pytest.mark.parametrize("remove", ["a wipe", "a forced creation", "a completed deletion"])
def test_what_removes_a_database_looks_itself_whose_it_is(
    datadirs: tuple[Datadir, Datadir], remove: str
) -> None:
    first, second = datadirs
    database = first.path / "wallet.sqlite"
    database.write_bytes(b"somebody's wallet")
    with another_daemon(f"sqlite:///{database}", second):
        first.begin_deletion(database="")
        how: dict[str, Callable[[], object]] = {
            "a wipe": first.wipe_wallet,
            "a forced creation": lambda: first.check_contents(clean=True),
            "a completed deletion": first.undo_change,
        }
        with pytest.raises(DatadirLocked, match=r"running on database .*wallet\.sqlite \(pid"):
            how[remove]()
        assert database.read_bytes() == b"somebody's wallet"


async def begin_creation(url: str, datadir: Datadir, *, holds: str = "nothing") -> None:
    """A kill comes before its end, just before its row, or before its tables."""
    backend = Backend(url)
    datadir.begin_creation(config_existed=False, database=backend.database_name(datadir))
    store = await Store.open(url)
    if holds == "a wallet":
        async with store.transaction() as tx:
            await tx.properties.create(WalletProperties("regtest", "01234567"))
    await store.close()


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("name", ["wallet.sqlite", "two words?timeout=5", "link"])
async def test_what_a_killed_creation_has_made_in_the_directory_is_in_no_wallets_way(
    datadirs: tuple[Datadir, Datadir], name: str, words: bool
) -> None:
    datadir = datadirs[0]
    if name == "link":
        (datadir.path.parent / "link").symlink_to(datadir.path)
        name = "../link/wallet.sqlite"
    url = f"sqlite:///{datadir.path}/{name}"
    await begin_creation(url, datadir)
    if words:
        datadir.write_mnemonic(WORDS)
    assert any(".sqlite" in path.name or " " in path.name for path in datadir.path.iterdir())
    await leftovers.settle(datadir, Backend(url))
    assert list(datadir.path.iterdir()) == []


async def test_what_sqlite_keeps_beside_it_goes_too(datadirs: tuple[Datadir, Datadir]) -> None:
    datadir = datadirs[0]
    url = f"sqlite:///{datadir.path}/wallet.sqlite"
    await begin_creation(url, datadir)
    with closing(sqlite3.connect(file_of(url))) as reader:  # keeps them there
        reader.execute("SELECT * FROM properties").fetchall()
        assert len(list(datadir.path.iterdir())) > 2
        await leftovers.settle(datadir, Backend(url))
        assert list(datadir.path.iterdir()) == []


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("holds", ["a wallet", "other tables", "damage"])
async def test_a_file_stays_that_may_be_somebodys(
    datadirs: tuple[Datadir, Datadir], holds: str, words: bool
) -> None:
    datadir = datadirs[0]
    url = f"sqlite:///{datadir.path}/wallet.sqlite"
    await begin_creation(url, datadir, holds=holds)
    if holds == "other tables":
        file_of(url).unlink()
        with closing(sqlite3.connect(file_of(url))) as other:
            other.execute("CREATE TABLE something (a)")
    elif holds == "damage":
        file_of(url).write_bytes(b"no database at all")
    if words and holds != "damage":
        datadir.write_mnemonic(WORDS)
    before = file_of(url).read_bytes()
    await leftovers.settle(datadir, Backend(url))
    assert file_of(url).read_bytes() == before
    assert not datadir.mnemonic.exists()


@pytest.mark.parametrize("now", ["another file", "none"])
async def test_a_file_stays_whose_lock_nobody_has_taken(datadirs: tuple[Datadir, Datadir], now: str) -> None:
    """The daemon has been started with another database since; somebody else may be using this one."""
    datadir = datadirs[0]
    url = f"sqlite:///{datadir.path}/wallet.sqlite"
    await begin_creation(url, datadir)
    other = f"sqlite:///{datadir.path}/other.sqlite"
    await (await Store.open(other)).close()
    await leftovers.settle(datadir, Backend(other if now == "another file" else None))
    assert file_of(url).exists()
    assert file_of(other).exists()


async def test_a_file_elsewhere_stays(datadirs: tuple[Datadir, Datadir]) -> None:
    datadir, elsewhere = datadirs
    url = f"sqlite:///{elsewhere.path}/wallet.sqlite"
    await begin_creation(url, datadir)
    await leftovers.settle(datadir, Backend(url))
    assert file_of(url).exists()


@pytest.mark.parametrize("url", [None, "sqlite://", "postgresql://u@h/db"])
def test_nothing_else_is_locked(datadirs: tuple[Datadir, Datadir], url: str | None) -> None:
    assert lock_database(url, datadirs[0]) is None


def test_no_second_daemon_starts_on_the_file(tmp_path: Path, datadirs: tuple[Datadir, Datadir]) -> None:
    first, second = datadirs
    url = f"sqlite:///{tmp_path}/rows"
    lock = lock_database(url, first)
    assert lock is not None
    done = subprocess.run(
        [sys.executable, "-m", "barkd_py.cli", "--datadir", str(second.path), "--no-auth"],
        env={**os.environ, "BARKD_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lock.release()
    assert done.returncode == 1
    assert f"another barkd is already running on database {tmp_path}/rows (pid {os.getpid()})" in done.stderr
