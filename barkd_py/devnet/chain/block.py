"""Blocks: their bytes, and how a regtest block is built and solved.

A block here is a value: a header of 80 bytes and its transactions, the coinbase first. Building one is pure:
height, time, coinbase script and the transactions go in, a solved block comes out (two tries on average,
since regtest's target is half of all hashes).

Source: sheet 11 §1.1; BIP-34 (height in the coinbase), BIP-141 (witness commitment).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from barkd_py.bitcoin.encode import Reader, compact_size
from barkd_py.bitcoin.hashes import sha256d
from barkd_py.bitcoin.script import push_data, push_int
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn, TxOut, parse_block_body

MAX_BLOCK_WEIGHT_WU = 4_000_000
COINBASE_MATURITY = 100

#: After how many blocks the subsidy halves on regtest.
HALVING_INTERVAL = 150

#: How many blocks the median time past looks back on.
MEDIAN_TIME_SPAN = 11

_HEADER_LENGTH = 80
_VERSION = 0x2000_0000
_REGTEST_BITS = 0x207F_FFFF
_REGTEST_TARGET = 0x7F_FFFF << 232
_COMMITMENT_PREFIX = bytes.fromhex("6a24aa21a9ed")
_WITNESS_RESERVED = bytes(32)
_COINBASE_PREVOUT = OutPoint(Txid(bytes(32)), 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """The 80 bytes that are hashed. merkle_root: 32 bytes, internal order; time: seconds of the epoch."""

    version: int
    previous: BlockHash
    merkle_root: bytes
    time: int
    bits: int
    nonce: int

    def serialize(self) -> bytes:
        return b"".join(
            (
                self.version.to_bytes(4, "little"),
                self.previous,
                self.merkle_root,
                self.time.to_bytes(4, "little"),
                self.bits.to_bytes(4, "little"),
                self.nonce.to_bytes(4, "little"),
            )
        )

    @classmethod
    def parse(cls, data: bytes) -> "BlockHeader":
        """From 80 bytes. Raises DecodeError."""
        reader = Reader(data)
        header = cls(
            version=reader.u32(),
            previous=BlockHash(reader.take(32)),
            merkle_root=reader.take(32),
            time=reader.u32(),
            bits=reader.u32(),
            nonce=reader.u32(),
        )
        reader.finish()
        return header

    @property
    def hash(self) -> BlockHash:
        return BlockHash(sha256d(self.serialize()))


@dataclass(frozen=True, slots=True)
class Block:
    """A header and the transactions, the coinbase first."""

    header: BlockHeader
    transactions: tuple[Tx, ...]

    def serialize(self) -> bytes:
        body = b"".join(tx.serialize() for tx in self.transactions)
        return self.header.serialize() + compact_size(len(self.transactions)) + body

    @classmethod
    def parse(cls, data: bytes) -> "Block":
        """From consensus bytes. Raises DecodeError or TxDecodeError."""
        header = BlockHeader.parse(data[:_HEADER_LENGTH])
        return cls(header, parse_block_body(data[_HEADER_LENGTH:]))


@dataclass(frozen=True, slots=True)
class BlockTemplate:
    """What a new block is built from.

    previous, height, time: the parent's hash, the new block's own height and time.
    reward_script: who receives subsidy and fees.
    extra_nonce: makes coinbases, and so txids, of different branches different.
    transactions: without the coinbase, parents before children; fees_sat is what they pay together.
    """

    previous: BlockHash
    height: int
    time: int
    reward_script: bytes
    extra_nonce: bytes
    transactions: tuple[Tx, ...] = ()
    fees_sat: int = 0


def subsidy_sat(height: int) -> int:
    """The newly made coins of a regtest block."""
    halvings = height // HALVING_INTERVAL
    return 5_000_000_000 >> halvings if halvings < 64 else 0


def build_block(template: BlockTemplate) -> Block:
    """A solved block."""
    coinbase = _coinbase(template)
    transactions = (coinbase, *template.transactions)
    header = BlockHeader(
        version=_VERSION,
        previous=template.previous,
        merkle_root=merkle_root([tx.txid for tx in transactions]),
        time=template.time,
        bits=_REGTEST_BITS,
        nonce=0,
    )
    return Block(solve(header), transactions)


def solve(header: BlockHeader) -> BlockHeader:
    """The header with the first nonce that meets regtest's target."""
    while int.from_bytes(header.hash, "little") > _REGTEST_TARGET:
        header = replace(header, nonce=header.nonce + 1)
    return header


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    """The root over 32-byte hashes; the last of an odd row counts twice."""
    row = list(hashes)
    while len(row) > 1:
        if len(row) % 2:
            row.append(row[-1])
        row = [sha256d(row[index] + row[index + 1]) for index in range(0, len(row), 2)]
    return bytes(row[0])


def median_time(times: Sequence[int]) -> int:
    """The median of the last block times (at most eleven of them count)."""
    last = sorted(times[-MEDIAN_TIME_SPAN:])
    return last[len(last) // 2]


def _coinbase(template: BlockTemplate) -> Tx:
    commitment = sha256d(
        merkle_root([bytes(32), *(tx.wtxid for tx in template.transactions)]) + _WITNESS_RESERVED
    )
    return Tx(
        version=2,
        inputs=(
            TxIn(
                _COINBASE_PREVOUT,
                script_sig=push_int(template.height) + push_data(template.extra_nonce),
                witness=(_WITNESS_RESERVED,),
            ),
        ),
        outputs=(
            TxOut(subsidy_sat(template.height) + template.fees_sat, template.reward_script),
            TxOut(0, _COMMITMENT_PREFIX + commitment),
        ),
    )


def is_coinbase(tx: Tx) -> bool:
    """Whether a transaction makes new coins: its only input spends nothing."""
    return len(tx.inputs) == 1 and tx.inputs[0].prevout == _COINBASE_PREVOUT
