"""The chain on disk: an append-only file of raw blocks.

A record is ``length (4 bytes, little-endian) ‖ CRC-32 of the block (4 bytes) ‖ block``. It is written and
flushed before the kernel sees the block, so a killed process loses nothing it has told anybody about. The
last record may be cut short by a crash: it is dropped at the next start. Blocks of branches that lost are in
the file as well; feeding all of it to a new kernel in order gives the same chain again.

Source: sheet 11 §1 (durability).
"""

import logging
import os
import zlib
from pathlib import Path
from typing import BinaryIO

from barkd_py.errors import StoreError

log = logging.getLogger(__name__)

_HEADER_LENGTH = 8
#: A block has at most 4,000,000 weight units, so never more bytes than that.
_MAX_BLOCK_LENGTH = 4_000_000


class BlockLog:
    """The file, open for appending. `blocks` holds what was in it when it was opened."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; a torn last record is cut off. Raises StoreError if it is damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else b""
        self.blocks, good_length = _parse(data, path)
        if good_length < len(data):
            log.warning("the last block in %s was not written in full; it is dropped", path)
            os.truncate(path, good_length)
        self._lengths = [len(raw) for raw in self.blocks]
        self._end = good_length
        self._file: BinaryIO = path.open("ab")

    def append(self, raw: bytes) -> None:
        """Write a block through to the operating system; it survives the death of this process."""
        checksum = zlib.crc32(raw)
        self._file.write(len(raw).to_bytes(4, "little") + checksum.to_bytes(4, "little") + raw)
        self._file.flush()
        self._lengths.append(len(raw))
        self._end += _HEADER_LENGTH + len(raw)

    def drop(self, count: int) -> None:
        """Take the last blocks off again: the kernel refused them."""
        for length in self._lengths[len(self._lengths) - count :]:
            self._end -= _HEADER_LENGTH + length
        del self._lengths[len(self._lengths) - count :]
        self._file.truncate(self._end)
        self._file.seek(self._end)

    def sync(self) -> None:
        """Write everything through to the disk; it survives the death of the machine."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close the file."""
        self.sync()
        self._file.close()


def _parse(data: bytes, path: Path) -> tuple[tuple[bytes, ...], int]:
    """The whole records, and the length that they take. Raises StoreError for damage before the end."""
    blocks: list[bytes] = []
    position = 0
    while position + _HEADER_LENGTH <= len(data):
        length = int.from_bytes(data[position : position + 4], "little")
        checksum = int.from_bytes(data[position + 4 : position + 8], "little")
        start = position + _HEADER_LENGTH
        raw = data[start : start + length]
        if length <= _MAX_BLOCK_LENGTH and len(raw) < length:
            break
        if length > _MAX_BLOCK_LENGTH or zlib.crc32(raw) != checksum:
            if start + length >= len(data):
                break
            raise StoreError(f"{path} is damaged at byte {position}: remove the devnet directory")
        blocks.append(raw)
        position = start + length
    return tuple(blocks), position
