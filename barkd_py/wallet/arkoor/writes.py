"""What is stored about a payment, together with the state that it leads to."""

from barkd_py.wallet.actions.executor import Writes
from barkd_py.wallet.arkoor.states import Cosigning, Delivering
from barkd_py.wallet.movements import (
    ARKOOR_SEND,
    JsonObject,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.vtxo_states import NewVtxo, Spendable
from barkd_py.wallet.vtxos.registration import Registration


def write_cosigned(action_id: str, state: Cosigning) -> Writes:
    """The money is the recipient's."""

    async def write(tx: Transaction) -> None:
        method = PaymentMethod(PaymentMethodKind.ARK, state.address)
        update = MovementUpdate(
            intended_balance_sat=-state.amount_sat,
            effective_balance_sat=-state.amount_sat,
            input_vtxos=state.input_ids,
            sent_to=(MovementDestination(method, state.amount_sat),),
        )
        await tx.movements.get_or_create(action_id, ARKOOR_SEND, update)

    return write


def write_delivered(action_id: str, state: Delivering, registration: Registration) -> Writes:
    """The recipient has been told."""

    async def write(tx: Transaction) -> None:
        await _end(tx, action_id, state, MovementStatus.SUCCESSFUL, {})
        registration.wake_at_commit()

    return write


def write_undelivered(action_id: str, state: Delivering, registration: Registration) -> Writes:
    """Nobody else has the recipient's VTXOs: whoever helps the recipient will need them."""
    metadata: JsonObject = {"undelivered_vtxos": [vtxo.encode().hex() for vtxo in state.payment]}

    async def write(tx: Transaction) -> None:
        await _end(tx, action_id, state, MovementStatus.FAILED, metadata)
        registration.wake_at_commit()

    return write


async def _end(
    tx: Transaction, action_id: str, state: Delivering, status: MovementStatus, metadata: JsonObject
) -> None:
    await tx.vtxos.steal_spent(state.input_ids)  # an exit that was started meanwhile keeps its coin
    await tx.vtxos.insert(NewVtxo(vtxo, Spendable()) for vtxo in state.change)
    update = MovementUpdate(output_vtxos=tuple(vtxo.id for vtxo in state.change), metadata=metadata)
    await tx.movements.finish_of_action(action_id, status, update)
