"""The search by extended public key: one page at a time, and no page is believed further than it can be.

The server derives our keys batch by batch and answers the VTXOs that name one. It could answer for ever, or
name a key two thousand million ahead and let us store all of those before it: so the search ends when nothing
moves, when too many keys in a row have nothing, or after a number of pages; and a key far ahead is revealed
for a VTXO that is proven against the chain only, and never more than the largest gap at a time.

Source: sheet 02 §6.4, "Client must verify" 6; sheet 08 §3.4.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from barkd_py.ark.wallet_keys import MAX_VTXO_KEY_INDEX
from barkd_py.bitcoin.units import Network
from barkd_py.server_rpc.api import ArkServerApi, RecoveredVtxo, XpubRecoveryPage
from barkd_py.wallet.keychain import MAX_GAP_LIMIT, Keychain
from barkd_py.wallet.recovery.evidence import Evidence, Sighting
from barkd_py.wallet.recovery.judgement import Proven
from barkd_py.wallet.recovery.progress import Progress

AUTHORIZATION_SECONDS = 60
MAX_PAGES = 10_000


class XpubSearch:
    """now: Unix seconds. max_pages: of one search."""

    def __init__(
        self,
        server: ArkServerApi,
        keychain: Keychain,
        evidence: Evidence,
        *,
        network: Network,
        now: Callable[[], float],
        max_pages: int = MAX_PAGES,
    ) -> None:
        self._server = server
        self._keychain = keychain
        self._evidence = evidence
        self._network = network
        self._now = now
        self._max_pages = max_pages

    async def page(self, progress: Progress) -> XpubRecoveryPage | None:
        """The next page; None if the server cannot search. Raises ServerError, ProtocolViolation."""
        server_pubkey = (await self._server.info()).server_pubkey
        xpub, authorization = self._keychain.authorize_xpub_search(
            server_pubkey=server_pubkey,
            mainnet=self._network is Network.MAINNET,
            expiry=int(self._now()) + AUTHORIZATION_SECONDS,
        )
        return await self._server.recover_vtxos_by_xpub(
            xpub,
            start_index=progress.xpub_start,
            authorization=authorization,
            cursor=progress.xpub_cursor,
        )

    def after(self, progress: Progress, page: XpubRecoveryPage) -> Progress:
        """The progress once the page is dealt with; it says whether that was the last one."""
        after = replace(
            progress,
            xpub_start=min(progress.xpub_start + page.keys_scanned, MAX_VTXO_KEY_INDEX),
            xpub_cursor=page.cursor,
            xpub_misses=0 if page.vtxos else progress.xpub_misses + page.keys_scanned,
            xpub_pages=progress.xpub_pages + 1,
        )
        is_stuck = after.xpub_start == progress.xpub_start and after.xpub_cursor in (
            None,
            progress.xpub_cursor,
        )
        is_enough = (
            after.xpub_misses >= MAX_GAP_LIMIT
            or after.xpub_pages >= self._max_pages
            or after.xpub_start >= MAX_VTXO_KEY_INDEX
        )
        return replace(after, is_xpub_done=not page.have_more or is_stuck or is_enough)

    async def believed(self, entries: Sequence[RecoveredVtxo]) -> list[Sighting]:
        """The VTXOs of a page; keys far ahead that they prove are revealed, the gap scan finds others."""
        for entry in sorted(entries, key=lambda each: each.derivation_index):
            index, vtxo = entry.derivation_index, entry.vtxo
            revealed = await self._keychain.next_index()
            if not revealed <= index <= revealed + MAX_GAP_LIMIT:
                continue
            if not self._keychain.is_at(vtxo.user_pubkey, index):
                continue
            if isinstance((await self._evidence.prove([vtxo]))[vtxo.id], Proven):
                await self._keychain.store_up_to(index)
        return [
            Sighting(entry.vtxo.id, entry.vtxo, entry.spend_state, is_status_told=True) for entry in entries
        ]
