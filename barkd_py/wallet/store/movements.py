"""Movements as rows. The rules are those of `wallet.movements`; here they meet database and listeners.

Every method that writes also emits, and what it emits goes out when the transaction has committed.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.movements import (
    ARKOOR_RECEIVE,
    JsonValue,
    Movement,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
    Subsystem,
    UnknownMovement,
    apply_update,
    finish,
    finish_with_update,
    patch_metadata,
)
from barkd_py.wallet.notifications import MovementCreated, MovementUpdated, WalletEvent
from barkd_py.wallet.store.rows import chunks, from_json, to_json
from barkd_py.wallet.store.tables import IS_FAILED
from barkd_py.wallet.store.tables import movement as t
from barkd_py.wallet.store.tables import movement_destination as td
from barkd_py.wallet.store.tables import movement_vtxo as tv

# Built once, as what a payment needs of `vtxos` is.
_INSERT = sa.insert(t).returning(t.c.id)
_INSERT_DESTINATIONS = sa.insert(td)
_INSERT_VTXOS = sa.insert(tv)
_UPDATE = sa.update(t).where(t.c.id == sa.bindparam("movement_id"))  # the columns that the parameters name
_DELETE_DESTINATIONS = sa.delete(td).where(td.c.movement_id == sa.bindparam("of_movement"))
_DELETE_VTXOS = sa.delete(tv).where(tv.c.movement_id == sa.bindparam("of_movement"))
_FIND = sa.select(t).where(t.c.id == sa.bindparam("movement_id"))
_FIND_FOR_UPDATE = _FIND.with_for_update()
_FIND_BY_ACTION = sa.select(t).where(t.c.action_id == sa.bindparam("of_action"))
_FIND_BY_ACTION_FOR_UPDATE = _FIND_BY_ACTION.with_for_update()
_FAILED_RECEIPTS = (
    sa.select(tv.c.vtxo_id)
    .join(t, t.c.id == tv.c.movement_id)
    .where(
        IS_FAILED,
        t.c.subsystem_name == ARKOOR_RECEIVE.name,
        t.c.subsystem_kind == ARKOOR_RECEIVE.kind,
        tv.c.role == "output",
    )
)


class MovementRepository:
    def __init__(
        self, connection: AsyncConnection, now: datetime, emit: Callable[[WalletEvent], None]
    ) -> None:
        self._connection = connection
        self._now = now
        self._emit = emit

    # --- writing

    async def create(self, subsystem: Subsystem, update: MovementUpdate | None = None) -> Movement:
        """A new pending movement. As in barkd, an update is announced before the creation."""
        movement = await self._insert(subsystem, update, None)
        if update is not None:
            self._emit(MovementUpdated(movement))
        self._emit(MovementCreated(movement))
        return movement

    async def create_finished(
        self, subsystem: Subsystem, status: MovementStatus, update: MovementUpdate | None = None
    ) -> Movement:
        """A new movement that is finished already; one `MovementCreated`. Raises PendingIsNotFinished."""
        movement = await self._insert(subsystem, update, None)
        finished = finish(movement, status, self._now)
        assert finished is not None, "a new movement is pending"
        await self._write(movement, finished)
        self._emit(MovementCreated(finished))
        return finished

    async def get_or_create(
        self, action_id: str, subsystem: Subsystem, update: MovementUpdate | None = None
    ) -> Movement:
        """The movement of an action. The update is applied, and the event emitted, only if it is new."""
        if (found := await self.find_by_action(action_id)) is not None:
            return found
        movement = await self._insert(subsystem, update, action_id)
        self._emit(MovementCreated(movement))
        return movement

    async def update(self, movement_id: int, update: MovementUpdate) -> Movement:
        """Raises UnknownMovement."""
        movement = await self._get_locked(movement_id)
        updated = apply_update(movement, update, self._now)
        await self._write(movement, updated)
        self._emit(MovementUpdated(updated))
        return updated

    async def finish(self, movement_id: int, status: MovementStatus) -> Movement:
        """Finish a movement; once more with the same status is a no-op without event.

        Raises UnknownMovement, PendingIsNotFinished.
        """
        movement = await self._get_locked(movement_id)
        finished = finish(movement, status, self._now)
        if finished is None:
            return movement
        await self._write(movement, finished)
        self._emit(MovementUpdated(finished))
        return finished

    async def finish_with_update(
        self, movement_id: int, status: MovementStatus, update: MovementUpdate
    ) -> Movement:
        """Update and finish in one step; applies every time. Raises UnknownMovement, PendingIsNotFinished."""
        movement = await self._get_locked(movement_id)
        finished = finish_with_update(movement, status, update, self._now)
        await self._write(movement, finished)
        self._emit(MovementUpdated(finished))
        return finished

    async def finish_of_action(
        self, action_id: str, status: MovementStatus, update: MovementUpdate
    ) -> Movement:
        """As `finish_with_update`, for the movement of an action, which must have one."""
        found = await self._select(_FIND_BY_ACTION_FOR_UPDATE, {"of_action": action_id})
        assert found, "an action that ends has a movement"
        finished = finish_with_update(found[0], status, update, self._now)
        await self._write(found[0], finished)
        self._emit(MovementUpdated(finished))
        return finished

    async def patch_metadata(self, movement_id: int, patch: JsonValue) -> Movement:
        """Apply a user's merge patch to the metadata. Raises UnknownMovement."""
        movement = await self._get_locked(movement_id)
        patched = patch_metadata(movement, patch, self._now)
        await self._write(movement, patched)
        self._emit(MovementUpdated(patched))
        return patched

    # --- reading

    async def get(self, movement_id: int) -> Movement:
        """Raises UnknownMovement."""
        found = await self._select(_FIND, {"movement_id": movement_id})
        if not found:
            raise UnknownMovement(movement_id)
        return found[0]

    async def find_by_action(self, action_id: str) -> Movement | None:
        found = await self._select(_FIND_BY_ACTION, {"of_action": action_id})
        return found[0] if found else None

    async def list(self, *, limit: int | None = None, before: int | None = None) -> tuple[Movement, ...]:
        """Movements, newest first: by falling id, for a clock may be put back between two of them.

        limit, before: one page, starting behind the movement with this id.
        """
        query = sa.select(t).order_by(t.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(t.c.id < before)
        return await self._select(query)

    async def list_by_method(
        self, method: PaymentMethod, *, limit: int | None = None, after: int | None = None
    ) -> tuple[Movement, ...]:
        """Movements that paid to, or were paid on, exactly this method; by rising id.

        limit, after: one page, of ids beyond this one.
        """
        ids = sa.select(td.c.movement_id).where(
            td.c.method_value == method.value, td.c.method_kind == method.kind.value
        )
        query = sa.select(t).where(t.c.id.in_(ids)).order_by(t.c.id).limit(limit)
        if after is not None:
            query = query.where(t.c.id > after)
        return await self._select(query)

    async def failed_receipts(self, vtxo_ids: Collection[VtxoId]) -> frozenset[VtxoId]:
        """Those of the VTXOs that were received, and were no income."""
        rows = await self._connection.execute(_FAILED_RECEIPTS)
        return frozenset(vtxo_ids) & {VtxoId.parse(row.vtxo_id) for row in rows}

    # --- rows

    async def _insert(
        self, subsystem: Subsystem, update: MovementUpdate | None, action_id: str | None
    ) -> Movement:
        blank = Movement(
            id=0,
            status=MovementStatus.PENDING,
            subsystem=subsystem,
            created_at=self._now,
            updated_at=self._now,
            action_id=action_id,
        )
        full = blank if update is None else apply_update(blank, update, self._now)
        result = await self._connection.execute(_INSERT, _columns(full))
        movement_id = int(result.scalar_one())
        await self._insert_destinations(movement_id, full)
        await self._insert_vtxos(movement_id, full)
        return replace(full, id=movement_id)

    async def _get_locked(self, movement_id: int) -> Movement:
        found = await self._select(_FIND_FOR_UPDATE, {"movement_id": movement_id})
        if not found:
            raise UnknownMovement(movement_id)
        return found[0]

    async def _write(self, before: Movement, after: Movement) -> None:
        await self._connection.execute(_UPDATE, {"movement_id": after.id, **_columns(after)})
        if _destinations(before) != _destinations(after):
            await self._connection.execute(_DELETE_DESTINATIONS, {"of_movement": after.id})
            await self._insert_destinations(after.id, after)
        if _vtxos(before) != _vtxos(after):
            await self._connection.execute(_DELETE_VTXOS, {"of_movement": after.id})
            await self._insert_vtxos(after.id, after)

    async def _insert_destinations(self, movement_id: int, movement: Movement) -> None:
        rows = [
            {
                "movement_id": movement_id,
                "role": role,
                "position": position,
                "method_kind": destination.method.kind.value,
                "method_value": destination.method.value,
                "amount_sat": destination.amount_sat,
            }
            for role, listed in _destinations(movement)
            for position, destination in enumerate(listed)
        ]
        if rows:
            await self._connection.execute(_INSERT_DESTINATIONS, rows)

    async def _insert_vtxos(self, movement_id: int, movement: Movement) -> None:
        rows = [
            {"movement_id": movement_id, "role": role, "position": position, "vtxo_id": str(vtxo_id)}
            for role, listed in _vtxos(movement)
            for position, vtxo_id in enumerate(listed)
        ]
        if rows:
            await self._connection.execute(_INSERT_VTXOS, rows)

    async def _select(
        self, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None
    ) -> tuple[Movement, ...]:
        """The movements of a query over `movement`, with their lists: three queries, however many rows."""
        rows = (await self._connection.execute(query, parameters)).all()
        destinations: dict[tuple[int, str], list[MovementDestination]] = defaultdict(list)
        vtxos: dict[tuple[int, str], list[VtxoId]] = defaultdict(list)
        for chunk in chunks([row.id for row in rows]):
            for child in await self._connection.execute(*_children_of(td, chunk)):
                method = PaymentMethod(PaymentMethodKind(child.method_kind), child.method_value)
                destinations[child.movement_id, child.role].append(
                    MovementDestination(method, child.amount_sat)
                )
            for child in await self._connection.execute(*_children_of(tv, chunk)):
                vtxos[child.movement_id, child.role].append(VtxoId.parse(child.vtxo_id))
        return tuple(
            Movement(
                id=row.id,
                status=MovementStatus(row.status),
                subsystem=Subsystem(row.subsystem_name, row.subsystem_kind),
                created_at=row.created_at,
                updated_at=row.updated_at,
                completed_at=row.completed_at,
                metadata=from_json(row.metadata),
                intended_balance_sat=row.intended_balance_sat,
                effective_balance_sat=row.effective_balance_sat,
                offchain_fee_sat=row.offchain_fee_sat,
                sent_to=tuple(destinations.get((row.id, "sent_to"), ())),
                received_on=tuple(destinations.get((row.id, "received_on"), ())),
                input_vtxos=tuple(vtxos.get((row.id, "input"), ())),
                output_vtxos=tuple(vtxos.get((row.id, "output"), ())),
                exited_vtxos=tuple(vtxos.get((row.id, "exited"), ())),
                action_id=row.action_id,
            )
            for row in rows
        )


def _ordered(table: sa.Table, which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(table).where(which).order_by(table.c.movement_id, table.c.role, table.c.position)


_RUNS = {
    table: _ordered(table, table.c.movement_id.between(sa.bindparam("low"), sa.bindparam("high")))
    for table in (td, tv)
}


def _children_of(table: sa.Table, ids: Sequence[int]) -> tuple[sa.Select[Any], dict[str, int]]:
    """The child rows of these movements, in the order of their lists: a query and its parameters.

    A page of the history is a run of neighbouring ids, so a range with few strangers in it reads faster than
    a list of thousands of ids.
    """
    low, high = min(ids), max(ids)
    if high - low + 1 == len(ids):
        return _RUNS[table], {"low": low, "high": high}
    return _ordered(table, table.c.movement_id.in_(ids)), {}


def _destinations(movement: Movement) -> tuple[tuple[str, tuple[MovementDestination, ...]], ...]:
    """The lists of destinations by their role in the table."""
    return ("sent_to", movement.sent_to), ("received_on", movement.received_on)


def _vtxos(movement: Movement) -> tuple[tuple[str, tuple[VtxoId, ...]], ...]:
    """The lists of VTXOs by their role in the table."""
    return (
        ("input", movement.input_vtxos),
        ("output", movement.output_vtxos),
        ("exited", movement.exited_vtxos),
    )


def _columns(movement: Movement) -> dict[str, Any]:
    return {
        "status": movement.status.value,
        "subsystem_name": movement.subsystem.name,
        "subsystem_kind": movement.subsystem.kind,
        "metadata": to_json(dict(movement.metadata)),
        "intended_balance_sat": movement.intended_balance_sat,
        "effective_balance_sat": movement.effective_balance_sat,
        "offchain_fee_sat": movement.offchain_fee_sat,
        "created_at": movement.created_at,
        "updated_at": movement.updated_at,
        "completed_at": movement.completed_at,
        "action_id": movement.action_id,
    }
