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
from collections import OrderedDict
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
        self._posted: set[VtxoId] = set()
        self._chains_known: set[VtxoId] = set()
        # Asked for one by one, since together it failed or took too long; those asked for last come last.
        self._alone: OrderedDict[VtxoId, None] = OrderedDict()
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

        Nobody waits long for a slow server: the next call goes on with the others, and what it has noted is
        not asked for again.

        Raises ConnectFailed: then there is no point in going on.
        """
        async with self._running:
            async with self._store.read() as tx:
                waiting = await tx.vtxos.unregistered()
                left_out = await self._leave_out(tx)
            ids = [vtxo_id for vtxo_id in waiting if vtxo_id not in left_out]
            self._posted.intersection_update(ids)
            still = set(ids)
            alone = [vtxo_id for vtxo_id in self._alone if vtxo_id in still]
            self._alone = OrderedDict.fromkeys(alone)
            self._deadline = asyncio.get_running_loop().time() + self._catch_up_secs
            try:
                for chunk in _chunks([vtxo_id for vtxo_id in ids if vtxo_id not in self._alone]):
                    await self._catch_up_chunk(chunk)
                await self._catch_up_alone(alone)
            except TimeoutError:
                log.warning("the server takes too long to note VTXOs: going on later")
                return
            self._alone.clear()

    async def _catch_up_chunk(self, ids: Sequence[VtxoId]) -> None:
        """Together, and what is left then one by one: one unknown id spoils a post."""
        try:
            left = await self._note(ids)
        except TimeoutError:
            self._alone.update(dict.fromkeys(ids))
            raise
        if len(ids) > 1:
            self._alone.update(dict.fromkeys(left))
            await self._catch_up_alone(left)

    async def _catch_up_alone(self, ids: Sequence[VtxoId]) -> None:
        for vtxo_id in ids:
            self._alone.move_to_end(vtxo_id)
            if not await self._note([vtxo_id]):
                del self._alone[vtxo_id]

    async def _note(self, ids: Sequence[VtxoId]) -> list[VtxoId]:
        """Mark those that the server has noted; returns the others. Raises ConnectFailed, TimeoutError."""
        await self._post(ids)
        await self._register(ids)
        done = [vtxo_id for vtxo_id in ids if vtxo_id in self._posted and vtxo_id in self._chains_known]
        if done:
            async with self._store.transaction() as tx:
                await tx.vtxos.mark_registered(done)
            self._posted.difference_update(done)
            self._chains_known.difference_update(done)
        return [vtxo_id for vtxo_id in ids if vtxo_id not in done]

    async def _post(self, ids: Sequence[VtxoId]) -> None:
        missing = [vtxo_id for vtxo_id in ids if vtxo_id not in self._posted]
        if not missing:
            return
        try:
            await self._post_together(missing)
            self._posted.update(missing)
        except ConnectFailed:
            raise
        except BarkdError as error:
            log.warning("posting recovery ids failed: %s: %s", _names(missing), chain_text(error))

    async def _post_together(self, ids: Sequence[VtxoId]) -> None:
        key = self._keychain.recovery_mailbox_key
        expiry = int(self._now()) + AUTHORIZATION_SECONDS
        authorization = MailboxAuthorization.sign(key, expiry=expiry).encode()
        async with asyncio.timeout_at(self._deadline):
            await self._server.post_recovery_vtxo_ids(key.public_key, authorization, ids)

    async def _register_together(self, vtxos: Sequence[Vtxo]) -> None:
        async with asyncio.timeout_at(self._deadline):
            await self._server.register_vtxo_transactions(vtxos)

    async def _register(self, ids: Sequence[VtxoId]) -> None:
        missing = [vtxo_id for vtxo_id in ids if vtxo_id not in self._chains_known]
        if not missing:
            return
        async with self._store.read() as tx:
            vtxos, unreadable = await tx.vtxos.readable_bodies(missing)
        for error in unreadable:
            self._passed_over.note(error.vtxo_id, error)
        if not vtxos:
            return
        try:
            await self._register_together(vtxos)
            self._chains_known.update(vtxo.id for vtxo in vtxos)
        except ConnectFailed:
            raise
        except BarkdError as error:
            names = _names([vtxo.id for vtxo in vtxos])
            log.warning("registering VTXOs failed: %s: %s", names, chain_text(error))


def _names(ids: Sequence[VtxoId]) -> str:
    return str(ids[0]) if len(ids) == 1 else f"{len(ids)} together"


def _chunks(ids: Sequence[VtxoId]) -> Iterator[Sequence[VtxoId]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]
