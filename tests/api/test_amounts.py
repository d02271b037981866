"""Amounts with a denomination."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.api.amounts import BadAmount, parse_amount


@pytest.mark.parametrize(
    ("text", "amount_sat"),
    [
        ("10000 sat", 10_000),
        ("1000sats", 1_000),
        ("0.1 BTC", 10_000_000),
        ("5 mBTC", 500_000),
        ("2 cBTC", 2_000_000),
        ("7 bits", 700),
        ("7 uBTC", 700),
        ("-0 sat", 0),
        ("1.0 sat", 1),
        ("21000000 BTC", 2_100_000_000_000_000),
        (".5 BTC", 50_000_000),
        (". BTC", 0),
        ("5. sat", 5),
        ("1000 msat", 1),
        ("3000.0msats", 3),
        ("000 msat", 0),
        ("10 nBTC", 1),
        ("20000 pBTC", 2),
    ],
)
def test_amounts_are_read(text: str, amount_sat: int) -> None:
    assert parse_amount(text) == amount_sat


@given(st.integers(0, 2**64 - 1))
def test_bitcoins_and_satoshis_agree(amount_sat: int) -> None:
    whole, rest = divmod(amount_sat, 100_000_000)
    assert parse_amount(f"{whole}.{rest:08} BTC") == parse_amount(f"{amount_sat} sat") == amount_sat


@pytest.mark.parametrize(
    "text",
    ["", "1000", "x sat", "1 dollars", "-1 sat", "0.5 sat", "1..0 BTC", "1,0 BTC", "18446744073709551616 sat",
     "1" * 60 + " sat", " sat", ". sat", "1  sat", "0.000000001 BTC", "1_000 sat", "1e3 sat", "٣ sat"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadAmount):
        parse_amount(text)


TOO_PRECISE = "invalid amount: amount has a too high precision: "
SUB_SATOSHI = TOO_PRECISE + "the digits starting from position {} represent a sub-satoshi amount"
BELOW_ONE = TOO_PRECISE + "the amount is less than 1 satoshi but it's not zero"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0.5 sat", SUB_SATOSHI.format(2)),
        ("0.000000001 BTC", SUB_SATOSHI.format(10)),
        ("1 msat", BELOW_ONE),
        ("1 msats", BELOW_ONE),
        ("1 nBTC", BELOW_ONE),
        ("1000 pBTC", BELOW_ONE),
        ("1 µBTC", "invalid denomination: denomination parse error"),
        ("1  sat", "invalid denomination: denomination parse error"),
        (" sat", "invalid amount: the input has too few digits: the input is empty"),
        ("1.2.3 BTC", "invalid amount: invalid character in the input: "
         "there is more than one decimal separator (dot) in the input"),
        ("99999999999999999999 sat",
         "invalid amount: amount out of range: the amount is greater than 18446744073709551615"),
        ("184467440737.09551616 BTC",
         "invalid amount: amount out of range: the amount is greater than 18446744073709551615"),
    ],
)  # fmt: skip
def test_what_barkd_says_to_them(text: str, problem: str) -> None:
    with pytest.raises(BadAmount, match=f"^{re.escape(problem)}$"):
        parse_amount(text)
