"""Files, modes and locks of the data directory."""

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from barkd_py.datadir import Datadir, DatadirError, DatadirLocked, UnexpectedContents, write_private
from barkd_py.errors import chain_text

# Takes a lock on the file named by its argument, the way another program would, and keeps it.
_HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
getattr(fcntl, sys.argv[1])(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.write(fd, str(os.getpid()).encode())
print("held", flush=True)
sys.stdin.read()
"""


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def datadir(tmp_path: Path) -> Datadir:
    directory = Datadir(tmp_path / "d")
    directory.prepare()
    return directory


def test_a_new_directory_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        existed = Datadir(tmp_path / "d").prepare()
    finally:
        os.umask(old)
    assert not existed
    assert _mode(tmp_path / "d") == 0o700


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o755)
    assert Datadir(tmp_path / "d").prepare()
    assert _mode(tmp_path / "d") == 0o755


def test_missing_parents_are_made(tmp_path: Path) -> None:
    Datadir(tmp_path / "a" / "b").prepare()
    assert _mode(tmp_path / "a" / "b") == 0o700


# --- private files


def test_a_private_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    before = path.open()
    write_private(path, b"new")
    with before:
        assert before.read() == "old"  # whoever had it open sees the old file, not half a new one
    assert path.read_text() == "new"
    assert _mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(DatadirError) as failed:
        write_private(tmp_path / "target", b"x")
    assert "Is a directory (os error 21)" in chain_text(failed.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]


def test_a_mnemonic_is_never_overwritten(datadir: Datadir) -> None:
    datadir.write_mnemonic("first words")
    with pytest.raises(DatadirError):
        datadir.write_mnemonic("other words")
    assert datadir.read_mnemonic() == "first words"
    assert datadir.mnemonic.read_bytes() == b"first words"
    assert _mode(datadir.mnemonic) == 0o600


def test_a_mnemonic_is_not_written_through_a_link(datadir: Datadir, tmp_path: Path) -> None:
    datadir.mnemonic.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatadirError):
        datadir.write_mnemonic("words")
    assert not (tmp_path / "elsewhere").exists()


def test_loose_modes_are_named(datadir: Datadir) -> None:
    datadir.write_mnemonic("words")
    datadir.config.touch()
    datadir.config.chmod(0o640)
    assert list(datadir.loose_modes(datadir.mnemonic, datadir.config, datadir.database, mode=0o600)) == [
        f"{datadir.config} is accessible by other users (mode 640); "
        f"run `chmod 600 {datadir.config}` to secure it"
    ]


# --- contents

EXPECTED = (
    "config.toml", "debug.log", "stdout.log", "stderr.log", "LOCK", "auth_token", "barkd.lock",
    ".config.toml.temp.123.0.tmp", ".auth_token.temp.9.15.tmp",
)  # fmt: skip


def test_files_from_before_a_wallet_are_expected(datadir: Datadir) -> None:
    assert not datadir.check_contents(clean=False)
    for name in EXPECTED:
        (datadir.path / name).touch()
    assert datadir.check_contents(clean=False)


@pytest.mark.parametrize(
    "name", ["db.sqlite", "mnemonic", "foreign.txt", ".foreign.temp.1.0.tmp", "config.toml.bak"]
)
def test_any_other_file_is_not(datadir: Datadir, name: str) -> None:
    (datadir.path / name).touch()
    with pytest.raises(UnexpectedContents) as found:
        datadir.check_contents(clean=False)
    assert found.value.path == datadir.path / name
    assert (datadir.path / name).exists()
    datadir.check_contents(clean=True)
    assert not (datadir.path / name).exists()


def test_cleaning_removes_folders_and_keeps_what_links_point_to(datadir: Datadir, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (datadir.path / "link").symlink_to(tmp_path / "precious")
    (datadir.path / "folder" / "deep").mkdir(parents=True)
    datadir.check_contents(clean=True)
    assert list(datadir.path.iterdir()) == []
    assert (tmp_path / "precious" / "file").exists()


def test_wiping_keeps_the_token_and_the_process_lock(datadir: Datadir) -> None:
    for name in (*EXPECTED, "db.sqlite", "db.sqlite-wal", "mnemonic"):
        (datadir.path / name).touch()
    (datadir.path / "folder").mkdir()
    datadir.wipe_wallet()
    assert sorted(entry.name for entry in datadir.path.iterdir()) == ["auth_token", "barkd.lock"]


def test_a_wipe_that_is_killed_leaves_no_wallet(datadir: Datadir, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("db.sqlite", "config.toml", "mnemonic"):
        (datadir.path / name).touch()
    removed: list[Path] = []
    monkeypatch.setattr("barkd_py.datadir._remove", removed.append)
    datadir.wipe_wallet()
    assert removed[0] == datadir.mnemonic
    assert len(removed) == 3


@pytest.mark.parametrize(
    ("name", "is_scratch"),
    [
        (".restore-a1b2c3_d.scratch", True),
        (".restore-a1b2c3_d", False),
        (".restore-november", False),
        (".restore-monday", False),
        (".restore-a1b2c3_d.old", False),
    ],
)
def test_what_a_killed_restore_worked_with_goes(datadir: Datadir, name: str, is_scratch: bool) -> None:
    (datadir.path / name).mkdir()
    (datadir.path / name / "db.sqlite").touch()
    datadir.remove_scratch()
    assert (datadir.path / name / "db.sqlite").exists() is not is_scratch


# --- locks


def _held_by_another(kind: str, path: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, kind, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.communicate(b"")


def test_the_process_lock_excludes_barkd(datadir: Datadir) -> None:
    other = _held_by_another("flock", datadir.path / "barkd.lock")
    try:
        with pytest.raises(DatadirLocked) as locked:
            datadir.lock_process().acquire()
    finally:
        _end(other)
    assert str(locked.value) == (
        f"another barkd is already running on datadir {datadir.path} (pid {other.pid})"
    )
    lock = datadir.lock_process().acquire()
    assert (datadir.path / "barkd.lock").read_text() == str(os.getpid())
    lock.release()


def test_the_process_lock_excludes_itself(datadir: Datadir) -> None:
    lock = datadir.lock_process().acquire()
    with pytest.raises(DatadirLocked):
        datadir.lock_process().acquire()
    lock.release()
    assert (datadir.path / "barkd.lock").exists()


def test_an_unreadable_pid_is_left_out(datadir: Datadir) -> None:
    with (datadir.path / "barkd.lock").open("w") as held:
        held.write("who knows")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DatadirLocked) as locked:
            datadir.lock_process().acquire()
    assert str(locked.value) == f"another barkd is already running on datadir {datadir.path}"


def test_the_wallet_lock_excludes_other_programs(datadir: Datadir) -> None:
    other = _held_by_another("lockf", datadir.path / "LOCK")
    try:
        with pytest.raises(DatadirLocked) as locked:
            datadir.lock_wallet().acquire()
    finally:
        _end(other)
    assert str(locked.value) == (
        f"another process is already using datadir {datadir.path} (holder PID: {other.pid})"
    )
    datadir.lock_wallet().acquire().release()


def test_the_wallet_lock_excludes_a_second_wallet_of_this_process(datadir: Datadir) -> None:
    lock = datadir.lock_wallet().acquire()
    with pytest.raises(DatadirLocked, match=f"holder PID: {os.getpid()}"):
        Datadir(datadir.path / ".." / "d").lock_wallet().acquire()
    lock.release()
    lock.release()
    datadir.lock_wallet().acquire().release()


@pytest.mark.parametrize("refused_before", [False, True])
def test_another_program_sees_our_wallet_lock(datadir: Datadir, refused_before: bool) -> None:
    """Also after a second wallet was refused: an fcntl lock ends with any descriptor of its file."""
    lock = datadir.lock_wallet().acquire()
    if refused_before:
        with pytest.raises(DatadirLocked):
            datadir.lock_wallet().acquire()
    probe = subprocess.run(
        [sys.executable, "-c", _HOLD, "lockf", str(datadir.path / "LOCK")], capture_output=True, check=False
    )
    lock.release()
    assert b"held" not in probe.stdout
    assert probe.returncode != 0
