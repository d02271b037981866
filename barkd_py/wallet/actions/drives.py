"""Drives that outlive their callers.

Whoever starts an action waits for it, but not for ever, and may be cancelled, as the request of a client that
hangs up is. The drive goes on in a task of its own, until it ends or the wallet is closed; from then on the
action is where its row says.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from barkd_py.errors import log_text
from barkd_py.wallet.actions.failures import StillPending

log = logging.getLogger(__name__)

WAIT_SECS = 60.0
"""How long a caller waits; upstream waits for ever."""


class Drives:
    """Close it when done. what: how people call an action of this kind. wait_secs: how long `run` waits."""

    def __init__(self, what: str, wait_secs: float) -> None:
        self._what = what
        self._wait_secs = wait_secs
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, action_id: str) -> bool:
        return action_id in self._tasks

    def tasks(self, action_ids: Iterable[str]) -> list[asyncio.Task[None]]:
        """Of those that are being driven here."""
        return [self._tasks[action_id] for action_id in action_ids if action_id in self._tasks]

    async def run(
        self, action_id: str, drive: Coroutine[Any, Any, None], *, to_the_end: bool = False
    ) -> None:
        """Wait for a drive. Raises what it raises, and StillPending if it goes on without us.

        to_the_end: wait for as long as it takes.
        """
        task = asyncio.create_task(drive, name=f"{self._what} {action_id}")
        self._tasks[action_id] = task
        task.add_done_callback(lambda ended: self._ended(action_id, ended))
        done, _ = await asyncio.wait({task}, timeout=None if to_the_end else self._wait_secs)
        if not done or task.cancelled():
            raise StillPending(self._what)
        task.result()

    async def close(self) -> None:
        """Stop driving; every action is where its row says."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, action_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(action_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("%s: %s", task.get_name(), log_text(error))
