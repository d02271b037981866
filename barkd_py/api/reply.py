"""An HTTP answer, ready to be sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import to_json

JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """content_type: None for an answer without a body. headers: further ones, names in lower case."""

    status: int = 200
    body: bytes = b""
    content_type: bytes | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()


EMPTY: Final = Reply()


def json_reply(value: object, status: int = 200) -> Reply:
    """Compact JSON; keys stay in the order of the value."""
    return Reply(status, to_json(value), JSON)


def json_bytes_reply(body: bytes) -> Reply:
    """JSON that is rendered already."""
    return Reply(200, body, JSON)


def text_reply(status: int, text: str) -> Reply:
    return Reply(status, text.encode(errors="replace"), TEXT)
