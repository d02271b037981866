"""An HTTP answer, ready to be sent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import to_json

from barkd_py.wallet.rendered_list import RenderedList

JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"


# Answers up to this size are quicker sent at once.
_SHORT_BYTES: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """content_type: None for an answer without a body. headers: further ones, names in lower case."""

    status: int = 200
    body: bytes = b""
    content_type: bytes | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()


@dataclass(frozen=True, slots=True)
class ListReply:
    """A list of things that were rendered to JSON. Sent piece by piece, it is never whole in memory."""

    rendered: RenderedList

    @property
    def size(self) -> int:
        return self.rendered.size + len(b"[]")

    def chunks(self) -> Iterator[bytes]:
        yield b"["
        yield from self.rendered.chunks()
        yield b"]"


EMPTY: Final = Reply()


def json_reply(value: object, status: int = 200) -> Reply:
    """Compact JSON; keys stay in the order of the value."""
    return Reply(status, to_json(value), JSON)


def json_bytes_reply(body: bytes) -> Reply:
    """JSON that is rendered already."""
    return Reply(200, body, JSON)


def list_reply(rendered: RenderedList) -> Reply | ListReply:
    """A list of things that were rendered to JSON."""
    reply = ListReply(rendered)
    if reply.size <= _SHORT_BYTES:
        return json_bytes_reply(b"".join(reply.chunks()))
    return reply


def text_reply(status: int, text: str) -> Reply:
    return Reply(status, text.encode(errors="replace"), TEXT)
