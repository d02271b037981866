"""The server's copies: signed chains with the server, ids in the recovery mailbox.

A wallet that lost its database finds its VTXOs again from the mnemonic only if their ids are in the recovery
mailbox, and can spend them only if the server has their signed chains. Neither is needed for the payment in
hand, so both happen behind it: `wake` is called when VTXOs were stored, and every sync catches up.

A VTXO is marked ``registered`` when *both* succeeded for it. Boards that are still under way are left out:
the server does not know them yet, and one unknown id makes it refuse all of a post.

Source: sheet 02 §5.6; sheet 03 §7.5; sheet 09 §1.9.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence

from barkd_py.ark.mailbox import MailboxAuthorization
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.errors import BarkdError, KnownError, chain_text
from barkd_py.server_rpc.api import MAX_RECOVERY_IDS_PER_POST, ArkServerApi
from barkd_py.server_rpc.errors import ConnectFailed
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.notifications import WalletEvent
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.unreadable import PassedOver

log = logging.getLogger(__name__)

CHUNK = MAX_RECOVERY_IDS_PER_POST
AUTHORIZATION_SECONDS = 60
CATCH_UP_SECS = 60.0
"""Of one catching up: others wait for it, and a server may take ten minutes for each answer."""

LeaveOut = Callable[[Transaction], Awaitable[Collection[VtxoId]]]
"""The VTXOs that the server cannot know yet."""


class Registration:
    """Posts ids and registers chains, in the background or as part of a sync. now: Unix seconds."""

    def __init__(
        self,
        store: Store,
        server: ArkServerApi,
        keychain: Keychain,
        leave_out: LeaveOut,
        *,
        now: Callable[[], float] = time.time,
        catch_up_secs: float = CATCH_UP_SECS,
    ) -> None:
        self._store = store
        self._server = server
        self._keychain = keychain
        self._leave_out = leave_out
        self._now = now
        self._catch_up_secs = catch_up_secs
        self._deadline = 0.0
        self._tried: set[VtxoId] = set()  # since the last catching up that came to its end
        self._chains_known: set[VtxoId] = set()
        self._passed_over = PassedOver("registration")
        self._running = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._closed = False
        self._wake_at_commit = False
        self._stop_listening = store.on_commit(self._committed)

    def note_registered(self, ids: Iterable[VtxoId]) -> None:
        """The server has just taken these chains: they need not be sent once more."""
        self._chains_known.update(ids)

    def wake(self) -> None:
        """Catch up in the background, soon. Calls meanwhile are one more run, not many."""
        if self._closed:
            return
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.create_task(self._run(), name="registration")

    def wake_at_commit(self) -> None:
        """For use inside a transaction: `wake`, once it is committed."""
        self._wake_at_commit = True

    def _committed(self, events: Sequence[WalletEvent]) -> None:
        if self._wake_at_commit:
            self._wake_at_commit = False
            self.wake()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._stop_listening()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._again = False
            try:
                await self.catch_up()
            except KnownError as error:
                log.warning("recovery catch-up failed: %s", chain_text(error))
            if not self._again:
                return

    async def catch_up(self) -> None:
        """Post and register whatever is not; what fails is logged and tried at the next call.

        Nobody waits long for a slow server: the next call goes on with the others.

        Raises ConnectFailed: then there is no point in going on.
        """
        async with self._running:
            async with self._store.read() as tx:
                waiting = await tx.vtxos.unregistered()
                left_out = await self._leave_out(tx)
            ids = [vtxo_id for vtxo_id in waiting if vtxo_id not in left_out]
            ids.sort(key=self._tried.__contains__)
            self._deadline = asyncio.get_running_loop().time() + self._catch_up_secs
            try:
                for chunk in _chunks(ids):
                    self._tried.update(chunk)
                    await self._catch_up_chunk(chunk)
            except TimeoutError:
                log.warning("the server takes too long to note VTXOs: going on later")
                if not self._tried.issuperset(ids):
                    return
            self._tried.clear()

    async def _catch_up_chunk(self, ids: Sequence[VtxoId]) -> None:
        posted = await self._post(ids)
        with_chain = await self._register(ids)
        done = [vtxo_id for vtxo_id in ids if vtxo_id in posted and vtxo_id in with_chain]
        if done:
            async with self._store.transaction() as tx:
                await tx.vtxos.mark_registered(done)
            self._chains_known.difference_update(done)

    async def _post(self, ids: Sequence[VtxoId]) -> set[VtxoId]:
        """Those that are in the recovery mailbox now. One unknown id spoils a post, so then one by one."""
        try:
            await self._post_together(ids)
            return set(ids)
        except ConnectFailed:
            raise
        except BarkdError as error:
            log.warning("posting %d recovery ids failed: %s", len(ids), chain_text(error))
            if len(ids) == 1:
                return set()
        posted = set()
        for vtxo_id in ids:
            try:
                await self._post_together([vtxo_id])
                posted.add(vtxo_id)
            except BarkdError as error:
                log.warning("posting recovery id %s failed: %s", vtxo_id, chain_text(error))
        return posted

    async def _post_together(self, ids: Sequence[VtxoId]) -> None:
        key = self._keychain.recovery_mailbox_key
        expiry = int(self._now()) + AUTHORIZATION_SECONDS
        authorization = MailboxAuthorization.sign(key, expiry=expiry).encode()
        async with asyncio.timeout_at(self._deadline):
            await self._server.post_recovery_vtxo_ids(key.public_key, authorization, ids)

    async def _register_together(self, vtxos: Sequence[Vtxo]) -> None:
        async with asyncio.timeout_at(self._deadline):
            await self._server.register_vtxo_transactions(vtxos)

    async def _register(self, ids: Sequence[VtxoId]) -> set[VtxoId]:
        """Those whose chain the server has now."""
        registered = set(ids) & self._chains_known
        missing = [vtxo_id for vtxo_id in ids if vtxo_id not in registered]
        if not missing:
            return registered
        async with self._store.read() as tx:
            vtxos, unreadable = await tx.vtxos.readable_bodies(missing)
        for error in unreadable:
            self._passed_over.note(error.vtxo_id, error)
        if not vtxos:
            return registered
        try:
            await self._register_together(vtxos)
            return registered | {vtxo.id for vtxo in vtxos}
        except ConnectFailed:
            raise
        except BarkdError as error:
            log.warning("registering %d VTXOs failed: %s", len(vtxos), chain_text(error))
            if len(vtxos) == 1:
                return registered
        for vtxo in vtxos:
            try:
                await self._register_together([vtxo])
                registered.add(vtxo.id)
            except BarkdError as error:
                log.warning("registering VTXO %s failed: %s", vtxo.id, chain_text(error))
        return registered


def _chunks(ids: Sequence[VtxoId]) -> Iterator[Sequence[VtxoId]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]
