"""Wallets on a whole devnet in this process: a real chain, a real Ark server, and faults on demand."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.bip32 import Seed, generate_mnemonic
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.config import WalletConfig
from barkd_py.devnet import faucet
from barkd_py.devnet.ark_server.faults import Fault
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.block import COINBASE_MATURITY
from barkd_py.devnet.chain import LocalNode
from barkd_py.devnet.runner import Devnet, DevnetOptions, running_devnet
from barkd_py.wallet.store import Store
from barkd_py.wallet.wallet import Wallet


@dataclass
class Net:
    """Devnet, and what tests do with it."""

    devnet: Devnet
    directory: Path
    _wallets: int = field(default=0)

    async def mine(self, count: int = 1) -> None:
        await self.devnet.node.mine(count)

    def fault(self, rpc: str, **description: object) -> int:
        return self.devnet.ark_server.faults.set(Fault.from_json({"rpc": rpc, **description}))

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
    async def wallet(self, seed: Seed | None = None, **changes: object) -> AsyncIterator["Owner"]:
        """A new wallet, closed at the end."""
        self._wallets += 1
        owner = Owner(self, self.directory / f"{self._wallets}.sqlite", seed or generate_mnemonic(), changes)
        await Wallet.create(
            owner.database, seed=owner.seed, network=Network.REGTEST, config=self.config(**changes)
        )
        await owner.open()
        try:
            yield owner
        finally:
            await owner.wallet.close()


@dataclass
class Owner:
    """Somebody with a wallet."""

    net: Net
    database: Path
    seed: Seed
    changes: dict[str, object]
    wallet: Wallet = field(init=False)

    async def open(self, open_store: Callable[[str], Awaitable[Store]] = Store.open) -> Wallet:
        self.wallet = await Wallet.open(
            self.database,
            seed=self.seed,
            load_config=lambda _: self.net.config(**self.changes),
            open_store=open_store,
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

    async def spendable_sat(self) -> int:
        return (await self.wallet.balance()).spendable_sat


@pytest.fixture
def server_settings() -> ServerSettings:
    """Tests that need another server override it."""
    return ServerSettings()


@pytest.fixture(scope="session")
def mined_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a devnet that has mined its first blocks and was stopped; copied for each test."""
    directory = tmp_path_factory.mktemp("mined") / "devnet"

    async def mine() -> None:
        node = LocalNode(_made(directory / "chain"))
        await node.mine(COINBASE_MATURITY + 20)
        await node.close()

    asyncio.run(mine())
    return directory


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
async def net(tmp_path: Path, mined_directory: Path, server_settings: ServerSettings) -> AsyncIterator[Net]:
    shutil.copytree(mined_directory, tmp_path / "devnet")
    options = DevnetOptions(tmp_path / "devnet", ark_settings=server_settings)
    async with running_devnet(options) as devnet:
        wallets = tmp_path / "wallets"
        wallets.mkdir()
        yield Net(devnet, wallets)


@pytest.fixture
async def alice(net: Net) -> AsyncIterator[Owner]:
    async with net.wallet() as owner:
        yield owner


@pytest.fixture
async def bob(net: Net) -> AsyncIterator[Owner]:
    async with net.wallet() as owner:
        yield owner
