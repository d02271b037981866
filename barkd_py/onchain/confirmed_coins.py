"""The confirmed coins, remembered from one fee child to the next.

BDK takes 0.1 ms to tell of each coin, and many exits need many children, one after the other. A new
transaction takes away the coins that it spends; anything else that may change which coins there are makes us
ask again.
"""

from collections.abc import Callable, Collection, Sequence

from barkd_py.bitcoin.tx import OutPoint
from barkd_py.onchain.store import OnchainChange, OnchainState
from barkd_py.onchain.types import OnchainUtxo


class ConfirmedCoins:
    """Empty until it is asked."""

    def __init__(self) -> None:
        self._coins: dict[OutPoint, OnchainUtxo] | None = None

    def find(self, list_coins: Callable[[], Sequence[OnchainUtxo]]) -> Collection[OnchainUtxo]:
        """All confirmed coins. list_coins: every coin, as BDK tells."""
        if self._coins is None:
            self._coins = {
                coin.outpoint: coin for coin in list_coins() if coin.confirmation_height is not None
            }
        return self._coins.values()

    def forget(self) -> None:
        self._coins = None

    def follow(self, before: OnchainState, change: OnchainChange) -> None:
        """Take what a change spends. before: without the change, which confirms and evicts nothing."""
        if self._coins is None:
            return
        spent: list[OutPoint] = []
        for row in change.transactions:
            prevouts = [tx_in.prevout for tx_in in row.tx.inputs]
            spent += [prevout for prevout in prevouts if prevout in self._coins]
            others = [prevout for prevout in prevouts if prevout not in self._coins]
            if row.txid in before.transactions or any(_may_conflict(before, prevout) for prevout in others):
                self.forget()  # another transaction may not count any more, and its coins be free
                return
        for outpoint in spent:
            self._coins.pop(outpoint, None)


def _may_conflict(before: OnchainState, prevout: OutPoint) -> bool:
    """Whether something else of ours may spend it: an output that we know, or a foreign one that we spent."""
    return bytes(prevout.txid) in before.transactions or (prevout.txid, prevout.vout) in before.outputs
