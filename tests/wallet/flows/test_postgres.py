"""The daemon's whole life with a wallet whose rows are in PostgreSQL."""

from collections.abc import Callable
from pathlib import Path

import pytest

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.daemon.backend import Backend
from barkd_py.daemon.errors import CreationFailed
from barkd_py.daemon.new_wallet import CreateWallet, Esplora
from barkd_py.daemon.runtime import Runtime
from barkd_py.datadir import Datadir
from barkd_py.devnet.chain import faucet
from barkd_py.errors import chain_text
from barkd_py.wallet.movements import BOARD
from barkd_py.wallet.store import Store
from barkd_py.wallet.wallet import Wallet
from tests.wallet.flows.conftest import Net

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
