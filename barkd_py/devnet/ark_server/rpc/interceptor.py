"""What happens around every RPC: the client's name is checked, faults strike, errors become statuses.

Source: sheet 10 §0; sheet 08 §2.4.
"""

import asyncio
import inspect
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from barkd_py.devnet.ark_server.failures import RpcStatus, status_of
from barkd_py.devnet.ark_server.faults import Call, CallDropped, Faults, Stage
from barkd_py.devnet.ark_server.rpc.call_context import CallContext, header
from barkd_py.server_rpc.protos import bark_server_pb2, mailbox_server_pb2

log = logging.getLogger(__name__)

USER_AGENT_HEADER = "x-user-agent"
_USER_AGENT = re.compile(r"[a-z0-9_-]{1,32}/.+", re.DOTALL)


class Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps the handlers of all services. rich_errors: whether INTERNAL failures say why."""

    def __init__(self, faults: Faults, *, rich_errors: bool, stopping: asyncio.Event) -> None:
        self._faults = faults
        self._rich_errors = rich_errors
        self._stopping = stopping

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        service, _, rpc = str(handler_call_details.method).rpartition("/")
        if service.startswith("/grpc."):
            return handler
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(rpc, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(rpc, handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )

    def _unary(self, rpc: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        async def answer(request: Message, context: CallContext) -> Message:
            try:
                call = _call(rpc, request, context)
                passes = await self._faults.strike(call, Stage.BEFORE)
                if not inspect.iscoroutinefunction(handler):
                    raise _unimplemented()
                reply: Message = await handler(request, context) if passes else _empty_reply(rpc)
                await self._faults.strike(call, Stage.AFTER_COMMIT)
                await self._faults.strike(call, Stage.REPLY, reply)
            except CallDropped:
                await _drop(context)
            except Exception as error:
                await self._abort(rpc, context, error)
            return reply

        return answer

    def _streaming(self, rpc: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        async def answer(request: Message, context: CallContext) -> AsyncIterator[Message]:
            try:
                call = _call(rpc, request, context)
                await self._faults.strike(call, Stage.BEFORE)
                if not inspect.isasyncgenfunction(handler):
                    raise _unimplemented()
                async for message in _until(handler(request, context), self._stopping):
                    for _ in range(await self._faults.strike(call, Stage.STREAM, message)):
                        yield message
            except CallDropped:
                await _drop(context)
            except Exception as error:
                await self._abort(rpc, context, error)

        return answer

    async def _abort(self, rpc: str, context: CallContext, error: Exception) -> NoReturn:
        status = status_of(error, rich_errors=self._rich_errors)
        if status.code is grpc.StatusCode.INTERNAL and not isinstance(error, RpcStatus):
            log.warning("%s failed", rpc, exc_info=error)
        metadata: tuple[tuple[str, str], ...] = ()
        if status.identifiers is not None:
            metadata = (("identifiers", ",".join(status.identifiers)),)
        await context.abort(status.code, str(status), metadata)


def _call(rpc: str, request: Message, context: CallContext) -> Call:
    """What faults are matched against. Raises RpcStatus for a client with a malformed name."""
    client = header(context, USER_AGENT_HEADER)
    if client is not None and not _USER_AGENT.fullmatch(client):
        raise RpcStatus(grpc.StatusCode.INVALID_ARGUMENT, "x-user-agent must match `<name>/<version>`")
    return Call(rpc, request.SerializeToString(), client or "")


def _empty_reply(rpc: str) -> Message:
    """The answer of a call that was swallowed."""
    for file in (bark_server_pb2.DESCRIPTOR, mailbox_server_pb2.DESCRIPTOR):
        for service in file.services_by_name.values():
            if rpc in service.methods_by_name:
                answer: Message = GetMessageClass(service.methods_by_name[rpc].output_type)()
                return answer
    raise _unimplemented()


def _unimplemented() -> RpcStatus:
    return RpcStatus(grpc.StatusCode.UNIMPLEMENTED, "")


async def _drop(context: CallContext) -> NoReturn:
    """End the call as a lost connection would: clients must not read it as a refusal."""
    await context.abort(grpc.StatusCode.CANCELLED, "stream reset")


async def _until(stream: AsyncIterator[Message], stopping: asyncio.Event) -> AsyncIterator[Message]:
    """The messages of a stream until the server stops; the stream then ends without an error."""
    stopped = asyncio.ensure_future(stopping.wait())
    following: asyncio.Future[Message] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(stream))
            await asyncio.wait((following, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        stopped.cancel()
        if following is not None and not following.done():
            following.cancel()
            await asyncio.wait((following,))
        await stream.aclose()  # type: ignore[attr-defined]
