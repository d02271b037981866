"""The fields of requests: bytes to domain values. Raises `Malformed` with the text that clients know.

Source: sheet 08 §5.1.
"""

from collections.abc import Iterable
from typing import Protocol

from barkd_py.ark.arkoor import ArkoorDestination
from barkd_py.ark.policy import MAX_HEIGHT, Policy, decode_policy
from barkd_py.ark.vtxo import BadVtxoId, Vtxo, VtxoId
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.musig import PUBLIC_NONCE_BYTES, is_public_nonce
from barkd_py.bitcoin.tx import OutPoint, Tx, TxDecodeError
from barkd_py.devnet.ark_server.failures import Malformed


class Destination(Protocol):
    """The message of an amount and a policy."""

    total_amount: int
    policy: bytes


def public_key(data: bytes) -> PublicKey:
    try:
        return PublicKey.from_sec(data)
    except ValueError:
        raise Malformed("invalid public key") from None


def public_nonce(data: bytes) -> bytes:
    if len(data) != PUBLIC_NONCE_BYTES or not is_public_nonce(data):
        raise Malformed("invalid public musig nonce")
    return data


def outpoint(data: bytes) -> OutPoint:
    try:
        return OutPoint.from_bytes(data)
    except ValueError:
        raise Malformed("invalid outpoint") from None


def height(value: int, field: str) -> int:
    if value > MAX_HEIGHT:
        raise Malformed(f"{field}: invalid policy data: block height exceeds maximum value")
    return value


def transaction(data: bytes) -> Tx:
    try:
        return Tx.parse(data)
    except TxDecodeError:
        raise Malformed("invalid bitcoin transaction") from None


def vtxo_id(data: bytes) -> VtxoId:
    try:
        return VtxoId.from_bytes(data)
    except (BadVtxoId, DecodeError, ValueError):
        raise Malformed("invalid VTXO ID") from None


def vtxo_ids(items: Iterable[bytes]) -> list[VtxoId]:
    return [vtxo_id(data) for data in items]


def vtxo(data: bytes) -> Vtxo:
    """A full VTXO with a user's policy."""
    try:
        return Vtxo.decode(data)
    except DecodeError:
        raise Malformed("invalid full VTXO (with genesis)") from None


def vtxo_with_reason(data: bytes) -> Vtxo:
    """The same for the calls that say what is wrong with it."""
    try:
        return Vtxo.decode(data)
    except DecodeError as error:
        raise Malformed(f"invalid vtxo: {error}") from None


def policy(data: bytes) -> Policy:
    try:
        return decode_policy(data)
    except DecodeError:
        raise Malformed("invalid policy") from None


def destination(message: Destination) -> ArkoorDestination:
    return ArkoorDestination(message.total_amount, policy(message.policy))


def signature(data: bytes, error_text: str) -> bytes:
    if len(data) != 64:
        raise Malformed(error_text)
    return data


def partial_signature(data: bytes) -> bytes:
    if len(data) != 32:
        raise Malformed("invalid partial musig signature")
    return data


def hash32(data: bytes, error_text: str) -> bytes:
    if len(data) != 32:
        raise Malformed(error_text)
    return data
