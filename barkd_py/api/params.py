"""Query strings and path parameters, read the way barkd reads them.

Strict where FastAPI is lenient: a boolean is `true` or `false`, a known key may come once, a number has no
blanks and no underscores. Source: protocol sheet 07 §1.3.
"""

import datetime
import re
import types
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote, unquote_to_bytes

from pydantic import BaseModel

from barkd_py.api.json_body import Unsigned
from barkd_py.api.timestamps import parse_timestamp

M = TypeVar("M", bound=BaseModel)

_FLOAT: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|infinity|nan)", re.I
)


class ParameterRejected(Exception):
    """A query string or path parameter cannot be read; always a 400. `text` is the whole answer."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


# --- values


def parse_unsigned(text: str, bits: int) -> int:
    """Decimal digits, a leading plus allowed. Raises ValueError with the text for clients."""
    if not text:
        raise ValueError("cannot parse integer from empty string")
    digits = text[1:] if text[0] == "+" else text
    if not digits or not digits.isascii() or not digits.isdigit():
        raise ValueError("invalid digit found in string")
    # Zeros before the number do not count, however many: Python reads 4300 digits at most.
    digits = digits.lstrip("0") or "0"
    if len(digits) > 20 or (value := int(digits)) >= 1 << bits:
        raise ValueError("number too large to fit in target type")
    return value


def parse_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("provided string was not `true` or `false`")
    return text == "true"


def parse_float(text: str) -> float:
    if not text:
        raise ValueError("cannot parse float from empty string")
    if _FLOAT.fullmatch(text) is None:
        raise ValueError("invalid float literal")
    return float(text)


# --- the query


@dataclass(frozen=True, slots=True)
class _QueryField:
    kind: Any
    bits: int
    required: bool
    default: Any


def read_query(model: type[M], query: bytes) -> M:
    """The query string as an object of the model. Raises ParameterRejected."""
    fields = _query_fields(model)
    values: dict[str, Any] = {}
    for name, text in query_pairs(query):
        field = fields.get(name)
        if field is None:
            continue
        if name in values:
            raise _query_rejected(f"duplicate field `{name}`")
        try:
            values[name] = _parse(field, text)
        except ValueError as error:
            raise _query_rejected(f"{name}: {error}") from None
    for name, field in fields.items():
        if name not in values:
            if field.required:
                raise _query_rejected(f"missing field `{name}`")
            values[name] = field.default
    return model.model_construct(**values)


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    pairs = []
    for part in query.split(b"&"):
        if part:
            name, _, value = part.decode("latin-1").replace("+", " ").partition("=")
            pairs.append((_decoded(name), _decoded(value)))
    return pairs


def _decoded(text: str) -> str:
    return unquote(text, errors="replace") if "%" in text else text.encode("latin-1").decode(errors="replace")


def _query_rejected(text: str) -> ParameterRejected:
    return ParameterRejected(f"Failed to deserialize query string: {text}")


def _parse(field: _QueryField, text: str) -> Any:
    if field.kind is str:
        return text
    if field.kind is bool:
        return parse_boolean(text)
    if field.kind is int:
        return parse_unsigned(text, field.bits)
    if field.kind is float:
        return parse_float(text)
    assert field.kind is datetime.datetime
    return parse_timestamp(text)


@cache
def _query_fields(model: type[BaseModel]) -> dict[str, _QueryField]:
    fields = {}
    for name, info in model.model_fields.items():
        kind: Any = info.annotation
        metadata = list(info.metadata)
        if get_origin(kind) in (types.UnionType, Union):
            (kind,) = (option for option in get_args(kind) if option is not type(None))
        if hasattr(kind, "__metadata__"):
            metadata += kind.__metadata__
            kind = kind.__origin__
        bits = next((mark.bits for mark in metadata if isinstance(mark, Unsigned)), 64)
        default = None if info.is_required() else info.get_default()
        fields[name] = _QueryField(kind, bits, info.is_required(), default)
    return fields


# --- the path


def read_path_text(name: str, raw: str) -> str:
    """A path parameter as text. Raises ParameterRejected."""
    if "%" not in raw:
        return raw
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise ParameterRejected(f"Invalid URL: Invalid UTF-8 in `{name}`") from None


def read_path_u32(name: str, raw: str) -> int:
    """A path parameter as a 32-bit number. Raises ParameterRejected."""
    text = read_path_text(name, raw)
    try:
        return parse_unsigned(text, 32)
    except ValueError:
        raise ParameterRejected(f"Invalid URL: Cannot parse `{text}` to a `u32`") from None
