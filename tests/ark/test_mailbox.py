"""Mailbox identifiers, blinding, and the authorizations that open mailboxes."""

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from barkd_py.ark.mailbox import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    BlindingFailed,
    MailboxAuthorization,
    XpubRecoveryAuthorization,
    blind,
    decode_blinded_id,
    decode_mailbox_id,
    mailbox_authorization_digest,
    unblind,
    xpub_authorization_digest,
)
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey, SecretKey, shared_point
from barkd_py.errors import chain_text
from tests.support.vectors import Case, params

DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "mailbox-identifier": lambda data: decode_mailbox_id(data).data,
    "blinded-mailbox-identifier": lambda data: decode_blinded_id(data).data,
    "mailbox-authorization": lambda data: MailboxAuthorization.decode(data).encode(),
    "xpub-recovery-authorization": lambda data: XpubRecoveryAuthorization.decode(data).encode(),
}

# scalars: 1 to about 2^252, all below the group order
secrets = st.integers(1, 2**252).map(lambda number: SecretKey(number.to_bytes(32, "big")))


def secret(case: Case) -> SecretKey:
    return SecretKey(bytes.fromhex(case["secret"]))


@pytest.mark.parametrize("case", params("mailbox", kind="blinding"))
def test_blinding_matches_upstream_and_is_undone_by_the_server(case: Case) -> None:
    vtxo, server = secret(case["vtxo_key"]), secret(case["server_mailbox_key"])
    mailbox_id = PublicKey.from_hex(case["mailbox_id"])
    assert mailbox_id == secret(case["mailbox_key"]).public_key
    assert shared_point(vtxo, server.public_key).hex() == case["ecdh_point"]
    blinded = blind(mailbox_id, vtxo_secret=vtxo, server_mailbox_pubkey=server.public_key)
    assert blinded.hex() == case["blinded_id"]
    found = unblind(blinded, vtxo_pubkey=vtxo.public_key, server_mailbox_secret=server)
    assert found.hex() == case["unblinded"]


@pytest.mark.parametrize("case", params("mailbox", kind="blinding-error"))
def test_a_blinded_id_at_infinity_is_refused(case: Case) -> None:
    with pytest.raises(BlindingFailed) as refused:
        blind(
            PublicKey.from_hex(case["mailbox_id"]),
            vtxo_secret=secret(case["vtxo_key"]),
            server_mailbox_pubkey=secret(case["server_mailbox_key"]).public_key,
        )
    assert str(refused.value) == case["error"]


def test_an_unblinded_id_at_infinity_is_refused() -> None:
    vtxo, server = SecretKey(bytes([7] * 32)), SecretKey(bytes([9] * 32))
    blinded = shared_point(vtxo, server.public_key)
    with pytest.raises(BlindingFailed):
        unblind(blinded, vtxo_pubkey=vtxo.public_key, server_mailbox_secret=server)


@given(secrets, secrets, secrets)
def test_unblinding_undoes_blinding(mailbox: SecretKey, vtxo: SecretKey, server: SecretKey) -> None:
    try:
        blinded = blind(mailbox.public_key, vtxo_secret=vtxo, server_mailbox_pubkey=server.public_key)
    except BlindingFailed:
        assume(False)
    found = unblind(blinded, vtxo_pubkey=vtxo.public_key, server_mailbox_secret=server)
    assert found == mailbox.public_key


# --- authorizations


@pytest.mark.parametrize("case", params("mailbox", kind="authorization"))
def test_authorizations_match_upstream(case: Case) -> None:
    data = bytes.fromhex(case["encoded"])
    authorization = MailboxAuthorization.decode(data)
    assert authorization.expiry == case["expiry"]
    assert authorization.mailbox_id.hex() == case["mailbox_key"]["pubkey"]
    assert mailbox_authorization_digest(case["expiry"]).hex() == case["digest"]
    assert authorization.is_valid_signature()
    assert authorization.encode() == data
    for mutation in case["mutations"]:
        changed = MailboxAuthorization.decode(bytes.fromhex(mutation["hex"]))
        assert changed.is_valid_signature() is mutation["result"]["verifies"], mutation["mutation"]


@pytest.mark.parametrize("case", params("mailbox", kind="authorization"))
def test_our_authorizations_are_valid(case: Case) -> None:
    key = secret(case["mailbox_key"])
    authorization = MailboxAuthorization.sign(key, expiry=case["expiry"])
    assert len(authorization.encode()) == 105
    assert MailboxAuthorization.decode(authorization.encode()) == authorization
    assert authorization.is_valid_signature()
    assert authorization.mailbox_id == key.public_key


def test_an_authorization_of_one_mailbox_does_not_open_another() -> None:
    regular, recovery = SecretKey(bytes([1] * 32)), SecretKey(bytes([2] * 32))
    authorization = MailboxAuthorization.sign(regular, expiry=1000)
    stolen = MailboxAuthorization(recovery.public_key, authorization.expiry, authorization.signature)
    assert not stolen.is_valid_signature()


@pytest.mark.parametrize(("now", "expired"), [(1000, False), (1005, False), (1006, True)])
def test_an_authorization_outlives_its_expiry_by_the_leeway(now: int, expired: bool) -> None:
    assert MailboxAuthorization.sign(SecretKey(bytes([1] * 32)), expiry=1000).is_expired(now=now) is expired


@pytest.mark.parametrize("case", params("mailbox", kind="xpub-recovery-authorization"))
def test_xpub_authorizations_match_upstream(case: Case) -> None:
    xpub, server = bytes.fromhex(case["xpub_bytes"]), PublicKey.from_hex(case["server_pubkey"])
    data = bytes.fromhex(case["encoded"])
    authorization = XpubRecoveryAuthorization.decode(data)
    assert authorization.encode() == data
    assert authorization.expiry == case["expiry"]
    digest = xpub_authorization_digest(server_pubkey=server, xpub=xpub, expiry=case["expiry"])
    assert digest.hex() == case["digest"]
    assert authorization.is_valid_signature(server_pubkey=server, xpub=xpub)
    other_server = SecretKey(bytes([3] * 32)).public_key
    assert authorization.is_valid_signature(server_pubkey=other_server, xpub=xpub) is False
    assert case["verifies_for_other_server"] is False


def test_our_xpub_authorization_is_valid_for_its_server_and_key_only() -> None:
    account, server = SecretKey(bytes([1] * 32)), SecretKey(bytes([2] * 32)).public_key
    xpub = bytes(45) + account.public_key.data
    authorization = XpubRecoveryAuthorization.sign(account, server_pubkey=server, xpub=xpub, expiry=5)
    assert len(authorization.encode()) == 72
    assert authorization.is_valid_signature(server_pubkey=server, xpub=xpub)
    assert not authorization.is_valid_signature(server_pubkey=server, xpub=b"\x01" + xpub[1:])


@pytest.mark.parametrize(("expiry", "current"), [(994, False), (995, True), (1605, True), (1606, False)])
def test_an_xpub_authorization_has_a_longest_lifetime(expiry: int, current: bool) -> None:
    assert XpubRecoveryAuthorization(expiry, bytes(64)).is_current(now=1000) is current


def test_authorizations_do_not_print_themselves() -> None:
    authorization = MailboxAuthorization.sign(SecretKey(bytes([1] * 32)), expiry=5)
    assert authorization.signature.hex() not in repr(authorization)
    assert str(authorization.signature) not in repr(authorization)


@given(st.integers(MIN_TIMESTAMP, MAX_TIMESTAMP), st.binary(min_size=64, max_size=64))
def test_authorizations_round_trip(expiry: int, signature: bytes) -> None:
    authorization = MailboxAuthorization(SecretKey(bytes([1] * 32)).public_key, expiry, signature)
    assert MailboxAuthorization.decode(authorization.encode()) == authorization


@pytest.mark.parametrize(
    "case", [case for decoder in DECODERS for case in params("invalid", decoder=decoder)]
)
def test_malformed_encodings_are_refused_with_upstreams_text(case: Case) -> None:
    data, result = bytes.fromhex(case["hex"]), case["result"]
    decode = DECODERS[case["decoder"]]
    if result["ok"]:
        assert decode(data).hex() == result["reencoded"]
    else:
        with pytest.raises(DecodeError) as refused:
            decode(data)
        assert chain_text(refused.value) == result["error_chain"]
        assert refused.value.kind.value == result["variant"]
