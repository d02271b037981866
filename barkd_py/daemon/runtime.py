"""The runtime: at most one loaded wallet, and how it is created, opened, deleted and closed.

Creating and deleting exclude each other by one lock. A creation writes, in this order: the directory
(0700), a note that a wallet is being made, `config.toml`, the wallet's database, `mnemonic` (before the first
address is handed out, never over another one), and last the row of the database that makes it a wallet: a
directory without the words holds none, and a database with a wallet is never without its words. A deletion
goes the other way: a note, the rows, the files, and only then the database is another daemon's to open.
After a kill in between, the next start or creation removes what is no wallet (`leftovers`). If the creation
fails, what it made is removed at once: with a `config.toml` from before everything else goes, otherwise all
but the process lock and the token. If only the *opening* after a successful creation fails, the wallet stays
where it is and is loaded at the next start.

Both run in tasks of their own, detached from the request: a client that goes away must not leave half a
wallet. Source: protocol sheet 07 §6.2, §9.5.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import TypeVar

from barkd_py.bitcoin.bip32 import InvalidMnemonic, generate_mnemonic, parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.config import ConfigError, WalletConfig, load_config
from barkd_py.daemon import leftovers
from barkd_py.daemon.errors import (
    CreationFailed,
    DeletionFailed,
    DeletionNotConfirmed,
    FingerprintMismatch,
    OthersInside,
    RuntimeStopped,
    WalletAlreadySet,
    WalletElsewhere,
    WalletOutOfReach,
)
from barkd_py.daemon.new_wallet import CreateWallet, check_birthday, check_mnemonic, settle_config
from barkd_py.daemon.standby import Standby
from barkd_py.daemon.wallet_api import NewWallet, WalletApi, WalletBackend
from barkd_py.datadir import Datadir, DatadirLocked, WalletLock
from barkd_py.errors import KnownError, WalletNotLoaded, chain_text
from barkd_py.wallet.store.lease import DatabaseInUse

log = logging.getLogger(__name__)

_T = TypeVar("_T")

RECOVERY_WAIT_SECS = 120.0
"""How long the creation of a wallet waits for its old VTXOs; a server could keep it waiting for ever."""


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
        self._warned: set[str] = set()
        self._standby = Standby(
            self._changing, holds=self._holds, open_wallet=self._open, unload=self._unload
        )

    @property
    def datadir(self) -> Datadir:
        return self._datadir

    @property
    def wallet(self) -> WalletApi:
        """Raises WalletNotLoaded."""
        if self._loaded is None:
            obstacle = self._standby.obstacle
            if obstacle is None:
                raise WalletNotLoaded
            if self._standby.is_elsewhere:
                raise WalletElsewhere
            raise WalletOutOfReach from obstacle
        return self._loaded.wallet

    @property
    def is_standing_by(self) -> bool:
        """Whether this daemon waits for its wallet, which another one runs, say; see `daemon.standby`."""
        return self._standby.is_standing_by

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
            await leftovers.settle(self._datadir, self._backend)
            if not self._datadir.mnemonic.exists():
                return False
            try:
                await self._open()
            except DatabaseInUse as error:
                self._standby.begin(error)
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
        await self._standby.end()
        async with self._changing:
            await self._unload()

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
                check_mnemonic(request.mnemonic)
            if request.force:
                self._check_only_user()
            await leftovers.settle(self._datadir, self._backend)
            config_existed = self._datadir.check_contents(clean=request.force)
            try:
                await self._make(request, config_existed=config_existed)
            except BaseException as error:
                await self._clean_up(config_existed=config_existed)
                if isinstance(error, KnownError):
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
        except KnownError as error:
            log.warning("%s", chain_text(error))

    def _check_only_user(self) -> None:
        """Before everything in the data directory is removed. Raises OthersInside."""
        try:
            self._datadir.check_only_user()
        except DatadirLocked as error:
            raise OthersInside from error

    async def _make(self, request: CreateWallet, *, config_existed: bool) -> None:
        """Everything up to a complete wallet in the data directory, with nothing left open."""
        log.info("Creating new bark Wallet at %s", self._datadir.path)
        self._datadir.prepare()
        self._datadir.path.chmod(0o700)
        self._datadir.begin_creation(
            config_existed=config_existed, database=self._backend.database_name(self._datadir)
        )
        config = settle_config(
            request, self._datadir.config, existed=config_existed, environment=self._environment
        )
        check_birthday(request, config)
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
                keep_words=lambda: self._datadir.write_mnemonic(seed.words),
            )
            if self._datadir.database.exists():
                self._datadir.database.chmod(0o600)
            self._datadir.end_change()
        finally:
            lock.release()

    async def _clean_up(self, *, config_existed: bool) -> None:
        """If that fails, the note and what is left stay for the next start or creation."""
        try:
            await self._backend.erase(self._datadir.path, None)
            if config_existed:
                self._datadir.check_contents(clean=True)
            else:
                self._datadir.wipe_wallet()
                self._datadir.remove_if_empty()
        except (KnownError, OSError) as error:
            log.warning("Error cleaning datadir after failure: %s", chain_text(error))

    # --- open, delete

    async def _open(self) -> str:
        for warning in self._datadir.loose_modes(
            self._datadir.mnemonic, self._datadir.config, self._datadir.database, mode=0o600
        ):
            if warning not in self._warned:  # who stands by opens again and again
                self._warned.add(warning)
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
        self._standby.watch(wallet)
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
            if self._standby.is_elsewhere:
                raise WalletElsewhere
            loaded = self.fingerprint
            if loaded is not None and loaded != fingerprint:
                raise FingerprintMismatch
            self._check_only_user()
            await self._standby.end()
            unloaded, self._loaded = self._loaded, None
            try:
                await self._wipe(None if unloaded is None else unloaded.wallet)
            finally:
                if unloaded is not None:
                    unloaded.lock.release()
        if loaded is None:
            return DeleteOutcome(
                deleted=False,
                fingerprint=None,
                message="No wallet was loaded; wiped any leftover wallet files",
            )
        return DeleteOutcome(deleted=True, fingerprint=loaded, message="Wallet deleted")

    async def _wipe(self, wallet: WalletApi | None) -> None:
        """Rows, files, and last the claim on the database; nobody takes over what is being deleted.

        Raises DeletionFailed. With the words still there, this daemon stands by for whatever is left.
        """
        try:
            if wallet is not None:
                await wallet.stop()
            if self._datadir.mnemonic.exists():
                with contextlib.suppress(KnownError):  # a full disk is no reason to keep a wallet
                    self._datadir.begin_deletion(database=self._backend.database_name(self._datadir))
            await self._backend.erase(self._datadir.path, wallet)
            self._datadir.wipe_wallet()  # last, so that the mnemonic goes with the rest or not at all
        except KnownError as error:
            if self._datadir.mnemonic.exists():
                self._datadir.end_change()  # nobody shall take the words for rubbish
                self._standby.begin(error)
            raise DeletionFailed from error
        finally:
            if wallet is not None:
                await wallet.close()

    def _holds(self, wallet: WalletApi) -> bool:
        return self._loaded is not None and self._loaded.wallet is wallet

    async def _unload(self) -> None:
        """Take the wallet away from requests first, then wait until its work has stopped."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        await self._standby.end()
        try:
            loaded.wallet.notifications.stop()
            await loaded.wallet.close()
        finally:
            loaded.lock.release()
