"""What goes on beside devnet's other work ends with it."""

import asyncio
from contextlib import suppress

from barkd_py.devnet.background import in_background


async def test_work_that_loses_a_cancellation_ends_all_the_same() -> None:
    """As one does that comes together with what the work waits for."""
    has_begun = asyncio.Event()

    async def deaf() -> None:
        has_begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async with asyncio.timeout(60), in_background(deaf(), "deaf"):
        await has_begun.wait()
