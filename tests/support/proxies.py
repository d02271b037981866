"""Proxies between a daemon and the world, which a test can make act at each network call.

Both proxies report every call twice to one `Gate`: before it is passed on, and after the far side has
answered but before the daemon hears of it. A gate that kills the daemon at either moment shows what a crash
around that call leaves behind; one that raises `Dropped` loses the request or the answer.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Phase = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class NetworkCall:
    """One call that the daemon makes.

    name: the gRPC method, or the HTTP method and the first part of the path (``POST /txs``).
    phase: "before" it reaches the far side, or "after" the far side has answered.
    """

    name: str
    phase: Phase


class Dropped(Exception):
    """Raised by a gate: the connection breaks here."""


Gate = Callable[[NetworkCall], Awaitable[None]]

Observer = Callable[[str, bytes], None]
"""Told of each unary gRPC request: the path of its method, and its bytes."""

Liar = Callable[[str, bytes], bytes]
"""What the daemon gets instead of an answer: the name of the call, and what the far side said."""


def honest(name: str, answer: bytes) -> bytes:
    return answer


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """status and body."""

    status: int
    body: bytes


HttpLiar = Callable[[str, str, bytes], HttpAnswer | None]
"""The answer to a method, a path and a body without asking the far side; None if it is asked."""


def asked(method: str, path: str, body: bytes) -> HttpAnswer | None:
    return None


class _ForwardingHandler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes every method on as bytes; streams are told by name."""

    _STREAMS = frozenset({"SubscribeRounds", "SubscribeMailbox", "Watch"})

    def __init__(self, channel: Any, gate: Gate, observe: Observer, lie: Liar) -> None:
        self._channel = channel
        self._lie = lie
        self._gate = gate
        self._observe = observe

    def service(self, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method
        name = method.rpartition("/")[2]
        if name in self._STREAMS:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, name))
        return grpc.unary_unary_rpc_method_handler(self._unary(method, name))

    def _unary(self, method: str, name: str) -> Any:
        async def forward(request: bytes, context: Any) -> bytes:
            self._observe(method, request)
            await self._pass_gate(NetworkCall(name, "before"), context)
            call = self._channel.unary_unary(method)(
                request, metadata=_forwarded_metadata(context), timeout=60
            )
            try:
                answer: bytes = await call
            except grpc.aio.AioRpcError as error:
                await self._pass_gate(NetworkCall(name, "after"), context)
                await context.abort(
                    error.code(), error.details() or "", tuple(error.trailing_metadata() or ())
                )
                raise
            await self._pass_gate(NetworkCall(name, "after"), context)
            return self._lie(name, answer)

        return forward

    def _stream(self, method: str, name: str) -> Any:
        async def forward(request: bytes, context: Any) -> AsyncIterator[bytes]:
            await self._pass_gate(NetworkCall(name, "before"), context)
            call = self._channel.unary_stream(method)(request, metadata=_forwarded_metadata(context))
            try:
                async for message in call:
                    yield message
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
            finally:
                call.cancel()

        return forward

    async def _pass_gate(self, call: NetworkCall, context: Any) -> None:
        try:
            await self._gate(call)
        except Dropped:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")


def _forwarded_metadata(context: Any) -> tuple[tuple[str, str], ...]:
    kept = ("pver", "x-user-agent", "ark-access-token")
    return tuple((key, value) for key, value in context.invocation_metadata() or () if key in kept)


@asynccontextmanager
async def ark_server_proxy(
    target: str, gate: Gate, observe: Observer = lambda method, request: None, lie: Liar = honest
) -> AsyncIterator[str]:
    """A gRPC proxy in front of the Ark server at `target` (``host:port``); yields its URL."""
    async with grpc.aio.insecure_channel(
        target, options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers((_ForwardingHandler(channel, gate, observe, lie),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await server.stop(None)


@asynccontextmanager
async def esplora_proxy(target: str, gate: Gate, lie: HttpLiar = asked) -> AsyncIterator[str]:
    """An HTTP proxy in front of the Esplora at `target` (a URL); yields its URL."""
    async with httpx.AsyncClient(base_url=target, timeout=60) as client:

        async def forward(request: Request) -> Response:
            path = request.url.path
            name = f"{request.method} /{path.split('/')[1]}"
            await gate(NetworkCall(name, "before"))
            if (lied := lie(request.method, path, await request.body())) is not None:
                return Response(lied.body, lied.status)
            answer = await client.request(request.method, path, content=await request.body())
            await gate(NetworkCall(name, "after"))
            return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

        async def lost(request: Request, error: Exception) -> Response:
            return Response("connection lost", 502)

        app = Starlette(
            routes=[Route("/{path:path}", forward, methods=["GET", "POST"])],
            exception_handlers={Dropped: lost},
        )
        async with serving(app) as url:
            yield url


class _EmbeddedServer(uvicorn.Server):
    """Leaves the signals to the test runner."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI app on a free loopback port; yields its URL."""
    server = _EmbeddedServer(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            log_config=None,
            lifespan="off",
            timeout_keep_alive=75,  # the daemon's client gives idle connections up after 5 s
        )
    )
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if task.done():
                task.result()
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
