"""The ASGI application: which request goes where, and what is settled before an endpoint sees it.

The order is that of barkd, and clients can tell: OPTIONS is answered for any path; an unknown path is a 404
without authentication; then the token; then the method; then the parameters. Every answer passes through
`_send` or `_send_list`, which add the CORS headers, so there is no middleware in between.

Without a token a browser on the same machine could be made to call the API by any web page. Then two things
are asked of a request: it was made to a loopback address by name (a rebinding page cannot do that), and one
that changes something comes from no foreign origin.

Source: protocol sheet 07 §1, §3, §5.1, §12.
"""

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fastapi import FastAPI, Request
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from barkd_py.api import openapi
from barkd_py.api.auth import authorize
from barkd_py.api.deps import ApiState
from barkd_py.api.errors import error_reply
from barkd_py.api.json_body import BodyRejected
from barkd_py.api.params import ParameterRejected
from barkd_py.api.reply import EMPTY, JSON, ListReply, Reply, json_reply, text_reply
from barkd_py.api.routers import (
    bip321,
    bitcoin,
    boards,
    exits,
    fees,
    history,
    lightning,
    lightning_receives,
    message,
    notifications,
    offboards,
    onchain,
    ping,
    recovery,
    rounds,
    swagger,
    wallet,
)
from barkd_py.api.routing import ClientGone, Endpoint, Operation, RequestRefused, Router, receive_body
from barkd_py.errors import AuthError
from barkd_py.version import VERSION

ROUTERS: Final[Sequence[Router]] = (
    ping.router,
    boards.router,
    offboards.router,
    rounds.router,
    exits.router,
    fees.router,
    history.router,
    lightning.router,
    lightning_receives.router,
    message.router,
    onchain.router,
    wallet.router,
    bip321.router,
    recovery.router,
    bitcoin.router,
    notifications.router,
    swagger.router,
)

_OPEN: Final = frozenset({"/ping", notifications.WEBSOCKET_PATH, *swagger.PATHS})
_AUTH_AFTER_QUERY: Final = frozenset({"/api/v1/notifications/wait", "/api/v1/notifications/ws/ticket"})
_METHOD_ORDER: Final = ("GET", "HEAD", "POST", "DELETE")
_VARY: Final = (b"vary", b"origin, access-control-request-method, access-control-request-headers")
_ALLOW_METHODS: Final = (b"access-control-allow-methods", b"GET,POST,DELETE")
_ALLOW_HEADERS: Final = (b"access-control-allow-headers", b"content-type,authorization")


@dataclass(slots=True)
class _Path:
    """One path: its operations by method, and when the token is asked for. template: with the names of its
    parameters, which may be secrets (a preimage names a payment).
    """

    template: str
    names: tuple[str, ...]
    operations: dict[str, Operation] = field(default_factory=dict)
    auth_after_query: bool = False
    open: bool = False

    @property
    def allow(self) -> bytes:
        allowed = {*self.operations, *(["HEAD"] if "GET" in self.operations else [])}
        return ",".join(method for method in _METHOD_ORDER if method in allowed).encode()


class _Paths:
    """Finds the path of a request. Literal paths win over those with parameters."""

    def __init__(self, routers: Sequence[Router]) -> None:
        self._literal: dict[str, _Path] = {}
        self._patterns: dict[int, list[tuple[tuple[str, ...], _Path]]] = {}
        for router in routers:
            for endpoint in router.endpoints:
                self._entry(endpoint).operations[endpoint.method] = endpoint.operation

    def _entry(self, route: Endpoint) -> _Path:
        segments = tuple(route.path.split("/"))
        names = tuple(segment[1:-1] for segment in segments if segment.startswith("{"))
        new = _Path(
            route.path, names, open=route.path in _OPEN, auth_after_query=route.path in _AUTH_AFTER_QUERY
        )
        if not names:
            return self._literal.setdefault(route.path, new)
        patterns = self._patterns.setdefault(len(segments), [])
        for known, entry in patterns:
            if known == segments:
                return entry
        patterns.append((segments, new))
        return new

    def find(self, path: str) -> tuple[_Path, Mapping[str, str]] | None:
        """The path entry and the raw values of its parameters."""
        entry = self._literal.get(path)
        if entry is not None:
            return entry, {}
        segments = path.split("/")
        for pattern, entry in self._patterns.get(len(segments), ()):
            values = _match(pattern, segments)
            if values is not None:
                return entry, values
        return None


def _match(pattern: Sequence[str], segments: Sequence[str]) -> dict[str, str] | None:
    """The raw values of the parameters; only the last segment must not be empty, as with barkd's router."""
    if not segments[-1]:
        return None
    values: dict[str, str] = {}
    for expected, segment in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            values[expected[1:-1]] = segment
        elif expected != segment:
            return None
    return values


class BarkdApi(FastAPI):
    """barkd's REST API. FastAPI describes it (openapi.json); requests are served by the rules above."""

    def __init__(self, state: ApiState) -> None:
        super().__init__(
            title="barkd REST API",
            version=VERSION,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
        )
        self.barkd = state
        self._paths = _Paths(ROUTERS)
        self._document: bytes | None = None

    def openapi(self) -> dict[str, Any]:
        return openapi.describe(ROUTERS, VERSION)

    def openapi_bytes(self) -> bytes:
        """The document as JSON; made when it is first asked for."""
        if self._document is None:
            self._document = to_json(self.openapi())
        return self._document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await notifications.serve_websocket(
                    self.barkd, scope, receive, send, self._cors_headers(scope)
                )
            case "lifespan":
                await _lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._answer(scope, receive)
        except ClientGone:
            return
        except (BodyRejected, RequestRefused) as refusal:
            reply = text_reply(refusal.status, refusal.text)
        except ParameterRejected as refusal:
            reply = text_reply(400, refusal.text)
        except Exception as error:
            reply = error_reply(error, scope["method"], self._template(scope))
        if isinstance(reply, ListReply):
            await self._send_list(scope, send, reply)
        else:
            await self._send(scope, send, reply)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply | ListReply:
        method: str = scope["method"]
        found = self._paths.find(scope["raw_path"].decode("latin-1"))
        if method == "OPTIONS":
            return EMPTY if found is None else Reply(headers=((b"allow", found[0].allow),))
        if found is None:
            return await _unknown_path(receive)
        entry, values = found
        operation = entry.operations.get("GET" if method == "HEAD" else method)
        late_check = None
        if not entry.open:
            if entry.auth_after_query and operation is not None:
                late_check = partial(self._authorize, scope)
            else:
                try:
                    self._authorize(scope)
                except AuthError as error:
                    if operation is None:
                        return _with_allow(error_reply(error, method, entry.template), entry)
                    raise
        if operation is None:
            return _with_allow(Reply(405), entry)
        return await operation.respond(Request(scope, receive), values, late_check)

    def _template(self, scope: Scope) -> str:
        found = self._paths.find(scope["raw_path"].decode("latin-1"))
        return "an unknown path" if found is None else found[0].template

    def _authorize(self, scope: Scope) -> None:
        if self.barkd.token is not None:
            authorize(scope["headers"], self.barkd.token)
        else:
            _check_caller(self.barkd, scope)

    def _cors_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        headers = [_VARY]
        if self.barkd.allowed_origins:
            for name, value in scope["headers"]:
                if name == b"origin" and value in self.barkd.allowed_origins:
                    headers.append((b"access-control-allow-origin", value))
                    break
            if scope.get("method") == "OPTIONS":
                headers += [_ALLOW_METHODS, _ALLOW_HEADERS]
        return headers

    async def _send(self, scope: Scope, send: Send, reply: Reply) -> None:
        headers = self._cors_headers(scope)
        if reply.content_type is not None:
            headers.append((b"content-type", reply.content_type))
        headers.append((b"content-length", b"%d" % len(reply.body)))
        headers += reply.headers
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _send_list(self, scope: Scope, send: Send, reply: ListReply) -> None:
        """Send piece by piece, as fast as the client reads, and let others have their turn."""
        headers = self._cors_headers(scope)
        headers += [(b"content-type", JSON), (b"content-length", b"%d" % reply.size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] != "HEAD":
            for chunk in reply.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


def _with_allow(reply: Reply, entry: _Path) -> Reply:
    return Reply(reply.status, reply.body, reply.content_type, ((b"allow", entry.allow),))


async def _unknown_path(receive: Receive) -> Reply:
    """The answer for a path that nobody serves: a JSON string. barkd repeats the body in it; we do not."""
    body = await receive_body(receive)
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return text_reply(400, f"Request body didn't contain valid UTF-8: {_utf8_problem(error, len(body))}")
    return json_reply("path not found: ", 404)


def _utf8_problem(error: UnicodeDecodeError, size: int) -> str:
    if error.reason == "unexpected end of data" and error.end == size:
        return f"incomplete utf-8 byte sequence from index {error.start}"
    return f"invalid utf-8 sequence of {error.end - error.start} bytes from index {error.start}"


def _check_caller(state: ApiState, scope: Scope) -> None:
    """Keep web pages out while authentication is off. Raises AuthError."""
    headers = {name: value for name, value in scope["headers"] if name in (b"host", b"origin")}
    host = headers.get(b"host", b"").decode("latin-1")
    if state.loopback_only and host and not _is_loopback(host):
        raise AuthError("authentication is disabled: only requests to a loopback address are served")
    origin = headers.get(b"origin")
    if (
        origin is not None
        and scope["method"] not in ("GET", "HEAD")
        and origin not in state.allowed_origins
        and origin not in (b"http://" + headers.get(b"host", b""), b"https://" + headers.get(b"host", b""))
    ):
        raise AuthError("authentication is disabled: requests of this origin are not allowed")


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine by a loopback address."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
