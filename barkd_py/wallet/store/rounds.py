"""Round states. A row exists exactly while its participation is not final. Source: sheet 09 §1.11."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import NotFound
from barkd_py.wallet.store.rows import chunks
from barkd_py.wallet.store.tables import round_input
from barkd_py.wallet.store.tables import round_state as t


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One participation.

    payload: versioned JSON; holds cosign secret keys. movement_id: None until the participation has one; the
    balance counts inputs that are locked for exactly this movement (or for nobody, if None).
    unlock_hash: 32 bytes, once the server has issued the round.
    """

    id: int
    payload: str
    movement_id: int | None
    unlock_hash: bytes | None


class UnknownRound(NotFound):
    def __init__(self, round_id: int) -> None:
        super().__init__(f"no round state found with id {round_id}", (str(round_id),))
        self.round_id = round_id


class RoundRepository:
    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self._now = now

    async def insert(
        self,
        payload: str,
        inputs: Sequence[VtxoId],
        *,
        movement_id: int | None = None,
        unlock_hash: bytes | None = None,
    ) -> int:
        """Store a new participation; returns its id, which no other ever had."""
        result = await self._connection.execute(
            sa.insert(t)
            .values(
                payload=payload,
                movement_id=movement_id,
                unlock_hash=unlock_hash,
                created_at=self._now,
                updated_at=self._now,
            )
            .returning(t.c.id)
        )
        round_id = int(result.scalar_one())
        await self._insert_inputs(round_id, inputs)
        return round_id

    async def _insert_inputs(self, round_id: int, inputs: Sequence[VtxoId]) -> None:
        if inputs:
            await self._connection.execute(
                sa.insert(round_input),
                [{"round_id": round_id, "vtxo_id": str(vtxo_id)} for vtxo_id in dict.fromkeys(inputs)],
            )

    async def update(self, row: RoundRow, *, inputs: Sequence[VtxoId] | None = None) -> None:
        """inputs: where they have changed. Raises UnknownRound, so that a finished one does not come back."""
        result = await self._connection.execute(
            sa.update(t)
            .where(t.c.id == row.id)
            .values(
                payload=row.payload,
                movement_id=row.movement_id,
                unlock_hash=row.unlock_hash,
                updated_at=self._now,
            )
            .returning(t.c.id)
        )
        if result.one_or_none() is None:
            raise UnknownRound(row.id)
        if inputs is not None:
            await self._connection.execute(sa.delete(round_input).where(round_input.c.round_id == row.id))
            await self._insert_inputs(row.id, inputs)

    async def by_input(self) -> dict[VtxoId, tuple[int, ...]]:
        """For each input of a participation, the participations that have it, oldest first."""
        found: dict[VtxoId, tuple[int, ...]] = {}
        query = sa.select(round_input).order_by(round_input.c.round_id)
        for row in await self._connection.execute(query):
            vtxo_id = VtxoId.parse(row.vtxo_id)
            found[vtxo_id] = (*found.get(vtxo_id, ()), row.round_id)
        return found

    async def find(self, round_id: int) -> RoundRow | None:
        row = (await self._connection.execute(sa.select(t).where(t.c.id == round_id))).one_or_none()
        return None if row is None else _round(row)

    async def has_unlock_hash(self, unlock_hash: bytes) -> bool:
        rows = await self._connection.execute(
            sa.select(t.c.id).where(t.c.unlock_hash == unlock_hash).limit(1)
        )
        return rows.one_or_none() is not None

    async def inputs(self, vtxo_ids: Sequence[VtxoId]) -> frozenset[VtxoId]:
        """Those of the VTXOs that are inputs of a participation."""
        found: set[VtxoId] = set()
        for chunk in chunks([str(vtxo_id) for vtxo_id in vtxo_ids]):
            rows = await self._connection.execute(
                sa.select(round_input.c.vtxo_id).where(round_input.c.vtxo_id.in_(chunk))
            )
            found.update(VtxoId.parse(row.vtxo_id) for row in rows)
        return frozenset(found)

    async def list(self) -> tuple[RoundRow, ...]:
        """Oldest first."""
        return tuple(map(_round, await self._connection.execute(sa.select(t).order_by(t.c.id))))

    async def delete(self, round_id: int) -> None:
        await self._connection.execute(sa.delete(t).where(t.c.id == round_id))


def _round(row: Any) -> RoundRow:
    return RoundRow(row.id, row.payload, row.movement_id, row.unlock_hash)
