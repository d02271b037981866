"""The lists that clients poll, kept as they were rendered and brought up to date by what each commit changed.

A client that shows a wallet asks for all VTXOs and the whole history again and again, above all when
something has happened. Reading ten thousand rows for one that is new would keep everything else waiting, so a
listing is read once, when somebody first asks, and then only what a commit touched is rendered again.

How an item is rendered is the asker's business; each form that was asked for is kept (`rendered_list`).

Two facts carry this: nobody but this process writes to the database, and the store tells of every change in
the order of the commits. When it cannot say whether there was one, the lists are read again.
"""

import asyncio
import struct
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from barkd_py.wallet.movements import Movement, PaymentMethod
from barkd_py.wallet.notifications import WalletEvent
from barkd_py.wallet.rendered_list import PAGE_ITEMS, RenderedList, RenderedPages
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.vtxo_states import StateKind, WalletVtxo

T = TypeVar("T")
K = TypeVar("K", bound=Any)

Render = Callable[[T], bytes]

# By the id of the item: what it is now, or None if that is yet to be read.
Changed = Mapping[Any, T | None]

# Beyond so many changes that nobody has asked for, the whole list is read again when somebody does.
_CHANGES_MAX: Final = 10_000


@dataclass(slots=True)
class _Form(Generic[T, K]):
    """One rendering of the whole list.

    changed: what is not in `pages` yet. in_doubt: nor may other things be.
    """

    pages: RenderedPages[K] | None = None
    in_doubt: bool = False
    changed: dict[Any, T | None] = field(default_factory=dict)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note(self, changed: Changed[T]) -> None:
        if self.busy.locked():
            self.changed.update(changed)
        elif self.pages is not None:
            self.changed.update(changed)
            if len(self.changed) > _CHANGES_MAX:
                self.pages, self.changed = None, {}


class _Listing(ABC, Generic[T, K]):
    """T: the items. K: what they are sorted by, which never changes for an item.

    turn: shared by lists that may be read at the same time, so that whatever else goes on waits for a page of
    one of them, and not for a page of each.
    """

    def __init__(self, store: Store, turn: asyncio.Lock | None = None) -> None:
        self._store = store
        self._turn = turn or asyncio.Lock()
        self._forms: dict[Hashable, _Form[T, K]] = {}
        store.on_doubt(self._doubt)

    async def rendered(self, form: Hashable, render: Render[T]) -> RenderedList:
        """The list as it is when this returns. form: names what `render` makes of an item."""
        kept = self._forms.setdefault(form, _Form())
        async with kept.busy:
            if kept.pages is None or kept.in_doubt:
                kept.changed, kept.in_doubt = {}, False
                kept.pages = await self._load(render)
            while kept.changed:
                await self._refresh(kept, kept.pages, render)
            return kept.pages.list()

    async def _load(self, render: Render[T]) -> RenderedPages[K]:
        pages: RenderedPages[K] = RenderedPages()
        async with aclosing(self._read_all()) as read:
            async for items in read:
                pages.append([(self._key(item), render(item)) for item in items])
        return pages

    async def _refresh(self, kept: _Form[T, K], pages: RenderedPages[K], render: Render[T]) -> None:
        """Bring in some of what has changed."""
        batch = {item_id: kept.changed.pop(item_id) for item_id in list(islice(kept.changed, PAGE_ITEMS))}
        try:
            changes = await self._read_changed(batch, pages)
        except BaseException:
            kept.changed = batch | kept.changed
            raise
        pages.apply({key: None if item is None else render(item) for key, item in changes.items()})
        if kept.changed:
            await asyncio.sleep(0)

    def _doubt(self) -> None:
        for form in self._forms.values():
            form.in_doubt = True

    def _note(self, changed: Changed[T]) -> None:
        for form in self._forms.values():
            form.note(changed)

    @abstractmethod
    def _key(self, item: T) -> K: ...

    async def _read_all(self) -> AsyncGenerator[Sequence[T], None]:
        """Pages of the list at one moment. It is this list's turn until the next one is asked for."""
        last: T | None = None
        async with self._store.read() as tx:
            while True:
                async with self._turn:
                    page = await self._read_page(tx, last)
                    if not page:
                        return
                    yield page
                    await asyncio.sleep(0)
                last = page[-1]

    @abstractmethod
    async def _read_page(self, tx: Transaction, last: T | None) -> Sequence[T]:
        """Up to `PAGE_ITEMS` items, those behind the last one that was read."""

    @abstractmethod
    async def _read_changed(self, changed: Changed[T], pages: RenderedPages[K]) -> Mapping[K, T | None]:
        """The items as they are now; None for those that are not in the list any more."""

    async def items(self) -> tuple[T, ...]:
        """All items, read from the database."""
        found: list[T] = []
        async with aclosing(self._read_all()) as read:
            async for items in read:
                found += items
        return tuple(found)


class HistoryListing(_Listing[Movement, int]):
    """All movements, newest first: by falling id."""

    def __init__(self, store: Store, turn: asyncio.Lock | None = None) -> None:
        super().__init__(store, turn)
        store.on_commit(self._note_events)

    def _note_events(self, events: Sequence[WalletEvent]) -> None:
        self._note({event.movement.id: event.movement for event in events})

    def _key(self, item: Movement) -> int:
        return -item.id

    async def _read_page(self, tx: Transaction, last: Movement | None) -> Sequence[Movement]:
        return await tx.movements.list(limit=PAGE_ITEMS, before=None if last is None else last.id)

    async def _read_changed(
        self, changed: Changed[Movement], pages: RenderedPages[int]
    ) -> Mapping[int, Movement | None]:
        return {self._key(movement): movement for movement in changed.values() if movement is not None}


class VtxoListing(_Listing[WalletVtxo, bytes]):
    """The VTXOs of some kinds of state, by expiry height, then by falling amount, then by id."""

    def __init__(self, store: Store, kinds: Collection[StateKind], turn: asyncio.Lock | None = None) -> None:
        super().__init__(store, turn)
        self._kinds = frozenset(kinds)
        store.on_vtxos_changed(lambda ids: self._note(dict.fromkeys(ids)))

    def _key(self, item: WalletVtxo) -> bytes:
        """Bytes that sort like expiry height, falling amount and id. The id is what follows the numbers."""
        return struct.pack(">QQ", item.expiry_height, _AMOUNT_MAX - item.amount_sat) + str(item.id).encode()

    async def _read_page(self, tx: Transaction, last: WalletVtxo | None) -> Sequence[WalletVtxo]:
        return await tx.vtxos.list(self._kinds, limit=PAGE_ITEMS, after=None if last is None else last.id)

    async def _read_changed(
        self, changed: Changed[WalletVtxo], pages: RenderedPages[bytes]
    ) -> Mapping[bytes, WalletVtxo | None]:
        async with self._store.read() as tx:
            found = await tx.vtxos.find_many(changed)
        changes = {
            self._key(vtxo): vtxo if vtxo.state.kind in self._kinds else None for vtxo in found.values()
        }
        for removed in changed.keys() - found.keys():
            name = str(removed).encode()
            changes |= {key: None for key in pages if key[_NUMBERS:] == name}
        return changes


# Of the numbers before the id in the key of a VTXO.
_NUMBERS: Final = struct.calcsize(">QQ")
_AMOUNT_MAX: Final = (1 << 64) - 1


async def render_by_method(store: Store, method: PaymentMethod, render: Render[Movement]) -> RenderedList:
    """The movements with this method in sent_to or received_on, oldest first."""
    pages: RenderedPages[int] = RenderedPages()
    last: int | None = None
    async with store.read() as tx:
        while page := await tx.movements.list_by_method(method, limit=PAGE_ITEMS, after=last):
            pages.append([(movement.id, render(movement)) for movement in page])
            last = page[-1].id
            await asyncio.sleep(0)
    return pages.list()
