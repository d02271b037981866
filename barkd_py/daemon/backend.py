"""How the runtime makes and opens wallets: `WalletBackend` on `barkd_py.wallet.wallet.Wallet`."""

from collections.abc import Callable
from pathlib import Path

from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.config import WalletConfig
from barkd_py.daemon.loops import Daemon
from barkd_py.daemon.wallet_api import NewWallet, WalletApi, WalletBackend
from barkd_py.datadir import DATABASE_FILE
from barkd_py.wallet.creation import create_wallet
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.properties import WalletExists
from barkd_py.wallet.wallet import Wallet


class Backend:
    """Wallets whose database is a file of the data directory, or the one at a URL.

    database_url: of SQLite or PostgreSQL; it may hold a password, and is in no log or error.
    """

    def __init__(self, database_url: str | None = None) -> None:
        self._url = database_url

    async def create(self, datadir: Path, new: NewWallet) -> None:
        if self._url is not None:
            await _clear(self._url)
        await create_wallet(
            self._database(datadir),
            seed=parse_mnemonic(new.mnemonic),
            network=new.network,
            config=new.config,
            birthday_height=new.birthday_height,
            recover=new.recover,
            without_server=new.without_server,
        )

    async def open(
        self, datadir: Path, mnemonic: str, load_config: Callable[[Network], WalletConfig]
    ) -> WalletApi:
        wallet = await Wallet.open(
            self._database(datadir), seed=parse_mnemonic(mnemonic), load_config=load_config
        )
        wallet.background = Daemon(wallet)
        return wallet

    async def erase(self) -> None:
        if self._url is None:
            return  # the file is wiped with its directory
        store = await Store.open(self._url)
        try:
            await store.erase()
        finally:
            await store.close()

    def _database(self, datadir: Path) -> Path | str:
        return datadir / DATABASE_FILE if self._url is None else self._url


async def _clear(url: str) -> None:
    """Remove what a failed creation has left. Raises WalletExists if the database holds a whole wallet."""
    store = await Store.open(url)
    try:
        async with store.read() as tx:
            if await tx.properties.find() is not None:
                raise WalletExists
        await store.erase()
    finally:
        await store.close()


def default_backend(database_url: str | None = None) -> WalletBackend:
    return Backend(database_url)
