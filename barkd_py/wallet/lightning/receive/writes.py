"""What a payment over Lightning leaves in the store as it comes in: VTXOs, the movement, and the record.

Each function makes the writes of one outcome of a step; they happen in the transaction that stores the next
state or ends the action. The preimage gets into the history only when the payment is over: before, it is a
secret. Source: sheet 05 §5.3, §5.6, §5.12.
"""

from collections.abc import Sequence

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.wallet.actions.executor import Writes
from barkd_py.wallet.lightning.receive.states import (
    Delivering,
    HtlcsReady,
    PreimageRevealed,
    ReceiveTerms,
)
from barkd_py.wallet.movements import (
    LIGHTNING_RECEIVE,
    JsonObject,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.vtxo_states import ActionHolder, Locked, NewVtxo, Spendable
from barkd_py.wallet.vtxos.registration import Registration


def write_granted(action_id: str, state: HtlcsReady, vtxos: Sequence[Vtxo], fee_sat: int) -> Writes:
    """The HTLC VTXOs are ours under a condition: locked, and the movement begins.

    They are not registered anywhere: the server made them, and without the preimage nobody can use them.
    """
    terms = state.terms
    granted_sat = sum(vtxo.amount_sat for vtxo in vtxos)

    async def write(tx: Transaction) -> None:
        holder = Locked(ActionHolder(action_id))
        await tx.vtxos.insert((NewVtxo(vtxo, holder) for vtxo in vtxos), registered=True)
        method = PaymentMethod(PaymentMethodKind.INVOICE, terms.invoice)
        update = MovementUpdate(
            intended_balance_sat=terms.amount_sat,
            effective_balance_sat=granted_sat if terms.deliver_to is None else 0,
            offchain_fee_sat=fee_sat,
            received_on=(MovementDestination(method, granted_sat + fee_sat),),
            metadata={
                "payment_hash": terms.payment_hash.hex(),
                "htlc_vtxos": [str(vtxo_id) for vtxo_id in state.htlc_ids],
                "payment_preimage": None,
            },
        )
        await tx.movements.get_or_create(action_id, LIGHTNING_RECEIVE, update)

    return write


def write_abandoned(action_id: str, htlc_ids: Sequence[VtxoId]) -> Writes:
    """The preimage was kept: the HTLC VTXOs go back to the server, and the money to the sender."""

    async def write(tx: Transaction) -> None:
        await tx.vtxos.steal_spent(htlc_ids)
        await _finish(tx, action_id, MovementStatus.CANCELED, MovementUpdate(effective_balance_sat=0))

    return write


def write_spent(htlc_ids: Sequence[VtxoId]) -> Writes:
    """The HTLC VTXOs have become others. Raises VtxoStateConflict if one is on the chain."""

    async def write(tx: Transaction) -> None:
        await tx.vtxos.mark_spent(htlc_ids)

    return write


def write_settled(
    action_id: str, state: PreimageRevealed, vtxos: Sequence[Vtxo], registration: Registration
) -> Writes:
    """The money is ours. Raises VtxoStateConflict if an HTLC VTXO is on the chain: then it is there."""

    async def write(tx: Transaction) -> None:
        await tx.vtxos.mark_spent(state.htlc_ids)
        await tx.vtxos.insert(NewVtxo(vtxo, Spendable()) for vtxo in vtxos)
        update = MovementUpdate(
            effective_balance_sat=sum(vtxo.amount_sat for vtxo in vtxos),
            output_vtxos=tuple(vtxo.id for vtxo in vtxos),
            metadata=_disclosure(state.terms),
        )
        await _finish(tx, action_id, MovementStatus.SUCCESSFUL, update)
        await _record(tx, state.terms)
        registration.wake_at_commit()

    return write


def write_delivered(action_id: str, state: Delivering) -> Writes:
    """The recipient has it."""
    assert state.terms.deliver_to is not None
    method = PaymentMethod(PaymentMethodKind.ARK, state.terms.deliver_to)
    amount_sat = sum(vtxo.amount_sat for vtxo in state.vtxos)
    update = MovementUpdate(
        effective_balance_sat=0,
        replace_sent_to=(MovementDestination(method, amount_sat),),
        metadata=_disclosure(state.terms),
    )

    async def write(tx: Transaction) -> None:
        await _finish(tx, action_id, MovementStatus.SUCCESSFUL, update)
        await _record(tx, state.terms)

    return write


def write_exited(
    action_id: str,
    state: PreimageRevealed,
    taken: Sequence[VtxoId],
    taken_sat: int,
    *,
    lost: Sequence[VtxoId],
) -> Writes:
    """The server did not pay. taken: what we have claimed on the chain. taken_sat: their sum. lost: what
    somebody else has taken there, although its exit was under way.

    The exits have movements of their own, which take away again what this one has brought; those of what was
    lost took nothing away. The record keeps the preimage, which a claim may need once more after a
    reorganisation.
    """
    update = MovementUpdate(
        effective_balance_sat=taken_sat,
        exited_vtxos=tuple(taken),
        metadata=_disclosure(state.terms),
    )

    async def write(tx: Transaction) -> None:
        await tx.vtxos.steal_spent(state.htlc_ids)  # those on the chain stay exited
        await _finish(tx, action_id, MovementStatus.FAILED, update)
        await _record(tx, state.terms)
        for vtxo_id in lost:
            row = await tx.exits.find(vtxo_id)
            if row is not None and row.movement_id is not None:
                nothing = MovementUpdate(effective_balance_sat=0)
                await tx.movements.finish_with_update(row.movement_id, MovementStatus.FAILED, nothing)

    return write


def _disclosure(terms: ReceiveTerms) -> JsonObject:
    return {"payment_preimage": terms.preimage.data.hex()}


async def _finish(tx: Transaction, action_id: str, status: MovementStatus, update: MovementUpdate) -> None:
    await tx.movements.finish_of_action(action_id, status, update)  # stored with the grant


async def _record(tx: Transaction, terms: ReceiveTerms) -> None:
    await tx.lightning.record_settled(
        terms.payment_hash, terms.preimage.data, terms.invoice, terms.amount_sat
    )
