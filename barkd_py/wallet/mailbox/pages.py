"""Reading a mailbox of the server, message by message, each of them whole.

A page is cut at a number of rows, not of messages, so its last message may have lost its tail, and "have
more" cannot be believed. So the last message of a page is read again from just before its checkpoint, which
gives it whole; and reading ends at an empty page only. Checkpoints must rise, or a server could keep a reader
busy with the same messages for ever. And they are times, so they are not of the future: whoever believed the
highest number there is would never read anything again. What comes before such a message is read.

Source: sheet 02 §5.3, trap 6.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence

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


class CheckpointOfTheFuture(ProtocolViolation):
    """A message of the server goes too far ahead. It was not used, nor what follows it."""

    def __init__(self, checkpoint: int) -> None:
        super().__init__(f"the server sent a mailbox message with the checkpoint {checkpoint}")


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

    async def read(self, checkpoint: int) -> AsyncGenerator[tuple[MailboxMessage, ...], None]:
        """The messages after a checkpoint, oldest first, some at a time; never an empty tuple.

        Raises ServerError, CheckpointsOutOfOrder; and CheckpointOfTheFuture, after what comes before it.
        """
        for _ in range(self._max_pages):
            messages = (await self._page(checkpoint)).messages
            usable = messages[: self._usable(messages)]
            if not usable:
                if messages:
                    raise CheckpointOfTheFuture(messages[0].checkpoint)
                return
            *whole, last = usable
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

    def _usable(self, messages: Sequence[MailboxMessage]) -> int:
        """How many there are before the first one of the future."""
        ahead = (number for number, each in enumerate(messages) if self.is_of_the_future(each.checkpoint))
        return next(ahead, len(messages))

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
