"""How far a recovery is, as it is stored with everything it has found up to there.

review    VTXOs that are stored: what does the server say of them?
xpub      the server looks for all VTXOs of our keys; older servers cannot
mailbox   payments that were delivered to us; up to where they were dealt with, or all of them
recovery  ids that an earlier life of this wallet has noted
retries   whatever failed, a few times more
done
"""

import enum
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

from barkd_py.wallet.store.payloads import PayloadFormat, VtxoIdText


class Phase(enum.StrEnum):
    REVIEW = "review"
    XPUB = "xpub"
    MAILBOX = "mailbox"
    RECOVERY = "recovery"
    RETRIES = "retries"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Progress:
    """xpub_start, xpub_cursor: where the search by extended key goes on; xpub_misses: keys since a find.

    is_xpub_known: the server can do that. is_xpub_done: the search came to its end, or cannot be made.
    is_onchain_done: the on-chain wallet has looked for coins of which it did not know; this is done last,
    whatever became of the rest, and keeps the recovery from ending. It is taken back after the end if there
    is a reason to look again.
    mailbox, recovery_mailbox: checkpoints that were read. mailbox_until: the regular mailbox has been dealt
    with up to here already, by a wallet that was alive; None: nobody has looked into it.
    is_mailbox_read: the regular one. retries: how often failed ones were asked for again.
    error: what went wrong last.
    """

    phase: Phase = Phase.REVIEW
    xpub_start: int = 0
    xpub_cursor: VtxoIdText | None = None
    xpub_misses: int = 0
    xpub_pages: int = 0
    is_xpub_known: bool = True
    is_xpub_done: bool = False
    is_onchain_done: bool = False
    mailbox: int = 0
    mailbox_until: int | None = None
    recovery_mailbox: int = 0
    is_mailbox_read: bool = False
    retries: int = 0
    error: str | None = None
    type: Literal["progress"] = "progress"

    @property
    def blocks_mailbox(self) -> bool:
        """Whether the regular mailbox must not be dealt with yet."""
        return self.mailbox_until is None and not self.is_mailbox_read


FORMAT: PayloadFormat[Progress] = PayloadFormat("recovery", lambda: TypeAdapter(Progress))
