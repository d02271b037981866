"""Participations as they are stored: a row, the locks on its inputs and its movement, always together.

Source: sheet 04 §11, §18; sheet 09 §1.11.
"""

import logging
from dataclasses import dataclass, replace
from typing import assert_never

from barkd_py.wallet.movements import MovementStatus, MovementUpdate
from barkd_py.wallet.rounds.participation import movement_update
from barkd_py.wallet.rounds.states import (
    Canceled,
    Completed,
    Delegated,
    Failed,
    Final,
    Issued,
    Registered,
    Round,
    Signed,
    decode_round,
    encode_round,
    holds_inputs,
)
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.rounds import RoundRow
from barkd_py.wallet.vtxo_states import MovementHolder, NewVtxo, Spendable, StateKind
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """A stored participation."""

    id: int
    movement_id: int
    round: Round


class Records:
    """Loads and saves them."""

    def __init__(self, store: Store, registration: Registration) -> None:
        self._store = store
        self._registration = registration

    async def load(self, round_id: int) -> Record | None:
        async with self._store.read() as tx:
            row = await tx.rounds.find(round_id)
        if row is None:
            return None
        assert row.movement_id is not None, "stored with its movement"
        return Record(row.id, row.movement_id, decode_round(row.payload))

    async def save(self, record: Record, round_: Round) -> Record:
        """Store what a step has led to; the row of what has come to its end is deleted."""
        async with self._store.transaction() as tx:
            if isinstance(round_.state, Final):
                await self._finish(tx, record, round_, round_.state)
            else:
                await self._update(tx, record, round_)
        return replace(record, round=round_)

    async def _update(self, tx: Transaction, record: Record, round_: Round) -> None:
        state, holder = round_.state, MovementHolder(record.movement_id)
        if not holds_inputs(state):
            await tx.vtxos.release_held_by(holder)
        elif isinstance(state, Delegated | Issued):
            # The server has spent them, whatever else they were meant for here.
            await tx.vtxos.steal_lock(round_.inputs, holder)
        else:
            await tx.vtxos.lock(round_.inputs, holder)
        changed = round_.inputs != record.round.inputs or round_.outputs != record.round.outputs
        if changed:
            inputs = await tx.vtxos.get_many(round_.inputs)
            update = movement_update(inputs, sum(output.amount_sat for output in round_.outputs))
            await tx.movements.update(record.movement_id, update)
        funding_txid = _funding_txid(round_)
        if funding_txid is not None and funding_txid != _funding_txid(record.round):
            metadata = MovementUpdate(metadata={"funding_txid": funding_txid})
            await tx.movements.update(record.movement_id, metadata)
        row = RoundRow(record.id, encode_round(round_), record.movement_id, _unlock_hash(round_))
        await tx.rounds.update(row, inputs=round_.inputs if changed else None)

    async def _finish(
        self, tx: Transaction, record: Record, round_: Round, state: Completed | Failed | Canceled
    ) -> None:
        match state:
            case Completed(_, funding_tx, vtxos):
                stored = await tx.vtxos.get_many(round_.inputs)
                # What is on the chain has left with its exit, whoever gets it there. What was swept before it
                # came was no income: what the server gives for it is.
                no_income = await tx.movements.failed_receipts(round_.inputs)
                given_sat = sum(
                    vtxo.amount_sat
                    for vtxo in stored
                    if vtxo.state.kind is not StateKind.EXITED and vtxo.id not in no_income
                )
                await tx.vtxos.steal_spent(round_.inputs)
                await tx.vtxos.insert(NewVtxo(vtxo, Spendable()) for vtxo in vtxos)
                update = MovementUpdate(
                    effective_balance_sat=sum(vtxo.amount_sat for vtxo in vtxos) - given_sat,
                    output_vtxos=tuple(vtxo.id for vtxo in vtxos),
                    metadata={"funding_txid": str(funding_tx.txid)},
                )
                await tx.movements.finish_with_update(record.movement_id, MovementStatus.SUCCESSFUL, update)
                self._registration.wake_at_commit()
            case Failed(reason) | Canceled(reason):
                log.warning("refresh %d came to nothing: %s", record.id, reason)
                await tx.vtxos.release_held_by(MovementHolder(record.movement_id))
                # Unlike upstream's, the history says that nothing was paid.
                update = MovementUpdate(
                    effective_balance_sat=0, offchain_fee_sat=0, metadata={"error": reason}
                )
                await tx.movements.finish_with_update(record.movement_id, MovementStatus.FAILED, update)
            case _:
                assert_never(state)
        await tx.rounds.delete(record.id)


def _unlock_hash(round_: Round) -> bytes | None:
    match round_.state:
        case Registered() | Signed() | Delegated() | Issued():
            return round_.state.unlock_hash
        case _:
            return None


def _funding_txid(round_: Round) -> str | None:
    match round_.state:
        case Delegated(_, funding_txid) if funding_txid is not None:
            return str(funding_txid)
        case Issued():
            return str(round_.state.funding_tx.txid)
        case _:
            return None
