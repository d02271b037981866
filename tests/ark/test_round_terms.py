"""Terms of rounds that only a comparison with what was asked for can find wrong.

The trees here are signed as they are: every signature in them is right, so that no proof of the chain of
transactions refuses them. Source: sheet 04 §16, §19, §23, §26.
"""

from dataclasses import replace

import pytest

from barkd_py.ark.rounds import (
    AcceptedProposal,
    RefusedToForfeit,
    RoundRejected,
    accept_delegated,
    accept_finished,
    verify_exitable,
)
from barkd_py.ark.tree import TreeSpec, VtxoTree
from barkd_py.ark.validation import AnchorMismatch, UnexpectedTerms, verify_locked_leaf
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.musig import generate_nonce
from barkd_py.bitcoin.tx import Tx, TxOut
from tests.ark.test_rounds import (
    LOCKED,
    OTHERS,
    OURS,
    OUTPUT,
    SPEC,
    STRANGER,
    TERMS,
    TREE_SIGNER,
    funding_for,
    honest_tree_with,
    leaf,
)
from tests.ark.test_vtxo import user_vtxo
from tests.ark.worked_examples import EXIT_DELTA, EXPIRY_HEIGHT, UNLOCK_HASH

DELEGATED = replace(OUTPUT, cosign_pubkey=None)
DELEGATED_SPEC = replace(SPEC, leaves=(*OTHERS, leaf(DELEGATED)))


def accept(vtxo: Vtxo, funding: Tx) -> None:
    accept_delegated((vtxo,), funding, outputs=(DELEGATED,), unlock_hash=UNLOCK_HASH, terms=TERMS)


def sign(tree: VtxoTree) -> tuple[bytes, ...]:
    """All internal nodes, of a tree that only the server signs."""
    pairs = [generate_nonce(TREE_SIGNER) for _ in tree.internal_nodes]
    agg_nonces = tree.aggregate_nonces({}, [[pub for _, pub in pairs]])
    partials = tree.cosign_all(TREE_SIGNER, [sec for sec, _ in pairs], agg_nonces)
    return tree.combine_partials(agg_nonces, {}, [partials])


# -- delegated participations


@pytest.mark.parametrize("blocks", [0, 1, 4_000])
def test_a_tree_of_the_agreed_terms_is_accepted_however_late_it_expires(blocks: int) -> None:
    accept(*honest_tree_with(replace(DELEGATED_SPEC, expiry_height=EXPIRY_HEIGHT + blocks)))


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (
            replace(DELEGATED_SPEC, server_pubkey=STRANGER.public_key),
            f"unexpected server pubkey: got {STRANGER.public_key}, expected {TERMS.server_pubkey}$",
        ),
        (
            replace(DELEGATED_SPEC, exit_delta=EXIT_DELTA + 1),
            f"unexpected exit delta: got {EXIT_DELTA + 1}, expected {EXIT_DELTA}$",
        ),
        (
            replace(DELEGATED_SPEC, exit_delta=EXIT_DELTA - 1),
            f"unexpected exit delta: got {EXIT_DELTA - 1}, expected {EXIT_DELTA}$",
        ),
        (
            replace(DELEGATED_SPEC, expiry_height=EXPIRY_HEIGHT - 1),
            f"expiry height {EXPIRY_HEIGHT - 1} is below the required minimum {EXPIRY_HEIGHT};",
        ),
    ],
    ids=["another server key", "a longer exit delta", "a shorter exit delta", "expires a block early"],
)
def test_a_rightly_signed_tree_of_other_terms_is_refused(spec: TreeSpec, complaint: str) -> None:
    vtxo, funding = honest_tree_with(spec)
    verify_locked_leaf(vtxo, funding, leaf_signed=False)
    with pytest.raises(UnexpectedTerms, match=complaint):
        accept(vtxo, funding)


def test_a_rightly_signed_tree_at_another_output_of_the_funding_transaction_is_refused() -> None:
    """A round's tree is at the first output."""
    funding = replace(
        funding_for(DELEGATED_SPEC), outputs=(TxOut(777, b"\x51"), DELEGATED_SPEC.funding_output)
    )
    tree = VtxoTree(DELEGATED_SPEC, funding.outpoint(1))
    vtxo = tree.vtxo(OURS, sign(tree))
    verify_locked_leaf(vtxo, funding, leaf_signed=False)
    with pytest.raises(RoundRejected, match="not anchored in the round's funding transaction"):
        accept(vtxo, funding)


# -- finished rounds


def test_a_finished_leaf_is_proven_down_to_the_funding_transaction() -> None:
    """The signatures are those of the tree; what they spend is not what the transaction pays."""
    right = DELEGATED_SPEC.funding_output
    short = replace(right, value_sat=right.value_sat - 1)
    funding = replace(funding_for(DELEGATED_SPEC), outputs=(short, TxOut(777, b"\x51")))
    tree = VtxoTree(DELEGATED_SPEC, funding.outpoint(0))
    signatures = sign(tree)
    tree.verify_signatures(signatures)
    with pytest.raises(AnchorMismatch):
        accept_finished(AcceptedProposal(tree, (OURS,)), funding, signatures)


# -- is it safe to forfeit?


@pytest.mark.parametrize("is_longest_first", [True, False])
@pytest.mark.parametrize(("spare_blocks", "is_safe"), [(0, True), (-1, False)])
def test_the_input_that_takes_longest_to_exit_counts(
    is_longest_first: bool, spare_blocks: int, is_safe: bool
) -> None:
    """The server chooses with which of the inputs it shows the preimage, and when."""
    short = replace(user_vtxo("board"), exit_delta=6)
    long = replace(short, exit_delta=40)
    assert (long.exit_depth, LOCKED.exit_depth) == (1, 2)
    # A margin, a block and twice the delay of the input; then a margin and two blocks for the leaf.
    expiry_height = 100_000 + (12 + 1 + 2 * 40) + (12 + 2)
    new = replace(LOCKED, expiry_height=expiry_height + spare_blocks)
    inputs = (long, short) if is_longest_first else (short, long)
    if is_safe:
        verify_exitable((new,), inputs, tip_height=100_000, exit_margin=12)
        return
    with pytest.raises(RefusedToForfeit, match=f"before the required minimum {expiry_height}$"):
        verify_exitable((new,), inputs, tip_height=100_000, exit_margin=12)


@pytest.mark.parametrize("is_late_first", [True, False])
def test_every_new_vtxo_must_leave_the_time(is_late_first: bool) -> None:
    old = replace(user_vtxo("board"), exit_delta=6)
    late, early = (replace(LOCKED, expiry_height=height) for height in (101_000, 100_038))
    verify_exitable((late,), (old,), tip_height=100_000, exit_margin=12)
    with pytest.raises(RefusedToForfeit, match="expires at height 100038"):
        verify_exitable(
            (late, early) if is_late_first else (early, late), (old,), tip_height=100_000, exit_margin=12
        )
