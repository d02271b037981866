"""The tip that the balance is judged by: recent, and if possible without waiting for the network."""

import asyncio
import logging
from collections.abc import Callable

from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import ChainSource

log = logging.getLogger(__name__)

# How old the tip may be. In between, it is refreshed behind the answer.
STALE_SECS = 1.0
TOO_OLD_SECS = 10.0


class RecentTip:
    """Close it when done. monotonic: seconds."""

    def __init__(self, chain: ChainSource, monotonic: Callable[[], float]) -> None:
        self._chain = chain
        self._monotonic = monotonic
        self._tip: BlockRef | None = None
        self._seen_at = 0.0
        self._task: asyncio.Task[BlockRef] | None = None

    def note(self, tip: BlockRef) -> None:
        """Somebody has seen this tip just now."""
        self._tip, self._seen_at = tip, self._monotonic()

    async def height(self) -> int:
        """Recent if the chain source answers, else the last one seen, else 0.

        Waits for the network only if nothing recent is known.
        """
        age = self._monotonic() - self._seen_at
        if self._tip is None or age > STALE_SECS:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look(), name="tip")
                self._task.add_done_callback(_retrieve)
            if self._tip is None or age > TOO_OLD_SECS:
                await asyncio.wait({self._task}, timeout=STALE_SECS)
        return 0 if self._tip is None else self._tip.height

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> BlockRef:
        tip = await self._chain.tip()
        self.note(tip)
        return tip


def _retrieve(task: asyncio.Task[BlockRef]) -> None:
    """An error of a look behind the scenes is nobody's; the next look will tell."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("tip: %s", error)
