"""Boards: upstream's transactions and signatures, both sides of cosigning, and what the server checks."""

from dataclasses import replace

import pytest

from barkd_py.ark.board import (
    BoardAmountInvalid,
    BoardTemplate,
    NotABoard,
    board_server_vtxos,
    finish_board,
    generate_board_nonce,
    server_cosign_board,
    template_of_board,
)
from barkd_py.ark.cosign import BadCosignature, Cosignature, CosignTask
from barkd_py.ark.policy import CheckpointPolicy, PubkeyPolicy
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.tx import OutPoint, Tx, TxOut
from tests.support.script_engine import is_spend_valid
from tests.support.vectors import Case, cases, params


def template_of(case: Case) -> BoardTemplate:
    return BoardTemplate(
        user_pubkey=PublicKey.from_hex(case["user"]["pubkey"]),
        server_pubkey=PublicKey.from_hex(case["server"]["pubkey"]),
        amount_sat=case["amount"],
        fee_sat=case["fee"],
        expiry_height=case["expiry_height"],
        exit_delta=case["exit_delta"],
        utxo=OutPoint.parse(case["utxo"]),
    )


def secret(case: Case, who: str) -> SecretKey:
    return SecretKey(bytes.fromhex(case[who]["secret"]))


def make_board(case: Case) -> Vtxo:
    """Both sides, from our own nonces to the VTXO."""
    template = template_of(case)
    sec_nonce, pub_nonce = generate_board_nonce(template, secret(case, "user"))
    answer = server_cosign_board(template, secret(case, "server"), pub_nonce)
    return finish_board(
        template, secret(case, "user"), sec_nonce, pub_nonce, answer.pub_nonce, answer.partial_sig
    )


@pytest.mark.parametrize("case", params("board", kind="ok"))
def test_the_construction_is_upstream_s(case: Case) -> None:
    template = template_of(case)
    assert template.funding_output == TxOut(case["amount"], bytes.fromhex(case["funding_script_pubkey"]))
    assert template.funding_taproot.leaves[0].hex() == case["funding_leaf_script"]
    assert template.funding_taproot.internal_key.hex() == case["funding_taproot"]["internal_key"]
    assert template.tweak.hex() == case["funding_taproot"]["tap_tweak"]
    assert template.exit_tx.serialize().hex() == case["exit_tx"]
    assert str(template.exit_tx.txid) == case["exit_txid"]
    assert template.sighash.hex() == case["sighash"]
    assert str(template.unsigned_vtxo.id) == case["vtxo"]["id"]


@pytest.mark.parametrize("case", params("board", kind="ok"))
def test_upstream_s_cosignature_is_accepted(case: Case) -> None:
    answer = Cosignature(bytes.fromhex(case["server_pub_nonce"]), bytes.fromhex(case["server_partial_sig"]))
    assert template_of(case).task.is_cosigned(bytes.fromhex(case["user_pub_nonce"]), answer)


@pytest.mark.parametrize("case", params("board", kind="ok"))
def test_a_board_of_ours_is_valid_and_differs_from_upstream_s_by_its_signature_only(case: Case) -> None:
    board = make_board(case)
    funding = Tx.from_hex(case["funding_tx"])
    validate(board, funding)
    (step,) = board.exit_steps()
    assert is_spend_valid(step.tx, (funding.outputs[board.anchor_point.vout],))
    (item,) = Vtxo.decode_hex(case["vtxo"]["full_hex"]).genesis
    assert item.transition.signature is not None
    assert board.with_signatures((item.transition.signature,)).encode().hex() == case["vtxo"]["full_hex"]
    assert template_of_board(board, funding, board.server_pubkey) == template_of(case)


@pytest.mark.parametrize("case", params("board", kind="ok"))
def test_the_server_s_records_are_upstream_s(case: Case) -> None:
    vtxo = Vtxo.decode_hex(case["vtxo"]["full_hex"])
    for record, expected in zip(board_server_vtxos(vtxo), case["server_vtxos"], strict=True):
        assert record.encode().hex() == expected["full_hex"]
        assert str(record.id) == expected["id"]
        assert record.policy.kind == expected["policy_type"]


def test_the_worked_example() -> None:
    """Source: sheet 03 §1.11."""
    user = SecretKey(bytes.fromhex("5255d132d6ec7d4fc2a41c8f0018bb14343489ddd0344025cc60c7aa2b3fda6a"))
    server = SecretKey(bytes.fromhex("1fb316e653eec61de11c6b794636d230379509389215df1ceb520b65313e5426"))
    txid = "8c4b87af4ce8456bbd682859959ba64b95d5425d761a367f4f20b8ffccb1bde0"
    template = BoardTemplate(
        user.public_key, server.public_key, 150_000_000, 10_000_000, 100_000, 24, OutPoint.parse(f"{txid}:0")
    )
    assert str(Tx(2, (), (template.funding_output,)).txid) == txid
    assert template.funding_output.script_pubkey.hex() == (
        "512074600a8c7da90d45315a445c084900487aa1a14c4d4dbace7805d34800937e15"
    )
    assert template.tweak.hex() == "d462ec641e613c8e8902988cd747f800d4e185aa97bfca28d5f6028a91925060"
    assert template.exit_tx.serialize().hex() == (
        "0300000001e0bdb1ccffb8204f7f361a765d42d5954ba69b95592868bd6b45e84caf874b8c0000000000000000000200"
        "3b580800000000225120514c3177d8422159cc963f6ab8a8778f13ddd85720adc87ae78bad8ee7b7f3ef809698000000"
        "00000451024e7300000000"
    )
    assert template.sighash.hex() == "8578cf3478c03cc907620af979a46d43b6c9e150d8b1ecc4268dfa9df5f3955e"


def test_the_funding_output_is_a_checkpoint_of_the_same_terms() -> None:
    """Source: sheet 01 §6.2."""
    template = template_of(cases("board", kind="ok")[0])
    checkpoint = CheckpointPolicy(template.user_pubkey).taproot(
        template.server_pubkey, template.exit_delta, template.expiry_height
    )
    assert checkpoint.script_pubkey == template.funding_output.script_pubkey


@pytest.mark.parametrize("case", params("board", kind="funding-error"))
def test_amounts_that_leave_nothing_are_refused(case: Case) -> None:
    template = template_of(cases("board", kind="ok")[0])
    with pytest.raises(BoardAmountInvalid) as caught:
        replace(template, amount_sat=case["amount"], fee_sat=case["fee"])
    assert str(caught.value) == case["error"]


@pytest.mark.parametrize("case", params("board", kind="from-vtxo-error"))
def test_the_server_recognises_boards_as_upstream_does(case: Case) -> None:
    vtxo, funding = Vtxo.decode_hex(case["vtxo_hex"]), Tx.from_hex(case["funding_tx"])
    server = PublicKey.from_hex(case["server_pubkey"])
    if case["error"] is None:
        template_of_board(vtxo, funding, server)
        return
    with pytest.raises(NotABoard) as caught:
        template_of_board(vtxo, funding, server)
    assert str(caught.value) == case["error"]


@pytest.mark.parametrize(
    "change",
    [
        {"amount_sat": 1},
        {"exit_delta": 1},
        {"expiry_height": 1},
        {"policy": PubkeyPolicy(SecretKey(bytes([5] * 32)).public_key)},
        {"point": OutPoint.parse("00" * 32 + ":0")},
    ],
)
def test_the_server_computes_every_field_itself(change: dict[str, object]) -> None:
    case = cases("board", kind="ok")[0]
    board, funding = make_board(case), Tx.from_hex(case["funding_tx"])
    template_of_board(board, funding, board.server_pubkey)
    with pytest.raises(NotABoard):
        template_of_board(replace(board, **change), funding, board.server_pubkey)  # type: ignore[arg-type]


def test_the_server_refuses_a_fee_that_the_funding_does_not_hold() -> None:
    case = cases("board", kind="ok")[0]
    board, funding = make_board(case), Tx.from_hex(case["funding_tx"])
    greedy = replace(board, genesis=(replace(board.genesis[0], fee_amount_sat=case["amount"]),))
    with pytest.raises(NotABoard, match="worth less than the fee"):
        template_of_board(greedy, funding, board.server_pubkey)


def test_a_stale_fee_makes_the_server_s_cosignature_useless() -> None:
    """The server computes the fee from its own schedule, so the two sides sign different transactions."""
    case = cases("board", kind="ok")[0]
    ours = template_of(case)
    theirs = replace(ours, fee_sat=ours.fee_sat + 1)
    sec_nonce, pub_nonce = generate_board_nonce(ours, secret(case, "user"))
    answer = server_cosign_board(theirs, secret(case, "server"), pub_nonce)
    with pytest.raises(BadCosignature, match=r"^invalid board cosignature received from server$"):
        finish_board(ours, secret(case, "user"), sec_nonce, pub_nonce, answer.pub_nonce, answer.partial_sig)


@pytest.mark.parametrize("case", params("board", kind="partial-invalid"))
def test_a_cosignature_by_another_key_is_refused(case: Case) -> None:
    tweaks = {
        template.tweak
        for template in map(template_of, cases("board", kind="ok"))
        if template.sighash.hex() == case["sighash"]
    }
    for tweak in tweaks:
        task = CosignTask(
            PublicKey.from_hex(case["user"]["pubkey"]),
            PublicKey.from_hex(case["server"]["pubkey"]),
            bytes.fromhex(case["sighash"]),
            tweak,
        )
        answer = Cosignature(
            bytes.fromhex(case["server_pub_nonce"]), bytes.fromhex(case["server_partial_sig"])
        )
        assert task.is_cosigned(bytes.fromhex(case["user_pub_nonce"]), answer) is case["verifies"]
    assert tweaks


def test_a_board_is_signed_with_its_user_s_key() -> None:
    case = cases("board", kind="ok")[0]
    template = template_of(case)
    sec_nonce, pub_nonce = generate_board_nonce(template, secret(case, "user"))
    answer = server_cosign_board(template, secret(case, "server"), pub_nonce)
    with pytest.raises(ValueError, match="incorrect signing key"):
        finish_board(
            template, secret(case, "server"), sec_nonce, pub_nonce, answer.pub_nonce, answer.partial_sig
        )
