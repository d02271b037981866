"""The spend state of a VTXO at the server, and what it tells clients of it.

| state | reached by | leaves by |
|---|---|---|
| spendable | board; registration; forfeit of the round's inputs | any spend; `ln-spent` |
| unregistered | outputs of any cosigned payment | registration |
| unclaimed | outputs of a round | the forfeit of its inputs |
| htlc-recv-unclaimed | grant for a Lightning receive | claim |
| spent, ln-spent | see above | – |
| pool, round-forfeit | the server's own | – |

Changes are compare-and-set inside one database transaction (`vtxo_rows`). Clients hear nothing of the
server's own coins.

Source: sheet 10 §3.3; sheet 08 §4.2.
"""

import enum


class SpendState(enum.Enum):
    """The state, by the name that error messages and the store use."""

    SPENDABLE = "spendable"
    UNREGISTERED = "unregistered"
    UNCLAIMED = "unclaimed"
    HTLC_RECV_UNCLAIMED = "htlc-recv-unclaimed"
    SPENT = "spent"
    LN_SPENT = "ln-spent"
    POOL = "pool"
    ROUND_FORFEIT = "round-forfeit"

    @property
    def wire_value(self) -> int | None:
        """The number in the protocol; None for the server's own coins, which do not exist for clients."""
        return _WIRE_VALUES.get(self)


_WIRE_VALUES = {
    SpendState.SPENDABLE: 1,
    SpendState.SPENT: 2,
    SpendState.LN_SPENT: 2,
    SpendState.UNCLAIMED: 3,
    SpendState.UNREGISTERED: 4,
    SpendState.HTLC_RECV_UNCLAIMED: 5,
}

SPENDABLE_BY_TX = frozenset({SpendState.SPENDABLE, SpendState.POOL, SpendState.HTLC_RECV_UNCLAIMED})
"""The states from which a virtual transaction may spend."""
