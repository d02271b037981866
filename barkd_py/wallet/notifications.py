"""Notifications: what happens in the wallet, told to whoever listens.

There are movement events only. They are published after the transaction that caused them is committed, live
in memory, and are not replayed, except from a buffer of ten minutes for clients that poll.

A subscriber has a queue of 64 events. One that is too slow loses the oldest events and finds a single
`ChannelLagging` in their place. Source: protocol sheet 09 §4.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from barkd_py.errors import BarkdError
from barkd_py.wallet.movements import Movement

QUEUE_LENGTH = 64
BUFFER_SECS = 600.0
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class MovementCreated:
    movement: Movement


@dataclass(frozen=True, slots=True)
class MovementUpdated:
    movement: Movement


@dataclass(frozen=True, slots=True)
class ChannelLagging:
    """Events were lost because the subscriber was too slow; read the history instead."""


WalletEvent = MovementCreated | MovementUpdated
Notification = WalletEvent | ChannelLagging


@dataclass(frozen=True, slots=True)
class WaitResult:
    """The answer to a poll.

    last_pushed_at: time of the newest event, to be given as `since` next time; without events the `since`
    that was asked for.
    """

    notifications: tuple[WalletEvent, ...]
    last_pushed_at: datetime | None


class NotificationsStopped(BarkdError):
    """The wallet was closed while somebody waited for its events."""

    def __init__(self) -> None:
        super().__init__("Notification manager stopped")


class Subscription:
    """One subscriber's queue. Iterate over it; it ends when the wallet is closed."""

    def __init__(self, close: Callable[["Subscription"], None]) -> None:
        self._queue: deque[WalletEvent] = deque()
        self._lagging = False
        self._stopped = False
        self._changed = asyncio.Event()
        self._close = close

    def push(self, event: WalletEvent) -> None:
        if len(self._queue) == QUEUE_LENGTH:
            self._queue.popleft()
            self._lagging = True
        self._queue.append(event)
        self._changed.set()

    def stop(self) -> None:
        """End the iteration once the queue is drained."""
        self._stopped = True
        self._changed.set()

    def close(self) -> None:
        """Take no more events."""
        self.stop()
        self._close(self)

    def __aiter__(self) -> AsyncIterator[Notification]:
        return self

    async def __anext__(self) -> Notification:
        while not self._queue and not self._stopped:
            self._changed.clear()
            await self._changed.wait()
        if self._lagging:
            self._lagging = False
            return ChannelLagging()
        if self._queue:
            return self._queue.popleft()
        raise StopAsyncIteration


@dataclass(frozen=True, slots=True)
class _Pushed:
    """An event in the buffer. at: what clients are told. secs: when it was, monotonic."""

    at: datetime
    secs: float
    event: WalletEvent


class Notifications:
    """The broadcast of one loaded wallet.

    now: the time that clients are told, which may be set while they poll; monotonic: seconds, by which the
    buffer ages.
    """

    def __init__(self, now: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._monotonic = monotonic
        self._subscriptions: set[Subscription] = set()
        self._buffer: deque[_Pushed] = deque()
        self._last_pushed_at = datetime.min.replace(tzinfo=UTC)
        self._next_push = (
            asyncio.Event()
        )  # one event per push: whoever checks the buffer, then waits, misses none
        self._stopped = False

    def publish(self, events: Iterable[WalletEvent]) -> None:
        """Give the events to every subscriber and to the buffer, in this order. Never blocks."""
        events = tuple(events)
        if not events or self._stopped:
            return
        pushed_secs = self._monotonic()
        for event in events:
            # Strictly increasing: a poll that continues after one event misses none of the same instant, nor
            # any of the hour that comes a second time when a clock is put back.
            self._last_pushed_at = max(self._now(), self._last_pushed_at + _TICK)
            self._buffer.append(_Pushed(self._last_pushed_at, pushed_secs, event))
            for subscription in self._subscriptions:
                subscription.push(event)
        while self._buffer[0].secs < pushed_secs - BUFFER_SECS:
            self._buffer.popleft()
        self._wake_waiters()

    def subscribe(self) -> Subscription:
        """A queue that receives what is published from now on. Close it when done."""
        subscription = Subscription(self._subscriptions.discard)
        if self._stopped:
            subscription.stop()
        else:
            self._subscriptions.add(subscription)
        return subscription

    async def wait(self, since: datetime | None, timeout_seconds: float) -> WaitResult:
        """Buffered events after `since` (None: all of them), or the next ones that come.

        Raises NotificationsStopped.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    if self._stopped:
                        raise NotificationsStopped
                    if found := self._after(since):
                        return WaitResult(tuple(pushed.event for pushed in found), found[-1].at)
                    await self._next_push.wait()
        except TimeoutError:
            return WaitResult((), since)

    def stop(self) -> None:
        """End every subscription and every poll. Later events go nowhere."""
        self._stopped = True
        for subscription in tuple(self._subscriptions):
            subscription.stop()
        self._subscriptions.clear()
        self._wake_waiters()

    def _after(self, since: datetime | None) -> list[_Pushed]:
        return [pushed for pushed in self._buffer if since is None or pushed.at > since]

    def _wake_waiters(self) -> None:
        self._next_push.set()
        self._next_push = asyncio.Event()
