"""Named locks inside the process, and the order in which they may be taken.

A lock keeps two tasks from driving the same thing at the same time; it never reserves a coin, which is what
VTXO states are for. Locks live in memory and mean nothing to another process: the data directory has a lock
of its own.

Order, so that nobody waits in a circle: a task takes locks of rising rank only. What an action does on chain
or with exits comes after the action's own lock, and a store transaction after everything (`RANKS`).

Source: protocol sheet 09 §6.
"""

import asyncio
import enum
import re
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from barkd_py.errors import BarkdError

ROUND_TIMEOUT_SECONDS = 10.0
MAILBOX_TIMEOUT_SECONDS = 30.0

MAILBOX_PROCESSING = "mailbox.processing"
ONCHAIN = "onchain"
EXITS = "exits"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")


class Rank(enum.IntEnum):
    """A task that holds a lock takes none of a lower rank."""

    OPERATION = 0  # one action, one round, the mailbox
    WALLET_PART = 1  # the on-chain wallet, the exits


RANKS = {ONCHAIN: Rank.WALLET_PART, EXITS: Rank.WALLET_PART}


class LockTimeout(BarkdError):
    """Somebody else holds the lock for longer than one is willing to wait. Nothing was done."""

    def __init__(self, name: str, text: str | None = None) -> None:
        super().__init__(text or f"timed out waiting for lock {name}")
        self.name = name


class LockBusy(BarkdError):
    """Somebody else holds the lock. Nothing was done."""

    def __init__(self, name: str, text: str | None = None) -> None:
        super().__init__(text or f"lock {name} is held by another operation")
        self.name = name


class LockOrderError(RuntimeError):
    """A bug: this order of locks could make tasks wait for each other forever."""


def round_lock_name(fingerprint: str, round_id: int) -> str:
    return f"{fingerprint}.round.{round_id}"


@dataclass(slots=True)
class _Lock:
    """users: who holds it, and who waits. `asyncio.Lock.locked` is false while it passes to a waiter."""

    mutex: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class NamedLocks:
    """The locks of one process. A name exists only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}
        self._held: weakref.WeakKeyDictionary[asyncio.Task[object], list[str]] = weakref.WeakKeyDictionary()

    def is_held(self, name: str) -> bool:
        return name in self._locks

    @asynccontextmanager
    async def hold(
        self, name: str, *, timeout_seconds: float | None = None, timeout_text: str | None = None
    ) -> AsyncIterator[None]:
        """Hold a lock, after waiting for it. timeout_seconds: None waits as long as it takes.

        Raises LockTimeout (with `timeout_text`, if given), LockOrderError.
        """
        held = self._check_order(name)
        if name in held:
            raise LockOrderError(f"this task already holds lock {name}")
        with self._use(name) as mutex:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await mutex.acquire()
            except TimeoutError:
                raise LockTimeout(name, timeout_text) from None
            held.append(name)
            try:
                yield
            finally:
                held.remove(name)
                mutex.release()

    @asynccontextmanager
    async def try_hold(self, name: str, *, busy_text: str | None = None) -> AsyncIterator[None]:
        """Hold a lock if nobody does. Raises LockBusy (with `busy_text`, if given), LockOrderError."""
        self._check_order(name)
        if self.is_held(name):
            raise LockBusy(name, busy_text)
        async with self.hold(name):
            yield

    def _check_order(self, name: str) -> list[str]:
        """The names that this task holds."""
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"malformed lock name: {name!r}")
        task = asyncio.current_task()
        assert task is not None, "locks are held by tasks"
        held = self._held.setdefault(task, [])
        for other in held:
            if _rank(other) > _rank(name):
                raise LockOrderError(f"lock {name} must be taken before lock {other}")
        return held

    @contextmanager
    def _use(self, name: str) -> Iterator[asyncio.Lock]:
        lock = self._locks.setdefault(name, _Lock())
        lock.users += 1
        try:
            yield lock.mutex
        finally:
            lock.users -= 1
            if lock.users == 0:
                del self._locks[name]


def _rank(name: str) -> Rank:
    return RANKS.get(name, Rank.OPERATION)
