"""Faults of the Esplora face on demand, by the same model as those of the Ark server.

An `HttpFault` says which requests are meant (method, and path as a shell pattern such as ``/tx/*``), whether
it strikes before they are served or after (work done, answer lost), what happens, and how often. Without
faults the face is honest.

Source: sheet 10 §14.
"""

import asyncio
import enum
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
        fields = dict(description)
        try:
            stage, kind = HttpStage(fields.pop("stage", "before")), HttpKind(fields.pop("kind"))
            return cls(stage=stage, kind=kind, **fields)
        except (KeyError, TypeError, ValueError) as error:
            raise BadHttpFault(f"invalid fault: {error}") from error

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "stage": self.stage.value, "kind": self.kind.value}

    def matches(self, method: str, path: str, stage: HttpStage) -> bool:
        """Whether a request at a stage is meant."""
        return self.stage is stage and self.method in ("*", method) and fnmatchcase(path, self.path)


@dataclass(slots=True)
class _Armed:
    fault: HttpFault
    to_skip: int
    left: int | None
    hits: int = 0


class HttpFaults:
    """The faults that are set. In memory only: a restarted devnet is honest."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._armed: dict[int, _Armed] = {}

    def set(self, fault: HttpFault) -> int:
        """Arm a fault; its number."""
        number = next(self._ids)
        self._armed[number] = _Armed(fault, fault.skip, fault.count)
        return number

    def remove(self, number: int) -> bool:
        """Take a fault away; whether it was there."""
        return self._armed.pop(number, None) is not None

    def clear(self) -> None:
        """Be honest again."""
        self._armed.clear()

    def list(self) -> list[dict[str, Any]]:
        """All faults that are set, with their numbers and how often they struck."""
        return [
            {"id": number, "hits": armed.hits, "left": armed.left, **armed.fault.to_json()}
            for number, armed in self._armed.items()
        ]

    def due(self, method: str, path: str, stage: HttpStage) -> tuple[HttpFault, ...]:
        """The faults that strike a request now; counted as struck."""
        struck = []
        for armed in self._armed.values():
            if armed.left == 0 or not armed.fault.matches(method, path, stage):
                continue
            if armed.to_skip:
                armed.to_skip -= 1
                continue
            if armed.left is not None:
                armed.left -= 1
            armed.hits += 1
            struck.append(armed.fault)
        return tuple(struck)


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
