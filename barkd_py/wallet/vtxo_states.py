"""VTXO states: who may move a coin from where to where.

A coin is reserved by its *state*, never by a mutex: ``Locked`` names its holder, and every change lists the
kinds of state it may start from. Two operations that want the same coin meet at the same row; the second one
finds it locked and fails. The whole rule is `ALLOWED_FROM` and the function `next_state`; the store applies
it to rows inside one write transaction (compare-and-append), and keeps every state a VTXO ever had.

        lock(holder)            Spendable                       -> Locked(holder)
        release(holder)         Locked(exactly this holder)     -> Spendable      anything else: silent no-op
        mark spent              Spendable, Locked, Spent        -> Spent
        mark exited             Spendable, Locked, Exited       -> Exited
        steal lock, steal spent Spendable, Locked, Spent        -> Locked, Spent  Exited: silent no-op

A change whose target is the current state, holder included, is a success that writes nothing. Exited is
sticky: nothing leaves it, because the coin is on its way on chain and only the exit machine speaks for it.

Source: protocol sheet 09 §5.2; sheet 03 §6.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import OutPoint
from barkd_py.errors import NotFound, StateConflict


class StateKind(enum.StrEnum):
    """The four kinds, as stored and as error texts print them."""

    SPENDABLE = "Spendable"
    LOCKED = "Locked"
    SPENT = "Spent"
    EXITED = "Exited"


UNSPENT = frozenset({StateKind.SPENDABLE, StateKind.LOCKED})


@dataclass(frozen=True, slots=True)
class MovementHolder:
    """A round or a board holds the coin in the name of its movement."""

    movement_id: int


@dataclass(frozen=True, slots=True)
class ActionHolder:
    """A resumable action holds the coin; see `wallet.actions`."""

    action_id: str


Holder = MovementHolder | ActionHolder


@dataclass(frozen=True, slots=True)
class Spendable:
    @property
    def kind(self) -> StateKind:
        return StateKind.SPENDABLE


@dataclass(frozen=True, slots=True)
class Locked:
    """holder: None if seed recovery could not decide about the coin; it then counts in no balance field."""

    holder: Holder | None

    @property
    def kind(self) -> StateKind:
        return StateKind.LOCKED


@dataclass(frozen=True, slots=True)
class Spent:
    @property
    def kind(self) -> StateKind:
        return StateKind.SPENT


@dataclass(frozen=True, slots=True)
class Exited:
    @property
    def kind(self) -> StateKind:
        return StateKind.EXITED


VtxoState = Spendable | Locked | Spent | Exited


class VtxoStateConflict(StateConflict):
    """The VTXO is in a state from which the change may not start. Nothing was changed, in the whole batch."""

    def __init__(self, vtxo_id: VtxoId, state: VtxoState, allowed: Sequence[StateKind]) -> None:
        kinds = ", ".join(allowed)
        super().__init__(
            f"vtxo {vtxo_id} is in state {state.kind} which is not in the allowed old states [{kinds}]"
        )
        self.vtxo_id = vtxo_id
        self.state = state
        self.allowed = tuple(allowed)


class UnknownVtxo(NotFound):
    """The wallet has no such VTXO. Nothing was changed, in the whole batch."""

    def __init__(self, vtxo_id: VtxoId) -> None:
        super().__init__(f"no vtxo found with id {vtxo_id}", (str(vtxo_id),))
        self.vtxo_id = vtxo_id


# --- changes


@dataclass(frozen=True, slots=True)
class Lock:
    holder: Holder | None


@dataclass(frozen=True, slots=True)
class Release:
    holder: Holder | None


@dataclass(frozen=True, slots=True)
class MarkSpent:
    pass


@dataclass(frozen=True, slots=True)
class MarkExited:
    pass


@dataclass(frozen=True, slots=True)
class StealLock:
    """Lock whoever holds it now: the server's signed answer decided about the coin."""

    holder: Holder


@dataclass(frozen=True, slots=True)
class StealSpent:
    """Spent whoever holds it now: the server's signed answer decided about the coin."""


StateChange = Lock | Release | MarkSpent | MarkExited | StealLock | StealSpent

# In the order in which error texts list them.
ALLOWED_FROM: dict[type[StateChange], tuple[StateKind, ...]] = {
    Lock: (StateKind.SPENDABLE,),
    Release: (StateKind.LOCKED,),
    MarkSpent: (StateKind.SPENDABLE, StateKind.LOCKED, StateKind.SPENT),
    MarkExited: (StateKind.SPENDABLE, StateKind.LOCKED, StateKind.EXITED),
    StealLock: (StateKind.SPENDABLE, StateKind.LOCKED, StateKind.SPENT),
    StealSpent: (StateKind.SPENDABLE, StateKind.LOCKED, StateKind.SPENT),
}

# Changes that leave a coin alone, without an error, where they do not apply.
_SILENT = (Release, StealLock, StealSpent)


def target_state(change: StateChange) -> VtxoState:
    """The state that the change leads to."""
    match change:
        case Lock(holder):
            return Locked(holder)
        case StealLock(holder):
            return Locked(holder)
        case Release():
            return Spendable()
        case MarkSpent() | StealSpent():
            return Spent()
        case MarkExited():
            return Exited()
        case _:
            assert_never(change)


def next_state(vtxo_id: VtxoId, current: VtxoState, change: StateChange) -> VtxoState | None:
    """The state after the change; None if the VTXO stays as it is, which is a success.

    Raises VtxoStateConflict if the change may not start from the current state.
    """
    target = target_state(change)
    if target == current:
        return None
    allowed = ALLOWED_FROM[type(change)]
    applies = current.kind in allowed and not (
        isinstance(change, Release) and current != Locked(change.holder)
    )
    if applies:
        return target
    if isinstance(change, _SILENT):
        return None
    raise VtxoStateConflict(vtxo_id, current, allowed)


# --- what the wallet knows of a VTXO


@dataclass(frozen=True, slots=True)
class NewVtxo:
    """A VTXO to store, and the state in which it starts if it is not stored yet."""

    vtxo: Vtxo
    state: VtxoState


@dataclass(frozen=True, slots=True)
class WalletVtxo:
    """A stored VTXO without its chain of transactions; enough for lists, selection and balance.

    policy_kind: name of the policy as clients read it ("pubkey", "server-htlc-send", …).
    anchor_point: the on-chain output that the VTXO's transactions hang off.
    exit_depth, exit_tx_weight_wu: number and total weight of the transactions of an exit.
    registered: its transactions are with the server, and its id is in the recovery mailbox.
    """

    id: VtxoId
    amount_sat: int
    policy_kind: str
    user_pubkey: PublicKey
    server_pubkey: PublicKey
    expiry_height: int
    exit_delta: int
    anchor_point: OutPoint
    exit_depth: int
    exit_tx_weight_wu: int
    registered: bool
    state: VtxoState
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One entry of a VTXO's state history."""

    state: VtxoState
    since: datetime
