"""The daemon's whole life with a wallet whose rows are in PostgreSQL."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.daemon.backend import Backend
from barkd_py.daemon.errors import CreationFailed, DeletionFailed, WalletOutOfReach
from barkd_py.daemon.leftovers import ChangedElsewhere
from barkd_py.daemon.new_wallet import CreateWallet, Esplora
from barkd_py.daemon.runtime import Runtime
from barkd_py.daemon.wallet_api import WalletApi
from barkd_py.datadir import Datadir, DatadirError
from barkd_py.devnet.chain import faucet
from barkd_py.errors import WalletNotLoaded, chain_text
from barkd_py.wallet.movements import BOARD
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.properties import PropertiesRepository
from barkd_py.wallet.wallet import Wallet
from tests.support.processes import eventually
from tests.wallet.flows.conftest import ALICE, BOB, Net

BOARD_SAT = 100_000

NewRuntime = Callable[[], Runtime]


@pytest.fixture
def new_runtime(tmp_path: Path, postgres_database: str) -> NewRuntime:
    """A daemon's runtime; each is as after a restart of the daemon."""
    datadir = Datadir(tmp_path / "datadir")
    datadir.prepare()
    return lambda: Runtime(
        datadir, Backend(postgres_database), environment={"BARK_DAEMON_MANUAL_SYNC": "true"}
    )


@pytest.fixture
def request_(net: Net) -> CreateWallet:
    urls = net.devnet.urls
    return CreateWallet(
        Network.REGTEST, ark_server=urls.ark_server_url, chain_source=Esplora(urls.esplora_url)
    )


def loaded(runtime: Runtime) -> Wallet:
    wallet = runtime.wallet
    assert isinstance(wallet, Wallet)
    return wallet


async def board(net: Net, wallet: Wallet) -> None:
    assert wallet.onchain is not None
    script = parse_address(await wallet.onchain.next_address(), Network.REGTEST)
    await faucet.pay(net.devnet.node, [TxOut(2 * BOARD_SAT, script)])
    await net.mine()
    await wallet.onchain.sync()
    await wallet.board_amount(BOARD_SAT)
    await net.mine()
    await wallet.chain.fetch_tip()
    await wallet.boards.drive_all()


async def test_a_wallet_lives_in_postgresql(
    net: Net, new_runtime: NewRuntime, request_: CreateWallet, tmp_path: Path
) -> None:
    runtime = new_runtime()
    fingerprint = await runtime.create(request_)
    await board(net, loaded(runtime))
    balance = await loaded(runtime).balance()
    assert balance.spendable_sat > 0
    await runtime.close()
    assert not (tmp_path / "datadir" / "db.sqlite").exists()

    runtime = new_runtime()
    assert await runtime.open_existing()
    assert runtime.fingerprint == fingerprint
    assert (await loaded(runtime).balance()).spendable_sat == balance.spendable_sat
    (movement,) = await loaded(runtime).list_movements()
    assert movement.subsystem == BOARD
    await runtime.close()


async def test_a_deleted_wallet_leaves_no_rows(
    new_runtime: NewRuntime, request_: CreateWallet, postgres_database: str
) -> None:
    runtime = new_runtime()
    fingerprint = await runtime.create(request_)
    await loaded(runtime).new_address()
    await runtime.delete(fingerprint, dangerous=True)
    store = await Store.open(postgres_database)
    async with store.read() as tx:
        assert await tx.properties.find() is None
        assert await tx.keys.next_index() == 0
        assert await tx.onchain.load() is None
    await store.close()

    assert await runtime.create(request_) != fingerprint
    await runtime.close()


async def test_the_rows_of_another_wallet_are_not_overwritten(
    tmp_path: Path, new_runtime: NewRuntime, request_: CreateWallet, postgres_database: str
) -> None:
    first = new_runtime()
    fingerprint = await first.create(request_)
    await first.close()
    elsewhere = Datadir(tmp_path / "elsewhere")
    elsewhere.prepare()
    second = Runtime(elsewhere, Backend(postgres_database), environment={})

    with pytest.raises(CreationFailed) as refused:
        await second.create(request_)

    assert "the database holds a wallet already" in chain_text(refused.value)
    await second.close()
    first = new_runtime()
    assert await first.open_existing()
    assert first.fingerprint == fingerprint
    await first.close()


async def test_what_a_failed_creation_left_is_no_obstacle(
    new_runtime: NewRuntime, request_: CreateWallet, postgres_database: str
) -> None:
    store = await Store.open(postgres_database)
    async with store.transaction() as tx:
        await tx.mailbox.advance(7)
    await store.close()

    runtime = new_runtime()
    await runtime.create(request_)
    async with loaded(runtime).store.read() as tx:
        assert await tx.mailbox.checkpoint() == 0
    await runtime.close()


# --- whose rows they are


class Home:
    """A data directory, and the daemon on it. url: None is its own db.sqlite."""

    def __init__(self, path: Path, url: str | None) -> None:
        self.datadir = Datadir(path)
        self.datadir.prepare()
        self.url = url
        self.runtime = self.restarted()

    def restarted(self, backend: Backend | None = None) -> Runtime:
        """As a new process would begin."""
        environment = {"BARK_DAEMON_MANUAL_SYNC": "true"}
        self.runtime = Runtime(self.datadir, backend or Backend(self.url), environment=environment)
        return self.runtime

    def begin_creation(self) -> None:
        """The note of one; a kill comes before its end."""
        database = Backend(self.url).database_name(self.datadir)
        self.datadir.begin_creation(config_existed=False, database=database)

    def files(self) -> set[str]:
        return {path.name for path in self.datadir.path.glob("*")}


@pytest.fixture
async def first(tmp_path: Path, postgres_database: str) -> AsyncIterator[Home]:
    home = Home(tmp_path / "first", postgres_database)
    yield home
    await home.runtime.close()


@pytest.fixture
async def second(tmp_path: Path, postgres_database: str) -> AsyncIterator[Home]:
    home = Home(tmp_path / "second", postgres_database)
    yield home
    await home.runtime.close()


def share_words(first: Home, second: Home) -> None:
    for name in ("mnemonic", "config.toml"):
        (second.datadir.path / name).write_bytes((first.datadir.path / name).read_bytes())


async def test_words_are_not_rubbish_because_the_database_is_another(
    first: Home, request_: CreateWallet
) -> None:
    """A creation is killed at its very end, and the next start lacks the address of the database."""
    fingerprint = await first.runtime.create(request_)
    await first.runtime.close()
    first.begin_creation()
    words = first.datadir.read_mnemonic()

    for url in (None, f"{first.url}-2"):
        with pytest.raises(ChangedElsewhere) as caught:
            await first.restarted(Backend(url)).open_existing()
        assert str(caught.value).endswith(Backend(first.url).database_name(first.datadir))

    assert first.datadir.read_mnemonic() == words
    assert await first.restarted().open_existing()
    assert first.runtime.fingerprint == fingerprint
    assert not first.datadir.is_changing()


@pytest.mark.parametrize("left", ["nothing", "a note", "other words", "other words and a note"])
async def test_a_daemon_without_the_wallet_erases_nothing_of_it(
    first: Home, second: Home, request_: CreateWallet, left: str
) -> None:
    """The one who has it is down at the moment, so the database is free for everybody."""
    fingerprint = await first.runtime.create(request_)
    await first.runtime.close()
    if "other words" in left:
        second.datadir.write_mnemonic(BOB.words)
    if "note" in left:
        second.begin_creation()

    outcome = await second.runtime.delete(fingerprint, dangerous=True)

    assert (outcome.deleted, outcome.fingerprint) == (False, None)
    assert second.files() == set()
    if "note" in left:
        second.begin_creation()
        if "other words" in left:
            second.datadir.write_mnemonic(BOB.words)
        assert not await second.restarted().open_existing()
        assert second.files() == set()
    assert await first.restarted().open_existing()
    assert first.runtime.fingerprint == fingerprint


async def test_a_wallet_that_does_not_open_is_deleted_with_its_rows(
    first: Home, request_: CreateWallet, postgres_database: str
) -> None:
    await first.runtime.create(request_)
    await first.runtime.close()
    await first.restarted().delete("", dangerous=True)
    assert first.files() == set()
    assert await Store.peek(postgres_database) is None


class Killed(BaseException):
    """Nothing that is done about an error is done about this."""


MOMENTS = {
    "before the words are kept": (Datadir, "write_mnemonic"),
    "before there is a wallet": (PropertiesRepository, "create"),
    "when all is done": (Datadir, "end_change"),
}


async def killed(home: Home, request_: CreateWallet, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A creation by a daemon that dies."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    async def clean_nothing(*_: object, **__: object) -> None: ...

    with monkeypatch.context() as dying:
        dying.setattr(*MOMENTS[moment], die)
        dying.setattr(Runtime, "_clean_up", clean_nothing)
        with pytest.raises(Killed):
            await home.runtime.create(request_)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_creation_that_was_killed_is_repeated(
    tmp_path: Path,
    postgres_database: str,
    request_: CreateWallet,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    moment: str,
) -> None:
    home = Home(tmp_path / "home", postgres_database if kind == "postgresql" else None)
    await killed(home, request_, moment, monkeypatch)
    if moment == "when all is done":
        assert await home.restarted().open_existing()
        words = home.datadir.read_mnemonic()
        assert len(words.split()) == 12
    else:
        await home.runtime.create(request_)  # by the same daemon, of which only a task has died
        await home.runtime.delete(home.runtime.fingerprint or "", dangerous=True)
        await killed(home, request_, moment, monkeypatch)
        assert not await home.restarted().open_existing()
        assert home.files() <= {"LOCK"}
        await home.runtime.create(request_)
    fingerprint = home.runtime.fingerprint
    await home.runtime.close()
    assert await home.restarted().open_existing()
    assert home.runtime.fingerprint == fingerprint
    assert not home.datadir.is_changing()
    await home.runtime.close()


@pytest.mark.parametrize("moment", ["before the words are kept", "before there is a wallet"])
async def test_what_another_has_made_of_the_same_words_meanwhile_is_no_leftover(
    first: Home,
    second: Home,
    request_: CreateWallet,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """A creation is killed, and repeated on another machine; then the first one comes back."""
    from_words = replace(request_, mnemonic=ALICE.words)
    await killed(second, from_words, moment, monkeypatch)
    fingerprint = await first.runtime.create(from_words)
    await first.runtime.close()

    has_words = moment == "before there is a wallet"
    assert await second.restarted().open_existing() == has_words  # with the words, the two are a pair
    await second.runtime.close()
    if not has_words:
        with pytest.raises(CreationFailed):
            await second.restarted().create(from_words)
        await second.runtime.close()
    assert await first.restarted().open_existing()
    assert first.runtime.fingerprint == fingerprint


@pytest.mark.parametrize("when", ["write_mnemonic", "end_change"])
async def test_a_creation_that_fails_at_its_end_leaves_nothing(
    first: Home,
    request_: CreateWallet,
    postgres_database: str,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    def refuse(*_: object) -> None:
        raise DatadirError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Datadir, when, refuse)
        with pytest.raises(CreationFailed):
            await first.runtime.create(request_)
    assert first.files() == set()
    assert await Store.peek(postgres_database) is None
    await first.runtime.create(request_)


# --- deletion beside a daemon that stands by


class Deleting(Backend):
    """Before and after the rows are erased, the one that stands by tries to open the wallet.

    tries: one for each time that it has tried.
    """

    def __init__(self, url: str, tries: asyncio.Semaphore) -> None:
        super().__init__(url)
        self.tries = tries

    async def erase(self, datadir: Path, wallet: WalletApi | None) -> None:
        await self._let_it_try()
        await super().erase(datadir, wallet)
        await self._let_it_try()

    async def _let_it_try(self) -> None:
        while not self.tries.locked():
            await self.tries.acquire()
        await self.tries.acquire()


class Trying(Backend):
    def __init__(self, url: str, tries: asyncio.Semaphore) -> None:
        super().__init__(url)
        self.tries = tries

    async def open(self, *arguments: Any) -> WalletApi:
        try:
            return await super().open(*arguments)
        finally:
            self.tries.release()


async def test_a_wallet_is_deleted_under_the_eyes_of_who_stands_by(
    first: Home,
    second: Home,
    request_: CreateWallet,
    postgres_database: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries = asyncio.Semaphore(0)
    runtime = first.restarted(Deleting(postgres_database, tries))
    fingerprint = await runtime.create(request_)
    share_words(first, second)
    standby = second.restarted(Trying(postgres_database, tries))
    assert not await standby.open_existing()
    caplog.set_level(logging.WARNING, "barkd_py.daemon.standby")

    outcome = await runtime.delete(fingerprint, dangerous=True)

    assert (outcome.deleted, outcome.fingerprint) == (True, fingerprint)
    assert first.files() == set()
    with pytest.raises(WalletNotLoaded, match=r"^No wallet set$"):
        _ = runtime.wallet
    for _ in range(3):
        await tries.acquire()
    with pytest.raises(WalletOutOfReach) as gone:
        _ = standby.wallet
    assert "holds no wallet: is it the right one, and did nobody delete the wallet?" in chain_text(gone.value)
    said = [record.levelname for record in caplog.records if record.name == "barkd_py.daemon.standby"]
    assert said == ["WARNING", "ERROR"]  # it was tried four times or more since the wallet is gone
    assert len({record.getMessage() for record in caplog.records}) == len(caplog.records)

    other = await runtime.create(request_)

    async def why() -> str:
        with pytest.raises(WalletOutOfReach) as away:
            _ = standby.wallet
        return chain_text(away.value)

    said_at_last = await eventually(why, lambda text: f"holds another wallet, {other}" in text)
    assert "cannot open it" in said_at_last
    outcome = await standby.delete(fingerprint, dangerous=True)
    assert not outcome.deleted
    assert second.files() == set()
    assert not standby.is_standing_by
    assert loaded(runtime).fingerprint == other
    await loaded(runtime).new_address()


async def test_who_cannot_delete_stands_by(
    first: Home, second: Home, request_: CreateWallet, postgres_database: str
) -> None:
    """Another daemon is faster, after a failure of the network, say."""
    fingerprint = await first.runtime.create(request_)
    share_words(first, second)
    wallet = loaded(first.runtime)

    class Interrupted(Backend):
        async def erase(self, *arguments: Any) -> None:
            await wallet.store.close()  # its connections are cut
            assert await second.runtime.open_existing()
            await super().erase(*arguments)

    first.runtime._backend = Interrupted(postgres_database)
    with pytest.raises(DeletionFailed):
        await first.runtime.delete(fingerprint, dangerous=True)
    assert first.runtime.is_standing_by
    assert not first.datadir.is_changing()
    assert loaded(second.runtime).fingerprint == fingerprint
    await second.runtime.close()

    async def again() -> str | None:
        return first.runtime.fingerprint

    assert await eventually(again, lambda found: found is not None) == fingerprint


@pytest.mark.parametrize("erased", [False, True])
async def test_a_deletion_that_was_killed_is_all_or_nothing(
    first: Home, request_: CreateWallet, postgres_database: str, erased: bool
) -> None:
    class Dying(Backend):
        async def erase(self, *arguments: Any) -> None:
            if erased:
                await super().erase(*arguments)
            raise Killed

    fingerprint = await first.restarted(Dying(postgres_database)).create(request_)
    with pytest.raises(Killed):
        await first.runtime.delete(fingerprint, dangerous=True)
    assert await first.restarted().open_existing() is not erased
    assert first.runtime.fingerprint == (None if erased else fingerprint)
    assert not first.datadir.is_changing()
    assert first.datadir.mnemonic.exists() is not erased
