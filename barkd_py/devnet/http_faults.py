"""Faults of the Esplora face on demand, by the same model as those of the Ark server.

An `HttpFault` says which requests are meant (method, and path as a shell pattern such as ``/tx/*``), whether
it strikes before they are served or after (work done, answer lost), what happens, and how often. Without
faults the face is honest.

Source: sheet 10 §14.
"""

import asyncio
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from barkd_py.devnet.armed_faults import ArmedFaults, read_fault
from barkd_py.errors import InvalidInput


class BadHttpFault(InvalidInput):
    """A description of a fault that makes no sense."""


class HttpStage(enum.Enum):
    """When in a request a fault strikes."""

    BEFORE = "before"
    AFTER_COMMIT = "after-commit"


class HttpKind(enum.Enum):
    """What a fault does: an HTTP status, a closed connection, or a wait."""

    ERROR = "error"
    DROP = "drop"
    DELAY = "delay"


@dataclass(frozen=True, slots=True)
class HttpFault:
    """One misbehaviour.

    method: of HTTP, ``*`` for all. skip: matching requests that pass first. count: how many are hit, None for
    all. code, text: of an error. seconds: of a delay.
    """

    path: str
    kind: HttpKind
    stage: HttpStage = HttpStage.BEFORE
    method: str = "*"
    skip: int = 0
    count: int | None = 1
    code: int = 500
    text: str = "fault"
    seconds: float = 0.0

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> "HttpFault":
        """From JSON with the names of the fields. Raises BadHttpFault."""
        try:
            return cls(**read_fault(description, cls, HttpStage, HttpKind))
        except InvalidInput as error:
            raise BadHttpFault(f"invalid fault: {error}") from error

    def matches(self, method: str, path: str, stage: HttpStage) -> bool:
        """Whether a request at a stage is meant."""
        return self.stage is stage and self.method in ("*", method) and fnmatchcase(path, self.path)


class HttpFaults(ArmedFaults[HttpFault]):
    """The faults that are set."""

    def due(self, method: str, path: str, stage: HttpStage) -> tuple[HttpFault, ...]:
        """The faults that strike a request now; counted as struck."""
        return self.take_due(lambda fault: fault.matches(method, path, stage))


class FaultMiddleware:
    """Lets the due faults happen to each request."""

    def __init__(self, app: ASGIApp, faults: HttpFaults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        for fault in self._faults.due(scope["method"], scope["path"], HttpStage.BEFORE):
            if await _strike(fault, scope, receive, send):
                return
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        await self._app(scope, receive, keep)
        for fault in self._faults.due(scope["method"], scope["path"], HttpStage.AFTER_COMMIT):
            if await _strike(fault, scope, receive, send):
                return
        for message in kept:
            await send(message)


async def _strike(fault: HttpFault, scope: Scope, receive: Receive, send: Send) -> bool:
    """Do what a fault says; whether that was the answer."""
    match fault.kind:
        case HttpKind.DELAY:
            await asyncio.sleep(fault.seconds)
            return False
        case HttpKind.DROP:
            # An answer that breaks off: the server can only close the connection then.
            start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]}
            await send(start)
            return True
        case HttpKind.ERROR:
            await PlainTextResponse(fault.text, fault.code)(scope, receive, send)
            return True
