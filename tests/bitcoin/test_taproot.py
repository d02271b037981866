"""Taproot outputs, sighashes and addresses against the BIPs and upstream; signed messages."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.address import (
    InvalidAddress,
    WrongNetworkAddress,
    address_from_script,
    canonical_address,
    parse_address,
)
from barkd_py.bitcoin.keys import PublicKey, SecretKey, x_only_tweak_add
from barkd_py.bitcoin.message import message_digest, sign_message, verify_message
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash, taproot_script_spend_sighash
from barkd_py.bitcoin.taproot import TaprootOutput, leaf_hash
from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.errors import chain_text
from tests.support.vectors import case_name, cases, load


def test_key_only_output_is_that_of_bip341() -> None:
    """Source: BIP-341, wallet-test-vectors.json, scriptPubKey[0]."""
    output = TaprootOutput(bytes.fromhex("d6889cb081036e0faefa3a35157ad71086b123b2b144b649798b494c300a961d"))
    assert output.merkle_root is None
    assert output.tweak.hex() == "b86e7be8f39bab32a6f2c0443abbc210f0edac0e2c53d501b36b64437d9c6c70"
    assert output.output_key.hex() == "53a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343"
    address = "bc1p2wsldez5mud2yam29q22wgfh9439spgduvct83k3pm50fcxa5dps59h4z5"
    assert address_from_script(output.script_pubkey, Network.MAINNET) == address


def test_output_with_one_leaf_is_that_of_bip341() -> None:
    """Source: BIP-341, wallet-test-vectors.json, scriptPubKey[1]."""
    internal = "187791b6f712a8ea41c8ecdd0ee77fab3e85263b37e1ec18a3651926b3a6cf27"
    leaf = bytes.fromhex("20d85a959b0290bf19bb89ed43c916be835475d013da4b362117393e25a48229b8ac")
    output = TaprootOutput(bytes.fromhex(internal), (leaf,))
    assert leaf_hash(leaf).hex() == "5b75adecf53548f3ec6ad7d78383bf84cc57b55a3127c72b9a2481752dd88b21"
    assert output.tweak.hex() == "cbd8679ba636c1110ea247542cfbd964131a6be84f873f7f3b62a777528ed001"
    assert output.output_key.hex() == "147c9c57132f6e7ecddba9800bb0c4449251c92a1e60371ee77557b6620f3ea3"
    assert output.control_block(0).hex() == "c1" + internal


@pytest.mark.parametrize(
    "case", load("policies"), ids=lambda case: str(case.get("name", case.get("policy_type")))
)
def test_policy_outputs_are_upstreams(case: dict[str, Any]) -> None:
    taproot = case["taproot"]
    leaves = tuple(bytes.fromhex(clause["script"]) for clause in case["clauses"])
    output = TaprootOutput(bytes.fromhex(taproot["internal_key"]), leaves)
    root = output.merkle_root
    assert (None if root is None else root.hex()) == taproot["merkle_root"]
    assert output.tweak.hex() == taproot["tap_tweak"]
    assert output.output_key.hex() == taproot["output_key"]
    for index, clause in enumerate(case["clauses"]):
        assert leaf_hash(leaves[index]).hex() == clause["leaf_hash"]
        assert output.control_block(index).hex() == clause["control_block"]


def test_third_leaf_is_refused() -> None:
    with pytest.raises(ValueError, match="two leaves"):
        TaprootOutput(SecretKey.generate().public_key.x_only, (b"\x51", b"\x52", b"\x53"))


def test_control_block_of_a_missing_leaf_is_refused() -> None:
    with pytest.raises(IndexError):
        TaprootOutput(SecretKey.generate().public_key.x_only, (b"\x51",)).control_block(1)


def test_tweak_of_the_group_order_is_refused() -> None:
    order = bytes.fromhex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
    with pytest.raises(ValueError, match="tweak"):
        x_only_tweak_add(SecretKey.generate().public_key.x_only, order)


# Source: BIP-341, wallet-test-vectors.json, keyPathSpending: the transaction and what it spends.
BIP341_TX = (
    "02000000097de20cbff686da83a54981d2b9bab3586f4ca7e48f57f5b55963115f3b334e9c010000000000000000d7b7cab57b1393ac"
    "e2d064f4d4a2cb8af6def61273e127517d44759b6dafdd990000000000fffffffff8e1f583384333689228c5d28eac13366be082dc57"
    "441760d957275419a418420000000000fffffffff0689180aa63b30cb162a73c6d2a38b7eeda2a83ece74310fda0843ad604853b0100"
    "000000feffffffaa5202bdf6d8ccd2ee0f0202afbbb7461d9264a25e5bfd3c5a52ee1239e0ba6c0000000000feffffff956149bdc66f"
    "aa968eb2be2d2faa29718acbfe3941215893a2a3446d32acd050000000000000000000e664b9773b88c09c32cb70a2a3e4da0ced63b7"
    "ba3b22f848531bbb1d5d5f4c94010000000000000000e9aa6b8e6c9de67619e6a3924ae25696bb7b694bb677a632a74ef7eadfd4eabf"
    "0000000000ffffffffa778eb6a263dc090464cd125c466b5a99667720b1c110468831d058aa1b82af10100000000ffffffff0200ca9a"
    "3b000000001976a91406afd46bcdfd22ef94ac122aa11f241244a37ecc88ac807840cb0000000020ac9a87f5594be208f8532db38cff"
    "670c450ed2fea8fcdefcc9a663f78bab962b0065cd1d"
)
BIP341_SPENT = [
    (420_000_000, "512053a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343"),
    (462_000_000, "5120147c9c57132f6e7ecddba9800bb0c4449251c92a1e60371ee77557b6620f3ea3"),
    (294_000_000, "76a914751e76e8199196d454941c45d1b3a323f1433bd688ac"),
    (504_000_000, "5120e4d810fd50586274face62b8a807eb9719cef49c04177cc6b76a9a4251d5450e"),
    (630_000_000, "512091b64d5324723a985170e4dc5a0f84c041804f2cd12660fa5dec09fc21783605"),
    (378_000_000, "00147dd65592d0ab2fe0d0257d571abf032cd9db93dc"),
    (672_000_000, "512075169f4001aa68f15bbed28b218df1d0a62cbbcf1188c6665110c293c907b831"),
    (546_000_000, "5120712447206d7a5238acc7ff53fbe94a3b64539ad291c7cdbc490b7577e4b17df5"),
    (588_000_000, "512077e30a5522dd9f894c3f8b8bd4c4b2cf82ca7da8a3ea6a239655c39c050ab220"),
]


def test_key_spend_sighash_is_that_of_bip341() -> None:
    """Source: BIP-341, wallet-test-vectors.json, the input with the default sighash type."""
    prevouts = [TxOut(value_sat, bytes.fromhex(script)) for value_sat, script in BIP341_SPENT]
    digest = taproot_key_spend_sighash(Tx.from_hex(BIP341_TX), 4, prevouts)
    assert digest.hex() == "4f900a0bae3f1446fd48490c2958b5a023228f01661cda3496a11da502a7f7ef"


def test_sighash_needs_every_spent_output() -> None:
    tx = Tx.from_hex(BIP341_TX)
    with pytest.raises(ValueError, match="per input"):
        taproot_key_spend_sighash(tx, 0, [TxOut(0, b"")])
    with pytest.raises(ValueError, match="no such input"):
        taproot_script_spend_sighash(tx, 9, [TxOut(0, b"")] * 9, bytes(32))


ADDRESSES = [
    ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "mainnet", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "mainnet", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "signet",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "mainnet",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    ),
    ("BC1SW50QGDZ25J", "mainnet", "6002751e"),
    ("1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH", "mainnet", "76a914751e76e8199196d454941c45d1b3a323f1433bd688ac"),
    ("mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r", "regtest", "76a914751e76e8199196d454941c45d1b3a323f1433bd688ac"),
    ("3JvL6Ymt8MVWiCNHC7oWU6nLeHNJKLZGLN", "mainnet", "a914bcfeb728b584253d5f3f70bcb780e9ef218a68f487"),
]


@pytest.mark.parametrize(("address", "network", "script"), ADDRESSES)
def test_addresses_have_their_scripts(address: str, network: str, script: str) -> None:
    """Source: BIP-173 and BIP-350, valid addresses; the base58 ones are of the same key or well known."""
    assert parse_address(address, Network(network)).hex() == script
    rendered = address_from_script(bytes.fromhex(script), Network(network))
    assert rendered in (address, address.lower())


@pytest.mark.parametrize(
    "address",
    [
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",  # bech32 checksum on version 1
        "BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL",  # the same on version 16
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh",  # bech32m checksum on version 0
        "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",  # invalid character
        "BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R",  # version 17
        "bc1pw5dgrnzv",  # one byte of program
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",  # 41 bytes
        "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",  # program length of version 0
        "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq",  # mixed case
        "bc1gmk9yu",  # empty
        "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMh",
        "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SA0H",
        "",
        "nonsense",
    ],
)
def test_malformed_addresses_are_refused(address: str) -> None:
    """Source: BIP-350, invalid addresses; then base58 ones."""
    with pytest.raises(InvalidAddress):
        parse_address(address, Network.MAINNET)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("z", "base58 error: too short: base58 decoded data was not long enough, must be at least 4 byte: 1"),
        ("é", "base58 error: decode: invalid base58 character 0xc3"),
        # What is no segwit address is read as an old one.
        (
            "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt08q",
            "base58 error: decode: invalid base58 character 0x30",
        ),
        (
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
            "base58 error: incorrect checksum: base58 checksum 0x6c7615f4 does not match expected 0x6b7615f4",
        ),
        (
            "bcrt1",
            "base58 error: incorrect checksum: base58 checksum 0xabf5917 does not match expected 0xe2e0f65d",
        ),
        ("1" * 51, "legacy address base58 string: legacy address is too long: 51 (max 50 characters)"),
        (
            "B7wD3ifuXr1KPZeWtUD84goxhi8Jvb3mZ",
            "legacy address base58 data: decoded base58 data was an invalid length: 33 (expected 21)",
        ),
        (
            "F5vRLkGpuS5p1eW14HnHKk2V2LwJJ5qbLH",
            "legacy address base58 prefix: invalid legacy address prefix in decoded base58 data 35",
        ),
        (
            "XX1QQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPGAHTYU",
            "tried to parse an unknown hrp: unknown hrp: xx",
        ),
    ],
)
def test_what_barkd_says_to_malformed_addresses(address: str, text: str) -> None:
    """Source: answers of barkd 0.8.0, which the side-by-side comparison asks for."""
    with pytest.raises(InvalidAddress) as caught:
        parse_address(address, Network.REGTEST)
    assert chain_text(caught.value) == text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("BCRT1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KYGT080", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"),
        ("mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r", "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r"),
        ("Nonsense", "Nonsense"),
    ],
)
def test_addresses_are_shown_in_one_way(given: str, shown: str) -> None:
    assert canonical_address(given) == shown


def test_capitals_of_other_alphabets_are_no_letters_of_an_address() -> None:
    """U+212A becomes a `k` in lower case, and stays what it is in upper case."""
    good = "BCRT1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KYGT080"
    assert parse_address(good, Network.REGTEST)
    with pytest.raises(InvalidAddress):
        parse_address(good.replace("K", "\u212a"), Network.REGTEST)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", Network.REGTEST),
        ("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", Network.REGTEST),
        ("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", Network.MAINNET),
        ("mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r", Network.MAINNET),
    ],
)
def test_addresses_of_other_networks_are_refused(address: str, network: Network) -> None:
    with pytest.raises(WrongNetworkAddress) as caught:
        parse_address(address, network)
    assert f"address {address} is not valid on {network.bitcoin_name}" in str(caught.value)


@pytest.mark.parametrize("case", cases("keys", kind="wallet"), ids=case_name)
def test_wallet_addresses_are_upstreams(case: dict[str, Any]) -> None:
    network = Network(case["network"])
    for expected in case["onchain"]["addresses"]:
        assert parse_address(expected["address"], network).hex() == expected["script_pubkey"]
        assert address_from_script(bytes.fromhex(expected["script_pubkey"]), network) == expected["address"]


@given(st.binary(min_size=32, max_size=32), st.sampled_from(Network))
def test_taproot_addresses_round_trip(program: bytes, network: Network) -> None:
    script = b"\x51\x20" + program
    address = address_from_script(script, network)
    assert address is not None
    assert parse_address(address, network) == script


def test_scripts_without_address_have_none() -> None:
    assert address_from_script(bytes.fromhex("6a0101"), Network.REGTEST) is None
    assert address_from_script(b"", Network.REGTEST) is None


@pytest.mark.parametrize("case", load("messages"), ids=case_name)
def test_signed_messages_are_upstreams(case: dict[str, Any]) -> None:
    key = SecretKey(bytes.fromhex(case["signer"]["secret"]))
    message = bytes.fromhex(case["message_hex"]).decode()
    assert message_digest(message).hex() == case["digest"]
    checked = 0
    for check in case["checks"]:
        if "pubkey" in check:
            public_key = PublicKey.from_hex(check["pubkey"])
            assert verify_message(public_key, message, bytes.fromhex(check["signature"])) is check["valid"]
            checked += 1
    assert checked
    assert verify_message(key.public_key, message, sign_message(key, message))
    assert not verify_message(key.public_key, message + "!", sign_message(key, message))


def test_message_signature_without_randomness_is_upstreams() -> None:
    """Source: sheet 02 §4."""
    secret = "6b0f024af54172a9aed9a0f044689175787676c469ff2aa75024cae5445c7a02"
    signature = sign_message(SecretKey(bytes.fromhex(secret)), "ark signmessage test vector", bytes(32))
    assert signature.hex() == (
        "84e04017d4afeb4e945a2f69d2d969edfc5c15a0ced4397ea9dcc07a34bffb15"
        "f5ae22424126adc2bc23183b6949f0ec5113e5c99081ffde241c653772e9c64f"
    )
