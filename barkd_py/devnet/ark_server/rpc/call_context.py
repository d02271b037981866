"""What handlers use of gRPC's context; the library itself comes without types."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NoReturn, Protocol

import grpc


class CallContext(Protocol):
    """The circumstances of one call."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """The headers that the client sent."""

    async def send_initial_metadata(self, metadata: Sequence[tuple[str, str]]) -> None:
        """Accept the call: a stream is open for the client from here on, before its first message."""

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Sequence[tuple[str, str]] = ()
    ) -> NoReturn:
        """End the call with a status."""


async def open_stream(context: CallContext) -> None:
    """Accept a call that streams. Whoever is cancelled meanwhile, as by the stop, waits for it all the same.

    gRPC counts the headers as unsent until its call returns, and would send them once more with the status.
    """
    opening = asyncio.ensure_future(context.send_initial_metadata(()))
    try:
        await asyncio.shield(opening)
    finally:
        await opening


def header(context: CallContext, name: str) -> str | None:
    """A header of the call; None if it is absent."""
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return None
