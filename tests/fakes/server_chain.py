"""A chain for the Ark server that tests build by hand; it implements `ServerChain`."""

import asyncio

from barkd_py.bitcoin.hashes import sha256d
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.devnet.ark_server.chain import ChainBlock
from barkd_py.errors import ChainError


class FakeServerChain:
    """Blocks of any transactions; nothing is validated. refusal: of every transaction, if it is set."""

    def __init__(self, height: int = 100) -> None:
        self.refusal: ChainError | None = None
        self._blocks: list[ChainBlock] = []
        self.mempool: dict[Txid, Tx] = {}
        self.broadcasts: list[Tx] = []
        self._changed = asyncio.Event()
        self._salt = 0
        self.mine(count=height + 1)

    # --- building it

    def mine(self, *transactions: Tx, count: int = 1) -> BlockRef:
        """Add blocks; the transactions are in the first of them."""
        for _ in range(count):
            self._salt += 1
            previous = self._blocks[-1].ref.hash if self._blocks else BlockHash(bytes(32))
            ref = BlockRef(len(self._blocks), BlockHash(sha256d(previous + self._salt.to_bytes(8, "big"))))
            self._blocks.append(ChainBlock(ref, previous, transactions))
            for tx in transactions:
                self.mempool.pop(tx.txid, None)
            transactions = ()
        self._notify()
        return self._blocks[-1].ref

    def lose(self, count: int) -> None:
        """Take the last blocks off, and their transactions with them."""
        del self._blocks[-count:]
        self._notify()

    def add_to_mempool(self, tx: Tx) -> None:
        self.mempool[tx.txid] = tx
        self._notify()

    def funding_tx(self, *outputs: TxOut) -> Tx:
        """A transaction that spends a confirmed output of its own; it is not broadcast."""
        self._salt += 1
        nothing = TxIn(OutPoint(Txid(bytes(32)), 0xFFFF_FFFF), self._salt.to_bytes(8, "big"))
        parent = Tx(2, (nothing,), (TxOut(10_000_000_000, b"\x51"),))
        self.mine(parent)
        return Tx(2, (TxIn(parent.outpoint(0), sequence=0xFFFF_FFFD),), outputs)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # --- ServerChain

    async def tip(self) -> BlockRef:
        return self._blocks[-1].ref

    async def block_hash(self, height: int) -> BlockHash | None:
        block = await self.block(height)
        return None if block is None else block.ref.hash

    async def block(self, height: int) -> ChainBlock | None:
        return self._blocks[height] if 0 <= height < len(self._blocks) else None

    async def get_tx(self, txid: Txid) -> Tx | None:
        for block in self._blocks:
            for tx in block.transactions:
                if tx.txid == txid:
                    return tx
        return self.mempool.get(txid)

    async def confirmed_height(self, txid: Txid) -> int | None:
        for block in self._blocks:
            if any(tx.txid == txid for tx in block.transactions):
                return block.ref.height
        return None

    async def is_spent(self, outpoint: OutPoint) -> bool:
        confirmed = [tx for block in self._blocks for tx in block.transactions]
        return any(
            tx_in.prevout == outpoint for tx in (*confirmed, *self.mempool.values()) for tx_in in tx.inputs
        )

    async def check(self, tx: Tx) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def broadcast(self, tx: Tx) -> None:
        await self.check(tx)
        self.broadcasts.append(tx)
        self.add_to_mempool(tx)

    async def changed(self) -> None:
        await self._changed.wait()
