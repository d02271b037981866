"""Backups: made while the wallet works, put back only if nothing newer is known."""

import asyncio
import errno
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from barkd_py.config import write_config
from barkd_py.daemon import backup, leftovers
from barkd_py.daemon.backend import Backend
from barkd_py.daemon.backup import (
    Backup,
    BackupError,
    BackupNumbers,
    InTheWay,
    NotNoted,
    Restored,
    StaleBackup,
    UncheckedBackup,
    make,
    restore,
)
from barkd_py.daemon.errors import DatabaseMoved, TwoDatabases
from barkd_py.daemon.runtime import Runtime
from barkd_py.datadir import Datadir, DatadirError, DatadirLocked
from barkd_py.errors import ServerError, StoreError, chain_text
from barkd_py.wallet.store import Store, snapshot
from barkd_py.wallet.store.backups import BackupNumber
from barkd_py.wallet.store.engine import LeftBeside
from barkd_py.wallet.store.snapshot import DatabaseNotEmpty, NotABackup
from barkd_py.wallet.wallet import PropertiesMissing
from tests.support.postgres import Cluster
from tests.wallet.conftest import create_database
from tests.wallet.flows.conftest import ALICE, BOB, Net, Owner
from tests.wallet.flows.offboards import target_of
from tests.wallet.flows.test_recovery import pay, spendable

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Home:
    """Alice's data directory, and the places where she puts it back."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.datadir = self.make_datadir("home")
        shutil.copy(net.directory / "alice.sqlite", self.datadir.database)
        self.datadir.write_mnemonic(ALICE.words)

    def make_datadir(self, name: str) -> Datadir:
        datadir = Datadir(self.net.directory / name)
        datadir.prepare()
        config = self.net.config()
        write_config(
            datadir.config,
            {"server_address": config.server_address, "esplora_address": config.esplora_address or ""},
        )
        return datadir

    def owner(self, name: str = "home") -> Owner:
        return Owner(self.net, str(self.net.directory / name / "db.sqlite"), ALICE, {})

    async def backup(self, name: str, *, with_mnemonic: bool = False) -> Path:
        target = self.net.directory / name
        await make(self.datadir, None, target, now=NOW, with_mnemonic=with_mnemonic)
        return target

    async def put_back(
        self,
        file: Path,
        name: str = "back",
        *,
        accept_stale: bool = False,
        words: str = ALICE.words,
        url: str | None = None,
    ) -> Restored:
        datadir = Datadir(self.net.directory / name)
        shutil.copy(self.net.directory / "home.backups", self.net.directory / f"{name}.backups")
        return await restore(
            file,
            datadir,
            url,
            ask_mnemonic=lambda: words,
            accept_stale=accept_stale,
            now=NOW,
            environment={},
        )

    async def move(self, file: Path, url: str) -> Restored:
        """As `barkd restore` with BARKD_DATABASE_URL, where the wallet is."""
        return await restore(
            file, self.datadir, url, ask_mnemonic=str, accept_stale=False, now=NOW, environment={}
        )

    async def start(self, url: str | None) -> None:
        """As a daemon's start, as far as that the wallet opens."""
        wallet = await Backend(url).open(self.datadir.path, ALICE.words, lambda _: self.net.config())
        await wallet.close()

    def files(self) -> set[str]:
        """Of the database."""
        return {path.name for path in self.datadir.path.iterdir() if path.name.startswith("db.sqlite")}


@pytest.fixture
def home(net: Net) -> Home:
    return Home(net)


@pytest.fixture
async def alice_at_home(home: Home) -> Owner:
    owner = home.owner()
    await owner.open()
    return owner


async def opened(home: Home, name: str = "back") -> Owner:
    owner = home.owner(name)
    await owner.open()
    return owner


async def test_a_backup_of_a_working_wallet_is_the_wallet(home: Home, bob: Owner) -> None:
    alice = await opened(home, "home")
    payments = asyncio.create_task(pay(alice, bob, 10_000))
    file = await home.backup("during")  # whatever moment it is of: the file is whole
    await payments
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    second = await home.backup("after")
    before = await spendable(alice)
    await alice.wallet.close()

    done = await home.put_back(second)

    assert done.staleness is not None
    assert not done.staleness.is_stale
    assert done.warnings == ()
    back = Datadir(home.net.directory / "back")
    for path in (back.database, back.mnemonic, back.config):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert {path.name for path in back.path.iterdir()} <= {
        *("db.sqlite", "mnemonic", "config.toml", "barkd.lock", "LOCK")
    }
    again = await opened(home)
    assert await again.wallet.recovery.is_mailbox_blocked()  # first it looks for what happened since
    await again.wallet.recovery.resume()
    assert await spendable(again) == before
    assert len(await again.wallet.list_movements()) == 2
    await pay(again, bob, 20_000)
    await again.wallet.close()


@pytest.mark.parametrize("with_mnemonic", [False, True])
async def test_the_words_are_in_it_only_if_asked_for(home: Home, with_mnemonic: bool) -> None:
    file = await home.backup("file", with_mnemonic=with_mnemonic)
    assert (b"abandon" in file.read_bytes()) is with_mnemonic
    done = await home.put_back(file, words="" if with_mnemonic else ALICE.words)
    assert done.backup.fingerprint == "53bdf6b1"
    assert Datadir(home.net.directory / "back").read_mnemonic() == ALICE.words


async def test_a_backup_from_before_a_payment_is_refused(home: Home, bob: Owner) -> None:
    file = await home.backup("old")
    alice = await opened(home, "home")
    await pay(alice, bob, 10_000)
    now = await spendable(alice)
    await alice.wallet.close()

    with pytest.raises(
        StaleBackup, match=r"STALE: 1 of its VTXOs were spent since; [0-9] VTXOs were made that"
    ):
        await home.put_back(file)
    assert not Datadir(home.net.directory / "back").mnemonic.exists()

    done = await home.put_back(file, accept_stale=True)
    assert "STALE" in done.warnings[0]
    again = await opened(home)
    await again.wallet.recovery.resume()
    assert await spendable(again) == now  # the change is found, and what it came from is not money
    await again.wallet.close()


async def test_a_backup_from_before_a_receipt_is_refused(home: Home, bob: Owner) -> None:
    alice = await opened(home, "home")
    await pay(alice, bob, 50_000)
    file = await home.backup("old")
    await pay(bob, alice, 20_000)
    await alice.wallet.close()
    with pytest.raises(StaleBackup, match="STALE: 1 VTXOs were made that it does not have"):
        await home.put_back(file)


async def test_a_backup_from_before_an_offboard_went_on_is_refused(home: Home, bob: Owner) -> None:
    """Put back, it would ask for it once more, be refused, and call it failed."""
    alice = await opened(home, "home")
    home.net.fault("PrepareOffboard", kind="error", code="UNAVAILABLE")
    with pytest.raises(ServerError):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    file = await home.backup("preparing")
    assert (await home.put_back(file, "early")).warnings == ()
    await alice.wallet.offboards.drive_all()
    await alice.wallet.close()
    with pytest.raises(StaleBackup, match="STALE: 1 of its VTXOs were spent since"):
        await home.put_back(file)


async def test_only_the_newest_backup_is_put_back(home: Home) -> None:
    first = await home.backup("first")
    second = await home.backup("second")
    with pytest.raises(StaleBackup, match="it is number 1, and number 2 was made at 2026-11-22T12:00:00"):
        await home.put_back(first)
    assert (await home.put_back(second)).warnings == ()


async def test_a_backup_from_before_an_on_chain_payment_is_refused(home: Home) -> None:
    """A board is known to nobody but the wallet, until it is confirmed: its transaction is all there is."""
    file = await home.backup("old")
    alice = await opened(home, "home")
    await alice.fund_onchain(60_000)
    await alice.wallet.board_amount(40_000)
    await alice.wallet.close()
    with pytest.raises(StaleBackup, match="STALE: 1 on-chain payments were made that it does not have"):
        await home.put_back(file)


async def test_coins_that_came_in_since_are_no_reason_to_refuse_it_and_are_found(home: Home) -> None:
    file = await home.backup("before")
    alice = await opened(home, "home")
    for _ in range(2):
        await alice.fund_onchain(300_000)
    assert alice.wallet.onchain is not None
    balance = await alice.wallet.onchain.balance()
    await alice.wallet.close()
    assert (await home.put_back(file)).warnings == ()
    again = await opened(home)
    await again.wallet.recovery.resume()
    assert again.wallet.onchain is not None
    assert await again.wallet.onchain.balance() == balance
    await again.wallet.close()


@pytest.mark.parametrize("failure", ["an error", "a kill"])
@pytest.mark.parametrize("where", ["while it is written", "when it gets its name", "on its way to the disk"])
async def test_a_backup_that_comes_to_nothing_leaves_the_one_before_it_the_newest(
    home: Home, monkeypatch: pytest.MonkeyPatch, where: str, failure: str
) -> None:
    first = await home.backup("first")
    what: Any
    what, name = {
        "while it is written": (snapshot, "describe"),
        "when it gets its name": (backup, "_publish"),
        "on its way to the disk": (backup, "sync_directory"),
    }[where]

    def fail(*_: object) -> None:
        raise KeyboardInterrupt if failure == "a kill" else OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(what, name, fail)
        with pytest.raises((BackupError, KeyboardInterrupt)):
            await home.backup("second")
    second = home.net.directory / "second"
    assert second.exists() is (failure == "a kill" and where == "on its way to the disk")
    if failure == "a kill" and where != "while it is written":  # nobody can tell whether it is there
        with pytest.raises(
            StaleBackup, match=r"number 2 was made at 2026.*, and was about to be at .*/second"
        ):
            await home.put_back(first, "back-1")
    else:
        assert (await home.put_back(first, "back-1")).warnings == ()
    if second.exists():
        assert (await home.put_back(second, "back-2")).warnings == ()
    third = await home.backup("third")
    assert Backup.read(third).number == 3  # no number is given twice
    assert (await home.put_back(third, "back-3")).warnings == ()
    for old in (first, second) if second.exists() else (first,):
        with pytest.raises(StaleBackup, match="and number 3 was made"):
            await home.put_back(old, "back-4")


async def test_a_backup_goes_where_files_cannot_be_linked(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a FAT or exFAT stick."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as on_a_stick:
        on_a_stick.setattr(os, "link", refuse)
        file = await home.backup("file")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        monkeypatch.setattr(backup, "_check_target", lambda *_: None)  # it came a moment later
        whole = file.read_bytes()
        with pytest.raises(BackupError, match="failed to write"):
            await home.backup("file")
        assert file.read_bytes() == whole
    assert not [path for path in home.net.directory.iterdir() if path.name.endswith(".tmp")]
    assert (await home.put_back(file)).warnings == ()


async def test_a_backup_that_cannot_be_noted_is_there_and_says_so(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("cannot reach the database")

    monkeypatch.setattr(snapshot, "note", fail)
    with pytest.raises(NotNoted, match="file is made, and whole, but could not be noted"):
        await home.backup("file")
    assert (await home.put_back(home.net.directory / "file")).warnings == ()


async def test_a_backup_that_cannot_be_noted_on_this_machine_is_noted_in_the_database(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DatadirError("nothing can be written")

    with monkeypatch.context() as unwritable:
        unwritable.setattr(BackupNumbers, "note", fail)
        for name in ("first", "second"):
            with pytest.raises(NotNoted) as raised:
                await home.backup(name)
            assert chain_text(raised.value).endswith("by its number: nothing can be written")
    last = await snapshot.last_number(str(home.datadir.database), "53bdf6b1")
    assert last is not None
    assert last.number == 2


def test_the_number_that_is_noted_last_is_the_highest(home: Home) -> None:
    """Two backups at once may be noted in either order."""
    numbers = BackupNumbers(home.datadir)
    for number in (2, 1):
        numbers.note("53bdf6b1", BackupNumber(number, f"at {number}"))
        numbers.note("other", BackupNumber(1, "whenever"))
    assert numbers.last("53bdf6b1") == BackupNumber(2, "at 2")
    assert numbers.last("other") == BackupNumber(1, "whenever")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
async def test_a_backup_stays_in_a_directory_that_cannot_be_synced(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(backup, "sync_directory", refuse)
    file = await home.backup("file")
    assert f"file is made; its directory cannot be synced to the disk: {os.strerror(number)}" in caplog.text
    assert (await home.put_back(file)).warnings == ()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_a_backup_that_does_not_reach_the_disk_is_none(
    home: Home, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(backup, "sync_directory", fail)
    with pytest.raises(BackupError, match="failed to write") as raised:
        await home.backup("file")
    assert os.strerror(number) in chain_text(raised.value)
    assert not (home.net.directory / "file").exists()


async def test_machines_that_share_a_database_count_their_backups_together(
    home: Home, postgres: Cluster
) -> None:
    url, elsewhere = [await create_database(postgres, f"counted_{name}") for name in ("here", "there")]
    await home.move(await home.backup("moved"), url)
    other = home.make_datadir("other")
    other.write_mnemonic(ALICE.words)
    files = [home.net.directory / name for name in ("second", "third", "newest")]
    for number, (datadir, file) in enumerate(zip((home.datadir, home.datadir, other), files, strict=True), 2):
        assert (await make(datadir, url, file, now=NOW, with_mnemonic=True)).number == number
    # This machine knows of three; the newest is from another one, and is the newest here too.
    numbers = BackupNumbers(home.datadir)
    last = numbers.last("53bdf6b1")
    assert last is not None
    assert last.number == 3
    done = await _restore(files[2], home.datadir, elsewhere)
    assert done.warnings == ()
    assert (
        await make(home.datadir, elsewhere, home.net.directory / "next", now=NOW, with_mnemonic=False)
    ).number == 5
    # The database still knows when the wallet is deleted from it, and whoever has no file beside it.
    store = await Store.open(url)
    await store.erase()
    await store.close()
    with pytest.raises(StaleBackup, match="it is number 3, and number 4 was made"):
        await _restore(files[1], home.make_datadir("new"), url)
    await _restore(files[2], home.make_datadir("new"), url)
    # So it does of one that is about to be there.
    for number in (5, 6):
        await snapshot.announce(url, "53bdf6b1", BackupNumber(number, f"at {number}"))
    assert await snapshot.last_number(url, "53bdf6b1") == BackupNumber(6, "at 6")
    await snapshot.withdraw(url, "53bdf6b1", 6)
    assert await snapshot.last_number(url, "53bdf6b1") == BackupNumber(5, "at 5")
    await snapshot.note(url, "53bdf6b1", BackupNumber(7, "at 7"))
    await snapshot.withdraw(url, "53bdf6b1", 7)  # nobody has announced it
    assert await snapshot.last_number(url, "53bdf6b1") == BackupNumber(7, "at 7")


async def _restore(file: Path, datadir: Datadir, url: str) -> Restored:
    return await restore(file, datadir, url, ask_mnemonic=str, accept_stale=False, now=NOW, environment={})


async def test_numbers_that_cannot_be_read_keep_nobody_from_a_backup(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """As when root made an earlier one; here it is a directory, for root itself reads every file."""
    await home.backup("first")
    beside = BackupNumbers(home.datadir).beside
    beside.unlink()
    beside.mkdir()
    file = await home.backup("second")
    assert Backup.read(file).number == 2  # the database has counted
    assert f"failed to read {beside}" in caplog.text
    assert json.loads(BackupNumbers(home.datadir).inside.read_text())["53bdf6b1"]["number"] == 2
    with pytest.raises(DatadirError, match="failed to read"):  # whether an older one is stale must be known
        BackupNumbers(home.datadir).last("53bdf6b1")


async def test_a_database_of_an_older_program_is_backed_up_as_it_is(home: Home) -> None:
    """Before the new daemon is started for the first time."""
    with closing(sqlite3.connect(home.datadir.database)) as database:
        database.execute("DROP TABLE last_backup")
        database.execute("DROP INDEX ix_movement_failed")
        database.execute("CREATE INDEX ix_movement_created_at ON movement (created_at, id)")
        database.execute("UPDATE alembic_version SET version_num = '0004'")
        database.commit()
    await home.backup("first")
    second = await home.backup("second")
    with pytest.raises(StaleBackup, match="it is number 1, and number 2 was made"):
        await home.put_back(home.net.directory / "first")
    assert (await home.put_back(second)).warnings == ()


async def test_a_backup_that_cannot_be_checked_is_refused(home: Home) -> None:
    file = await home.backup("file")
    await home.net.devnet.ark_server.stop()
    with pytest.raises(UncheckedBackup):
        await home.put_back(file)
    assert not Datadir(home.net.directory / "back").path.exists()
    done = await home.put_back(file, accept_stale=True)
    assert done.staleness is None
    assert len(done.warnings) == 1


async def test_what_is_no_backup_of_this_wallet_is_refused(home: Home) -> None:
    file = await home.backup("file")
    with pytest.raises(BackupError, match="holds a wallet database"):
        await restore(file, home.datadir, None, ask_mnemonic=str, accept_stale=True, now=NOW)
    with pytest.raises(BackupError, match="is of the wallet 53bdf6b1, and the mnemonic of"):
        await home.put_back(file, words=BOB.words)
    with pytest.raises(BackupError, match="Invalid mnemonic"):
        await home.put_back(file, words="nonsense")
    with pytest.raises(BackupError, match="exists already"):
        await home.backup("file")
    whole = file.read_bytes()
    for number, damaged in enumerate((b"", whole[: len(whole) // 2], b"x" * 4096, whole[:100] + whole[200:])):
        file.write_bytes(damaged)
        with pytest.raises((NotABackup, BackupError)):
            await home.put_back(file, f"back-{number}")
    file.write_bytes(whole)
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE backup SET value = '2' WHERE name = 'format'")
        database.commit()
    with pytest.raises(BackupError, match="has format 2"):
        await home.put_back(file)
    shutil.copy(home.net.directory / "alice.sqlite", file)  # a database, but no backup
    with pytest.raises(NotABackup):
        await home.put_back(file)
    assert not Datadir(home.net.directory / "back").path.exists()


async def test_a_refused_restore_leaves_nothing_wherever_its_database_would_be(home: Home) -> None:
    file = await home.backup("file")
    url = f"sqlite:///{home.net.directory / 'back' / 'wallet.sqlite'}"
    with pytest.raises(BackupError, match="Invalid mnemonic"):
        await home.put_back(file, words="nonsense", url=url)
    assert not Datadir(home.net.directory / "back").path.exists()


async def leave_a_log(home: Home, database: Path) -> Path:
    """What stays where a database was from which only its main file was moved away."""
    earlier = home.net.directory / "earlier.sqlite"
    shutil.copy(home.net.directory / "alice.sqlite", earlier)
    store = await Store.open(str(earlier))
    async with store.transaction() as tx:
        await tx.mailbox.advance(77)
    log = database.with_name(f"{database.name}-wal")
    shutil.copy(f"{earlier}-wal", log)
    await store.close()
    assert log.stat().st_size > 0
    return log


@pytest.mark.parametrize("where", ["the data directory", "a URL"])
async def test_a_log_of_a_database_that_is_gone_is_not_played_into_the_restored_one(
    home: Home, where: str
) -> None:
    file = await home.backup("file")
    datadir = home.make_datadir("back")
    database = datadir.database if where == "the data directory" else home.net.directory / "other.sqlite"
    url = None if where == "the data directory" else f"sqlite:///{database}"
    log = await leave_a_log(home, database)
    before = log.read_bytes()
    names = {path.name for path in datadir.path.iterdir()}
    with pytest.raises(LeftBeside, match=rf"{database.name} is gone, .* changes: {log.name}; move that"):
        await home.put_back(file, url=url)
    assert log.read_bytes() == before
    assert not database.exists()
    assert {path.name for path in datadir.path.iterdir()} - {"LOCK", "barkd.lock"} == names
    with pytest.raises(LeftBeside):  # neither is a new wallet made there
        await Store.open(str(database))

    log.rename(home.net.directory / "away")
    await home.put_back(file, url=url)
    store = await Store.open(str(database))
    async with store.read() as tx:
        assert await tx.mailbox.checkpoint() != 77
    await store.close()


async def test_a_damaged_database_is_to_be_moved_with_all_of_its_files(home: Home) -> None:
    file = await home.backup("file")
    home.datadir.database.write_bytes(b"damaged" * 1000)
    with pytest.raises(BackupError, match=r"away first, with db\.sqlite-wal, .*-shm and .*-journal, if"):
        await home.move(file, f"sqlite:///{home.net.directory}/elsewhere.sqlite")


async def test_no_backup_is_written_where_sqlite_would_add_a_log_to_it(home: Home) -> None:
    log = await leave_a_log(home, home.net.directory / "file")
    with pytest.raises(LeftBeside):
        await home.backup("file")
    assert not (home.net.directory / "file").exists()
    log.unlink()
    await home.put_back(await home.backup("file"))


# --- what a kill leaves


STORE, HERE = "barkd_py.wallet.store.backups:BackupRepository", "barkd_py.daemon.backup:BackupNumbers"


@pytest.mark.parametrize("lost", ["nothing", "the data directory", "what is beside it"])
@pytest.mark.parametrize(
    ("when", "where", "is_there", "is_newest"),
    [
        ("before", f"{HERE}.announce", False, True),
        ("before", f"{STORE}.announce", False, False),
        ("before", "barkd_py.daemon.backup:_publish", False, False),
        ("after", "barkd_py.daemon.backup:os.link", True, False),
        ("after", "barkd_py.daemon.backup:_publish", True, False),
        ("after", f"{HERE}.note", True, False),
        ("before", f"{STORE}.note", True, False),
    ],
)
async def test_whenever_a_backup_is_killed_the_older_one_passes_only_if_it_is_the_newest(
    home: Home, when: str, where: str, is_there: bool, is_newest: bool, lost: str
) -> None:
    if lost == "what is beside it" and where == f"{STORE}.announce":
        is_newest = True  # the file was told first, and is lost now
    first = await home.backup("first")
    second = home.net.directory / "second"
    killed("backup", home.datadir, second, when=when, where=where)
    assert second.exists() is is_there
    if is_there:
        assert Backup.read(second).number == 2
    datadir = home.datadir
    if lost == "what is beside it":  # the wallet moves, and its database knows
        BackupNumbers(datadir).beside.unlink()
        url = f"sqlite:///{home.net.directory}/elsewhere.sqlite"
    else:
        for path in datadir.path.glob("db.sqlite*" if lost == "nothing" else "*"):
            path.unlink()
        datadir, url = home.make_datadir("home"), None
    said = r"it is number 1, and number 2 was made at 2026-11-22T12"
    if where.endswith("announce") or where.endswith("_publish") or where.endswith("link"):
        said += r".*, and was about to be at .*/second when it was interrupted: look there\. Money"
    with nullcontext() if is_newest else pytest.raises(StaleBackup, match=said):
        assert (await put_there(first, datadir, url)).warnings == ()
    if is_there:
        assert (await put_there(second, datadir, url)).warnings == ()


async def put_there(file: Path, datadir: Datadir, url: str | None) -> Restored:
    return await restore(
        file, datadir, url, ask_mnemonic=lambda: ALICE.words, accept_stale=False, now=NOW, environment={}
    )


async def test_who_is_killed_is_forgotten_when_there_is_a_newer_one(home: Home) -> None:
    await home.backup("first")
    killed("backup", home.datadir, home.net.directory / "second", when="before", where=f"{HERE}.note")
    third = await home.backup("third")
    assert Backup.read(third).number == 3
    numbers = json.loads(BackupNumbers(home.datadir).beside.read_text())
    assert {name: each["number"] for name, each in numbers.items()} == {"53bdf6b1": 3}
    with closing(sqlite3.connect(home.datadir.database)) as database:
        rows = database.execute("SELECT fingerprint, number FROM last_backup ORDER BY 1").fetchall()
    assert rows == [("53bdf6b1", 3), ("53bdf6b1 taken", 3)]
    assert (await home.put_back(third)).warnings == ()


async def test_what_fails_takes_back_its_own_announcement_only(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await home.backup("first")
    killed("backup", home.datadir, home.net.directory / "second", when="before", where=f"{HERE}.note")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(backup, "_publish", fail)
        with pytest.raises(BackupError):
            await home.backup("third")
    with pytest.raises(StaleBackup, match="and number 2 was made"):
        await home.put_back(first)


# --- several at once


async def test_backups_that_are_made_at_once_are_made_one_after_the_other(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, copying = snapshot.take, []

    async def take(database: str, target: Path) -> None:
        copying.append("begins")
        await asyncio.sleep(0)
        await real(database, target)
        await asyncio.sleep(0.05)
        copying.append("ends")

    monkeypatch.setattr(snapshot, "take", take)
    files = await asyncio.gather(*(home.backup(f"file-{index}") for index in range(3)))
    assert copying == ["begins", "ends"] * 3
    assert sorted(Backup.read(file).number for file in files) == [1, 2, 3]


_BACKUPS = """
import asyncio, sys, time
from datetime import UTC, datetime
from pathlib import Path
from barkd_py.daemon import backup
from barkd_py.datadir import Datadir

name, datadir, directory = sys.argv[1:]
real = backup.write_private

def slowly(path, data):  # what was read before gets old
    time.sleep(0.05)
    real(path, data)

backup.write_private = slowly
print("ready", flush=True)
sys.stdin.readline()
for number in range(5):
    made = asyncio.run(
        backup.make(
            Datadir(Path(datadir)), None, Path(directory, f"{name}-{number}"), with_mnemonic=False,
            now=datetime.now(UTC),
        )
    )
    assert backup.BackupNumbers(Datadir(Path(datadir))).last(made.fingerprint).number >= made.number
"""


async def test_two_processes_at_once_leave_the_highest_number_noted(home: Home) -> None:
    """With a wallet of another fingerprint, whose number is in the same file and must stay."""
    BackupNumbers(home.datadir).note("00000000", BackupNumber(5, "then"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _BACKUPS, name, str(home.datadir.path), str(home.net.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("one", "other")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    files = [path for name in ("one", "other") for path in home.net.directory.glob(f"{name}-?")]
    numbers = {Backup.read(file).number: file for file in files}
    assert sorted(numbers) == list(range(1, 11))
    noted = json.loads(BackupNumbers(home.datadir).beside.read_text())
    assert {name: each["number"] for name, each in noted.items()} == {"53bdf6b1": 10, "00000000": 5}
    assert sorted(file.stat().st_mtime_ns for file in files) == [
        numbers[number].stat().st_mtime_ns for number in range(1, 11)
    ]


async def test_a_backup_is_not_made_if_one_with_a_higher_number_may_hold_less(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of another machine that shares the database: its copy was made first."""
    real = snapshot.take

    async def take(database: str, target: Path) -> None:
        await snapshot.count(database, "53bdf6b1", above=0, made_at="meanwhile")
        await real(database, target)

    with monkeypatch.context() as shared:
        shared.setattr(snapshot, "take", take)
        with pytest.raises(snapshot.Overtaken):
            await home.backup("file")
    assert not (home.net.directory / "file").exists()
    assert Backup.read(await home.backup("file")).number == 3


# --- places and names


@pytest.mark.parametrize(
    "name",
    [
        "db.sqlite-wal",
        "db.sqlite-journal",
        ".creation",
        "barkd.lock",
        "db.sqlite.moved-2026-11-22",
        "backups",
    ],
)
async def test_no_backup_is_made_under_a_name_that_means_something_else(home: Home, name: str) -> None:
    link = home.net.directory / "link"
    link.symlink_to(home.datadir.path)
    for directory in (home.datadir.path, link):
        with pytest.raises(BackupError, match="would be taken for something else"):
            await home.backup(str(directory / name))
        assert not (directory / name).exists()


@pytest.mark.parametrize("name", ["home/db.sqlite", "home/mnemonic", "link", "dangling", "home.backups"])
async def test_a_backup_replaces_nothing(home: Home, name: str) -> None:
    (home.net.directory / "link").symlink_to(home.datadir.database)
    (home.net.directory / "dangling").symlink_to(home.net.directory / "nowhere")
    before = home.datadir.database.read_bytes()
    with pytest.raises(BackupError, match=r"exists already|would be taken for something else"):
        await home.backup(name)
    assert home.datadir.database.read_bytes() == before
    assert home.datadir.read_mnemonic() == ALICE.words
    assert not (home.net.directory / "nowhere").exists()
    assert not BackupNumbers(home.datadir).beside.exists()


async def test_a_file_may_have_any_name(home: Home) -> None:
    for name in ("a#b", "a?mode=ro", "100%41", ":memory:", "a b'\"\n"):
        file = await home.backup(name)
        assert (await home.put_back(file, f"back in {name}")).warnings == ()
        assert await Backend().holds_wallet(home.net.directory / f"back in {name}")
    assert not [path.name for path in home.net.directory.iterdir() if path.name in ("a", ".a", "100A")]


async def test_a_place_where_nothing_can_be_written_is_said(home: Home) -> None:
    (home.net.directory / "file").touch()
    for place, why in (("nowhere/deep", "No such file or directory"), ("file/deep", "Not a directory")):
        with pytest.raises(BackupError, match="failed to write") as raised:
            await home.backup(place)
        assert why in chain_text(raised.value)


_FULL_DISK = """
import asyncio, resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from barkd_py.daemon import backup
from barkd_py.datadir import Datadir
from barkd_py.errors import KnownError, chain_text

what, datadir, file, limit = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
facts = {"now": datetime(2026, 11, 22, 12, tzinfo=UTC)}
if what == "backup":
    work = backup.make(Datadir(Path(datadir)), None, Path(file), with_mnemonic=False, **facts)
else:
    work = backup.restore(
        Path(file), Datadir(Path(datadir)), None, ask_mnemonic=lambda: "abandon " * 11 + "about",
        accept_stale=True, **facts
    )
try:
    asyncio.run(work)
except KnownError as error:
    print(chain_text(error))
"""


async def test_a_disk_that_is_full_leaves_nothing_but_an_error(home: Home) -> None:
    """Wherever it gets full."""
    first = await home.backup("first")
    size = first.stat().st_size
    place = home.net.directory / "place"
    place.mkdir()
    before = (home.net.directory / "home.backups").read_bytes()
    said = set()
    for limit in (100, size // 2, size - 4096, size - 1):
        said.add(_on_a_full_disk("backup", home.datadir.path, place / "second", limit).split(":")[0])
        assert list(place.iterdir()) == []
    assert said == {
        "the backup cannot be counted",
        "the database cannot be copied",
        f"failed to write {place / 'second'}",
    }
    assert (home.net.directory / "home.backups").read_bytes() == before
    assert (await home.put_back(first)).warnings == ()


def _on_a_full_disk(what: str, datadir: Path, file: Path, limit: int) -> str:
    """What a backup or a restore says where no file can become larger than so much."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, what, str(datadir), str(file), str(limit)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def test_a_restore_to_a_disk_that_is_full_does_not_blame_the_backup(home: Home) -> None:
    file = await home.backup("file")
    back = home.net.directory / "back"
    for limit in (100, file.stat().st_size // 2):
        said = _on_a_full_disk("restore", back, file, limit)
        assert said.startswith(f"the backup cannot be copied to {back}/.restore-")
        assert not back.exists()
    await home.put_back(file)


async def test_no_moment_shows_a_backup_to_others(home: Home) -> None:
    """Whatever is written for it, under any name, is for its owner alone from its first byte on."""
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, str(home.datadir.path), str(home.net.directory / "place")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    opened = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert any("/place/" in path for _, path in opened)
    assert [(mode, path) for mode, path in opened if int(mode, 8) & 0o077] == []


_WATCHED = """
import asyncio, os, sys
from datetime import UTC, datetime
from pathlib import Path
from barkd_py.daemon import backup
from barkd_py.datadir import Datadir

os.umask(0)
datadir, place = sys.argv[1], Path(sys.argv[2])
place.mkdir()

def look(frame, event, arg):
    frame.f_trace_lines = False
    for directory, _, names in os.walk(place):
        if directory != str(place) and os.stat(directory).st_mode & 0o077 == 0:
            print("700", directory)
            continue
        for name in names:
            try:
                mode = os.stat(os.path.join(directory, name)).st_mode & 0o777
            except OSError:
                continue
            print(f"{mode:o}", os.path.join(directory, name))
    return look

sys.settrace(look)
asyncio.run(
    backup.make(
        Datadir(Path(datadir)), None, place / "file", with_mnemonic=True,
        now=datetime(2026, 11, 22, 12, tzinfo=UTC)
    )
)
"""


_KILLED_AT = """
import asyncio, importlib, os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from barkd_py.daemon import backup
from barkd_py.datadir import Datadir

when, where, what, datadir, file, words = sys.argv[1:]
module, _, name = where.partition(":")
owner = importlib.import_module(module)
for part in name.split(".")[:-1]:
    owner = getattr(owner, part)
name = name.split(".")[-1]
real = getattr(owner, name)

def die(*args, **kwargs):
    if when == "after":
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, die)
facts = {"now": datetime(2026, 11, 22, 12, tzinfo=UTC)}
if what == "backup":
    work = backup.make(Datadir(Path(datadir)), None, Path(file), with_mnemonic=False, **facts)
else:
    work = backup.restore(
        Path(file), Datadir(Path(datadir)), None, ask_mnemonic=lambda: words, accept_stale=True, **facts
    )
asyncio.run(work)
"""


def killed(what: str, datadir: Datadir, file: Path, *, when: str, where: str) -> None:
    """A backup or a restore in a process of its own, which ends by SIGKILL before or after a call."""
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_AT, when, where, what, str(datadir.path), str(file), ALICE.words],
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def scratches(datadir: Datadir) -> list[Path]:
    return [path for path in datadir.path.iterdir() if path.name.endswith(".scratch") and path.is_dir()]


@pytest.mark.parametrize("then", ["a restore", "a start"])
async def test_what_a_killed_restore_works_with_is_removed_and_nothing_else(home: Home, then: str) -> None:
    file = await home.backup("file")
    datadir = home.make_datadir("back")
    mine = {
        ".restore-20261122/db.sqlite",
        ".restore-abcdefghi.scratch/db.sqlite",
        ".restore-12345678.scratch",
    }
    for name in mine:
        (datadir.path / name).parent.mkdir(exist_ok=True)
        (datadir.path / name).touch()
    elsewhere = home.net.directory / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (datadir.path / ".restore-abcdefgh.scratch").symlink_to(elsewhere)
    killed("restore", datadir, file, when="before", where="barkd_py.wallet.store.snapshot:let_it_recover")
    (left,) = (
        set(scratches(datadir))
        - {datadir.path / ".restore-abcdefghi.scratch"}
        - {datadir.path / ".restore-abcdefgh.scratch"}
    )
    assert (left / "db.sqlite").stat().st_size > 0
    assert stat.S_IMODE(left.stat().st_mode) == 0o700
    assert not datadir.is_changing()

    if then == "a restore":
        await home.put_back(file)
        assert await Backend().holds_wallet(datadir.path)
    else:
        assert not await Runtime(datadir, Backend(), environment={}).open_existing()
    assert not left.exists()
    for name in mine:
        assert (datadir.path / name).exists()
    assert (elsewhere / "deep").exists()
    assert (datadir.path / ".restore-abcdefgh.scratch").is_symlink()


async def test_what_cannot_be_removed_is_in_nobodys_way(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when root has made a restore."""
    left = home.datadir.path / ".restore-12345678.scratch"
    left.mkdir()

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as others:
        others.setattr(shutil, "rmtree", refuse)
        await leftovers.settle(home.datadir, Backend())
    assert f"removing {left}" in caplog.text
    assert "Permission denied (os error 13)" in caplog.text


async def test_what_a_restore_works_with_is_left_alone_as_long_as_it_works(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await home.backup("file")
    datadir = home.make_datadir("back")
    real, left = snapshot.let_it_recover, []

    async def look(prepared: Path, newest: BackupNumber) -> None:
        with pytest.raises(DatadirLocked):
            await home.put_back(file)
        left.extend(scratches(datadir))
        await real(prepared, newest)

    monkeypatch.setattr(snapshot, "let_it_recover", look)
    await home.put_back(file)
    assert len(left) == 1
    assert scratches(datadir) == []


@pytest.mark.parametrize("then", ["a restore", "a start"])
@pytest.mark.parametrize("begun", ["a restore", "a creation"])
async def test_a_backup_in_the_data_directory_survives_what_was_killed_there(
    home: Home, begun: str, then: str
) -> None:
    """In a container there is no other place for it; and it may be all that there is."""
    datadir = home.make_datadir("back")
    datadir.config.unlink()
    file = (await home.backup("file")).rename(datadir.path / "file")
    older = datadir.path / "db.sqlite.moved-2026-11-01"
    older.touch()
    if begun == "a restore":
        killed("restore", datadir, file, when="after", where="barkd_py.daemon.backup:Datadir.write_mnemonic")
    else:
        datadir.begin_creation(config_existed=False, database="")
        datadir.write_mnemonic(BOB.words)
        datadir.database.touch()
    assert datadir.is_changing()
    if then == "a start":
        assert not await Runtime(datadir, Backend(), environment={}).open_existing()
        assert {"file", older.name} <= {path.name for path in datadir.path.iterdir()}
        assert not any(path.exists() for path in (datadir.mnemonic, datadir.database))
    await home.put_back(file, accept_stale=True)
    assert file.exists()
    assert older.exists()
    assert await Backend().holds_wallet(datadir.path)


async def test_no_backup_goes_with_the_deletion_of_the_wallet_that_was_there(home: Home) -> None:
    datadir = home.make_datadir("back")
    file = (await home.backup("file")).rename(datadir.path / "file")
    datadir.begin_deletion(database="")
    with pytest.raises(InTheWay, match=r"move .*/file out of it"):
        await home.put_back(file)
    await home.put_back(file.rename(home.net.directory / "file"))


THERE = r"is in this database already|holds a wallet database"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("what", "name"),
    [
        (Datadir, "begin_creation"),
        (Datadir, "write_mnemonic"),
        (backup, "write_private"),
        (Datadir, "take_database"),
        (snapshot, "to_database"),
        (Datadir, "end_change"),
    ],
)
async def test_a_restore_that_was_killed_is_made_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, postgres: Cluster, kind: str, what: Any, name: str
) -> None:
    file = await home.backup("file")
    url = None
    if kind == "postgresql":
        url = await create_database(postgres, f"killed_at_{name}")
    killed = False

    def die(*_: object, **__: object) -> None:
        nonlocal killed
        killed = True
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(what, name, die)
        with suppress(KeyboardInterrupt):
            await home.put_back(file, url=url)
        assert killed is (name != ("to_database" if url is None else "take_database"))
    if killed:
        done = await home.put_back(file, url=url)
        assert (done.backup.number, done.warnings, done.aside) == (1, (), None)
    with pytest.raises(BackupError, match=THERE):
        await home.put_back(file, url=url)
    datadir = Datadir(home.net.directory / "back")
    assert not datadir.is_changing()
    assert datadir.read_mnemonic() == ALICE.words
    wallet = await Backend(url).open(datadir.path, ALICE.words, lambda _: home.net.config())
    assert wallet.fingerprint == "53bdf6b1"
    await wallet.close()


@pytest.mark.parametrize("begun", ["another restore", "a creation"])
async def test_what_something_else_has_begun_is_not_taken_for_this_restore(
    home: Home, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    """It was killed when the wallet was whole."""
    file = await home.backup("file")
    other = await home.backup("other")
    with monkeypatch.context() as dying, suppress(KeyboardInterrupt):
        dying.setattr(Datadir, "end_change", _die)
        await home.put_back(other)
    datadir = Datadir(home.net.directory / "back")
    assert datadir.is_changing()
    if begun == "a creation":
        datadir.begin_creation(config_existed=False, database="")
    with pytest.raises(BackupError, match=THERE):
        await home.put_back(file if begun == "another restore" else other)
    assert not datadir.is_changing()


def _die(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("holds", ["another wallet", "the same wallet"])
async def test_a_restore_into_somebody_elses_database_changes_nothing(
    home: Home, postgres: Cluster, holds: str
) -> None:
    url = await create_database(postgres, f"has_{holds.replace(' ', '_')}")
    of = "alice" if holds == "the same wallet" else "bob"
    await snapshot.to_database(home.net.directory / f"{of}.sqlite", url)
    fingerprint = await Store.peek(url)
    with pytest.raises(DatabaseNotEmpty):
        await home.put_back(await home.backup("file"), url=url)
    assert not Datadir(home.net.directory / "back").path.exists()
    assert await Store.peek(url) == fingerprint


async def test_a_restore_that_fails_at_its_end_changes_nothing(
    home: Home, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await create_database(postgres, "fails_at_its_end")
    file = await home.backup("file")

    async def fail(*_: object) -> None:
        raise StoreError("cannot reach the database")

    with monkeypatch.context() as failing:
        failing.setattr(snapshot, "_copy_rows", fail)
        with pytest.raises(StoreError):
            await home.put_back(file, url=url)
    assert not Datadir(home.net.directory / "back").path.exists()
    await home.put_back(file, url=url)


# --- between databases


async def test_a_wallet_that_moved_to_postgresql_is_not_run_where_it_was(
    home: Home, postgres: Cluster
) -> None:
    url = await create_database(postgres, "a_new_home")
    file = await home.backup("file")
    with pytest.raises(TwoDatabases, match="BARKD_DATABASE_URL names another database: unset it"):
        await home.start(url)
    assert (await home.move(file, url)).aside == home.datadir.path / "db.sqlite.moved-2026-11-22"

    assert home.files() == {"db.sqlite.moved-2026-11-22"}
    await home.start(url)
    with pytest.raises(DatabaseMoved, match=r"/db\.sqlite\.moved-2026-11-22: set BARKD_DATABASE_URL"):
        await home.start(None)
    assert home.files() == {"db.sqlite.moved-2026-11-22"}

    # And back: now the one at the URL is old.
    back = home.net.directory / "back-again"
    await make(home.datadir, url, back, now=NOW, with_mnemonic=False)
    await restore(back, home.datadir, None, ask_mnemonic=str, accept_stale=False, now=NOW, environment={})
    await home.start(None)
    with pytest.raises(TwoDatabases):
        await home.start(url)


async def test_an_earlier_move_is_not_written_over(home: Home) -> None:
    file = await home.backup("file")
    for number, aside in ((1, "db.sqlite.moved-2026-11-22"), (2, "db.sqlite.moved-2026-11-22.2")):
        done = await home.move(file, f"sqlite:///{home.net.directory}/elsewhere-{number}.sqlite")
        assert done.aside == home.datadir.path / aside
        shutil.copy(home.net.directory / "alice.sqlite", home.datadir.database)


async def test_a_move_that_fails_leaves_the_wallet_where_it_is(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await home.backup("file")
    full = home.net.directory / "bob.sqlite"
    with pytest.raises(DatabaseNotEmpty):
        await home.move(file, f"sqlite:///{full}")
    assert home.files() >= {"db.sqlite"}
    assert not home.datadir.databases_aside()
    await home.start(None)
    # A kill, after which nobody can put anything back:
    url = f"sqlite:///{home.net.directory}/elsewhere.sqlite"
    with monkeypatch.context() as dying:
        dying.setattr(snapshot, "to_database", _die)
        dying.setattr(Datadir, "take_database", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            await home.move(file, url)
    for which in (None, url):
        with pytest.raises((DatabaseMoved, PropertiesMissing)):
            await home.start(which)
    await home.move(file, url)
    await home.start(url)


async def test_a_url_of_the_file_itself_is_no_other_database(home: Home) -> None:
    url = f"sqlite:///{home.datadir.database}"
    await home.start(url)
    with pytest.raises(BackupError, match="holds a wallet database"):
        await home.move(await home.backup("file"), url)


@pytest.mark.parametrize("kind", ["file", "sqlite", "postgresql"])
async def test_a_mnemonic_beside_an_empty_database_is_explained_and_nothing_is_made(
    home: Home, kind: str, request: pytest.FixtureRequest
) -> None:
    file = await home.backup("file")
    for path in home.datadir.path.glob("db.sqlite*"):
        path.unlink()
    elsewhere = home.net.directory / "elsewhere.sqlite"
    url, hint = f"sqlite:///{elsewhere}", "BARKD_DATABASE_URL names holds no wallet: is it the right one"
    if kind == "postgresql":
        url = await create_database(request.getfixturevalue("postgres"), "never_a_wallet")
    where, hint = (None, "is BARKD_DATABASE_URL missing") if kind == "file" else (url, hint)
    with pytest.raises(PropertiesMissing) as failure:
        await home.start(where)
    said = chain_text(failure.value)
    assert said.startswith("failed to read properties: there is a mnemonic in ")
    assert hint in said
    assert home.files() == set()
    assert not elsewhere.exists()
    if kind == "postgresql":
        with pytest.raises(snapshot.NoDatabase):  # not a table
            await make(home.datadir, url, home.net.directory / "none", now=NOW, with_mnemonic=False)
    # What an earlier version of this program left behind is in nobody's way.
    home.datadir.database.touch()
    await restore(file, home.datadir, None, ask_mnemonic=str, accept_stale=False, now=NOW, environment={})
    await home.start(None)
