"""What the wallet asks of the bitcoin chain, and the answers as plain values.

Two backends implement `ChainSource`: a bitcoin node over JSON-RPC (`bitcoind.py`) and an Esplora server
(`esplora.py`). Everything above this package works with either.

Three rules hold for every method that asks the network:

* No usable answer is `ChainUnavailable`: nothing is known, nothing follows from it. It is never turned into
  "not found" or "unspent".
* A refusal of a transaction is a `BroadcastError` with its kind; an *unanswered* broadcast is
  `ChainUnavailable`, and the transaction may be on its way.
* "Confirmed" always names the block.

Source: sheet 06 §4.5, §6.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid
from barkd_py.bitcoin.units import BlockRef, FeeRate, Network
from barkd_py.errors import ChainError

GENESIS_HASHES = MappingProxyType(
    {
        Network.MAINNET: BlockHash.from_hex(
            "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
        ),
        Network.TESTNET: BlockHash.from_hex(
            "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943"
        ),
        Network.TESTNET4: BlockHash.from_hex(
            "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043"
        ),
        Network.SIGNET: BlockHash.from_hex(
            "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"
        ),
        Network.MUTINYNET: BlockHash.from_hex(
            "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"
        ),
        Network.REGTEST: BlockHash.from_hex(
            "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
        ),
    }
)
"""Hash of block 0. Mutinynet is a signet with its own challenge: the same block 0."""


# --- Answers about transactions -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NotFound:
    """Neither in a block of the best chain nor in the mempool."""


@dataclass(frozen=True, slots=True)
class Mempool:
    """Waiting for a block."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """In this block of the best chain."""

    block: BlockRef


TxStatus = NotFound | Mempool | Confirmed


@dataclass(frozen=True, slots=True)
class Spend:
    """The transaction that spends an outpoint, and where it is."""

    txid: Txid
    status: Mempool | Confirmed


@dataclass(frozen=True, slots=True)
class PackageFee:
    """Fee and weight of an unconfirmed transaction together with its unconfirmed ancestors."""

    fee_sat: int
    weight_wu: int

    @property
    def fee_rate(self) -> FeeRate:
        """The effective rate, rounded up. Source: sheet 06 §0."""
        return FeeRate(-(-self.fee_sat * 1000 // self.weight_wu))


@dataclass(frozen=True, slots=True)
class FeeRates:
    """Rates for the targets of 1, 3 and 6 blocks."""

    fast: FeeRate
    regular: FeeRate
    slow: FeeRate


# --- Errors -------------------------------------------------------------------------------------------------


class BroadcastErrorKind(enum.Enum):
    """Why a transaction or package was refused."""

    KNOWN = "known"
    """Already in the mempool: somebody else was faster, which is as good."""
    MISSING_OR_SPENT = "missing-or-spent"
    """An input does not exist or is spent, as far as the node can see now."""
    LOW_FEE = "low-fee"
    """It would replace a transaction, and does not pay enough more."""
    OTHER = "other"


class BroadcastError(ChainError):
    """The node refused a transaction or a package; it took nothing of it that it did not already have."""

    def __init__(self, kind: BroadcastErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ChainMisconfigured(ChainError):
    """The chain source answers, but must not be used: wrong network, too old, or lacking an index."""


class NetworkMismatch(ChainMisconfigured):
    """The chain source is on another network.

    expected, got: as bitcoin software names networks; got may be a block hash that belongs to none we know.
    """

    def __init__(self, expected: Network, got: str) -> None:
        super().__init__(f"Network mismatch: expected {expected.bitcoin_name.capitalize()}, got {got}")
        self.expected = expected
        self.got = got


class NodeTooOld(ChainMisconfigured):
    """A node that does not relay exit packages."""

    def __init__(self) -> None:
        super().__init__(
            "Bitcoin Core version is too old, you can participate in rounds but won't be able to "
            "unilaterally exit. Please upgrade to 29.0 or higher."
        )


class ChainMoved(ChainError):
    """The best chain changed while it was being read; what was read is of no use. Read again."""


# --- What the on-chain wallet needs -------------------------------------------------------------------------


class ScriptWatch(Protocol):
    """The wallet's scripts, by address index; the window grows as payments to it are found."""

    def index_of(self, script_pubkey: bytes) -> int | None:
        """The index of a script inside the window."""

    def script(self, index: int) -> bytes:
        """The script of any index."""

    def found(self, index: int) -> None:
        """A payment to this index exists: everything up to it counts as revealed."""

    @property
    def revealed_count(self) -> int:
        """How many indexes are revealed; the window reaches further."""

    @property
    def window_count(self) -> int:
        """How many indexes are recognised by `index_of`."""


@dataclass(frozen=True, slots=True)
class WalletQuery:
    """A question for the wallet's transactions.

    scripts: changed by the search, as `ScriptWatch` describes.
    outpoints: outputs of ours that are known, spent or not: whatever spends them is ours.
    after, tip: `after` is in the best chain and everything up to it is known; the search ends at `tip`.
    stop_gap: None, or search everything of the past as well, also below `after`, on every revealed index and
    behind them until so many in a row were never used: for payments of which this wallet never heard.
    rereads_mempool: scripts or outpoints are known that were not when the mempool was last looked at.
    """

    scripts: ScriptWatch
    outpoints: frozenset[OutPoint]
    after: BlockRef
    tip: BlockRef
    stop_gap: int | None = None
    rereads_mempool: bool = False


@dataclass(frozen=True, slots=True)
class FoundInBlock:
    """A transaction of the wallet in a block. block_time: seconds since the epoch."""

    tx: Tx
    block: BlockRef
    block_time: int


@dataclass(frozen=True, slots=True)
class WalletFindings:
    """The answer to a `WalletQuery`.

    until: everything up to this block of the best chain was searched; below `tip` the caller asks again.
    confirmed: the wallet's transactions in blocks up to `until` (at least those above `after`); the caller
    checks that their blocks are in the best chain.
    mempool: the wallet's transactions in the mempool; complete only if `until` is the tip.
    blocks: blocks of the best chain up to `until` that are worth remembering, to find the fork point of a
    later reorg; possibly not those of `confirmed`.
    """

    until: BlockRef
    confirmed: tuple[FoundInBlock, ...] = ()
    mempool: tuple[Tx, ...] = ()
    blocks: tuple[BlockRef, ...] = ()


# --- The interface ------------------------------------------------------------------------------------------


class ChainSource(Protocol):
    """The bitcoin chain. Every method raises ChainUnavailable if there is no usable answer."""

    @property
    def reads_blocks(self) -> bool:
        """Whether the wallet's transactions are found by reading blocks, so that a birthday matters."""

    async def check_startup(self, network: Network) -> None:
        """Refuse a source that must not be used. Raises ChainMisconfigured. Source: sheet 06 §6.1."""

    async def close(self) -> None:
        """Close connections; the object is of no more use."""

    async def tip(self) -> BlockRef:
        """The tip, at most one second old."""

    async def fetch_tip(self) -> BlockRef:
        """The tip as it is now; `tip` then knows it too."""

    async def block_hash(self, height: int) -> BlockHash | None:
        """The hash of the block at this height of the best chain; None above the tip."""

    async def block_txids(self, block_hash: BlockHash) -> frozenset[Txid] | None:
        """The ids of all transactions of a block; None if the source does not have it (any more)."""

    async def tx_status(self, txid: Txid) -> TxStatus:
        """Where a transaction is."""

    async def get_tx(self, txid: Txid) -> Tx | None:
        """The transaction, from the mempool or the best chain."""

    async def spender(self, outpoint: OutPoint, *, since_height: int) -> Spend | None:
        """What spends this output of a transaction that exists.

        since_height: blocks below cannot hold the spender (the height of the output's own transaction is
        always right); a node has to walk the blocks from there.
        """

    async def is_spent_confirmed(self, outpoint: OutPoint) -> bool:
        """Whether a confirmed transaction spends it. The transaction of the outpoint must be confirmed."""

    async def package_fee(self, txid: Txid) -> PackageFee | None:
        """What a mempool transaction and its unconfirmed ancestors pay; None if it is not in the mempool."""

    async def broadcast(self, tx: Tx) -> None:
        """Submit one transaction; one that is known already is a success. Raises BroadcastError."""

    async def broadcast_package(self, txs: Sequence[Tx]) -> None:
        """Submit a package, parents first; success means all of it. Raises BroadcastError.

        A package of one is allowed. Unlike `broadcast`, a package that fails for no other reason than that
        it is known raises BroadcastError with kind KNOWN. Source: sheet 06 §4.5.
        """

    async def fee_rates(self) -> FeeRates:
        """The cached rates; never raises. Only the very first call waits for the network."""

    async def update_fee_rates(self, *, force: bool = False) -> FeeRates:
        """Refresh the cache unless it is younger than 30 s (or always); falls back, never raises."""

    async def find_wallet_transactions(self, query: WalletQuery) -> WalletFindings:
        """Search the chain and the mempool. Raises ChainMoved if the best chain moved under the search."""
