"""The balance: where every satoshi of the off-chain wallet is.

Each VTXO counts in at most one field. In this order:

1. Spendable: ``needs_refresh`` if it is expired (``expiry ≤ tip``) or as deep as the server allows, else
   ``spendable``. The depth is not judged before a server told its limit.
2. Locked, an input of a stored round state, and held by exactly its movement (or by nobody, while the round
   state has none): ``pending_in_round``.
3. Locked, and reported by an action: the field of the oldest action that reports it, whoever holds the lock.
   A board reports its VTXO while the funding confirms, a Lightning receive its HTLCs once the preimage is
   out.
4. Exited, and the exit is committed but not finished: ``pending_exit``.

The rest is in no field: spent, exited for good, or locked by a recovery that could not decide. The database
adds it up (`store.balance`). Source: protocol sheet 09 §7.
"""

from dataclasses import dataclass

from barkd_py.wallet.store import Store
from barkd_py.wallet.store import balance as sums
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.cache import CachedRead


@dataclass(frozen=True, slots=True)
class Balance:
    """All satoshis that are not on chain; the fields are disjoint."""

    spendable_sat: int = 0
    needs_refresh_sat: int = 0
    pending_lightning_send_sat: int = 0
    claimable_lightning_receive_sat: int = 0
    pending_in_round_sat: int = 0
    pending_board_sat: int = 0
    pending_arkoor_send_sat: int = 0
    pending_offboard_sat: int = 0
    pending_exit_sat: int = 0

    @property
    def total_sat(self) -> int:
        return (
            self.spendable_sat
            + self.needs_refresh_sat
            + self.pending_lightning_send_sat
            + self.claimable_lightning_receive_sat
            + self.pending_in_round_sat
            + self.pending_board_sat
            + self.pending_arkoor_send_sat
            + self.pending_offboard_sat
            + self.pending_exit_sat
        )


class BalanceReader:
    """Reads the balance, and remembers it until the wallet, the tip or the server's depth limit changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache = CachedRead(store, self._load)

    async def balance(self, tip_height: int, max_exit_depth: int | None) -> Balance:
        """The balance at this tip. max_exit_depth: None if no server has told it yet."""
        return await self._cache.get((tip_height, max_exit_depth))

    async def _load(self, view: tuple[int, int | None]) -> Balance:
        tip_height, max_exit_depth = view
        async with self._store.read() as tx:
            found = await tx.balance.sums(tip_height, max_exit_depth)
        return Balance(
            spendable_sat=found.get(sums.SPENDABLE, 0),
            needs_refresh_sat=found.get(sums.NEEDS_REFRESH, 0),
            pending_lightning_send_sat=found.get(ActionKind.LIGHTNING_SEND, 0),
            claimable_lightning_receive_sat=found.get(ActionKind.LIGHTNING_RECEIVE, 0),
            pending_in_round_sat=found.get(sums.IN_ROUND, 0),
            pending_board_sat=found.get(ActionKind.BOARD, 0),
            pending_arkoor_send_sat=found.get(ActionKind.ARKOOR_SEND, 0),
            pending_offboard_sat=found.get(ActionKind.OFFBOARD, 0),
            pending_exit_sat=found.get(sums.EXITING, 0),
        )
