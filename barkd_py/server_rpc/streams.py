"""Subscriptions that come back after every interruption, with a pause before each new attempt.

A server closes the connection of a client that opens and drops streams in a tight loop, so each resubscribe
waits: d = min(30 s, 1 s · 2ⁿ) with n the failures so far, and the sleep is uniform in [d/2, d], so that a
thousand wallets do not come back in the same instant.

A quiet end of a stream is normal (proxies close idle ones). The rounds subscription goes on for ever. The
mailbox subscription gives up after five streams in a row that delivered nothing, or on any other error, and
its owner marks the server disconnected.

Source: protocol sheet 08 §8; sheet 09 §1.5-1.6.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from barkd_py.errors import BarkdError
from barkd_py.server_rpc.api import ArkServerApi, MailboxMessage, RoundEvent
from barkd_py.server_rpc.errors import MailboxStreamLost, ServerStreamEnded

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 30.0
MAX_QUIET_RECONNECTS = 5

Sleep = Callable[[float], Awaitable[None]]


class Backoff:
    """The pause before the next attempt; `reset` after a success."""

    def __init__(
        self, sleep: Sleep = asyncio.sleep, uniform: Callable[[float, float], float] = random.uniform
    ):
        self._sleep = sleep
        self._uniform = uniform
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    async def wait(self) -> None:
        delay = min(MAX_BACKOFF_SECONDS, 2.0 ** min(self._failures, 10))
        self._failures += 1
        await self._sleep(self._uniform(delay / 2, delay))


async def mailbox_wakeups(
    subscribe: Callable[[], Awaitable[AsyncGenerator[MailboxMessage, None]]], backoff: Backoff
) -> AsyncGenerator[None, None]:
    """Yields once for each new subscription and each message on it: "read the mailbox now".

    The stream of captaind 0.6.0 stalls after 100 rows and cuts groups, so nothing is ever taken from it but
    the fact that something came. subscribe: opens a stream from the stored checkpoint with a new
    authorization. Raises MailboxStreamLost, or what the server's refusal raises.
    """
    quiet = 0
    while True:
        stream = await subscribe()
        yield None
        try:
            async with aclosing(stream) as messages:
                async for _ in messages:
                    quiet = 0
                    backoff.reset()
                    yield None
        except ServerStreamEnded as error:
            log.debug("mailbox stream ended: %s", error)
        quiet += 1
        if quiet >= MAX_QUIET_RECONNECTS:
            raise MailboxStreamLost
        await backoff.wait()


async def round_events(server: ArkServerApi, backoff: Backoff) -> AsyncGenerator[RoundEvent, None]:
    """Round events for ever; whatever ends a stream, the next one is opened after a pause."""
    while True:
        try:
            async with aclosing(server.subscribe_rounds()) as events:
                async for event in events:
                    backoff.reset()
                    yield event
        except ServerStreamEnded as error:
            log.debug("round stream ended: %s", error)
        except BarkdError as error:
            log.warning("round stream failed: %s", error)
        await backoff.wait()
