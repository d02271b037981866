"""The exit machine: a row for each state and view, and what holds for all of them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Txid
from barkd_py.bitcoin.units import DUST_SAT, BlockRef
from barkd_py.chain.source import Confirmed, Mempool, NotFound, PackageFee, Spend
from barkd_py.wallet.exits.errors import ClaimMissingSignableClause, DustLimit
from barkd_py.wallet.exits.machine import (
    TABLE,
    ChildView,
    ClaimTerms,
    ExitView,
    TxView,
    advance,
    cancel,
    status_of,
    step,
)
from barkd_py.wallet.exits.payloads import decode_state, encode_state
from barkd_py.wallet.exits.states import (
    AwaitingConfirmation,
    AwaitingCpfpBroadcast,
    AwaitingDelta,
    AwaitingInputConfirmation,
    BlockOrigin,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitState,
    ExitTx,
    Finished,
    MempoolOrigin,
    Processing,
    Start,
    TxConfirmed,
    VerifyInputs,
    VtxoAlreadySpent,
    VtxoSwept,
    WalletOrigin,
    is_cancelable,
    is_live,
)


def txid(name: str) -> Txid:
    return Txid(sha256(name.encode()))


def block(height: int, branch: str = "best") -> BlockRef:
    return BlockRef(height, BlockHash(sha256(f"{branch} {height}".encode())))


FUNDING, FIRST, LAST = txid("funding"), txid("first"), txid("last")
FIRST_CHILD, LAST_CHILD = txid("first child"), txid("last child")
CLAIM, OTHER_CLAIM = txid("claim"), txid("other claim")
VTXO = VtxoId.of(OutPoint(LAST, 0))
PREVOUT = OutPoint(FUNDING, 1)

TIP = block(200)
TERMS = ClaimTerms(delay=12)
FEE = PackageFee(2_763, 1_105)

CONFIRMED_FIRST = TxView(
    FIRST, status=Confirmed(block(150)), child=ChildView(FIRST_CHILD, True, Confirmed(block(150)))
)
CONFIRMED_LAST = TxView(
    LAST, status=Confirmed(block(160)), child=ChildView(LAST_CHILD, False, Confirmed(block(160)))
)
BEHIND = TxView(LAST, unconfirmed_inputs=frozenset({FIRST}))


def view(first: TxView, last: TxView = BEHIND) -> ExitView:
    return ExitView(VTXO, 50_000, TIP, (first, last), TERMS)


def in_mempool(child: Txid, *, is_ours: bool = True) -> TxView:
    return TxView(FIRST, status=Mempool(), child=ChildView(child, is_ours, Mempool(), FEE))


CONFIRMED = view(CONFIRMED_FIRST, CONFIRMED_LAST)
MATURED = replace(CONFIRMED, matured_at=block(172))

VIEWS: Mapping[str, ExitView] = {
    "nothing yet": view(TxView(FIRST)),
    "funding unconfirmed": view(TxView(FIRST, unconfirmed_inputs=frozenset({FUNDING}))),
    "first in mempool": view(in_mempool(FIRST_CHILD)),
    "first with foreign child": view(in_mempool(txid("foreign"), is_ours=False)),
    "first out of mempool": view(TxView(FIRST, child=ChildView(FIRST_CHILD, True, NotFound()))),
    "first contested": view(TxView(FIRST, contested=True)),
    "first swept": view(TxView(FIRST, conflict=PREVOUT)),
    "first confirmed": view(CONFIRMED_FIRST, TxView(LAST)),
    "all confirmed": CONFIRMED,
    "all confirmed later": view(
        CONFIRMED_FIRST, replace(CONFIRMED_LAST, status=Confirmed(block(195, "new")))
    ),
    "matured": MATURED,
    "matured in another block": replace(MATURED, matured_at=block(172, "new")),
    "claim in mempool": replace(MATURED, spend=Spend(CLAIM, Mempool())),
    "other claim in mempool": replace(MATURED, spend=Spend(OTHER_CLAIM, Mempool())),
    "claim sent again": replace(MATURED, is_claim_alive=True),
    "claim confirmed": replace(MATURED, spend=Spend(CLAIM, Confirmed(block(190)))),
    "no clause": replace(CONFIRMED, terms=None),
    "spent off-chain": replace(view(TxView(FIRST)), is_spent_offchain=True),
}

START = Start(140)
VERIFYING = Processing(141, (ExitTx(FIRST, VerifyInputs()), ExitTx(LAST, VerifyInputs())))
AWAITING = AwaitingDelta(165, block(160), 172)
CLAIMABLE = Claimable(175, block(172), None)
CLAIMING = ClaimInProgress(180, block(172), CLAIM)
CLAIMED = Claimed(190, CLAIM, block(190))
SPENT = VtxoAlreadySpent(145)
SWEPT = VtxoSwept(150, (PREVOUT,))
CANCELED = Canceled(142)

# What the machine makes of things at the tip of the views.
UNVERIFIED = Processing(200, (ExitTx(FIRST, VerifyInputs()), ExitTx(LAST, VerifyInputs())))


def processing(first: object, last: object = AwaitingInputConfirmation(frozenset({FIRST}))) -> Processing:
    return Processing(200, (ExitTx(FIRST, first), ExitTx(LAST, last)))  # type: ignore[arg-type]


FIRST_DONE = TxConfirmed(FIRST_CHILD, block(150), WalletOrigin(block(150)))
LAST_DONE = TxConfirmed(LAST_CHILD, block(160), BlockOrigin(block(160)))
WAITING = AwaitingDelta(200, block(160), 172)
WAITING_LONGER = AwaitingDelta(200, block(195, "new"), 207)
RIPE = Claimable(200, block(172), None)
SCANNED = replace(CLAIMABLE, last_scanned_block=TIP)

BACK: dict[str, ExitState] = {
    "nothing yet": UNVERIFIED,
    "funding unconfirmed": UNVERIFIED,
    "first in mempool": UNVERIFIED,
    "first with foreign child": UNVERIFIED,
    "first out of mempool": UNVERIFIED,
    "first contested": UNVERIFIED,
    "first swept": UNVERIFIED,
    "first confirmed": UNVERIFIED,
    "all confirmed later": WAITING_LONGER,
    "spent off-chain": UNVERIFIED,
}
"""What becomes of a state whose ground a reorg has taken away; spending off-chain is too late."""

EXPECTED: Mapping[str, tuple[ExitState, Mapping[str, ExitState]]] = {
    "start": (
        START,
        dict.fromkeys(VIEWS, UNVERIFIED) | {"spent off-chain": VtxoAlreadySpent(200)},
    ),
    "processing": (
        VERIFYING,
        {
            "nothing yet": processing(AwaitingCpfpBroadcast()),
            "funding unconfirmed": processing(AwaitingInputConfirmation(frozenset({FUNDING}))),
            "first in mempool": processing(AwaitingConfirmation(FIRST_CHILD, WalletOrigin(), True, FEE)),
            "first with foreign child": processing(
                AwaitingConfirmation(txid("foreign"), MempoolOrigin(), True, FEE)
            ),
            "first out of mempool": processing(
                AwaitingConfirmation(FIRST_CHILD, WalletOrigin(), False, None)
            ),
            "first contested": processing(AwaitingCpfpBroadcast()),
            "first swept": VtxoSwept(200, (PREVOUT,)),
            "first confirmed": processing(FIRST_DONE, AwaitingCpfpBroadcast()),
            "all confirmed": WAITING,
            "all confirmed later": WAITING_LONGER,
            "matured": WAITING,
            "matured in another block": WAITING,
            "claim in mempool": WAITING,
            "other claim in mempool": WAITING,
            "claim sent again": WAITING,
            "claim confirmed": WAITING,
            "no clause": processing(FIRST_DONE, LAST_DONE),
            "spent off-chain": VtxoAlreadySpent(200),
        },
    ),
    "awaiting-delta": (
        AWAITING,
        {
            **BACK,
            "no clause": AWAITING,
            "all confirmed": AWAITING,
            "matured": RIPE,
            "matured in another block": Claimable(200, block(172, "new"), None),
            "claim in mempool": RIPE,
            "other claim in mempool": RIPE,
            "claim sent again": RIPE,
            "claim confirmed": RIPE,
        },
    ),
    "claimable": (
        CLAIMABLE,
        {
            **BACK,
            "no clause": CLAIMABLE,
            "all confirmed": WAITING,
            "matured": SCANNED,
            "matured in another block": Claimable(200, block(172, "new"), None),
            "claim in mempool": ClaimInProgress(200, block(172), CLAIM),
            "other claim in mempool": ClaimInProgress(200, block(172), OTHER_CLAIM),
            "claim sent again": SCANNED,
            "claim confirmed": Claimed(200, CLAIM, block(190)),
        },
    ),
    "claim-in-progress": (
        CLAIMING,
        {
            **BACK,
            "no clause": CLAIMING,
            "all confirmed": WAITING,
            "matured": RIPE,
            "matured in another block": RIPE,
            "claim in mempool": CLAIMING,
            "other claim in mempool": ClaimInProgress(200, block(172), OTHER_CLAIM),
            "claim sent again": CLAIMING,
            "claim confirmed": Claimed(200, CLAIM, block(190)),
        },
    ),
    **{state.type: (state, dict.fromkeys(VIEWS, state)) for state in (CLAIMED, SPENT, SWEPT, CANCELED)},
}

ROWS = [
    pytest.param(state, VIEWS[name], expected[name], id=f"{kind} and {name}")
    for kind, (state, expected) in EXPECTED.items()
    for name in VIEWS
]


@pytest.mark.parametrize(("state", "seen", "expected"), ROWS)
def test_each_state_in_each_view(state: ExitState, seen: ExitView, expected: ExitState) -> None:
    assert step(state, seen).state == expected


@pytest.mark.parametrize(("state", "seen", "expected"), ROWS)
def test_steps_follow_the_table(state: ExitState, seen: ExitView, expected: ExitState) -> None:
    after = step(state, seen).state
    assert after == state or type(after) in TABLE[type(state)].to


@pytest.mark.parametrize(("state", "seen", "expected"), ROWS)
def test_repeating_steps_comes_to_an_end(state: ExitState, seen: ExitView, expected: ExitState) -> None:
    result = advance(state, seen)
    assert step(result.state, seen).state == result.state


def test_every_state_has_a_row_and_finished_ones_lead_nowhere() -> None:
    assert set(TABLE) == set(get_args(ExitState))
    assert {kind for kind, row in TABLE.items() if not row.to} == set(get_args(Finished))


def test_every_state_is_reached() -> None:
    seen: set[type] = {Start, Canceled}  # where exits begin, and what the user decides
    for state, expected in EXPECTED.values():
        seen |= {type(step(state, VIEWS[name]).state) for name in expected}
    assert type(cancel(START, TIP)) is Canceled
    assert seen == set(get_args(ExitState))


def test_every_transition_of_the_table_happens() -> None:
    happened = {
        (type(state), type(step(state, VIEWS[name]).state))
        for state, expected in EXPECTED.values()
        for name in expected
    }
    promised = {(before, after) for before, row in TABLE.items() for after in row.to}
    by_the_user = {(Start, Canceled), (Processing, Canceled)}
    # `awaiting-delta` changes to itself and the rest of `processing` are in the rows above
    assert promised - by_the_user == happened & promised


def test_one_view_takes_an_exit_all_the_way() -> None:
    result = advance(START, VIEWS["claim confirmed"])
    assert result.state == Claimed(200, CLAIM, block(190))
    assert result.passed == (START, UNVERIFIED, WAITING, RIPE)
    assert result.error is None


def test_history_of_a_slow_exit_has_each_state_once() -> None:
    state: ExitState = START
    history: list[ExitState] = []
    names = ["nothing yet", "first in mempool", "first confirmed", "all confirmed", "matured", "matured"]
    for name in [*names, "claim in mempool", "claim confirmed", "claim confirmed"]:
        result = advance(state, VIEWS[name])
        history += result.passed
        state = result.state
    assert history == [
        START,
        UNVERIFIED,
        processing(AwaitingCpfpBroadcast()),
        processing(AwaitingConfirmation(FIRST_CHILD, WalletOrigin(), True, FEE)),
        processing(FIRST_DONE, AwaitingCpfpBroadcast()),
        WAITING,
        replace(RIPE, last_scanned_block=TIP),
        ClaimInProgress(200, block(172), CLAIM),
    ]
    assert state == Claimed(200, CLAIM, block(190))


def test_waiting_in_claimable_adds_nothing_to_the_history() -> None:
    later = replace(MATURED, tip=block(230))
    result = advance(SCANNED, later)
    assert result.state == replace(CLAIMABLE, last_scanned_block=block(230))
    assert result.passed == ()


# --- errors


def test_dust_never_leaves_start() -> None:
    taken = step(START, replace(VIEWS["nothing yet"], amount_sat=DUST_SAT - 1))
    assert taken.state == START
    assert isinstance(taken.error, DustLimit)
    assert (taken.error.vtxo, taken.error.amount_sat) == (VTXO, 329)
    assert step(START, replace(VIEWS["nothing yet"], amount_sat=DUST_SAT)).state == UNVERIFIED


def test_confirmed_without_a_clause_is_an_error_that_ends_with_the_preimage() -> None:
    stuck = advance(VERIFYING, VIEWS["no clause"])
    assert stuck.state == processing(FIRST_DONE, LAST_DONE)
    assert isinstance(stuck.error, ClaimMissingSignableClause)
    assert advance(stuck.state, CONFIRMED).state == WAITING


# --- when it may be claimed


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (ClaimTerms(delay=12), 172),
        (ClaimTerms(delay=0), 160),
        (ClaimTerms(delay=12, min_height=171), 172),
        (ClaimTerms(delay=12, min_height=300), 300),  # an outgoing HTLC before its timeout
    ],
)
def test_claimable_height(terms: ClaimTerms, expected: int) -> None:
    assert replace(CONFIRMED, terms=terms).claimable_height == expected


def test_claimable_height_counts_from_the_greatest_block() -> None:
    assert CONFIRMED.confirmed_block == block(160)
    assert view(CONFIRMED_FIRST, TxView(LAST)).claimable_height is None


# --- reorgs


@pytest.mark.parametrize("state", [AWAITING, CLAIMABLE, CLAIMING])
def test_a_reorg_starts_over_from_every_state_that_stands_on_confirmations(state: ExitState) -> None:
    result = advance(state, VIEWS["nothing yet"])
    assert result.state == processing(AwaitingCpfpBroadcast())
    assert result.passed == (state, UNVERIFIED)


@pytest.mark.parametrize("state", [AWAITING, CLAIMABLE, CLAIMING])
def test_the_delay_is_counted_anew_if_the_last_transaction_moved(state: ExitState) -> None:
    assert advance(state, VIEWS["all confirmed later"]).state == WAITING_LONGER


def test_a_lost_claim_is_claimable_again() -> None:
    assert advance(CLAIMING, MATURED).state == replace(RIPE, last_scanned_block=TIP)


# --- status of a transaction


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        (TxView(FIRST), AwaitingCpfpBroadcast()),
        (TxView(FIRST, frozenset({FUNDING})), AwaitingInputConfirmation(frozenset({FUNDING}))),
        (TxView(FIRST, status=Mempool()), AwaitingCpfpBroadcast()),
        (in_mempool(FIRST_CHILD), AwaitingConfirmation(FIRST_CHILD, WalletOrigin(), True, FEE)),
        (
            in_mempool(FIRST_CHILD, is_ours=False),
            AwaitingConfirmation(FIRST_CHILD, MempoolOrigin(), True, FEE),
        ),
        (
            TxView(FIRST, child=ChildView(FIRST_CHILD, False, NotFound())),
            AwaitingConfirmation(FIRST_CHILD, MempoolOrigin(), False, None),
        ),
        (CONFIRMED_FIRST, FIRST_DONE),
        (CONFIRMED_LAST, LAST_DONE),
        (
            TxView(FIRST, status=Confirmed(block(9))),
            TxConfirmed(None, block(9), BlockOrigin(block(9))),
        ),
        (
            TxView(FIRST, status=Confirmed(block(9)), child=ChildView(FIRST_CHILD, True, Mempool())),
            TxConfirmed(FIRST_CHILD, block(9), WalletOrigin()),
        ),
    ],
)
def test_status_of_a_transaction(tx: TxView, expected: object) -> None:
    assert status_of(tx) == expected


# --- canceling


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (START, True),
        (VERIFYING, True),
        (processing(FIRST_DONE, AwaitingCpfpBroadcast()), True),
        (processing(FIRST_DONE), True),
        (processing(FIRST_DONE, AwaitingConfirmation(LAST_CHILD, WalletOrigin())), False),
        (processing(FIRST_DONE, LAST_DONE), False),
        (AWAITING, False),
        (CLAIMABLE, False),
        (CLAIMING, False),
        (CLAIMED, False),
        (SPENT, False),
        (SWEPT, False),
        (CANCELED, False),
    ],
)
def test_what_may_be_canceled(state: ExitState, expected: bool) -> None:
    assert is_cancelable(state) is expected
    assert (Canceled in TABLE[type(state)].to) >= expected


def test_live_and_finished_are_all_there_is() -> None:
    live = {kind for kind, (state, _) in EXPECTED.items() if is_live(state)}
    assert live == {"start", "processing", "awaiting-delta", "claimable", "claim-in-progress"}


# --- states as JSON


def test_the_order_of_unconfirmed_inputs_means_nothing() -> None:
    """Otherwise the state would "change" with each look, and be announced."""
    waiting = processing(AwaitingInputConfirmation(frozenset(map(txid, "abcde"))))
    text = encode_state(waiting)
    assert encode_state(processing(AwaitingInputConfirmation(frozenset(map(txid, "edcba"))))) == text
    turned = json.loads(text)
    txids = turned["state"]["transactions"][0]["status"]["txids"]
    assert txids == sorted(txids)
    txids.reverse()
    assert decode_state(json.dumps(turned)) == waiting
