"""The lists that clients poll, kept in memory and brought up to date by what each commit changed.

A client that shows a wallet asks for all VTXOs and the whole history again and again, above all when
something has happened. Reading ten thousand rows for one that is new would keep everything else waiting, so a
listing is read once, when somebody first asks, and each commit then replaces only what it touched. What did
not change stays the same object, so that whoever renders it can keep the rendering.

Two facts carry this: nobody but this process writes to the database, and the store tells of every change in
the order of the commits.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.movements import Movement
from barkd_py.wallet.notifications import WalletEvent
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxos.states import StateKind, WalletVtxo

T = TypeVar("T")

# Rows that are read before anything else gets a turn.
_PAGE = 500

# Beyond so many changed VTXOs the whole list is read again.
_MANY_CHANGES = 1_000


class _Sorted(Generic[T]):
    """Items in the order of a key that never changes for an item."""

    def __init__(self, key: Callable[[T], Any], items: Sequence[T]) -> None:
        self._key = key
        self._list = list(items)
        self._tuple: tuple[T, ...] | None = tuple(items)

    @property
    def items(self) -> tuple[T, ...]:
        if self._tuple is None:
            self._tuple = tuple(self._list)
        return self._tuple

    def put(self, item: T) -> None:
        """Add an item, or replace the one with its key."""
        place, is_there = self._find(self._key(item))
        self._list[place : place + is_there] = [item]
        self._tuple = None

    def drop(self, key: Any) -> None:
        """Remove the item with this key, if it is there."""
        place, is_there = self._find(key)
        if is_there:
            del self._list[place]
            self._tuple = None

    def _find(self, key: Any) -> tuple[int, bool]:
        place = bisect_left(self._list, key, key=self._key)
        return place, place < len(self._list) and self._key(self._list[place]) == key


class HistoryListing:
    """All movements, newest first; equally old ones by falling id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sorted: _Sorted[Movement] | None = None
        self._waiting: list[Movement] = []
        self._loading = asyncio.Lock()
        store.on_commit(self._note)

    async def list(self) -> tuple[Movement, ...]:
        async with self._loading:
            if self._sorted is None:
                self._waiting = []
                loaded = _Sorted(_history_key, await self._load())
                for movement in self._waiting:
                    loaded.put(movement)
                self._sorted = loaded
            return self._sorted.items

    def _note(self, events: Sequence[WalletEvent]) -> None:
        for event in events:
            if self._sorted is not None:
                self._sorted.put(event.movement)
            elif self._loading.locked():
                self._waiting.append(event.movement)

    async def _load(self) -> Sequence[Movement]:
        movements: list[Movement] = []
        async with self._store.read() as tx:
            while page := await tx.movements.list(
                limit=_PAGE, before=movements[-1].id if movements else None
            ):
                movements += page
                await asyncio.sleep(0)
        return movements


class VtxoListing:
    """The VTXOs of some kinds of state, by expiry height, then by falling amount, then by id."""

    def __init__(self, store: Store, kinds: Collection[StateKind]) -> None:
        self._store = store
        self._kinds = frozenset(kinds)
        self._sorted: _Sorted[WalletVtxo] | None = None
        self._keys: dict[VtxoId, Any] = {}
        self._changed: set[VtxoId] = set()
        self._loading = asyncio.Lock()
        store.on_vtxos_changed(self._note)

    async def list(self) -> tuple[WalletVtxo, ...]:
        async with self._loading:
            if self._sorted is None or len(self._changed) > _MANY_CHANGES:
                self._sorted = await self._load()
            while self._changed:
                await self._refresh(self._sorted)
            return self._sorted.items

    def _note(self, ids: Collection[VtxoId]) -> None:
        if self._sorted is not None or self._loading.locked():
            self._changed.update(ids)

    async def _load(self) -> _Sorted[WalletVtxo]:
        self._changed = set()
        vtxos: list[WalletVtxo] = []
        async with self._store.read() as tx:
            while page := await tx.vtxos.list(
                self._kinds, limit=_PAGE, after=vtxos[-1].id if vtxos else None
            ):
                vtxos += page
                await asyncio.sleep(0)
        self._keys = {vtxo.id: _vtxo_key(vtxo) for vtxo in vtxos}
        return _Sorted(_vtxo_key, vtxos)

    async def _refresh(self, listed: _Sorted[WalletVtxo]) -> None:
        """Read what was changed before this moment; what changes meanwhile waits for the next turn."""
        ids, self._changed = self._changed, set()
        try:
            async with self._store.read() as tx:
                found = await tx.vtxos.find_many(ids)
        except BaseException:
            self._changed |= ids
            raise
        for vtxo_id in ids:
            vtxo = found.get(vtxo_id)
            if vtxo is not None and vtxo.state.kind in self._kinds:
                self._keys[vtxo_id] = _vtxo_key(vtxo)
                listed.put(vtxo)
            elif (key := self._keys.pop(vtxo_id, None)) is not None:
                listed.drop(key)


def _history_key(movement: Movement) -> tuple[int, int]:
    return -_microseconds(movement.created_at), -movement.id


def _vtxo_key(vtxo: WalletVtxo) -> tuple[int, int, str]:
    return vtxo.expiry_height, -vtxo.amount_sat, str(vtxo.id)


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
