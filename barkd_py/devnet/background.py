"""Work that goes on beside whatever else devnet does."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine

log = logging.getLogger(__name__)

_AGAIN_SECS = 1.0


@contextlib.asynccontextmanager
async def in_background(loop: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Run a loop while the context lasts; if it ends by itself, the log says why."""
    task = asyncio.create_task(loop, name=name)
    task.add_done_callback(_log_end)
    try:
        yield
    finally:
        while not task.done():
            task.cancel()
            # A cancellation that comes together with what a task waits for may be lost: again, then.
            await asyncio.wait((task,), timeout=_AGAIN_SECS)


def _log_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        log.error("%s ended", task.get_name(), exc_info=task.exception())
