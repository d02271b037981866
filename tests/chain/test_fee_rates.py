"""The cache: 30 seconds, and what happens when there is no estimate."""

from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.fee_rates import FeeRateCache, NoEstimate
from barkd_py.chain.source import FeeRates
from tests.fakes.chains import Clock

FALLBACK = FeeRate(500)


class Estimator:
    """Gives the next of its answers; None: no estimate."""

    def __init__(self, *sat_per_kwu: int | None) -> None:
        self.answers = list(sat_per_kwu)
        self.calls = 0

    async def __call__(self) -> FeeRates:
        self.calls += 1
        answer = self.answers.pop(0)
        if answer is None:
            raise NoEstimate("no estimate")
        return same(answer)


def same(sat_per_kwu: int) -> FeeRates:
    rate = FeeRate(sat_per_kwu)
    return FeeRates(rate, rate, rate)


async def test_first_reading_waits_for_the_network_and_later_ones_do_not() -> None:
    estimator, clock = Estimator(1_000), Clock()
    cache = FeeRateCache(estimator, fallback=FALLBACK, clock=clock)
    assert await cache.rates() == same(1_000)
    clock.now_s += 3_600
    assert await cache.rates() == same(1_000)
    assert estimator.calls == 1


async def test_refresh_happens_after_thirty_seconds() -> None:
    estimator, clock = Estimator(1_000, 2_000), Clock()
    cache = FeeRateCache(estimator, fallback=FALLBACK, clock=clock)
    await cache.update()
    clock.now_s += 29.9
    assert await cache.update() == same(1_000)
    clock.now_s += 0.1
    assert await cache.update() == same(2_000)


async def test_forced_refresh_does_not_wait() -> None:
    cache = FeeRateCache(Estimator(1_000, 2_000), fallback=FALLBACK, clock=Clock())
    await cache.update()
    assert await cache.update(force=True) == same(2_000)


async def test_fallback_is_used_but_not_for_long() -> None:
    estimator = Estimator(None, 1_000)
    cache = FeeRateCache(estimator, fallback=FALLBACK, clock=Clock())
    assert await cache.update() == same(500)
    assert await cache.rates() == same(500)
    assert await cache.update() == same(1_000)


async def test_failed_refresh_falls_back_from_real_rates() -> None:
    clock = Clock()
    cache = FeeRateCache(Estimator(1_000, None), fallback=FALLBACK, clock=clock)
    await cache.update()
    clock.now_s += 31
    assert await cache.update() == same(500)
