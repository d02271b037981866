"""The keys of an Ark wallet against upstream's derivation."""

import pytest

from barkd_py.ark.mailbox import XpubRecoveryAuthorization
from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import Seed, parse_mnemonic
from barkd_py.bitcoin.keys import PublicKey, verify_schnorr
from tests.support.vectors import Case, params

ABANDON = "abandon " * 11 + "about"


@pytest.mark.parametrize("case", params("keys", kind="wallet"))
def test_wallet_keys_match_upstream(case: Case) -> None:
    keys = WalletKeys(parse_mnemonic(case["mnemonic"]))
    assert keys.fingerprint == case["wallet_fingerprint"]
    for expected in case["vtxo_keys"]:
        assert keys.vtxo_key(expected["index"]).secret_bytes.hex() == expected["secret"]
        assert keys.vtxo_pubkey(expected["index"]).hex() == expected["pubkey"]
    assert keys.mailbox_key.secret_bytes.hex() == case["mailbox_key"]["secret"]
    assert keys.mailbox_key.public_key.hex() == case["mailbox_key"]["pubkey"]
    assert keys.recovery_mailbox_key.secret_bytes.hex() == case["recovery_mailbox_key"]["secret"]
    mainnet = case["network"] == "mainnet"
    assert keys.account_xpub(mainnet=mainnet).hex() == case["vtxo_xpub_bytes"]
    assert keys.account.xpub(mainnet=mainnet) == case["vtxo_xpub"]


def test_the_fingerprint_is_not_that_of_the_master_key() -> None:
    seed = Seed(ABANDON)
    assert WalletKeys(seed).fingerprint == "53bdf6b1"
    assert seed.master_key().fingerprint.hex() == "73c5da0a"


@pytest.mark.parametrize("index", [-1, 2**31, 2**32])
def test_an_index_that_would_be_hardened_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        WalletKeys(Seed(ABANDON)).vtxo_key(index)


def test_the_account_key_signs_for_its_xpub() -> None:
    keys = WalletKeys(Seed(ABANDON))
    server = PublicKey.from_hex("02037188bdd7579a0cd0b22a51110986df1ea08e30192658fe0e219590e4a723d3")
    xpub = keys.account_xpub(mainnet=False)
    # sheet 02 §6.4
    digest = bytes.fromhex("2f64e0d97827486cf2961553a26a08d2fb4d4b4b206823fc0119de9a8aa19fda")
    signature = bytes.fromhex(
        "61bed2307ad63c5d1aeb28fee8a3909e573dcae5cb1f7cbf8b7b7a9456fd8774"
        "7e28846eb237338c013b41e2d13a28f5aa54bb31f42a86238c6b402c137b6de3"
    )
    assert verify_schnorr(keys.account.public_key.x_only, digest, signature)
    authorization = XpubRecoveryAuthorization(1761818819, signature)
    assert authorization.is_valid_signature(server_pubkey=server, xpub=xpub)


def test_no_secret_shows_in_the_representation() -> None:
    keys = WalletKeys(Seed(ABANDON))
    assert repr(keys) == "WalletKeys(fingerprint=53bdf6b1, redacted)"
