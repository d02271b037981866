"""Answers that are shared and dropped at the right moment."""

import asyncio

import pytest

from barkd_py.wallet.store.cache import CachedRead


class Source:
    """A store of one number; loading it takes one turn of the event loop."""

    def __init__(self) -> None:
        self.revision = 0
        self.loads: list[str] = []
        self.fail = False

    async def load(self, key: str) -> str:
        self.loads.append(key)
        answer = f"{key}@{self.revision}"
        await asyncio.sleep(0)
        if self.fail:
            raise ZeroDivisionError
        return answer


async def test_an_answer_is_kept_until_the_revision_grows() -> None:
    source = Source()
    cache = CachedRead(source, source.load)
    assert [await cache.get("a"), await cache.get("a"), await cache.get("b")] == ["a@0", "a@0", "b@0"]
    source.revision = 1
    assert await cache.get("a") == "a@1"
    assert source.loads == ["a", "b", "a"]


async def test_those_who_ask_together_share_one_query() -> None:
    source = Source()
    cache = CachedRead(source, source.load)
    assert await asyncio.gather(*(cache.get("a") for _ in range(5))) == ["a@0"] * 5
    assert source.loads == ["a"]


async def test_who_asks_after_a_commit_does_not_get_an_answer_from_before() -> None:
    source = Source()
    cache = CachedRead(source, source.load)
    early = asyncio.create_task(cache.get("a"))
    while not source.loads:
        await asyncio.sleep(0)
    source.revision = 1
    assert await cache.get("a") == "a@1"
    assert await early == "a@0"
    assert await cache.get("a") == "a@1"


async def test_a_failure_is_not_kept() -> None:
    source = Source()
    cache = CachedRead(source, source.load)
    source.fail = True
    with pytest.raises(ZeroDivisionError):
        await cache.get("a")
    source.fail = False
    assert await cache.get("a") == "a@0"


async def test_who_gives_up_waiting_does_not_stop_the_others() -> None:
    source = Source()
    cache = CachedRead(source, source.load)
    impatient, patient = (asyncio.create_task(cache.get("a")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == "a@0"
    assert source.loads == ["a"]


async def test_the_number_of_answers_is_bounded() -> None:
    source = Source()
    cache = CachedRead(source, source.load, capacity=2)
    for key in "abc":
        await cache.get(key)
    await cache.get("a")
    assert source.loads == ["a", "b", "c", "a"]
