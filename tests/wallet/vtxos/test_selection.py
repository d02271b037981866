"""Which VTXOs are chosen to pay, and which to refresh."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.fees import FeeOverflow, VtxoFeeInfo
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.units import FeeRate
from barkd_py.errors import chain_text
from barkd_py.wallet.vtxos.selection import (
    CannotCoverPaymentAndFees,
    FeeDidNotConverge,
    NotEnoughVtxos,
    RefreshRules,
    SelectionLimits,
    select,
    select_for_maintenance,
    select_with_fee,
)

_numbers = count(1)


@dataclass(frozen=True)
class Coin:
    amount_sat: int
    expiry_height: int
    exit_depth: int
    policy_kind: str
    exit_tx_weight_wu: int
    id: VtxoId


def coin(
    amount_sat: int, expiry: int = 100, *, depth: int = 1, policy: str = "pubkey", weight_wu: int = 0
) -> Coin:
    vtxo_id = VtxoId(next(_numbers).to_bytes(36, "big"))
    return Coin(amount_sat, expiry, depth, policy, weight_wu, vtxo_id)


A, B, C = coin(10_000, 100), coin(20_000, 200), coin(30_000, 300)


# --- order and cap


def test_the_soonest_to_expire_are_spent_first() -> None:
    assert select([C, A, B], 25_000) == (A, B)


def test_at_the_same_expiry_the_deepest_goes_first_then_the_largest() -> None:
    shallow, deep, large = coin(500, depth=1), coin(400, depth=3), coin(600, depth=1)
    assert select([shallow, large, deep], 400) == (deep,)
    assert select([shallow, large, deep], 1000) == (deep, large)


def test_nothing_is_chosen_for_nothing() -> None:
    assert select([A], 0) == ()
    assert select([], 0) == ()


def test_larger_inputs_replace_the_smallest_when_capped() -> None:
    assert select([A, B, C], 40_000, SelectionLimits(max_inputs=2)) == (B, C)


def test_of_equally_small_inputs_the_later_is_replaced() -> None:
    first, second, third = coin(10_000, 100), coin(10_000, 200), coin(30_000, 300)
    assert select([first, second, third], 40_000, SelectionLimits(max_inputs=2)) == (first, third)


def test_an_equal_input_replaces_nothing() -> None:
    first, second = coin(10_000, 100), coin(10_000, 200)
    with pytest.raises(NotEnoughVtxos):
        select([first, second], 10_001, SelectionLimits(max_inputs=1))


def test_the_cap_is_named_when_it_is_the_reason() -> None:
    with pytest.raises(NotEnoughVtxos) as refused:
        select([A, B, C], 50_001, SelectionLimits(max_inputs=2))
    assert str(refused.value) == (
        "Insufficient money available. Needed 0.00050001 BTC "
        "but the best 2 inputs only amount to 0.00050000 BTC"
    )


def test_a_cap_that_nothing_reaches_is_not_named() -> None:
    with pytest.raises(NotEnoughVtxos) as refused:
        select([A, B, C], 60_001, SelectionLimits(max_inputs=3))
    assert str(refused.value) == (
        "Insufficient money available. Needed 0.00060001 BTC but 0.00060000 BTC is available"
    )
    assert (refused.value.needed_sat, refused.value.available_sat) == (60_001, 60_000)


def test_no_inputs_allowed_is_not_enough() -> None:
    with pytest.raises(NotEnoughVtxos):
        select([A], 1, SelectionLimits(max_inputs=0))


# --- who may pay


def test_vtxos_at_the_servers_depth_limit_do_not_pay() -> None:
    at_limit, below = coin(1000, 50, depth=5), coin(1000, 60, depth=4)
    assert select([at_limit, below], 1000, SelectionLimits(max_exit_depth=5)) == (below,)


def test_expired_vtxos_do_not_pay_where_that_matters() -> None:
    expired, next_block = coin(1000, 100), coin(1000, 101)
    assert select([expired, next_block], 1000, SelectionLimits(expires_after_height=100)) == (next_block,)
    assert select([expired, next_block], 1000) == (expired,)


def test_excluded_vtxos_do_not_pay() -> None:
    assert select([A, B], 10_000, SelectionLimits(exclude={A.id})) == (B,)


@pytest.mark.parametrize("policy", ["server-htlc-send", "server-htlc-receive-v1"])
def test_recovered_htlc_vtxos_do_not_pay(policy: str) -> None:
    with pytest.raises(NotEnoughVtxos):
        select([coin(1000, policy=policy)], 1)


amounts = st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 50), st.integers(0, 5)), max_size=10)


@given(amounts, st.integers(0, 5000), st.none() | st.integers(1, 5))
def test_a_choice_covers_and_what_it_cannot_cover_nothing_can(
    rows: list[tuple[int, int, int]], target_sat: int, max_inputs: int | None
) -> None:
    coins = [coin(amount, expiry, depth=depth) for amount, expiry, depth in rows]
    most = len(coins) if max_inputs is None else max_inputs
    best_sat = sum(sorted((c.amount_sat for c in coins), reverse=True)[:most])
    limits = SelectionLimits(max_inputs=max_inputs)
    if best_sat < target_sat:
        with pytest.raises(NotEnoughVtxos) as refused:
            select(coins, target_sat, limits)
        assert refused.value.available_sat == best_sat
        return
    chosen = select(coins, target_sat, limits)
    assert sum(c.amount_sat for c in chosen) >= target_sat
    assert len(chosen) == len({c.id for c in chosen}) <= most
    assert list(chosen) == sorted(chosen, key=lambda c: (c.expiry_height, -c.exit_depth, -c.amount_sat))


# --- with fee


def per_input(amount_sat: int, infos: Sequence[VtxoFeeInfo]) -> int:
    return 100 * len(infos)


def test_a_fee_may_need_another_input() -> None:
    selection = select_with_fee([A, B, C], 9800, lambda _a, _v: 500, tip_height=0)
    assert selection.vtxos == (A, B)
    assert (selection.total_sat, selection.fee_sat) == (30_000, 500)


def test_the_fee_is_of_the_inputs_that_are_chosen() -> None:
    selection = select_with_fee([A, B], 9950, per_input, tip_height=0)
    assert (selection.vtxos, selection.fee_sat) == ((A, B), 200)


def test_the_fee_sees_blocks_to_expiry() -> None:
    seen: list[VtxoFeeInfo] = []

    def fee(amount_sat: int, infos: Sequence[VtxoFeeInfo]) -> int:
        seen.extend(infos)
        return 0

    select_with_fee([A, B], 30_000, fee, tip_height=150)
    assert seen == [VtxoFeeInfo(10_000, 0), VtxoFeeInfo(20_000, 50)]


def test_too_little_for_payment_and_fee_says_what_was_needed() -> None:
    with pytest.raises(CannotCoverPaymentAndFees) as refused:
        select_with_fee([A], 9800, lambda _a, _v: 500, tip_height=0)
    assert chain_text(refused.value) == (
        "Could not find enough suitable VTXOs to cover payment + fees: "
        "Insufficient money available. Needed 0.00010300 BTC but 0.00010000 BTC is available"
    )


def test_a_fee_that_outruns_the_choice_ends() -> None:
    coins = [coin(10, height) for height in range(1, 300)]
    with pytest.raises(FeeDidNotConverge):
        select_with_fee(coins, 10, lambda _a, infos: 10 * len(infos), tip_height=0)


def test_a_fee_that_cannot_be_computed_is_reported() -> None:
    def overflow(amount_sat: int, infos: Sequence[VtxoFeeInfo]) -> int:
        raise FeeOverflow

    with pytest.raises(FeeOverflow):
        select_with_fee([A], 1, overflow, tip_height=0)


def test_limits_hold_while_the_fee_is_found() -> None:
    limits = SelectionLimits(max_inputs=1, exclude={C.id})
    with pytest.raises(CannotCoverPaymentAndFees):
        select_with_fee([A, B, C], 19_900, lambda _a, _v: 500, tip_height=0, limits=limits)


# --- refresh: sheet 03 §7.4

RULES = RefreshRules(tip_height=1000, refresh_threshold=144, max_exit_depth=10, fee_rate=FeeRate(250))


@pytest.mark.parametrize(
    ("vtxo", "must", "should"),
    [
        (coin(100_000, 1000), True, True),  # expired
        (coin(100_000, 1143), True, True),
        (coin(100_000, 1144), False, True),
        (coin(100_000, 1171), False, True),
        (coin(100_000, 1172), False, False),
        (coin(100_000, 5000, depth=10), True, True),
        (coin(100_000, 5000, depth=9), False, True),
        (coin(100_000, 5000, depth=5), False, True),
        (coin(100_000, 5000, depth=4), False, False),
        (coin(329, 5000), False, True),
        (coin(330, 5000), False, False),
        (coin(499, 5000, weight_wu=1000), False, True),  # an exit costs 250 sat
        (coin(500, 5000, weight_wu=1000), False, False),
    ],
)
def test_when_a_vtxo_must_or_should_be_refreshed(vtxo: Coin, must: bool, should: bool) -> None:
    assert (RULES.must(vtxo), RULES.should(vtxo)) == (must, should)


@pytest.mark.parametrize("tip_height", [0, 1, 100, 1000])
@pytest.mark.parametrize("threshold", [0, 1, 144])
def test_one_height_says_what_must_be_refreshed_for_its_expiry(tip_height: int, threshold: int) -> None:
    rules = RefreshRules(tip_height, threshold, None, FeeRate(250))
    for expiry_height in {0, 1, 143, 144, *range(tip_height + threshold - 2, tip_height + threshold + 3)}:
        if expiry_height >= 0:
            must = rules.must(coin(100_000, expiry_height))
            assert must == (expiry_height < rules.must_before_height), expiry_height


def test_an_unknown_depth_limit_forces_nothing() -> None:
    rules = RefreshRules(tip_height=1000, refresh_threshold=144, max_exit_depth=None, fee_rate=FeeRate(250))
    deep = coin(100_000, 5000, depth=200)
    assert not rules.must(deep)
    assert not rules.should(deep)


def test_a_threshold_beyond_the_expiry_counts_from_the_first_block() -> None:
    rules = RefreshRules(tip_height=0, refresh_threshold=144, max_exit_depth=None, fee_rate=FeeRate(250))
    assert not rules.must(coin(100_000, 100))


def test_maintenance_takes_those_that_should_along_with_those_that_must() -> None:
    due, soon, fine = coin(100_000, 1100), coin(100_000, 1160), coin(100_000, 5000)
    assert select_for_maintenance([due, soon, fine], RULES) == (due, soon)
    assert select_for_maintenance([soon, fine], RULES) == ()
    assert select_for_maintenance([due, soon, fine], RULES, exclude={due.id}) == ()
