"""An exit as it is stored, and what its new state means for the VTXO and for the movement."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import StoreError
from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.states import (
    AwaitingDelta,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitState,
    Start,
    VtxoAlreadySpent,
    VtxoSwept,
)
from barkd_py.wallet.movements import MovementStatus, MovementUpdate
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.store.exits import ExitRow
from barkd_py.wallet.store.rows import from_json, to_json
from barkd_py.wallet.vtxo_states import StateKind, WalletVtxo

ON_CHAIN = AwaitingDelta | Claimable | ClaimInProgress | Claimed
"""The VTXO's output is in a block: it is no VTXO any more."""
_HTLC_SEND = "server-htlc-send"
"""The policy kinds of both versions begin so."""


@dataclass(frozen=True, slots=True)
class LiveExit:
    """An exit as it is stored."""

    row: ExitRow
    state: ExitState

    @classmethod
    def of(cls, row: ExitRow) -> "LiveExit":
        """Raises StoreError."""
        return cls(row, payloads.decode_state(row.state))

    @property
    def is_automatic(self) -> bool:
        """Whether nobody but the wallet itself asked for it."""
        first = payloads.decode_first(self.row.history) or self.state
        return isinstance(first, Start) and first.is_automatic


def read_exits(rows: Iterable[ExitRow]) -> tuple[list[LiveExit], dict[VtxoId, StoreError]]:
    """Those that can be read, and why the others cannot, which must not stop them."""
    exits: list[LiveExit] = []
    unreadable: dict[VtxoId, StoreError] = {}
    for row in rows:
        try:
            exits.append(LiveExit.of(row))
        except StoreError as error:
            unreadable[row.vtxo_id] = error
    return exits, unreadable


def row_after(row: ExitRow, state: ExitState, passed: Sequence[ExitState]) -> ExitRow:
    """The row with a new state. passed: the states that were left on the way, oldest first."""
    history = (
        to_json([*from_json(row.history), *map(payloads.encode_state, passed)]) if passed else row.history
    )
    return replace(row, kind=state.type, state=payloads.encode_state(state), history=history)


async def apply_consequences(
    tx: Transaction, row: ExitRow, state: ExitState, *, is_taken: bool = False
) -> None:
    """What an exit's new state means for its VTXO and its movement; safe to repeat.

    is_taken: the output was spent by somebody else. History and balance agree afterwards: what is in no
    balance any more has left with the exit, whoever has it; what stays a VTXO has not.
    """
    vtxo = await tx.vtxos.find(row.vtxo_id)
    if isinstance(state, ON_CHAIN) and vtxo is not None and vtxo.state.kind is not StateKind.SPENT:
        await tx.vtxos.mark_exited([row.vtxo_id])
    if row.movement_id is None:
        return
    match state:
        case Claimed() if is_taken:
            update = MovementUpdate(metadata={"error": f"somebody else has taken the output: {state.txid}"})
            await tx.movements.finish_with_update(row.movement_id, MovementStatus.FAILED, update)
        case Claimed():
            await tx.movements.finish(row.movement_id, MovementStatus.SUCCESSFUL)
        case VtxoAlreadySpent() | Canceled():
            update = MovementUpdate(effective_balance_sat=0)
            await tx.movements.finish_with_update(row.movement_id, MovementStatus.CANCELED, update)
        case VtxoSwept():
            # Upstream leaves it pending for ever.
            spent = ", ".join(map(str, state.spent_inputs))
            update = MovementUpdate(
                effective_balance_sat=None if _is_gone(vtxo) else 0,
                metadata={"error": f"an output on the way to the VTXO was taken: {spent}"},
            )
            await tx.movements.finish_with_update(row.movement_id, MovementStatus.FAILED, update)
        case _:
            pass


async def forget_exits(tx: Transaction, vtxo_ids: Sequence[VtxoId]) -> None:
    """A payment's movement says what became of these VTXOs: whatever their exits came to counts no more.

    One that is not on the chain and not given up is ended by the exits themselves, as the VTXO is spent.
    """
    for vtxo in await tx.vtxos.get_many(vtxo_ids):
        row = await tx.exits.find(vtxo.id)
        if row is None or row.movement_id is None:
            continue
        update = MovementUpdate(effective_balance_sat=0)
        status = (await tx.movements.get(row.movement_id)).status
        if status is MovementStatus.CANCELED:
            continue
        if status is MovementStatus.PENDING and vtxo.state.kind is not StateKind.EXITED:
            await tx.movements.update(row.movement_id, update)
            continue
        await tx.movements.finish_with_update(row.movement_id, MovementStatus.FAILED, update)
        await tx.exits.save(replace(row, movement_id=None))


def _is_gone(vtxo: WalletVtxo | None) -> bool:
    """Whether it is in no balance though it was swept, so that the exit's movement has to say so: it was on
    the chain before a reorganisation; or it is the HTLC of a Lightning payment whose movement has left it to
    the exit to bring the money back.
    """
    return vtxo is not None and (
        vtxo.state.kind is StateKind.EXITED or vtxo.policy_kind.startswith(_HTLC_SEND)
    )
