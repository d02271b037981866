"""The policy of a recovery, a row per thing that can be known. Source: sheet 02 §6.6."""

from dataclasses import replace
from itertools import product

import pytest

from barkd_py.server_rpc.api import VtxoSpendState
from barkd_py.wallet.recovery.judgement import (
    Deed,
    Disproven,
    Facts,
    Proven,
    Unproven,
    Verdict,
    judge,
    needs_proof,
)
from barkd_py.wallet.store.recovery import RecoveryOutcome
from barkd_py.wallet.vtxo_states import (
    ActionHolder,
    Exited,
    Locked,
    MovementHolder,
    Spendable,
    Spent,
    VtxoState,
)
from tests.wallet.samples import user_vtxos, vtxo_of_depth

PUBKEY = vtxo_of_depth(1)
HTLC = next(vtxo for vtxo in user_vtxos() if vtxo.policy.kind == "server-htlc-send")
LEAF = next(vtxo for vtxo in user_vtxos() if vtxo.unlock_hash is not None)
OURS = Facts(PUBKEY, is_ours=True, is_of_our_server=True, proof=Proven())
ANSWERS: tuple[VtxoSpendState | None, ...] = (*VtxoSpendState, None)
IN_USE = (Locked(MovementHolder(1)), Locked(ActionHolder("x")), Exited())


def deed(verdict: Verdict) -> tuple[RecoveryOutcome, Deed, bool]:
    return verdict.outcome, verdict.deed, verdict.ask_again


@pytest.mark.parametrize(
    ("facts", "outcome", "ask_again"),
    [
        (Facts(None, is_unknown=True), RecoveryOutcome.NOT_FOUND, False),
        (Facts(None), RecoveryOutcome.FAILED, True),
        (replace(OURS, is_ours=False), RecoveryOutcome.FOREIGN, False),
        (replace(OURS, is_of_our_server=False), RecoveryOutcome.FOREIGN, False),
    ],
)
def test_what_was_not_seen_or_is_not_ours_changes_nothing(
    facts: Facts, outcome: RecoveryOutcome, ask_again: bool
) -> None:
    assert deed(judge(facts)) == (outcome, Deed.NOTHING, ask_again)
    assert not needs_proof(facts)


@pytest.mark.parametrize("status", ANSWERS)
@pytest.mark.parametrize("state", IN_USE)
def test_what_is_in_use_or_exiting_is_left_alone(state: VtxoState, status: VtxoSpendState | None) -> None:
    facts = replace(OURS, state=state, was_spendable=True, status=status, proof=None)
    assert not needs_proof(facts)
    assert deed(judge(facts)) == (RecoveryOutcome.SKIPPED, Deed.NOTHING, False)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (VtxoSpendState.SPENDABLE, (RecoveryOutcome.RECOVERED, Deed.STORE_SPENDABLE, False)),
        (VtxoSpendState.SPENT, (RecoveryOutcome.SKIPPED, Deed.STORE_SPENT, False)),
        (VtxoSpendState.UNCLAIMED, (RecoveryOutcome.SKIPPED, Deed.NOTHING, False)),
        (VtxoSpendState.UNREGISTERED, (RecoveryOutcome.SKIPPED, Deed.NOTHING, True)),
        (VtxoSpendState.HTLC_RECV_UNCLAIMED, (RecoveryOutcome.SKIPPED, Deed.NOTHING, False)),
        (None, (RecoveryOutcome.FAILED, Deed.STORE_HELD, True)),
    ],
)
def test_a_proven_vtxo_that_is_not_here(
    status: VtxoSpendState | None, expected: tuple[RecoveryOutcome, Deed, bool]
) -> None:
    assert deed(judge(replace(OURS, status=status))) == expected


@pytest.mark.parametrize("status", [VtxoSpendState.SPENDABLE, None])
@pytest.mark.parametrize("proof", [Disproven("forged"), Unproven("nobody answers")])
@pytest.mark.parametrize("state", [None, Locked(None), Spent()])
def test_nothing_unproven_becomes_money(
    status: VtxoSpendState | None, proof: Disproven | Unproven, state: VtxoState | None
) -> None:
    verdict = judge(replace(OURS, status=status, proof=proof, state=state))
    assert verdict.deed is Deed.NOTHING
    assert verdict.outcome is not RecoveryOutcome.RECOVERED
    assert not verdict.exit


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (VtxoSpendState.SPENT, (RecoveryOutcome.LOCKED, Deed.HOLD, True)),
        *(
            (status, (RecoveryOutcome.SKIPPED, Deed.NOTHING, False))
            for status in ANSWERS
            if status is not VtxoSpendState.SPENT
        ),
    ],
)
def test_what_is_spendable_here_is_never_given_up_for_a_word(
    status: VtxoSpendState | None, expected: tuple[RecoveryOutcome, Deed, bool]
) -> None:
    facts = replace(OURS, state=Spendable(), was_spendable=True, status=status)
    assert deed(judge(facts)) == expected


@pytest.mark.parametrize(("was_spendable", "is_exiting"), [(False, False), (True, False), (False, True)])
def test_what_is_held_back_waits_for_an_answer(was_spendable: bool, is_exiting: bool) -> None:
    held = replace(OURS, state=Locked(None), was_spendable=was_spendable, is_exiting=is_exiting)
    released = judge(replace(held, status=VtxoSpendState.SPENDABLE))
    assert deed(released) == (RecoveryOutcome.RECOVERED, Deed.RELEASE, False)
    for status in (VtxoSpendState.UNCLAIMED, VtxoSpendState.UNREGISTERED, None):
        assert deed(judge(replace(held, status=status))) == (RecoveryOutcome.LOCKED, Deed.NOTHING, True)
    spent = judge(replace(held, status=VtxoSpendState.SPENT))
    if was_spendable or is_exiting:  # its chain is the only thing that a lying server cannot take
        assert deed(spent) == (RecoveryOutcome.LOCKED, Deed.NOTHING, True)
    else:
        assert deed(spent) == (RecoveryOutcome.SKIPPED, Deed.MARK_SPENT, False)


def test_spent_on_the_servers_word_alone_can_be_taken_back() -> None:
    on_word = replace(OURS, state=Spent(), status=VtxoSpendState.SPENDABLE)
    assert deed(judge(on_word)) == (RecoveryOutcome.RECOVERED, Deed.STORE_SPENDABLE, False)
    by_us = replace(on_word, was_spendable=True)
    assert deed(judge(by_us)) == (RecoveryOutcome.SKIPPED, Deed.NOTHING, False)


@pytest.mark.parametrize("state", [None, Locked(None)])
def test_a_lightning_payments_vtxo_is_kept_out_of_payments(state: VtxoState | None) -> None:
    verdict = judge(replace(OURS, vtxo=HTLC, state=state, status=VtxoSpendState.SPENDABLE))
    assert verdict.outcome is RecoveryOutcome.LOCKED
    assert verdict.deed is (Deed.STORE_HELD if state is None else Deed.NOTHING)
    assert verdict.ask_again


@pytest.mark.parametrize("status", [VtxoSpendState.SPENDABLE, None])
def test_what_is_on_the_chain_exits(status: VtxoSpendState | None) -> None:
    verdict = judge(replace(OURS, status=status, proof=Proven(is_on_chain=True)))
    assert (verdict.outcome, verdict.deed, verdict.exit) == (
        RecoveryOutcome.EXITED,
        Deed.STORE_SPENDABLE,
        True,
    )


def test_an_unclaimed_leaf_waits_for_its_round() -> None:
    verdict = judge(replace(OURS, vtxo=LEAF, status=VtxoSpendState.UNCLAIMED))
    assert (verdict.outcome, verdict.finish_round) == (RecoveryOutcome.SKIPPED, True)
    assert not judge(replace(OURS, status=VtxoSpendState.UNCLAIMED)).finish_round


def test_every_combination_is_judged_and_a_proof_is_there_when_it_is_needed() -> None:
    states: tuple[VtxoState | None, ...] = (None, Spendable(), Spent(), Locked(None), *IN_USE)
    for vtxo, state, was, status in product((PUBKEY, HTLC, LEAF), states, (False, True), ANSWERS):
        facts = replace(OURS, vtxo=vtxo, state=state, was_spendable=was, status=status, proof=None)
        if needs_proof(facts):
            facts = replace(facts, proof=Proven())
        verdict = judge(facts)
        if verdict.deed in (Deed.STORE_SPENDABLE, Deed.RELEASE):
            assert facts.proof is not None
        if was and state is not None:
            assert verdict.deed not in (Deed.STORE_SPENT, Deed.MARK_SPENT, Deed.STORE_SPENDABLE)
