"""What a round tells everybody, and the channel on which it does.

A new subscriber hears the last event first, then all that follow. Who is slow loses the oldest of what waits
for them, without being told.

Source: sheet 10 §6.7, §8; sheet 04 §10.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

from barkd_py.bitcoin.tx import Tx

_BUFFER = 8


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """Participants may register. challenge: 32 bytes, which their proofs of ownership sign."""

    round_seq: int
    attempt_seq: int
    challenge: bytes


@dataclass(frozen=True, slots=True)
class TreeProposed:
    """Participants shall sign. spec: encoded; agg_nonces: one per internal node."""

    round_seq: int
    attempt_seq: int
    spec: bytes
    unsigned_funding_tx: Tx
    agg_nonces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RoundFinished:
    """The tree is signed and funded. signatures: of all internal nodes."""

    round_seq: int
    attempt_seq: int
    funding_tx: Tx
    signatures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RoundFailed:
    """Nothing comes of this round."""

    round_seq: int


RoundEvent: TypeAlias = AttemptStarted | TreeProposed | RoundFinished | RoundFailed


class RoundEvents:
    """The channel. last: the event that new subscribers hear first."""

    def __init__(self) -> None:
        self.last: RoundEvent | None = None
        self._subscribers: set[_Subscriber] = set()

    @property
    def nb_subscribers(self) -> int:
        """How many listen now."""
        return len(self._subscribers)

    def publish(self, event: RoundEvent) -> None:
        self.last = event
        for subscriber in self._subscribers:
            subscriber.push(event)

    async def subscribe(self) -> AsyncIterator[RoundEvent]:
        """The events from now on, the last one first."""
        subscriber = _Subscriber()
        if self.last is not None:
            subscriber.push(self.last)
        self._subscribers.add(subscriber)
        try:
            while True:
                yield await subscriber.pull()
        finally:
            self._subscribers.discard(subscriber)


class _Subscriber:
    def __init__(self) -> None:
        self._waiting: deque[RoundEvent] = deque(maxlen=_BUFFER)
        self._ready = asyncio.Event()

    def push(self, event: RoundEvent) -> None:
        self._waiting.append(event)
        self._ready.set()

    async def pull(self) -> RoundEvent:
        await self._ready.wait()
        event = self._waiting.popleft()
        if not self._waiting:
            self._ready.clear()
        return event
