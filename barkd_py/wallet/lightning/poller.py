"""Drives the payments of one direction in the background, each at its own pace.

`poll` is called about once a second and starts what is due; it waits for nothing. A payment that gives
trouble is looked at less and less often, one that only waits as often as its owner says (`Pace`). Trouble is
logged when it changes. When something says that there is news (`drive_now`), it is looked at at once, and
once more if somebody was just looking.

There are two lanes. A server that hangs may keep the ordinary one busy for hours, and a payment that has to
decide whether to go on the chain has no hours: those that `is_urgent` says wait for each other only.

Which payments there are is read from the database once, and then known.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from barkd_py.errors import KnownError, log_text
from barkd_py.wallet.actions.executor import ActionExecutor, Machine
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionCheckpoint

log = logging.getLogger(__name__)

MAX_DRIVEN_AT_ONCE = 8
MAX_URGENT_AT_ONCE = 32
MIN_PAUSE_SECS = 1.0
MAX_PAUSE_SECS = 60.0
"""After trouble."""
MAX_PACE_SECS = 120.0
"""Whoever pays is kept waiting for three minutes by the server; a message about it may have been lost."""

Pace = Callable[[ActionCheckpoint], float]
"""How many seconds a payment may wait for its next look, if the last one went well."""
LOOKS_PER_AGE = 30
"""What somebody may be waiting for is looked at when its age has grown by this part."""
IsUrgent = Callable[[ActionCheckpoint], bool]
"""Whether money is lost if a payment is looked at too late."""


@dataclass(slots=True)
class _Schedule:
    """next_at: monotonic seconds. failures: in a row. trouble: what was said last."""

    next_at: float = 0.0
    failures: int = 0
    trouble: str = ""


class Poller:
    """Close it when done. monotonic: seconds."""

    def __init__(
        self,
        store: Store,
        executor: ActionExecutor,
        machine: Machine[Any],
        pace: Pace,
        is_urgent: IsUrgent,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._executor = executor
        self._machine = machine
        self._pace = pace
        self._is_urgent = is_urgent
        self._monotonic = monotonic
        self._schedules: dict[str, _Schedule] = {}
        self._is_loaded = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._turns = asyncio.Semaphore(MAX_DRIVEN_AT_ONCE)
        self._urgent_turns = asyncio.Semaphore(MAX_URGENT_AT_ONCE)

    # --- what there is

    async def is_pending(self) -> bool:
        """Whether any is not finished."""
        return bool(await self._load())

    def expect(self, action_id: str) -> None:
        """There is a new one. It is looked at soon."""
        self._schedules[action_id] = _Schedule(self._monotonic() + MIN_PAUSE_SECS)

    def forget(self, action_id: str) -> None:
        """It is finished."""
        self._schedules.pop(action_id, None)

    async def _load(self) -> dict[str, _Schedule]:
        if not self._is_loaded:
            async with self._store.read() as tx:
                rows = await tx.actions.list(self._machine.kind)
            for row in rows:  # others may have been expected meanwhile
                self._schedules.setdefault(row.id, _Schedule())
            self._is_loaded = True
        return self._schedules

    # --- driving

    async def poll(self) -> None:
        """Drive those whose time has come."""
        now = self._monotonic()
        self._start([action_id for action_id, entry in (await self._load()).items() if entry.next_at <= now])

    def drive_now(self, action_id: str) -> None:
        """There is news about it."""
        if action_id in self._tasks:
            self._again.add(action_id)  # it may have looked just before
        self._start([action_id])

    async def drive_all(self) -> None:
        """Drive each until it pauses, and wait for that."""
        async with self._store.read() as tx:
            rows = await tx.actions.list(self._machine.kind)
        await asyncio.gather(*self._start([row.id for row in rows]))

    async def settle_down(self) -> None:
        """Wait until nothing is being driven."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Stop driving; every payment is where its row says."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, action_ids: Iterable[str]) -> list[asyncio.Task[None]]:
        """The tasks that drive them; one that is being driven is not driven twice."""
        tasks = []
        for action_id in action_ids:
            task = self._tasks.get(action_id)
            if task is None:
                task = asyncio.create_task(self._drive(action_id), name=action_id)
                self._tasks[action_id] = task
                task.add_done_callback(self._ended)
            tasks.append(task)
        return tasks

    def _ended(self, task: asyncio.Task[None]) -> None:
        action_id = task.get_name()
        self._tasks.pop(action_id, None)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("%s", action_id, exc_info=error)
        if action_id in self._again:
            self._again.discard(action_id)
            self._start([action_id])

    async def _drive(self, action_id: str) -> None:
        entry = self._schedules.get(action_id)
        trouble = ""
        row = await self._find(action_id)
        if row is not None:
            try:
                async with self._urgent_turns if self._is_urgent(row) else self._turns:
                    await self._executor.drive(self._machine, action_id)
            except KnownError as error:
                trouble = log_text(error)
            row = await self._find(action_id)
        if row is not None:
            self._reschedule(row, trouble)
            return
        if self._schedules.get(action_id) is entry:  # else there is a new one of this name
            self.forget(action_id)
        if trouble:
            log.warning("%s ended: %s", action_id, trouble)

    async def _find(self, action_id: str) -> ActionCheckpoint | None:
        async with self._store.read() as tx:
            return await tx.actions.find(action_id)

    def _reschedule(self, row: ActionCheckpoint, trouble: str) -> None:
        entry = self._schedules.setdefault(row.id, _Schedule())
        if trouble and trouble != entry.trouble:
            log.warning("%s goes on: %s", row.id, trouble)
        entry.trouble = trouble
        entry.failures = entry.failures + 1 if trouble else 0
        if trouble:
            pause = min(MAX_PAUSE_SECS, MIN_PAUSE_SECS * 2.0 ** min(entry.failures, 10))
        else:
            pause = min(MAX_PACE_SECS, max(MIN_PAUSE_SECS, self._pace(row)))
        entry.next_at = self._monotonic() + pause


def pace_by_age(row: ActionCheckpoint, now: float) -> float:
    """Often while it is young. now: Unix seconds."""
    return (now - row.created_at.timestamp()) / LOOKS_PER_AGE
