"""Moments in query strings, read as barkd's time library (chrono) reads them.

RFC 3339, and more: blanks between the parts, fewer digits, a sign before the year (which may then have any
number of digits), no colon in the offset, `UTC` for it, and the sixtieth second, for a leap second. The first
thing that is wrong decides.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_TOO_SHORT: Final = "premature end of input"
_TOO_LONG: Final = "trailing input"
_INVALID: Final = "input contains invalid characters"
_OUT_OF_RANGE: Final = "input is out of range"

_YEARS: Final = range(-262_143, 262_143)
_DIGITS: Final = re.compile("[0-9]*")
_FOREVER: Final = 2**31
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


def parse_timestamp(text: str) -> datetime:
    """The moment, to the microsecond, in UTC. One beyond the years 1 to 9999 is the first or last of these.

    Raises ValueError with the text for clients.
    """
    rest = _Rest(text)
    year = rest.year()
    rest.literal("-")
    month = rest.number(1, 2, range(1, 13))
    rest.literal("-")
    day = rest.number(1, 2, range(1, 32))
    rest.separator()
    hour = rest.number(1, 2, range(24))
    rest.literal(":")
    minute = rest.number(1, 2, range(60))
    rest.literal(":")
    second = rest.number(1, 2, range(61))
    microsecond = rest.fraction()
    offset = rest.offset()
    rest.end()
    return _moment(year, (month, day, hour, minute, second, microsecond), offset)


def _moment(year: int, rest: tuple[int, int, int, int, int, int], offset: timedelta) -> datetime:
    month, day, hour, minute, second, microsecond = rest
    if year not in _YEARS:
        raise ValueError(_OUT_OF_RANGE)
    if second == 60:  # the end of the minute
        second, microsecond = 59, 999_999
    # The calendar repeats itself after four hundred years.
    within = year if 1 <= year <= 9999 else 2000 + year % 400
    try:
        local = datetime(within, month, day, hour, minute, second, microsecond, UTC)
    except ValueError:
        raise ValueError(_OUT_OF_RANGE) from None
    if abs(offset) >= timedelta(days=1):
        raise ValueError(_OUT_OF_RANGE)
    if within != year:
        return _EARLIEST if year < 1 else _LATEST
    try:
        return local - offset
    except OverflowError:
        return _EARLIEST if year == 1 else _LATEST


@dataclass(slots=True)
class _Rest:
    """What is still to be read."""

    text: str

    def year(self) -> int:
        self._skip_space()
        sign = self.text[:1]
        if sign in ("+", "-") and sign:
            self.text = self.text[1:]
            value = self.number(1, 19, range(_FOREVER), after_space=False)
            return -value if sign == "-" else value
        return self.number(1, 4, range(10_000))

    def number(self, least: int, most: int, allowed: range, *, after_space: bool = True) -> int:
        if after_space:
            self._skip_space()
        if len(self.text) < least:
            raise ValueError(_TOO_SHORT)
        match = _DIGITS.match(self.text[:most])
        assert match is not None
        digits = match[0]
        if len(digits) < least:
            raise ValueError(_INVALID)
        self.text = self.text[len(digits) :]
        if int(digits) not in allowed:
            raise ValueError(_OUT_OF_RANGE)
        return int(digits)

    def literal(self, character: str) -> None:
        self._skip_space()
        if not self.text:
            raise ValueError(_TOO_SHORT)
        if self.text[0] != character:
            raise ValueError(_INVALID)
        self.text = self.text[1:]

    def separator(self) -> None:
        """Between date and time."""
        if not self.text:
            raise ValueError(_TOO_SHORT)
        if self.text[0] not in "tT ":
            raise ValueError(_INVALID)
        self.text = self.text[1:]

    def fraction(self) -> int:
        """In microseconds; further digits are dropped."""
        if not self.text.startswith("."):
            return 0
        self.text = self.text[1:]
        if not self.text:
            raise ValueError(_TOO_SHORT)
        match = _DIGITS.match(self.text)
        assert match is not None
        if not match[0]:
            raise ValueError(_INVALID)
        self.text = self.text[match.end() :]
        return int((match[0] + "000000")[:6])

    def offset(self) -> timedelta:
        self._skip_space()
        if self.text[:3].upper() == "UTC":
            self.text = self.text[3:]
            return timedelta()
        if self.text[:1] in ("Z", "z") and self.text:
            self.text = self.text[1:]
            return timedelta()
        if not self.text:
            raise ValueError(_TOO_SHORT)
        sign = self.text[0]
        if sign not in "+-\N{MINUS SIGN}":
            raise ValueError(_INVALID)
        self.text = self.text[1:]
        hours = self._two_digits()
        self.text = re.sub(r"\A[:\s]+", "", self.text)
        minutes = self._two_digits()
        if minutes >= 60:
            raise ValueError(_OUT_OF_RANGE)
        offset = timedelta(hours=hours, minutes=minutes)
        return offset if sign == "+" else -offset

    def _two_digits(self) -> int:
        if len(self.text.encode()) < 2:
            raise ValueError(_TOO_SHORT)
        if re.match("[0-9]{2}", self.text) is None:
            raise ValueError(_INVALID)
        value = int(self.text[:2])
        self.text = self.text[2:]
        return value

    def end(self) -> None:
        self._skip_space()
        if self.text:
            raise ValueError(_TOO_LONG)

    def _skip_space(self) -> None:
        self.text = self.text.lstrip()
