"""Renderings are repeated for what changed, and for nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from barkd_py.api.render_cache import RenderCache
from barkd_py.daemon.wallet_api import WalletApi


@dataclass(frozen=True, eq=False)
class Item:
    value: int


@dataclass
class FakeWallet:
    """Knows its revision and a list."""

    items: list[Item] = field(default_factory=list)
    revision: int = 0
    loads: int = 0
    rendered: list[int] = field(default_factory=list)
    grows_while_loading: bool = False

    async def load(self) -> Sequence[Item]:
        self.loads += 1
        if self.grows_while_loading:
            self.revision += 1
        return tuple(self.items)

    def render(self, item: Item) -> Any:
        self.rendered.append(item.value)
        return {"value": item.value}

    async def ask(self, cache: RenderCache, key: str = "items") -> bytes:
        return await cache.get_list(cast(WalletApi, self), key, self.load, self.render)


async def test_an_empty_list() -> None:
    assert await FakeWallet().ask(RenderCache()) == b"[]"


async def test_nothing_is_asked_again_at_the_same_revision() -> None:
    wallet, cache = FakeWallet([Item(1), Item(2)]), RenderCache()
    assert [await wallet.ask(cache) for _ in range(3)] == [b'[{"value":1},{"value":2}]'] * 3
    assert (wallet.loads, wallet.rendered) == (1, [1, 2])


async def test_only_what_changed_is_rendered_again() -> None:
    wallet, cache = FakeWallet([Item(1), Item(2), Item(3)]), RenderCache()
    await wallet.ask(cache)
    wallet.items = [Item(9), wallet.items[2], Item(8), wallet.items[0]]
    wallet.revision += 1
    wallet.rendered.clear()
    assert await wallet.ask(cache) == b'[{"value":9},{"value":3},{"value":8},{"value":1}]'
    assert wallet.rendered == [9, 8]


async def test_an_answer_that_may_mix_two_states_is_not_kept() -> None:
    wallet, cache = FakeWallet([Item(1)], grows_while_loading=True), RenderCache()
    await wallet.ask(cache)
    await wallet.ask(cache)
    assert wallet.loads == 2


async def test_lists_and_wallets_are_told_apart() -> None:
    first, second, cache = FakeWallet([Item(1)]), FakeWallet([Item(2)]), RenderCache()
    assert await first.ask(cache) == b'[{"value":1}]'
    assert await second.ask(cache) == b'[{"value":2}]'
    assert await first.ask(cache, "other") == b'[{"value":1}]'
    first.items = [Item(3)]
    cache.clear()
    assert await first.ask(cache, "other") == b'[{"value":3}]'


async def test_the_number_of_kept_lists_is_bounded() -> None:
    wallet, cache = FakeWallet([Item(1)]), RenderCache()
    for key in range(40):
        await wallet.ask(cache, str(key))
    assert len(cache._lists) <= 16
