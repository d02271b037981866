"""The built-in regtest node: Bitcoin Core's consensus library, a block log, an index and a mempool.

`LocalNode` makes blocks, lets the kernel judge them and follows what it says. Three files are its state:

* ``blocks.log``: every block, written before the kernel sees it, fed to a new kernel at each start;
* ``mempool.hex``: what waits for a block, written whenever that changes;
* ``kernel/``: the kernel's own, thrown away at each start.

So a killed process comes back with everything it has told anybody about.

One block takes a fraction of a millisecond, so blocks are made in the event loop, which gets a turn after
each of them; there is nothing to lock, and between two awaits the chain does not change.

Source: sheet 11 §1.
"""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barkd_py.bitcoin.tx import BlockHash, Tx, TxDecodeError, Txid
from barkd_py.bitcoin.units import MAX_MONEY_SAT, BlockRef
from barkd_py.devnet.chain.block import MEDIAN_TIME_SPAN, Block, BlockTemplate, build_block, median_time
from barkd_py.devnet.chain.block_log import BlockLog
from barkd_py.devnet.chain.faucet import FAUCET_SCRIPT
from barkd_py.devnet.chain.index import ChainIndex
from barkd_py.devnet.chain.kernel import BlockConnected, BlockDisconnected, BlockRejected, ChainChange, Kernel
from barkd_py.devnet.chain.mempool import Mempool
from barkd_py.devnet.chain.node import (
    RPC_INVALID_ADDRESS_OR_KEY,
    RPC_INVALID_PARAMETER,
    RPC_TRANSACTION_ERROR,
    ChangeSignal,
    NodeRefusal,
)
from barkd_py.devnet.chain.pool import PoolEntry, TxPool
from barkd_py.errors import StoreError

log = logging.getLogger(__name__)

#: The kernel refuses blocks that are two hours ahead of the machine's clock.
_MAX_AHEAD_S = 2 * 60 * 60 - 60

#: Refusals of blocks that were valid when they were logged: replaying the rest would lose them silently.
_NOT_REPRODUCED = ("time-too-new", "prev-blk-not-found")

_SCRIPT_FAILURE = re.compile(r"\((?P<reason>.*)\), input \d+ of ")
_EXTRA_NONCE_LENGTH = 8

#: More than any block earns, and less than all the money there is.
_ABSURD_FEES_SAT = MAX_MONEY_SAT // 2


class LocalNode:
    """`Node` without any other program. Use `open`."""

    name = "libbitcoinkernel"

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        """Open or make a chain in a directory that nobody else uses. Raises StoreError.

        clock: the time for new blocks, seconds of the epoch.
        """
        self._clock = clock
        self._log = BlockLog(directory / "blocks.log")
        self._mempool_file = directory / "mempool.hex"
        self._kernel = Kernel(directory / "kernel")
        self._index = ChainIndex(self._kernel.genesis)
        self._mempool = Mempool(self._index, self._script_failure)
        self._changed = ChangeSignal()
        self._mining = asyncio.Lock()
        for number, raw in enumerate(self._log.blocks):
            self._replay(number, raw)
        self._mempool.restore(_read_transactions(self._mempool_file))

    @property
    def index(self) -> ChainIndex:
        return self._index

    @property
    def pool(self) -> TxPool:
        return self._mempool.pool

    @property
    def changed(self) -> ChangeSignal:
        return self._changed

    async def refresh(self) -> None:
        """Nothing to do: index and pool are the originals."""

    async def close(self) -> None:
        self._log.close()
        self._kernel.close()

    # -- following the kernel --------------------------------------------------------------------------

    def _replay(self, number: int, raw: bytes) -> None:
        try:
            changes = self._kernel.submit(raw)
        except BlockRejected as refusal:
            if refusal.reason.startswith(_NOT_REPRODUCED):
                raise StoreError(f"block {number} of the log is no longer accepted") from refusal
            # Killed between the log and the kernel's refusal.
            log.debug("block %d of the log is not valid: %s", number, refusal.reason)
            return
        self._follow(changes)

    def _follow(self, changes: Sequence[ChainChange]) -> None:
        """Bring index and pool to the kernel's new tip."""
        lost: list[Block] = []
        for change in changes:
            match change:
                case BlockDisconnected():
                    lost.insert(0, self._index.disconnect())
                case BlockConnected(_height, raw):
                    self._mempool.block_connected(self._index.connect(raw))
        if lost:
            self._mempool.restore(tx for block in lost for tx in block.transactions[1:])

    def _submit(self, blocks: Sequence[Block]) -> None:
        """Log blocks and let the kernel judge them, one after the other. Raises BlockRejected: as before."""
        raws = [block.serialize() for block in blocks]
        for raw in raws:
            self._log.append(raw)
        changes: list[ChainChange] = []
        for raw in raws:
            try:
                changes.extend(self._kernel.submit(raw))
            except BlockRejected:
                self._log.drop(len(raws))
                self._follow(changes)
                raise
        self._follow(changes)
        self._after_change()

    def _after_change(self) -> None:
        _write_transactions(self._mempool_file, [entry.tx for entry in self.pool.topological()])
        self._changed.notify()

    def _script_failure(self, entry: PoolEntry, ancestors: Sequence[PoolEntry]) -> str | None:
        raw = entry.tx.serialize()
        spent = [(output.value_sat, output.script_pubkey) for output in entry.spent]
        for vin, tx_in in enumerate(entry.tx.inputs):
            if not self._kernel.verify_input(raw, vin, spent):
                reason = self._script_failure_reason(entry.tx, [other.tx for other in ancestors])
                return (
                    f"({reason}), input {vin} of {entry.txid} (wtxid {entry.wtxid}), spending {tx_in.prevout}"
                )
        return None

    def _script_failure_reason(self, tx: Tx, ancestors: Sequence[Tx]) -> str:
        """Ask the kernel, which says why only for a block: one that is wrong in its reward too."""
        block = self._build(_Branch.at_tip(self._index), (*ancestors, tx), fees_sat=_ABSURD_FEES_SAT)
        try:
            self._kernel.submit(block.serialize())
        except BlockRejected as refusal:
            match = _SCRIPT_FAILURE.search(refusal.reason)
            if match is not None:
                return match["reason"]
        return "unknown error"

    # -- making blocks ---------------------------------------------------------------------------------

    def _build(
        self,
        branch: "_Branch",
        transactions: Sequence[Tx],
        *,
        fees_sat: int = 0,
        reward_script: bytes | None = None,
    ) -> Block:
        latest = int(time.time()) + _MAX_AHEAD_S
        return build_block(
            BlockTemplate(
                previous=branch.tip_hash,
                height=branch.height + 1,
                time=max(median_time(branch.times) + 1, min(int(self._clock()), latest)),
                reward_script=FAUCET_SCRIPT if reward_script is None else reward_script,
                extra_nonce=secrets.token_bytes(_EXTRA_NONCE_LENGTH),
                transactions=tuple(transactions),
                fees_sat=fees_sat,
            )
        )

    async def mine(self, count: int = 1, *, reward_script: bytes | None = None) -> tuple[BlockRef, ...]:
        refs: list[BlockRef] = []
        async with self._mining:
            for _ in range(count):
                entries = self._mempool.for_next_block()
                block = self._build(
                    _Branch.at_tip(self._index),
                    [entry.tx for entry in entries],
                    fees_sat=sum(entry.fee_sat for entry in entries),
                    reward_script=reward_script,
                )
                self._submit([block])
                refs.append(self._index.tip.ref)
                await asyncio.sleep(0)
        return tuple(refs)

    async def mine_exactly(
        self, transactions: Sequence[Tx], *, reward_script: bytes | None = None
    ) -> BlockRef:
        async with self._mining:
            self._submit_asked_for(
                [self._build(_Branch.at_tip(self._index), transactions, reward_script=reward_script)]
            )
            return self._index.tip.ref

    async def reorg(self, depth: int, *, transactions: Sequence[Tx] = ()) -> BlockRef:
        async with self._mining:
            fork_height = self._index.tip_height - depth
            if depth < 1 or fork_height < 0:
                raise NodeRefusal(RPC_INVALID_PARAMETER, f"there are not {depth} blocks to replace")
            branch = _Branch.at(self._index, fork_height)
            blocks: list[Block] = []
            for held in itertools.chain([transactions], itertools.repeat((), depth)):
                block = self._build(branch, held)
                branch = branch.extended(block)
                blocks.append(block)
            self._submit_asked_for(blocks)
            return self._index.tip.ref

    async def submit_block(self, block: Block) -> None:
        """Offer a block that was made elsewhere, on any known parent. Raises BlockRejected."""
        async with self._mining:
            self._submit([block])

    def build_on(self, parent: BlockHash) -> Block:
        """An empty block on a block of the active chain, not submitted: for tests of side branches."""
        block = self._index.block(parent)
        if block is None:
            raise NodeRefusal(RPC_INVALID_PARAMETER, f"no block {parent} in the active chain")
        return self._build(_Branch.at(self._index, block.height), ())

    def _submit_asked_for(self, blocks: Sequence[Block]) -> None:
        """Submit blocks that hold what somebody asked for, which may be anything."""
        try:
            self._submit(blocks)
        except BlockRejected as refusal:
            raise NodeRefusal(
                RPC_TRANSACTION_ERROR, f"TestBlockValidity failed: {refusal.reason}"
            ) from refusal

    # -- transactions ----------------------------------------------------------------------------------

    async def check(self, raw_hex: str) -> None:
        self._mempool.check(raw_hex)

    async def broadcast(self, raw_hex: str) -> Txid:
        txid = self._mempool.submit(raw_hex)
        self._after_change()
        return txid

    async def submit_package(self, raw_hexes: Sequence[str]) -> dict[str, Any]:
        answer = self._mempool.submit_package(raw_hexes)
        self._after_change()
        return answer

    async def evict(self, txid: Txid) -> None:
        try:
            self._mempool.evict(txid)
        except KeyError:
            raise NodeRefusal(RPC_INVALID_ADDRESS_OR_KEY, "Transaction not in mempool") from None
        self._after_change()


@dataclass(frozen=True, slots=True)
class _Branch:
    """Where a block is built: the parent, and the times of the last blocks up to it."""

    tip_hash: BlockHash
    height: int
    times: tuple[int, ...]

    @classmethod
    def at_tip(cls, index: ChainIndex) -> "_Branch":
        return cls.at(index, index.tip_height)

    @classmethod
    def at(cls, index: ChainIndex, height: int) -> "_Branch":
        blocks = [index.block_at(below) for below in range(height - MEDIAN_TIME_SPAN + 1, height + 1)]
        known = [block for block in blocks if block is not None]
        return cls(known[-1].hash, height, tuple(block.header.time for block in known))

    def extended(self, block: Block) -> "_Branch":
        return _Branch(block.header.hash, self.height + 1, (*self.times, block.header.time))


def _read_transactions(path: Path) -> list[Tx]:
    """The transactions of a file, one hex line each; a line that is none is skipped."""
    if not path.exists():
        return []
    txs: list[Tx] = []
    for line in path.read_text().splitlines():
        try:
            txs.append(Tx.from_hex(line))
        except TxDecodeError:
            log.warning("%s holds a line that is no transaction", path)
    return txs


def _write_transactions(path: Path, txs: Sequence[Tx]) -> None:
    """Replace the file in one step."""
    new = path.with_suffix(".new")
    new.write_text("".join(tx.serialize().hex() + "\n" for tx in txs))
    new.replace(path)
