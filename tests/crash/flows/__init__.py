"""The table: every way in which money moves; and which operation of the daemon is which of them."""

from tests.crash.flows import lightning, offchain, onchain, postgresql, upkeep, wallets
from tests.crash.flows.flow import UNRELATED, Flow

FLOWS: tuple[Flow, ...] = (
    *offchain.FLOWS,
    *lightning.FLOWS,
    *upkeep.FLOWS,
    *onchain.FLOWS,
    *wallets.FLOWS,
    *postgresql.FLOWS,
)

__all__ = ["FLOWS", "UNRELATED", "Flow"]
