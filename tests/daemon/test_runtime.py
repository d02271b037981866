"""Creating, opening and deleting the wallet, with a backend in memory and a real data directory."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from barkd_py.bitcoin.units import Network
from barkd_py.config import ConfigError
from barkd_py.daemon.errors import (
    CreationFailed,
    DeletionFailed,
    FingerprintMismatch,
    WalletAlreadySet,
    WalletOutOfReach,
)
from barkd_py.daemon.new_wallet import Bitcoind, CreateWallet, Esplora, UserPassAuth
from barkd_py.daemon.runtime import Runtime
from barkd_py.datadir import Datadir, DatadirLocked, UnexpectedContents
from barkd_py.errors import BarkdError, ServerUnavailable, StoreError, WalletNotLoaded, chain_text
from tests.fakes.wallet import FakeBackend
from tests.support.api_server import MNEMONIC
from tests.support.processes import eventually

REQUEST = CreateWallet(
    Network.REGTEST, ark_server="http://127.0.0.1:3535", chain_source=Esplora("http://127.0.0.1:3000")
)


class Setup:
    def __init__(self, directory: Path) -> None:
        self.datadir = Datadir(directory)
        self.datadir.prepare()
        (directory / "barkd.lock").touch()
        (directory / "auth_token").touch()
        self.backend = FakeBackend()
        self.runtime = Runtime(self.datadir, self.backend, environment={})

    def files(self) -> set[str]:
        return {entry.name for entry in self.datadir.path.iterdir()} - {"barkd.lock", "auth_token"}


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path / "d")


async def _refusal(setup: Setup, request: CreateWallet) -> str:
    with pytest.raises(BarkdError) as refused:
        await setup.runtime.create(request)
    return chain_text(refused.value)


# --- create


async def test_a_new_wallet_is_loaded_and_working(setup: Setup) -> None:
    fingerprint = await setup.runtime.create(REQUEST)
    assert setup.runtime.fingerprint == fingerprint
    assert setup.backend.opened[-1].started
    assert setup.files() == {"config.toml", "mnemonic", "db.sqlite", "LOCK"}
    modes = {
        name: (setup.datadir.path / name).stat().st_mode & 0o777
        for name in ("config.toml", "mnemonic", "db.sqlite")
    }
    assert set(modes.values()) == {0o600}
    new = setup.backend.created[-1]
    assert len(new.mnemonic.split()) == 12
    assert (new.recover, new.without_server, new.birthday_height) == (False, False, None)
    assert new.mnemonic not in repr(new)
    await setup.runtime.close()


async def test_a_wallet_from_words_is_a_recovery(setup: Setup) -> None:
    spaced = "  ".join(MNEMONIC.split())
    bitcoind = Bitcoind("127.0.0.1:18443", UserPassAuth("u", 'p"\n'))
    await setup.runtime.create(replace(REQUEST, chain_source=bitcoind, mnemonic=spaced, birthday_height=7))
    new = setup.backend.created[-1]
    assert (new.recover, new.birthday_height) == (True, 7)
    assert setup.datadir.mnemonic.read_text() == MNEMONIC
    assert new.config.bitcoind_address == "http://127.0.0.1:18443"
    assert new.config.bitcoind_pass == 'p"\n'
    await setup.runtime.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ark_server": None}, "missing --ark arg"),
        ({"birthday_height": 5}, "Can't set --birthday-height if --mnemonic is not set."),
    ],
)
async def test_requests_that_make_no_wallet_leave_nothing(
    setup: Setup, change: dict[str, object], message: str
) -> None:
    request = replace(REQUEST, **change)  # type: ignore[arg-type]
    assert await _refusal(setup, request) == f"Error while creating wallet: {message}"
    assert setup.files() == set()
    assert setup.runtime.fingerprint is None


async def test_a_second_wallet_is_refused_before_its_words_are_looked_at(setup: Setup) -> None:
    await setup.runtime.create(REQUEST)
    with pytest.raises(WalletAlreadySet):
        await setup.runtime.create(replace(REQUEST, mnemonic="nonsense"))
    await setup.runtime.close()


async def test_bad_words_leave_the_directory_alone(setup: Setup) -> None:
    (setup.datadir.path / "foreign").touch()
    message = await _refusal(setup, replace(REQUEST, mnemonic="two words", force=True))
    assert message.startswith("bad request: Invalid mnemonic: mnemonic has an invalid word count: 2.")
    assert setup.files() == {"foreign"}


async def test_foreign_files_are_in_the_way_unless_forced(setup: Setup) -> None:
    (setup.datadir.path / "foreign").touch()
    with pytest.raises(UnexpectedContents):
        await setup.runtime.create(REQUEST)
    assert setup.files() == {"foreign"}
    await setup.runtime.create(replace(REQUEST, force=True))
    assert "foreign" not in setup.files()
    assert setup.backend.created[-1].without_server
    await setup.runtime.close()


async def test_a_failed_creation_leaves_the_token_and_the_lock_only(setup: Setup) -> None:
    setup.backend.create_failure = ServerUnavailable("no server")
    assert await _refusal(setup, REQUEST) == "Error while creating wallet: no server"
    assert setup.files() == set()
    setup.backend.create_failure = None
    await setup.runtime.create(REQUEST)
    await setup.runtime.close()


async def test_a_failed_creation_keeps_the_config_that_was_there(setup: Setup) -> None:
    setup.datadir.config.write_text('esplora_address = "http://e"\nserver_address = "http://s"\n')
    setup.backend.create_failure = ServerUnavailable("no server")
    with pytest.raises(CreationFailed):
        await setup.runtime.create(CreateWallet(Network.REGTEST))
    assert setup.files() == {"config.toml", "LOCK"}
    setup.backend.create_failure = None
    await setup.runtime.create(CreateWallet(Network.REGTEST))
    assert setup.backend.created[-1].config.esplora_address == "http://e"
    await setup.runtime.close()


async def test_a_config_that_is_no_toml(setup: Setup) -> None:
    setup.datadir.config.write_text("this is = not toml = x\n")
    message = await _refusal(setup, CreateWallet(Network.REGTEST))
    assert message.startswith(
        f"Error while creating wallet: error loading existing config file at {setup.datadir.config}: "
        "error building config: TOML parse error at line 1, column 6\n"
    )
    assert setup.datadir.config.exists()


async def test_a_wallet_that_does_not_open_after_creation_is_kept(setup: Setup) -> None:
    setup.backend.open_failure = ServerUnavailable("not now")
    assert await _refusal(setup, REQUEST) == "not now"
    assert {"mnemonic", "db.sqlite", "config.toml"} <= setup.files()
    again = await _refusal(setup, REQUEST)
    assert again.startswith("Datadir has unexpected contents: ")
    setup.backend.open_failure = None
    assert await setup.runtime.open_existing()
    await setup.runtime.close()


async def test_creation_goes_on_without_its_caller(setup: Setup) -> None:
    caller = asyncio.create_task(setup.runtime.create(REQUEST))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await setup.runtime.close()  # waits for it
    assert len(setup.backend.created) == 1
    assert setup.backend.opened[-1].closed


async def killed_creation(setup: Setup, monkeypatch: pytest.MonkeyPatch, request: CreateWallet) -> None:
    setup.backend.create_failure = ServerUnavailable("the power went out")
    with monkeypatch.context() as dead:
        dead.setattr(Runtime, "_clean_up", _do_nothing)  # a killed process cleans nothing up
        with pytest.raises(CreationFailed):
            await setup.runtime.create(request)
    assert {"config.toml", "db.sqlite"} <= setup.files()
    setup.backend.create_failure = None


async def _do_nothing(*_: object, **__: object) -> None: ...


async def test_a_creation_that_was_killed_is_begun_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    await killed_creation(setup, monkeypatch, REQUEST)
    await setup.runtime.create(REQUEST)  # a daemon whose task died
    await setup.runtime.delete(setup.runtime.fingerprint or "", dangerous=True)

    await killed_creation(setup, monkeypatch, REQUEST)
    restarted = Runtime(setup.datadir, setup.backend, environment={})
    assert not await restarted.open_existing()
    assert setup.files() <= {"LOCK"}
    await restarted.create(REQUEST)
    await restarted.close()
    assert await Runtime(setup.datadir, setup.backend, environment={}).open_existing()
    assert ".creation" not in setup.files()


async def test_settings_from_before_a_killed_creation_stay(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'server_address = "http://ark"\nesplora_address = "http://esplora"\n'
    setup.datadir.prepare()
    setup.datadir.config.write_text(text)
    await killed_creation(setup, monkeypatch, CreateWallet(Network.REGTEST))
    await setup.runtime.create(CreateWallet(Network.REGTEST))
    assert setup.datadir.config.read_text() == text
    await setup.runtime.close()


async def test_a_note_that_was_left_beside_a_wallet_does_no_harm(setup: Setup) -> None:
    fingerprint = await setup.runtime.create(REQUEST)
    await setup.runtime.close()
    setup.datadir.begin_creation(config_existed=False, database="")  # the kill came just before its end
    restarted = Runtime(setup.datadir, setup.backend, environment={})
    assert await restarted.open_existing()
    assert restarted.fingerprint == fingerprint
    assert ".creation" not in setup.files()
    await restarted.close()


def old_deletion(setup: Setup) -> None:
    """As the version left it that did not tell a deletion from a creation: words and rows are gone."""
    setup.datadir.prepare()
    (setup.datadir.path / ".creation").write_text("\n\n\n")
    for name in ("db.sqlite", "db.sqlite.moved-2026-11-01", "config.toml"):
        (setup.datadir.path / name).touch()


async def test_a_deletion_that_an_earlier_version_began_is_completed(setup: Setup) -> None:
    old_deletion(setup)
    (setup.datadir.path / "something").mkdir()
    assert not await setup.runtime.open_existing()
    assert setup.files() == set()
    await setup.runtime.create(REQUEST)
    await setup.runtime.close()


@pytest.mark.parametrize("where", ["file", "deep/file"])
async def test_no_backup_goes_with_what_an_earlier_version_began(setup: Setup, where: str) -> None:
    old_deletion(setup)
    file = setup.datadir.path / where
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as backup:
        backup.execute("CREATE TABLE backup (name, value)")
        backup.execute("CREATE TABLE properties (fingerprint)")
        backup.commit()
    lock = setup.datadir.lock_wallet().acquire()
    assert not await setup.runtime.open_existing()
    assert setup.files() == {Path(where).parts[0], "db.sqlite.moved-2026-11-01", "LOCK"}
    assert file.exists()
    assert_locked(setup.datadir.path / "LOCK")
    lock.release()


def assert_locked(path: Path) -> None:
    """By this process, as another one sees it."""
    look = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", look, str(path)], capture_output=True, check=False)
    assert b"BlockingIOError" in done.stderr


async def test_a_killed_creation_takes_nothing_that_it_has_not_made(setup: Setup) -> None:
    setup.datadir.prepare()
    setup.datadir.begin_creation(config_existed=False, database="")
    for name in ("db.sqlite", "db.sqlite.moved-2026-11-01", "config.toml"):
        (setup.datadir.path / name).touch()
    assert not await setup.runtime.open_existing()
    assert setup.files() == {"db.sqlite.moved-2026-11-01"}


async def test_the_recovery_of_old_words_is_waited_for(setup: Setup) -> None:
    await setup.runtime.create(REQUEST)
    assert setup.backend.opened[-1].recovery.resumed == 0  # there is nothing to find for new words
    await setup.runtime.delete(setup.runtime.fingerprint or "", dangerous=True)
    await setup.runtime.create(replace(REQUEST, mnemonic="abandon " * 11 + "about"))
    assert setup.backend.opened[-1].recovery.resumed == 1
    await setup.runtime.close()


# --- open


async def test_without_a_mnemonic_there_is_nothing_to_open(setup: Setup) -> None:
    assert not await setup.runtime.open_existing()
    with pytest.raises(WalletNotLoaded):
        _ = setup.runtime.wallet


async def test_a_wallet_survives_a_restart(setup: Setup) -> None:
    fingerprint = await setup.runtime.create(replace(REQUEST, gap_limit=300))
    await setup.runtime.close()
    again = Runtime(setup.datadir, setup.backend, environment={"BARK_SERVER_ADDRESS": "http://env"})
    assert await again.open_existing()
    assert again.fingerprint == fingerprint
    config = again.config
    assert config is not None
    assert (config.vtxo_key_gap_limit, config.server_address) == (300, "http://env")
    await again.close()


async def test_broken_words_do_not_open(setup: Setup) -> None:
    setup.datadir.write_mnemonic("two words")
    with pytest.raises(ConfigError) as broken:
        await setup.runtime.open_existing()
    assert chain_text(broken.value).startswith("broken mnemonic: mnemonic has an invalid word count: 2.")


async def test_a_wallet_in_use_elsewhere_does_not_open(setup: Setup) -> None:
    await setup.runtime.create(REQUEST)
    await setup.runtime.close()
    lock = setup.datadir.lock_wallet().acquire()
    with pytest.raises(DatadirLocked) as locked:
        await setup.runtime.open_existing()
    assert str(locked.value).endswith(f"(holder PID: {os.getpid()})")
    lock.release()
    assert await setup.runtime.open_existing()
    await setup.runtime.close()


# --- delete


async def test_deletion_unloads_and_wipes(setup: Setup) -> None:
    fingerprint = await setup.runtime.create(REQUEST)
    wallet = setup.backend.opened[-1]
    (setup.datadir.path / "debug.log").touch()
    outcome = await setup.runtime.delete(fingerprint, dangerous=True)
    assert (outcome.deleted, outcome.fingerprint) == (True, fingerprint)
    assert wallet.closed
    assert setup.runtime.fingerprint is None
    assert setup.files() == set()
    assert (setup.datadir.path / "auth_token").exists()
    await setup.runtime.create(REQUEST)
    await setup.runtime.close()


async def test_deletion_erases_what_is_kept_elsewhere(setup: Setup) -> None:
    fingerprint = await setup.runtime.create(REQUEST)
    await setup.runtime.delete(fingerprint, dangerous=True)
    assert setup.backend.erased == 1


async def test_a_database_that_cannot_be_erased_leaves_the_mnemonic(setup: Setup) -> None:
    fingerprint = await setup.runtime.create(REQUEST)
    setup.backend.erase_failure = StoreError("cannot reach the database")
    with pytest.raises(DeletionFailed):
        await setup.runtime.delete(fingerprint, dangerous=True)
    assert "mnemonic" in setup.files()
    setup.backend.erase_failure = None
    await setup.runtime.delete("", dangerous=True)
    assert setup.files() == set()


async def test_who_fails_to_delete_has_the_wallet_again(setup: Setup) -> None:
    fingerprint = await setup.runtime.create(REQUEST)
    setup.backend.erase_failure = StoreError("cannot reach the database")
    with pytest.raises(DeletionFailed):
        await setup.runtime.delete(fingerprint, dangerous=True)
    with pytest.raises(WalletOutOfReach) as away:
        _ = setup.runtime.wallet
    assert chain_text(away.value).endswith("cannot open it: cannot reach the database")

    async def again() -> str | None:
        return setup.runtime.fingerprint

    assert await eventually(again, lambda found: found is not None) == fingerprint
    assert ".creation" not in setup.files()
    await setup.runtime.close()


async def test_a_creation_that_fails_when_the_words_are_kept_leaves_none(setup: Setup) -> None:
    setup.backend.commit_failure = StoreError("disk full")
    with pytest.raises(CreationFailed):
        await setup.runtime.create(REQUEST)
    assert setup.files() == set()


async def test_words_stay_while_nobody_can_tell_whether_they_are_of_a_wallet(setup: Setup) -> None:
    setup.backend.commit_failure = setup.backend.erase_failure = StoreError("cannot reach the database")
    with pytest.raises(CreationFailed):
        await setup.runtime.create(REQUEST)
    assert {".creation", "mnemonic"} <= setup.files()
    setup.datadir.database.write_text(setup.datadir.read_mnemonic())  # it was the answer that was lost
    assert await Runtime(setup.datadir, setup.backend, environment={}).open_existing()


async def test_the_wrong_fingerprint_deletes_nothing(setup: Setup) -> None:
    fingerprint = await setup.runtime.create(REQUEST)
    for wrong in ("00000000", fingerprint.upper() if fingerprint.upper() != fingerprint else "x", ""):
        with pytest.raises(FingerprintMismatch):
            await setup.runtime.delete(wrong, dangerous=True)
    assert setup.runtime.fingerprint == fingerprint
    await setup.runtime.close()


async def test_without_a_wallet_leftovers_are_wiped_whatever_the_fingerprint(setup: Setup) -> None:
    (setup.datadir.path / "mnemonic").touch()
    outcome = await setup.runtime.delete("anything", dangerous=True)
    assert (outcome.deleted, outcome.fingerprint) == (False, None)
    assert setup.files() == set()


async def test_nothing_is_created_while_the_daemon_stops(setup: Setup) -> None:
    setup.runtime.begin_stop()
    with pytest.raises(BarkdError, match="shutting down"):
        await setup.runtime.create(REQUEST)
    assert setup.files() == set()
