"""Inputs of a payment, out of however many VTXOs. What is chosen is `selection`'s business.

It takes them one after another in an order in which the database yields them, so what it has not come to
changes nothing: it is shown the first ones, and more of them only if they are not enough.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from barkd_py.errors import InsufficientFunds
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.vtxo_states import WalletVtxo

T = TypeVar("T")

FIRST_COUNT: Final = 16
"""More than most payments take."""

_GROWTH: Final = 8


async def choose(
    tx: Transaction, select: Callable[[Sequence[WalletVtxo]], T], *, expires_after_height: int | None = None
) -> T:
    """What `select` makes of all payable VTXOs that expire above a height.

    It is asked again while it raises InsufficientFunds and there are more; so it must have no effects, and
    must take them in spending order. Raises what it raises.
    """
    count = FIRST_COUNT
    while True:
        vtxos = await tx.vtxos.first_payable(count, expires_after_height=expires_after_height)
        try:
            return select(vtxos)
        except InsufficientFunds:
            if len(vtxos) < count:
                raise
        count *= _GROWTH
