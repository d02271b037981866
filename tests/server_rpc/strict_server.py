"""A small Ark server for tests of the connection: real gRPC on loopback, answers set by the test.

Strict where captaind is: it refuses calls without the protocol version, a malformed user agent, compressed
requests and request messages above 4 MiB.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb

SERVER_KEY = bytes.fromhex("023af446a4bf68093721b83b79b6a2055a6603d2f83b554ab2dfa759b09abcbf55")
MAILBOX_KEY = bytes.fromhex("02ce884d6498df87f8cd91363089824e2973aeb08acd197b1dae12855cefae9f91")
OTHER_KEY = bytes.fromhex("0211a9aea871acf1856624be241802401b0790a269b2fb24a6a8e3fb2899d14086")

_USER_AGENT = re.compile(r"[a-z0-9_-]{1,32}/.+")
_STREAMS = frozenset({"SubscribeRounds", "SubscribeMailbox"})
_SERVICES = {
    f"{module.DESCRIPTOR.package}.{service.name}": service
    for module in (pb, mb)
    for service in module.DESCRIPTOR.services_by_name.values()
}


@dataclass(frozen=True)
class Refusal(Exception):
    """Raised by an answer: the status to end the call with."""

    code: grpc.StatusCode
    details: str
    trailers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SeenCall:
    method: str
    request: Any
    metadata: dict[str, str]
    time_remaining: float | None


Answer = Callable[[Any], Awaitable[Any]]
StreamAnswer = Callable[[Any], AsyncIterator[Any]]


def always(value: Any) -> Answer:
    """An answer to every request; an exception is raised."""

    async def answer(_: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return answer


def fees() -> pb.FeeSchedule:
    return pb.FeeSchedule(
        board=pb.BoardFees(min_fee_sat=330),
        offboard=pb.OffboardFees(ppm_expiry_table=[pb.PpmExpiryFeeEntry(expiry_blocks_threshold=9, ppm=1)]),
        refresh=pb.RefreshFees(),
        lightning_receive=pb.LightningReceiveFees(),
        lightning_send=pb.LightningSendFees(),
    )


def ark_info(**changes: Any) -> pb.ArkInfo:
    values: dict[str, Any] = {
        "network": "regtest",
        "server_pubkey": SERVER_KEY,
        "mailbox_pubkey": MAILBOX_KEY,
        "round_interval_secs": 10,
        "nb_round_nonces": 8,
        "vtxo_exit_delta": 144,
        "vtxo_expiry_delta": 4320,
        "vtxo_lifetime": 4320,
        "htlc_send_expiry_delta": 258,
        "htlc_expiry_delta": 40,
        "required_board_confirmations": 3,
        "max_user_invoice_cltv_delta": 250,
        "min_board_amount": 20_000,
        "max_vtxo_exit_depth": 100,
        "max_offboard_inputs": 100,
        "fees": fees(),
    }
    return pb.ArkInfo(**{**values, **changes})


@dataclass
class StrictServer:
    """answers: by method name; a method without one is UNIMPLEMENTED."""

    answers: dict[str, Answer] = field(default_factory=dict)
    streams: dict[str, StreamAnswer] = field(default_factory=dict)
    calls: list[SeenCall] = field(default_factory=list)
    handshake: pb.HandshakeResponse = field(
        default_factory=lambda: pb.HandshakeResponse(min_protocol_version=4, max_protocol_version=5)
    )
    info: pb.ArkInfo = field(default_factory=ark_info)

    def seen(self, method: str) -> list[SeenCall]:
        return [call for call in self.calls if call.method == method]

    async def answer(self, method: str, request: Any) -> Any:
        if method in self.answers:
            return await self.answers[method](request)
        if method == "Handshake":
            return self.handshake
        if method == "GetArkInfo":
            return self.info
        raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "")

    def note(self, method: str, request: Any, context: Any) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.calls.append(SeenCall(method, request, metadata, context.time_remaining()))
        if not _USER_AGENT.fullmatch(metadata.get("x-user-agent", "x/1")):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "x-user-agent must match `<name>/<version>`")
        if method != "Handshake" and not metadata.get("pver", "").isdecimal():
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "missing pver header")

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        """Serve on loopback; yields the port. Leaving it breaks what is running."""
        options = [("grpc.max_receive_message_length", 4 * 1024 * 1024), ("grpc.so_reuseport", 0)]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((_Handler(self),))
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        try:
            yield bound
        finally:
            await server.stop(None)


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, server: StrictServer) -> None:
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        _, service_name, name = handler_call_details.method.split("/")
        method = _SERVICES[service_name].methods_by_name.get(name)
        if method is None:
            return None
        handler = (
            grpc.unary_stream_rpc_method_handler if name in _STREAMS else grpc.unary_unary_rpc_method_handler
        )
        request_type = _message_class(method.input_type)
        return handler(
            self._stream(name) if name in _STREAMS else self._unary(name),
            request_deserializer=request_type.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _unary(self, name: str) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            try:
                self._server.note(name, request, context)
                return await self._server.answer(name, request)
            except Refusal as refusal:
                await context.abort(refusal.code, refusal.details, refusal.trailers)

        return handle

    def _stream(self, name: str) -> Any:
        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                self._server.note(name, request, context)
                async for message in self._server.streams[name](request):
                    yield message
            except Refusal as refusal:
                await context.abort(refusal.code, refusal.details, refusal.trailers)

        return handle


def _message_class(descriptor: Any) -> Any:
    module = {"bark_server": pb, "mailbox_server": mb, "core": core_pb2}[descriptor.file.package]
    return getattr(module, descriptor.name)
