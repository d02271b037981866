"""The Ark server of devnet: its parts put together, started and stopped.

It is written for tests and for trying things out on regtest. It checks what the real server checks, in the
same order and with the same answers, and keeps its keys and books over restarts; but nobody audited it, and
money that is worth something does not belong to it.

Source: sheet 10.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
from sqlalchemy import Connection

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.faults import Faults
from barkd_py.devnet.ark_server.funds.fee_rates import FeeRates
from barkd_py.devnet.ark_server.funds.offboards import OffboardParts, Offboards
from barkd_py.devnet.ark_server.funds.treasury import Treasury
from barkd_py.devnet.ark_server.funds.vtxo_pool import VtxoPool
from barkd_py.devnet.ark_server.lightning.engine import LightningEngine
from barkd_py.devnet.ark_server.lightning.node import LightningNode, NoNode
from barkd_py.devnet.ark_server.lightning.parts import LightningParts
from barkd_py.devnet.ark_server.lightning.receive import LightningReceives
from barkd_py.devnet.ark_server.lightning.send import LightningSends
from barkd_py.devnet.ark_server.rounds.delegated import DelegatedParticipations
from barkd_py.devnet.ark_server.rounds.engine import RoundEngine, RoundParts
from barkd_py.devnet.ark_server.rounds.forfeits import Forfeits
from barkd_py.devnet.ark_server.rpc.admin_service import RoundAdminService
from barkd_py.devnet.ark_server.rpc.ark_service import ArkService, part_requests
from barkd_py.devnet.ark_server.rpc.health import HealthHandler
from barkd_py.devnet.ark_server.rpc.interceptor import Interceptor
from barkd_py.devnet.ark_server.rpc.lightning_rpcs import LightningRpcs
from barkd_py.devnet.ark_server.rpc.mailbox_service import MailboxService
from barkd_py.devnet.ark_server.rpc.offboard_rpcs import OffboardRpcs
from barkd_py.devnet.ark_server.rpc.round_rpcs import RoundRpcs
from barkd_py.devnet.ark_server.server_keys import ServerKeys, load_or_create_seed
from barkd_py.devnet.ark_server.settings import MAX_REQUEST_BYTES, ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.devnet.ark_server.store import lightning_rows, participation_rows, vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.participation_rows import Participation
from barkd_py.devnet.ark_server.vtxos.arkoor import Arkoor
from barkd_py.devnet.ark_server.vtxos.boards import Boards
from barkd_py.devnet.ark_server.vtxos.flux import FluxLocks
from barkd_py.devnet.ark_server.vtxos.mailboxes import Mailboxes
from barkd_py.devnet.ark_server.vtxos.xpub_search import XpubSearches
from barkd_py.devnet.ark_server.watch.follower import ChainFollower
from barkd_py.devnet.ark_server.watch.preimages import PreimageFinder
from barkd_py.devnet.ark_server.watch.watchman import Push, Watchman
from barkd_py.devnet.background import in_background
from barkd_py.errors import NotFound, StateConflict
from barkd_py.server_rpc.protos.bark_server_pb2_grpc import (
    add_ArkServiceServicer_to_server,
    add_RoundAdminServiceServicer_to_server,
)
from barkd_py.server_rpc.protos.mailbox_server_pb2_grpc import add_MailboxServiceServicer_to_server

log = logging.getLogger(__name__)

_STOP_GRACE_SECS = 2.0

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    # Wallets ping every 20 seconds, also without a call.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Two servers on one port would take each other's clients.
    ("grpc.so_reuseport", 0),
)


class AddressInUse(StateConflict):
    """Somebody else listens there."""


class ArkServer:
    """A running server; `start` makes one."""

    def __init__(
        self,
        *,
        settings: ServerSettings,
        keys: ServerKeys,
        store: Store,
        chain: ServerChain,
        faults: Faults,
        clock: Callable[[], float],
        lightning_node: LightningNode,
    ) -> None:
        self.settings = settings
        self.keys = keys
        self.faults = faults
        self.locks = FluxLocks()
        self.fee_rates = FeeRates(settings, clock)
        self.mailboxes = Mailboxes(settings, keys, store, clock)
        self.treasury = Treasury(keys.treasury, store, chain)
        self.follower = ChainFollower(chain, store, [self.treasury, PreimageFinder()])
        self.forfeits = Forfeits(settings, keys, store, clock)
        self.port = 0
        self.admin_port = 0
        self._store = store
        self._chain = chain
        self._clock = clock
        self._stopping = asyncio.Event()
        self.pool = VtxoPool(settings, keys, store, chain, self.treasury, self.fee_rates)
        self._arkoor = Arkoor(settings, keys, store, chain, self.locks)
        self._lightning_parts = LightningParts(
            settings=settings,
            keys=keys,
            store=store,
            chain=chain,
            arkoor=self._arkoor,
            mailboxes=self.mailboxes,
            pool=self.pool,
            node=lightning_node,
            faults=faults,
            clock=clock,
        )
        self.lightning = LightningEngine(self._lightning_parts)
        self.rounds = RoundEngine(self._round_parts())
        self.offboards = Offboards(self._offboard_parts())
        self._grpc = self._listener()
        self._admin_grpc = self._listener()
        self._tasks = contextlib.AsyncExitStack()
        self._add_services()

    def _round_parts(self) -> RoundParts:
        return RoundParts(
            settings=self.settings,
            keys=self.keys,
            store=self._store,
            chain=self._chain,
            locks=self.locks,
            treasury=self.treasury,
            fee_rates=self.fee_rates,
            mailboxes=self.mailboxes,
            faults=self.faults,
            clock=self._clock,
            prune=self.forfeits.prune,
        )

    def _offboard_parts(self) -> OffboardParts:
        return OffboardParts(
            settings=self.settings,
            keys=self.keys,
            store=self._store,
            chain=self._chain,
            locks=self.locks,
            treasury=self.treasury,
            fee_rates=self.fee_rates,
            faults=self.faults,
            clock=self._clock,
        )

    def _listener(self) -> grpc.aio.Server:
        interceptor = Interceptor(self.faults, rich_errors=self.settings.rich_errors, stopping=self._stopping)
        return grpc.aio.server(interceptors=[interceptor], options=_CHANNEL_OPTIONS)

    def _add_services(self) -> None:
        delegated = DelegatedParticipations(self.settings, self._store, self._chain)
        ark_service = ArkService(
            self.settings,
            self.keys,
            self._store,
            boards=Boards(self.settings, self.keys, self._store, self._chain),
            arkoor=self._arkoor,
            rounds=RoundRpcs(self.settings, self.rounds, delegated, self.forfeits),
            offboards=OffboardRpcs(self.offboards, self.fee_rates),
            lightning=self._lightning_rpcs(),
            fee_rates=self.fee_rates,
            xpub_searches=XpubSearches(self.settings, self.keys, self._store, self._clock),
        )
        add_ArkServiceServicer_to_server(ark_service, self._grpc)  # type: ignore[no-untyped-call]
        add_MailboxServiceServicer_to_server(  # type: ignore[no-untyped-call]
            MailboxService(self.mailboxes), self._grpc
        )
        add_RoundAdminServiceServicer_to_server(  # type: ignore[no-untyped-call]
            RoundAdminService(self.rounds), self._admin_grpc
        )
        for listener in (self._grpc, self._admin_grpc):
            listener.add_generic_rpc_handlers((HealthHandler(self._stopping),))

    def _lightning_rpcs(self) -> LightningRpcs:
        return LightningRpcs(
            self.settings,
            LightningSends(self._lightning_parts, self.lightning),
            LightningReceives(self._lightning_parts, self.lightning),
            part_requests,
        )

    @classmethod
    async def start(
        cls,
        directory: Path,
        chain: ServerChain,
        *,
        settings: ServerSettings | None = None,
        faults: Faults | None = None,
        address: str = "127.0.0.1:0",
        admin_address: str = "127.0.0.1:0",
        clock: Callable[[], float] = time.time,
        lightning_node: LightningNode | None = None,
    ) -> "ArkServer":
        """Open or create a server's data in a directory and serve it.

        address, admin_address: host and port of the service for wallets and of that for administrators; port
        0 takes a free one, which `port` and `admin_port` tell. clock: Unix seconds. Raises AddressInUse.
        """
        keys = ServerKeys.from_seed(load_or_create_seed(directory))
        server = cls(
            settings=settings or ServerSettings(),
            keys=keys,
            store=await Store.open(directory),
            chain=chain,
            faults=faults or Faults(),
            clock=clock,
            lightning_node=lightning_node or NoNode(),
        )
        try:
            server.port = server._grpc.add_insecure_port(address)
            server.admin_port = server._admin_grpc.add_insecure_port(admin_address)
        except RuntimeError as error:
            await server.stop()
            raise AddressInUse(str(error)) from error
        await server.follower.catch_up()
        await server.rounds.resume()
        await server._start_loops()
        await server._grpc.start()
        await server._admin_grpc.start()
        log.info("Ark server %s listens on port %d", keys.server_pubkey, server.port)
        return server

    async def _start_loops(self) -> None:
        for name, loop in (
            ("follower", self.follower.run()),
            ("treasury", self.treasury.run()),
            ("offboards", self.offboards.run()),
            ("rounds", self.rounds.run()),
            ("lightning", self.lightning.run()),
        ):
            await self._tasks.enter_async_context(in_background(loop, f"ark-server-{name}"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """End all streams without an error, and close. Its data stays in the directory. Safe to repeat."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        await asyncio.gather(self._grpc.stop(_STOP_GRACE_SECS), self._admin_grpc.stop(_STOP_GRACE_SECS))
        await self._tasks.aclose()
        await self._store.close()

    # --- for whoever controls the server

    @property
    def is_stopped(self) -> bool:
        return self._stopping.is_set()

    def watchman(self, push: Push) -> Watchman:
        """Its watchman. push: gets a transaction without a fee into the mempool, with a child that pays."""
        return Watchman(
            self.keys,
            self._store,
            self._chain,
            push=push,
            payout=self.treasury.new_script,
            fee_rate=self.fee_rates.regular,
            find_preimage=_preimage,
        )

    async def ban_vtxo(self, vtxo_id: VtxoId, blocks: int) -> int:
        """Forbid spending a VTXO for so many blocks; the height from which it is allowed. Raises Missing."""
        until = (await self._chain.tip()).height + blocks
        await self._store.transact(lambda connection: vtxo_rows.ban(connection, vtxo_id, until))
        return until

    async def unban_vtxo(self, vtxo_id: VtxoId) -> None:
        """Raises Missing."""
        await self._store.transact(lambda connection: vtxo_rows.ban(connection, vtxo_id, None))

    async def set_vtxo_state(self, vtxo_id: VtxoId, state: SpendState) -> None:
        """Overwrite the state, for a server that lies. Raises Missing."""
        await self._store.transact(lambda connection: vtxo_rows.set_state(connection, vtxo_id, state))

    async def flag_exited(self, vtxo_id: VtxoId, height: int | None) -> None:
        """Take a VTXO for exited in a block, whatever the chain says; None: not any more. Raises Missing."""
        await self._store.transact(lambda connection: vtxo_rows.set_exited(connection, vtxo_id, height))

    async def lightning_books(
        self,
    ) -> tuple[list[lightning_rows.Attempt], list[lightning_rows.Subscription]]:
        """All payments and receives, oldest first."""
        attempts = await self._store.transact(lightning_rows.all_attempts)
        return attempts, await self._store.transact(lightning_rows.all_subscriptions)

    async def participations(self) -> list[Participation]:
        """All swaps, those that wait and those that are done, oldest first."""
        return await self._store.transact(participation_rows.everything)

    async def virtual_tx(self, txid: Txid) -> Tx | None:
        """A transaction that the server has signed, or was given signed."""
        found = await self._store.transact(lambda connection: vtxo_rows.find_virtual_tx(connection, txid))
        return None if found is None else found.signed

    async def double_spend(self, txid: Txid) -> Tx:
        """A transaction that conflicts with one of the server's own. Raises NotFound."""
        tx = await self._chain.get_tx(txid)
        if tx is None:
            raise NotFound(f"no transaction {txid}", [str(txid)])
        try:
            return await self.treasury.double_spend(tx, self.fee_rates.fast)
        except KeyError as error:
            raise NotFound(f"transaction {txid} is not the server's", [str(txid)]) from error

    async def vtxo_row(self, vtxo_id: VtxoId) -> vtxo_rows.VtxoRow:
        """What the books say. Raises Missing."""
        return await self._store.transact(lambda connection: vtxo_rows.get(connection, vtxo_id))


def _preimage(connection: Connection, hash32: bytes) -> bytes | None:
    """Of a payment that is settled, or of a swap whose inputs are forfeited."""
    found = participation_rows.find(connection, hash32)
    if found is not None and found.is_forfeited:
        return found.swap.preimage
    return lightning_rows.preimage_of(connection, hash32)
