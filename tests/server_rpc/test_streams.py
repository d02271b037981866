"""Resubscribing: pauses, giving up, and starting again."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest

from barkd_py.errors import BarkdError, ServerRejected
from barkd_py.server_rpc.api import MailboxMessage, UnknownMessage
from barkd_py.server_rpc.errors import ConnectFailed, MailboxStreamLost, ServerStreamEnded
from barkd_py.server_rpc.streams import Backoff, mailbox_wakeups

MESSAGE = MailboxMessage(1, UnknownMessage())


class Pauses:
    """Records the range of every pause and takes none."""

    def __init__(self) -> None:
        self.ranges: list[tuple[float, float]] = []

    def backoff(self) -> Backoff:
        return Backoff(self._sleep, self._uniform)

    def _uniform(self, low: float, high: float) -> float:
        self.ranges.append((low, high))
        return low

    async def _sleep(self, _: float) -> None:
        await asyncio.sleep(0)


Stream = Callable[[], AsyncGenerator[MailboxMessage, None]]


async def delivers(
    *messages: MailboxMessage, error: BarkdError | None = None
) -> AsyncGenerator[MailboxMessage, None]:
    for message in messages:
        yield message
    if error is not None:
        raise error


def ends() -> AsyncGenerator[MailboxMessage, None]:
    return delivers()


def is_reset() -> AsyncGenerator[MailboxMessage, None]:
    return delivers(error=ServerStreamEnded("reset"))


def delivers_then_ends() -> AsyncGenerator[MailboxMessage, None]:
    return delivers(MESSAGE)


def is_refused() -> AsyncGenerator[MailboxMessage, None]:
    return delivers(error=ServerRejected("mailbox authorization expired"))


def fails_to_connect() -> AsyncGenerator[MailboxMessage, None]:
    return delivers(error=ConnectFailed())


async def _drive(streams: list[Stream], pauses: Pauses) -> tuple[int, int]:
    """How many streams were opened, and how many wake-ups came of them."""
    opened = 0

    async def subscribe() -> AsyncGenerator[MailboxMessage, None]:
        nonlocal opened
        opened += 1
        return streams[opened - 1]()

    wakeups = 0
    try:
        async with aclosing(mailbox_wakeups(subscribe, pauses.backoff())) as stream:
            async for _ in stream:
                wakeups += 1
    except (MailboxStreamLost, IndexError):
        pass
    return opened, wakeups


@pytest.mark.parametrize("stream", [ends, is_reset])
async def test_five_streams_without_a_message_are_enough(stream: Stream) -> None:
    pauses = Pauses()
    opened, wakeups = await _drive([stream] * 10, pauses)
    assert (opened, wakeups) == (5, 5)  # each subscription is a wake-up: something may have come before it
    assert len(pauses.ranges) == 4


async def test_a_message_starts_the_count_and_the_pauses_anew() -> None:
    pauses = Pauses()
    streams = [ends] * 4 + [delivers_then_ends] + [ends] * 10
    opened, wakeups = await _drive(streams, pauses)
    # the fifth delivered and ended: that end is the first of the next five
    assert opened == 9
    assert wakeups == 10
    assert pauses.ranges[3:5] == [(4, 8), (0.5, 1)]


@pytest.mark.parametrize(
    ("stream", "error"), [(is_refused, ServerRejected), (fails_to_connect, ConnectFailed)]
)
async def test_anything_but_an_interruption_ends_it_at_once(stream: Stream, error: type[Exception]) -> None:
    async def subscribe() -> AsyncGenerator[MailboxMessage, None]:
        return stream()

    wakeups = mailbox_wakeups(subscribe, Pauses().backoff())
    await anext(wakeups)
    with pytest.raises(error):
        await anext(wakeups)


async def test_a_pause_ends_promptly_on_shutdown() -> None:
    async def subscribe() -> AsyncGenerator[MailboxMessage, None]:
        return ends()

    async def run() -> None:
        async for _ in mailbox_wakeups(subscribe, Backoff(uniform=lambda _low, _high: 3_600)):
            pass

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await task
