"""Keys, BIP-340 signatures, point arithmetic; mnemonics and derivation against vectors."""

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.bip32 import ExtendedKey, InvalidMnemonic, Seed, generate_mnemonic, parse_mnemonic
from barkd_py.bitcoin.keys import (
    SECP256K1_ORDER,
    InfinityPoint,
    PublicKey,
    SecretKey,
    shared_point,
    verify_schnorr,
)
from tests.support.vectors import case_name, cases

# Source: BIP-340, test-vectors.csv, indices 0 and 1: secret, public, aux, message, signature.
BIP340 = [
    (
        "0000000000000000000000000000000000000000000000000000000000000003",
        "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
        "00" * 32,
        "00" * 32,
        "e907831f80848d1069a5371b402410364bdf1c5f8307b0084c55f1ce2dca8215"
        "25f66a4a85ea8b71e482a74f382d2ce5ebeee8fdb2172f477df4900d310536c0",
    ),
    (
        "b7e151628aed2a6abf7158809cf4f3c762e7160f38b4da56a784d9045190cfef",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "00" * 31 + "01",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "6896bd60eeae296db48a229ff71dfe071bde413e6d43f917dc8dcf8c78de3341"
        "8906d11ac976abccb20b091292bff4ea897efcb639ea871cfa95f6de339e4b0a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "aux", "message", "signature"), BIP340)
def test_signatures_are_those_of_bip340(
    secret: str, public: str, aux: str, message: str, signature: str
) -> None:
    key = SecretKey(bytes.fromhex(secret))
    msg, expected = bytes.fromhex(message), bytes.fromhex(signature)
    assert key.public_key.x_only.hex() == public
    assert key.sign_schnorr(msg, bytes.fromhex(aux)) == expected
    assert verify_schnorr(key.public_key.x_only, msg, expected)
    assert not verify_schnorr(key.public_key.x_only, msg, expected[:-1] + bytes((expected[-1] ^ 1,)))


def test_signatures_use_fresh_randomness() -> None:
    key = SecretKey.generate()
    first, second = key.sign_schnorr(bytes(32)), key.sign_schnorr(bytes(32))
    assert first != second
    assert verify_schnorr(key.public_key.x_only, bytes(32), first)
    assert verify_schnorr(key.public_key.x_only, bytes(32), second)


@pytest.mark.parametrize(
    ("x_only", "signature"), [(bytes(32), bytes(64)), (bytes(31), bytes(64)), (b"\xff" * 32, bytes(64))]
)
def test_malformed_keys_verify_nothing(x_only: bytes, signature: bytes) -> None:
    assert not verify_schnorr(x_only, bytes(32), signature)


def test_signature_of_a_wrong_length_is_not_valid() -> None:
    key = SecretKey.generate()
    assert not verify_schnorr(key.public_key.x_only, bytes(32), key.sign_schnorr(bytes(32)) + b"\x00")


@pytest.mark.parametrize("data", [b"", bytes(33), b"\x02" + b"\xff" * 32, b"\x04" + bytes(31) + b"\x01"])
def test_points_off_the_curve_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed public key"):
        PublicKey(data)


@pytest.mark.parametrize("number", [0, SECP256K1_ORDER, SECP256K1_ORDER + 1, 2**256 - 1])
def test_scalars_out_of_range_are_no_secret_keys(number: int) -> None:
    with pytest.raises(ValueError, match="malformed secret key"):
        SecretKey(number.to_bytes(32, "big"))


def test_secret_key_is_never_shown() -> None:
    key = SecretKey.generate()
    assert key.secret_bytes.hex() not in f"{key!r} {key}"
    with pytest.raises(TypeError):
        pickle.dumps(key)


@given(st.integers(1, SECP256K1_ORDER - 1), st.integers(1, SECP256K1_ORDER - 1))
def test_shared_point_is_the_same_from_both_sides(a: int, b: int) -> None:
    alice, bob = SecretKey(a.to_bytes(32, "big")), SecretKey(b.to_bytes(32, "big"))
    assert shared_point(alice, bob.public_key) == shared_point(bob, alice.public_key)


def test_point_sums_can_be_undone_and_infinity_is_refused() -> None:
    a, b = SecretKey.generate().public_key, SecretKey.generate().public_key
    assert a.add(b).subtract(b) == a
    with pytest.raises(InfinityPoint):
        a.subtract(a)


@pytest.mark.parametrize("case", cases("keys", kind="wallet"), ids=case_name)
def test_wallet_keys_derive_as_upstreams(case: dict[str, Any]) -> None:
    seed = parse_mnemonic(case["mnemonic"])
    mainnet = case["network"] == "mainnet"
    master = seed.master_key()
    account = master.derive("m/350'/0'")
    assert seed.seed_bytes.hex() == case["seed"]
    assert master.fingerprint.hex() == case["root_fingerprint"]
    assert master.xprv(mainnet=mainnet) == case["root_xprv"]
    assert master.derive("m/350'").fingerprint.hex() == case["wallet_fingerprint"]
    assert master.derive("m/350'").xprv(mainnet=mainnet) == case["purpose_xprv"]
    assert account.xprv(mainnet=mainnet) == case["vtxo_xprv"]
    assert account.xpub(mainnet=mainnet) == case["vtxo_xpub"]
    assert account.xpub_bytes(mainnet=mainnet).hex() == case["vtxo_xpub_bytes"]
    for expected in case["vtxo_keys"]:
        key = account.child(expected["index"])
        assert key.secret_key.secret_bytes.hex() == expected["secret"]
        assert key.public_key.hex() == expected["pubkey"]
    assert master.derive("m/350'/1'").public_key.hex() == case["mailbox_key"]["pubkey"]
    assert master.derive("m/350'/2'").public_key.hex() == case["recovery_mailbox_key"]["pubkey"]


@pytest.mark.parametrize("case", cases("keys", kind="parse"), ids=lambda case: repr(case["input"])[:60])
def test_mnemonics_are_read_as_upstream_reads_them(case: dict[str, Any]) -> None:
    expected = case["result"]
    if "error" in expected:
        with pytest.raises(InvalidMnemonic) as caught:
            parse_mnemonic(case["input"])
        assert str(caught.value) == expected["error"]
    else:
        seed = parse_mnemonic(case["input"])
        assert (seed.words, seed.seed_bytes.hex()) == (expected["mnemonic"], expected["seed"])


def test_generated_mnemonics_are_valid_and_differ() -> None:
    first, second = generate_mnemonic(), generate_mnemonic()
    assert parse_mnemonic(first.words).seed_bytes == first.seed_bytes
    assert len(first.words.split(" ")) == 12
    assert first.words != second.words


def test_seed_is_never_shown() -> None:
    seed = Seed("abandon " * 11 + "about")
    assert "abandon" not in repr(seed)
    with pytest.raises(TypeError):
        pickle.dumps(seed)


def test_derivation_is_that_of_bip32() -> None:
    """Source: BIP-32, test vector 1."""
    master = ExtendedKey.from_seed(bytes(range(16)))
    assert master.xprv(mainnet=True) == (
        "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33"
        "yuGBxrMPHi"
    )
    assert master.derive("m/0'").xpub(mainnet=True) == (
        "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL"
        "2dZXvgGDnw"
    )


@pytest.mark.parametrize("path", ["", "350'", "m/x", "m/-1", "m/2147483648", "m//1"])
def test_bad_derivation_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="derivation"):
        ExtendedKey.from_seed(bytes(16)).derive(path)
