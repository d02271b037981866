"""The error hierarchy: whose fault it is, and what is true afterwards.

Each layer derives its own errors from the classes here and raises them with typed fields; the message is
built from the fields. Nothing in the domain knows an HTTP status: `barkd_py.api.errors` maps classes to
statuses in one table. Context is added with ``raise … from cause``; what an API client reads is the chain of
causes joined by ``": "`` (`chain_text`).
"""

import re
from collections.abc import Iterator, Sequence


class KnownError(Exception):
    """Base of every error that this package raises on purpose. Caught where the worst that can follow is that
    something is tried again: by loops, and at the program's rim.
    """


class BarkdError(KnownError):
    """Everything that work on money may be prepared for; a `StoreError` is not of this kind."""


class InvalidInput(BarkdError):
    """The caller's value is wrong. Nothing was changed."""


class NotFound(BarkdError):
    """The named things do not exist.

    resources: what was looked for, as the caller named it.
    """

    def __init__(self, message: str, resources: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.resources = tuple(resources)


class WalletNotLoaded(BarkdError):
    """The daemon has no wallet yet."""

    def __init__(self) -> None:
        super().__init__("No wallet set")


class AuthError(BarkdError):
    """The request does not carry a valid credential."""


class OutsideError(BarkdError):
    """Somebody outside failed or misbehaved: the Ark server, a peer, the chain source. Our state is sound."""


class ProtocolViolation(OutsideError):
    """The Ark server or a peer broke the protocol. What it sent was not used."""


class ServerError(OutsideError):
    """The Ark server answered with an error, or not at all."""


class ServerRejected(ServerError):
    """The Ark server refused the request: it did nothing, so the caller may undo.

    identifiers: the ids that the server blames, possibly none.
    """

    def __init__(self, message: str, identifiers: Sequence[str] = (), *, not_found: bool = False) -> None:
        super().__init__(message)
        self.identifiers = tuple(identifiers)
        self.not_found = not_found


class ServerUnavailable(ServerError):
    """The outcome at the Ark server is unknown: keep the state and ask again."""


class ChainError(OutsideError):
    """The chain source failed or refused."""


class ChainUnavailable(ChainError):
    """The chain source gave no usable answer; nothing is known."""


class InsufficientFunds(BarkdError):
    """There is less money than the operation needs."""


class StateConflict(BarkdError):
    """The object is not in a state from which the operation may start. Nothing was changed."""


class StoreError(KnownError):
    """The database failed, or holds something this program cannot read.

    Never taken for trouble of the world outside: who cannot read what is true must not decide anything. So no
    `except BarkdError` catches it.
    """


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and then its explicit causes (``raise … from``), outermost first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def chain_text(error: BaseException) -> str:
    """The messages of an error and its causes, joined as clients of barkd read them."""
    return ": ".join(messages(error))


_PREIMAGE = re.compile(r"(preimage\W*)[0-9a-fA-F]{64}")
"""Servers say it in refusals, to tell that a payment was made."""


def log_text(error: BaseException) -> str:
    """`chain_text` for a log, without the preimages that a server may have named."""
    return without_preimages(chain_text(error))


def without_preimages(text: str) -> str:
    return _PREIMAGE.sub(r"\1…", text)


def messages(error: BaseException) -> list[str]:
    """The messages of an error and its causes, without a library's that only repeats the one before."""
    texts: list[str] = []
    for cause in causes(error):
        text = str(cause)
        if isinstance(cause, KnownError) or text not in texts[-1:]:
            texts.append(text)
    return texts


def printable(text: str, limit: int = 2000) -> str:
    """Somebody else's words, made fit for an error and a log line: no control characters, bounded."""
    return "".join(char if char.isprintable() else " " for char in text[:limit])
