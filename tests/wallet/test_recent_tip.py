"""How old the tip may be that the balance is judged by."""

import asyncio

from barkd_py.bitcoin.tx import BlockHash
from barkd_py.bitcoin.units import BlockRef
from barkd_py.errors import ChainUnavailable
from barkd_py.wallet.recent_tip import STALE_SECS, TOO_OLD_SECS, RecentTip


class Chain:
    """Its tip is looked at when it is let, and each look finds a block more."""

    def __init__(self) -> None:
        self.height = 100
        self.looks = 0
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def tip(self) -> BlockRef:
        self.looks += 1
        await self.answers.wait()
        if self.is_away:
            raise ChainUnavailable("away")
        self.height += 1
        return block(self.height)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def block(height: int) -> BlockRef:
    return BlockRef(height, BlockHash(height.to_bytes(32, "little")))


def recent_tip() -> tuple[RecentTip, Chain, Clock]:
    chain, clock = Chain(), Clock()
    return RecentTip(chain, clock), chain, clock  # type: ignore[arg-type]


async def test_what_was_just_seen_needs_no_look() -> None:
    tip, chain, clock = recent_tip()
    tip.note(block(7))
    clock.now += STALE_SECS
    assert (await tip.height(), chain.looks) == (7, 0)


async def test_what_is_stale_is_answered_at_once_and_looked_at_behind_it() -> None:
    tip, chain, clock = recent_tip()
    tip.note(block(7))
    clock.now += TOO_OLD_SECS
    chain.answers.clear()
    assert await tip.height() == 7
    assert await tip.height() == 7
    await asyncio.sleep(0)
    assert chain.looks == 1
    chain.answers.set()
    while await tip.height() == 7:
        await asyncio.sleep(0)
    assert await tip.height() == 101


async def test_what_is_too_old_is_waited_for() -> None:
    tip, _, clock = recent_tip()
    tip.note(block(7))
    clock.now += TOO_OLD_SECS + 0.1
    assert await tip.height() == 101


async def test_a_chain_that_is_away_leaves_the_last_tip_or_none() -> None:
    tip, chain, clock = recent_tip()
    chain.is_away = True
    assert await tip.height() == 0
    tip.note(block(7))
    clock.now += TOO_OLD_SECS + 0.1
    assert await tip.height() == 7


async def test_closing_ends_a_look() -> None:
    tip, chain, clock = recent_tip()
    tip.note(block(7))
    clock.now += TOO_OLD_SECS
    chain.answers.clear()
    await tip.height()
    await tip.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
