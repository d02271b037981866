"""Query strings and path parameters."""

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from barkd_py.api.json_body import Unsigned
from barkd_py.api.params import (
    ParameterRejected,
    query_pairs,
    read_path_text,
    read_path_u32,
    read_query,
)


class Query(BaseModel):
    amount_sat: Annotated[int, Unsigned(64)]
    rate: float | None = None
    all: bool | None = None
    name: str | None = None


def test_plus_is_a_blank_and_percent_is_decoded() -> None:
    assert query_pairs(b"a=b+c&d=%2Bx&&e") == [("a", "b c"), ("d", "+x"), ("e", "")]


@given(st.integers(0, 2**64 - 1))
def test_every_amount_is_read_exactly(amount_sat: int) -> None:
    assert read_query(Query, f"amount_sat={amount_sat}".encode()).amount_sat == amount_sat


def test_zeros_before_a_number_do_not_count() -> None:
    assert read_query(Query, b"amount_sat=" + b"0" * 5_000 + b"1").amount_sat == 1
    with pytest.raises(ParameterRejected, match=r"amount_sat: number too large to fit in target type$"):
        read_query(Query, b"amount_sat=" + b"9" * 5_000)


@pytest.mark.parametrize("text", ["1_0", " 1", "1 ", "٣", "0x1", "1e3", "--1", "+", "-", "%2B"])
def test_other_spellings_of_numbers_are_refused(text: str) -> None:
    with pytest.raises(ParameterRejected, match="invalid digit found in string"):
        read_query(Query, f"amount_sat={text}".encode())


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("1.", 1.0), (".5", 0.5), ("-1e-3", -0.001), ("inf", float("inf"))]
)
def test_floats_are_read(text: str, value: float) -> None:
    assert read_query(Query, f"amount_sat=1&rate={text}".encode()).rate == value


@pytest.mark.parametrize("text", ["1_0", "e5", ".", "0x1p3", "1 "])
def test_other_spellings_of_floats_are_refused(text: str) -> None:
    with pytest.raises(ParameterRejected, match="rate: invalid float literal"):
        read_query(Query, f"amount_sat=1&rate={text.replace(' ', '%20')}".encode())


def test_the_first_problem_decides() -> None:
    with pytest.raises(ParameterRejected, match="all: provided string was not"):
        read_query(Query, b"all=1&rate=x")


def test_path_parameters_are_decoded_once() -> None:
    assert read_path_text("id", "a%253A") == "a%3A"
    assert read_path_u32("index", "%31") == 1
