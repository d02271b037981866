"""The Ark server of devnet: its parts put together, started and stopped.

It is written for tests and for trying things out on regtest. It checks what the real server checks, in the
same order and with the same answers, and keeps its keys and books over restarts; but nobody audited it, and
money that is worth something does not belong to it.

Source: sheet 10.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio

from barkd_py.ark.vtxo import VtxoId
from barkd_py.devnet.ark_server import vtxo_rows
from barkd_py.devnet.ark_server.ark_service import ArkService
from barkd_py.devnet.ark_server.arkoor import Arkoor
from barkd_py.devnet.ark_server.boards import Boards
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.faults import Faults
from barkd_py.devnet.ark_server.flux import FluxLocks
from barkd_py.devnet.ark_server.follower import ChainFollower
from barkd_py.devnet.ark_server.health import HealthHandler
from barkd_py.devnet.ark_server.interceptor import Interceptor
from barkd_py.devnet.ark_server.mailbox_service import MailboxService
from barkd_py.devnet.ark_server.mailboxes import Mailboxes
from barkd_py.devnet.ark_server.server_keys import ServerKeys, load_or_create_seed
from barkd_py.devnet.ark_server.settings import MAX_REQUEST_BYTES, ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.devnet.ark_server.store import Store
from barkd_py.server_rpc.protos.bark_server_pb2_grpc import add_ArkServiceServicer_to_server
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
    ) -> None:
        self.settings = settings
        self.keys = keys
        self.faults = faults
        self.locks = FluxLocks()
        self.mailboxes = Mailboxes(settings, keys, store, clock)
        self.follower = ChainFollower(chain, store)
        self.port = 0
        self._store = store
        self._chain = chain
        self._stopping = asyncio.Event()
        boards = Boards(settings, keys, store, chain)
        arkoor = Arkoor(settings, keys, store, chain, self.locks)
        self._grpc = grpc.aio.server(
            interceptors=[Interceptor(faults, rich_errors=settings.rich_errors, stopping=self._stopping)],
            options=_CHANNEL_OPTIONS,
        )
        ark_service = ArkService(settings, keys, store, boards, arkoor, started_at=clock())
        add_ArkServiceServicer_to_server(ark_service, self._grpc)  # type: ignore[no-untyped-call]
        add_MailboxServiceServicer_to_server(  # type: ignore[no-untyped-call]
            MailboxService(self.mailboxes), self._grpc
        )
        self._grpc.add_generic_rpc_handlers((HealthHandler(self._stopping),))
        self._following: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        directory: Path,
        chain: ServerChain,
        *,
        settings: ServerSettings | None = None,
        faults: Faults | None = None,
        address: str = "127.0.0.1:0",
        clock: Callable[[], float] = time.time,
    ) -> "ArkServer":
        """Open or create a server's data in a directory and serve it.

        address: host and port; port 0 takes a free one, which `port` tells. clock: Unix seconds.
        """
        keys = ServerKeys.from_seed(load_or_create_seed(directory))
        server = cls(
            settings=settings or ServerSettings(),
            keys=keys,
            store=await Store.open(directory),
            chain=chain,
            faults=faults or Faults(),
            clock=clock,
        )
        await server.follower.catch_up()
        server._following = asyncio.create_task(server.follower.run(), name="ark-server-follower")
        server.port = server._grpc.add_insecure_port(address)
        await server._grpc.start()
        log.info("Ark server %s listens on port %d", keys.server_pubkey, server.port)
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """End all streams without an error, and close. Its data stays in the directory. Safe to repeat."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        await self._grpc.stop(_STOP_GRACE_SECS)
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))
        await self._store.close()

    # --- for whoever controls the server

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

    async def vtxo_row(self, vtxo_id: VtxoId) -> vtxo_rows.VtxoRow:
        """What the books say. Raises Missing."""
        return await self._store.transact(lambda connection: vtxo_rows.get(connection, vtxo_id))
