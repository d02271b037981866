"""Fee rates: what rounds pay, what offboards cost now, and which rates of the past still hold.

An offboard is priced by the wallet, which asked for the rate a while before. So every rate is accepted that
is not above one that was current within the window; lower ones are too, and fail at the node.

Source: sheet 10 §5 (fee rates).
"""

from collections.abc import Callable

from barkd_py.bitcoin.units import FeeRate
from barkd_py.devnet.ark_server.settings import ServerSettings


class FeeRates:
    """The rates, which move when somebody moves them. clock: Unix seconds."""

    def __init__(self, settings: ServerSettings, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._window_secs = settings.offboard_fee_rate_window_secs
        self.fast = settings.fast_fee_rate
        self.regular = settings.regular_fee_rate
        self._past: list[tuple[float, FeeRate]] = []

    def set_regular(self, rate: FeeRate) -> None:
        """Change the current rate of offboards."""
        self._past.append((self._clock(), self.regular))
        self.regular = rate

    def accepts(self, rate: FeeRate) -> bool:
        """Whether an offboard may be priced at a rate now."""
        oldest = self._clock() - self._window_secs
        valid = [self.regular, *(past for ended_at, past in self._past if ended_at >= oldest)]
        return any(rate.sat_per_kwu <= each.sat_per_kwu for each in valid)
