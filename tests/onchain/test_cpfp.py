"""Fee and coins of a fee child, against vectors and at its limits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut, fee_anchor
from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.source import PackageFee
from barkd_py.onchain.cpfp import (
    CANONICAL_CHILD_WEIGHT_WU,
    MAX_CHILD_VSIZE,
    MAX_FUNDING_INPUTS,
    FeeRateTooLow,
    InsufficientConfirmedFunds,
    MissingAnchor,
    child_weight_wu,
    fee_anchor_of,
    package_fee_sat,
    plan_child,
)
from barkd_py.onchain.types import OnchainUtxo
from tests.support.vectors import cases

TEN_SAT_PER_VB = FeeRate(2_500)
PARENT_WU = 496


def coins(*amounts_sat: int) -> list[OnchainUtxo]:
    return [
        OnchainUtxo(OutPoint(Txid(bytes(32)), index), TxOut(amount_sat, b"\x51"), 100)
        for index, amount_sat in enumerate(amounts_sat)
    ]


@pytest.mark.parametrize(
    "case", cases("exits", kind="child-weight"), ids=lambda case: str(case["p2tr_inputs"])
)
def test_child_weights_are_those_of_upstream(case: dict[str, Any]) -> None:
    assert child_weight_wu(case["p2tr_inputs"]) == case["weight_predicted"]


def test_canonical_child_has_one_input() -> None:
    (case,) = cases("exits", kind="canonical-child")
    assert child_weight_wu(1) == CANONICAL_CHILD_WEIGHT_WU == case["weight"]


def test_most_inputs_are_the_most_that_fit() -> None:
    assert (
        child_weight_wu(MAX_FUNDING_INPUTS) <= MAX_CHILD_VSIZE * 4 < child_weight_wu(MAX_FUNDING_INPUTS + 1)
    )


def test_package_fees_are_those_of_upstream() -> None:
    for case in cases("exits", kind="package-fee"):
        weights = case["parent_weight"], case["child_weight"]
        if case["mode"] == "rbf":
            fee_sat = package_fee_sat(
                FeeRate(case["min_effective_fee_rate_kwu"]),
                *weights,
                replaces_fee_sat=case["current_package_fee"],
            )
        else:
            fee_sat = package_fee_sat(FeeRate(case["fee_rate_kwu"]), *weights)
        assert fee_sat == case["fee"], case


def test_effective_rates_are_those_of_upstream() -> None:
    found = [
        case for case in cases("exits", kind="rate-from-fee-and-weight") if case["sat_per_kwu"] is not None
    ]
    assert found
    for case in found:
        assert PackageFee(case["fee"], case["weight"]).fee_rate.sat_per_kwu == case["sat_per_kwu"], case


def plan(*amounts_sat: int, anchor_value_sat: int = 0, fee_rate: FeeRate = TEN_SAT_PER_VB) -> Any:
    return plan_child(
        coins(*amounts_sat), parent_weight_wu=PARENT_WU, anchor_value_sat=anchor_value_sat, fee_rate=fee_rate
    )


def test_one_coin_that_leaves_the_smallest_output_is_enough() -> None:
    exact = plan(2_763 + 330)
    assert (exact.fee_sat, exact.weight_wu, exact.output_sat) == (2_763, 609, 330)
    with pytest.raises(InsufficientConfirmedFunds) as refusal:
        plan(2_763 + 329)
    assert (refusal.value.needed_sat, refusal.value.available_sat) == (2_763 + 330, 2_763 + 329)


def test_largest_coins_are_taken_first() -> None:
    chosen = plan(1_000, 3_000, 2_000)
    assert [coin.amount_sat for coin in chosen.coins] == [3_000, 2_000]
    assert chosen.fee_sat == TEN_SAT_PER_VB.fee_wu(PARENT_WU + 839)


def test_anchor_counts_as_an_input() -> None:
    assert plan(3_000, anchor_value_sat=93).output_sat == 330
    alone = plan(anchor_value_sat=600, fee_rate=FeeRate(309))
    assert (alone.coins, alone.weight_wu, alone.fee_sat, alone.output_sat) == ((), 376, 270, 330)


def test_sixteenth_coin_is_not_taken() -> None:
    with pytest.raises(InsufficientConfirmedFunds) as refusal:
        plan(*[700] * 20)
    needed_sat = TEN_SAT_PER_VB.fee_wu(PARENT_WU + child_weight_wu(15)) + 330
    assert (refusal.value.needed_sat, refusal.value.available_sat) == (needed_sat, 20 * 700)


def test_no_coins_at_all_are_insufficient() -> None:
    with pytest.raises(InsufficientConfirmedFunds) as refusal:
        plan()
    assert refusal.value.available_sat == 0


def test_replacement_pays_for_its_own_relay() -> None:
    """The same rate again: 277 sat more. Source: sheet 06 §4.3."""
    replacement = plan_child(
        coins(50_000),
        parent_weight_wu=PARENT_WU,
        anchor_value_sat=0,
        fee_rate=TEN_SAT_PER_VB,
        replaces=PackageFee(2_763, 1_105),
    )
    assert replacement.fee_sat == 3_040


def test_rate_that_no_node_relays_is_refused() -> None:
    with pytest.raises(FeeRateTooLow):
        plan(50_000, fee_rate=FeeRate(249))


def test_anchor_is_the_first_of_its_kind() -> None:
    tx_in = TxIn(OutPoint(Txid(bytes(32)), 0))
    parent = Tx(3, (tx_in,), (TxOut(1_000, b"\x51"), fee_anchor(7), fee_anchor()))
    assert fee_anchor_of(parent) == (parent.outpoint(1), fee_anchor(7))
    bare = Tx(3, (tx_in,), (TxOut(1_000, b"\x51"),))
    with pytest.raises(MissingAnchor, match=f"Transaction has no fee anchor: {bare.txid}"):
        fee_anchor_of(bare)


@given(
    amounts_sat=st.lists(st.integers(0, 100_000), max_size=30),
    anchor_value_sat=st.integers(0, 5_000),
    fee_rate=st.builds(FeeRate, st.integers(250, 100_000)),
    parent_weight_wu=st.integers(300, 40_000),
)
def test_plans_add_up(
    amounts_sat: list[int], anchor_value_sat: int, fee_rate: FeeRate, parent_weight_wu: int
) -> None:
    refusal: InsufficientConfirmedFunds | None = None
    try:
        made = plan_child(
            coins(*amounts_sat),
            parent_weight_wu=parent_weight_wu,
            anchor_value_sat=anchor_value_sat,
            fee_rate=fee_rate,
        )
    except InsufficientConfirmedFunds as error:
        refusal = error
    if refusal is not None:
        assert refusal.available_sat == anchor_value_sat + sum(amounts_sat)
        largest = sorted(amounts_sat, reverse=True)[:MAX_FUNDING_INPUTS]
        assert anchor_value_sat + sum(largest) < refusal.needed_sat
        return
    assert len(made.coins) <= MAX_FUNDING_INPUTS
    assert made.output_sat >= 330
    assert sum(coin.amount_sat for coin in made.coins) + anchor_value_sat == made.fee_sat + made.output_sat
    assert made.fee_sat == fee_rate.fee_wu(parent_weight_wu + made.weight_wu)
