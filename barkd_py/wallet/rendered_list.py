"""A long list as bytes: what its items were rendered to, in order, in pages, most of them compressed.

A hundred thousand movements are 300 MB as objects and 70 MB as text, and all but the newest never change
again. So nothing is kept of an item but its text and the key that it is sorted by. Pages are never changed,
only replaced, so an answer that is sent slowly stays what it was when it was asked for, and costs no copy.
"""

import zlib
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, Self, TypeVar

PAGE_ITEMS: Final = 64
"""So few that reading and rendering a page keeps nobody waiting."""

TEXT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of the pages at the front of one list that are kept as they are; those behind them are compressed."""

# Half as small as the text, for what consists of hashes; the higher levels take three times as long for 3 %.
_ZLIB_LEVEL: Final = 1


class _Key(Protocol):
    def __lt__(self, other: Self, /) -> bool: ...


K = TypeVar("K", bound=_Key)


@dataclass(frozen=True, slots=True, eq=False)
class _Page(Generic[K]):
    """ends: where each item ends in the text, which is the items joined by commas; at least one item."""

    keys: tuple[K, ...]
    ends: "array[int]"
    body: bytes
    is_packed: bool = False

    @classmethod
    def of(cls, items: Sequence[tuple[K, bytes]]) -> "_Page[K]":
        ends, end = array("I"), -1
        for _, text in items:
            end += 1 + len(text)
            ends.append(end)
        return cls(tuple(key for key, _ in items), ends, b",".join(text for _, text in items))

    @property
    def size(self) -> int:
        return self.ends[-1]

    def text(self) -> bytes:
        return zlib.decompress(self.body, bufsize=self.size) if self.is_packed else self.body

    def items(self) -> dict[K, bytes]:
        text, starts = self.text(), (0, *(end + 1 for end in self.ends))
        return {key: text[start:end] for key, start, end in zip(self.keys, starts, self.ends, strict=False)}

    def packed(self) -> "_Page[K]":
        return _Page(self.keys, self.ends, zlib.compress(self.body, _ZLIB_LEVEL), is_packed=True)


@dataclass(frozen=True, slots=True)
class RenderedList:
    """The list at one moment. size: bytes of all chunks together."""

    size: int
    _pages: tuple[_Page[Any], ...]

    def chunks(self) -> Iterator[bytes]:
        """The items joined by commas, page by page."""
        separator = b""
        for page in self._pages:
            yield separator + page.text()
            separator = b","


class RenderedPages(Generic[K]):
    """A list that changes. Keys are unique, and give the order."""

    def __init__(self, *, text_bytes_max: int = TEXT_BYTES_MAX) -> None:
        self._text_bytes_max = text_bytes_max
        self._pages: list[_Page[K]] = []
        self._text_bytes = 0
        self._list: RenderedList | None = None

    def append(self, items: Sequence[tuple[K, bytes]]) -> None:
        """Add items behind all others, in their order."""
        if items:
            self._replace(len(self._pages), len(self._pages), items)
            self._pack()

    def apply(self, changes: Mapping[K, bytes | None]) -> None:
        """Put items in, in place of those with their keys; None takes one out, if it is there."""
        starts = [page.keys[0] for page in self._pages]
        by_page: dict[int, dict[K, bytes | None]] = defaultdict(dict)
        for key, text in changes.items():
            by_page[max(bisect_right(starts, key) - 1, 0)][key] = text
        for index in sorted(by_page, reverse=True):  # from the end, as pages may be split or vanish
            end = min(index + 1, len(self._pages))
            items = self._pages[index].items() if index < end else {}
            for key, text in by_page[index].items():
                if text is None:
                    items.pop(key, None)
                else:
                    items[key] = text
            self._replace(index, end, [(key, items[key]) for key in sorted(items)])
        self._pack()

    def __iter__(self) -> Iterator[K]:
        """The keys."""
        return (key for page in self._pages for key in page.keys)

    def list(self) -> RenderedList:
        if self._list is None:
            size = sum(page.size for page in self._pages) + max(len(self._pages) - 1, 0)
            self._list = RenderedList(size, tuple(self._pages))
        return self._list

    def _replace(self, start: int, end: int, items: Sequence[tuple[K, bytes]]) -> None:
        self._text_bytes -= sum(page.size for page in self._pages[start:end] if not page.is_packed)
        self._pages[start:end] = pages = [_Page.of(run) for run in _even_runs(items)]
        self._text_bytes += sum(page.size for page in pages)
        self._list = None

    def _pack(self) -> None:
        """Compress pages, those at the end first, until the others are few enough."""
        index = len(self._pages)
        while self._text_bytes > self._text_bytes_max:
            index -= 1
            page = self._pages[index]
            if not page.is_packed:
                self._pages[index] = page.packed()
                self._text_bytes -= page.size


def _even_runs(items: Sequence[tuple[K, bytes]]) -> Iterator[Sequence[tuple[K, bytes]]]:
    """The items in as few runs as pages allow, equally long, so that the next items find room."""
    nb_runs = -(-len(items) // PAGE_ITEMS)
    for run in range(nb_runs):
        yield items[run * len(items) // nb_runs : (run + 1) * len(items) // nb_runs]
