"""How the runtime makes and opens wallets: `WalletBackend` on `barkd_py.wallet.wallet.Wallet`."""

from collections.abc import Callable
from pathlib import Path

from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.config import WalletConfig
from barkd_py.daemon.errors import DatabaseMoved, NoWalletInDatabase, TwoDatabases
from barkd_py.daemon.loops import Daemon
from barkd_py.daemon.wallet_api import NewWallet, WalletApi, WalletBackend
from barkd_py.datadir import DATABASE_FILE, Datadir
from barkd_py.wallet.creation import create_wallet
from barkd_py.wallet.store import Store, snapshot
from barkd_py.wallet.store.engine import parse_url
from barkd_py.wallet.store.migrate import DatabaseEmpty
from barkd_py.wallet.store.properties import WalletExists
from barkd_py.wallet.wallet import PropertiesMissing, Wallet


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
        self._check_which(Datadir(datadir))
        try:
            wallet = await Wallet.open(
                self._database(datadir),
                seed=parse_mnemonic(mnemonic),
                load_config=load_config,
                open_store=Store.open_existing,
            )
        except (PropertiesMissing, DatabaseEmpty):
            raise PropertiesMissing from NoWalletInDatabase(datadir, at_url=self._url is not None)
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

    def _check_which(self, datadir: Datadir) -> None:
        """A wallet that has moved is not run where it was. Raises TwoDatabases, DatabaseMoved."""
        if is_elsewhere(self._url, datadir):
            if snapshot.holds_wallet(datadir.database):
                raise TwoDatabases(datadir.database)
        elif not datadir.database.exists() and (aside := datadir.databases_aside()):
            raise DatabaseMoved(aside[-1])

    def _database(self, datadir: Path) -> Path | str:
        return datadir / DATABASE_FILE if self._url is None else self._url


def is_elsewhere(database_url: str | None, datadir: Datadir) -> bool:
    """Whether a URL names another database than the data directory's own file. Raises StoreError."""
    if database_url is None:
        return False
    url = parse_url(database_url)
    if url.get_backend_name() != "sqlite":
        return True
    return Path(url.database or "").resolve() != datadir.database.resolve()


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


async def check_database(database_url: str | None) -> None:
    """Look whether the database can be used, also before there is a wallet. Raises StoreError."""
    if database_url is not None:
        await Store.probe(database_url)


def default_backend(database_url: str | None = None) -> WalletBackend:
    return Backend(database_url)
