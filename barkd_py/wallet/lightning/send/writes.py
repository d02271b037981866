"""What is stored about a Lightning payment, together with the state that it leads to.

That an invoice is paid is recorded in the transaction that gives up its HTLCs, so it is never paid again.
Each payment has one movement, which is there from the start; an invoice that is paid again after a failure
has another one. Source: protocol sheet 05 §4.7, §4.8, §4.13.
"""

from collections.abc import Callable, Sequence

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.wallet.actions.executor import Writes
from barkd_py.wallet.exits.rows import forget_exits
from barkd_py.wallet.lightning.send.states import Payment
from barkd_py.wallet.movements import MovementStatus, MovementUpdate
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.vtxo_states import ActionHolder, Locked, NewVtxo, Spendable

Wake = Callable[[], None]
"""Has the server learn of new VTXOs after the commit."""


def write_funded(
    action_id: str, payment: Payment, htlcs: Sequence[Vtxo], change: Sequence[Vtxo], wake: Wake
) -> Writes:
    """The inputs are spent, into HTLCs that the payment holds and change that is free."""

    async def write(tx: Transaction) -> None:
        await tx.vtxos.steal_spent(payment.input_ids)  # an exit that was started meanwhile keeps its coin
        await tx.vtxos.insert(NewVtxo(vtxo, Locked(ActionHolder(action_id))) for vtxo in htlcs)
        await tx.vtxos.insert(NewVtxo(vtxo, Spendable()) for vtxo in change)
        update = MovementUpdate(
            effective_balance_sat=-payment.htlc_sat,
            output_vtxos=tuple(vtxo.id for vtxo in change),
            metadata={"htlc_vtxos": [str(vtxo.id) for vtxo in htlcs]},
        )
        await tx.movements.update(payment.movement_id, update)
        wake()

    return write


def write_failed(payment: Payment) -> Writes:
    """Nothing left the wallet; the executor releases the inputs."""

    async def write(tx: Transaction) -> None:
        update = MovementUpdate(effective_balance_sat=0, offchain_fee_sat=0)
        await tx.movements.finish_with_update(payment.movement_id, MovementStatus.FAILED, update)

    return write


def write_paid(
    payment: Payment, htlc_ids: Sequence[VtxoId], preimage: bytes, *, returned_sat: int = 0
) -> Writes:
    """preimage: proven. returned_sat: what the server gave back nevertheless.

    Wherever the HTLCs are, on the chain or lost on the way to it, they are what was paid with.
    """
    assert payment.is_preimage(preimage), "looked at before"

    async def write(tx: Transaction) -> None:
        await tx.lightning.record_paid(payment.payment_hash, preimage)
        await tx.vtxos.steal_spent(htlc_ids)
        await forget_exits(tx, htlc_ids)
        update = MovementUpdate(
            effective_balance_sat=returned_sat - payment.htlc_sat,
            offchain_fee_sat=payment.fee_sat,
            metadata={"payment_preimage": preimage.hex()},
        )
        await tx.movements.finish_with_update(payment.movement_id, MovementStatus.SUCCESSFUL, update)

    return write


def write_taken_back(
    payment: Payment,
    htlc_ids: Sequence[VtxoId],
    vtxos: Sequence[Vtxo],
    exited_ids: Sequence[VtxoId],
    wake: Wake,
) -> Writes:
    """These HTLCs are spent, into VTXOs of ours. exited_ids: the others, which are on the chain."""

    async def write(tx: Transaction) -> None:
        exited_sat = sum(htlc.amount_sat for htlc in await tx.vtxos.get_many(exited_ids))
        missing_sat = payment.htlc_sat - exited_sat - sum(vtxo.amount_sat for vtxo in vtxos)
        await tx.vtxos.steal_spent(htlc_ids)
        await forget_exits(tx, htlc_ids)
        await tx.vtxos.insert(NewVtxo(vtxo, Spendable()) for vtxo in vtxos)
        update = MovementUpdate(
            effective_balance_sat=-missing_sat,
            offchain_fee_sat=missing_sat,
            output_vtxos=tuple(vtxo.id for vtxo in vtxos),
            exited_vtxos=tuple(exited_ids),
        )
        await tx.movements.finish_with_update(payment.movement_id, MovementStatus.FAILED, update)
        wake()

    return write


def write_exits(payment: Payment, htlc_ids: Sequence[VtxoId]) -> Writes:
    """The payment failed; what these HTLCs hold comes back on the chain, which is a movement of its own."""

    async def write(tx: Transaction) -> None:
        vtxos = await tx.vtxos.get_many(htlc_ids)
        missing_sat = payment.htlc_sat - sum(vtxo.amount_sat for vtxo in vtxos)
        update = MovementUpdate(
            effective_balance_sat=-missing_sat, offchain_fee_sat=missing_sat, exited_vtxos=tuple(htlc_ids)
        )
        await tx.movements.finish_with_update(payment.movement_id, MovementStatus.FAILED, update)

    return write


def write_spent(htlc_ids: Sequence[VtxoId]) -> Writes:
    """Whatever of them is not on the chain is lost."""

    async def write(tx: Transaction) -> None:
        await tx.vtxos.steal_spent(htlc_ids)

    return write
