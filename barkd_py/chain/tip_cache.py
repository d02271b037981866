"""The tip, at most one second old. Source: sheet 06 §6.4."""

import time
from collections.abc import Callable

from barkd_py.bitcoin.units import BlockRef

TIP_TTL_S = 1.0


class TipCache:
    """clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tip: BlockRef | None = None
        self._seen_at = 0.0

    def get(self) -> BlockRef | None:
        """The tip, unless it is older than a second."""
        if self._tip is None or self._clock() - self._seen_at > TIP_TTL_S:
            return None
        return self._tip

    def put(self, tip: BlockRef) -> BlockRef:
        self._tip = tip
        self._seen_at = self._clock()
        return tip
