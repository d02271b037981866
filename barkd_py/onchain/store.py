"""What the on-chain wallet keeps, and the seam to whoever keeps it.

The BDK wallet object is a *view*: it is rebuilt from the rows below whenever blocks or transactions change,
and nothing is ever read back from BDK's own persistence. So the rows are the truth, they are plain (integers,
text, bytes), and a database can hold them in four small tables:

    wallet        one row     network, public descriptor, last revealed index
    blocks        by height   checkpoints of the best chain (not every block: the recent ones, and each block
                              that confirms one of our transactions)
    transactions  by txid     raw transaction, where it is confirmed, when it was seen in the mempool
    outputs       by outpoint foreign outputs that our transactions spend, known only to compute fees

`OnchainChange` is one atomic step. Every row in it *replaces* the row with the same key (no merging), a block
without hash deletes the row of that height. Applying the same change twice is the same as applying it once.

Hashes are 32 bytes in internal (not display) order. Times are seconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol

from barkd_py.bitcoin.tx import Tx


@dataclass(frozen=True, slots=True)
class WalletRow:
    """The one row about the wallet itself.

    network: as bitcoin software names it ("bitcoin", "signet", …): mutinynet is a signet.
    descriptor: public BIP-86 descriptor with origin and checksum; holds no secret.
    last_revealed: highest address index that was ever shown or used for change; None: none yet.
    """

    network: str
    descriptor: str
    last_revealed: int | None


@dataclass(frozen=True, slots=True)
class BlockRow:
    """A checkpoint. In a change, `hash` None deletes the checkpoint of that height."""

    height: int
    hash: bytes | None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The block that confirms a transaction; it is a block of the best chain as of the last sync."""

    height: int
    block_hash: bytes
    time: int


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """A transaction that pays to us or spends our coins.

    With neither `confirmation` nor `last_seen` it is known but counts for nothing: evicted, or lost in a
    reorg.
    first_seen, last_seen: when it was first and last in the mempool, or handed to it by us.
    """

    txid: bytes
    raw: bytes
    confirmation: Confirmation | None
    first_seen: int | None
    last_seen: int | None

    @property
    def tx(self) -> Tx:
        return _parse(self.raw)


@lru_cache(maxsize=16_384)
def _parse(raw: bytes) -> Tx:
    """Each stored transaction is looked at in every sync, so it is parsed once."""
    return Tx.parse(raw)


@dataclass(frozen=True, slots=True)
class OutputRow:
    """A foreign output spent by one of our transactions."""

    txid: bytes
    vout: int
    value_sat: int
    script_pubkey: bytes


@dataclass(frozen=True, slots=True)
class OnchainChange:
    """One atomic step; an absent part stays as it is."""

    wallet: WalletRow | None = None
    blocks: tuple[BlockRow, ...] = ()
    transactions: tuple[TransactionRow, ...] = ()
    outputs: tuple[OutputRow, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self.wallet is None and not (self.blocks or self.transactions or self.outputs)


@dataclass(frozen=True, slots=True)
class OnchainState:
    """Everything that is stored.

    blocks: height -> block hash. transactions: txid -> row. outputs: (txid, vout) -> row.
    """

    wallet: WalletRow
    blocks: Mapping[int, bytes] = field(default_factory=lambda: MappingProxyType({}))
    transactions: Mapping[bytes, TransactionRow] = field(default_factory=lambda: MappingProxyType({}))
    outputs: Mapping[tuple[bytes, int], OutputRow] = field(default_factory=lambda: MappingProxyType({}))

    def apply(self, change: OnchainChange) -> "OnchainState":
        """The state after one change; the same rule that a store follows."""
        blocks = dict(self.blocks)
        for block in change.blocks:
            if block.hash is None:
                blocks.pop(block.height, None)
            else:
                blocks[block.height] = block.hash
        return OnchainState(
            wallet=change.wallet or self.wallet,
            blocks=MappingProxyType(blocks),
            transactions=MappingProxyType(
                {**self.transactions, **{row.txid: row for row in change.transactions}}
            ),
            outputs=MappingProxyType(
                {**self.outputs, **{(row.txid, row.vout): row for row in change.outputs}}
            ),
        )


class OnchainStore(Protocol):
    """Where the rows are kept. `append` is one database transaction of its own: call it in no other."""

    async def load(self) -> OnchainState | None:
        """All rows; None if no wallet row was ever stored."""

    async def append(self, change: OnchainChange) -> None:
        """Store one change durably, all of it or nothing. The first one ever has a wallet row.

        Raises StoreError; then nothing was written.
        """
