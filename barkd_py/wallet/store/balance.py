"""The nine balance fields in one statement; the rule is documented in `wallet.balance`.

Source: sheet 09 §7.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.exits import COMMITTED_KINDS
from barkd_py.wallet.store.tables import (
    action_checkpoint,
    action_vtxo,
    exit_state,
    round_input,
    round_state,
    vtxo,
)
from barkd_py.wallet.vtxo_states import StateKind

SPENDABLE = "spendable"
NEEDS_REFRESH = "needs-refresh"
IN_ROUND = "in-round"
EXITING = "exiting"


class BalanceRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def sums(self, tip_height: int, max_exit_depth: int | None) -> dict[str, int]:
        """Satoshis by `SPENDABLE`, `NEEDS_REFRESH`, `IN_ROUND`, `EXITING` and `ActionKind`; absent means 0.

        max_exit_depth: None if no server has told it; depth is not judged then.
        """
        depth = _NO_LIMIT if max_exit_depth is None else max_exit_depth
        rows = await self._connection.execute(_SUMS, {"tip_height": tip_height, "max_exit_depth": depth})
        return {row.field: int(row.amount_sat) for row in rows}


_NO_LIMIT = 2**31 - 1


def _build_sums() -> sa.CompoundSelect[str, int]:
    total = sa.func.sum(vtxo.c.amount_sat)
    is_stale = sa.or_(
        vtxo.c.expiry_height <= sa.bindparam("tip_height", type_=sa.BigInteger),
        vtxo.c.exit_depth >= sa.bindparam("max_exit_depth", type_=sa.BigInteger),
    )
    # Both sums in one pass: to group thousands of rows takes SQLite longer than to add them up.
    spendable = (
        sa.select(
            sa.func.coalesce(total, 0).label("all_sat"),
            sa.func.coalesce(sa.func.sum(sa.case((is_stale, vtxo.c.amount_sat))), 0).label("stale_sat"),
        )
        .where(vtxo.c.state_kind == StateKind.SPENDABLE.value)
        .cte("spendable")
    )
    fresh_sum = sa.select(
        sa.literal_column(f"'{SPENDABLE}'").label("field"),
        (spendable.c.all_sat - spendable.c.stale_sat).label("amount_sat"),
    )
    stale_sum = sa.select(sa.literal_column(f"'{NEEDS_REFRESH}'").label("field"), spendable.c.stale_sat)

    # Locked for exactly the round's holder: its movement, or nobody while it has none.
    holder_matches = sa.or_(
        vtxo.c.lock_movement_id == round_state.c.movement_id,
        sa.and_(
            round_state.c.movement_id.is_(None),
            vtxo.c.lock_movement_id.is_(None),
            vtxo.c.lock_action_id.is_(None),
        ),
    )
    is_in_round = sa.exists().where(
        round_input.c.vtxo_id == vtxo.c.id, round_state.c.id == round_input.c.round_id, holder_matches
    )
    locked = sa.select(vtxo.c.id, vtxo.c.amount_sat, is_in_round.label("in_round")).where(
        vtxo.c.state_kind == StateKind.LOCKED.value
    )
    locked_vtxo = locked.cte("locked_vtxo")

    # The oldest action that reports a VTXO has it.
    first_report = (
        sa.select(action_checkpoint.c.kind)
        .join(action_vtxo, action_vtxo.c.action_id == action_checkpoint.c.id)
        .where(action_vtxo.c.vtxo_id == locked_vtxo.c.id)
        .order_by(action_checkpoint.c.sequence)
        .limit(1)
        .correlate(locked_vtxo)
        .scalar_subquery()
    )
    field = sa.case((locked_vtxo.c.in_round, sa.literal_column(f"'{IN_ROUND}'")), else_=first_report)
    by_holder = sa.select(field.label("field"), locked_vtxo.c.amount_sat).cte("by_holder")
    locked_sums = (
        sa.select(by_holder.c.field, sa.func.sum(by_holder.c.amount_sat).label("amount_sat"))
        .where(by_holder.c.field.is_not(None))
        .group_by(by_holder.c.field)
    )

    exiting: sa.Select[str, int] = (
        sa.select(sa.literal_column(f"'{EXITING}'").label("field"), total.label("amount_sat"))
        .join(exit_state, exit_state.c.vtxo_id == vtxo.c.id)
        .where(vtxo.c.state_kind == StateKind.EXITED.value, exit_state.c.kind.in_(sorted(COMMITTED_KINDS)))
        .having(sa.func.count() > 0)
    )
    return sa.union_all(fresh_sum, stale_sum, locked_sums, exiting)


_SUMS = _build_sums()

assert not {SPENDABLE, NEEDS_REFRESH, IN_ROUND, EXITING} & set(ActionKind), (
    "the fields are told apart by name"
)
