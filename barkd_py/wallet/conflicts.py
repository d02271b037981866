"""Transactions that can never be, because another one spends what they spend.

Offboards and rounds hang on transactions of the server's. When one is refused by the node, this says whether
it is only late, or dead.
"""

from dataclasses import dataclass

from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.chain.source import ChainSource, Confirmed

FINAL_CONFIRMATIONS = 6
"""From this depth on, the transaction that spends what ours spends has won."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A confirmed transaction that spends an input of ours."""

    txid: Txid
    confirmations: int

    @property
    def is_final(self) -> bool:
        return self.confirmations >= FINAL_CONFIRMATIONS


async def find_conflict(chain: ChainSource, tx: Tx) -> Conflict | None:
    """What stands against a transaction; None if nothing that is confirmed does. Raises ChainUnavailable."""
    for tx_in in tx.inputs:
        parent = await chain.tx_status(tx_in.prevout.txid)
        if not isinstance(parent, Confirmed):
            continue
        spend = await chain.spender(tx_in.prevout, since_height=parent.block.height)
        if spend is None or spend.txid == tx.txid or not isinstance(spend.status, Confirmed):
            continue
        tip = await chain.tip()
        return Conflict(spend.txid, tip.height - spend.status.block.height + 1)
    return None
