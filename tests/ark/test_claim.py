"""Claims: upstream's signed transactions, byte for byte, and which clause is taken."""

from dataclasses import replace

import pytest

from barkd_py.ark.claim import (
    ClaimInput,
    NotClaimable,
    build_claim_tx,
    claim_input,
    claim_weight_wu,
    extract_preimage,
    find_clause,
    sign_claim_tx,
)
from barkd_py.ark.policy import HarkLeafPolicy
from barkd_py.ark.vtxo import ServerVtxo, Vtxo
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.tx import TxOut
from tests.ark.test_vtxo import user_vtxo
from tests.support.script_engine import is_spend_valid
from tests.support.vectors import Case, cases, params


class Signer:
    """The keys and preimages of one case."""

    def __init__(self, case: Case) -> None:
        secrets = [SecretKey(bytes.fromhex(claim["signer_secret"])) for claim in case["inputs"]]
        self._secrets = {secret.public_key: secret for secret in secrets}
        preimage = bytes.fromhex(case["payment_preimage"])
        self._preimages = {sha256(preimage): preimage}

    def is_ours(self, key: PublicKey) -> bool:
        return key in self._secrets

    def find_secret(self, key: PublicKey) -> SecretKey | None:
        return self._secrets.get(key)

    def find_preimage(self, hash32: bytes) -> bytes | None:
        return self._preimages.get(hash32)

    def claim(self, vtxo: ServerVtxo) -> ClaimInput:
        return claim_input(vtxo, is_ours=self.is_ours, find_preimage=self.find_preimage)


def nothing(_: object) -> None:
    return None


def nobody(_: object) -> bool:
    return False


@pytest.mark.parametrize("case", params("exits", kind="claim"))
def test_claims_are_upstream_s_byte_for_byte(case: Case) -> None:
    signer = Signer(case)
    inputs = [signer.claim(Vtxo.decode_hex(claim["vtxo_hex"])) for claim in case["inputs"]]
    for found, expected in zip(inputs, case["inputs"], strict=True):
        assert str(found.outpoint) == expected["vtxo_id"]
        assert found.sequence == expected["sequence"]
        assert found.clause.script.hex() == expected["script"]
        assert found.control_block.hex() == expected["control_block"]
        assert found.witness_size == expected["witness_size"]
    output = TxOut(case["output"]["value"], bytes.fromhex(case["output"]["script_pubkey"]))
    unsigned = build_claim_tx(inputs, (output,), locktime=case["locktime"])
    signed = sign_claim_tx(unsigned, inputs, signer.find_secret, aux32=bytes(32))
    assert signed.serialize().hex() == case["signed_tx"]
    assert str(signed.txid) == case["txid"]
    assert signed.weight_wu == claim_weight_wu(inputs, (output,)) == case["weight"]
    assert is_spend_valid(signed, [claim.output for claim in inputs])


@pytest.mark.parametrize("case", params("exits", kind="claim"))
def test_nothing_is_signed_for_an_output_that_is_not_open_to_the_clause(case: Case) -> None:
    """The leaf and the way to it have to lead to the key of the output that is spent."""
    signer = Signer(case)
    right = signer.claim(Vtxo.decode_hex(case["inputs"][0]["vtxo_hex"]))
    block = right.control_block
    other_clause = replace(right.clause, pubkey=SecretKey(bytes([7]) * 32).public_key)
    script = right.output.script_pubkey
    wrong = [
        replace(right, output=TxOut(right.output.value_sat, script[:-1] + bytes([script[-1] ^ 1]))),
        replace(right, clause=other_clause),
        *(
            replace(right, control_block=block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :])
            for at in (0, 1, 32, len(block) - 1)
        ),
        replace(right, control_block=block + bytes(32)),
        replace(right, control_block=block[:-1]),
        replace(right, control_block=b""),
    ]
    for claim in wrong:
        unsigned = build_claim_tx([claim], (TxOut(1000, b"\x51"),), locktime=case["locktime"])
        with pytest.raises(ValueError, match="not one of its output"):
            sign_claim_tx(unsigned, [claim], lambda _: SecretKey(bytes([7]) * 32))


def test_signatures_are_fresh_unless_told_otherwise() -> None:
    case = cases("exits", kind="claim")[0]
    signer = Signer(case)
    inputs = [signer.claim(Vtxo.decode_hex(case["inputs"][0]["vtxo_hex"]))]
    unsigned = build_claim_tx(inputs, (TxOut(1000, b"\x51"),), locktime=case["locktime"])
    first, second = (sign_claim_tx(unsigned, inputs, signer.find_secret) for _ in range(2))
    assert first.serialize() != second.serialize()
    for signed in (first, second):
        assert is_spend_valid(signed, [claim.output for claim in inputs])


def test_a_claim_before_its_height_is_not_built() -> None:
    case = next(case for case in cases("exits", kind="claim") if case["name"] == "htlc-send-refund")
    claim = Signer(case).claim(Vtxo.decode_hex(case["inputs"][0]["vtxo_hex"]))
    assert claim.min_locktime > 0
    build_claim_tx([claim], (), locktime=claim.min_locktime)
    with pytest.raises(ValueError, match="greater height"):
        build_claim_tx([claim], (), locktime=claim.min_locktime - 1)


def test_without_the_preimage_a_receive_is_not_claimable() -> None:
    case = next(case for case in cases("exits", kind="claim") if case["name"] == "htlc-recv-preimage")
    vtxo = Vtxo.decode_hex(case["inputs"][0]["vtxo_hex"])
    with pytest.raises(NotClaimable, match="no clause signable"):
        claim_input(vtxo, is_ours=Signer(case).is_ours, find_preimage=nothing)
    with pytest.raises(NotClaimable):
        claim_input(vtxo, is_ours=nobody, find_preimage=Signer(case).find_preimage)


def test_a_hash_lock_on_an_aggregate_key_is_never_ours() -> None:
    vtxo = user_vtxo("board")
    leaf = HarkLeafPolicy(vtxo.user_pubkey, sha256(bytes(32)))
    server_vtxo = ServerVtxo(
        amount_sat=1000,
        expiry_height=1,
        server_pubkey=vtxo.server_pubkey,
        exit_delta=1,
        anchor_point=vtxo.anchor_point,
        genesis=(),
        policy=leaf,
        point=vtxo.anchor_point,
    )

    def all_but_the_server_s(key: PublicKey) -> bool:
        return key != vtxo.server_pubkey

    assert find_clause(server_vtxo, is_ours=all_but_the_server_s, find_preimage=lambda _: bytes(32)) is None


@pytest.mark.parametrize("case", params("exits", kind="extract-preimage"))
def test_preimages_are_found_wherever_they_are(case: Case) -> None:
    found = extract_preimage(
        [bytes.fromhex(item) for item in case["witness"]], bytes.fromhex(case["payment_hash"])
    )
    assert (found and found.hex()) == case["preimage"]


@pytest.mark.parametrize("case", params("exits", kind="exit-chain"))
def test_weights_of_exit_chains_are_upstream_s(case: Case) -> None:
    vtxo = Vtxo.decode_hex(case["vtxo_hex"])
    assert [tx.weight_wu for tx in vtxo.exit_transactions()] == case["tx_weights"]
