"""Proofs that we own a VTXO, each bound to one purpose.

A proof is a BIP-340 signature, 64 bytes, by the user key of the VTXO over ``SHA256(message)``. A message is a
prefix of 32 bytes that names the purpose, and the fields it commits to. The functions here build the
messages; `attest` signs and `is_attested` verifies any of them.

Mind the byte order: the two proofs for rounds write numbers big-endian, the others little-endian. Policies
are in their usual encoding everywhere, without a length in front.

Source: protocol sheet 02 §3.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from barkd_py.ark.policy import Policy, encode_policy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin import encode
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey, verify_schnorr

_ROUND_ATTEMPT = b"Ark round input ownership proof "
_DELEGATED_PARTICIPATION = b"hArk round join ownership proof "
_LIGHTNING_RECEIVE = b"Lightning receive VTXO challenge"
_VTXO_STATUS = b"Ark VTXO status query challenge "
_OFFBOARD_REQUEST = b"Ark offboard request challenge  "
_ARKOOR_COSIGN = b"arkoor cosign attestation       "


class AttestedOutput(Protocol):
    """What is asked of the server: an amount under a policy."""

    @property
    def amount_sat(self) -> int: ...

    @property
    def policy(self) -> Policy: ...


def attest(message: bytes, user_secret: SecretKey, *, aux32: bytes | None = None) -> bytes:
    """Sign a message of this module. Sign only what we built from our own data."""
    return user_secret.sign_schnorr(attestation_digest(message), aux32)


def is_attested(message: bytes, user_pubkey: PublicKey, attestation: bytes) -> bool:
    return verify_schnorr(user_pubkey.x_only, attestation_digest(message), attestation)


def attestation_digest(message: bytes) -> bytes:
    """32 bytes."""
    return sha256(message)


def round_attempt_message(
    challenge: bytes, vtxo_id: VtxoId, outputs: Sequence[tuple[AttestedOutput, PublicKey]]
) -> bytes:
    """For an input of a round that we join in person.

    challenge: 32 bytes, of the attempt being joined. outputs: all requested ones in request order, each with
    its cosign key. Raises ValueError for a challenge of another length: the server chooses it.
    """
    if len(challenge) != 32:
        raise ValueError("a round challenge has 32 bytes")
    parts = [_ROUND_ATTEMPT, challenge, vtxo_id, _u64_big_endian(len(outputs))]
    for output, cosign_pubkey in outputs:
        parts += (_u64_big_endian(output.amount_sat), encode_policy(output.policy), cosign_pubkey.data)
    return b"".join(parts)


def delegated_participation_message(vtxo_id: VtxoId, outputs: Sequence[AttestedOutput]) -> bytes:
    """For an input of a round that the server joins for us. outputs: all requested ones in request order."""
    parts = [_DELEGATED_PARTICIPATION, vtxo_id, _u64_big_endian(len(outputs))]
    for output in outputs:
        parts += (_u64_big_endian(output.amount_sat), encode_policy(output.policy))
    return b"".join(parts)


def lightning_receive_message(payment_hash: bytes, vtxo_id: VtxoId) -> bytes:
    """For claiming a Lightning receive: shows that we have some money; the VTXO is not spent."""
    return _LIGHTNING_RECEIVE + payment_hash + vtxo_id


def vtxo_status_message(vtxo_id: VtxoId) -> bytes:
    """For asking for the state of a VTXO. Who has this proof can ask again."""
    return _VTXO_STATUS + vtxo_id


def offboard_request_message(
    *, net_amount_sat: int, script_pubkey: bytes, input_ids: Iterable[VtxoId]
) -> bytes:
    """For every input of an offboard; the same message for all. input_ids: in request order."""
    ids = tuple(input_ids)
    return b"".join(
        (
            _OFFBOARD_REQUEST,
            encode.u64(net_amount_sat),
            encode.compact_size(len(script_pubkey)),
            script_pubkey,
            encode.u32(len(ids)),
            *ids,
        )
    )


def arkoor_cosign_message(vtxo_id: VtxoId, outputs: Sequence[AttestedOutput]) -> bytes:
    """For spending a VTXO out of round. outputs: normal ones, then isolated ones, of this input's part."""
    parts = [_ARKOOR_COSIGN, vtxo_id, encode.u32(len(outputs))]
    for output in outputs:
        parts += (encode.u64(output.amount_sat), encode_policy(output.policy))
    return b"".join(parts)


def _u64_big_endian(value: int) -> bytes:
    return value.to_bytes(8, "big")
