"""What is stored about an offboard, together with the state that it leads to; it can be repeated."""

from collections.abc import Sequence
from dataclasses import replace

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import Tx
from barkd_py.errors import BarkdError, chain_text
from barkd_py.wallet.actions.executor import Failed, Writes
from barkd_py.wallet.exits.rows import forget_exits
from barkd_py.wallet.movements import (
    OFFBOARD,
    SEND_ONCHAIN,
    JsonValue,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
    Subsystem,
)
from barkd_py.wallet.offboards.states import Payment, Registering, State
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.vtxo_states import ActionHolder, Locked, NewVtxo, Release
from barkd_py.wallet.vtxos.registration import Registration


def subsystem(payment: Payment) -> Subsystem:
    return OFFBOARD if payment.deducts_fee else SEND_ONCHAIN


def movement_update(payment: Payment) -> MovementUpdate:
    gross_sat = payment.net_amount_sat + payment.fee_sat
    method = PaymentMethod(PaymentMethodKind.BITCOIN, payment.address)
    return MovementUpdate(
        intended_balance_sat=-gross_sat if payment.deducts_fee else -payment.net_amount_sat,
        effective_balance_sat=-gross_sat,
        offchain_fee_sat=payment.fee_sat,
        input_vtxos=payment.input_ids,
        sent_to=(MovementDestination(method, payment.net_amount_sat),),
    )


def write_split(action_id: str, state: Registering, vtxos: Sequence[Vtxo]) -> Writes:
    """The inputs are spent, into VTXOs that the action holds; the movement begins."""

    async def write(tx: Transaction) -> None:
        await tx.vtxos.steal_spent(state.payment.input_ids)
        await tx.vtxos.insert(NewVtxo(vtxo, Locked(ActionHolder(action_id))) for vtxo in vtxos)
        update = replace(
            movement_update(state.payment),
            output_vtxos=state.change_ids,
            metadata={"offboard_vtxos": [str(vtxo_id) for vtxo_id in state.vtxo_ids]},
        )
        await tx.movements.get_or_create(action_id, SEND_ONCHAIN, update)

    return write


def write_registered(action_id: str, change_ids: Sequence[VtxoId], registration: Registration) -> Writes:
    """The server knows the change: it is free."""

    async def write(tx: Transaction) -> None:
        await tx.vtxos.change(change_ids, Release(ActionHolder(action_id)))
        registration.wake_at_commit()

    return write


def write_begun(action_id: str, payment: Payment) -> Writes:
    async def write(tx: Transaction) -> None:
        update = movement_update(payment)
        no_income = await tx.movements.failed_receipts(payment.input_ids)
        if no_income:  # it does not leave, for it has never come
            never_came_sat = sum(vtxo.amount_sat for vtxo in await tx.vtxos.get_many(list(no_income)))
            update = replace(
                update, effective_balance_sat=(update.effective_balance_sat or 0) + never_came_sat
            )
        await tx.movements.get_or_create(action_id, subsystem(payment), update)

    return write


def write_tx(action_id: str, tx: Tx) -> Writes:
    async def write(transaction: Transaction) -> None:
        movement = await transaction.movements.find_by_action(action_id)
        assert movement is not None, "stored before this state"
        metadata: dict[str, JsonValue] = {
            "offboard_txid": str(tx.txid),
            "offboard_tx": tx.serialize().hex(),
        }
        await transaction.movements.update(movement.id, MovementUpdate(metadata=metadata))

    return write


def write_settled(action_id: str, vtxo_ids: Sequence[VtxoId]) -> Writes:
    """The transaction is deep enough."""

    async def write(tx: Transaction) -> None:
        await tx.vtxos.steal_spent(vtxo_ids)
        await forget_exits(tx, vtxo_ids)  # which began because the transaction did not come
        movement = await tx.movements.find_by_action(action_id)
        assert movement is not None, "stored before this state"
        await tx.movements.finish(movement.id, MovementStatus.SUCCESSFUL)

    return write


def undo(action_id: str, state: State, error: BarkdError) -> Failed:
    """Nothing left the wallet; the executor releases what is locked."""
    payment = state.payment

    async def write(tx: Transaction) -> None:
        movement = await tx.movements.get_or_create(action_id, subsystem(payment), movement_update(payment))
        update = MovementUpdate(
            effective_balance_sat=0, offchain_fee_sat=0, metadata={"error": chain_text(error)}
        )
        await tx.movements.finish_with_update(movement.id, MovementStatus.FAILED, update)

    return Failed(error, write)
