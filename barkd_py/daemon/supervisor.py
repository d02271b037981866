"""Keeps the daemon's loops running, each on its own, and stops them.

A loop that raises is logged with its traceback and started again after a second; the others do not notice. A
loop that returns is finished. Stopping sets one event that every loop watches between two pieces of work, so
the piece in hand is completed; what is still running after the grace is cancelled, which is safe because
every operation on money is persisted before it calls anybody.

Source: sheet 09 §1.2, §1.15.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

RESTART_DELAY_SECS = 1.0
STOP_GRACE_SECS = 5.0


class Shutdown:
    """Tells loops to stop, and lets them sleep until then."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    async def sleep(self, seconds: float, *, wake: asyncio.Event | None = None) -> None:
        """Sleep, but no longer than until the shutdown, or until `wake` is set (it is cleared then)."""
        waits = [asyncio.ensure_future(self._event.wait())]
        if wake is not None:
            waits.append(asyncio.ensure_future(wake.wait()))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if wake is not None:
            wake.clear()


@dataclass(frozen=True, slots=True)
class Loop:
    """One row of the loop table.

    run: goes on until the shutdown is requested. streams: it may be cancelled at once, without grace.
    """

    name: str
    run: Callable[[Shutdown], Awaitable[None]]
    streams: bool = False


class Supervisor:
    """Runs loops until `stop`."""

    def __init__(
        self,
        loops: Sequence[Loop],
        *,
        restart_delay_secs: float = RESTART_DELAY_SECS,
        stop_grace_secs: float = STOP_GRACE_SECS,
    ) -> None:
        self._loops = tuple(loops)
        self._restart_delay_secs = restart_delay_secs
        self._stop_grace_secs = stop_grace_secs
        self._shutdown = Shutdown()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        for loop in self._loops:
            self._tasks[loop.name] = asyncio.create_task(self._supervise(loop), name=loop.name)

    async def stop(self) -> None:
        """Let every loop finish the work in hand, then return. Streams are cut at once."""
        self._shutdown.request()
        for loop in self._loops:
            if loop.streams and (task := self._tasks.get(loop.name)) is not None:
                task.cancel()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks.values(), timeout=self._stop_grace_secs)
        while late:
            for task in late:
                log.warning("Daemon task '%s' is cut off", task.get_name())
                task.cancel()  # again if need be: libraries have been seen to lose a cancellation
            _, late = await asyncio.wait(late, timeout=self._stop_grace_secs)
        self._tasks.clear()

    async def _supervise(self, loop: Loop) -> None:
        while not self._shutdown.requested:
            try:
                await loop.run(self._shutdown)
                return
            except Exception:
                log.exception("Daemon task '%s' terminated unexpectedly, restarting", loop.name)
                await self._shutdown.sleep(self._restart_delay_secs)
