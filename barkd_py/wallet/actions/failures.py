"""When a step of an action failed: may it be undone, or must it be tried again?

Undone only after proof. A rejection by the server proves that it did nothing; an `Unworkable` is our own
proof that another try would end the same way. Everything else, above all silence, leaves the outcome unknown.

Source: sheet 08 §6.2; sheet 03 §5.
"""

from barkd_py.errors import BarkdError, ServerRejected, causes


class Unworkable(BarkdError):
    """What a step has to do can never work; the cause says why, if the text does not."""


class StillPending(BarkdError):
    """The action did not finish while the caller waited. It goes on in the background."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not finished yet and continues in the background")


def is_final(error: BaseException) -> bool:
    """Whether trying again is useless, because nothing happened and nothing ever will."""
    return any(isinstance(cause, ServerRejected | Unworkable) for cause in causes(error))
