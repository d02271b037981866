"""Moments in query strings; what is taken and what is refused was asked of a barkd 0.8.0."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.api.timestamps import parse_timestamp


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-06-01T12:00:00Z", datetime(2025, 6, 1, 12, tzinfo=UTC)),
        ("2025-06-01t12:00:00.123456789z", datetime(2025, 6, 1, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2025-06-01T12:00:00.5+02:00", datetime(2025, 6, 1, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2025-06-01T12:00:00-00:30", datetime(2025, 6, 1, 12, 30, tzinfo=UTC)),
        ("2025-06-01T12:00:00-00:00", datetime(2025, 6, 1, 12, tzinfo=UTC)),
        ("2026-01-01T00:00:00+0200", datetime(2025, 12, 31, 22, tzinfo=UTC)),
        ("2026-01-01T00:00:00\N{MINUS SIGN}02:00", datetime(2026, 1, 1, 2, tzinfo=UTC)),
        ("2026-01-01 00:00:00 utc", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-1-1T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        (" 2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("+2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("0000-01-01T00:00:00Z", datetime.min.replace(tzinfo=UTC)),
        ("-2026-01-01T00:00:00Z", datetime.min.replace(tzinfo=UTC)),
        ("0001-01-01T00:00:00+01:00", datetime.min.replace(tzinfo=UTC)),
        ("9999-12-31T23:59:59-01:00", datetime.max.replace(tzinfo=UTC)),
        ("+12026-02-28T00:00:00Z", datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_many_spellings_are_read(text: str, moment: datetime) -> None:
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
        (" ", "premature end of input"),
        ("2025-06", "premature end of input"),
        ("2025-06-01T12:00:00", "premature end of input"),
        ("2025-06-01T12:00:00.", "premature end of input"),
        ("2026-01-01T00:00:00+02", "premature end of input"),
        ("2025-06-01T12:00:00.x", "input contains invalid characters"),
        ("2025-06-01X12:00:00Z", "input contains invalid characters"),
        ("2025-06-01T12:00:00+x1:00", "input contains invalid characters"),
        ("tomorrow", "input contains invalid characters"),
        ("2026-01-01T00:00:00ZZ", "trailing input"),
        ("2025-13-01T12:00:00Z", "input is out of range"),
        ("2025-02-30T12:00:00Z", "input is out of range"),
        ("2025-06-01T12:00:61Z", "input is out of range"),
        ("2026-01-01T00:00:00+24:00", "input is out of range"),
        ("2026-01-01T00:00:00+02:60", "input is out of range"),
        ("+300000-01-01T00:00:00Z", "input is out of range"),
    ],
)
def test_other_timestamps_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        parse_timestamp(text)
