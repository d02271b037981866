"""One open wallet: its parts, and the calls that the daemon's API and library users make.

`Wallet` decides nothing. It opens the parts (`wiring` says what each is built from) and passes calls on:

    keychain, addresses       keys and what is built from them        store           everything that is kept
    boards, arkoor, offboards resumable operations                    mailbox         what comes in
    lightning                 payments to and from Lightning
    exits                     ways out without the server             rounds          new VTXOs for old ones
    recovery                  VTXOs from the mnemonic alone           onchain, chain  bitcoin
    registration              the server's copies
    server                    the Ark server                          notifications   what happened

Background work belongs to whoever runs the wallet: `background` is made by the daemon, a library user may
leave it out and call `sync` when it suits.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import Seed
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.message import sign_message
from barkd_py.bitcoin.units import BlockRef, Network
from barkd_py.chain.source import ChainSource, FeeRates
from barkd_py.config import WalletConfig
from barkd_py.errors import ChainError, KnownError, StoreError, chain_text
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.server_rpc.client import ArkServer
from barkd_py.wallet import wiring
from barkd_py.wallet.actions.executor import ActionExecutor
from barkd_py.wallet.addresses import Addresses
from barkd_py.wallet.balance import Balance, BalanceReader
from barkd_py.wallet.boards.service import PendingBoard, vtxos_in_progress
from barkd_py.wallet.boards.terms import BoardFeeEstimate, estimate_fee
from barkd_py.wallet.connections import connection_settings, open_usable_chain
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.listings import HistoryListing, VtxoListing, render_by_method
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.movements import JsonValue, Movement, PaymentMethod
from barkd_py.wallet.notifications import Notifications
from barkd_py.wallet.payments.options import PaymentRequest, parse_payment_request
from barkd_py.wallet.recent_tip import RecentTip
from barkd_py.wallet.recovery.freshness import Staleness, look
from barkd_py.wallet.rendered_list import RenderedList
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.onchain import OnchainTables
from barkd_py.wallet.store.transaction import OpenStore, clock_of
from barkd_py.wallet.vtxo_states import UNSPENT, StateKind, WalletVtxo
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)


class WrongMnemonic(StoreError):
    def __init__(self) -> None:
        super().__init__("incorrect mnemonic")


class PropertiesMissing(StoreError):
    def __init__(self) -> None:
        super().__init__("failed to read properties")


class Background(Protocol):
    """The work that goes on while the wallet is open."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SyncStep:
    """One thing that `Wallet.sync` does; they run side by side, and an error of one is only logged."""

    name: str
    run: Callable[[], Awaitable[object]]


class Wallet:
    """Made by `open`. Close it when done."""

    def __init__(
        self,
        *,
        store: Store,
        keys: WalletKeys,
        network: Network,
        config: WalletConfig,
        chain: ChainSource,
        onchain: OnchainWallet | None,
        server: ArkServerApi,
        keychain: Keychain,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.keys = keys
        self.config = config
        self.chain = chain
        self.server = server
        self.keychain = keychain
        self._network = network
        self._onchain = onchain
        self._notifications = Notifications(clock_of(now), monotonic)
        self._stop_publishing = store.on_commit(self._notifications.publish)

        self.locks = NamedLocks()
        self.executor = ActionExecutor(store, self.locks)
        self.registration = Registration(store, server, keychain, vtxos_in_progress, now=now)
        self._base = base = wiring.Base(
            store=store,
            network=network,
            config=config,
            chain=chain,
            onchain=onchain,
            server=server,
            keychain=keychain,
            locks=self.locks,
            executor=self.executor,
            registration=self.registration,
            monotonic=monotonic,
            now=now,
        )
        self.addresses = Addresses(store, keychain, server, network)
        self.exits = wiring.make_exits(base, self.addresses)
        claims = wiring.make_claims(base, self.exits)
        self.boards = wiring.make_boards(base, self.exits)
        self.arkoor = wiring.make_arkoor(base)
        self.offboards = wiring.make_offboards(base)
        self.rounds = wiring.make_rounds(base, self.exits, claims)
        self.mailbox = wiring.make_mailbox(base, self.addresses)
        self.lightning = wiring.make_lightning(base, self.exits, claims)
        self.recovery = wiring.make_recovery(base, self.exits, self.rounds, self.mailbox, self.lightning)
        self.vtxo_import = wiring.make_vtxo_import(base)
        wiring.connect(
            base,
            exits=self.exits,
            arkoor=self.arkoor,
            offboards=self.offboards,
            rounds=self.rounds,
            mailbox=self.mailbox,
            lightning=self.lightning,
            recovery=self.recovery,
        )

        self.background: Background | None = None
        self.sync_steps = self._default_sync_steps()
        self._balance = BalanceReader(store)
        turn = asyncio.Lock()
        self._unspent_vtxos = VtxoListing(store, UNSPENT, turn)
        self._all_vtxos = VtxoListing(store, frozenset(StateKind), turn)
        self._history = HistoryListing(store, turn)
        self._tip = RecentTip(chain, monotonic)
        self._closed = False
        self._stopped = False

    def _default_sync_steps(self) -> list[SyncStep]:
        return [
            SyncStep("fee rates", lambda: self._base.chain.update_fee_rates(force=True)),
            SyncStep("mailbox", self.mailbox.sync),
            SyncStep("rounds", self.rounds.sync),
            SyncStep("arkoor sends", self.arkoor.drive_all),
            SyncStep("boards", self.boards.drive_all),
            SyncStep("Lightning", self.lightning.resume),
            SyncStep("offboards", self.offboards.drive_all),
            SyncStep("forced exits", self.exits.notice_forced),
            SyncStep("recovery catch-up", self.registration.catch_up),
            SyncStep("recovery", self.recovery.catch_up),
        ]

    async def look_for_staleness(self) -> Staleness:
        """What has happened since this state was the newest; changes nothing. Raises FreshnessUnknown."""
        evidence = wiring.make_evidence(self._base)
        return await look(self.store, self.server, self.chain, self.keychain, evidence, self.onchain)

    # --- life

    @classmethod
    async def open(
        cls,
        database: Path | str,
        *,
        seed: Seed,
        load_config: Callable[[Network], WalletConfig],
        open_store: OpenStore = Store.open,
        now: Callable[[], float] = time.time,
    ) -> "Wallet":
        """Open an existing wallet. It asks the chain source whether it can be used, and nobody else.

        open_store: opens the database by its URL or path. now: Unix seconds, the one clock of the wallet.

        Raises PropertiesMissing, WrongMnemonic, StoreError, ConfigError, ChainError.
        """
        keys = WalletKeys(seed)
        store = await open_store(str(database), clock=clock_of(now))
        try:
            async with store.read() as tx:
                properties = await tx.properties.find()
            if properties is None:
                raise PropertiesMissing
            if properties.fingerprint != keys.fingerprint:
                raise WrongMnemonic
            network = Network.from_bitcoin_name(properties.network)
            config = load_config(network)
            chain = await open_usable_chain(config, network)
            try:
                onchain = await OnchainWallet.open(OnchainTables(store), chain, seed, network, now=now)
            except BaseException:
                await chain.close()
                raise
        except BaseException:
            await store.close()
            raise
        keychain = Keychain(keys, store)

        async def verify_identity(info: ArkInfo) -> None:
            await keychain.pin_server(info.server_pubkey, info.mailbox_pubkey)

        return cls(
            store=store,
            keys=keys,
            network=network,
            config=config,
            chain=chain,
            onchain=onchain,
            server=ArkServer(connection_settings(config, network), verify_identity),
            keychain=keychain,
            now=now,
        )

    async def start(self) -> None:
        """Start the background work, if there is any."""
        if self.background is not None:
            await self.background.start()

    async def close(self) -> None:
        """Stop everything in the order in which it depends on each other. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        await self.stop()
        await self.store.close()

    async def stop(self) -> None:
        """Stop everything but the store: nobody else can open the wallet yet. Safe to repeat."""
        if self._stopped:
            return
        self._stopped = True
        self._notifications.stop()
        if self.background is not None:
            await self.background.stop()
        await self.recovery.close()
        await self.arkoor.close()
        await self.offboards.close()
        await self.lightning.close()
        await self.rounds.close()
        await self.registration.close()
        await self._tip.close()
        await self.server.close()
        await self.chain.close()
        self._stop_publishing()

    async def until_taken_over(self) -> None:
        """Return when another process runs the wallet; never, if its database is not shared."""
        await self.store.until_taken_over()

    # --- what it is

    @property
    def network(self) -> Network:
        return self._network

    @property
    def fingerprint(self) -> str:
        return self.keys.fingerprint

    @property
    def notifications(self) -> Notifications:
        return self._notifications

    @property
    def onchain(self) -> OnchainWallet | None:
        return self._onchain

    # --- server and chain

    @property
    def is_connected(self) -> bool:
        """Whether the server was reached since the wallet was opened."""
        return self.server.cached_info is not None

    @property
    def ark_info(self) -> ArkInfo | None:
        return self.server.cached_info

    async def next_round_time(self) -> datetime:
        return datetime.fromtimestamp(await self.server.next_round_time(), UTC)

    async def tip_height(self) -> int:
        return (await self.chain.tip()).height

    async def fee_rates(self) -> FeeRates:
        return await self.chain.fee_rates()

    def note_tip(self, tip: BlockRef) -> None:
        """Somebody has seen this tip just now."""
        self._tip.note(tip)

    # --- reading

    async def balance(self) -> Balance:
        info = self.server.cached_info
        depth = None if info is None else info.max_vtxo_exit_depth
        return await self._balance.balance(await self._tip.height(), depth)

    async def list_vtxos(self, *, include_all: bool) -> Sequence[WalletVtxo]:
        return await (self._all_vtxos if include_all else self._unspent_vtxos).items()

    async def rendered_vtxos(
        self, form: Hashable, render: Callable[[WalletVtxo], bytes], *, include_all: bool
    ) -> RenderedList:
        return await (self._all_vtxos if include_all else self._unspent_vtxos).rendered(form, render)

    async def get_vtxo(self, vtxo_id: VtxoId) -> WalletVtxo:
        async with self.store.read() as tx:
            return await tx.vtxos.get(vtxo_id)

    async def encoded_vtxo(self, vtxo_id: VtxoId) -> bytes:
        async with self.store.read() as tx:
            return (await tx.vtxos.body(vtxo_id)).encode()

    async def list_movements(self, method: PaymentMethod | None = None) -> Sequence[Movement]:
        if method is None:
            return await self._history.items()
        async with self.store.read() as tx:
            return await tx.movements.list_by_method(method)

    async def rendered_movements(
        self, form: Hashable, render: Callable[[Movement], bytes], *, method: PaymentMethod | None = None
    ) -> RenderedList:
        if method is None:
            return await self._history.rendered(form, render)
        return await render_by_method(self.store, method, render)

    async def patch_movement_metadata(self, movement_id: int, patch: JsonValue) -> None:
        async with self.store.transaction() as tx:
            await tx.movements.patch_metadata(movement_id, patch)

    # --- addresses and messages

    async def new_address(self) -> str:
        return await self.addresses.new()

    async def address_at(self, index: int) -> str:
        return await self.addresses.at(index)

    async def read_payment_request(self, text: str) -> PaymentRequest:
        """The ways to pay what a text asks for. Raises InvalidPaymentRequest, ServerError."""
        info = await self.server.info()
        return parse_payment_request(text, self._network, info.server_pubkey)

    async def sign_message(self, message: str, user_pubkey: PublicKey) -> bytes | None:
        key = await self.keychain.find(user_pubkey)
        return None if key is None else sign_message(self.keychain.secret(key), message)

    # --- moving money

    async def send_arkoor(self, address: str, amount_sat: int) -> None:
        await self.arkoor.send(address, amount_sat)

    async def board_amount(self, amount_sat: int) -> PendingBoard:
        return await self.boards.board_amount(amount_sat)

    async def board_all(self) -> PendingBoard:
        return await self.boards.board_all()

    async def pending_boards(self) -> Sequence[PendingBoard]:
        return await self.boards.pending()

    async def estimate_board_fee(self, amount_sat: int) -> BoardFeeEstimate:
        return estimate_fee(await self.server.info(), amount_sat)

    async def import_vtxos(
        self,
        vtxos: Sequence[Vtxo],
        *,
        gap_limit: int | None = None,
        skip_status_check: bool = False,
        allow_partial: bool = False,
    ) -> Sequence[WalletVtxo]:
        return await self.vtxo_import.run(
            vtxos, gap_limit=gap_limit, skip_status_check=skip_status_check, allow_partial=allow_partial
        )

    # --- staying up to date

    async def sync(self) -> None:
        """Bring everything up to date; what fails is logged, never raised. Source: sheet 09 §1.8."""
        try:
            self.note_tip(await self.chain.fetch_tip())
        except ChainError as error:
            log.warning("sync: tip: %s", chain_text(error))
        await asyncio.gather(*(self._run_step(step) for step in self.sync_steps))

    async def _run_step(self, step: SyncStep) -> None:
        try:
            await step.run()
        except KnownError as error:
            log.warning("sync: %s: %s", step.name, chain_text(error))

    async def sync_mailbox(self) -> int:
        return await self.mailbox.sync()
