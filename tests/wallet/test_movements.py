"""The rules of the history, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.wallet.movements import (
    ARKOOR_SEND,
    BOARD,
    LIGHTNING_SEND,
    JsonValue,
    Movement,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
    PendingIsNotFinished,
    apply_update,
    finish,
    finish_with_update,
    merge_patch,
    patch_metadata,
)
from tests.wallet.samples import make_id

T0 = datetime(2026, 9, 1, tzinfo=UTC)
T1 = T0 + timedelta(minutes=1)
ALICE = MovementDestination(PaymentMethod(PaymentMethodKind.ARK, "tark1alice"), 1_000)
BOB = MovementDestination(PaymentMethod(PaymentMethodKind.ARK, "tark1bob"), 2_000)


def movement(**fields: Any) -> Movement:
    return replace(Movement(1, MovementStatus.PENDING, ARKOOR_SEND, T0, T0), **fields)


def test_an_update_changes_what_it_names_and_the_time() -> None:
    before = movement(intended_balance_sat=-5, offchain_fee_sat=1, sent_to=(ALICE,))

    after = apply_update(before, MovementUpdate(effective_balance_sat=-7), T1)

    assert after == replace(before, effective_balance_sat=-7, updated_at=T1)


def test_an_update_can_set_an_amount_to_zero() -> None:
    after = apply_update(
        movement(effective_balance_sat=-5, intended_balance_sat=-5),
        MovementUpdate(effective_balance_sat=0),
        T1,
    )
    assert (after.effective_balance_sat, after.intended_balance_sat) == (0, -5)


def test_metadata_is_merged_by_top_level_key() -> None:
    before = movement(metadata={"kept": 1, "object": {"lost": True}})
    after = apply_update(before, MovementUpdate(metadata={"object": {"new": True}, "none": None}), T1)
    assert after.metadata == {"kept": 1, "object": {"new": True}, "none": None}


def test_destinations_are_appended_even_twice_and_vtxos_once() -> None:
    update = MovementUpdate(sent_to=(ALICE,), output_vtxos=(make_id(2), make_id(1)))

    twice = apply_update(apply_update(movement(output_vtxos=(make_id(1),)), update, T1), update, T1)

    assert twice.sent_to == (ALICE, ALICE)
    assert twice.output_vtxos == (make_id(1), make_id(2))


def test_replacing_overwrites_the_whole_list() -> None:
    before = movement(sent_to=(ALICE, ALICE), received_on=(BOB,), input_vtxos=(make_id(1),))

    after = apply_update(before, MovementUpdate(replace_sent_to=(BOB,), replace_input_vtxos=()), T1)

    assert after.sent_to == (BOB,)
    assert after.received_on == (BOB,)
    assert after.input_vtxos == ()


def test_finishing_sets_the_completion_and_not_the_update() -> None:
    finished = finish(movement(), MovementStatus.SUCCESSFUL, T1)
    assert finished is not None
    assert (finished.status, finished.completed_at, finished.updated_at) == (
        MovementStatus.SUCCESSFUL,
        T1,
        T0,
    )


def test_finishing_twice_keeps_the_first_completion() -> None:
    finished = finish(movement(), MovementStatus.FAILED, T0)
    assert finished is not None
    assert finish(finished, MovementStatus.FAILED, T1) is None


def test_another_final_status_overrides() -> None:
    failed = finish(movement(), MovementStatus.FAILED, T0)
    assert failed is not None
    successful = finish(failed, MovementStatus.SUCCESSFUL, T1)
    assert successful is not None
    assert (successful.status, successful.completed_at) == (MovementStatus.SUCCESSFUL, T1)


def test_finishing_with_an_update_applies_every_time() -> None:
    done = finish_with_update(movement(), MovementStatus.FAILED, MovementUpdate(offchain_fee_sat=3), T0)
    again = finish_with_update(done, MovementStatus.FAILED, MovementUpdate(offchain_fee_sat=4), T1)
    assert (again.offchain_fee_sat, again.completed_at, again.updated_at) == (4, T1, T1)


def test_pending_is_no_way_to_finish() -> None:
    with pytest.raises(PendingIsNotFinished):
        finish(movement(), MovementStatus.PENDING, T1)
    with pytest.raises(PendingIsNotFinished):
        finish_with_update(movement(), MovementStatus.PENDING, MovementUpdate(), T1)


# RFC 7396, appendix A; with the results of targets and patches that are no objects.
RFC_7396: list[tuple[JsonValue, JsonValue, JsonValue]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_merge_patch_examples_of_the_rfc(target: JsonValue, patch: JsonValue, result: JsonValue) -> None:
    assert merge_patch(target, patch) == result


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(target=st.dictionaries(st.text(), JSON), patch=JSON)
def test_a_merge_patch_is_idempotent_and_leaves_its_target_alone(
    target: dict[str, JsonValue], patch: JsonValue
) -> None:
    before = repr(target)
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert repr(target) == before


@pytest.mark.parametrize("patch", [None, "text", 1, ["list"]])
def test_a_patch_that_is_no_object_empties_the_metadata(patch: JsonValue) -> None:
    assert patch_metadata(movement(metadata={"a": 1}), patch, T1).metadata == {}


def test_a_metadata_patch_touches_nothing_else() -> None:
    before = movement(metadata={"a": 1}, sent_to=(ALICE,), offchain_fee_sat=3)
    after = patch_metadata(before, {"status": "failed", "id": 7}, T1)
    assert after.metadata == {"a": 1, "status": "failed", "id": 7}
    assert after == replace(before, metadata=after.metadata, updated_at=T1)


OWN = {"payment_hash": "aa", "payment_preimage": None}


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"payment_hash": "bb"}, OWN),
        ({"payment_hash": None}, OWN),
        ({"payment_preimage": {"x": 1}, "htlc_vtxos": ["x"], "note": "n"}, {**OWN, "note": "n"}),
        ({"chain_anchor": "mine"}, {**OWN, "chain_anchor": "mine"}),  # only boards have that from the wallet
        (None, OWN),
        ([1], OWN),
    ],
)
def test_a_patch_does_not_reach_what_the_wallet_wrote(patch: JsonValue, result: JsonValue) -> None:
    before = movement(subsystem=LIGHTNING_SEND, metadata=OWN)
    assert patch_metadata(before, patch, T1).metadata == result


def test_a_reset_leaves_the_wallets_part_only() -> None:
    before = movement(subsystem=BOARD, metadata={"chain_anchor": "x:0", "onchain_fee_sat": 3, "note": "n"})
    assert patch_metadata(before, None, T1).metadata == {"chain_anchor": "x:0", "onchain_fee_sat": 3}
