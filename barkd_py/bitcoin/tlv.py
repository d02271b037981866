"""Streams of TLV records, as Lightning writes them: type, length and value, in rising order of type.

Source: BOLT-1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from barkd_py.errors import InvalidInput


class MalformedTlv(InvalidInput):
    """Bytes that are no such stream."""


@dataclass(frozen=True, slots=True)
class TlvRecord:
    """encoded: the whole record, type and length included. type_size: how many bytes the type takes of it."""

    type: int
    value: bytes
    encoded: bytes
    type_size: int

    @property
    def encoded_type(self) -> bytes:
        return self.encoded[: self.type_size]


def read_tlv_stream(data: bytes) -> Iterator[TlvRecord]:
    """Raises MalformedTlv when it gets there."""
    position, previous = 0, -1
    while position < len(data):
        start = position
        kind, position = read_big_size(data, position)
        type_size = position - start
        length, position = read_big_size(data, position)
        value = data[position : position + length]
        if len(value) < length:
            raise MalformedTlv("ends inside a record")
        position += length
        if kind <= previous:
            raise MalformedTlv("records are not in order")
        previous = kind
        yield TlvRecord(kind, value, data[start:position], type_size)


def read_big_size(data: bytes, position: int) -> tuple[int, int]:
    """A BigSize and the position after it. Raises MalformedTlv."""
    if position >= len(data):
        raise MalformedTlv("ends inside a record")
    first = data[position]
    if first < 0xFD:
        return first, position + 1
    length, smallest = {0xFD: (2, 0xFD), 0xFE: (4, 0x1_0000), 0xFF: (8, 0x1_0000_0000)}[first]
    encoded = data[position + 1 : position + 1 + length]
    value = int.from_bytes(encoded, "big")
    if len(encoded) < length or value < smallest:
        raise MalformedTlv("malformed size")
    return value, position + 1 + length


def big_size(value: int) -> bytes:
    if value < 0xFD:
        return bytes((value,))
    if value < 0x1_0000:
        return b"\xfd" + value.to_bytes(2, "big")
    if value < 0x1_0000_0000:
        return b"\xfe" + value.to_bytes(4, "big")
    return b"\xff" + value.to_bytes(8, "big")


def tlv_record(kind: int, value: bytes) -> bytes:
    return big_size(kind) + big_size(len(value)) + value


def read_truncated_u64(value: bytes) -> int:
    """A number without leading zero bytes. Raises MalformedTlv."""
    if len(value) > 8 or value[:1] == b"\x00":
        raise MalformedTlv("malformed number")
    return int.from_bytes(value, "big")


def truncated_u64(value: int) -> bytes:
    return value.to_bytes(-(-value.bit_length() // 8), "big")
