"""Exits, the children that pay for their transactions, and the claims. Source: sheet 06 §2.8."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.wallet.store.rows import chunks
from barkd_py.wallet.store.tables import exit_child, exit_claim
from barkd_py.wallet.store.tables import exit_state as t

LIVE_KINDS = frozenset({"start", "processing", "awaiting-delta", "claimable", "claim-in-progress"})
"""Exits that are not finished."""

COMMITTED_KINDS = frozenset({"awaiting-delta", "claimable", "claim-in-progress"})
"""Live exits that cannot be canceled any more; the balance counts them."""


@dataclass(frozen=True, slots=True)
class ExitRow:
    """One exit.

    kind: type of the present state, as in its JSON. state: versioned JSON.
    history: JSON list of the earlier states, oldest first.
    """

    vtxo_id: VtxoId
    kind: str
    state: str
    history: str
    movement_id: int | None


@dataclass(frozen=True, slots=True)
class ExitChildRow:
    """The CPFP child of an exit transaction. child_tx: raw. origin: JSON."""

    exit_txid: Txid
    child_tx: bytes
    origin: str


class ExitRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def save(self, row: ExitRow) -> None:
        """Store the exit, or overwrite the VTXO's earlier state."""
        values = {
            "kind": row.kind,
            "state": row.state,
            "history": row.history,
            "movement_id": row.movement_id,
        }
        await self._upsert(t, t.c.vtxo_id == str(row.vtxo_id), {"vtxo_id": str(row.vtxo_id)}, values)

    async def find(self, vtxo_id: VtxoId) -> ExitRow | None:
        row = (await self._connection.execute(sa.select(t).where(t.c.vtxo_id == str(vtxo_id)))).one_or_none()
        return None if row is None else _exit(row)

    async def find_many(self, vtxo_ids: Sequence[VtxoId]) -> dict[VtxoId, ExitRow]:
        """Those of the VTXOs that have an exit."""
        found: dict[VtxoId, ExitRow] = {}
        for chunk in chunks([str(vtxo_id) for vtxo_id in vtxo_ids]):
            rows = await self._connection.execute(sa.select(t).where(t.c.vtxo_id.in_(chunk)))
            found.update((row.vtxo_id, row) for row in map(_exit, rows))
        return found

    async def list(self, *, only_live: bool = False) -> tuple[ExitRow, ...]:
        query = sa.select(t).order_by(t.c.vtxo_id)
        if only_live:
            query = query.where(t.c.kind.in_(sorted(LIVE_KINDS)))
        return tuple(map(_exit, await self._connection.execute(query)))

    async def has_live(self) -> bool:
        rows = await self._connection.execute(
            sa.select(t.c.vtxo_id).where(t.c.kind.in_(sorted(LIVE_KINDS))).limit(1)
        )
        return rows.one_or_none() is not None

    async def save_child(self, row: ExitChildRow) -> None:
        """Store the child, or replace the exit transaction's earlier one."""
        values = {"child_tx": row.child_tx, "origin": row.origin}
        key = {"exit_txid": str(row.exit_txid)}
        await self._upsert(exit_child, exit_child.c.exit_txid == str(row.exit_txid), key, values)

    async def find_children(self, exit_txids: Sequence[Txid]) -> tuple[ExitChildRow, ...]:
        """The children of these exit transactions, as far as there are any."""
        found: list[ExitChildRow] = []
        for chunk in chunks([str(txid) for txid in exit_txids]):
            rows = await self._connection.execute(
                sa.select(exit_child).where(exit_child.c.exit_txid.in_(chunk))
            )
            found += [ExitChildRow(Txid.from_hex(row.exit_txid), row.child_tx, row.origin) for row in rows]
        return tuple(found)

    async def delete_child(self, exit_txid: Txid) -> None:
        await self._connection.execute(sa.delete(exit_child).where(exit_child.c.exit_txid == str(exit_txid)))

    async def save_claim(self, claim_tx: Tx) -> None:
        """Store a signed claim; it may be stored already."""
        key = {"txid": str(claim_tx.txid)}
        await self._upsert(exit_claim, exit_claim.c.txid == key["txid"], key, {"tx": claim_tx.serialize()})

    async def find_claim(self, txid: Txid) -> Tx | None:
        rows = await self._connection.execute(sa.select(exit_claim).where(exit_claim.c.txid == str(txid)))
        row = rows.one_or_none()
        return None if row is None else Tx.parse(row.tx)

    async def delete_claim(self, txid: Txid) -> None:
        await self._connection.execute(sa.delete(exit_claim).where(exit_claim.c.txid == str(txid)))

    async def _upsert(
        self, table: sa.Table, where: sa.ColumnElement[bool], key: dict[str, Any], values: dict[str, Any]
    ) -> None:
        updated = await self._connection.execute(
            sa.update(table).where(where).values(**values).returning(sa.literal(1))
        )
        if updated.one_or_none() is None:
            await self._connection.execute(sa.insert(table).values(**key, **values))


def _exit(row: Any) -> ExitRow:
    return ExitRow(VtxoId.parse(row.vtxo_id), row.kind, row.state, row.history, row.movement_id)
