"""Answers that stay true until the next commit.

A person's wallet is asked for its balance far more often than it changes. `CachedRead` keeps one answer per
argument beside the store's revision, and lets those who ask at the same time share one query.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class HasRevision(Protocol):
    @property
    def revision(self) -> int: ...


class CachedRead(Generic[K, V]):
    """A read of the store, repeated only after a commit.

    load: reads the answer for a key. All answers are dropped when the store's revision has grown, and beyond
    `capacity` keys. The revision is taken before the read, so an answer is never older than it claims.
    """

    def __init__(self, store: HasRevision, load: Callable[[K], Awaitable[V]], *, capacity: int = 16) -> None:
        self._store = store
        self._load = load
        self._capacity = capacity
        self._revision = -1
        self._answers: dict[K, asyncio.Future[V]] = {}

    async def get(self, key: K) -> V:
        """The answer, shared: do not change it. Raises what `load` raises; nothing is kept then."""
        if self._revision != self._store.revision or len(self._answers) >= self._capacity:
            self._revision = self._store.revision
            self._answers = {}
        answers = self._answers
        answer = answers.get(key)
        if answer is None:
            answer = answers[key] = asyncio.ensure_future(self._load(key))
            answer.add_done_callback(lambda done: _forget_failure(answers, key, done))
        if answer.done():
            return answer.result()
        return await asyncio.shield(answer)  # who gives up waiting does not stop the others' query


def _forget_failure(answers: dict[K, asyncio.Future[V]], key: K, done: asyncio.Future[V]) -> None:
    if done.cancelled() or done.exception() is not None:
        answers.pop(key, None)
