"""`grpc.health.v1.Health`: the server is serving for as long as it answers.

The two messages are so small that they are written here in bytes: a request names a service (ignored), an
answer has field 1 with the value SERVING.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

_SERVING = b"\x08\x01"


class HealthHandler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Check and Watch. stopping: ends the watches."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        match handler_call_details.method:
            case "/grpc.health.v1.Health/Check":
                return grpc.unary_unary_rpc_method_handler(self._check)
            case "/grpc.health.v1.Health/Watch":
                return grpc.unary_stream_rpc_method_handler(self._watch)
            case _:
                return None

    async def _check(self, request: bytes, context: object) -> bytes:
        return _SERVING

    async def _watch(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        yield _SERVING
        await self._stopping.wait()
