"""What the repositories share: statements over many ids, and JSON as it is stored."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from barkd_py.errors import StoreError

# PostgreSQL takes at most 32,767 parameters in one statement, SQLite as many.
CHUNK = 5_000

_T = TypeVar("_T")


def chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """The items in runs that fit into one statement."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def to_json(value: Any) -> str:
    """JSON as stored: ASCII only, since PostgreSQL refuses some characters, and no white space."""
    return json.dumps(value, separators=(",", ":"))


def from_json(text: str) -> Any:
    if text == "{}":  # the metadata of most movements; parsing it takes as long as reading the row
        return {}
    try:
        return json.loads(text)
    except ValueError as error:
        raise StoreError("the database holds malformed JSON") from error
