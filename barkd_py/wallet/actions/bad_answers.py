"""A server whose answers are malformed or wrong is asked again a few times: it may be mended. And then?

We signed nothing, so nobody can move the inputs. But where the server has spent them in its books, it has for
this very operation, and would refuse them for any other: then the action stays as it is. Otherwise it is
undone.

Source: sheet 03 §10, trap 22.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from barkd_py.errors import ProtocolViolation, log_text
from barkd_py.wallet.actions.executor import Failed, Outcome, Park
from barkd_py.wallet.actions.failures import StillPending

log = logging.getLogger(__name__)

S = TypeVar("S")

MAX_BAD_ANSWERS = 5
ASK_AGAIN_SECS = 1.0


def counted(bad_answers: int) -> int:
    """One more; it does not grow for ever."""
    return min(bad_answers + 1, MAX_BAD_ANSWERS)


async def after_bad_answer(
    what: str,
    action_id: str,
    state: S,
    bad_answers: int,
    error: ProtocolViolation,
    *,
    are_spendable: Callable[[], Awaitable[bool]],
    undone: Failed,
) -> Outcome[S]:
    """what: how people call the action. bad_answers: in a row, this one included, as `state` has them.

    are_spendable: asks the server whether it still has the inputs as spendable. undone: how it ends then.
    """
    log.warning("%s %s: bad answer of the server: %s", what, action_id, log_text(error))
    if bad_answers < MAX_BAD_ANSWERS:
        return Park(state, ASK_AGAIN_SECS, error)
    if await are_spendable():
        return undone
    pending = StillPending(what)
    pending.__cause__ = error
    return Park(state, error=pending)
