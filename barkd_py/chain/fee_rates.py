"""The fee rate cache: 30 seconds, and a fallback when the chain source has no estimate.

Reading never fails. A failed refresh stores the fallback and leaves the cache stale, so the next refresh asks
again. Source: sheet 06 §6.3.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.source import FeeRates
from barkd_py.errors import ChainError

log = logging.getLogger(__name__)

CACHE_TTL_S = 30.0
FEE_TARGETS = (1, 3, 6)
"""Blocks for fast, regular, slow."""


class NoEstimate(ChainError):
    """The chain source answers, but has no estimate for one of the targets."""


class FeeRateCache:
    """The last known fee rates.

    fetch: asks the chain source for the three rates; raises ChainError if any is missing.
    clock: seconds, monotonic.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[FeeRates]],
        *,
        fallback: FeeRate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._fallback = FeeRates(fallback, fallback, fallback)
        self._rates: FeeRates | None = None
        self._fetched_at: float | None = None
        self._clock = clock
        self._refreshing = asyncio.Lock()

    async def rates(self) -> FeeRates:
        """The cached rates; the first call fills the cache."""
        if self._rates is None:
            return await self.update()
        return self._rates

    async def update(self, *, force: bool = False) -> FeeRates:
        """Refresh unless the last success is younger than 30 seconds; with force, always."""
        async with self._refreshing:
            if self._rates is not None and not force and self._is_fresh():
                return self._rates
            try:
                self._rates = await self._fetch()
            except ChainError as error:
                log.warning("no fee estimate, using the fallback: %s", error)
                self._rates = self._fallback
            else:
                self._fetched_at = self._clock()
            return self._rates

    def _is_fresh(self) -> bool:
        return self._fetched_at is not None and self._clock() - self._fetched_at < CACHE_TTL_S
