"""A list in pages is the list: in order, complete, and as small as promised."""

import random
import tracemalloc
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from barkd_py.wallet.rendered_list import PAGE_ITEMS, RenderedPages

KEYS = st.integers(0, 5 * PAGE_ITEMS)
TEXTS = st.binary(max_size=4)


def joined(items: Mapping[int, bytes]) -> bytes:
    return b",".join(items[key] for key in sorted(items))


def shown(pages: RenderedPages[int]) -> bytes:
    listed = pages.list()
    text = b"".join(listed.chunks())
    assert listed.size == len(text)
    return text


@given(
    st.dictionaries(KEYS, TEXTS, max_size=3 * PAGE_ITEMS),
    st.lists(st.dictionaries(KEYS, st.none() | TEXTS, max_size=40), max_size=6),
)
def test_after_any_changes_the_list_is_that_of_a_dictionary(
    first: dict[int, bytes], changes: list[dict[int, bytes | None]]
) -> None:
    pages: RenderedPages[int] = RenderedPages()
    pages.append(sorted(first.items()))
    model = dict(first)
    for changed in changes:
        pages.apply(changed)
        for key, text in changed.items():
            model.pop(key, None)
            if text is not None:
                model[key] = text
        assert shown(pages) == joined(model)
        assert list(pages) == sorted(model)


def test_the_empty_list() -> None:
    pages: RenderedPages[int] = RenderedPages()
    assert shown(pages) == b""
    assert list(pages.list().chunks()) == []


def test_no_chunk_has_more_items_than_a_page() -> None:
    pages: RenderedPages[int] = RenderedPages()
    for number in range(1_000):
        pages.apply({-number: b"%04d" % number})
    assert max(map(len, pages.list().chunks())) <= 5 * PAGE_ITEMS
    assert len(list(pages.list().chunks())) < 2.5 * 1_000 / PAGE_ITEMS  # no page is nearly empty


def movement_like(number: int) -> bytes:
    """As hard to compress as what wallets hold: most of it is hashes in hex."""
    chance = random.Random(number)
    return b'{"id":%d,"status":"successful","vtxo":"%b:1"}' % (number, chance.randbytes(200).hex().encode())


def test_beyond_the_limit_pages_are_compressed_and_stay_right() -> None:
    pages: RenderedPages[int] = RenderedPages(text_bytes_max=100_000)
    items = {number: movement_like(number) for number in range(2_000)}
    tracemalloc.start()
    pages.append(sorted(items.items()))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 0.8 * len(joined(items))
    assert shown(pages) == joined(items)

    changed = {number: movement_like(number + 5_000) for number in range(0, 2_000, 117)}
    pages.apply(changed)

    assert shown(pages) == joined(items | changed)
    assert sum(page.size for page in pages._pages if not page.is_packed) <= 100_000
    assert not pages._pages[0].is_packed
    assert pages._pages[-1].is_packed


def test_a_list_that_was_handed_out_does_not_change() -> None:
    pages: RenderedPages[int] = RenderedPages(text_bytes_max=100_000)
    items = {number: movement_like(number) for number in range(500)}
    pages.append(sorted(items.items()))
    listed = pages.list()
    pages.apply(dict.fromkeys(range(0, 500, 2)))
    assert b"".join(listed.chunks()) == joined(items)
