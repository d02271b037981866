"""An exit as it is stored, and what its new state means for the VTXO and for the movement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.states import (
    AwaitingDelta,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitState,
    VtxoAlreadySpent,
    VtxoSwept,
)
from barkd_py.wallet.movements import MovementStatus, MovementUpdate
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.store.exits import ExitRow
from barkd_py.wallet.store.rows import from_json, to_json
from barkd_py.wallet.vtxos.states import StateKind

_ON_CHAIN = AwaitingDelta | Claimable | ClaimInProgress | Claimed
"""The VTXO's output is in a block: it is no VTXO any more."""


@dataclass(frozen=True, slots=True)
class LiveExit:
    """An exit as it is stored."""

    row: ExitRow
    state: ExitState

    @classmethod
    def of(cls, row: ExitRow) -> "LiveExit":
        return cls(row, payloads.decode_state(row.state))


def row_after(row: ExitRow, state: ExitState, passed: Sequence[ExitState]) -> ExitRow:
    """The row with a new state. passed: the states that were left on the way, oldest first."""
    history = (
        to_json([*from_json(row.history), *map(payloads.encode_state, passed)]) if passed else row.history
    )
    return replace(row, kind=state.type, state=payloads.encode_state(state), history=history)


async def apply_consequences(tx: Transaction, row: ExitRow, state: ExitState) -> None:
    """What an exit's new state means for its VTXO and its movement; safe to repeat."""
    if isinstance(state, _ON_CHAIN):
        vtxo = await tx.vtxos.find(row.vtxo_id)
        if vtxo is not None and vtxo.state.kind is not StateKind.SPENT:
            await tx.vtxos.mark_exited([row.vtxo_id])
    if row.movement_id is None:
        return
    match state:
        case Claimed():
            await tx.movements.finish(row.movement_id, MovementStatus.SUCCESSFUL)
        case VtxoAlreadySpent() | Canceled():
            update = MovementUpdate(effective_balance_sat=0)
            await tx.movements.finish_with_update(row.movement_id, MovementStatus.CANCELED, update)
        case VtxoSwept():
            # Upstream leaves it pending for ever.
            await tx.movements.finish(row.movement_id, MovementStatus.FAILED)
        case _:
            pass
