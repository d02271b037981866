"""Query strings and path parameters."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from barkd_py.api.json_body import Unsigned
from barkd_py.api.params import (
    ParameterRejected,
    parse_timestamp,
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


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-06-01T12:00:00Z", datetime(2025, 6, 1, 12, tzinfo=UTC)),
        ("2025-06-01t12:00:00.123456789z", datetime(2025, 6, 1, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2025-06-01T12:00:00.5+02:00", datetime(2025, 6, 1, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2025-06-01T12:00:00-00:30", datetime(2025, 6, 1, 12, 30, tzinfo=UTC)),
    ],
)
def test_timestamps_are_read_in_any_offset(text: str, moment: datetime) -> None:
    assert parse_timestamp(text) == moment


@given(
    st.datetimes(min_value=datetime(1000, 1, 2), max_value=datetime(9999, 1, 1)),  # noqa: DTZ001
    st.integers(-23 * 60, 23 * 60),
)
def test_a_timestamp_in_any_offset_is_the_same_moment(local: datetime, minutes: int) -> None:
    moment = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_timestamp(moment.isoformat()) == moment


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "premature end of input"),
        ("2025-06", "premature end of input"),
        ("2025-06-01T12:00:00", "input contains invalid characters"),
        ("2025-13-01T12:00:00Z", "input is out of range"),
        ("tomorrow", "input contains invalid characters"),
    ],
)
def test_other_timestamps_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_timestamp(text)


def test_path_parameters_are_decoded_once() -> None:
    assert read_path_text("id", "a%253A") == "a%3A"
    assert read_path_u32("index", "%31") == 1
