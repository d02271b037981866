"""Transactions: the values they are made of, their serialisation, ids and weights.

These are plain immutable values. They are serialised here rather than by python-bitcoinlib because an exit
chain is rebuilt for every validation, and converting each transaction into library objects costs more than
the signatures in it; the tests hold this code against that library.

Hashes keep the byte order in which they are computed ("internal") and print in the reversed one ("display").

Source: BIP-141, BIP-144.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Self

from barkd_py.bitcoin.hashes import sha256d

P2A_SCRIPT = bytes.fromhex("51024e73")
"""Pay-to-anchor: anyone may spend it, with an empty witness. Every Ark transaction ends with one."""

MAX_SEQUENCE = 0xFFFF_FFFF
WITNESS_SCALE = 4


class TxDecodeError(ValueError):
    """Bytes that are not one whole transaction."""


class _Hash32(bytes):
    """32 bytes in internal order, which print reversed."""

    def __new__(cls, data: bytes) -> Self:
        if len(data) != 32:
            raise ValueError(f"a hash has 32 bytes, not {len(data)}")
        return super().__new__(cls, data)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """From 64 hex digits in display order. Raises ValueError."""
        if len(text) != 64 or not text.isascii() or not text.isalnum():
            raise ValueError("a hash has 64 hex digits")
        return cls(bytes.fromhex(text)[::-1])

    def __str__(self) -> str:
        return self[::-1].hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class Txid(_Hash32):
    """The id of a transaction."""


class BlockHash(_Hash32):
    """The hash of a block."""


def compact_size(value: int) -> bytes:
    if value < 0xFD:
        return value.to_bytes(1, "little")
    if value <= 0xFFFF:
        return b"\xfd" + value.to_bytes(2, "little")
    if value <= 0xFFFF_FFFF:
        return b"\xfe" + value.to_bytes(4, "little")
    return b"\xff" + value.to_bytes(8, "little")


@dataclass(frozen=True, slots=True, order=True)
class OutPoint:
    """An output of a transaction, by its position."""

    txid: Txid
    vout: int

    def to_bytes(self) -> bytes:
        """36 bytes: the txid in internal order and the position."""
        return self.txid + self.vout.to_bytes(4, "little")

    @classmethod
    def from_bytes(cls, data: bytes) -> "OutPoint":
        """The inverse of `to_bytes`. Raises ValueError."""
        if len(data) != 36:
            raise ValueError("an outpoint has 36 bytes")
        return cls(Txid(data[:32]), int.from_bytes(data[32:], "little"))

    @classmethod
    def parse(cls, text: str) -> "OutPoint":
        """From ``txid:vout``. The position has no sign and no leading zero. Raises ValueError."""
        txid, separator, vout = text.partition(":")
        canonical = vout.isascii() and vout.isdecimal() and (vout == "0" or not vout.startswith("0"))
        if not separator or not canonical or len(vout) > 10 or int(vout) > 0xFFFF_FFFF:
            raise ValueError("invalid outpoint")
        return cls(Txid.from_hex(txid), int(vout))

    def __str__(self) -> str:
        return f"{self.txid}:{self.vout}"


@dataclass(frozen=True, slots=True)
class TxOut:
    """An output: an amount and the script that spends it."""

    value_sat: int
    script_pubkey: bytes

    def to_bytes(self) -> bytes:
        script = self.script_pubkey
        return self.value_sat.to_bytes(8, "little") + compact_size(len(script)) + script


def fee_anchor(value_sat: int = 0) -> TxOut:
    """The pay-to-anchor output through which somebody else pays the fee."""
    return TxOut(value_sat, P2A_SCRIPT)


@dataclass(frozen=True, slots=True)
class TxIn:
    """An input: the output it spends, and what proves that it may."""

    prevout: OutPoint
    script_sig: bytes = b""
    sequence: int = MAX_SEQUENCE
    witness: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """The input without its witness."""
        script = self.script_sig
        return (
            self.prevout.to_bytes() + compact_size(len(script)) + script + self.sequence.to_bytes(4, "little")
        )


@dataclass(frozen=True, slots=True)
class Tx:
    """A transaction."""

    version: int
    inputs: tuple[TxIn, ...]
    outputs: tuple[TxOut, ...]
    locktime: int = 0
    _txid: list[Txid] = field(init=False, compare=False, repr=False, default_factory=list)

    @property
    def has_witness(self) -> bool:
        return any(tx_in.witness for tx_in in self.inputs)

    @property
    def txid(self) -> Txid:
        if not self._txid:
            self._txid.append(Txid(sha256d(self.serialize_without_witness())))
        return self._txid[0]

    @property
    def wtxid(self) -> Txid:
        return Txid(sha256d(self.serialize()))

    def serialize(self) -> bytes:
        """Consensus bytes; in the older format if there is no witness."""
        if not self.has_witness:
            return self.serialize_without_witness()
        parts = [self.version.to_bytes(4, "little"), b"\x00\x01"]
        self._append_body(parts)
        for tx_in in self.inputs:
            parts.append(compact_size(len(tx_in.witness)))
            for item in tx_in.witness:
                parts.append(compact_size(len(item)))
                parts.append(item)
        parts.append(self.locktime.to_bytes(4, "little"))
        return b"".join(parts)

    def serialize_without_witness(self) -> bytes:
        parts = [self.version.to_bytes(4, "little")]
        self._append_body(parts)
        parts.append(self.locktime.to_bytes(4, "little"))
        return b"".join(parts)

    def _append_body(self, parts: list[bytes]) -> None:
        parts.append(compact_size(len(self.inputs)))
        parts.extend(tx_in.to_bytes() for tx_in in self.inputs)
        parts.append(compact_size(len(self.outputs)))
        parts.extend(tx_out.to_bytes() for tx_out in self.outputs)

    @property
    def weight_wu(self) -> int:
        return 3 * len(self.serialize_without_witness()) + len(self.serialize())

    @property
    def vsize(self) -> int:
        return -(-self.weight_wu // WITNESS_SCALE)

    def outpoint(self, vout: int) -> OutPoint:
        return OutPoint(self.txid, vout)

    @classmethod
    def from_hex(cls, text: str) -> "Tx":
        """From hex. Raises TxDecodeError."""
        try:
            data = bytes.fromhex(text)
        except ValueError:
            raise TxDecodeError("a transaction in hex has hex digits only") from None
        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> "Tx":
        """Read exactly one transaction, in its only canonical form. Raises TxDecodeError."""
        reader = _TxReader(data)
        tx = reader.tx()
        if reader.position != len(data):
            raise TxDecodeError("data not consumed entirely when explicitly deserializing")
        return tx

    def __hash__(self) -> int:
        return hash(self.txid)


def parse_block_body(data: bytes) -> tuple[Tx, ...]:
    """Read a count and that many transactions: what follows the header in a block. Raises TxDecodeError."""
    reader = _TxReader(data)
    txs = tuple(reader.tx() for _ in range(reader.compact_size()))
    if reader.position != len(data):
        raise TxDecodeError("data not consumed entirely when explicitly deserializing")
    return txs


class _TxReader:
    """Consensus decoding, as strict as bitcoin nodes are on the wire."""

    __slots__ = ("_data", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self._data):
            _fail("unexpected end of file")
        data = self._data[self.position : end]
        self.position = end
        return data

    def integer(self, length: int) -> int:
        return int.from_bytes(self.take(length), "little")

    def compact_size(self) -> int:
        first = self.integer(1)
        if first < 0xFD:
            return first
        value = self.integer({0xFD: 2, 0xFE: 4, 0xFF: 8}[first])
        if value < {0xFD: 0xFD, 0xFE: 0x1_0000, 0xFF: 0x1_0000_0000}[first]:
            _fail("non-minimal varint")
        return value

    def tx(self) -> Tx:
        version = self.integer(4)
        input_count = self.compact_size()
        segwit = input_count == 0
        if segwit:
            if self.integer(1) != 1:
                _fail("unsupported segwit version")
            input_count = self.compact_size()
        unsigned = tuple(self._input() for _ in range(input_count))
        outputs = tuple(self._output() for _ in range(self.compact_size()))
        inputs: Sequence[TxIn] = unsigned
        if segwit:
            inputs = [self._with_witness(tx_in) for tx_in in unsigned]
            if not any(tx_in.witness for tx_in in inputs):
                _fail("witness flag set but no witnesses present")
        return Tx(version, tuple(inputs), outputs, self.integer(4))

    def _input(self) -> TxIn:
        data = self.take(36)
        (vout,) = struct.unpack_from("<I", data, 32)
        script_sig = self.take(self.compact_size())
        return TxIn(OutPoint(Txid(data[:32]), vout), script_sig, self.integer(4))

    def _output(self) -> TxOut:
        value_sat = self.integer(8)
        return TxOut(value_sat, self.take(self.compact_size()))

    def _with_witness(self, tx_in: TxIn) -> TxIn:
        witness = tuple(self.take(self.compact_size()) for _ in range(self.compact_size()))
        return TxIn(tx_in.prevout, tx_in.script_sig, tx_in.sequence, witness)


def _fail(message: str) -> NoReturn:
    raise TxDecodeError(message)
