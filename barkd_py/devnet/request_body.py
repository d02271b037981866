"""Reading the JSON bodies of devnet's levers. Everything raises InvalidInput, which answers 400."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from starlette.requests import Request

from barkd_py.errors import InvalidInput


async def json_body(request: Request, known: Collection[str] | None = None) -> Mapping[str, Any]:
    """The JSON object of a request; nothing is an empty one. Raises InvalidInput.

    known: the keys that it may have; None if the caller looks at them.
    """
    raw = await request.body()
    try:
        value = json.loads(raw) if raw else {}
    except ValueError as error:
        raise InvalidInput("the body is not JSON") from error
    if not isinstance(value, dict):
        raise InvalidInput("the body is not a JSON object")
    if known is not None:
        refuse_unknown(value, known)
    return value


def refuse_unknown(body: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises InvalidInput for a key that nobody reads; it would be a wish that is not heard."""
    for name in body:
        if name not in known:
            raise InvalidInput(f"unknown key {name!r}; there are: {', '.join(known)}")


def integer(body: Mapping[str, Any], name: str, *, maximum: int, default: int | None = None) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
        raise InvalidInput(f"{name} must be a number from 1 to {maximum}")
    return value


def number(body: Mapping[str, Any], name: str) -> float:
    value = body.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidInput(f"{name} must be a number")
    return float(value)


def text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a text")
    return value
