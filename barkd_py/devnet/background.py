"""Work that goes on beside whatever else devnet does."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def in_background(loop: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Run a loop while the context lasts; if it ends by itself, the log says why."""
    task = asyncio.create_task(loop, name=name)
    task.add_done_callback(_log_end)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def _log_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        log.error("%s ended", task.get_name(), exc_info=task.exception())
