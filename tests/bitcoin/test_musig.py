"""MuSig2 against vectors: aggregation, nonces, sessions; and what a secret nonce refuses."""

import copy
import pickle
from typing import Any

import pytest
from btclib_secp256k1 import ffi, keys, lib
from btclib_secp256k1 import musig as native
from btclib_secp256k1.context import ctx

from barkd_py.bitcoin import musig
from barkd_py.bitcoin.keys import PublicKey, SecretKey, verify_schnorr, x_only_tweak_add
from tests.support.vectors import case_name, cases


def hex_or_none(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def nonce_from(
    secrand: str,
    secret_key: SecretKey,
    msg: bytes | None = None,
    cache: native.KeyAggCache | None = None,
    extra: bytes | None = None,
) -> native.SecretNonce:
    """A nonce from known randomness, which the package itself never uses."""
    secnonce = ffi.new("secp256k1_musig_secnonce *")
    pubnonce = ffi.new("secp256k1_musig_pubnonce *")
    pubkey = keys.parse(secret_key.public_key.data)
    null = ffi.NULL
    assert lib.secp256k1_musig_nonce_gen(
        ctx,
        secnonce,
        pubnonce,
        ffi.new("unsigned char[32]", bytes.fromhex(secrand)),
        secret_key.secret_bytes,
        pubkey,
        null if msg is None else msg,
        null if cache is None else cache._cache_(),
        null if extra is None else extra,
    )
    return native.SecretNonce(secnonce, pubnonce, pubkey)


@pytest.mark.parametrize("case", cases("musig", kind="key-aggregation"), ids=case_name)
def test_keys_aggregate_in_any_order(case: dict[str, Any]) -> None:
    public_keys = [PublicKey.from_hex(key) for key in case["keys"]]
    aggregate = case["result"]["aggregate"]
    assert musig.combine(public_keys).hex() == aggregate
    assert musig.combine(reversed(public_keys)).hex() == aggregate


def test_a_single_key_is_not_its_own_aggregate() -> None:
    key = SecretKey.generate().public_key
    assert musig.combine([key]) != key


def test_no_keys_have_no_aggregate() -> None:
    with pytest.raises(ValueError, match="at least one"):
        musig.combine([])


@pytest.mark.parametrize("case", cases("musig", kind="xonly-tweak"), ids=case_name)
def test_aggregate_is_tweaked_the_x_only_way(case: dict[str, Any]) -> None:
    public_keys = [PublicKey.from_hex(key) for key in case["keys"]]
    tweak = bytes.fromhex(case["tweak"])
    aggregate = musig.combine(public_keys)
    assert x_only_tweak_add(aggregate.x_only, tweak).hex() == case["tweaked"]
    nonce = musig.aggregate_nonces([musig.generate_nonce(SecretKey.generate())[1]])
    assert musig.Session(public_keys, nonce, bytes(32), tweak).output_key.hex() == case["tweaked"]


# The other vectors mix in an aggregate without naming its keys, which the binding would need.
NONCES = [case for case in cases("musig", kind="nonce-gen") if case["aggregate_xonly"] is None]


@pytest.mark.parametrize("case", NONCES, ids=case_name)
def test_binding_generates_nonces_as_bip327_says(case: dict[str, Any]) -> None:
    secret_key = SecretKey(bytes.fromhex(case["secret_key"]))
    nonce = nonce_from(
        case["secrand"], secret_key, hex_or_none(case["msg"]), None, hex_or_none(case["extra"])
    )
    assert nonce.pubnonce.hex() == case["pub_nonce"]


@pytest.mark.parametrize("case", cases("musig", kind="nonce-aggregation"), ids=case_name)
def test_nonces_aggregate(case: dict[str, Any]) -> None:
    nonces = [bytes.fromhex(nonce) for nonce in case["pub_nonces"]]
    assert musig.aggregate_nonces(nonces).hex() == case["agg_nonce"]


@pytest.mark.parametrize("case", cases("musig", kind="signing"), ids=case_name)
def test_final_signature_of_the_vectors_partials(case: dict[str, Any]) -> None:
    signers = case["signers"]
    public_keys = [PublicKey.from_hex(signer["key"]["pubkey"]) for signer in signers]
    nonces = [bytes.fromhex(signer["pub_nonce"]) for signer in signers]
    partials = [bytes.fromhex(signer["partial_sig"]) for signer in signers]
    msg = bytes.fromhex(case["msg"])
    agg_nonce = musig.aggregate_nonces(nonces)
    assert agg_nonce.hex() == case["agg_nonce"]
    session = musig.Session(public_keys, agg_nonce, msg, hex_or_none(case["tweak"]))
    assert session.output_key.hex() == case["signing_key"]
    for partial, nonce, key in zip(partials, nonces, public_keys, strict=True):
        assert session.verify_partial(partial, nonce, key)
    signature = session.aggregate(partials)
    assert signature.hex() == case["final_sig"]
    assert verify_schnorr(session.output_x_only, msg, signature)


@pytest.mark.parametrize("case", cases("musig", kind="signing"), ids=case_name)
def test_every_signer_makes_the_vectors_partial(case: dict[str, Any]) -> None:
    public_keys = [PublicKey.from_hex(signer["key"]["pubkey"]) for signer in case["signers"]]
    session = musig.Session(
        public_keys,
        bytes.fromhex(case["agg_nonce"]),
        bytes.fromhex(case["msg"]),
        hex_or_none(case["tweak"]),
    )
    for signer in case["signers"]:
        secret_key = SecretKey(bytes.fromhex(signer["key"]["secret"]))
        secnonce = ffi.new("secp256k1_musig_secnonce *")
        # The library's form: a magic number, both scalars, the key as it holds it in memory.
        magic = bytes(ffi.buffer(_any_secnonce(secret_key)))[:4]
        tail = bytes(ffi.buffer(_any_secnonce(secret_key)))[68:]
        scalars = bytes.fromhex(signer["k1"]) + bytes.fromhex(signer["k2"])
        ffi.buffer(secnonce)[:] = magic + scalars + tail
        pubnonce = native.pubnonce_parse(bytes.fromhex(signer["pub_nonce"]))
        nonce = native.SecretNonce(secnonce, pubnonce, keys.parse(secret_key.public_key.data))
        assert session.sign(secret_key, musig.SecNonce(nonce)).hex() == signer["partial_sig"]


def _any_secnonce(secret_key: SecretKey) -> Any:
    return native.nonce_gen(secret_key.public_key.data)._secnonce


@pytest.mark.parametrize("case", cases("musig", kind="partial-verify"), ids=case_name)
def test_partial_signatures_are_told_apart(case: dict[str, Any]) -> None:
    session = musig.Session(
        [PublicKey.from_hex(key) for key in case["keys"]],
        bytes.fromhex(case["agg_nonce"]),
        bytes.fromhex(case["msg"]),
        hex_or_none(case["tweak"]),
    )
    for check in case["checks"]:
        valid = session.verify_partial(
            bytes.fromhex(check["partial_sig"]),
            bytes.fromhex(check["pub_nonce"]),
            PublicKey.from_hex(check["pubkey"]),
        )
        assert valid is check["valid"]


@pytest.mark.parametrize("case", cases("musig", kind="cosign-then-finish"), ids=case_name)
def test_user_finishes_what_the_server_cosigned(case: dict[str, Any]) -> None:
    user = PublicKey.from_hex(case["user"]["pubkey"])
    server = PublicKey.from_hex(case["server"]["pubkey"])
    user_nonce = bytes.fromhex(case["user_pub_nonce"])
    server_nonce = bytes.fromhex(case["server_pub_nonce"])
    msg = bytes.fromhex(case["msg"])
    agg_nonce = musig.aggregate_nonces([user_nonce, server_nonce])
    session = musig.Session([user, server], agg_nonce, msg, hex_or_none(case["tweak"]))
    partials = [bytes.fromhex(case["user_partial_sig"]), bytes.fromhex(case["server_partial_sig"])]
    assert session.verify_partial(partials[1], server_nonce, server)
    assert session.aggregate(partials).hex() == case["final_sig"]


@pytest.mark.parametrize("tweak", [None, bytes(31) + b"\x05"])
def test_three_fresh_signers_make_a_valid_signature(tweak: bytes | None) -> None:
    secret_keys = [SecretKey.generate() for _ in range(3)]
    public_keys = [key.public_key for key in secret_keys]
    msg = b"m" * 32
    nonces = [musig.generate_nonce(key, msg=msg, pubkeys=public_keys) for key in secret_keys]
    agg_nonce = musig.aggregate_nonces([public for _, public in nonces])
    session = musig.Session(public_keys, agg_nonce, msg, tweak)
    partials = [session.sign(key, sec_nonce) for key, (sec_nonce, _) in zip(secret_keys, nonces, strict=True)]
    assert verify_schnorr(session.output_x_only, msg, session.aggregate(partials))


def signed_session() -> tuple[musig.Session, SecretKey, musig.SecNonce]:
    key = SecretKey.generate()
    sec_nonce, pub_nonce = musig.generate_nonce(key)
    session = musig.Session([key.public_key], musig.aggregate_nonces([pub_nonce]), bytes(32))
    return session, key, sec_nonce


def test_secret_nonce_signs_once() -> None:
    session, key, sec_nonce = signed_session()
    session.sign(key, sec_nonce)
    with pytest.raises(ValueError, match="spent"):
        session.sign(key, sec_nonce)


def test_wiped_secret_nonce_does_not_sign() -> None:
    session, key, sec_nonce = signed_session()
    sec_nonce.wipe()
    with pytest.raises(ValueError, match="wiped"):
        session.sign(key, sec_nonce)


def test_secret_nonce_is_neither_copied_nor_pickled_nor_shown() -> None:
    _, _, sec_nonce = signed_session()
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            duplicate(sec_nonce)
    assert repr(sec_nonce) == "SecNonce(redacted)"


def test_malformed_partial_signature_is_not_valid() -> None:
    session, key, sec_nonce = signed_session()
    _, pub_nonce = musig.generate_nonce(key)
    assert not session.verify_partial(b"\xff" * 32, pub_nonce, key.public_key)
    assert not session.verify_partial(b"short", pub_nonce, key.public_key)
    sec_nonce.wipe()
