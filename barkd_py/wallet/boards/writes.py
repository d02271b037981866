"""What is stored about a board, together with the state that it leads to."""

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.actions.executor import Writes
from barkd_py.wallet.movements import MovementStatus, MovementUpdate
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.vtxo_states import MovementHolder, Release
from barkd_py.wallet.vtxos.registration import Registration


def write_registered(action_id: str, vtxo_id: VtxoId, registration: Registration) -> Writes:
    """The server knows the VTXO: it is free."""

    async def write(tx: Transaction) -> None:
        movement = await tx.movements.find_by_action(action_id)
        assert movement is not None, "stored with the action"
        await tx.vtxos.change([vtxo_id], Release(MovementHolder(movement.id)))
        await tx.movements.finish(movement.id, MovementStatus.SUCCESSFUL)
        registration.wake_at_commit()

    return write


def write_dead(action_id: str, vtxo_id: VtxoId) -> Writes:
    """Nothing was paid, nothing is owned. Source: sheet 03 §1.8."""

    async def write(tx: Transaction) -> None:
        await tx.vtxos.mark_spent([vtxo_id])
        await _fail(tx, action_id, MovementUpdate(effective_balance_sat=0))

    return write


def write_exited(action_id: str) -> Writes:
    """Its exit took the VTXO."""

    async def write(tx: Transaction) -> None:
        await _fail(tx, action_id, MovementUpdate())

    return write


async def _fail(tx: Transaction, action_id: str, update: MovementUpdate) -> None:
    movement = await tx.movements.find_by_action(action_id)
    if movement is None or movement.status is MovementStatus.FAILED:
        return
    await tx.movements.finish_with_update(movement.id, MovementStatus.FAILED, update)
