"""Endpoints, declared in FastAPI's way and called in barkd's.

An endpoint is an ordinary FastAPI path operation: its signature makes openapi.json. At run time FastAPI's
own reading of requests is left out, because its order of checks and its error texts are not those of barkd,
and because it costs more than most answers do. `Operation` reads the same signature instead:

    path parameters → query → body (content type, size, JSON) → dependencies → the endpoint

A dependency is a plain function of the request. An endpoint returns a reply, None (an empty 200), or
anything that is JSON once rendered. `response_model` only describes it; the tests check the two against each
other. Source: protocol sheet 07 §1.2.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar, get_type_hints

from fastapi import APIRouter, Request, params
from pydantic import BaseModel
from starlette.types import Receive

from barkd_py.api.json_body import read_any, read_model
from barkd_py.api.params import read_path_text, read_path_u32, read_query
from barkd_py.api.reply import EMPTY, ListReply, Reply, json_reply

BODY_BYTES_MAX: Final = 2 * 1024 * 1024

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9a-z]"
_QUOTED: Final = r'"[ -~][ !#-~]*" *'
_JSON_TYPE: Final = re.compile(
    rf"application/(?:json(?:\+{_WORD}*)?|{_WORD}+\+json)"
    rf"(?:;(?: *{_WORD}+=(?:{_WORD}+|{_QUOTED});)* *(?:{_WORD}+=(?:{_WORD}*|{_QUOTED}))?)?".encode(),
    re.I,
)
"""The grammar of barkd's library: parameters must be whole, and no blank may be before a semicolon."""

PathReader = Callable[[str, str], object]
BodyReader = Callable[[bytes], object]
Dependency = Callable[[Request], object]

_C = TypeVar("_C", bound=Callable[..., Awaitable[object]])


class RequestRefused(Exception):
    """The request cannot be read; status and text of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class ClientGone(Exception):
    """The client hung up while it was sending its body."""


class Operation:
    """One endpoint and how its arguments come out of a request."""

    def __init__(self, endpoint: Callable[..., Awaitable[object]], path: str) -> None:
        self._endpoint = endpoint
        self._path_readers: list[tuple[str, PathReader]] = []
        self._query: tuple[str, type[BaseModel]] | None = None
        self._body: tuple[str, BodyReader] | None = None
        self._dependencies: list[tuple[str, Dependency]] = []
        hints = get_type_hints(endpoint, include_extras=True)
        for name in inspect.signature(endpoint).parameters:
            self._add(name, hints[name], in_path=f"{{{name}}}" in path)

    def _add(self, name: str, hint: Any, *, in_path: bool) -> None:
        metadata: Sequence[object] = getattr(hint, "__metadata__", ())
        plain = getattr(hint, "__origin__", hint) if metadata else hint
        depends = [mark.dependency for mark in metadata if isinstance(mark, params.Depends)]
        if in_path:
            self._path_readers.append((name, read_path_u32 if plain is int else read_path_text))
        elif plain is Request:
            self._dependencies.append((name, lambda request: request))
        elif depends:
            assert depends[0] is not None
            self._dependencies.append((name, depends[0]))
        elif any(isinstance(mark, params.Query) for mark in metadata):
            self._query = (name, plain)
        elif isinstance(plain, type) and issubclass(plain, BaseModel):
            model = plain
            self._body = (name, lambda body: read_model(model, body))
        else:
            assert any(isinstance(mark, params.Body) for mark in metadata), f"parameter {name}"
            self._body = (name, read_any)

    async def respond(
        self, request: Request, path_values: Mapping[str, str], check: Callable[[], None] | None = None
    ) -> Reply | ListReply:
        """Read the request and call the endpoint.

        check: called between the reading of the query and of the body.
        """
        arguments: dict[str, object] = {}
        for name, read_path in self._path_readers:
            arguments[name] = read_path(name, path_values[name])
        if self._query is not None:
            name, model = self._query
            arguments[name] = read_query(model, request.scope["query_string"])
        if check is not None:
            check()
        if self._body is not None:
            name, read_body = self._body
            require_json(request.scope["headers"])
            arguments[name] = read_body(await receive_body(request.receive))
        for name, dependency in self._dependencies:
            arguments[name] = dependency(request)
        result = await self._endpoint(**arguments)
        if isinstance(result, Reply | ListReply):
            return result
        return EMPTY if result is None else json_reply(result)


def require_json(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises RequestRefused unless the body is declared to be JSON."""
    for name, value in headers:
        if name == b"content-type":
            if _JSON_TYPE.fullmatch(value):
                return
            break
    raise RequestRefused(415, "Expected request with `Content-Type: application/json`")


async def receive_body(receive: Receive) -> bytes:
    """The whole body. Raises RequestRefused if it is too long, ClientGone if it ends early."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            raise RequestRefused(413, "Failed to buffer the request body: length limit exceeded")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a router knows of one of its operations. options: what FastAPI is told about it."""

    path: str
    method: str
    call: Callable[..., Awaitable[object]]
    operation: Operation
    options: Mapping[str, Any]


class Router:
    """The operations of one part of the API, declared as with FastAPI's own router.

    FastAPI reads signatures and models for a millisecond or two each, all for openapi.json, which a daemon
    may never be asked for. So it is told of them only when it is to describe them (`describe`).
    """

    def __init__(self, prefix: str = "", *, tags: Sequence[str] = (), include_in_schema: bool = True) -> None:
        self.endpoints: list[Endpoint] = []
        self._prefix = prefix
        self._tags = list(tags)
        self._include_in_schema = include_in_schema

    def get(self, path: str, **options: Any) -> Callable[[_C], _C]:
        return self._declare(path, "GET", options)

    def post(self, path: str, **options: Any) -> Callable[[_C], _C]:
        return self._declare(path, "POST", options)

    def delete(self, path: str, **options: Any) -> Callable[[_C], _C]:
        return self._declare(path, "DELETE", options)

    def _declare(self, path: str, method: str, options: Mapping[str, Any]) -> Callable[[_C], _C]:
        full_path = self._prefix + path

        def declare(call: _C) -> _C:
            self.endpoints.append(Endpoint(full_path, method, call, Operation(call, full_path), options))
            return call

        return declare

    def describe(self) -> APIRouter:
        """As FastAPI sees it."""
        router = APIRouter(
            tags=list[str | Enum](self._tags),
            include_in_schema=self._include_in_schema,
            generate_unique_id_function=lambda route: route.name,
        )
        for endpoint in self.endpoints:
            router.add_api_route(endpoint.path, endpoint.call, methods=[endpoint.method], **endpoint.options)
        return router


def new_router(prefix: str, tag: str) -> Router:
    """A router for the operations of one tag, with paths below `/api/v1`."""
    return Router(f"/api/v1{prefix}", tags=[tag])
