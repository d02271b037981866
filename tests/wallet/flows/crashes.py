"""A store that dies at a chosen commit, and machines whose every step runs twice."""

from collections.abc import Awaitable, Sequence
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import StoreError
from barkd_py.wallet.actions.executor import Machine, Next, Outcome, step_once
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.payloads import PayloadFormat
from barkd_py.wallet.store.transaction import Clock, OpenStore

When = Literal["before", "after"]


class Crash(BaseException):
    """The process is gone: nothing may catch this."""


class CrashingStore(Store):
    """Dies at commit number `at` (from 0), before or after it reaches the disk, and stays dead."""

    crash_at: int | None = None
    when: When = "before"
    commits = 0

    async def _commit(self, connection: AsyncConnection, unit: AsyncTransaction, tx: Transaction) -> None:
        number = self.commits
        self.commits += 1
        if self.crash_at is None or number < self.crash_at:
            await super()._commit(connection, unit, tx)
            return
        if number == self.crash_at and self.when == "after":
            await unit.commit()
        raise Crash

    def arm(self, crash_at: int | None, when: When = "before") -> None:
        """Count commits from now on."""
        self.commits, self.crash_at, self.when = 0, crash_at, when


class FailingStore(CrashingStore):
    """Commit number `crash_at` (from 0) fails and leaves nothing behind; the process and the others go on."""

    async def _commit(self, connection: AsyncConnection, unit: AsyncTransaction, tx: Transaction) -> None:
        number = self.commits
        self.commits += 1
        if number == self.crash_at:
            raise StoreError("the database or disk is full")
        await Store._commit(self, connection, unit, tx)


async def died(work: Awaitable[None]) -> bool:
    """Whether the process was gone before this was done."""
    try:
        await work
    except Crash:
        return True
    return False


def opener(made: list[CrashingStore], kind: type[CrashingStore] = CrashingStore) -> OpenStore:
    """For `Wallet.open`; the store ends up in the list."""

    async def open_store(url: str, *, clock: Clock) -> Store:
        store = await kind.open(url, clock=clock)
        assert isinstance(store, CrashingStore)
        made.append(store)
        return store

    return open_store


class Twice:
    """A machine each of whose steps runs twice from the same state, with the same kind of outcome."""

    def __init__(self, machine: Machine[Any]) -> None:
        self._machine = machine
        self.steps: list[str] = []

    @property
    def kind(self) -> ActionKind:
        return self._machine.kind

    @property
    def format(self) -> PayloadFormat[Any]:
        return self._machine.format

    def reports(self, state: Any) -> Sequence[VtxoId]:
        return self._machine.reports(state)

    async def step(self, action_id: str, state: Any) -> Outcome[Any]:
        first = await step_once(self._machine, action_id, state)
        second = await step_once(self._machine, action_id, state)
        assert type(first) is type(second), (first, second)
        if isinstance(first, Next) and isinstance(second, Next):
            assert type(first.state) is type(second.state)
        self.steps.append(type(state).__name__)
        return second
