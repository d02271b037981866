"""Fees against upstream's grid, the rounding and overflow rules, and the texts of refusals."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.fees import (
    U64_MAX,
    AmountAfterFeeIsDust,
    BoardFees,
    FeeExceedsAmount,
    FeeOverflow,
    FeeSchedule,
    FeeScheduleInvalid,
    LightningReceiveFees,
    LightningSendFees,
    OffboardFees,
    PpmExpiryFeeEntry,
    RefreshFees,
    VtxoFeeInfo,
    board_fee,
    lightning_receive_fee,
    lightning_send_fee,
    offboard_fee,
    ppm_expiry_fee,
    refresh_fee,
    subtract_fee,
    subtract_fee_above_dust,
    validate_schedule,
)
from barkd_py.bitcoin.units import FeeRate
from tests.support.vectors import Case, cases, params

Table = tuple[PpmExpiryFeeEntry, ...]


def table_from_json(rows: list[Case]) -> Table:
    return tuple(PpmExpiryFeeEntry(row["expiry_blocks_threshold"], row["ppm"]) for row in rows)


def schedule_from_json(value: Case) -> FeeSchedule:
    def with_table(fees: Case) -> Case:
        return {**fees, "ppm_expiry_table": table_from_json(fees["ppm_expiry_table"])}

    return FeeSchedule(
        BoardFees(**value["board"]),
        OffboardFees(**with_table(value["offboard"])),
        RefreshFees(**with_table(value["refresh"])),
        LightningReceiveFees(**value["lightning_receive"]),
        LightningSendFees(**with_table(value["lightning_send"])),
    )


SCHEDULES = {case["schedule"]: schedule_from_json(case["json"]) for case in cases("fees", kind="schedule")}
SERVER_EXAMPLE = SCHEDULES["server-example"]


def infos(rows: list[tuple[int, int]]) -> list[VtxoFeeInfo]:
    return [VtxoFeeInfo(amount_sat, blocks) for amount_sat, blocks in rows]


def expect_fee(fee: int | None, compute: Any) -> None:
    """fee: None means that there must be none."""
    if fee is None:
        with pytest.raises(FeeOverflow, match=r"^fee overflowed$"):
            compute()
    else:
        assert compute() == fee


def test_vector_schedules_are_valid() -> None:
    for case in cases("fees", kind="schedule"):
        assert case["valid"]
        validate_schedule(SCHEDULES[case["schedule"]])


@pytest.mark.parametrize("case", params("fees", kind="board"))
def test_board_fees_match_upstream(case: Case) -> None:
    schedule = SCHEDULES[case["schedule"]]
    for amount_sat, fee in case["rows"]:
        expect_fee(fee, lambda a=amount_sat: board_fee(schedule, a))


@pytest.mark.parametrize("case", params("fees", kind="lightning_receive"))
def test_lightning_receive_fees_match_upstream(case: Case) -> None:
    schedule = SCHEDULES[case["schedule"]]
    for amount_sat, fee in case["rows"]:
        expect_fee(fee, lambda a=amount_sat: lightning_receive_fee(schedule, a))


@pytest.mark.parametrize("case", params("fees", kind="lightning_send"))
def test_lightning_send_fees_match_upstream(case: Case) -> None:
    schedule = SCHEDULES[case["schedule"]]
    for amount_sat, vtxos, fee in case["rows"]:
        expect_fee(fee, lambda a=amount_sat, v=vtxos: lightning_send_fee(schedule, a, infos(v)))


@pytest.mark.parametrize("case", params("fees", kind="refresh"))
def test_refresh_fees_match_upstream(case: Case) -> None:
    schedule = SCHEDULES[case["schedule"]]
    for vtxos, fee, _ in case["rows"]:
        expect_fee(fee, lambda v=vtxos: refresh_fee(schedule, infos(v)))


@pytest.mark.parametrize("case", params("fees", kind="offboard"))
def test_offboard_fees_match_upstream(case: Case) -> None:
    schedule = SCHEDULES[case["schedule"]]
    for script_len, sat_per_kwu, amount_sat, vtxos, fee in case["rows"]:
        expect_fee(
            fee,
            lambda s=script_len, r=sat_per_kwu, a=amount_sat, v=vtxos: offboard_fee(
                schedule, a, infos(v), script_pubkey=bytes(s), fee_rate=FeeRate(r)
            ),
        )


@pytest.mark.parametrize("case", params("fees", kind="ppm-expiry"))
def test_expiry_brackets_match_upstream(case: Case) -> None:
    table = table_from_json(case["table"])
    fee = ppm_expiry_fee(table, infos(case["vtxos"]), chargeable_sat=case["chargeable_amount"])
    assert fee == case["fee"]


@pytest.mark.parametrize("case", params("fees", kind="validate-schedule"))
def test_schedules_are_validated_like_upstream(case: Case) -> None:
    schedule = schedule_from_json(case["json"])
    if case["error"] is None:
        validate_schedule(schedule)
    else:
        with pytest.raises(FeeScheduleInvalid) as refused:
            validate_schedule(schedule)
        assert str(refused.value) == case["error"]


@pytest.mark.parametrize("case", params("fees", kind="subtract"))
def test_what_is_left_after_the_fee_matches_upstream(case: Case) -> None:
    amount_sat, fee_sat = case["amount"], case["fee"]
    checks: tuple[tuple[Case, Callable[[], int]], ...] = (
        (case["plain"], lambda: subtract_fee(amount_sat, fee_sat)),
        (case["min_dust_330"], lambda: subtract_fee_above_dust(amount_sat, fee_sat, dust_sat=330)),
    )
    for expected, compute in checks:
        if "net" in expected:
            assert compute() == expected["net"]
        else:
            with pytest.raises((FeeExceedsAmount, AmountAfterFeeIsDust)) as refused:
                compute()
            assert str(refused.value) == expected["error"]


@pytest.mark.parametrize("case", params("fees", kind="expiry-blocks"))
def test_blocks_to_expiry_stop_at_zero(case: Case) -> None:
    info = VtxoFeeInfo.at_tip(amount_sat=1, expiry_height=case["expiry_height"], tip_height=case["tip"])
    assert info.expiry_blocks == case["expiry_blocks"]


# --- sheet 05 §6.6, and rules that the grid does not isolate

SENDS = {(50_000, 4000): 475, (50_000, 150): 125, (50_000, 96): 75, (1, 2161): 76, (4000, 2161): 107}


@pytest.mark.parametrize(("payment", "fee"), SENDS.items())
def test_lightning_send_examples(payment: tuple[int, int], fee: int) -> None:
    amount_sat, blocks = payment
    assert lightning_send_fee(SERVER_EXAMPLE, amount_sat, [VtxoFeeInfo(10**9, blocks)]) == fee


def test_a_payment_is_charged_from_the_cheapest_bracket_up() -> None:
    vtxos = infos([(6430, 429), (6430, 429), (499_400, 4317)])
    assert lightning_send_fee(SERVER_EXAMPLE, 30_000, vtxos) == 264


@pytest.mark.parametrize(("script_len", "fee"), [(22, 854), (34, 938)])
def test_offboard_weight_fee_counts_the_script_and_the_fixed_part(script_len: int, fee: int) -> None:
    schedule = replace(SCHEDULES["zero"], offboard=OffboardFees(0, 100, ()))
    rate = FeeRate(1750)
    assert offboard_fee(schedule, 100_000, [], script_pubkey=bytes(script_len), fee_rate=rate) == fee


def test_a_tip_one_block_behind_may_see_a_higher_bracket() -> None:
    table = (PpmExpiryFeeEntry(1008, 2000), PpmExpiryFeeEntry(2016, 4000))
    assert ppm_expiry_fee(table, infos([(100, 2015), (900, 1500)])) == 2
    assert ppm_expiry_fee(table, infos([(100, 2016), (900, 1501)])) == 3


def test_a_bracket_sum_overflows_even_at_rate_zero() -> None:
    with pytest.raises(FeeOverflow):
        ppm_expiry_fee((), infos([(U64_MAX, 5), (1, 5)]), chargeable_sat=1)


def test_an_estimate_without_selection_assumes_the_dearest_bracket() -> None:
    assert lightning_send_fee(SERVER_EXAMPLE, 50_000, [VtxoFeeInfo.fresh(50_000)]) == 475


entries = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 2_000_000)), max_size=5)
vtxo_rows = st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 6000)), max_size=8)


@given(entries, vtxo_rows, st.randoms(use_true_random=False), st.none() | st.integers(0, 10**13))
def test_the_order_of_vtxos_does_not_matter(
    entries: list[tuple[int, int]], rows: list[tuple[int, int]], random: Any, cap: int | None
) -> None:
    table = tuple(PpmExpiryFeeEntry(*entry) for entry in sorted(entries))
    shuffled = rows.copy()
    random.shuffle(shuffled)
    fee = ppm_expiry_fee(table, infos(rows), chargeable_sat=cap)
    assert ppm_expiry_fee(table, infos(shuffled), chargeable_sat=cap) == fee


@given(entries, vtxo_rows)
def test_a_fee_is_rounded_once_and_never_down(
    entries: list[tuple[int, int]], rows: list[tuple[int, int]]
) -> None:
    table = tuple(PpmExpiryFeeEntry(*entry) for entry in sorted(entries))
    millionths = 0
    for amount_sat, blocks in rows:
        reached = [entry.ppm for entry in table if blocks >= entry.expiry_blocks_threshold]
        millionths += amount_sat * (reached[-1] if reached else 0)
    fee = ppm_expiry_fee(table, infos(rows))
    assert 0 <= fee * 1_000_000 - millionths < 1_000_000
