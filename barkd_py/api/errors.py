"""Errors of the domain as HTTP answers: the one place that knows statuses.

    {"message": …}                     400, 401, 422, 500
    {"resources": […], "message": …}   404

The message is the chain of causes joined by ": ". The first class in the chain that the table knows decides
the status; what the table does not know is a 500. `Failure` and `BadRequest` are the two ways in which an
endpoint puts its own words in front of an error.

Source: protocol sheet 07 §2.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final

from barkd_py.api.reply import Reply, json_reply
from barkd_py.errors import (
    AuthError,
    BarkdError,
    InvalidInput,
    KnownError,
    NotFound,
    WalletNotLoaded,
    causes,
    chain_text,
    log_text,
)

log = logging.getLogger(__name__)


class Failure(BarkdError):
    """An operation that did not work out, whatever the reason was: 500, and its name before the reason."""


class Unprocessable(BarkdError):
    """The request is fine, but not in the present state of the wallet."""


class BadRequest(InvalidInput):
    """A value of the caller, named by `context`, was refused for the reason that is its cause."""

    def __init__(self, context: str) -> None:
        super().__init__(f"bad request: {context}")


class Missing(NotFound):
    """Something named by the caller was looked up and is not there."""

    def __init__(self, context: str, *resources: str) -> None:
        super().__init__(f"not found [resources={','.join(resources)}]: {context}", resources)


_STATUS: Final[Sequence[tuple[type[KnownError], int]]] = (
    (Failure, 500),
    (NotFound, 404),
    (AuthError, 401),
    (WalletNotLoaded, 422),
    (Unprocessable, 422),
    (InvalidInput, 400),
)


@contextlib.contextmanager
def failing(context: str) -> Iterator[None]:
    """Any error of the domain in the block is a failure of the operation: `context: reason`, status 500."""
    try:
        yield
    except KnownError as error:
        raise Failure(context) from error


def status_of(error: BaseException) -> int:
    for cause in causes(error):
        for kind, status in _STATUS:
            if isinstance(cause, kind):
                return status
    return 500


def error_reply(error: Exception, method: str, path: str) -> Reply:
    """The answer to a request that ended in this error. A 5xx is logged; the trace only of a bug.

    path: for the log, so without the values in it.
    """
    if not isinstance(error, KnownError):
        log.error("%s %s failed", method, path, exc_info=error)
        return message_reply(500, "internal error")
    status = status_of(error)
    message = chain_text(error)
    if status >= 500:
        log.warning(
            "%s %s failed with %d %s: %s", method, path, status, HTTPStatus(status).phrase, log_text(error)
        )
    if status == 404:
        missing = next(cause for cause in causes(error) if isinstance(cause, NotFound))
        return json_reply({"resources": list(missing.resources), "message": message}, 404)
    return message_reply(status, message)


def message_reply(status: int, message: str) -> Reply:
    return json_reply({"message": message}, status)
