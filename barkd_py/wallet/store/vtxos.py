"""VTXOs and every state they ever had. The rule of state changes is `wallet.vtxo_states.next_state`."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar, assert_never

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import OutPoint
from barkd_py.bitcoin.units import MAX_MONEY_SAT
from barkd_py.errors import ProtocolViolation, StoreError
from barkd_py.wallet.store.rows import chunks, from_json, to_json
from barkd_py.wallet.store.tables import IS_UNREGISTERED, IS_UNSPENT, exit_state, vtxo_body, vtxo_state
from barkd_py.wallet.store.tables import vtxo as t
from barkd_py.wallet.vtxo_states import (
    UNSPENT,
    ActionHolder,
    Exited,
    Holder,
    Lock,
    Locked,
    MarkExited,
    MarkSpent,
    MovementHolder,
    NewVtxo,
    Release,
    Spendable,
    Spent,
    StateChange,
    StateEntry,
    StateKind,
    StealLock,
    StealSpent,
    UnknownVtxo,
    VtxoState,
    WalletVtxo,
    next_state,
)

_V = TypeVar("_V")

# Ids that are parsed before anything else gets a turn.
_TURN = 1_000

_ORDER = (t.c.expiry_height, t.c.amount_sat.desc(), t.c.id)
_SPENDING_ORDER = (t.c.expiry_height, t.c.exit_depth.desc(), t.c.amount_sat.desc(), t.c.id)

_IS_SWEPT = sa.exists().where(exit_state.c.vtxo_id == t.c.id, exit_state.c.kind == "vtxo-swept")
_IS_PAYABLE = sa.and_(t.c.state_kind == StateKind.SPENDABLE.value, sa.not_(_IS_SWEPT))
_PAYABLE = sa.select(t).where(_IS_PAYABLE).order_by(*_ORDER)
_FIRST_PAYABLE = (
    sa.select(t)
    .where(_IS_PAYABLE, t.c.expiry_height > sa.bindparam("after_height", type_=sa.BigInteger))
    .order_by(*_SPENDING_ORDER)
    .limit(sa.bindparam("count", type_=sa.Integer))
)
_REFRESHABLE = (
    sa.select(t)
    .where(
        t.c.state_kind == StateKind.SPENDABLE.value,
        sa.or_(t.c.expiry_height <= sa.bindparam("tip_height", type_=sa.BigInteger), sa.not_(_IS_SWEPT)),
    )
    .order_by(*_ORDER)
)

# What a payment needs is built once: SQLAlchemy takes longer to make a statement, and to find what it has
# compiled for one like it, than SQLite to answer. `ids`: a chunk of ids as text.
_IDS = t.c.id.in_(sa.bindparam("ids", expanding=True))
_INSERT = sa.insert(t)
_INSERT_BODIES = sa.insert(vtxo_body)
_INSERT_STATES = sa.insert(vtxo_state)
_UPDATE = sa.update(t).where(_IDS)  # sets the columns that the parameters name
_KNOWN = sa.select(t.c.id).where(_IDS)
_FIND = sa.select(t).where(t.c.id == sa.bindparam("vtxo_id"))
_FIND_MANY = sa.select(t).where(_IDS)
_BODIES = sa.select(vtxo_body).where(vtxo_body.c.vtxo_id.in_(sa.bindparam("ids", expanding=True)))
_STATES_FOR_UPDATE = (
    sa.select(t.c.id, t.c.state_kind, t.c.lock_movement_id, t.c.lock_action_id)
    .where(_IDS)
    .order_by(t.c.id)
    .with_for_update()
)
_UNREGISTERED = sa.select(t.c.id).where(IS_UNREGISTERED).order_by(t.c.created_at, t.c.id)
_UNSPENT_IDS = sa.select(t.c.id).where(IS_UNSPENT).order_by(*_ORDER)  # the order is that of the right index


class AmountOutOfRange(ProtocolViolation):
    """A VTXO claims more bitcoin than there are; only one that nobody validated can get here."""

    def __init__(self, vtxo_id: VtxoId) -> None:
        super().__init__(f"the amount of vtxo {vtxo_id} is out of range")
        self.vtxo_id = vtxo_id


class VtxoUnreadable(StoreError):
    """The stored bytes of a VTXO are not, or no longer, what they should be."""

    def __init__(self, vtxo_id: VtxoId, why: str) -> None:
        super().__init__(f"the stored VTXO {vtxo_id} cannot be read: {why}")
        self.vtxo_id = vtxo_id


class VtxoRepository:
    """touch: told of every VTXO that was stored, changed or removed."""

    def __init__(
        self, connection: AsyncConnection, now: datetime, touch: Callable[[Iterable[VtxoId]], None]
    ) -> None:
        self._connection = connection
        self._now = now
        self._touch = touch

    # --- storing

    async def insert(self, vtxos: Iterable[NewVtxo], *, registered: bool = False) -> frozenset[VtxoId]:
        """Store those that are not stored yet; the others, and their states, stay as they are.

        Returns the ids that are new. Raises AmountOutOfRange, and nothing was written then.
        """
        wanted = {str(new.vtxo.id): new for new in vtxos}
        known = {str(vtxo_id) for vtxo_id in await self.known([new.vtxo.id for new in wanted.values()])}
        fresh = {key: new for key, new in wanted.items() if key not in known}
        if not fresh:
            return frozenset()
        await self._connection.execute(
            _INSERT, [self._row(new.vtxo, new.state, registered) for new in fresh.values()]
        )
        await self._connection.execute(
            _INSERT_BODIES,
            [{"vtxo_id": key, **_body_columns(new.vtxo)} for key, new in fresh.items()],
        )
        await self._append_states({key: new.state for key, new in fresh.items()})
        new_ids = frozenset(new.vtxo.id for new in fresh.values())
        self._touch(new_ids)
        return new_ids

    async def mark_registered(self, ids: Sequence[VtxoId]) -> None:
        """Note that the server and the recovery mailbox know these."""
        for chunk in chunks([str(vtxo_id) for vtxo_id in ids]):
            await self._connection.execute(_UPDATE, {"ids": chunk, "registered": True})
        self._touch(ids)

    async def replace_body(self, vtxo: Vtxo) -> None:
        """Store the chain of transactions of a stored VTXO anew. Dangerous: it must have been proven."""
        await self._connection.execute(
            sa.update(vtxo_body).where(vtxo_body.c.vtxo_id == str(vtxo.id)).values(_body_columns(vtxo))
        )
        self._touch([vtxo.id])

    async def remove(self, ids: Sequence[VtxoId]) -> None:
        """Delete VTXOs and their history. Dangerous: a coin may be lost with it."""
        for chunk in chunks([str(vtxo_id) for vtxo_id in ids]):
            await self._connection.execute(sa.delete(t).where(t.c.id.in_(chunk)))
        self._touch(ids)

    # --- reading

    async def known(self, ids: Sequence[VtxoId]) -> frozenset[VtxoId]:
        """Those of the ids that are stored, in whatever state."""
        found: set[VtxoId] = set()
        for chunk in chunks([str(vtxo_id) for vtxo_id in ids]):
            rows = await self._connection.execute(_KNOWN, {"ids": chunk})
            found.update(VtxoId.parse(row.id) for row in rows)
        return frozenset(found)

    async def unspent_ids(self) -> Sequence[VtxoId]:
        """Ids of all that is neither spent nor exited. Others have their turn while they are read."""
        found: list[VtxoId] = []
        rows = (await self._connection.execute(_UNSPENT_IDS)).scalars().all()
        for start in range(0, len(rows), _TURN):
            found += map(VtxoId.parse, rows[start : start + _TURN])
            await asyncio.sleep(0)
        return found

    async def find(self, vtxo_id: VtxoId) -> WalletVtxo | None:
        rows = await self._connection.execute(_FIND, {"vtxo_id": str(vtxo_id)})
        row = rows.one_or_none()
        return None if row is None else _vtxo(row)

    async def get(self, vtxo_id: VtxoId) -> WalletVtxo:
        """Raises UnknownVtxo."""
        if (found := await self.find(vtxo_id)) is None:
            raise UnknownVtxo(vtxo_id)
        return found

    async def get_many(self, ids: Sequence[VtxoId]) -> tuple[WalletVtxo, ...]:
        """In the order of the ids. Raises UnknownVtxo."""
        found = await self.find_many(ids)
        return tuple(_require(found, vtxo_id) for vtxo_id in ids)

    async def find_many(self, ids: Collection[VtxoId]) -> dict[VtxoId, WalletVtxo]:
        """Those of the ids that are stored."""
        found: dict[VtxoId, WalletVtxo] = {}
        for chunk in chunks([str(vtxo_id) for vtxo_id in ids]):
            rows = await self._connection.execute(_FIND_MANY, {"ids": chunk})
            found.update((vtxo.id, vtxo) for vtxo in map(_vtxo, rows))
        return found

    async def list(
        self,
        kinds: Collection[StateKind] | None = UNSPENT,
        *,
        limit: int | None = None,
        after: VtxoId | None = None,
    ) -> tuple[WalletVtxo, ...]:
        """VTXOs by expiry height, then by falling amount, then by id. kinds: None for all states.

        limit, after: one page, starting behind this VTXO (which need not be of these kinds).
        """
        query = sa.select(t).order_by(*_ORDER).limit(limit)
        if kinds is not None and set(kinds) == UNSPENT:
            query = query.where(IS_UNSPENT)
        elif kinds is not None and set(kinds) != set(StateKind):
            query = query.where(t.c.state_kind.in_([kind.value for kind in kinds]))
        if after is not None:
            last = await self.get(after)
            query = query.where(
                t.c.expiry_height >= last.expiry_height,  # for the index
                sa.or_(
                    t.c.expiry_height > last.expiry_height,
                    sa.and_(t.c.expiry_height == last.expiry_height, t.c.amount_sat < last.amount_sat),
                    sa.and_(
                        t.c.expiry_height == last.expiry_height,
                        t.c.amount_sat == last.amount_sat,
                        t.c.id > str(after),
                    ),
                ),
            )
        return tuple(map(_vtxo, await self._connection.execute(query)))

    async def payable(self, *, limit: int | None = None) -> tuple[WalletVtxo, ...]:
        """Spendable VTXOs that may be chosen for something, in the order of `list`.

        That is all but those of which an exit has shown that what they come from was taken. They stay
        spendable, because that is the contract and the exit may be tried again; but nobody would accept them.
        """
        query = _PAYABLE if limit is None else _PAYABLE.limit(limit)
        return tuple(map(_vtxo, await self._connection.execute(query)))

    async def first_payable(
        self, count: int, *, expires_after_height: int | None = None
    ) -> tuple[WalletVtxo, ...]:
        """So many as are spent first of those that are `payable`: by expiry height, falling depth, falling
        amount, then by id. expires_after_height: None for any.
        """
        after_height = -1 if expires_after_height is None else expires_after_height
        rows = await self._connection.execute(_FIRST_PAYABLE, {"after_height": after_height, "count": count})
        return tuple(map(_vtxo, rows))

    async def refreshable(self, tip_height: int) -> tuple[WalletVtxo, ...]:
        """As `payable`, and those that have expired: the server may refresh what it has swept itself."""
        rows = await self._connection.execute(_REFRESHABLE, {"tip_height": tip_height})
        return tuple(map(_vtxo, rows))

    async def has_spendable(self, *, expiring_before: int, min_exit_depth: int | None) -> bool:
        """Whether a spendable VTXO expires before a height, or is as deep as this."""
        query = sa.select(t.c.state_kind).where(t.c.state_kind == StateKind.SPENDABLE.value).limit(1)
        wanted = [t.c.expiry_height < expiring_before]
        if min_exit_depth is not None:
            wanted.append(t.c.exit_depth >= min_exit_depth)
        for each in wanted:  # one by one, for the index
            if (await self._connection.execute(query.where(each))).one_or_none() is not None:
                return True
        return False

    async def held_by(self, holder: Holder | None) -> tuple[WalletVtxo, ...]:
        """The VTXOs that are locked for this holder."""
        return tuple(map(_vtxo, await self._connection.execute(sa.select(t).where(_is_locked_for(holder)))))

    async def unregistered(self) -> tuple[VtxoId, ...]:
        """VTXOs that the server may not know, spent ones excepted."""
        rows = await self._connection.execute(_UNREGISTERED)
        return tuple(VtxoId.parse(row.id) for row in rows)

    async def body(self, vtxo_id: VtxoId) -> Vtxo:
        """The VTXO with its chain of transactions. Raises UnknownVtxo, VtxoUnreadable."""
        return (await self.bodies([vtxo_id]))[0]

    async def bodies(self, ids: Sequence[VtxoId]) -> tuple[Vtxo, ...]:
        """The VTXOs with their chains of transactions, in the order of the ids.

        Raises UnknownVtxo, VtxoUnreadable.
        """
        vtxos, unreadable = await self.readable_bodies(ids)
        if unreadable:
            raise unreadable[0]
        return vtxos

    async def readable_bodies(
        self, ids: Sequence[VtxoId]
    ) -> tuple[tuple[Vtxo, ...], tuple[VtxoUnreadable, ...]]:
        """As `bodies`, and why any are left out: for work on many, which one must not stop.

        Raises UnknownVtxo.
        """
        found: dict[VtxoId, Vtxo | VtxoUnreadable] = {}
        for chunk in chunks([str(vtxo_id) for vtxo_id in ids]):
            rows = await self._connection.execute(_BODIES, {"ids": chunk})
            found.update((VtxoId.parse(row.vtxo_id), _body(row)) for row in rows)
        read = [_require(found, vtxo_id) for vtxo_id in ids]
        return (
            tuple([each for each in read if isinstance(each, Vtxo)]),
            tuple([each for each in read if isinstance(each, VtxoUnreadable)]),
        )

    async def history(self, vtxo_id: VtxoId) -> tuple[StateEntry, ...]:
        """Every state of the VTXO, oldest first; empty if it is unknown."""
        rows = await self._connection.execute(
            sa.select(vtxo_state).where(vtxo_state.c.vtxo_id == str(vtxo_id)).order_by(vtxo_state.c.id)
        )
        return tuple(StateEntry(_state_from_json(row.state), row.created_at) for row in rows)

    # --- changing states; batches are all or nothing

    async def lock(self, ids: Sequence[VtxoId], holder: Holder | None) -> None:
        """Reserve spendable VTXOs. Raises VtxoStateConflict, UnknownVtxo."""
        await self.change(ids, Lock(holder))

    async def release(self, ids: Sequence[VtxoId], holder: Holder | None) -> None:
        """Make VTXOs spendable that are locked for exactly this holder; others stay. Raises UnknownVtxo."""
        await self.change(ids, Release(holder))

    async def release_held_by(self, holder: Holder) -> None:
        """Release whatever the holder has locked."""
        await self.change([vtxo.id for vtxo in await self.held_by(holder)], Release(holder))

    async def mark_spent(self, ids: Sequence[VtxoId]) -> None:
        """Raises VtxoStateConflict (exited), UnknownVtxo."""
        await self.change(ids, MarkSpent())

    async def mark_exited(self, ids: Sequence[VtxoId]) -> None:
        """Raises VtxoStateConflict (spent), UnknownVtxo."""
        await self.change(ids, MarkExited())

    async def steal_lock(self, ids: Sequence[VtxoId], holder: Holder) -> None:
        """Lock VTXOs whoever holds them; exited ones stay. Raises UnknownVtxo."""
        await self.change(ids, StealLock(holder))

    async def steal_spent(self, ids: Sequence[VtxoId]) -> None:
        """Mark VTXOs spent whoever holds them; exited ones stay. Raises UnknownVtxo."""
        await self.change(ids, StealSpent())

    async def change(self, ids: Sequence[VtxoId], change: StateChange) -> None:
        """Apply one change to all of the VTXOs, or to none.

        Raises VtxoStateConflict, UnknownVtxo; then nothing was written, and the transaction may go on.
        """
        ids = tuple(dict.fromkeys(ids))
        current = await self._lock_rows(ids)
        changed: dict[str, VtxoState] = {}
        for vtxo_id in ids:
            after = next_state(vtxo_id, _require(current, vtxo_id), change)
            if after is not None:
                changed[str(vtxo_id)] = after
        if not changed:
            return
        state = next(iter(changed.values()))  # a change has one target
        for chunk in chunks(tuple(changed)):
            await self._connection.execute(_UPDATE, {"ids": chunk, **_columns(state)})
        await self._append_states(changed)
        self._touch(VtxoId.parse(key) for key in changed)

    async def _lock_rows(self, ids: Sequence[VtxoId]) -> Mapping[VtxoId, VtxoState]:
        """The current states. The rows cannot change until this transaction ends.

        SQLite has no row locks and needs none: a writing transaction is alone there. Rows are locked in the
        order of their ids, so that two transactions cannot wait for each other.
        """
        found: dict[VtxoId, VtxoState] = {}
        for chunk in chunks(sorted(str(vtxo_id) for vtxo_id in ids)):
            rows = await self._connection.execute(_STATES_FOR_UPDATE, {"ids": chunk})
            found.update((VtxoId.parse(row.id), _state(row)) for row in rows)
        return found

    async def _append_states(self, states: Mapping[str, VtxoState]) -> None:
        await self._connection.execute(
            _INSERT_STATES,
            [
                {
                    "vtxo_id": key,
                    "kind": state.kind.value,
                    "state": to_json(state_to_json(state)),
                    "created_at": self._now,
                }
                for key, state in states.items()
            ],
        )

    def _row(self, vtxo: Vtxo, state: VtxoState, registered: bool) -> dict[str, Any]:
        if vtxo.amount_sat > MAX_MONEY_SAT:
            raise AmountOutOfRange(vtxo.id)
        return {
            "id": str(vtxo.id),
            "amount_sat": vtxo.amount_sat,
            "policy_kind": vtxo.policy.kind,
            "user_pubkey": vtxo.user_pubkey.data,
            "server_pubkey": vtxo.server_pubkey.data,
            "expiry_height": vtxo.expiry_height,
            "exit_delta": vtxo.exit_delta,
            "anchor_point": str(vtxo.anchor_point),
            "exit_depth": vtxo.exit_depth,
            "exit_tx_weight_wu": vtxo.exit_tx_weight_wu,
            "registered": registered,
            "created_at": self._now,
            **_columns(state),
        }


def state_to_json(state: VtxoState) -> dict[str, Any]:
    """A state as the history keeps it."""
    match state:
        case Spendable():
            return {"type": "spendable"}
        case Locked(None):
            return {"type": "locked", "holder": None}
        case Locked(MovementHolder(movement_id)):
            return {"type": "locked", "holder": {"type": "movement", "id": movement_id}}
        case Locked(ActionHolder(action_id)):
            return {"type": "locked", "holder": {"type": "action", "id": action_id}}
        case Spent():
            return {"type": "spent"}
        case Exited():
            return {"type": "exited"}
        case _:
            raise AssertionError(state)


def _body_columns(vtxo: Vtxo) -> dict[str, bytes]:
    """Its columns in `vtxo_body`, but for the id."""
    return {"bare": vtxo.encode_bare(), "genesis": vtxo.encode_genesis()}


def _state_from_json(text: str) -> VtxoState:
    match from_json(text):
        case {"type": "spendable"}:
            return Spendable()
        case {"type": "locked", "holder": None}:
            return Locked(None)
        case {"type": "locked", "holder": {"type": "movement", "id": int(movement_id)}}:
            return Locked(MovementHolder(movement_id))
        case {"type": "locked", "holder": {"type": "action", "id": str(action_id)}}:
            return Locked(ActionHolder(action_id))
        case {"type": "spent"}:
            return Spent()
        case {"type": "exited"}:
            return Exited()
        case _:
            raise StoreError("the database holds an unknown VTXO state")


def _columns(state: VtxoState) -> dict[str, Any]:
    """The columns that hold the current state."""
    holder = state.holder if isinstance(state, Locked) else None
    return {
        "state_kind": state.kind.value,
        "lock_movement_id": holder.movement_id if isinstance(holder, MovementHolder) else None,
        "lock_action_id": holder.action_id if isinstance(holder, ActionHolder) else None,
    }


def _state(row: Any) -> VtxoState:
    kind = StateKind(row.state_kind)
    match kind:
        case StateKind.SPENDABLE:
            return Spendable()
        case StateKind.SPENT:
            return Spent()
        case StateKind.EXITED:
            return Exited()
        case StateKind.LOCKED if row.lock_movement_id is not None:
            return Locked(MovementHolder(row.lock_movement_id))
        case StateKind.LOCKED if row.lock_action_id is not None:
            return Locked(ActionHolder(row.lock_action_id))
        case StateKind.LOCKED:
            return Locked(None)
        case _:
            assert_never(kind)


def _is_locked_for(holder: Holder | None) -> sa.ColumnElement[bool]:
    match holder:
        case MovementHolder(movement_id):
            return t.c.lock_movement_id == movement_id
        case ActionHolder(action_id):
            return t.c.lock_action_id == action_id
        case None:
            return sa.and_(
                t.c.state_kind == StateKind.LOCKED.value,
                t.c.lock_movement_id.is_(None),
                t.c.lock_action_id.is_(None),
            )
        case _:
            assert_never(holder)


@lru_cache(maxsize=4096)
def _anchor(text: str) -> OutPoint:
    """Many VTXOs hang off one round; they share the object."""
    return OutPoint.parse(text)


def _vtxo(row: Any) -> WalletVtxo:
    return WalletVtxo(
        id=VtxoId.parse(row.id),
        amount_sat=row.amount_sat,
        policy_kind=row.policy_kind,
        user_pubkey=PublicKey(row.user_pubkey),
        server_pubkey=PublicKey(row.server_pubkey),
        expiry_height=row.expiry_height,
        exit_delta=row.exit_delta,
        anchor_point=_anchor(row.anchor_point),
        exit_depth=row.exit_depth,
        exit_tx_weight_wu=row.exit_tx_weight_wu,
        registered=row.registered,
        state=_state(row),
        created_at=row.created_at,
    )


def _body(row: Any) -> Vtxo | VtxoUnreadable:
    vtxo_id = VtxoId.parse(row.vtxo_id)
    try:
        vtxo = Vtxo.join(row.bare, row.genesis)
    except (ProtocolViolation, ValueError) as error:
        return VtxoUnreadable(vtxo_id, str(error))
    return vtxo if vtxo.id == vtxo_id else VtxoUnreadable(vtxo_id, f"it is {vtxo.id}")


def _require(found: Mapping[VtxoId, _V], vtxo_id: VtxoId) -> _V:
    try:
        return found[vtxo_id]
    except KeyError:
        raise UnknownVtxo(vtxo_id) from None
