"""What the Ark server needs to know of the chain.

`ServerChain` is all of it; `NodeChain` gives it by any of devnet's nodes, a real bitcoind among them. Nothing
here waits for confirmations: the callers decide what depth they need.
"""

from dataclasses import dataclass
from typing import Protocol

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.devnet.chain.node import Node


@dataclass(frozen=True, slots=True)
class ChainBlock:
    """A block of the active chain."""

    ref: BlockRef
    previous: BlockHash
    transactions: tuple[Tx, ...]


class ServerChain(Protocol):
    """The server's view of its node."""

    async def tip(self) -> BlockRef: ...

    async def block_hash(self, height: int) -> BlockHash | None:
        """The hash at a height of the active chain; None above the tip."""

    async def block(self, height: int) -> ChainBlock | None:
        """The block at a height of the active chain; None above the tip."""

    async def get_tx(self, txid: Txid) -> Tx | None:
        """A transaction, confirmed or in the mempool."""

    async def confirmed_height(self, txid: Txid) -> int | None:
        """The height of the block that holds a transaction; None if it is unconfirmed or unknown."""

    async def is_spent(self, outpoint: OutPoint) -> bool:
        """Whether a known output is spent, in the chain or in the mempool."""

    async def check(self, tx: Tx) -> None:
        """Ask whether the node would take a transaction. Raises ChainError if it would not."""

    async def broadcast(self, tx: Tx) -> None:
        """Submit a transaction. Raises ChainError."""

    async def changed(self) -> None:
        """Return after the chain may have changed since the call."""


class NodeChain:
    """`ServerChain` by a node of devnet."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def tip(self) -> BlockRef:
        return self._node.index.tip.ref

    async def block_hash(self, height: int) -> BlockHash | None:
        block = self._node.index.block_at(height)
        return None if block is None else block.hash

    async def block(self, height: int) -> ChainBlock | None:
        index = self._node.index
        block = index.block_at(height)
        if block is None:
            return None
        found = [index.tx(txid) for txid in block.txids]
        transactions = tuple(confirmed.tx for confirmed in found if confirmed is not None)
        return ChainBlock(block.ref, block.header.previous, transactions)

    async def get_tx(self, txid: Txid) -> Tx | None:
        confirmed = self._node.index.tx(txid)
        if confirmed is not None:
            return confirmed.tx
        entry = self._node.pool.get(txid)
        return None if entry is None else entry.tx

    async def confirmed_height(self, txid: Txid) -> int | None:
        confirmed = self._node.index.tx(txid)
        return None if confirmed is None else confirmed.height

    async def is_spent(self, outpoint: OutPoint) -> bool:
        return self._node.index.spend(outpoint) is not None or self._node.pool.spend(outpoint) is not None

    async def check(self, tx: Tx) -> None:
        await self._node.check(tx.serialize().hex())

    async def broadcast(self, tx: Tx) -> None:
        await self._node.broadcast(tx.serialize().hex())

    async def changed(self) -> None:
        await self._node.changed.wait()
