"""Script leaves: upstream's bytes, witness sizes, and what a witness must hold."""

import pytest

from barkd_py.ark.clause import (
    DelayedSign,
    DelayedTimelockSign,
    HashDelaySign,
    HashLock,
    HashSign,
    TimelockSign,
)
from barkd_py.ark.policy import decode_server_policy
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.sighash import taproot_script_spend_sighash
from barkd_py.bitcoin.taproot import TaprootOutput, leaf_hash
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from tests.support.script_engine import is_spend_valid
from tests.support.vectors import Case, params

SECRET = SecretKey(bytes([7] * 32))
KEY = SECRET.public_key
NAMES = {
    (DelayedSign, None): "delayed-sign",
    (TimelockSign, None): "timelock-sign",
    (DelayedTimelockSign, None): "delayed-timelock-sign",
    (HashDelaySign, HashLock.V1): "hash-delay-sign",
    (HashDelaySign, HashLock.V0): "hash-delay-sign-v0",
    (HashSign, HashLock.V1): "hash-sign",
    (HashSign, HashLock.V0): "hash-sign-v0",
}


@pytest.mark.parametrize("case", params("policies"))
def test_clauses_match_upstream(case: Case) -> None:
    policy = decode_server_policy(bytes.fromhex(case["encoded"]))
    arguments = (PublicKey.from_hex(case["server_pubkey"]), case["exit_delta"], case["expiry_height"])
    clauses = policy.clauses(*arguments)
    taproot = policy.taproot(*arguments)
    for index, (clause, expected) in enumerate(zip(clauses, case["clauses"], strict=True)):
        assert NAMES[(type(clause), getattr(clause, "lock", None))] == expected["clause"]
        assert clause.pubkey.hex() == expected["pubkey"]
        assert clause.script.hex() == expected["script"]
        assert taproot.leaves[index] == clause.script
        assert leaf_hash(clause.script).hex() == expected["leaf_hash"]
        control_block = taproot.control_block(index)
        assert control_block.hex() == expected["control_block"]
        assert clause.sequence == expected["sequence"]
        assert clause.locktime == expected["locktime"]
        assert clause.witness_size(control_block) == expected["witness_size"]


@pytest.mark.parametrize(
    ("number", "push"),
    [
        (0, "00"),
        (1, "51"),
        (16, "60"),
        (17, "0111"),
        (32, "0120"),
        (127, "017f"),
        (128, "028000"),
        (144, "029000"),
        (255, "02ff00"),
        (256, "020001"),
        (2016, "02e007"),
        (32_767, "02ff7f"),
        (32_768, "03008000"),
        (101_010, "03928a01"),
        (499_934_467, "040365cc1d"),
    ],
)
def test_numbers_are_pushed_in_the_shortest_way(number: int, push: str) -> None:
    key = "20" + KEY.x_only.hex() + "ac"
    assert TimelockSign(KEY, number).script.hex() == push + "b175" + key
    assert DelayedSign(KEY, number).script.hex() == push + "b275" + key


@pytest.mark.parametrize(
    ("clause", "wants_preimage"),
    [
        (DelayedSign(KEY, 1), False),
        (TimelockSign(KEY, 1), False),
        (DelayedTimelockSign(KEY, 1, 1), False),
        (HashDelaySign(KEY, bytes(32), 1), True),
        (HashSign(KEY, bytes(32)), True),
    ],
)
def test_a_preimage_belongs_to_hash_locks_only(clause: DelayedSign | HashSign, wants_preimage: bool) -> None:
    wrong = None if wants_preimage else bytes(32)
    with pytest.raises(ValueError, match="preimage"):
        clause.witness(bytes(64), bytes(33), wrong)
    right = bytes(32) if wants_preimage else None
    witness = clause.witness(bytes(64), bytes(33), right)
    assert witness == (bytes(64), *((right,) if right else ()), clause.script, bytes(33))


@pytest.mark.parametrize(
    ("lock", "preimage", "accepted"),
    [
        (HashLock.V1, bytes(32), True),
        (HashLock.V1, bytes(33), False),
        (HashLock.V1, bytes(31), False),
        (HashLock.V0, bytes(33), True),
    ],
)
def test_only_the_new_hash_lock_checks_the_size_of_the_preimage(
    lock: HashLock, preimage: bytes, accepted: bool
) -> None:
    clause = HashSign(KEY, sha256(preimage), lock)
    taproot = TaprootOutput(KEY.x_only, (clause.script,))
    spent = TxOut(1000, taproot.script_pubkey)
    spend = Tx(2, (TxIn(OutPoint(Txid(bytes(32)), 0), sequence=0),), (TxOut(900, b"\x51"),))
    signature = SECRET.sign_schnorr(
        taproot_script_spend_sighash(spend, 0, (spent,), leaf_hash(clause.script))
    )
    witness = clause.witness(signature, taproot.control_block(0), preimage)
    signed = Tx(2, (TxIn(spend.inputs[0].prevout, sequence=0, witness=witness),), spend.outputs)
    assert is_spend_valid(signed, (spent,)) is accepted
