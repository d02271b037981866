"""A SQLite file that a URL names, and daemons with different data directories that know it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from barkd_py.daemon.backend import lock_database
from barkd_py.datadir import Datadir, DatadirError, DatadirLocked


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


def test_the_file_of_another_data_directory_is_that_ones(datadirs: tuple[Datadir, Datadir]) -> None:
    first, second = datadirs
    url = f"sqlite:///{first.database}"
    own = first.lock_process().acquire()
    assert lock_database(url, first) is None  # it has it already
    with pytest.raises(DatadirLocked):
        lock_database(url, second)
    own.release()
    lock = lock_database(url, second)
    assert lock is not None
    with pytest.raises(DatadirLocked):
        first.lock_process().acquire()
    lock.release()


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
