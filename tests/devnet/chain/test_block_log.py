"""The block log: what was written is there again, and what was half written is not."""

from pathlib import Path

import pytest

from barkd_py.devnet.chain.block_log import BlockLog
from barkd_py.errors import StoreError

BLOCKS = (b"first block", b"second", b"third one")
_HEADER = 8


def written(path: Path, *blocks: bytes) -> bytes:
    log = BlockLog(path)
    for block in blocks:
        log.append(block)
    log.close()
    return path.read_bytes()


def reopened(path: Path) -> tuple[bytes, ...]:
    log = BlockLog(path)
    log.close()
    return log.blocks


def test_new_log_is_empty(tmp_path: Path) -> None:
    assert reopened(tmp_path / "deeper" / "log") == ()


def test_blocks_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path, *BLOCKS[:2])
    written(path, BLOCKS[2])
    assert reopened(path) == BLOCKS


def test_block_is_on_disk_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = BlockLog(path)
    log.append(BLOCKS[0])
    assert reopened(path) == BLOCKS[:1]
    log.close()


def test_every_cut_inside_the_last_record_drops_only_that(tmp_path: Path) -> None:
    data = written(tmp_path / "log", *BLOCKS)
    start_of_last = len(data) - _HEADER - len(BLOCKS[2])
    for end in range(start_of_last, len(data)):
        path = tmp_path / f"cut-{end}"
        path.write_bytes(data[:end])
        assert reopened(path) == BLOCKS[:2], end


def test_log_goes_on_after_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = written(path, *BLOCKS)
    path.write_bytes(data[:-1])
    written(path, b"another")
    assert reopened(path) == (*BLOCKS[:2], b"another")


def test_wrong_bytes_in_the_last_record_drop_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = written(path, *BLOCKS)
    path.write_bytes(data[:-1] + bytes((data[-1] ^ 1,)))
    assert reopened(path) == BLOCKS[:2]


def test_damage_before_the_end_is_an_error_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = bytearray(written(path, *BLOCKS))
    data[_HEADER + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged at byte 0"):
        BlockLog(path)
    assert path.read_bytes() == data


def test_dropped_blocks_are_gone_and_the_next_takes_their_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path, BLOCKS[0])
    log = BlockLog(path)
    log.append(BLOCKS[1])
    log.append(BLOCKS[2])
    log.drop(2)
    log.append(b"instead")
    log.close()
    assert reopened(path) == (BLOCKS[0], b"instead")


def test_blocks_of_an_earlier_run_can_be_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path, *BLOCKS)
    log = BlockLog(path)
    log.drop(1)
    log.close()
    assert reopened(path) == BLOCKS[:2]
