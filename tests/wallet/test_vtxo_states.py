"""The table of state changes, every row of it."""

import pytest

from barkd_py.wallet.vtxo_states import (
    ALLOWED_FROM,
    ActionHolder,
    Exited,
    Lock,
    Locked,
    MarkExited,
    MarkSpent,
    MovementHolder,
    Release,
    Spendable,
    Spent,
    StateChange,
    StateKind,
    StealLock,
    StealSpent,
    VtxoState,
    VtxoStateConflict,
    next_state,
)
from tests.wallet.samples import ALL_STATES, make_id

OURS = MovementHolder(1)
ACTION = ActionHolder("a")
MINE, NOBODYS, ACTIONS = Locked(OURS), Locked(None), Locked(ACTION)
REFUSED = "refused"

# change, then what it does to: Spendable, Locked(us), Locked(nobody), Locked(action), Spent, Exited.
# None: it stays as it is, without an error.
MATRIX: list[tuple[StateChange, tuple[VtxoState | str | None, ...]]] = [
    (Lock(OURS), (MINE, None, REFUSED, REFUSED, REFUSED, REFUSED)),
    (Lock(None), (NOBODYS, REFUSED, None, REFUSED, REFUSED, REFUSED)),
    (Lock(ACTION), (ACTIONS, REFUSED, REFUSED, None, REFUSED, REFUSED)),
    (Release(OURS), (None, Spendable(), None, None, None, None)),
    (Release(None), (None, None, Spendable(), None, None, None)),
    (Release(ACTION), (None, None, None, Spendable(), None, None)),
    (MarkSpent(), (Spent(), Spent(), Spent(), Spent(), None, REFUSED)),
    (MarkExited(), (Exited(), Exited(), Exited(), Exited(), REFUSED, None)),
    (StealLock(OURS), (MINE, None, MINE, MINE, MINE, None)),
    (StealSpent(), (Spent(), Spent(), Spent(), Spent(), None, None)),
]
CURRENT: tuple[VtxoState, ...] = (Spendable(), MINE, NOBODYS, ACTIONS, Spent(), Exited())


@pytest.mark.parametrize(
    ("change", "current", "expected"),
    [
        (change, current, expected)
        for change, row in MATRIX
        for current, expected in zip(CURRENT, row, strict=True)
    ],
)
def test_each_change_from_each_state(
    change: StateChange, current: VtxoState, expected: VtxoState | str | None
) -> None:
    if expected == REFUSED:
        with pytest.raises(VtxoStateConflict):
            next_state(make_id(1), current, change)
    else:
        assert next_state(make_id(1), current, change) == expected


def test_the_matrix_covers_every_change() -> None:
    assert {type(change) for change, _ in MATRIX} == set(ALLOWED_FROM)


@pytest.mark.parametrize("change", [change for change, _ in MATRIX])
def test_nothing_leaves_exited(change: StateChange) -> None:
    try:
        after = next_state(make_id(1), Exited(), change)
    except VtxoStateConflict:
        return
    assert after is None


def test_conflicts_read_as_barkd_writes_them() -> None:
    vtxo_id = make_id(1)

    with pytest.raises(VtxoStateConflict) as lock:
        next_state(vtxo_id, Spent(), Lock(OURS))
    with pytest.raises(VtxoStateConflict) as spend:
        next_state(vtxo_id, Exited(), MarkSpent())

    assert str(lock.value) == (
        f"vtxo {vtxo_id} is in state Spent which is not in the allowed old states [Spendable]"
    )
    assert str(spend.value) == (
        f"vtxo {vtxo_id} is in state Exited which is not in the allowed old states [Spendable, Locked, Spent]"
    )


def test_the_samples_hold_every_kind_of_state() -> None:
    assert {state.kind for state in ALL_STATES} == set(StateKind)
