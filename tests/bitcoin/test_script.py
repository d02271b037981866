"""Pushes of numbers and bytes, and what counts as dust."""

import pytest
from bitcoin.core.script import CScript
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.script import P2A_SCRIPT, dust_limit_sat, push_data, push_int


# Source: sheet 01 §4.3.
@pytest.mark.parametrize(
    ("number", "script"),
    [
        (0, "00"),
        (1, "51"),
        (16, "60"),
        (17, "0111"),
        (32, "0120"),
        (127, "017f"),
        (128, "028000"),
        (144, "029000"),
        (255, "02ff00"),
        (256, "020001"),
        (2016, "02e007"),
        (16_383, "02ff3f"),
        (32_767, "02ff7f"),
        (32_768, "03008000"),
        (101_010, "03928a01"),
        (499_934_467, "040365cc1d"),  # the greatest height that a VTXO may hold: 0x1dcc6503
    ],
)
def test_numbers_are_pushed_minimally(number: int, script: str) -> None:
    assert push_int(number).hex() == script


@given(st.integers(0, 2**40))
def test_another_library_pushes_the_same(number: int) -> None:
    assert push_int(number) == bytes(CScript([number]))


@given(st.binary(min_size=2, max_size=600))
def test_bytes_are_pushed_as_by_another_library(data: bytes) -> None:
    assert push_data(data) == bytes(CScript([data]))


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        push_int(-1)


# Source: sheet 01 §11.
@pytest.mark.parametrize(
    ("script", "limit_sat"),
    [
        (b"\x76\xa9\x14" + bytes(20) + b"\x88\xac", 546),
        (b"\xa9\x14" + bytes(20) + b"\x87", 540),
        (b"\x00\x14" + bytes(20), 270),
        (b"\x00\x20" + bytes(32), 330),
        (b"\x51\x20" + bytes(32), 330),
        (b"\x6a" + push_data(bytes(80)), 0),
        (b"\x6a" + push_data(bytes(81)), None),  # 84 bytes
        (P2A_SCRIPT, None),
        (b"\x52\x20" + bytes(32), None),  # a witness version of the future
        (b"\x21\x02" + bytes(32) + b"\xac", None),  # pay to a bare key
        (b"", None),
    ],
)
def test_dust_limits(script: bytes, limit_sat: int | None) -> None:
    assert dust_limit_sat(script) == limit_sat
