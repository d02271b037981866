"""How the runtime makes and opens wallets: `WalletBackend` on `barkd_py.wallet.wallet.Wallet`."""

from collections.abc import Callable
from pathlib import Path

from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import InvalidMnemonic, parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.config import WalletConfig
from barkd_py.daemon.errors import DatabaseMoved, NoWalletInDatabase, OtherWalletInDatabase, TwoDatabases
from barkd_py.daemon.loops import Daemon
from barkd_py.daemon.wallet_api import NewWallet, WalletApi
from barkd_py.datadir import DATABASE_FILE, Datadir, ProcessLock
from barkd_py.wallet.creation import create_wallet
from barkd_py.wallet.store import Store, snapshot
from barkd_py.wallet.store.engine import name_of, parse_url
from barkd_py.wallet.store.migrate import DatabaseEmpty
from barkd_py.wallet.wallet import PropertiesMissing, Wallet, WrongMnemonic


class Backend:
    """Wallets whose database is a file of the data directory, or the one at a URL.

    database_url: of SQLite or PostgreSQL; it may hold a password, and is in no log or error.
    """

    def __init__(self, database_url: str | None = None) -> None:
        self._url = database_url

    async def create(self, datadir: Path, new: NewWallet, keep_words: Callable[[], None]) -> None:
        await create_wallet(
            self._database(datadir),
            seed=parse_mnemonic(new.mnemonic),
            network=new.network,
            config=new.config,
            birthday_height=new.birthday_height,
            recover=new.recover,
            without_server=new.without_server,
            keep_words=keep_words,
        )

    async def open(
        self, datadir: Path, mnemonic: str, load_config: Callable[[Network], WalletConfig]
    ) -> WalletApi:
        self._check_which(Datadir(datadir))
        await self._check_whose(datadir, mnemonic)
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

    async def holds_wallet(self, datadir: Path) -> bool:
        fingerprint = _fingerprint_of_words(Datadir(datadir))
        if fingerprint is None:
            return False
        return await Store.peek(str(self._database(datadir))) == fingerprint

    def database_name(self, datadir: Datadir) -> str:
        if self._url is None or not is_elsewhere(self._url, datadir):
            return ""
        return name_of(self._url)

    def empty_file(self, datadir: Datadir) -> Path | None:
        if self._url is None or not is_elsewhere(self._url, datadir):
            return None
        url = parse_url(self._url)
        if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
            return None
        file = Path(url.database or "").resolve()
        is_ours = file.is_file() and datadir.contains(file) and not snapshot.holds_wallet(file)
        return file if is_ours else None

    async def erase(self, datadir: Path, wallet: WalletApi | None) -> None:
        if self._url is None:
            if wallet is not None:
                await wallet.close()
            return  # the file is wiped with its directory
        if wallet is not None:
            assert isinstance(wallet, Wallet)
            await wallet.store.erase()  # and nobody has the lease before the caller closes it
        elif await self.holds_wallet(datadir):
            await self._erase_own(datadir)

    async def _erase_own(self, datadir: Path) -> None:
        assert self._url is not None
        store = await Store.open_existing(self._url)
        try:
            if await self.holds_wallet(datadir):  # still, now that nobody else can change that
                await store.erase()
        finally:
            await store.close()

    async def _check_whose(self, datadir: Path, mnemonic: str) -> None:
        """Before the lease is taken: who may never have the wallet must not be in anybody's way."""
        if self._url is None:
            return
        found = await Store.peek(self._url)
        if found is None:
            raise PropertiesMissing from NoWalletInDatabase(datadir, at_url=True)
        if found != WalletKeys(parse_mnemonic(mnemonic)).fingerprint:
            raise WrongMnemonic from OtherWalletInDatabase(found)

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


def lock_database(database_url: str | None, datadir: Datadir) -> ProcessLock | None:
    """Keep other daemons from a SQLite file that a URL names, whatever their data directories are.

    None where nothing is needed: PostgreSQL has its lease, and a data directory its lock. Raises
    DatadirLocked, DatadirError, StoreError.
    """
    if database_url is None:
        return None
    url = parse_url(database_url)
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    lock = datadir.lock_database_elsewhere(Path(url.database or ""))
    return None if lock is None else lock.acquire()


def _fingerprint_of_words(datadir: Datadir) -> str | None:
    """Of the wallet whose words are in the directory; None without words, or half of them."""
    if not datadir.mnemonic.exists():
        return None
    try:
        return WalletKeys(parse_mnemonic(datadir.read_mnemonic())).fingerprint
    except InvalidMnemonic:
        return None


async def check_database(database_url: str | None) -> None:
    """Look whether the database can be used, also before there is a wallet. Raises StoreError."""
    if database_url is not None:
        await Store.probe(database_url)
