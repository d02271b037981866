"""What a recovery from the mnemonic has found so far, and what has to be asked for again.

The ids that are to be asked for again outlive the recovery: others find such VTXOs too.
"""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.store.rows import chunks
from barkd_py.wallet.store.tables import recovery_entry as entries
from barkd_py.wallet.store.tables import recovery_run as run
from barkd_py.wallet.store.tables import recovery_vtxo as pending


class RecoveryOutcome(enum.StrEnum):
    """What became of a VTXO that a recovery heard of."""

    RECOVERED = "recovered"  # it is spendable
    LOCKED = "locked"  # it is kept, and cannot be spent for now
    EXITED = "exited"  # it is on the chain; its exit goes on
    SKIPPED = "skipped"  # there was nothing to do
    FOREIGN = "foreign"  # it is not ours
    FAILED = "failed"  # nobody could tell; it is asked for again
    NOT_FOUND = "not_found"  # the server does not know it


@dataclass(frozen=True, slots=True)
class RecoveryEntry:
    """amount_sat: None if the VTXO itself was never seen. reason: for a person to read."""

    vtxo_id: VtxoId
    outcome: RecoveryOutcome
    amount_sat: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RecoveryRun:
    """payload: of `wallet.recovery`. finished_at: None while it goes on."""

    payload: str
    started_at: datetime
    finished_at: datetime | None


class RecoveryRepository:
    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self._now = now

    # --- the run

    async def run(self) -> RecoveryRun | None:
        """The recovery that is under way, or the last one; None if there never was one."""
        row = (await self._connection.execute(sa.select(run))).one_or_none()
        return None if row is None else RecoveryRun(row.payload, row.started_at, row.finished_at)

    async def begin(self, payload: str) -> None:
        """Start over: what the last one found is forgotten."""
        await self.forget()
        await self._connection.execute(sa.insert(run).values(id=1, payload=payload, started_at=self._now))

    async def forget(self) -> None:
        """As if there never had been one."""
        await self._connection.execute(sa.delete(entries))
        await self._connection.execute(sa.delete(run))

    async def save(self, payload: str, *, finished: bool = False) -> None:
        finished_at = self._now if finished else None
        await self._connection.execute(sa.update(run).values(payload=payload, finished_at=finished_at))

    async def amend(self, payload: str) -> None:
        """As `save`, of a run that may be finished, and stays so."""
        await self._connection.execute(sa.update(run).values(payload=payload))

    # --- what it found

    async def put(self, found: Collection[RecoveryEntry]) -> None:
        """Note what became of VTXOs; what was noted of them before is replaced."""
        latest = {str(entry.vtxo_id): entry for entry in found}
        for chunk in chunks(tuple(latest)):
            await self._connection.execute(sa.delete(entries).where(entries.c.vtxo_id.in_(chunk)))
        if latest:
            await self._connection.execute(
                sa.insert(entries),
                [
                    {
                        "vtxo_id": key,
                        "outcome": entry.outcome.value,
                        "amount_sat": entry.amount_sat,
                        "reason": entry.reason,
                    }
                    for key, entry in latest.items()
                ],
            )

    async def outcomes(self, ids: Sequence[VtxoId]) -> Mapping[VtxoId, RecoveryOutcome]:
        """What became of those of the ids that were dealt with."""
        found: dict[VtxoId, RecoveryOutcome] = {}
        for chunk in chunks([str(vtxo_id) for vtxo_id in ids]):
            query = sa.select(entries.c.vtxo_id, entries.c.outcome).where(entries.c.vtxo_id.in_(chunk))
            rows = await self._connection.execute(query)
            found.update((VtxoId.parse(row.vtxo_id), RecoveryOutcome(row.outcome)) for row in rows)
        return found

    async def entries(self, outcome: RecoveryOutcome | None = None) -> tuple[RecoveryEntry, ...]:
        """Everything that was found, by id."""
        query = sa.select(entries).order_by(entries.c.vtxo_id)
        if outcome is not None:
            query = query.where(entries.c.outcome == outcome.value)
        return tuple(
            RecoveryEntry(VtxoId.parse(row.vtxo_id), RecoveryOutcome(row.outcome), row.amount_sat, row.reason)
            for row in await self._connection.execute(query)
        )

    async def count(self) -> int:
        """How many VTXOs were dealt with."""
        return int(
            (await self._connection.execute(sa.select(sa.func.count()).select_from(entries))).scalar_one()
        )

    # --- what is to be asked for again

    async def pending_ids(self) -> tuple[VtxoId, ...]:
        """VTXOs that somebody has heard of and could not decide about, or that nobody may spend for now."""
        rows = await self._connection.execute(sa.select(pending.c.vtxo_id).order_by(pending.c.vtxo_id))
        return tuple(VtxoId.parse(row.vtxo_id) for row in rows)

    async def pending(self, ids: Sequence[VtxoId]) -> frozenset[VtxoId]:
        """Those of the ids that are to be asked for again."""
        found: set[VtxoId] = set()
        for chunk in chunks([str(vtxo_id) for vtxo_id in ids]):
            rows = await self._connection.execute(
                sa.select(pending.c.vtxo_id).where(pending.c.vtxo_id.in_(chunk))
            )
            found.update(VtxoId.parse(row.vtxo_id) for row in rows)
        return frozenset(found)

    async def add_pending(self, ids: Sequence[VtxoId]) -> None:
        """Remember ids; known ones stay."""
        known = await self.pending(ids)
        fresh = [vtxo_id for vtxo_id in dict.fromkeys(ids) if vtxo_id not in known]
        if fresh:
            await self._connection.execute(
                sa.insert(pending), [{"vtxo_id": str(vtxo_id)} for vtxo_id in fresh]
            )

    async def remove_pending(self, ids: Sequence[VtxoId]) -> None:
        for chunk in chunks([str(vtxo_id) for vtxo_id in ids]):
            await self._connection.execute(sa.delete(pending).where(pending.c.vtxo_id.in_(chunk)))
