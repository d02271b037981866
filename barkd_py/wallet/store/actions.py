"""Checkpoints of resumable actions. A row exists exactly while its action is not finished.

Source: sheet 09 §2.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.store.tables import action_checkpoint as t
from barkd_py.wallet.store.tables import action_vtxo

# Built once, as what a payment needs of `vtxos` is.
_UPDATE = sa.update(t).where(t.c.id == sa.bindparam("action_id")).returning(t.c.id)
_INSERT = sa.insert(t).values(
    sequence=sa.select(sa.func.coalesce(sa.func.max(t.c.sequence), 0) + 1).scalar_subquery()
)
_DELETE = sa.delete(t).where(t.c.id == sa.bindparam("action_id"))
_FIND = sa.select(t).where(t.c.id == sa.bindparam("action_id"))
_INSERT_VTXOS = sa.insert(action_vtxo)
_DELETE_VTXOS = sa.delete(action_vtxo).where(action_vtxo.c.action_id == sa.bindparam("of_action"))


class ActionKind(enum.StrEnum):
    LIGHTNING_SEND = "LightningSend"
    LIGHTNING_RECEIVE = "LightningReceive"
    ARKOOR_SEND = "ArkoorSend"
    BOARD = "Board"
    OFFBOARD = "Offboard"

    @property
    def spoken(self) -> str:
        """As people call it."""
        return _SPOKEN[self]


_SPOKEN = {
    ActionKind.LIGHTNING_SEND: "Lightning payment",
    ActionKind.LIGHTNING_RECEIVE: "Lightning receive",
    ActionKind.ARKOOR_SEND: "arkoor send",
    ActionKind.BOARD: "board",
    ActionKind.OFFBOARD: "offboard",
}


@dataclass(frozen=True, slots=True)
class ActionCheckpoint:
    """Where an action is.

    id: also the name of its lock. payload: its state as versioned JSON, see `payloads`.
    """

    id: str
    kind: ActionKind
    payload: str
    created_at: datetime
    updated_at: datetime


class ActionRepository:
    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self._now = now

    async def save(
        self, action_id: str, kind: ActionKind, payload: str, reports: Sequence[VtxoId] = ()
    ) -> None:
        """Store the checkpoint, or overwrite the action's earlier one; its place in the order stays.

        reports: the VTXOs that the balance shall count as this action's, while they are locked.
        """
        columns = {"kind": kind.value, "payload": payload, "updated_at": self._now}
        saved = await self._connection.execute(_UPDATE, {"action_id": action_id, **columns})
        if saved.one_or_none() is None:
            await self._connection.execute(_INSERT, {"id": action_id, "created_at": self._now, **columns})
        else:
            await self._connection.execute(_DELETE_VTXOS, {"of_action": action_id})
        if reports:
            await self._connection.execute(
                _INSERT_VTXOS,
                [{"action_id": action_id, "vtxo_id": str(vtxo_id)} for vtxo_id in dict.fromkeys(reports)],
            )

    async def find(self, action_id: str) -> ActionCheckpoint | None:
        row = (await self._connection.execute(_FIND, {"action_id": action_id})).one_or_none()
        return None if row is None else _checkpoint(row)

    async def list(self, kind: ActionKind | None = None) -> tuple[ActionCheckpoint, ...]:
        """Oldest first."""
        query = sa.select(t).order_by(t.c.sequence)
        if kind is not None:
            query = query.where(t.c.kind == kind.value)
        return tuple(map(_checkpoint, await self._connection.execute(query)))

    async def delete(self, action_id: str) -> None:
        """Forget a finished action; release its locks in the same transaction, or the commit fails."""
        await self._connection.execute(_DELETE, {"action_id": action_id})


def _checkpoint(row: Any) -> ActionCheckpoint:
    return ActionCheckpoint(row.id, ActionKind(row.kind), row.payload, row.created_at, row.updated_at)
