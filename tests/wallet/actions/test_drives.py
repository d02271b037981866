"""Drives go on without their callers."""

import asyncio

import pytest

from barkd_py.errors import BarkdError
from barkd_py.wallet.actions.drives import Drives
from barkd_py.wallet.actions.failures import StillPending


class Work:
    """A drive that ends when it is let."""

    def __init__(self, error: BarkdError | None = None) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = False
        self._error = error

    async def __call__(self) -> None:
        self.begun.set()
        await self.may_end.wait()
        if self._error is not None:
            raise self._error
        self.ended = True


async def test_the_caller_hears_how_it_ended() -> None:
    drives, work = Drives("payment", 60.0), Work(BarkdError("no money"))
    work.may_end.set()
    with pytest.raises(BarkdError, match="no money"):
        await drives.run("a", work())
    assert "a" not in drives


async def test_it_goes_on_when_the_caller_has_waited_long_enough() -> None:
    drives, work = Drives("payment", 0.0), Work()
    with pytest.raises(StillPending, match="payment is not finished yet"):
        await drives.run("a", work())
    assert "a" in drives
    work.may_end.set()
    await asyncio.gather(*drives.tasks(["a", "never begun"]))
    assert work.ended


async def test_who_waits_to_the_end_has_no_limit() -> None:
    drives, work = Drives("payment", 0.0), Work()
    caller = asyncio.create_task(drives.run("a", work(), to_the_end=True))
    await work.begun.wait()
    work.may_end.set()
    await caller
    assert work.ended


async def test_it_goes_on_when_the_caller_is_cancelled() -> None:
    drives, work = Drives("payment", 60.0), Work()
    caller = asyncio.create_task(drives.run("a", work()))
    await work.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    work.may_end.set()
    await asyncio.gather(*drives.tasks(["a"]))
    assert work.ended


async def test_closing_stops_it_and_tells_who_still_waits() -> None:
    drives, work = Drives("payment", 60.0), Work()
    caller = asyncio.create_task(drives.run("a", work()))
    await work.begun.wait()
    await drives.close()
    with pytest.raises(StillPending):
        await caller
    assert not work.ended
    assert "a" not in drives
