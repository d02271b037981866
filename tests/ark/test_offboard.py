"""Offboards: upstream's forfeits, both sides of signing them, and what the wallet refuses."""

from collections.abc import Callable

import pytest

from barkd_py.ark.cosign import BadCosignature, Cosignature
from barkd_py.ark.offboard import (
    OffboardForfeits,
    OffboardForfeitsInvalid,
    OffboardRequestInvalid,
    OffboardTxInvalid,
    verify_offboard_request,
    verify_offboard_tx,
)
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from tests.support.script_engine import is_spend_valid
from tests.support.vectors import Case, cases, params


def forfeits_of(case: Case) -> OffboardForfeits:
    vtxos = tuple(Vtxo.decode_hex(given["vtxo_hex"]) for given in case["inputs"])
    return OffboardForfeits(vtxos, Tx.from_hex(case["offboard_tx"]["hex"]))


def user_secrets(case: Case) -> list[SecretKey]:
    return [SecretKey(bytes.fromhex(given["user_key"]["secret"])) for given in case["inputs"]]


def server_secret(case: Case) -> SecretKey:
    return SecretKey(bytes.fromhex(case["server"]["secret"]))


FORFEITS = params("offboard", kind="forfeits")
TWO_INPUTS = cases("offboard", kind="forfeits", name="2-inputs")[0]


@pytest.mark.parametrize("case", FORFEITS)
def test_forfeits_are_upstream_s(case: Case) -> None:
    forfeits = forfeits_of(case)
    destination = TxOut(case["request"]["net_amount"], bytes.fromhex(case["request"]["script_pubkey"]))
    verify_offboard_request(destination)
    verify_offboard_tx(forfeits.tx, destination, len(forfeits.vtxos))
    assert forfeits.connector_output.script_pubkey.hex() == case["connector_txout"]["script_pubkey"]
    fan_out = case["unsigned_connector_tx"]
    if fan_out is None:
        assert forfeits.fan_out is None
    else:
        assert forfeits.fan_out is not None
        assert forfeits.fan_out.serialize().hex() == fan_out["hex"]
    for index, expected in enumerate(case["forfeits"]):
        assert str(forfeits.connectors[index]) == expected["connector"]
        assert forfeits.txs[index].serialize().hex() == expected["unsigned_tx"]
        assert str(forfeits.txs[index].txid) == expected["txid"]
        assert [
            {"value": out.value_sat, "script_pubkey": out.script_pubkey.hex()}
            for out in forfeits.prevouts(index)
        ] == expected["prevouts"]
        task = forfeits.tasks[index]
        assert task.sighash.hex() == expected["sighash_vtxo_input"]
        assert task.tweak is not None
        assert task.tweak.hex() == expected["tap_tweak"]
        connector_sighash = taproot_key_spend_sighash(forfeits.txs[index], 1, forfeits.prevouts(index))
        assert connector_sighash.hex() == expected["sighash_connector_input"]


@pytest.mark.parametrize("case", FORFEITS)
def test_upstream_s_signatures_are_accepted_and_belong_to_their_forfeit(case: Case) -> None:
    forfeits = forfeits_of(case)
    nonces = [bytes.fromhex(forfeit["server_pub_nonce"]) for forfeit in case["forfeits"]]
    answers = [
        Cosignature(bytes.fromhex(f["user_pub_nonce"]), bytes.fromhex(f["user_partial_sig"]))
        for f in case["forfeits"]
    ]
    forfeits.verify(nonces, answers)
    if len(answers) > 1:
        with pytest.raises(BadCosignature):
            forfeits.verify(nonces, answers[::-1])
        with pytest.raises(BadCosignature):
            forfeits.verify(nonces[::-1], answers)


@pytest.mark.parametrize("case", FORFEITS)
def test_user_and_server_sign_forfeits_that_spend(case: Case) -> None:
    forfeits, server = forfeits_of(case), server_secret(case)
    pairs = [task.generate_nonce(server) for task in forfeits.tasks]
    pub_nonces = [pub for _, pub in pairs]
    answers = forfeits.sign(user_secrets(case), pub_nonces)
    signed = forfeits.finish(
        answers,
        server_secret=server,
        sec_nonces=[sec for sec, _ in pairs],
        server_pub_nonces=pub_nonces,
        connector_secret=server,
    )
    for index, tx in enumerate(signed):
        assert tx.txid == forfeits.txs[index].txid
        assert is_spend_valid(tx, forfeits.prevouts(index))


def test_a_bad_part_is_refused_before_anything_is_signed() -> None:
    forfeits, server = forfeits_of(TWO_INPUTS), server_secret(TWO_INPUTS)
    pairs = [task.generate_nonce(server) for task in forfeits.tasks]
    pub_nonces = [pub for _, pub in pairs]
    good, bad = forfeits.sign(user_secrets(TWO_INPUTS), pub_nonces)
    bad = bad._replace(partial_sig=bytes([1] * 32))

    def finish(answers: tuple[Cosignature, ...]) -> None:
        forfeits.finish(
            answers,
            server_secret=server,
            sec_nonces=[sec for sec, _ in pairs],
            server_pub_nonces=pub_nonces,
            connector_secret=server,
        )

    with pytest.raises(BadCosignature):
        finish((good, bad))
    # The nonces are spent: what was signed with them before can not be signed again.
    with pytest.raises(ValueError):
        finish(forfeits.sign(user_secrets(TWO_INPUTS), pub_nonces))


def test_answers_differ() -> None:
    forfeits = forfeits_of(TWO_INPUTS)
    nonces = [bytes.fromhex(forfeit["server_pub_nonce"]) for forfeit in TWO_INPUTS["forfeits"]]
    first, second = (forfeits.sign(user_secrets(TWO_INPUTS), nonces) for _ in range(2))
    assert first[0].pub_nonce != second[0].pub_nonce


def test_the_connector_of_several_inputs_is_one_of_the_fan_out_not_the_whole_output() -> None:
    """Source: sheet 03 §3.6: 330 sat each, where the offboard's output holds 330 per input."""
    forfeits = forfeits_of(TWO_INPUTS)
    assert forfeits.tx.outputs[1].value_sat == 660
    assert forfeits.prevouts(0)[1].value_sat == 330


@pytest.mark.parametrize("case", params("offboard", kind="validate-offboard-tx"))
def test_offboard_transactions_are_judged_as_upstream_does(case: Case) -> None:
    outputs = tuple(TxOut(out["value"], bytes.fromhex(out["script_pubkey"])) for out in case["outputs"])
    tx = Tx(2, (TxIn(OutPoint(Txid(bytes(32)), 0)),), outputs)
    destination = TxOut(case["request"]["net_amount"], bytes.fromhex(case["request"]["script_pubkey"]))
    if case["error"] is None:
        verify_offboard_tx(tx, destination, case["nb_inputs"])
        return
    with pytest.raises(OffboardTxInvalid) as caught:
        verify_offboard_tx(tx, destination, case["nb_inputs"])
    assert str(caught.value) == case["error"]


@pytest.mark.parametrize("case", params("offboard", kind="validate-request"))
def test_destinations_are_judged_as_upstream_does(case: Case) -> None:
    destination = TxOut(case["net_amount"], bytes.fromhex(case["script_pubkey"]))
    if case["error"] is None:
        verify_offboard_request(destination)
        return
    with pytest.raises(OffboardRequestInvalid) as caught:
        verify_offboard_request(destination)
    assert str(caught.value) == case["error"]


@pytest.mark.parametrize("case", params("offboard", kind="context-error"))
def test_parts_that_do_not_fit_are_refused_as_upstream_does(case: Case) -> None:
    forfeits, secrets = forfeits_of(TWO_INPUTS), user_secrets(TWO_INPUTS)
    nonces = [bytes.fromhex(forfeit["server_pub_nonce"]) for forfeit in TWO_INPUTS["forfeits"]]
    without_connector = Tx(2, forfeits.tx.inputs, forfeits.tx.outputs[:1])
    attempts: dict[str, Callable[[], object]] = {
        "no inputs": lambda: OffboardForfeits((), forfeits.tx),
        "1 key for 2 inputs": lambda: forfeits.sign(secrets[:1], nonces),
        "1 nonce for 2 inputs": lambda: forfeits.sign(secrets, nonces[:1]),
        "no connector output": lambda: OffboardForfeits(forfeits.vtxos, without_connector),
    }
    with pytest.raises(OffboardForfeitsInvalid) as caught:
        attempts[case["name"]]()
    assert str(caught.value) == case["error"]


def test_the_wrong_key_or_nonce_signs_nothing() -> None:
    forfeits, secrets = forfeits_of(TWO_INPUTS), user_secrets(TWO_INPUTS)
    nonces = [bytes.fromhex(forfeit["server_pub_nonce"]) for forfeit in TWO_INPUTS["forfeits"]]
    with pytest.raises(OffboardForfeitsInvalid, match="wrong key"):
        forfeits.sign([secrets[0], SecretKey(bytes([9] * 32))], nonces)
    with pytest.raises(BadCosignature, match="malformed"):
        forfeits.sign(secrets, [nonces[0], bytes(66)])
