"""What the daemon does while nobody asks: one row per loop.

    loop               first run  period                    needs `connected`  body
    server-connection  after I    I                         -                  heartbeat while not connected
    tip                at once    at most I                 -                  look at the tip, wake others
    sync               at once    I, or a new tip           partly             `Daemon.sync_once`
    exits              at once    I, or a new tip           -                  `Daemon.exits_once`
    lightning          at once    1 s while pending, else I -                  `Daemon.lightning_once`
    mailbox            at once    stream; I after its end   yes                drain at every wake-up
    round-events       at once    stream                    -                  `Rounds.on_event`
    recovery           at once    I, or a new tip           -                  `Recovery.tick`

I is `daemon_sync_interval_secs`. `connected` is what the loops believe of the server: it is set by a
heartbeat that succeeded and taken back when the mailbox stream is lost for good. Nothing else stops while it
is false.
With `daemon_manual_sync` only the first loop runs.

Source: protocol sheet 09 §1.1-1.6.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.tip_watcher import watch_tip, watch_tip_announced
from barkd_py.daemon.supervisor import Loop, Shutdown, Supervisor
from barkd_py.errors import KnownError, chain_text
from barkd_py.server_rpc.api import MailboxMessage
from barkd_py.server_rpc.errors import ConnectFailed
from barkd_py.server_rpc.streams import Backoff, mailbox_wakeups, round_events
from barkd_py.wallet.wallet import Wallet

log = logging.getLogger(__name__)

# Looking at the tip costs little, and everything that waits for confirmations waits for it.
MAX_TIP_INTERVAL_SECS = 15.0
# Somebody stands there and waits for "paid". The mailbox usually tells; it tells once, and may be away.
LIGHTNING_INTERVAL_SECS = 1.0
# The daemon answers requests before its server has been reached; a wallet that is created waits this long.
FIRST_HEARTBEAT_SECS = 3.0


class Daemon:
    """The background work of one wallet."""

    def __init__(
        self,
        wallet: Wallet,
        *,
        backoff: Callable[[], Backoff] = Backoff,
        tip_interval_secs: float = MAX_TIP_INTERVAL_SECS,
    ) -> None:
        self._wallet = wallet
        self._tip_interval_secs = tip_interval_secs
        self._interval_secs = float(wallet.config.daemon_sync_interval_secs)
        self._backoff = backoff
        self._new_tip_events: set[asyncio.Event] = set()
        self._heartbeat_task: asyncio.Task[bool] | None = None
        self._supervisor: Supervisor | None = None
        self._reconnected = asyncio.Event()
        self.connected = False

    async def start(self) -> None:
        """Say hello to the server, and start the loops. Failures are logged, and the loops try again."""
        self._heartbeat_task = asyncio.create_task(self.heartbeat("Ark server refresh failed"), name="hello")
        await asyncio.wait({self._heartbeat_task}, timeout=FIRST_HEARTBEAT_SECS)
        loops = [Loop("server-connection", self._server_connection)]
        if not self._wallet.config.daemon_manual_sync:
            loops += [
                Loop("tip", self._watch_tip, streams=True),
                Loop("sync", self._sync),
                Loop("exits", self._exits),
                Loop("lightning", self._lightning),
                Loop("mailbox", self._mailbox, streams=True),
                Loop("round-events", self._round_events, streams=True),
                Loop("recovery", self._recovery),
            ]
        self._supervisor = Supervisor(loops)
        self._supervisor.start()

    async def stop(self) -> None:
        if self._heartbeat_task is not None:
            self._heartbeat_task.cancel()
            await asyncio.gather(self._heartbeat_task, return_exceptions=True)
        if self._supervisor is not None:
            await self._supervisor.stop()

    async def heartbeat(self, complaint: str) -> bool:
        """Handshake, terms and keys anew; `connected` if all is well, which is returned."""
        try:
            await self._wallet.server.refresh()
        except KnownError as error:
            log.warning("%s: %s", complaint, chain_text(error))
            return False
        self.connected = True
        self._reconnected.set()
        return True

    # --- loops

    async def _server_connection(self, shutdown: Shutdown) -> None:
        while not shutdown.requested:
            await shutdown.sleep(self._interval_secs)
            if shutdown.requested or self.connected:
                continue
            if await self.heartbeat("Ark server reconnect failed"):
                log.info("Ark server reconnected")

    async def _watch_tip(self, shutdown: Shutdown) -> None:
        """Until cancelled. With bitcoind, its announcements come on top of looking."""
        config, chain = self._wallet.config, self._wallet.chain
        interval_secs = min(self._interval_secs, self._tip_interval_secs)
        if config.bitcoind_zmq_address is not None and chain.reads_blocks:
            await watch_tip_announced(
                chain, self._note_tip, interval_s=interval_secs, zmq_address=config.bitcoind_zmq_address
            )
        else:
            await watch_tip(chain, self._note_tip, interval_s=interval_secs)

    def _note_tip(self, tip: BlockRef) -> None:
        self._wallet.note_tip(tip)
        self._wallet.recovery.note_block()
        for event in self._new_tip_events:
            event.set()

    async def _at_new_tips(self, shutdown: Shutdown, work: Callable[[], Awaitable[None]]) -> None:
        """Work at once, after every interval, and for every new tip, also one that comes during the work."""
        new_tip = asyncio.Event()
        self._new_tip_events.add(new_tip)
        try:
            while not shutdown.requested:
                await work()
                await shutdown.sleep(self._interval_secs, wake=new_tip)
        finally:
            self._new_tip_events.discard(new_tip)

    async def _sync(self, shutdown: Shutdown) -> None:
        await self._wallet.sync()
        await self._at_new_tips(shutdown, self.sync_once)

    async def sync_once(self) -> None:
        """One pass; each thing on its own. Source: sheet 09 §1.4.

        Upstream leaves unfinished arkoor payments to the next start. They are few, and driving them is cheap.
        And it stops asking for fee rates while the server is away, which is when exits need them.
        """
        wallet = self._wallet
        await self._attempt("fee rates", wallet.chain.update_fee_rates)
        if self.connected:
            await self._attempt("arkoor sends", wallet.arkoor.drive_all)
            await self._attempt("recovery catch-up", wallet.registration.catch_up)
        await self._attempt("rounds", wallet.rounds.sync)
        if wallet.onchain is not None:
            await self._attempt("on-chain wallet", wallet.onchain.sync)
        # Without the server too: a board that it does not take exits, and the chain tells of offboards.
        await self._attempt("boards", wallet.boards.drive_all)
        await self._attempt("offboards", wallet.offboards.drive_all)

    async def _exits(self, shutdown: Shutdown) -> None:
        await self._at_new_tips(shutdown, self.exits_once)

    async def exits_once(self) -> None:
        """Bring emergency exits forward. Upstream does not look when a block comes, but once per interval."""
        await self._attempt("exits", self._wallet.exits.tick)

    async def _lightning(self, shutdown: Shutdown) -> None:
        wakeup = self._wallet.lightning.wakeup
        while not shutdown.requested:
            if await self.lightning_once():
                await shutdown.sleep(LIGHTNING_INTERVAL_SECS)
            else:
                await shutdown.sleep(self._interval_secs, wake=wakeup)

    async def lightning_once(self) -> bool:
        """Look at the payments that are under way; whether there are any. It waits for none of them.

        Upstream leaves them to the mailbox and to a sync.
        """
        lightning = self._wallet.lightning
        if not await lightning.is_pending():
            return False
        await self._attempt("lightning", lightning.poll)
        return True

    async def _attempt(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except KnownError as error:
            log.warning("%s: %s", what, chain_text(error))

    async def _mailbox(self, shutdown: Shutdown) -> None:
        while not shutdown.requested:
            if self.connected:
                try:
                    await self.run_mailbox()
                except KnownError as error:
                    log.warning("mailbox: %s", chain_text(error))
                    self.connected = False
            await shutdown.sleep(self._interval_secs, wake=self._reconnected)

    async def run_mailbox(self) -> None:
        """Drain the mailbox whenever something may have come. Raises what ends it."""
        async with aclosing(mailbox_wakeups(self._subscribe, self._backoff())) as wakeups:
            async for _ in wakeups:
                await self._drain()

    async def _round_events(self, shutdown: Shutdown) -> None:
        """Until cancelled. A daemon that is left alone joins rounds in which it has something to refresh."""
        await self._wallet.rounds.run_events(round_events(self._wallet.server, self._backoff()))

    async def _recovery(self, shutdown: Shutdown) -> None:
        await self._at_new_tips(shutdown, self.recovery_once)

    async def recovery_once(self) -> None:
        """Look for VTXOs of an earlier life of the mnemonic, until all of them are known."""
        await self._attempt("recovery", self._wallet.recovery.tick)

    async def _subscribe(self) -> AsyncGenerator[MailboxMessage, None]:
        return await self._wallet.mailbox.subscribe()

    async def _drain(self) -> None:
        """Read until all is acknowledged. What cannot be dealt with now is tried again after a pause."""
        backoff = self._backoff()
        while True:
            try:
                await self._wallet.mailbox.sync()
                return
            except ConnectFailed:
                raise
            except KnownError as error:
                log.warning("mailbox: %s", chain_text(error))
            await backoff.wait()
