"""Payments that have too little money while others are about to bring their change wait for it.

Inputs of a payment are locked as a whole, and what is left of them comes back a few calls of the server
later. Upstream fails at once in between.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from barkd_py.wallet.lightning.send.terms import CannotCoverLightningPayment

CHANGE_LOOK_SECS = 0.5

Attempt = Callable[[Callable[[], None]], Awaitable[None]]
"""Tries to begin a payment, and drives it; calls its argument once the payment has its inputs."""
Others = Callable[[], Sequence[asyncio.Task[None]]]
"""The payments that have begun, and whose change may be missing yet."""


class ChangeQueue:
    """wait_secs: how long a payment waits for the change of others."""

    def __init__(self, wait_secs: float) -> None:
        self._wait_secs = wait_secs
        self._lock = asyncio.Lock()

    async def begin(self, attempt: Attempt, others: Others) -> None:
        """At once if there is enough money. Raises what the attempt raises."""
        before = others()
        try:
            await attempt(lambda: None)
        except CannotCoverLightningPayment:
            if not before and not others():
                raise
        else:
            return
        turn = await _Turn.of(self._lock)  # one after the other, so that each change is looked at once
        try:
            await self._begin_with_change(attempt, others, turn)
        finally:
            turn.end()

    async def _begin_with_change(self, attempt: Attempt, others: Others, turn: "_Turn") -> None:
        """The turn is over once the payment has its inputs."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._wait_secs
        while True:
            under_way = others()
            left_secs = give_up_at - clock()
            try:
                await attempt(turn.end)
            except CannotCoverLightningPayment:
                if not under_way or left_secs <= 0:
                    raise
            else:
                return
            pause_secs = min(left_secs, CHANGE_LOOK_SECS)  # whoever waits for the end has its change earlier
            await asyncio.wait(under_way, timeout=pause_secs, return_when=asyncio.FIRST_COMPLETED)


class _Turn:
    """A lock that is held until its holder has ended the turn; once more is no harm."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock: asyncio.Lock | None = lock

    @classmethod
    async def of(cls, lock: asyncio.Lock) -> "_Turn":
        await lock.acquire()
        return cls(lock)

    def end(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
