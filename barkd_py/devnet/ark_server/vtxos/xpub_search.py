"""Finding all VTXOs of a wallet by the extended public key that its VTXO keys descend from.

A call derives a batch of keys and answers the VTXOs that name one of them, whatever became of them, in the
order in which they were made. If there are too many for one answer it gives a cursor, and the same batch is
asked for again from there. The search is over when a whole batch has nothing.

Whoever knows the extended key could ask, so its private part must sign; the signature is good for minutes.

Source: sheet 02 §6.4; sheet 08 §3.4, §5.2.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from barkd_py.ark.mailbox import XpubRecoveryAuthorization
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.bip32 import HARDENED, ExtendedPublicKey
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.devnet.ark_server.failures import BadArgument
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store


@dataclass(frozen=True, slots=True)
class XpubSearch:
    """One request. xpub: 78 bytes. cursor: the VTXO after which to go on within the batch."""

    xpub: bytes
    start_index: int
    authorization: bytes
    cursor: VtxoId | None


@dataclass(frozen=True, slots=True)
class FoundVtxo:
    """encoded: the full VTXO. index: of its key. state: the number that clients know."""

    encoded: bytes
    index: int
    state: int


@dataclass(frozen=True, slots=True)
class FoundVtxos:
    """keys_scanned: 0 if the batch is not done. cursor: the last VTXO that was looked at, if so."""

    vtxos: tuple[FoundVtxo, ...]
    keys_scanned: int
    have_more: bool
    cursor: VtxoId | None


class XpubSearches:
    """clock: Unix seconds."""

    def __init__(
        self, settings: ServerSettings, keys: ServerKeys, store: Store, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._store = store
        self._clock = clock

    async def run(self, search: XpubSearch) -> FoundVtxos:
        """Raises BadArgument."""
        xpub = self._authorize(search)
        end = min(search.start_index + self._settings.xpub_scan_keys, HARDENED)
        indexes = {xpub.child(index): index for index in range(search.start_index, end)}

        limit = self._settings.xpub_max_vtxos

        def look(connection: Connection) -> FoundVtxos:
            after_seq = 0
            if search.cursor is not None:
                after_seq = vtxo_rows.get_seq(connection, search.cursor)
            rows = vtxo_rows.user_vtxos_of(connection, indexes.keys(), after_seq=after_seq, limit=limit + 1)
            is_cut = len(rows) > limit
            rows = rows[:limit]
            found = tuple(
                FoundVtxo(row.encoded, indexes[row.user_vtxo().user_pubkey], row.state.wire_value)
                for row in rows
                if row.is_user_vtxo and row.state.wire_value is not None
            )
            if is_cut:
                return FoundVtxos(found, 0, have_more=True, cursor=rows[-1].id)
            is_last = (not found and search.cursor is None) or end == HARDENED
            return FoundVtxos(found, end - search.start_index, have_more=not is_last, cursor=None)

        return await self._store.transact(look)

    def _authorize(self, search: XpubSearch) -> ExtendedPublicKey:
        if search.start_index >= HARDENED:
            raise BadArgument("start index is out of range")
        try:
            xpub = ExtendedPublicKey.parse(search.xpub)
        except ValueError as error:
            raise BadArgument("invalid xpub") from error
        try:
            authorization = XpubRecoveryAuthorization.decode(search.authorization)
        except DecodeError as error:
            raise BadArgument("invalid xpub recovery authorization") from error
        if not authorization.is_current(now=int(self._clock())):
            raise BadArgument("xpub recovery authorization expired or issued for too long")
        if not authorization.is_valid_signature(server_pubkey=self._keys.server_pubkey, xpub=search.xpub):
            raise BadArgument("invalid xpub recovery authorization signature")
        return xpub
