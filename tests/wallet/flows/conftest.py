"""Wallets on a whole devnet in this process: a real chain, a real Ark server, and faults on demand."""

import asyncio
import itertools
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.bip32 import Seed, generate_mnemonic, parse_mnemonic
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.config import WalletConfig
from barkd_py.devnet.ark_server.chain import NodeChain
from barkd_py.devnet.ark_server.faults import Fault
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.runner import Devnet, DevnetOptions, running_devnet
from barkd_py.devnet.state_dir import STATE_FILE
from barkd_py.wallet.creation import create_wallet
from barkd_py.wallet.movements import Movement, Subsystem
from barkd_py.wallet.store import Store, snapshot
from barkd_py.wallet.store.transaction import OpenStore
from barkd_py.wallet.vtxo_states import WalletVtxo
from barkd_py.wallet.wallet import Wallet
from tests.support.postgres import Cluster
from tests.wallet.conftest import create_database
from tests.wallet.flows.databases import CHOSEN, KINDS, Databases, PostgresDatabases, SqliteFiles

ALICE = parse_mnemonic("abandon " * 11 + "about")
BOB = parse_mnemonic("legal winner thank year wave sausage worth useful legal winner thank yellow")


@dataclass
class Net:
    """Devnet, and what tests do with it."""

    devnet: Devnet
    directory: Path
    databases: Databases

    async def mine(self, count: int = 1) -> None:
        await self.devnet.node.mine(count)

    def fault(self, rpc: str, **description: object) -> int:
        return self.devnet.ark_server.faults.set(Fault.from_json({"rpc": rpc, **description}))

    async def restart_ark_server(self) -> None:
        """Stop the server, as a kill would between two steps, and start it again on the same port."""
        old = self.devnet.ark_server
        await old.stop()
        new = await ArkServer.start(
            self.directory / "devnet" / "ark-server",
            NodeChain(self.devnet.node),
            settings=old.settings,
            faults=old.faults,
            address=f"127.0.0.1:{old.port}",
            admin_address=f"127.0.0.1:{old.admin_port}",
            clock=self.devnet.clock,
        )
        self.devnet = replace(self.devnet, ark_server=new)

    def honest(self) -> None:
        self.devnet.ark_server.faults.clear()

    def config(self, **changes: object) -> WalletConfig:
        return WalletConfig.model_validate(
            {
                "server_address": self.devnet.urls.ark_server_url,
                "esplora_address": self.devnet.urls.esplora_url,
                "vtxo_refresh_expiry_threshold": 12,
                "fallback_fee_rate": 250,
                "offboard_required_confirmations": 0,
                **changes,
            }
        )

    @asynccontextmanager
    async def wallet(self, name: str, seed: Seed | None = None, **changes: object) -> AsyncIterator["Owner"]:
        """A new wallet, closed at the end."""
        seed = seed or generate_mnemonic()
        await create_wallet(
            await self.database(name), seed=seed, network=Network.REGTEST, config=self.config(**changes)
        )
        async with self.owner(name, seed, **changes) as owner:
            yield owner

    @asynccontextmanager
    async def owner(self, name: str, seed: Seed, **changes: object) -> AsyncIterator["Owner"]:
        """A wallet that exists, opened, and closed at the end."""
        owner = Owner(self, await self.database(name), seed, changes)
        await owner.open()
        try:
            yield owner
        finally:
            await owner.wallet.close()

    async def database(self, name: str) -> str:
        """The path or URL of somebody's database."""
        return await self.databases.url(name)


@dataclass
class Owner:
    """Somebody with a wallet."""

    net: Net
    database: str
    seed: Seed
    changes: dict[str, object]
    wallet: Wallet = field(init=False)

    async def open(
        self, open_store: OpenStore = Store.open, *, now: Callable[[], float] = time.time
    ) -> Wallet:
        self.wallet = await Wallet.open(
            self.database,
            seed=self.seed,
            load_config=lambda _: self.net.config(**self.changes),
            open_store=open_store,
            now=now,
        )
        return self.wallet

    async def restart(self) -> Wallet:
        """Close and open again, as after a stop of the daemon."""
        await self.wallet.close()
        return await self.open()

    async def fund_onchain(self, amount_sat: int) -> None:
        assert self.wallet.onchain is not None
        address = await self.wallet.onchain.next_address()
        script = parse_address(address, Network.REGTEST)
        await faucet.pay(self.net.devnet.node, [TxOut(amount_sat, script)])
        await self.net.mine()
        await self.wallet.onchain.sync()

    async def board(self, amount_sat: int) -> None:
        """Board and wait until it is spendable."""
        await self.fund_onchain(amount_sat + 10_000)
        await self.wallet.board_amount(amount_sat)
        await self.net.mine()
        await self.wallet.chain.fetch_tip()
        await self.wallet.boards.drive_all()

    async def only_vtxo(self) -> WalletVtxo:
        (vtxo,) = await self.wallet.list_vtxos(include_all=False)
        return vtxo

    async def movements(self, subsystem: Subsystem) -> list[Movement]:
        return [each for each in await self.wallet.list_movements() if each.subsystem == subsystem]

    async def spendable_sat(self) -> int:
        return (await self.wallet.balance()).spendable_sat


@pytest.fixture
def server_settings() -> ServerSettings:
    """Tests that need another server override it."""
    return ServerSettings()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped devnet with the wallets of `alice`, who has boarded 500 000 sat, and `bob`; for copying."""
    directory = tmp_path_factory.mktemp("template")

    async def make() -> None:
        async with _running(directory, ServerSettings(), SqliteFiles(directory)) as net:
            async with net.wallet("alice", ALICE) as alice:
                await alice.board(500_000)
                await alice.wallet.registration.catch_up()
            async with net.wallet("bob", BOB):
                pass

    asyncio.run(make())
    return directory


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_templates(template: Path, postgres: Cluster) -> dict[str, str]:
    """The names of databases with the wallets of the template."""
    templates = {name: f"template_{name}" for name in ("alice", "bob")}
    for name, database in templates.items():
        await snapshot.to_database(template / f"{name}.sqlite", await create_database(postgres, database))
    return templates


_tests = itertools.count()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that are marked `both_stores` run on both kinds, unless one was chosen."""
    is_marked = metafunc.definition.get_closest_marker("both_stores") is not None
    if is_marked and CHOSEN is None and "store_kind" in metafunc.fixturenames:
        metafunc.parametrize("store_kind", KINDS, indirect=True)


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    kind: str = getattr(request, "param", CHOSEN or KINDS[0])
    assert kind in KINDS, f"BARKD_TEST_STORE={kind}"
    return kind


@pytest.fixture
def databases(store_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Databases:
    if store_kind == "sqlite":
        return SqliteFiles(tmp_path)
    cluster: Cluster = request.getfixturevalue("postgres")
    templates: dict[str, str] = request.getfixturevalue("postgres_templates")
    return PostgresDatabases(cluster, f"test_{next(_tests)}", templates)


@asynccontextmanager
async def _running(directory: Path, settings: ServerSettings, databases: Databases) -> AsyncIterator[Net]:
    async with running_devnet(DevnetOptions(directory / "devnet", ark_settings=settings)) as devnet:
        net = Net(devnet, directory, databases)
        yield net
        await net.devnet.ark_server.stop()


@pytest.fixture
async def net(
    tmp_path: Path, template: Path, databases: Databases, server_settings: ServerSettings
) -> AsyncIterator[Net]:
    # Not the ports of the template: by now they may be somebody's, and they would be for all tests to come.
    shutil.copytree(template, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(STATE_FILE))
    async with _running(tmp_path, server_settings, databases) as running:
        yield running
    if isinstance(databases, PostgresDatabases):
        await databases.drop()


@pytest.fixture
async def alice(net: Net) -> AsyncIterator[Owner]:
    """Has one VTXO of 500 000 sat less the board fee."""
    async with net.owner("alice", ALICE) as owner:
        yield owner


@pytest.fixture
async def bob(net: Net) -> AsyncIterator[Owner]:
    """Has nothing."""
    async with net.owner("bob", BOB) as owner:
        yield owner
