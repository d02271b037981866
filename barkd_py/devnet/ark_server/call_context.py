"""What handlers use of gRPC's context; the library itself comes without types."""

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


def header(context: CallContext, name: str) -> str | None:
    """A header of the call; None if it is absent."""
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return None
