"""JSON as text that is read step by step, with the complaints of barkd's reader.

Line and column of a complaint are counted in bytes; the column is that of the last byte read, or of the byte
that should not be there. Source: protocol sheet 07 §1.3.
"""

import math
import re
from typing import Final

_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_PLAIN: Final = re.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ESCAPES: Final = {
    ord('"'): '"', ord("\\"): "\\", ord("/"): "/", ord("b"): "\b",
    ord("f"): "\f", ord("n"): "\n", ord("r"): "\r", ord("t"): "\t",
}  # fmt: skip
_CONTROL_CHARACTER: Final = "control character (\\u0000-\\u001F) found while parsing a string"
_U64_MAX: Final = 2**64 - 1
_I64_MIN: Final = -(2**63)


class Problem(Exception):
    """Something is wrong at a place in the text. `path` grows on the way out of the nested readers."""

    def __init__(self, message: str, position: int | None, *, syntax: bool) -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        """Bytes read so far; None until the innermost value that can name its end has been left."""
        self.syntax = syntax
        self.path: list[str] = []


class Text:
    """The body and how far it has been read."""

    __slots__ = ("data", "index")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.index = 0

    def peek(self) -> int | None:
        return self.data[self.index] if self.index < len(self.data) else None

    def skip_space(self) -> int | None:
        match = _SPACE.match(self.data, self.index)
        assert match is not None
        self.index = match.end()
        return self.peek()

    def problem_here(self, message: str) -> Problem:
        """The next byte is what is wrong."""
        return Problem(message, min(len(self.data), self.index + 1), syntax=True)

    def problem_behind(self, message: str) -> Problem:
        """The last byte read is what is wrong."""
        return Problem(message, self.index, syntax=True)

    def wrong(self, message: str) -> Problem:
        """Valid JSON, but not what belongs here; the value has been read."""
        return Problem(message, self.index, syntax=False)

    def word(self, word: bytes) -> None:
        """Read one of the literals, of which the first byte has been seen."""
        self.index += 1
        for expected in word[1:]:
            byte = self.peek()
            if byte is None:
                raise self.problem_behind("EOF while parsing a value")
            self.index += 1
            if byte != expected:
                raise self.problem_behind("expected ident")

    def string(self) -> str:
        """Read a string, of which the opening quote has been seen."""
        self.index += 1
        parts: list[str] = []
        while True:
            match = _PLAIN.match(self.data, self.index)
            assert match is not None
            plain = match.group()
            self.index = match.end()
            try:
                parts.append(plain.decode())
            except UnicodeDecodeError:
                raise self._bad_utf8() from None
            byte = self.peek()
            if byte is None:
                raise self.problem_behind("EOF while parsing a string")
            if byte == 0x22:
                self.index += 1
                return "".join(parts)
            self.index += 1
            if byte != 0x5C:
                raise self.problem_behind(_CONTROL_CHARACTER)
            parts.append(self._escape())

    def _bad_utf8(self) -> Problem:
        """The text is looked at when its end has been found."""
        while (byte := self.peek()) is not None and byte != 0x22:
            self.index += 2 if byte == 0x5C else 1
        return self.problem_behind("invalid unicode code point")

    def _escape(self) -> str:
        byte = self.peek()
        if byte is None:
            raise self.problem_behind("EOF while parsing a string")
        self.index += 1
        if byte != ord("u"):
            if byte not in _ESCAPES:
                raise self.problem_behind("invalid escape")
            return _ESCAPES[byte]
        first = self._hex4()
        if 0xDC00 <= first <= 0xDFFF:
            raise self.problem_behind("lone leading surrogate in hex escape")
        if not 0xD800 <= first <= 0xDBFF:
            return chr(first)
        for expected in b"\\u":
            byte = self.peek()
            if byte is None:
                raise self.problem_behind("EOF while parsing a string")
            self.index += 1
            if byte != expected:
                raise self.problem_behind("unexpected end of hex escape")
        second = self._hex4()
        if not 0xDC00 <= second <= 0xDFFF:
            raise self.problem_behind("lone leading surrogate in hex escape")
        return chr(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))

    def _hex4(self) -> int:
        digits = self.data[self.index : self.index + 4]
        if len(digits) < 4:
            self.index = len(self.data)
            raise self.problem_behind("EOF while parsing a string")
        self.index += 4
        if re.fullmatch(rb"[0-9a-fA-F]{4}", digits) is None:
            raise self.problem_behind("invalid escape")
        return int(digits, 16)

    def number(self) -> int | float:
        """Read a number, of which the first byte has been seen. An integer beyond 64 bits is a float."""
        digits, is_integer = self._skip_number()
        if is_integer:
            integer = int(digits) if len(digits) <= 40 else math.inf
            if integer == 0 and digits[0] == 0x2D:
                return -0.0
            if _I64_MIN <= integer <= _U64_MAX:
                return integer
        value = float(digits)
        if math.isinf(value):
            raise self.problem_behind("number out of range")
        return value

    def _skip_number(self) -> tuple[bytes, bool]:
        """Its text, and whether it has neither a fraction nor an exponent."""
        match = _NUMBER.match(self.data, self.index)
        if match is None:  # a minus sign and no digit
            self.index += 1
            byte = self.peek()
            if byte is None:
                raise self.problem_behind("EOF while parsing a value")
            self.index += 1
            raise self.problem_behind("invalid number")
        self.index = match.end()
        byte = self.peek()
        digits = match.group()
        fraction, exponent = match.groups()
        if digits in (b"0", b"-0") and byte is not None and byte in b"0123456789":
            raise self.problem_here("invalid number")
        if exponent is None and byte is not None and byte in (b"eE" if fraction else b"eE."):
            raise self._broken_number()
        return digits, fraction is None and exponent is None

    def _broken_number(self) -> Problem:
        """A point or an exponent without digits."""
        self.index += 1
        if self.data[self.index - 1 : self.index] in (b"e", b"E") and self.peek() in (0x2B, 0x2D):
            self.index += 1
        if self.peek() is None:
            return self.problem_behind("EOF while parsing a value")
        return self.problem_here("invalid number")

    def skip_value(self) -> None:
        """Read past any value; nested as deep as it likes.

        It only has to be well-formed: a number may be of any size, and half a character may be escaped.
        """
        closers: list[int] = []
        while True:
            byte = self.skip_space()
            if byte == 0x7B or byte == 0x5B:  # { [
                self.index += 1
                closers.append(byte + 2)
                following = self.skip_space()
                if following is None:
                    raise self._ended_in(closers[-1])
                if following != closers[-1]:
                    if closers[-1] == 0x7D:
                        self._skip_key()
                    continue
            elif byte == 0x22:
                self._skip_string()
            elif byte is not None and (byte == 0x2D or 0x30 <= byte <= 0x39):
                self._skip_number()
            else:
                any_scalar(self, byte)
            while closers:
                byte = self.skip_space()
                closer = closers[-1]
                if byte == closer:
                    self.index += 1
                    closers.pop()
                    continue
                if byte is None:
                    raise self._ended_in(closer)
                if byte != 0x2C:
                    raise self.problem_here(f"expected `,` or `{chr(closer)}`")
                self.index += 1
                if closer == 0x7D:
                    self._skip_key()
                break
            else:
                return

    def _skip_key(self) -> None:
        byte = self.skip_space()
        if byte is None:
            raise self._ended_in(0x7D)
        if byte != 0x22:
            raise self.problem_here("key must be a string")
        self._skip_string()
        self.colon()

    def _skip_string(self) -> None:
        self.index += 1
        while True:
            match = _PLAIN.match(self.data, self.index)
            assert match is not None
            self.index = match.end()
            byte = self.peek()
            if byte is None:
                raise self.problem_behind("EOF while parsing a string")
            self.index += 1
            if byte == 0x22:
                return
            if byte != 0x5C:
                raise self.problem_behind(_CONTROL_CHARACTER)
            byte = self.peek()
            if byte is None:
                raise self.problem_behind("EOF while parsing a string")
            self.index += 1
            if byte == ord("u"):
                self._hex4()
            elif byte not in _ESCAPES:
                raise self.problem_behind("invalid escape")

    def _ended_in(self, closer: int) -> Problem:
        kind = "an object" if closer == 0x7D else "a list"
        return self.problem_behind(f"EOF while parsing {kind}")

    def key(self) -> str:
        """Read the key of an object's entry."""
        byte = self.skip_space()
        if byte is None:
            raise self.problem_behind("EOF while parsing an object")
        if byte == 0x7D:
            raise self.problem_here("trailing comma")
        if byte != 0x22:
            raise self.problem_here("key must be a string")
        return self.string()

    def colon(self) -> None:
        byte = self.skip_space()
        if byte is None:
            raise self.problem_behind("EOF while parsing an object")
        if byte != 0x3A:
            raise self.problem_here("expected `:`")
        self.index += 1

    def next_in(self, closer: int, *, first: bool) -> bool:
        """Step to the next entry of an object or a list; False at its end, which is not read."""
        kind = "an object" if closer == 0x7D else "a list"
        byte = self.skip_space()
        if byte is None:
            raise self.problem_behind(f"EOF while parsing {kind}")
        if byte == closer:
            return False
        if first:
            return True
        if byte != 0x2C:
            raise self.problem_here(f"expected `,` or `{chr(closer)}`")
        self.index += 1
        byte = self.skip_space()
        if byte is None:
            raise self.problem_behind("EOF while parsing a value")
        if byte == closer and closer == 0x5D:
            raise self.problem_here("trailing comma")
        return True


def any_scalar(text: Text, byte: int | None) -> object:
    """Read a string, number or literal."""
    match byte:
        case None:
            raise text.problem_behind("EOF while parsing a value")
        case 0x22:
            return text.string()
        case 0x6E:
            text.word(b"null")
            return None
        case 0x74:
            text.word(b"true")
            return True
        case 0x66:
            text.word(b"false")
            return False
        case _ if byte == 0x2D or 0x30 <= byte <= 0x39:
            return text.number()
        case _:
            raise text.problem_here("expected value")
