"""What the history says of an offboard, as writes that can be repeated."""

from barkd_py.bitcoin.tx import Tx
from barkd_py.errors import BarkdError, chain_text
from barkd_py.wallet.actions.executor import Failed, Writes
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
from barkd_py.wallet.offboards.states import OffboardState, Payment
from barkd_py.wallet.store import Transaction


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


def create_movement(action_id: str, payment: Payment) -> Writes:
    async def write(tx: Transaction) -> None:
        await tx.movements.get_or_create(action_id, subsystem(payment), movement_update(payment))

    return write


def note_tx(action_id: str, tx: Tx) -> Writes:
    async def write(transaction: Transaction) -> None:
        movement = await transaction.movements.find_by_action(action_id)
        assert movement is not None, "stored before this state"
        metadata: dict[str, JsonValue] = {
            "offboard_txid": str(tx.txid),
            "offboard_tx": tx.serialize().hex(),
        }
        await transaction.movements.update(movement.id, MovementUpdate(metadata=metadata))

    return write


def undo(action_id: str, state: OffboardState, error: BarkdError) -> Failed:
    """Nothing left the wallet; the executor releases what is locked."""
    payment = state.payment

    async def write(tx: Transaction) -> None:
        movement = await tx.movements.get_or_create(action_id, subsystem(payment), movement_update(payment))
        update = MovementUpdate(
            effective_balance_sat=0, offchain_fee_sat=0, metadata={"error": chain_text(error)}
        )
        await tx.movements.finish_with_update(movement.id, MovementStatus.FAILED, update)

    return Failed(error, write)
