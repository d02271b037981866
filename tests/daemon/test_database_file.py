"""A SQLite file that a URL names, and daemons with different data directories that know it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from barkd_py.bitcoin.units import Network
from barkd_py.daemon.backend import lock_database
from barkd_py.daemon.new_wallet import CreateWallet, Esplora
from barkd_py.daemon.runtime import Runtime
from barkd_py.datadir import Datadir, DatadirError, DatadirLocked
from tests.fakes.wallet import FakeBackend

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


@pytest.mark.parametrize("remove", ["a wipe", "a forced creation", "an undone creation"])
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
        first.begin_creation(config_existed=False, database="")
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
