"""What the active chain holds, found by height, hash, transaction, spent output and script.

The kernel answers none of these questions (it has no transaction index and no lookup of a coin), and neither
does a bitcoind by script. The index is fed with raw blocks as they are connected, and told when the tip is
disconnected; it lives in memory and is rebuilt at every start.

Source: sheet 11 §1 (reading), §2 (what Esplora clients ask for).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.devnet.chain.block import MEDIAN_TIME_SPAN, Block, BlockHeader, median_time


@dataclass(frozen=True, slots=True)
class IndexedBlock:
    """A block of the active chain. raw: its consensus bytes."""

    height: int
    hash: BlockHash
    header: BlockHeader
    txids: tuple[Txid, ...]
    weight_wu: int
    raw: bytes

    @property
    def ref(self) -> BlockRef:
        return BlockRef(self.height, self.hash)


@dataclass(frozen=True, slots=True)
class ConfirmedTx:
    """A transaction of the active chain and where it is; position 0 is the coinbase."""

    tx: Tx
    height: int
    position: int

    @property
    def is_coinbase(self) -> bool:
        return self.position == 0


@dataclass(frozen=True, slots=True)
class Spend:
    """The input that spends an output."""

    txid: Txid
    vin: int


@dataclass(frozen=True, slots=True)
class Coin:
    """An output that a confirmed transaction made. height: of the block."""

    output: TxOut
    height: int
    is_coinbase: bool


def script_hash(script_pubkey: bytes) -> str:
    """How Esplora names a script: SHA-256 in natural byte order (Electrum reverses it)."""
    return sha256(script_pubkey).hex()


class ChainIndex:
    """The active chain from genesis to the tip. There is always a tip: the first block is genesis."""

    def __init__(self, genesis: bytes) -> None:
        self._blocks: list[IndexedBlock] = []
        self._heights: dict[BlockHash, int] = {}
        self._txs: dict[Txid, ConfirmedTx] = {}
        self._spends: dict[OutPoint, Spend] = {}
        self._script_txids: defaultdict[str, list[Txid]] = defaultdict(list)
        self.connect(genesis)

    # -- changes ---------------------------------------------------------------------------------------

    def connect(self, raw: bytes) -> Block:
        """Append a block, which must build on the tip; the block."""
        block = Block.parse(raw)
        height = len(self._blocks)
        indexed = IndexedBlock(
            height=height,
            hash=block.header.hash,
            header=block.header,
            txids=tuple(tx.txid for tx in block.transactions),
            weight_wu=_block_weight_wu(block, raw),
            raw=raw,
        )
        if self._blocks and block.header.previous != self._blocks[-1].hash:
            raise ValueError("the block does not build on the tip")
        self._blocks.append(indexed)
        self._heights[indexed.hash] = height
        for position, tx in enumerate(block.transactions):
            self._connect_tx(ConfirmedTx(tx, height, position))
        return block

    def disconnect(self) -> Block:
        """Take the tip off; the block that it was."""
        block = Block.parse(self._blocks.pop().raw)
        del self._heights[block.header.hash]
        for tx in reversed(block.transactions):
            self._disconnect_tx(tx)
        return block

    def _connect_tx(self, confirmed: ConfirmedTx) -> None:
        tx = confirmed.tx
        self._txs[tx.txid] = confirmed
        if not confirmed.is_coinbase:
            for vin, tx_in in enumerate(tx.inputs):
                self._spends[tx_in.prevout] = Spend(tx.txid, vin)
        for key in self._script_hashes(tx):
            self._script_txids[key].append(tx.txid)

    def _disconnect_tx(self, tx: Tx) -> None:
        for key in self._script_hashes(tx):
            self._script_txids[key].pop()
        for tx_in in tx.inputs:
            self._spends.pop(tx_in.prevout, None)
        del self._txs[tx.txid]

    def _script_hashes(self, tx: Tx) -> set[str]:
        """The scripts that a transaction pays or spends from."""
        scripts = {tx_out.script_pubkey for tx_out in tx.outputs}
        spent = (self.output(tx_in.prevout) for tx_in in tx.inputs)
        scripts.update(output.script_pubkey for output in spent if output is not None)
        return {script_hash(script) for script in scripts}

    # -- questions -------------------------------------------------------------------------------------

    @property
    def tip(self) -> IndexedBlock:
        return self._blocks[-1]

    @property
    def tip_height(self) -> int:
        return len(self._blocks) - 1

    def block_at(self, height: int) -> IndexedBlock | None:
        """The block at a height, or None above the tip."""
        return self._blocks[height] if 0 <= height < len(self._blocks) else None

    def block(self, block_hash: BlockHash) -> IndexedBlock | None:
        """A block of the active chain by hash."""
        height = self._heights.get(block_hash)
        return None if height is None else self._blocks[height]

    def median_time_past(self, height: int) -> int:
        """The median time of the block at this height and the ten before it."""
        return median_time([block.header.time for block in self._last(height)])

    def _last(self, height: int) -> Sequence[IndexedBlock]:
        return self._blocks[max(0, height + 1 - MEDIAN_TIME_SPAN) : height + 1]

    def tx(self, txid: Txid) -> ConfirmedTx | None:
        """A confirmed transaction."""
        return self._txs.get(txid)

    def output(self, outpoint: OutPoint) -> TxOut | None:
        """An output that a confirmed transaction made, spent or not."""
        confirmed = self._txs.get(outpoint.txid)
        if confirmed is None or outpoint.vout >= len(confirmed.tx.outputs):
            return None
        return confirmed.tx.outputs[outpoint.vout]

    def spend(self, outpoint: OutPoint) -> Spend | None:
        """The confirmed input that spends an output."""
        return self._spends.get(outpoint)

    def coin(self, outpoint: OutPoint) -> Coin | None:
        """A confirmed output that no confirmed transaction spends."""
        output = self.output(outpoint)
        if output is None or outpoint in self._spends:
            return None
        confirmed = self._txs[outpoint.txid]
        return Coin(output, confirmed.height, confirmed.is_coinbase)

    def script_txids(self, key: str) -> Sequence[Txid]:
        """The confirmed transactions of a script (by its hash in hex), oldest first."""
        return self._script_txids.get(key, ())


def _block_weight_wu(block: Block, raw: bytes) -> int:
    witness_bytes = sum(
        len(tx.serialize()) - len(tx.serialize_without_witness()) for tx in block.transactions
    )
    return 4 * (len(raw) - witness_bytes) + witness_bytes
