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
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from barkd_py.api.json_shapes import (
    ANY,
    BoolShape,
    ChoiceShape,
    EnumShape,
    Field,
    ListShape,
    OptionalShape,
    Shape,
    StringShape,
    StructShape,
    UnsignedShape,
)
from barkd_py.api.json_text import Problem, Text

M = TypeVar("M", bound=BaseModel)

_VARIANTS: Final = {
    "EsploraConfig": "ChainSourceConfig::Esplora",
    "BitcoindConfig": "ChainSourceConfig::Bitcoind",
    "CookieFile": "BitcoindAuth::Cookie",
    "UserPass": "BitcoindAuth::UserPass",
}


class BodyRejected(Exception):
    """The body does not fit. `text` is the whole answer, `status` 400 or 422."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def read_model(model: type[M], body: bytes) -> M:
    """The body as an object of the model. Raises BodyRejected."""
    value = _read(body, _compile_model(model))
    assert isinstance(value, Mapping)
    return model.model_construct(**value)


def read_any(body: bytes) -> object:
    """A body that may be any JSON. Raises BodyRejected."""
    return _read(body, ANY)


def _read(body: bytes, shape: "Shape") -> Any:
    text = Text(body)
    try:
        value = shape.read(text)
        text.skip_space()
        if text.peek() is not None:
            raise text.problem_here("trailing characters")
    except Problem as problem:
        raise _rejection(body, problem) from None
    return value


def _rejection(body: bytes, problem: Problem) -> BodyRejected:
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


@dataclass(frozen=True, slots=True)
class Unsigned:
    """Marks an integer field with its width: `Annotated[int, Unsigned(64)]`."""

    bits: Literal[32, 64] = field(default=64)


@dataclass(frozen=True, slots=True)
class MayEnd:
    """Marks a field that an array of the fields in their order may end before."""


@cache
def _compile_model(model: type[BaseModel]) -> StructShape:
    return StructShape(f"struct {model.__name__}", _fields(model))


def _fields(model: type[BaseModel]) -> dict[str, Field]:
    return {
        info.alias or name: Field(
            _compile(info.annotation, tuple(info.metadata)),
            info.is_required(),
            None if info.is_required() else info.get_default(call_default_factory=True),
            any(isinstance(mark, MayEnd) for mark in info.metadata),
        )
        for name, info in model.model_fields.items()
    }


def _compile(annotation: Any, metadata: tuple[Any, ...]) -> Shape:
    origin = get_origin(annotation)
    if origin in (types.UnionType, Union):
        options = [option for option in get_args(annotation) if option is not type(None)]
        inner = _compile(options[0], metadata) if len(options) == 1 else _choice(options)
        return OptionalShape(inner) if type(None) in get_args(annotation) else inner
    if hasattr(annotation, "__metadata__"):
        return _compile(annotation.__origin__, (*metadata, *annotation.__metadata__))
    if origin is list:
        return ListShape(_compile(get_args(annotation)[0], ()))
    if annotation is str:
        return StringShape()
    if annotation is bool:
        return BoolShape()
    if annotation is int:
        widths = [mark.bits for mark in metadata if isinstance(mark, Unsigned)]
        return UnsignedShape(widths[0])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return EnumShape({member.value: member for member in annotation})
    assert isinstance(annotation, type)
    assert issubclass(annotation, BaseModel)
    return StructShape(_called(annotation), _fields(annotation), annotation)


def _called(model: type[BaseModel]) -> str:
    """What barkd calls a part of a body: alternatives are named after the choice."""
    name = model.__name__
    return f"struct variant {_VARIANTS[name]}" if name in _VARIANTS else f"struct {name}"


def _choice(options: list[Any]) -> ChoiceShape:
    """A union of models that have one field each: the field's name tells them apart."""
    variants: dict[str, tuple[type[BaseModel], Shape]] = {}
    for option in options:
        ((name, info),) = option.model_fields.items()
        variants[info.alias or name] = (option, _compile(info.annotation, tuple(info.metadata)))
    return ChoiceShape(variants)
