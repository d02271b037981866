"""The runtime: at most one loaded wallet, and how it is created, opened, deleted and closed.

Creating and deleting exclude each other by one lock. A creation writes, in this order: the directory
(0700), a note that a wallet is being made, `config.toml`, the wallet's database, and last `mnemonic` (before
the first address is handed out, never over another one): a directory without that file holds no wallet.
After a kill in between, the next start or creation removes what was begun. If the creation fails, what it
made is removed at once: with a `config.toml` from before everything else goes, otherwise all but the process
lock and the token. If only the *opening* after a successful creation fails, the wallet stays where it is and
is loaded at the next start.

Both run in tasks of their own, detached from the request: a client that goes away must not leave half a
wallet. Source: protocol sheet 07 §6.2, §9.5.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from barkd_py.bitcoin.bip32 import InvalidMnemonic, generate_mnemonic, parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.config import GAP_LIMIT_MAX, ConfigError, WalletConfig, load_config, write_config
from barkd_py.daemon.wallet_api import NewWallet, WalletApi, WalletBackend
from barkd_py.datadir import Datadir, WalletLock
from barkd_py.errors import BarkdError, InvalidInput, WalletNotLoaded, chain_text
from barkd_py.wallet.store.lease import DatabaseInUse

log = logging.getLogger(__name__)

_T = TypeVar("_T")

STAND_BY_SECS = 1.0
"""How often a daemon that stands by tries to open the wallet."""

RECOVERY_WAIT_SECS = 120.0
"""How long the creation of a wallet waits for its old VTXOs; a server could keep it waiting for ever."""


class WalletAlreadySet(InvalidInput):
    def __init__(self) -> None:
        super().__init__("Wallet already set")


class BadMnemonic(InvalidInput):
    def __init__(self) -> None:
        super().__init__("bad request: Invalid mnemonic")


class DeletionNotConfirmed(InvalidInput):
    def __init__(self) -> None:
        super().__init__("deletion not confirmed: set dangerous=true")


class FingerprintMismatch(InvalidInput):
    def __init__(self) -> None:
        super().__init__("Fingerprint does not match the loaded wallet")


class WalletElsewhere(WalletNotLoaded):
    """Another daemon runs the wallet; this one stands by."""

    def __init__(self) -> None:
        BarkdError.__init__(self, "another daemon runs this wallet; this one takes over when that ends")


class CreationFailed(BarkdError):
    """No wallet was made, and what was begun is gone again."""

    def __init__(self) -> None:
        super().__init__("Error while creating wallet")


class DeletionFailed(BarkdError):
    """The wallet is unloaded but not all of its files are gone; deleting again completes it."""

    def __init__(self) -> None:
        super().__init__("Couldn't delete wallet")


class CreateRefused(BarkdError):
    """The request for a new wallet makes no sense together with what is there."""


class RuntimeStopped(BarkdError):
    def __init__(self) -> None:
        super().__init__("barkd is shutting down")


# --- requests and answers


@dataclass(frozen=True, slots=True)
class Esplora:
    url: str


@dataclass(frozen=True, slots=True)
class CookieAuth:
    cookie_file: str


@dataclass(frozen=True, slots=True)
class UserPassAuth:
    user: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bitcoind:
    url: str
    auth: CookieAuth | UserPassAuth


@dataclass(frozen=True, slots=True)
class CreateWallet:
    """What somebody wants a wallet to be. None: the default of the network, or of the settings."""

    network: Network
    ark_server: str | None = None
    access_token: str | None = field(default=None, repr=False)
    chain_source: Esplora | Bitcoind | None = None
    mnemonic: str | None = field(default=None, repr=False)
    birthday_height: int | None = None
    gap_limit: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class DeleteOutcome:
    """fingerprint: of the wallet that was deleted; None if none was loaded."""

    deleted: bool
    fingerprint: str | None
    message: str


# --- the runtime


@dataclass(frozen=True, slots=True)
class _Loaded:
    wallet: WalletApi
    lock: WalletLock


class Runtime:
    """Holds the loaded wallet. `wallet` and `fingerprint` are what requests look at; they never wait.

    environment: overrides for the settings (`BARK_*`); None is the environment of the process.
    """

    def __init__(
        self, datadir: Datadir, backend: WalletBackend, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self._datadir = datadir
        self._backend = backend
        self._environment = environment
        self._loaded: _Loaded | None = None
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()
        self._config: WalletConfig | None = None
        self._stopped = False
        self._watch: asyncio.Task[None] | None = None
        self.is_standing_by = False

    @property
    def datadir(self) -> Datadir:
        return self._datadir

    @property
    def wallet(self) -> WalletApi:
        """Raises WalletNotLoaded."""
        if self._loaded is None:
            raise WalletElsewhere if self.is_standing_by else WalletNotLoaded
        return self._loaded.wallet

    @property
    def fingerprint(self) -> str | None:
        return None if self._loaded is None else self._loaded.wallet.fingerprint

    @property
    def config(self) -> WalletConfig | None:
        """The settings of the loaded wallet."""
        return None if self._loaded is None else self._config

    @property
    def is_stopping(self) -> bool:
        return self._stopped

    async def create(self, request: CreateWallet) -> str:
        """Create a wallet, load it and start its work; returns its fingerprint. May take minutes.

        Runs to its end even if the caller is cancelled.
        """
        return await self._detached(self._create(request))

    async def delete(self, fingerprint: str, *, dangerous: bool) -> DeleteOutcome:
        """Unload the wallet and remove its files. Runs to its end even if the caller is cancelled."""
        return await self._detached(self._delete(fingerprint, dangerous=dangerous))

    async def open_existing(self) -> bool:
        """Load the wallet of the data directory and start its work; False if there is none.

        If another daemon runs it, this one stands by, and that is False too; see `is_standing_by`.
        """
        async with self._changing:
            if not self._datadir.mnemonic.exists():
                self._datadir.clear_interrupted_creation()
                return False
            self._datadir.end_creation()
            try:
                await self._open()
            except DatabaseInUse:
                self._begin_watch(self._stand_by())
                return False
            return True

    def begin_stop(self) -> None:
        """The process is about to end: polls and subscriptions end now, and no wallet is created any more."""
        self._stopped = True
        if self._loaded is not None:
            self._loaded.wallet.notifications.stop()

    async def close(self) -> None:
        """Unload, for the end of the process. Waits for a creation or deletion that is under way."""
        self._stopped = True
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        async with self._changing:
            await self._unload()

    # --- a database that is shared

    def _begin_watch(self, work: Coroutine[object, object, None]) -> None:
        self._watch = asyncio.create_task(work, name="shared database")

    async def _keep(self, wallet: WalletApi) -> None:
        """While the wallet is ours: notice when it no longer is."""
        await wallet.until_taken_over()
        log.error("Another daemon has taken the wallet over")
        async with self._changing:
            if self._loaded is None or self._loaded.wallet is not wallet:
                return
            self.is_standing_by = True  # at once: nobody shall believe that there is no wallet
            try:
                await self._unload()
            except BaseException:
                self.is_standing_by = False
                raise
        await self._stand_by()

    async def _stand_by(self) -> None:
        """Until the wallet is ours."""
        log.warning("Another daemon runs this wallet. Standing by")
        self.is_standing_by = True
        try:
            while True:
                await asyncio.sleep(STAND_BY_SECS)
                async with self._changing:
                    try:
                        await self._open()
                    except DatabaseInUse:
                        continue
                    except BarkdError as error:
                        log.error("Cannot take the wallet over: %s", chain_text(error))
                        continue
                    log.warning("Wallet taken over")
                    return
        finally:
            self.is_standing_by = False

    async def _detached(self, work: Coroutine[object, object, _T]) -> _T:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    # --- create

    async def _create(self, request: CreateWallet) -> str:
        async with self._changing:
            if self._stopped:
                raise RuntimeStopped
            if self._loaded is not None or self.is_standing_by:
                raise WalletAlreadySet
            if request.mnemonic is not None:
                _check_mnemonic(request.mnemonic)
            self._datadir.clear_interrupted_creation()
            config_existed = self._datadir.check_contents(clean=request.force)
            try:
                await self._make(request, config_existed=config_existed)
            except BaseException as error:
                self._clean_up(config_existed=config_existed)
                if isinstance(error, BarkdError):
                    raise CreationFailed from error
                raise
            fingerprint = await self._open()
        if request.mnemonic is not None:
            await self._recover()
        return fingerprint

    async def _recover(self) -> None:
        """Wait for the VTXOs of the mnemonic's earlier life; what takes longer goes on in the background.

        Whatever happens, the wallet is made: the report says what is missing.
        """
        if self._loaded is None:
            return
        try:
            await asyncio.wait_for(self._loaded.wallet.recovery.resume(), RECOVERY_WAIT_SECS)
        except TimeoutError:
            log.warning("the recovery takes long, and goes on in the background")
        except BarkdError as error:
            log.warning("%s", chain_text(error))

    async def _make(self, request: CreateWallet, *, config_existed: bool) -> None:
        """Everything up to a complete wallet in the data directory, with nothing left open."""
        log.info("Creating new bark Wallet at %s", self._datadir.path)
        self._datadir.prepare()
        self._datadir.path.chmod(0o700)
        self._datadir.begin_creation(config_existed=config_existed)
        config = self._settle_config(request, config_existed=config_existed)
        _check_birthday(request, config)
        seed = generate_mnemonic() if request.mnemonic is None else parse_mnemonic(request.mnemonic)
        lock = self._datadir.lock_wallet().acquire()
        try:
            await self._backend.create(
                self._datadir.path,
                NewWallet(
                    network=request.network,
                    config=config,
                    mnemonic=seed.words,
                    birthday_height=request.birthday_height,
                    recover=request.mnemonic is not None,
                    without_server=request.force,
                ),
            )
            if self._datadir.database.exists():
                self._datadir.database.chmod(0o600)
            # What makes the directory a wallet, so it comes last: a kill before this leaves files that the
            # next start or creation removes. No address was handed out yet.
            self._datadir.write_mnemonic(seed.words)
            self._datadir.end_creation()
        finally:
            lock.release()

    def _settle_config(self, request: CreateWallet, *, config_existed: bool) -> WalletConfig:
        path = self._datadir.config
        given = _given_settings(request)
        if config_existed:
            if given:
                raise CreateRefused("Cannot provide an existing config file and config flags")
            try:
                return load_config(path, request.network, self._environment)
            except ConfigError as error:
                raise ConfigError(f"error loading existing config file at {path}") from error
        write_config(path, _complete_settings(request, given))
        try:
            return load_config(path, request.network, self._environment)
        except ConfigError as error:
            raise ConfigError("problematic config flags provided") from error

    def _clean_up(self, *, config_existed: bool) -> None:
        try:
            if config_existed:
                self._datadir.check_contents(clean=True)
            else:
                self._datadir.wipe_wallet()
                self._datadir.remove_if_empty()
        except (BarkdError, OSError) as error:
            log.warning("Error cleaning datadir after failure: %s", chain_text(error))

    # --- open, delete

    async def _open(self) -> str:
        for warning in self._datadir.loose_modes(
            self._datadir.mnemonic, self._datadir.config, self._datadir.database, mode=0o600
        ):
            log.warning("%s", warning)
        phrase = self._datadir.read_mnemonic()
        try:
            parse_mnemonic(phrase)
        except InvalidMnemonic as error:
            raise ConfigError("broken mnemonic") from error
        lock = self._datadir.lock_wallet().acquire()
        try:
            wallet = await self._backend.open(self._datadir.path, phrase, self._load_config)
        except BaseException:
            lock.release()
            raise
        try:
            await wallet.start()
        except BaseException:
            await wallet.close()
            lock.release()
            raise
        self._loaded = _Loaded(wallet, lock)
        self._begin_watch(self._keep(wallet))
        return wallet.fingerprint

    def _load_config(self, network: Network) -> WalletConfig:
        try:
            self._config = load_config(self._datadir.config, network, self._environment)
        except ConfigError as error:
            raise ConfigError("error loading bark config file") from error
        return self._config

    async def _delete(self, fingerprint: str, *, dangerous: bool) -> DeleteOutcome:
        if not dangerous:
            raise DeletionNotConfirmed
        async with self._changing:
            if self.is_standing_by:
                raise WalletElsewhere
            loaded = self.fingerprint
            if loaded is not None and loaded != fingerprint:
                raise FingerprintMismatch
            await self._unload()
            try:
                await self._backend.erase()
                self._datadir.wipe_wallet()  # last, so that the mnemonic goes with the rest or not at all
            except BarkdError as error:
                raise DeletionFailed from error
        if loaded is None:
            return DeleteOutcome(
                deleted=False,
                fingerprint=None,
                message="No wallet was loaded; wiped any leftover wallet files",
            )
        return DeleteOutcome(deleted=True, fingerprint=loaded, message="Wallet deleted")

    async def _unload(self) -> None:
        """Take the wallet away from requests first, then wait until its work has stopped."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        if self._watch is not None and self._watch is not asyncio.current_task():
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        try:
            loaded.wallet.notifications.stop()
            await loaded.wallet.close()
        finally:
            loaded.lock.release()


# --- settings of a new wallet

_DEFAULT_ESPLORA: Mapping[Network, str] = {
    Network.MAINNET: "https://mempool.second.tech/api",
    Network.SIGNET: "https://esplora.signet.2nd.dev/",
    Network.MUTINYNET: "https://mutinynet.com/api",
}
_DEFAULT_ARK_SERVER: Mapping[Network, str] = {
    Network.MAINNET: "https://ark.second.tech/",
    Network.SIGNET: "https://ark.signet.2nd.dev/",
}


def _check_mnemonic(phrase: str) -> None:
    try:
        parse_mnemonic(phrase)
    except InvalidMnemonic as error:
        raise BadMnemonic from error


def _check_birthday(request: CreateWallet, config: WalletConfig) -> None:
    """Only a recovery has a birthday, and only a recovery from bitcoind needs one."""
    if request.mnemonic is None:
        if request.birthday_height is not None:
            raise CreateRefused("Can't set --birthday-height if --mnemonic is not set.")
    elif request.birthday_height is None:
        if config.bitcoind_address is not None:
            raise CreateRefused("You need to set the --birthday-height field when recovering from mnemonic.")
    elif config.esplora_address is not None:
        log.warning("The given --birthday-height will be ignored because you're using Esplora.")


def _given_settings(request: CreateWallet) -> dict[str, str | int]:
    """The settings that the request itself names."""
    given: dict[str, str | int | None] = {
        "server_address": request.ark_server,
        "server_access_token": request.access_token,
        "vtxo_key_gap_limit": request.gap_limit,
    }
    match request.chain_source:
        case Esplora(url):
            given["esplora_address"] = url
        case Bitcoind(url, CookieAuth(cookie_file)):
            given |= {"bitcoind_address": url, "bitcoind_cookiefile": cookie_file}
        case Bitcoind(url, UserPassAuth(user, password)):
            given |= {"bitcoind_address": url, "bitcoind_user": user, "bitcoind_pass": password}
    return {key: value for key, value in given.items() if value is not None}


def _complete_settings(request: CreateWallet, given: dict[str, str | int]) -> dict[str, str | int]:
    """What goes into a new config.toml: what was given, and the defaults of the network."""
    settings = dict(given)
    if request.chain_source is None and request.network in _DEFAULT_ESPLORA:
        settings["esplora_address"] = _DEFAULT_ESPLORA[request.network]
    if request.ark_server is None and request.network in _DEFAULT_ARK_SERVER:
        settings["server_address"] = _DEFAULT_ARK_SERVER[request.network]
    if not settings.keys() & {"esplora_address", "bitcoind_address"}:
        raise ConfigError("invalid config options") from ConfigError(
            "You need to provide a chain source using either --esplora or --bitcoind"
        )
    if request.gap_limit is not None and request.gap_limit > GAP_LIMIT_MAX:
        raise ConfigError("invalid config options") from ConfigError(
            f"--gap-limit {request.gap_limit} is above the maximum of {GAP_LIMIT_MAX}"
        )
    if "server_address" not in settings:
        raise CreateRefused("missing --ark arg")
    for key, name, scheme in (
        ("server_address", "ark server", "https"),
        ("esplora_address", "esplora", "https"),
        ("bitcoind_address", "bitcoind", "http"),
    ):
        if key in settings:
            settings[key] = _complete_url(str(settings[key]), name, scheme)
    return settings


def _complete_url(url: str, name: str, scheme: str) -> str:
    """The URL, with a scheme if it had none. Raises ConfigError for what is no URL."""
    problem = None
    complete = url if "://" in url else f"{scheme}://{url}"
    if not url:
        problem = "empty string"
    else:
        try:
            parts = urlsplit(complete)
            if not parts.hostname or (parts.port is not None and not 0 <= parts.port <= 0xFFFF):
                problem = "invalid authority"
        except ValueError:
            problem = "invalid authority"
        if any(character.isspace() or not character.isprintable() for character in url):
            problem = "invalid uri character"
    if problem is not None:
        raise ConfigError(f"invalid {name} URL") from ConfigError(f"invalid url: {problem}")
    return complete
