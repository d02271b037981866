"""Validation: what is proven, what is refused and why, and what validation cannot know."""

from dataclasses import replace

import pytest

from barkd_py.ark.board import BoardTemplate, finish_board, generate_board_nonce, server_cosign_board
from barkd_py.ark.genesis import CosignedTransition, GenesisItem
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.validation import (
    LeafNotLocked,
    NonStandardVtxo,
    TransitionInvalid,
    UnexpectedTerms,
    is_relayable,
    is_signature_valid,
    is_standard,
    validate,
    verify_locked_leaf,
    verify_standard,
    verify_terms,
)
from barkd_py.ark.vtxo import ServerVtxo, Vtxo, VtxoInvalid
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from tests.ark.test_vtxo import BY_NAME, WHOLE, decode, user_vtxo
from tests.ark.worked_examples import SERVER, USER
from tests.support.script_engine import is_spend_valid
from tests.support.vectors import Case, expected_outcome, params

MALLORY = SecretKey(bytes([0x66] * 32))


def anchor_tx(name: str) -> Tx:
    return Tx.from_hex(BY_NAME[name]["anchor_tx"])


def outcome(vtxo: ServerVtxo, anchor: Tx, *, signed: bool) -> object:
    """In the vectors' form: "ok" or the error."""
    try:
        validate(vtxo, anchor, signed=signed)
    except VtxoInvalid as error:
        return str(error)
    return "ok"


# -- against upstream


@pytest.mark.parametrize("case", WHOLE)
def test_validation_agrees_with_upstream(case: Case) -> None:
    vtxo, anchor = decode(case), Tx.from_hex(case["anchor_tx"])
    assert outcome(vtxo, anchor, signed=True) == expected_outcome(case["validate"])
    assert outcome(vtxo, anchor, signed=False) == expected_outcome(case["validate_unsigned"])


MUTATIONS = [
    param for param in params("vtxo", kind="mutation") if param.values[0]["result"]["stage"] != "decode"
]


@pytest.mark.parametrize("case", MUTATIONS)
def test_changed_vtxos_are_refused_with_upstream_s_words(case: Case) -> None:
    base = BY_NAME[case["base"]]
    vtxo = Vtxo.decode_hex(case["hex"])
    anchor = Tx.from_hex(case.get("anchor_tx") or base["anchor_tx"])
    result = case["result"]
    assert str(vtxo.id) == result["id"]
    if anchor.txid != vtxo.anchor_point.txid and result["stage"] == "none":
        # Upstream takes the given transaction on trust, here it must be the anchor.
        assert case["mutation"] == "anchor_point txid byte flipped (same anchor tx supplied)"
        for signed in (True, False):
            assert "its anchor is" in str(outcome(vtxo, anchor, signed=signed))
        return
    assert outcome(vtxo, anchor, signed=True) == expected_outcome(result["validate"])
    assert outcome(vtxo, anchor, signed=False) == expected_outcome(result["validate_unsigned"])


@pytest.mark.parametrize("case", [param for param in WHOLE if param.values[0]["has_all_witnesses"]])
def test_every_exit_transaction_satisfies_bitcoin_s_script_engine(case: Case) -> None:
    for step in decode(case).exit_steps():
        assert is_spend_valid(step.tx, (step.spent,))


def test_the_script_engine_notices_a_wrong_preimage() -> None:
    """So that the test above means something."""
    step = user_vtxo("round-leaf-final").leaf_step()
    (tx_in,) = step.tx.inputs
    signature, _, script, control_block = tx_in.witness
    forged = replace(tx_in, witness=(signature, bytes(32), script, control_block))
    assert not is_spend_valid(replace(step.tx, inputs=(forged,)), (step.spent,))


# -- signatures


@pytest.mark.parametrize("case", [param for param in WHOLE if param.values[0]["validate"] == "ok"])
def test_a_flipped_bit_in_any_signature_is_blamed_on_its_item(case: Case) -> None:
    vtxo, anchor = decode(case), Tx.from_hex(case["anchor_tx"])
    for index, item in enumerate(vtxo.genesis):
        signature = item.transition.signature
        assert signature is not None
        for position in (0, 63):
            flipped = bytearray(signature)
            flipped[position] ^= 1
            broken = replace(item, transition=replace(item.transition, signature=bytes(flipped)))
            forged = replace(vtxo, genesis=(*vtxo.genesis[:index], broken, *vtxo.genesis[index + 1 :]))
            with pytest.raises(TransitionInvalid, match="invalid signature") as caught:
                validate(forged, anchor)
            assert (caught.value.item, caught.value.count) == (index, len(vtxo.genesis))
            validate(forged, anchor, signed=False)


def test_swapped_siblings_are_refused() -> None:
    vtxo = user_vtxo("upstream-v2-round1")
    first = vtxo.genesis[0]
    swapped = (first.siblings[1], first.siblings[0], *first.siblings[2:])
    forged = replace(vtxo, genesis=(replace(first, siblings=swapped), *vtxo.genesis[1:]))
    with pytest.raises(TransitionInvalid) as caught:
        validate(forged, anchor_tx("upstream-v2-round1"))
    assert caught.value.item == 0


def test_moving_the_continuing_output_is_refused() -> None:
    vtxo = user_vtxo("upstream-v2-round1")
    first = vtxo.genesis[0]
    moved = replace(first, output_idx=(first.output_idx + 1) % first.nb_outputs)
    with pytest.raises(VtxoInvalid):
        validate(replace(vtxo, genesis=(moved, *vtxo.genesis[1:])), anchor_tx("upstream-v2-round1"))


# -- the anchor


def test_another_transaction_with_the_same_output_is_no_anchor() -> None:
    name = "onchain-no-genesis"
    anchor = anchor_tx(name)
    twin = replace(anchor, locktime=anchor.locktime + 1)
    validate(user_vtxo(name), anchor)
    with pytest.raises(VtxoInvalid, match="its anchor is"):
        validate(user_vtxo(name), twin)


def test_a_substituted_anchor_cannot_detach_the_vtxo_from_its_exit_chain() -> None:
    """The chain is valid from the given transaction, but not from the anchor point that exits would use."""
    name = "board"
    elsewhere = OutPoint(Txid(bytes([9] * 32)), user_vtxo(name).anchor_point.vout)
    detached = replace(user_vtxo(name), anchor_point=elsewhere)
    with pytest.raises(VtxoInvalid, match="its anchor is"):
        validate(detached, anchor_tx(name))
    with pytest.raises(VtxoInvalid, match="its anchor is"):
        validate(detached, anchor_tx(name), signed=False)


# -- the locked leaf of a round


def locked_leaf() -> tuple[Vtxo, Tx]:
    name = "round-leaf-signed-no-preimage"
    return user_vtxo(name), anchor_tx(name)


def test_a_signed_leaf_that_only_lacks_its_preimage_may_be_forfeited_for() -> None:
    verify_locked_leaf(*locked_leaf())


@pytest.mark.parametrize("name", ["round-leaf-locked-unsigned", "round-leaf-v0-locked"])
def test_an_unsigned_leaf_may_not(name: str) -> None:
    """Upstream does not look at the leaf's signature here; without it the preimage would buy nothing."""
    with pytest.raises(TransitionInvalid, match="missing signature") as caught:
        verify_locked_leaf(user_vtxo(name), anchor_tx(name))
    assert caught.value.item == 2
    verify_locked_leaf(user_vtxo(name), anchor_tx(name), leaf_signed=False)


def test_a_wrong_leaf_signature_may_not() -> None:
    leaf, anchor = locked_leaf()
    with pytest.raises(TransitionInvalid, match="invalid signature"):
        verify_locked_leaf(leaf.with_leaf_signature(bytes([1] * 64)), anchor)


@pytest.mark.parametrize("name", ["round-leaf-final", "board", "arkoor-of-round-leaf", "onchain-no-genesis"])
def test_what_is_not_locked_is_no_locked_leaf(name: str) -> None:
    with pytest.raises(LeafNotLocked, match=r"^new un-unlocked VTXO should fail validation but doesn't: 02"):
        verify_locked_leaf(user_vtxo(name), anchor_tx(name))


def test_a_leaf_under_an_unsigned_tree_may_not() -> None:
    leaf, anchor = locked_leaf()
    node = leaf.genesis[1]
    unsigned = replace(node, transition=replace(node.transition, signature=None))
    with pytest.raises(TransitionInvalid, match="missing cosigned signature") as caught:
        verify_locked_leaf(replace(leaf, genesis=(leaf.genesis[0], unsigned, leaf.genesis[2])), anchor)
    assert caught.value.item == 1


def test_a_leaf_of_another_amount_may_not() -> None:
    leaf, anchor = locked_leaf()
    with pytest.raises(VtxoInvalid, match="chain anchor output"):
        verify_locked_leaf(replace(leaf, amount_sat=leaf.amount_sat + 1), anchor)


def test_unlocking_completes_the_leaf() -> None:
    leaf, anchor = locked_leaf()
    preimage = user_vtxo("round-leaf-final").hark_leaf.preimage
    assert preimage is not None
    with pytest.raises(TransitionInvalid, match="missing preimage"):
        validate(leaf, anchor)
    validate(leaf.with_preimage(preimage), anchor)


def test_a_signature_is_judged_without_the_preimage() -> None:
    leaf, _ = locked_leaf()
    assert is_signature_valid(leaf, leaf.leaf_step())
    forged = leaf.with_leaf_signature(bytes([1] * 64))
    assert not is_signature_valid(forged, forged.leaf_step())


# -- what validation does not prove


def forged_board() -> tuple[Vtxo, Tx]:
    """A board whose "server" is the attacker."""
    template = BoardTemplate(
        user_pubkey=USER,
        server_pubkey=MALLORY.public_key,
        amount_sat=10_000,
        fee_sat=0,
        expiry_height=100,
        exit_delta=12,
        utxo=OutPoint(Txid(bytes(32)), 0),
    )
    funding = Tx(2, (TxIn(OutPoint(Txid(bytes(32)), 0)),), (template.funding_output,))
    template = replace(template, utxo=funding.outpoint(0), user_pubkey=MALLORY.public_key)
    funding = Tx(2, funding.inputs, (template.funding_output,))
    template = replace(template, utxo=funding.outpoint(0))
    sec_nonce, pub_nonce = generate_board_nonce(template, MALLORY)
    answer = server_cosign_board(template, MALLORY, pub_nonce)
    board = finish_board(template, MALLORY, sec_nonce, pub_nonce, answer.pub_nonce, answer.partial_sig)
    return board, funding


def test_a_board_of_the_attacker_alone_validates_and_is_refused_for_its_terms() -> None:
    board, funding = forged_board()
    validate(board, funding)
    with pytest.raises(UnexpectedTerms, match="unexpected server pubkey"):
        verify_terms(board, server_pubkey=SERVER, exit_delta=12, min_expiry_height=50)


def test_a_payment_to_us_signed_by_nobody_we_know_validates() -> None:
    """Nothing in a cosigned item says who must be among its keys."""
    keys = (MALLORY.public_key,)
    base = Vtxo(
        amount_sat=5_000,
        expiry_height=100,
        server_pubkey=SERVER,
        exit_delta=12,
        anchor_point=OutPoint(Txid(bytes(32)), 0),
        genesis=(GenesisItem(CosignedTransition(keys, None)),),
        policy=PubkeyPolicy(USER),
        point=OutPoint(Txid(bytes([1] * 32)), 0),
    )
    anchor = Tx(2, (TxIn(OutPoint(Txid(bytes(32)), 7)),), (base.anchor_output,))
    unsigned = replace(base, anchor_point=anchor.outpoint(0)).with_computed_point()
    validate(unsigned, anchor, signed=False)
    with pytest.raises(TransitionInvalid, match="missing cosigned signature"):
        validate(unsigned, anchor)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"server_pubkey": SERVER},
            f"round VTXO tree uses an unexpected server pubkey: got {SERVER}, expected "
            + str(user_vtxo("board").server_pubkey),
        ),
        ({"exit_delta": 143}, "round VTXO tree uses an unexpected exit delta: got 143, expected 144"),
        (
            {"expiry_height": 119_999},
            "round VTXO tree expiry height 119999 is below the required minimum 120000; "
            "server may be trying to sweep before we can exit",
        ),
    ],
)
def test_terms_are_compared(change: dict[str, object], text: str) -> None:
    vtxo = user_vtxo("board")
    terms = {"exit_delta": 144, "min_expiry_height": 120_000}
    verify_terms(vtxo, server_pubkey=vtxo.server_pubkey, **terms)
    with pytest.raises(UnexpectedTerms) as caught:
        verify_terms(replace(vtxo, **change), server_pubkey=vtxo.server_pubkey, **terms)  # type: ignore[arg-type]
    assert str(caught.value) == text


# -- standardness


@pytest.mark.parametrize("case", params("vtxo", kind="standardness"))
def test_standardness_agrees_with_upstream(case: Case) -> None:
    _check_standardness(Vtxo.decode_hex(case["hex"]), case["is_standard"], case["error"])


@pytest.mark.parametrize("case", WHOLE)
def test_standardness_of_real_vtxos_agrees_with_upstream(case: Case) -> None:
    _check_standardness(decode(case), case["is_standard"], case["standardness_error"])


def _check_standardness(vtxo: ServerVtxo, standard: bool, error: str | None) -> None:
    assert is_standard(vtxo) is standard
    if standard:
        verify_standard(vtxo)
        return
    with pytest.raises(NonStandardVtxo) as caught:
        verify_standard(vtxo)
    assert str(caught.value) == error


@pytest.mark.parametrize(("amount_sat", "standard"), [(329, False), (330, True)])
def test_the_vtxo_s_own_output_may_not_be_dust(amount_sat: int, standard: bool) -> None:
    assert is_standard(replace(user_vtxo("board"), amount_sat=amount_sat)) is standard


def test_the_first_problem_is_named() -> None:
    board = user_vtxo("board")
    p2tr = b"\x51\x20" + bytes(32)
    item = replace(board.genesis[0], siblings=(TxOut(330, p2tr), TxOut(329, p2tr), TxOut(9999, b"\x51")))
    with pytest.raises(NonStandardVtxo) as caught:
        verify_standard(replace(board, genesis=(item,)))
    assert str(caught.value) == "dust sibling output at genesis item 0/1, output 1"


# -- what nodes relay

P2TR = b"\x51\x20" + bytes(range(32))


@pytest.mark.parametrize("case", WHOLE)
def test_real_vtxos_that_are_standard_relay(case: Case) -> None:
    assert is_relayable(decode(case)) is case["is_standard"]


@pytest.mark.parametrize(
    ("siblings", "relays"),
    [
        pytest.param((TxOut(330, P2TR),) * 200, True, id="large"),
        pytest.param((TxOut(330, P2TR),) * 240, False, id="larger than TRUC allows"),
        pytest.param((TxOut(294, b"\x00\x14" + bytes(20)),), True, id="key hash"),
        pytest.param((TxOut(293, b"\x00\x14" + bytes(20)),), False, id="key hash that is dust to nodes"),
        pytest.param((TxOut(0, b"\x6a\x01a"),), True, id="data"),
        pytest.param((TxOut(0, b"\x6a\x01a"),) * 2, False, id="data twice"),
        pytest.param((TxOut(0, b"\x6a\xac"),), False, id="data that is none"),
        pytest.param((TxOut(0, b"\x6a\x02a"),), False, id="data that is cut off"),
        pytest.param((TxOut(329, P2TR),), False, id="dust"),
    ],
)
def test_what_nodes_do_not_relay(siblings: tuple[TxOut, ...], relays: bool) -> None:
    board = user_vtxo("board")
    vtxo = replace(board, genesis=(replace(board.genesis[0], siblings=siblings),))
    assert is_relayable(vtxo) is relays
