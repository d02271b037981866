"""Reading a mailbox of the server, message by message, each of them whole.

A page is cut at a number of rows, not of messages, so its last message may have lost its tail, and "have
more" cannot be believed. So the last message of a page is read again from just before its checkpoint, which
gives it whole; and reading ends at an empty page only. Checkpoints must rise, or a server could keep a reader
busy with the same messages for ever. And they are times, so they are not of the future: whoever remembered
the highest number there is would never read anything again. A message that has such a number is read, as are
those behind it, for a server whose clock was wrong may go on counting from there; how far one has read is
what must not be remembered by it.

Source: sheet 02 §5.3, trap 6.
"""

import logging
import time
from collections.abc import AsyncGenerator, Callable

from barkd_py.ark.mailbox import MailboxAuthorization
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.errors import ProtocolViolation
from barkd_py.server_rpc.api import (
    ArkoorDelivery,
    ArkServerApi,
    MailboxMessage,
    MailboxPage,
    RecoveryVtxoIds,
)

log = logging.getLogger(__name__)

READ_AUTHORIZATION_SECONDS = 600
MAX_PAGES = 100_000

MAX_AHEAD_SECONDS = 86_400
"""How wrong our clock may be, or the server's. Servers that count from 1 are far below."""
_COUNTER_BITS = 20
"""A checkpoint is a Unix time in milliseconds, and a counter below it."""


class CheckpointsOutOfOrder(ProtocolViolation):
    """A page of the server goes back. What it holds was not used."""

    def __init__(self) -> None:
        super().__init__("the server sent mailbox messages with checkpoints that do not rise")


def checkpoint_at(seconds: float) -> int:
    """That of the first message of a moment, in Unix seconds."""
    return max(0, int(seconds * 1000)) << _COUNTER_BITS


class MailboxReader:
    """Reads one mailbox. key: of the mailbox. now: Unix seconds. max_pages: to read at one time."""

    def __init__(
        self,
        server: ArkServerApi,
        key: SecretKey,
        *,
        now: Callable[[], float] = time.time,
        max_pages: int = MAX_PAGES,
    ) -> None:
        self._server = server
        self._key = key
        self._now = now
        self._max_pages = max_pages
        self._has_complained = False

    async def read(self, checkpoint: int) -> AsyncGenerator[tuple[MailboxMessage, ...], None]:
        """The messages after a checkpoint, oldest first, some at a time; never an empty tuple.

        Checkpoints may be of the future. Raises ServerError, CheckpointsOutOfOrder.
        """
        for _ in range(self._max_pages):
            messages = (await self._page(checkpoint)).messages
            if not messages:
                return
            *whole, last = messages
            self._complain_of(last.checkpoint)
            if whole:
                yield tuple(whole)
            if whole or _row_count(last) > 1:
                again = (await self._page(last.checkpoint - 1)).messages
                if again and again[0].checkpoint == last.checkpoint:
                    last = again[0]
            yield (last,)
            checkpoint = last.checkpoint

    def authorize(self, seconds: int) -> bytes:
        return MailboxAuthorization.sign(self._key, expiry=int(self._now()) + seconds).encode()

    def is_of_the_future(self, checkpoint: int) -> bool:
        return checkpoint > checkpoint_at(self._now() + MAX_AHEAD_SECONDS)

    def _complain_of(self, checkpoint: int) -> None:
        """Once, for it will be so for a long time."""
        if not self._has_complained and self.is_of_the_future(checkpoint):
            self._has_complained = True
            log.warning(
                "the server sent a mailbox message with the checkpoint %d, which is of the future: "
                "it is read again from time to time",
                checkpoint,
            )

    async def _page(self, checkpoint: int) -> MailboxPage:
        authorization = self.authorize(READ_AUTHORIZATION_SECONDS)
        page = await self._server.read_mailbox(self._key.public_key, authorization, checkpoint)
        last = checkpoint
        for message in page.messages:
            if message.checkpoint <= last:
                raise CheckpointsOutOfOrder
            last = message.checkpoint
        return page


def _row_count(message: MailboxMessage) -> int:
    """How many rows of a page the message takes up at least."""
    match message.content:
        case ArkoorDelivery(vtxos):
            return len(vtxos)
        case RecoveryVtxoIds(vtxo_ids):
            return len(vtxo_ids)
        case _:
            return 1
