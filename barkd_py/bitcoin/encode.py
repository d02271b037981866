"""Reading and writing the binary encodings of bitcoin and Ark.

A `Reader` walks over a byte string; every method takes what it names or raises `DecodeError`. There are two
families of primitives with different texts for a short read: those of the Ark protocol ("failed to fill whole
buffer") and those that upstream borrows from the bitcoin library ("unexpected end of file"), which are the
outpoint, the transaction output and whole transactions.

Source: sheet 01 §1.
"""

from enum import Enum
from functools import lru_cache

from barkd_py.bitcoin import musig
from barkd_py.bitcoin.keys import SECP256K1_ORDER, PublicKey, is_x_only
from barkd_py.bitcoin.tx import OutPoint, Txid, TxOut
from barkd_py.bitcoin.tx import compact_size as compact_size  # one of the writers below
from barkd_py.errors import BarkdError, ProtocolViolation

MAX_VECTOR_BYTES = 4_000_000
"""Upstream's limit for what a decoded vector may occupy in memory."""

MAX_OUTPUT_SCRIPT_BYTES = 100

# Caps on the number of items of a vector: 4 000 000 divided by the size that upstream's type has in memory.
MAX_PUBLIC_KEYS = 62_500
MAX_SIGNATURES = 62_500
MAX_GENESIS_ITEMS = 19_230
MAX_TREE_LEAVES = 17_857


class DecodeErrorKind(Enum):
    IO = "io"
    INVALID = "invalid"
    OVERSIZED_VECTOR = "oversized-vector"


class DecodeError(ProtocolViolation):
    """Bytes that are not the encoding of what they should be.

    kind: ``io`` (too short, or not minimal), ``invalid`` (a value not allowed) or ``oversized-vector``.
    """

    def __init__(self, kind: DecodeErrorKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind

    @classmethod
    def io(cls, detail: str) -> "DecodeError":
        error = cls(DecodeErrorKind.IO, f"I/O error: {detail}")
        error.__cause__ = BarkdError(detail)
        return error

    @classmethod
    def invalid(cls, message: str, cause: str | None = None) -> "DecodeError":
        error = cls(DecodeErrorKind.INVALID, f"invalid protocol encoding: {message}")
        if cause is not None:
            error.__cause__ = BarkdError(cause)
        return error

    @classmethod
    def oversized_vector(cls, requested: int, maximum: int) -> "DecodeError":
        text = f"requested to allocate a vector above our limit: requested={requested}, max={maximum}"
        error = cls(DecodeErrorKind.OVERSIZED_VECTOR, text)
        error.__cause__ = BarkdError(text)
        return error


_SHORT = "failed to fill whole buffer"
_SHORT_BITCOIN = "unexpected end of file"


@lru_cache(maxsize=16_384)
def _public_key(data: bytes) -> PublicKey | None:
    try:
        return PublicKey(data)
    except ValueError:
        return None


class Reader:
    """A position in a byte string."""

    __slots__ = ("_data", "_end", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = len(data)
        self.position = 0

    @classmethod
    def from_hex(cls, text: str) -> "Reader":
        """From hex in either case; every character must be a hex digit."""
        return cls(decode_hex(text))

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return self._end - self.position

    def take(self, length: int) -> bytes:
        start = self.position
        end = start + length
        if end > self._end:
            raise DecodeError.io(_SHORT)
        self.position = end
        return self._data[start:end]

    def finish(self) -> None:
        """Check that nothing is left."""
        if self.position != self._end:
            raise DecodeError.invalid("trailing bytes")

    def u8(self) -> int:
        position = self.position
        if position >= self._end:
            raise DecodeError.io(_SHORT)
        self.position = position + 1
        return self._data[position]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def i64(self) -> int:
        return int.from_bytes(self.take(8), "little", signed=True)

    def compact_size(self) -> int:
        """A compact size; only the shortest form is accepted."""
        first = self.u8()
        if first < 0xFD:
            return first
        length, smallest = _COMPACT_SIZE_FORMS[first]
        value = int.from_bytes(self.take(length), "little")
        if value < smallest:
            raise DecodeError.io("non-minimal varint")
        return value

    def vector_count(self, maximum: int) -> int:
        """The count in front of a vector, checked against its cap before any item is read."""
        count = self.compact_size()
        if count > maximum:
            raise DecodeError.oversized_vector(count, maximum)
        return count

    def public_key(self) -> PublicKey:
        key = _public_key(self.take(33))
        if key is None:
            raise DecodeError.invalid("invalid public key", "malformed public key")
        return key

    def optional_public_key(self) -> PublicKey | None:
        """A public key, or a single zero byte for none."""
        if self.position < self._end and self._data[self.position] == 0:
            self.position += 1
            return None
        return self.public_key()

    def public_keys(self) -> tuple[PublicKey, ...]:
        return tuple(self.public_key() for _ in range(self.vector_count(MAX_PUBLIC_KEYS)))

    def x_only_public_key(self) -> bytes:
        data = self.take(32)
        if not is_x_only(data):
            raise DecodeError.invalid("invalid x-only public key", "malformed public key")
        return data

    def signature(self) -> bytes:
        """64 bytes; whether they are a signature shows when they are verified."""
        return self.take(64)

    def optional_signature(self) -> bytes | None:
        """64 bytes, all zero for none."""
        data = self.take(64)
        return data if any(data) else None

    def hash32(self) -> bytes:
        return self.take(32)

    def tap_tweak(self) -> bytes:
        """32 bytes; whether they are a scalar is the business of what they are for."""
        if self.remaining < 32:
            raise DecodeError.invalid("TapTweakHash must be 32 bytes", _SHORT)
        return self.take(32)

    def scalar(self, error_text: str) -> bytes:
        """32 bytes, a big-endian integer below the group order (zero is allowed)."""
        data = self.take(32)
        if int.from_bytes(data, "big") >= SECP256K1_ORDER:
            raise DecodeError.invalid(error_text)
        return data

    def public_nonce(self) -> bytes:
        """A MuSig2 public nonce: two points, neither of them infinity."""
        data = self.take(musig.PUBLIC_NONCE_BYTES)
        if not musig.is_public_nonce(data):
            raise DecodeError.invalid("invalid musig public nonce", "Malformed parse argument")
        return data

    def partial_signature(self) -> bytes:
        data = self.take(32)
        if int.from_bytes(data, "big") >= SECP256K1_ORDER:
            # Upstream's text for this case; it does say "nonce".
            raise DecodeError.invalid("invalid musig public nonce", "Malformed parse argument")
        return data

    def outpoint(self) -> OutPoint:
        data = self._take_bitcoin(36)
        return OutPoint(Txid(data[:32]), int.from_bytes(data[32:], "little"))

    def tx_out(self) -> TxOut:
        """A transaction output whose script has at most 100 bytes."""
        value_sat = int.from_bytes(self._take_bitcoin(8), "little")
        length = self._take_bitcoin(1)[0]
        if length >= 0xFD:
            size, smallest = _COMPACT_SIZE_FORMS[length]
            length = int.from_bytes(self._take_bitcoin(size), "little")
            if length < smallest:
                raise DecodeError.invalid("bitcoin protocol decoding error", "non-minimal varint")
        script = self._take_bitcoin(length)
        if length > MAX_OUTPUT_SCRIPT_BYTES:
            raise DecodeError.invalid("oversized output scriptPubkey")
        return TxOut(value_sat, script)

    def _take_bitcoin(self, length: int) -> bytes:
        start = self.position
        end = start + length
        if end > self._end:
            raise DecodeError.io(_SHORT_BITCOIN)
        self.position = end
        return self._data[start:end]


_COMPACT_SIZE_FORMS = {0xFD: (2, 0xFD), 0xFE: (4, 0x1_0000), 0xFF: (8, 0x1_0000_0000)}


def decode_hex(text: str) -> bytes:
    """Hex digits in either case; anything else between them is refused. Source: sheet 01 §1."""
    if len(text) % 2:
        raise DecodeError.io(f"odd hex string length {len(text)}")
    # bytes.fromhex skips white space, which is not hex.
    if text and not (text.isascii() and text.isalnum()):
        raise DecodeError.io(_SHORT)
    try:
        return bytes.fromhex(text)
    except ValueError:
        error = DecodeError.io(_SHORT)
    raise error


def u8(value: int) -> bytes:
    return value.to_bytes(1, "little")


def u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def i64(value: int) -> bytes:
    return value.to_bytes(8, "little", signed=True)


def public_keys(keys: tuple[PublicKey, ...]) -> bytes:
    """A vector of public keys."""
    return compact_size(len(keys)) + b"".join(key.data for key in keys)


def optional_public_key(key: PublicKey | None) -> bytes:
    return b"\x00" if key is None else key.data


def optional_signature(signature: bytes | None) -> bytes:
    return bytes(64) if signature is None else signature
