"""JSON request bodies, read the way barkd reads them.

A body is judged against its schema while it is being read, so the first thing that is wrong decides the
answer: text that is no JSON is a 400, JSON of the wrong shape a 422, both as plain text with line and column
(counted in bytes; the column is that of the last byte read, or of the byte that should not be there). Clients
match on these texts, and the strictness matters for money: `1000.0`, `"1000"`, `true` and a key given twice
are all refused.

The schemas are the pydantic models that also make up openapi.json; each is compiled to a reader once.

Source: protocol sheet 07 §1.3.
"""

import enum
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal, Protocol, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)

_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_PLAIN: Final = re.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ESCAPES: Final = {
    ord('"'): '"', ord("\\"): "\\", ord("/"): "/", ord("b"): "\b",
    ord("f"): "\f", ord("n"): "\n", ord("r"): "\r", ord("t"): "\t",
}  # fmt: skip
_U64_MAX: Final = 2**64 - 1
_I64_MIN: Final = -(2**63)
_DEPTH_MAX: Final = 127


class BodyRejected(Exception):
    """The body does not fit. `text` is the whole answer, `status` 400 or 422."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _Problem(Exception):
    """Something is wrong at a place in the text. `path` grows on the way out of the nested readers."""

    def __init__(self, message: str, position: int | None, *, syntax: bool) -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        """Bytes read so far; None until the innermost value that can name its end has been left."""
        self.syntax = syntax
        self.path: list[str] = []


def read_model(model: type[M], body: bytes) -> M:
    """The body as an object of the model. Raises BodyRejected."""
    value = _read(body, _compile_model(model))
    assert isinstance(value, Mapping)
    return model.model_construct(**value)


def read_any(body: bytes) -> object:
    """A body that may be any JSON. Raises BodyRejected."""
    return _read(body, ANY)


def _read(body: bytes, shape: "Shape") -> Any:
    text = _Text(body)
    try:
        value = shape.read(text)
        text.skip_space()
        if text.peek() is not None:
            raise text.problem_here("trailing characters")
    except _Problem as problem:
        raise _rejection(body, problem) from None
    return value


def _rejection(body: bytes, problem: _Problem) -> BodyRejected:
    position = problem.position or 0
    line_start = body.rfind(b"\n", 0, position) + 1
    line = body.count(b"\n", 0, line_start) + 1
    path = _joined(problem.path[::-1])
    where = f"{path}: " if path else ""
    text = f"{where}{problem.message} at line {line} column {position - line_start}"
    if problem.syntax:
        return BodyRejected(400, f"Failed to parse the request body as JSON: {text}")
    return BodyRejected(422, f"Failed to deserialize the JSON body into the target type: {text}")


def _joined(path: list[str]) -> str:
    joined = ""
    for part in path:
        joined += part if part.startswith("[") or not joined else f".{part}"
    return joined


# --- the text -------------------------------------------------------------------------------------------


class _Text:
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

    def problem_here(self, message: str) -> _Problem:
        """The next byte is what is wrong."""
        return _Problem(message, min(len(self.data), self.index + 1), syntax=True)

    def problem_behind(self, message: str) -> _Problem:
        """The last byte read is what is wrong."""
        return _Problem(message, self.index, syntax=True)

    def wrong(self, message: str) -> _Problem:
        """Valid JSON, but not what belongs here; the value has been read."""
        return _Problem(message, self.index, syntax=False)

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
                raise self.problem_behind("control character (\\u0000-\\u001F) found while parsing a string")
            parts.append(self._escape())

    def _bad_utf8(self) -> _Problem:
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
        if fraction is None and exponent is None:
            integer = int(digits) if len(digits) <= 40 else math.inf
            if integer == 0 and digits[0] == 0x2D:
                return -0.0
            if _I64_MIN <= integer <= _U64_MAX:
                return integer
        value = float(digits)
        if math.isinf(value):
            raise self.problem_behind("number out of range")
        return value

    def _broken_number(self) -> _Problem:
        """A point or an exponent without digits."""
        self.index += 1
        if self.data[self.index - 1 : self.index] in (b"e", b"E") and self.peek() in (0x2B, 0x2D):
            self.index += 1
        if self.peek() is None:
            return self.problem_behind("EOF while parsing a value")
        return self.problem_here("invalid number")

    def skip_value(self) -> None:
        """Read past any value; nested as deep as it likes."""
        closers: list[int] = []
        while True:
            byte = self.skip_space()
            if byte == 0x7B or byte == 0x5B:  # { [
                self.index += 1
                closers.append(byte + 2)
                if self.skip_space() != closers[-1]:
                    if closers[-1] == 0x7D:
                        self._skip_key()
                    continue
            else:
                _any_scalar(self, byte)
            while closers:
                byte = self.skip_space()
                closer = closers[-1]
                if byte == closer:
                    self.index += 1
                    closers.pop()
                    continue
                if byte is None:
                    kind = "an object" if closer == 0x7D else "a list"
                    raise self.problem_behind(f"EOF while parsing {kind}")
                if byte != 0x2C:
                    raise self.problem_here(f"expected `,` or `{chr(closer)}`")
                self.index += 1
                if closer == 0x7D:
                    self._skip_key()
                break
            else:
                return

    def _skip_key(self) -> None:
        self.key()
        self.colon()

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


def _any_scalar(text: _Text, byte: int | None) -> object:
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


# --- the shapes -----------------------------------------------------------------------------------------


class Shape(Protocol):
    """What a value must look like."""

    def read(self, text: _Text) -> Any: ...


def _unexpected(text: _Text, expected: str) -> _Problem:
    """The next value is of another kind than the one expected."""
    byte = text.peek()
    if byte == 0x7B:
        return text.wrong(f"invalid type: map, expected {expected}")
    if byte == 0x5B:
        return text.wrong(f"invalid type: sequence, expected {expected}")
    match _any_scalar(text, byte):
        case None:
            found = "null"
        case bool(value):
            found = f"boolean `{str(value).lower()}`"
        case int(value):
            found = f"integer `{value}`"
        case float(value):
            found = f"floating point `{value!r}`"
        case value:
            found = f"string {_quoted(str(value))}"
    return text.wrong(f"invalid type: {found}, expected {expected}")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t").replace("\0", "\\0")
    return f'"{escaped}"'


@dataclass(frozen=True, slots=True)
class _StringShape:
    def read(self, text: _Text) -> str:
        if text.skip_space() == 0x22:
            return text.string()
        raise _unexpected(text, "a string")


@dataclass(frozen=True, slots=True)
class _BoolShape:
    def read(self, text: _Text) -> bool:
        byte = text.skip_space()
        if byte in (0x74, 0x66):
            text.word(b"true" if byte == 0x74 else b"false")
            return byte == 0x74
        raise _unexpected(text, "a boolean")


@dataclass(frozen=True, slots=True)
class _UnsignedShape:
    bits: Literal[32, 64]

    def read(self, text: _Text) -> int:
        byte = text.skip_space()
        if byte is None or not (byte == 0x2D or 0x30 <= byte <= 0x39):
            raise _unexpected(text, f"u{self.bits}")
        value = text.number()
        if isinstance(value, float):
            raise text.wrong(f"invalid type: floating point `{value!r}`, expected u{self.bits}")
        if not 0 <= value < 1 << self.bits:
            raise text.wrong(f"invalid value: integer `{value}`, expected u{self.bits}")
        return value


@dataclass(frozen=True, slots=True)
class _OptionalShape:
    inner: Shape

    def read(self, text: _Text) -> Any:
        if text.skip_space() == 0x6E:
            text.word(b"null")
            return None
        return self.inner.read(text)


@dataclass(frozen=True, slots=True)
class _ListShape:
    item: Shape

    def read(self, text: _Text) -> list[Any]:
        if text.skip_space() != 0x5B:
            raise _unexpected(text, "a sequence")
        text.index += 1
        items: list[Any] = []
        while text.next_in(0x5D, first=not items):
            try:
                items.append(self.item.read(text))
            except _Problem as problem:
                problem.path.append(f"[{len(items)}]")
                raise
        text.index += 1
        return items


@dataclass(frozen=True, slots=True)
class _EnumShape:
    """One of some strings."""

    values: Mapping[str, Any]

    def read(self, text: _Text) -> Any:
        if text.skip_space() != 0x22:
            raise _not_a_variant(text)
        name = text.string()
        if name not in self.values:
            raise text.wrong(_unknown_variant(name, self.values))
        return self.values[name]


@dataclass(frozen=True, slots=True)
class _ChoiceShape:
    """An object with exactly one key, which says what its value is: `{"esplora": {…}}`."""

    variants: Mapping[str, tuple[type[BaseModel], Shape]]

    def read(self, text: _Text) -> BaseModel:
        if text.skip_space() != 0x7B:
            if text.peek() != 0x22:
                raise _not_a_variant(text)
            name = text.string()
            if name not in self.variants:
                raise text.wrong(_unknown_variant(name, self.variants))
            raise text.wrong("invalid type: unit variant, expected newtype variant")
        text.index += 1
        if text.skip_space() == 0x7D:
            raise text.problem_here("expected value")
        name = text.key()
        if name not in self.variants:
            raise text.wrong(_unknown_variant(name, self.variants))
        text.colon()
        model, shape = self.variants[name]
        try:
            value = shape.read(text)
        except _Problem as problem:
            problem.path.append(name)
            raise
        byte = text.skip_space()
        if byte is None:
            raise text.problem_behind("EOF while parsing an object")
        if byte != 0x7D:
            raise text.problem_behind("expected value")
        text.index += 1
        (field_name,) = model.model_fields
        return model.model_construct(**{field_name: value})


def _not_a_variant(text: _Text) -> _Problem:
    if text.peek() is None:
        return text.problem_behind("EOF while parsing a value")
    return text.problem_here("expected value")


def _unknown_variant(name: str, known: Mapping[str, object]) -> str:
    quoted = [f"`{variant}`" for variant in known]
    match quoted:
        case [only]:
            expected = f"expected {only}"
        case [first, second]:
            expected = f"expected {first} or {second}"
        case _:
            expected = f"expected one of {', '.join(quoted)}"
    return f"unknown variant `{name}`, {expected}"


@dataclass(frozen=True, slots=True)
class _Field:
    shape: Shape
    required: bool
    default: Any


@dataclass(frozen=True, slots=True)
class _StructShape:
    """An object with known keys; others are passed over."""

    name: str
    fields: Mapping[str, _Field]
    model: type[BaseModel] | None = None
    """None for the outermost object, which is handed out as a mapping."""

    def read(self, text: _Text) -> Any:
        if text.skip_space() != 0x7B:
            return self._positional(text)
        text.index += 1
        values: dict[str, Any] = {}
        first = True
        while text.next_in(0x7D, first=first):
            first = False
            key = text.key()
            known = self.fields.get(key)
            if known is not None and key in values:
                raise text.wrong(f"duplicate field `{key}`")
            text.colon()
            if known is None:
                text.skip_value()
                continue
            try:
                values[key] = known.shape.read(text)
            except _Problem as problem:
                problem.path.append(key)
                raise
        text.index += 1
        for key, known in self.fields.items():
            if key not in values:
                if known.required:
                    raise text.wrong(f"missing field `{key}`")
                values[key] = known.default
        return values if self.model is None else self.model.model_construct(**values)

    def _positional(self, text: _Text) -> Any:
        """An array of the fields in order, which barkd takes as well."""
        expected = f"struct {self.name}"
        if text.peek() != 0x5B:
            raise _unexpected(text, expected)
        text.index += 1
        values: dict[str, Any] = {}
        for position, (key, known) in enumerate(self.fields.items()):
            if not text.next_in(0x5D, first=position == 0):
                text.index += 1
                count = len(self.fields)
                plural = "element" if count == 1 else "elements"
                raise text.wrong(f"invalid length {position}, expected {expected} with {count} {plural}")
            try:
                values[key] = known.shape.read(text)
            except _Problem as problem:
                problem.path.append(f"[{position}]")
                raise
        if text.next_in(0x5D, first=not self.fields):
            raise text.problem_behind("trailing characters")
        text.index += 1
        return values if self.model is None else self.model.model_construct(**values)


@dataclass(frozen=True, slots=True)
class _AnyShape:
    def read(self, text: _Text) -> Any:
        return self._value(text, 0)

    def _value(self, text: _Text, depth: int) -> Any:
        byte = text.skip_space()
        if byte not in (0x7B, 0x5B):
            return _any_scalar(text, byte)
        if depth >= _DEPTH_MAX:
            raise text.problem_here("recursion limit exceeded")
        text.index += 1
        if byte == 0x5B:
            items: list[Any] = []
            while text.next_in(0x5D, first=not items):
                items.append(self._value(text, depth + 1))
            text.index += 1
            return items
        entries: dict[str, Any] = {}
        first = True
        while text.next_in(0x7D, first=first):
            first = False
            key = text.key()
            text.colon()
            entries[key] = self._value(text, depth + 1)
        text.index += 1
        return entries


ANY: Final[Shape] = _AnyShape()


# --- from model to shape --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unsigned:
    """Marks an integer field with its width: `Annotated[int, Unsigned(64)]`."""

    bits: Literal[32, 64] = field(default=64)


@cache
def _compile_model(model: type[BaseModel]) -> _StructShape:
    return _StructShape(model.__name__, _fields(model))


def _fields(model: type[BaseModel]) -> dict[str, _Field]:
    return {
        info.alias or name: _Field(
            _compile(info.annotation, tuple(info.metadata)),
            info.is_required(),
            None if info.is_required() else info.get_default(call_default_factory=True),
        )
        for name, info in model.model_fields.items()
    }


def _compile(annotation: Any, metadata: tuple[Any, ...]) -> Shape:
    origin = get_origin(annotation)
    if origin in (types.UnionType, Union):
        options = [option for option in get_args(annotation) if option is not type(None)]
        inner = _compile(options[0], metadata) if len(options) == 1 else _choice(options)
        return _OptionalShape(inner) if type(None) in get_args(annotation) else inner
    if hasattr(annotation, "__metadata__"):
        return _compile(annotation.__origin__, (*metadata, *annotation.__metadata__))
    if origin is list:
        return _ListShape(_compile(get_args(annotation)[0], ()))
    if annotation is str:
        return _StringShape()
    if annotation is bool:
        return _BoolShape()
    if annotation is int:
        widths = [mark.bits for mark in metadata if isinstance(mark, Unsigned)]
        return _UnsignedShape(widths[0])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _EnumShape({member.value: member for member in annotation})
    assert isinstance(annotation, type)
    assert issubclass(annotation, BaseModel)
    return _StructShape(annotation.__name__, _fields(annotation), annotation)


def _choice(options: list[Any]) -> _ChoiceShape:
    """A union of models that have one field each: the field's name tells them apart."""
    variants: dict[str, tuple[type[BaseModel], Shape]] = {}
    for option in options:
        ((name, info),) = option.model_fields.items()
        variants[info.alias or name] = (option, _compile(info.annotation, tuple(info.metadata)))
    return _ChoiceShape(variants)
