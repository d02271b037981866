"""gRPC statuses to the wallet's two questions: did the server refuse, and which ids does it blame?

INVALID_ARGUMENT and NOT_FOUND prove that the server did nothing (`ServerRejected`). Every other status,
INTERNAL and both kinds of expiry included, leaves the outcome unknown (`ServerUnavailable`).

A server may also be unfit for use before anything is asked of it: another protocol version, a malformed
description of itself, another network (`ServerUnusable`). Unsafe terms are `barkd_py.ark.info.UnsafeServer`,
and another key than the pinned one is the keychain's error.

Source: protocol sheet 08 §2.7, §2.8, §6.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Final

import grpc

from barkd_py.errors import (
    ProtocolViolation,
    ServerError,
    ServerRejected,
    ServerUnavailable,
    printable,
    without_preimages,
)

log = logging.getLogger(__name__)

_REJECTIONS = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND})


class MethodUnimplemented(ServerUnavailable):
    """The server is too old for this call."""


class MailboxStreamLost(ServerUnavailable):
    """The mailbox stream broke too often without delivering anything."""

    def __init__(self) -> None:
        super().__init__("Mailbox stream dropped by server, giving up to retry later")


class ServerStreamEnded(ServerUnavailable):
    """A subscription was cut, by the server or on the way: open a new one, quietly."""


class ConversionError(ProtocolViolation):
    """A field of a message has the wrong length or content. reason: for instance `invalid public key`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"rpc conversion error: {reason}")
        self.reason = reason


class ConnectFailed(ServerUnavailable):
    """No usable connection; nothing was asked of the server. The cause says why."""

    def __init__(self) -> None:
        super().__init__("Failed to connect to Ark server")


class NotConnected(ConnectFailed):
    """Something was to be asked of the server, and there is no connection. The cause says why."""

    def __init__(self) -> None:
        ServerUnavailable.__init__(self, "You should be connected to Ark server to perform this action")


class ServerUnusable(ServerError):
    """The server answers, but the wallet must not use it. Nothing was asked of it."""


class VersionMismatch(ServerUnusable):
    """The server speaks no protocol version of ours."""


class NetworkMismatch(ServerUnusable):
    """The server is on another chain than the wallet."""

    def __init__(self, *, expected: str, got: str) -> None:
        super().__init__(f"network mismatch. Expected: {expected}, Got: {got}")
        self.expected = expected
        self.got = got


class UnusableArkInfo(ServerUnusable):
    """The server's self-description is malformed; the cause names the field."""

    def __init__(self) -> None:
        super().__init__("invalid ark info from ark server")


class InvalidFeeSchedule(ServerUnusable):
    """The cause names the table and the entries."""

    def __init__(self) -> None:
        super().__init__("invalid fee schedule")


class InvalidServerAddress(ServerUnusable):
    """The configured address, proxy or header cannot be used."""


_DESCRIPTIONS: Final[Mapping[grpc.StatusCode, str]] = {
    grpc.StatusCode.OK: "The operation completed successfully",
    grpc.StatusCode.CANCELLED: "The operation was cancelled",
    grpc.StatusCode.UNKNOWN: "Unknown error",
    grpc.StatusCode.INVALID_ARGUMENT: "Client specified an invalid argument",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Deadline expired before operation could complete",
    grpc.StatusCode.NOT_FOUND: "Some requested entity was not found",
    grpc.StatusCode.ALREADY_EXISTS: "Some entity that we attempted to create already exists",
    grpc.StatusCode.PERMISSION_DENIED: (
        "The caller does not have permission to execute the specified operation"
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: "Some resource has been exhausted",
    grpc.StatusCode.FAILED_PRECONDITION: (
        "The system is not in a state required for the operation's execution"
    ),
    grpc.StatusCode.ABORTED: "The operation was aborted",
    grpc.StatusCode.OUT_OF_RANGE: "Operation was attempted past the valid range",
    grpc.StatusCode.UNIMPLEMENTED: "Operation is not implemented or not supported",
    grpc.StatusCode.INTERNAL: "Internal error",
    grpc.StatusCode.UNAVAILABLE: "The service is currently unavailable",
    grpc.StatusCode.DATA_LOSS: "Unrecoverable data loss or corruption",
    grpc.StatusCode.UNAUTHENTICATED: "The request does not have valid authentication credentials",
}
"""How a status reads in messages to clients. Source: protocol sheet 07 §2.2."""


def status_text(error: grpc.aio.AioRpcError) -> str:
    """`code: 'Internal error', message: "…"`, as barkd's clients know it."""
    details = error.details()
    message = f", message: {json.dumps(printable(details), ensure_ascii=False)}" if details else ""
    return f"code: '{_DESCRIPTIONS.get(error.code(), 'Unknown error')}'{message}"


def translate(error: grpc.aio.AioRpcError, method: str, context: str | None = None) -> ServerError:
    """The domain's error for a failed call. method: its name, for the log. context: put before the status."""
    code = error.code()
    text = status_text(error) if context is None else f"{context}: {status_text(error)}"
    log.debug("%s failed: %s", method, without_preimages(text))
    if code in _REJECTIONS:
        return ServerRejected(text, identifiers(error), not_found=code is grpc.StatusCode.NOT_FOUND)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return MethodUnimplemented(text)
    return ServerUnavailable(text)


_STREAM_ENDS = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
_STREAM_RESETS = ("h2 protocol error", "RST_STREAM", "GOAWAY")


def translate_stream(error: grpc.aio.AioRpcError, method: str) -> ServerError:
    """As `translate`, for a subscription: an interruption is `ServerStreamEnded`. Source: sheet 08 §6.2."""
    code, details = error.code(), error.details() or ""
    reset = code is grpc.StatusCode.INTERNAL and any(text in details for text in _STREAM_RESETS)
    if code in _STREAM_ENDS or reset:
        return ServerStreamEnded(f"{method}: {status_text(error)}")
    return translate(error, method)


def identifiers(error: grpc.aio.AioRpcError) -> tuple[str, ...]:
    """The ids that the server blames: VTXO ids as text, or for instance a hash; possibly none.

    In an answer without a body the key arrives with the headers, so both metadata are read.
    """
    for metadata in (error.trailing_metadata(), error.initial_metadata()):
        for key, value in _pairs(metadata):
            if key == "identifiers" and isinstance(value, str) and value.isascii():
                return tuple(part.strip() for part in value.split(",") if part.strip())
    return ()


def _pairs(metadata: object) -> Iterable[tuple[str, object]]:
    return () if metadata is None else metadata  # type: ignore[return-value]  # grpc is untyped
