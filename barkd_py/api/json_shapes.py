"""What a JSON value must look like: each shape reads one, or says what is wrong with it.

The first thing that is wrong decides. A number has to be one (`1000.0`, `"1000"` and `true` are not), and a
key may come once. Source: protocol sheet 07 §1.3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, Protocol

from pydantic import BaseModel

from barkd_py.api.json_text import Problem, Text, any_scalar

_DEPTH_MAX: Final = 127


class Shape(Protocol):
    """What a value must look like."""

    def read(self, text: Text) -> Any: ...


def _unexpected(text: Text, expected: str) -> Problem:
    """The next value is of another kind than the one expected."""
    byte = text.peek()
    if byte == 0x7B:
        return text.wrong(f"invalid type: map, expected {expected}")
    if byte == 0x5B:
        return text.wrong(f"invalid type: sequence, expected {expected}")
    match any_scalar(text, byte):
        case None:
            found = "null"
        case bool(value):
            found = f"boolean `{str(value).lower()}`"
        case int(value):
            found = f"integer `{value}`"
        case float(value):
            found = f"floating point `{_float_text(value)}`"
        case value:
            found = f"string {_quoted(str(value))}"
    return text.wrong(f"invalid type: {found}, expected {expected}")


def _float_text(value: float) -> str:
    """The shortest, with an exponent where barkd writes one: `0.00001`, `1e-6`, `1e+16`."""
    text = repr(value)
    if text.endswith("e-05"):
        return f"{Decimal(text):f}"
    return text.replace("e-0", "e-")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t").replace("\0", "\\0")
    return f'"{escaped}"'


@dataclass(frozen=True, slots=True)
class StringShape:
    def read(self, text: Text) -> str:
        if text.skip_space() == 0x22:
            return text.string()
        raise _unexpected(text, "a string")


@dataclass(frozen=True, slots=True)
class BoolShape:
    def read(self, text: Text) -> bool:
        byte = text.skip_space()
        if byte in (0x74, 0x66):
            text.word(b"true" if byte == 0x74 else b"false")
            return byte == 0x74
        raise _unexpected(text, "a boolean")


@dataclass(frozen=True, slots=True)
class UnsignedShape:
    bits: Literal[32, 64]

    def read(self, text: Text) -> int:
        byte = text.skip_space()
        if byte is None or not (byte == 0x2D or 0x30 <= byte <= 0x39):
            raise _unexpected(text, f"u{self.bits}")
        value = text.number()
        if isinstance(value, float):
            raise text.wrong(f"invalid type: floating point `{_float_text(value)}`, expected u{self.bits}")
        if not 0 <= value < 1 << self.bits:
            raise text.wrong(f"invalid value: integer `{value}`, expected u{self.bits}")
        return value


@dataclass(frozen=True, slots=True)
class OptionalShape:
    inner: Shape

    def read(self, text: Text) -> Any:
        if text.skip_space() == 0x6E:
            text.word(b"null")
            return None
        return self.inner.read(text)


@dataclass(frozen=True, slots=True)
class ListShape:
    item: Shape

    def read(self, text: Text) -> list[Any]:
        if text.skip_space() != 0x5B:
            raise _unexpected(text, "a sequence")
        text.index += 1
        items: list[Any] = []
        while text.next_in(0x5D, first=not items):
            try:
                items.append(self.item.read(text))
            except Problem as problem:
                problem.path.append(f"[{len(items)}]")
                raise
        text.index += 1
        return items


@dataclass(frozen=True, slots=True)
class EnumShape:
    """One of some strings; or an object with that string as its only key, and null as its value."""

    values: Mapping[str, Any]

    def read(self, text: Text) -> Any:
        byte = text.skip_space()
        if byte == 0x7B:
            return _only_entry(text, self.values, self._nothing)
        if byte != 0x22:
            raise _not_a_variant(text)
        name = text.string()
        if name not in self.values:
            raise text.wrong(_unknown_variant(name, self.values))
        return self.values[name]

    def _nothing(self, name: str, text: Text) -> Any:
        if text.skip_space() != 0x6E:
            raise _unexpected(text, "unit")
        text.word(b"null")
        return self.values[name]


@dataclass(frozen=True, slots=True)
class ChoiceShape:
    """An object with exactly one key, which says what its value is: `{"esplora": {…}}`."""

    variants: Mapping[str, tuple[type[BaseModel], Shape]]

    def read(self, text: Text) -> BaseModel:
        if text.skip_space() != 0x7B:
            if text.peek() != 0x22:
                raise _not_a_variant(text)
            name = text.string()
            if name not in self.variants:
                raise text.wrong(_unknown_variant(name, self.variants))
            if text.skip_space() == 0x7D:  # the place that is named is behind the object that this is in
                text.index += 1
            problem = text.wrong("invalid type: unit variant, expected struct variant")
            problem.path.append(name)
            raise problem
        chosen: BaseModel = _only_entry(text, self.variants, self._variant)
        return chosen

    def _variant(self, name: str, text: Text) -> Any:
        model, shape = self.variants[name]
        (field_name,) = model.model_fields
        return model.model_construct(**{field_name: shape.read(text)})


def _only_entry(text: Text, known: Mapping[str, object], read: Callable[[str, Text], Any]) -> Any:
    """An object with one key, of which the brace has been seen. read: its value."""
    text.index += 1
    if text.skip_space() == 0x7D:
        raise text.problem_here("expected value")
    name = text.key()
    if name not in known:
        raise text.wrong(_unknown_variant(name, known))
    text.colon()
    try:
        value = read(name, text)
    except Problem as problem:
        problem.path.append(name)
        raise
    byte = text.skip_space()
    if byte is None:
        raise text.problem_behind("EOF while parsing an object")
    if byte != 0x7D:
        raise text.problem_behind("expected value")
    text.index += 1
    return value


def _not_a_variant(text: Text) -> Problem:
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
class Field:
    shape: Shape
    required: bool
    default: Any
    may_end: bool
    """Whether an array of the fields in order may end before this one."""


@dataclass(frozen=True, slots=True)
class StructShape:
    """An object with known keys; others are passed over.

    name: what complaints call it, `struct Name`.
    """

    name: str
    fields: Mapping[str, Field]
    model: type[BaseModel] | None = None
    """None for the outermost object, which is handed out as a mapping."""

    def read(self, text: Text) -> Any:
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
            try:
                if known is None:
                    text.skip_value()
                else:
                    values[key] = known.shape.read(text)
            except Problem as problem:
                problem.path.append(key)
                raise
        text.index += 1
        for key, known in self.fields.items():
            if key not in values:
                if known.required:
                    raise text.wrong(f"missing field `{key}`")
                values[key] = known.default
        return values if self.model is None else self.model.model_construct(**values)

    def _positional(self, text: Text) -> Any:
        """An array of the fields in order, which barkd takes as well."""
        expected = self.name
        if text.peek() != 0x5B:
            raise _unexpected(text, expected)
        text.index += 1
        values: dict[str, Any] = {}
        for position, (key, known) in enumerate(self.fields.items()):
            if not text.next_in(0x5D, first=position == 0):
                text.index += 1
                left_out = {key: known for key, known in self.fields.items() if key not in values}
                if all(known.may_end for known in left_out.values()):
                    values |= {key: known.default for key, known in left_out.items()}
                    return values if self.model is None else self.model.model_construct(**values)
                count = len(self.fields)
                plural = "element" if count == 1 else "elements"
                raise text.wrong(f"invalid length {position}, expected {expected} with {count} {plural}")
            try:
                values[key] = known.shape.read(text)
            except Problem as problem:
                problem.path.append(f"[{position}]")
                raise
        if text.next_in(0x5D, first=not self.fields):
            raise text.problem_here("trailing characters")
        text.index += 1
        return values if self.model is None else self.model.model_construct(**values)


@dataclass(frozen=True, slots=True)
class AnyShape:
    def read(self, text: Text) -> Any:
        return self._value(text, 0)

    def _value(self, text: Text, depth: int) -> Any:
        byte = text.skip_space()
        if byte not in (0x7B, 0x5B):
            return any_scalar(text, byte)
        if depth >= _DEPTH_MAX:
            raise text.problem_here("recursion limit exceeded")
        text.index += 1
        if byte == 0x5B:
            items: list[Any] = []
            while text.next_in(0x5D, first=not items):
                items.append(self._at(f"[{len(items)}]", text, depth + 1))
            text.index += 1
            return items
        entries: dict[str, Any] = {}
        first = True
        while text.next_in(0x7D, first=first):
            first = False
            key = text.key()
            text.colon()
            entries[key] = self._at(key, text, depth + 1)
        text.index += 1
        return entries

    def _at(self, place: str, text: Text, depth: int) -> Any:
        try:
            return self._value(text, depth)
        except Problem as problem:
            problem.path.append(place)
            raise


ANY: Final[Shape] = AnyShape()
