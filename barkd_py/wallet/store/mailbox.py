"""How far the regular mailbox was read. Source: sheet 09 §1.7."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.errors import ProtocolViolation, StateConflict
from barkd_py.wallet.store.tables import mailbox_checkpoint as t

_MAX_CHECKPOINT = 2**63 - 1


class CheckpointNotAdvanced(StateConflict):
    """The stored checkpoint is at least as high. Nothing was changed; harmless."""

    def __init__(self) -> None:
        super().__init__("Checkpoint not advanced - another thread may have a higher value")


class CheckpointOutOfRange(ProtocolViolation):
    def __init__(self, value: int) -> None:
        super().__init__(f"mailbox checkpoint {value} is out of range")


class MailboxRepository:
    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self._now = now

    async def checkpoint(self) -> int:
        """The checkpoint of the last message that was dealt with; 0 before the first."""
        value = (await self._connection.execute(sa.select(t.c.value))).scalar_one_or_none()
        return 0 if value is None else int(value)

    async def advanced_at(self) -> datetime:
        """When the checkpoint was last advanced; now, before the first."""
        found = (await self._connection.execute(sa.select(t.c.updated_at))).scalar_one_or_none()
        return self._now if found is None else found

    async def take_back(self, value: int) -> None:
        """Acknowledge only up to this checkpoint after all. `advanced_at` stays."""
        await self._connection.execute(sa.update(t).where(t.c.value > value).values(value=value))

    async def advance(self, value: int) -> None:
        """Acknowledge all up to this checkpoint. Raises CheckpointNotAdvanced, CheckpointOutOfRange."""
        if not 0 <= value <= _MAX_CHECKPOINT:
            raise CheckpointOutOfRange(value)
        current = (
            await self._connection.execute(sa.select(t.c.value).with_for_update())
        ).scalar_one_or_none()
        if value <= (current or 0):
            raise CheckpointNotAdvanced
        if current is None:
            await self._connection.execute(sa.insert(t).values(id=1, value=value, updated_at=self._now))
        else:
            await self._connection.execute(sa.update(t).values(value=value, updated_at=self._now))
