"""Learning preimages from the chain.

A user who was granted HTLC VTXOs may leave with them and take them on chain. That shows the preimage, and
with it the server takes what it holds for them. A reorg does not make it unknown again.

Source: sheet 10 §10.1.
"""

from sqlalchemy import Connection, select

from barkd_py.bitcoin.hashes import sha256
from barkd_py.devnet.ark_server.chain import ChainBlock
from barkd_py.devnet.ark_server.store import lightning_rows
from barkd_py.devnet.ark_server.store.lightning_rows import ReceiveStatus
from barkd_py.devnet.ark_server.store.tables import ln_grant, ln_subscription


class PreimageFinder:
    """A `BlockObserver` that looks at how granted VTXOs are spent."""

    def process(self, connection: Connection, block: ChainBlock) -> None:
        granted = _granted(connection)
        if not granted:
            return
        for tx in block.transactions:
            for tx_in in tx.inputs:
                payment_hash = granted.get(tx_in.prevout.to_bytes())
                # The newest server looks at every item: an annex moves the others.
                for item in tx_in.witness if payment_hash is not None else ():
                    if len(item) == 32 and sha256(item) == payment_hash:
                        lightning_rows.settle(connection, payment_hash, item)

    def roll_back(self, connection: Connection, height: int) -> None:
        pass


def _granted(connection: Connection) -> dict[bytes, bytes]:
    """Payment hashes by the ids of VTXOs that were granted and not claimed yet."""
    query = (
        select(ln_grant.c.vtxo_id, ln_subscription.c.payment_hash)
        .join(ln_subscription, ln_subscription.c.id == ln_grant.c.subscription)
        .where(ln_subscription.c.status == ReceiveStatus.HTLCS_READY.value)
    )
    return {row.vtxo_id: row.payment_hash for row in connection.execute(query)}
