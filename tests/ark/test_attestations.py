"""Ownership proofs against upstream's preimages, and what each of them does not prove."""

from dataclasses import dataclass

import pytest

from barkd_py.ark.attestations import (
    arkoor_cosign_message,
    attest,
    attestation_digest,
    delegated_participation_message,
    is_attested,
    lightning_receive_message,
    offboard_request_message,
    round_attempt_message,
    vtxo_status_message,
)
from barkd_py.ark.policy import Policy, PubkeyPolicy, decode_policy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from tests.support.vectors import Case, cases, params


@dataclass(frozen=True)
class Output:
    amount_sat: int
    policy: Policy


def outputs_of(inputs: Case) -> list[Output]:
    return [Output(o["amount"], decode_policy(bytes.fromhex(o["policy_hex"]))) for o in inputs["outputs"]]


def message_of(kind: str, inputs: Case) -> bytes:
    """The message that we build for a vector's inputs."""
    if kind == "offboard-request":
        return offboard_request_message(
            net_amount_sat=inputs["net_amount"],
            script_pubkey=bytes.fromhex(inputs["script_pubkey"]),
            input_ids=[VtxoId.parse(text) for text in inputs["input_ids"]],
        )
    vtxo_id = VtxoId.parse(inputs["vtxo_id"])
    match kind:
        case "round-attempt":
            keys = [PublicKey.from_hex(output["cosign_pubkey"]) for output in inputs["outputs"]]
            outputs = list(zip(outputs_of(inputs), keys, strict=True))
            return round_attempt_message(bytes.fromhex(inputs["challenge"]), vtxo_id, outputs)
        case "delegated-participation":
            return delegated_participation_message(vtxo_id, outputs_of(inputs))
        case "arkoor-cosign":
            return arkoor_cosign_message(vtxo_id, outputs_of(inputs))
        case "lightning-receive":
            return lightning_receive_message(bytes.fromhex(inputs["payment_hash"]), vtxo_id)
        case "vtxo-status":
            return vtxo_status_message(vtxo_id)
    raise AssertionError(kind)


KINDS = {case["kind"] for case in cases("attestations")}


def test_every_kind_has_vectors() -> None:
    assert len(KINDS) == 6


@pytest.mark.parametrize(
    "case", [case for kind in sorted(KINDS) for case in params("attestations", kind=kind)]
)
def test_messages_match_upstream(case: Case) -> None:
    message = message_of(case["kind"], case["inputs"])
    assert message.hex() == case["preimage"]
    assert attestation_digest(message).hex() == case["digest"]
    signer = SecretKey(bytes.fromhex(case["signer"]["secret"]))
    assert is_attested(message, signer.public_key, bytes.fromhex(case["attestation"]))
    ours = attest(message, signer)
    assert len(ours) == 64
    assert is_attested(message, signer.public_key, ours)


KEY = SecretKey(bytes.fromhex("76f78cc00278817fe65fd81cb962782d2625834d08b66edbf2cd60f6c520db63"))
VTXO_ID = VtxoId.parse("9734debe31c4302717367ff12b207922cf8dd7424959416de6b9142b27cc17ef:0")
OURS = Output(100_000, PubkeyPolicy(KEY.public_key))

# sheet 02 §3.1
WORKED = [
    (
        round_attempt_message(b"\x42" * 32, VTXO_ID, [(OURS, KEY.public_key)]),
        "2958c74de0fb3d29da5d3f02a5d515bb90e3e013c55667eed6fa9f484b9222e8",
    ),
    (
        delegated_participation_message(VTXO_ID, [OURS]),
        "8eee4c4449c65e8884bd2abdee63a4487c77398637e11d308219ede1d97035ad",
    ),
    (
        lightning_receive_message(sha256(b"\x42" * 32), VTXO_ID),
        "3a0476f9a77e8660834d7cb132f3854cb07e49ca9897c6436d29e18778202e0c",
    ),
    (vtxo_status_message(VTXO_ID), "1c2615053b4021b4356bc91962e2d5d4e5c054231d022d620929ebad0b31669d"),
    (
        offboard_request_message(
            net_amount_sat=50_000,
            script_pubkey=bytes.fromhex(
                "5120ba14844e3a55fb02dbf0c9c64db78f2dce1f4773f1a763e8b73877ee75aa550f"
            ),
            input_ids=[VTXO_ID],
        ),
        "00e4938efc48fae2bb0860adcfe87b25364489d8b91d165ffaf9480003a3cb0b",
    ),
    (
        arkoor_cosign_message(VTXO_ID, [Output(50_000, PubkeyPolicy(KEY.public_key))]),
        "806fc5374369f4418bf224365441eaca8635b6beb2b10625cd360ea64b8670be",
    ),
]


@pytest.mark.parametrize(("message", "digest"), WORKED)
def test_worked_digests(message: bytes, digest: str) -> None:
    assert attestation_digest(message).hex() == digest


def test_a_signature_with_known_randomness_is_reproducible() -> None:
    message = WORKED[-1][0]
    assert attest(message, KEY, aux32=bytes(32)).hex() == (
        "149fbc351d475ede046269b7a27857b9f8c76a18a2a8b47fb0110f22da4cd93b"
        "9cc8910af91cb79192dad526cc5cacc5fd8d99f76a90cde6a86a8183e0ff4e5f"
    )


def test_every_purpose_has_its_own_prefix_of_32_bytes() -> None:
    prefixes = {message[:32] for message, _ in WORKED}
    assert len(prefixes) == len(KINDS)
    assert all(prefix.isascii() for prefix in prefixes)


def test_the_same_outputs_in_another_order_need_another_proof() -> None:
    other = Output(1, OURS.policy)
    for build in (arkoor_cosign_message, delegated_participation_message):
        attestation = attest(build(VTXO_ID, [OURS, other]), KEY)
        assert not is_attested(build(VTXO_ID, [other, OURS]), KEY.public_key, attestation)


def test_rounds_write_big_endian_and_payments_little_endian() -> None:
    amount = (100_000).to_bytes(8, "big")
    assert amount in delegated_participation_message(VTXO_ID, [OURS])
    assert amount not in arkoor_cosign_message(VTXO_ID, [OURS])
    assert amount[::-1] in arkoor_cosign_message(VTXO_ID, [OURS])


def test_a_proof_by_another_key_proves_nothing() -> None:
    message = vtxo_status_message(VTXO_ID)
    stranger = SecretKey(bytes([5] * 32))
    assert not is_attested(message, KEY.public_key, attest(message, stranger))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_challenge_of_another_length_is_not_signed(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        round_attempt_message(bytes(length), VTXO_ID, [])
