"""Why an RPC fails, and how clients read it.

A failure is a chain of errors, outermost first, like everywhere in this package
(`barkd_py.errors.chain_text`). The whole chain becomes the message. The code is chosen by markers anywhere
in it: something not found wins over unusable inputs, these win over a bad argument, and a chain without a
marker is INTERNAL. Clients undo what they did for NOT_FOUND and INVALID_ARGUMENT only, so the choice
matters.

Source: sheet 10 §0; sheet 08 §6.1.
"""

from collections.abc import Iterable, Sequence

import grpc

from barkd_py.errors import BarkdError, causes, chain_text


class Failure(BarkdError):
    """An RPC cannot be answered. Without a marker among its causes it is INTERNAL."""


class BadArgument(Failure):
    """Marker: the client's request is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(f"bad user input: {message}")


class Missing(Failure):
    """Marker: what the client named does not exist.

    identifiers: what was not found, as text; empty when an id was listed twice.
    """

    def __init__(self, message: str, identifiers: Iterable[object] = ()) -> None:
        super().__init__(f"not found: {message}")
        self.identifiers = tuple(str(identifier) for identifier in identifiers)


class UnusableInputs(Failure):
    """Marker: some inputs of a round cannot be used now; a client retries without them."""

    def __init__(self, identifiers: Iterable[object]) -> None:
        self.identifiers = tuple(str(identifier) for identifier in identifiers)
        super().__init__(f"unusable inputs: [{', '.join(self.identifiers)}]")


class Malformed(Failure):
    """A field does not convert. Clients read the bare text, without a prefix."""


class TxBodyError(Failure):
    """Context: the failure happened inside a database transaction, which was rolled back."""

    def __init__(self) -> None:
        super().__init__("tx body error")


class RpcStatus(Failure):
    """A status that is sent as it is, whatever its cause."""

    def __init__(self, code: grpc.StatusCode, message: str, identifiers: Sequence[str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.identifiers = identifiers


def status_of(error: BaseException, *, rich_errors: bool = True) -> RpcStatus:
    """The status that answers an RPC which ended with this error.

    rich_errors: whether the text of an INTERNAL failure is told to clients.
    """
    chain = list(causes(error))
    if isinstance(error, RpcStatus):
        return error
    if isinstance(error, Malformed):
        return RpcStatus(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    text = chain_text(error)
    for cause in chain:
        if isinstance(cause, Missing):
            return RpcStatus(grpc.StatusCode.NOT_FOUND, text, cause.identifiers)
    for cause in chain:
        if isinstance(cause, UnusableInputs):
            return RpcStatus(grpc.StatusCode.INVALID_ARGUMENT, text, cause.identifiers)
    if any(isinstance(cause, BadArgument) for cause in chain):
        return RpcStatus(grpc.StatusCode.INVALID_ARGUMENT, text)
    return RpcStatus(grpc.StatusCode.INTERNAL, text if rich_errors else "internal error")
