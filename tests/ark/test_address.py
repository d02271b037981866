"""Ark addresses: upstream's strings, our own, and whom we can pay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.address import (
    MAX_ADDRESS_CHARACTERS,
    AddressBuildError,
    AddressDefect,
    AddressNotPayable,
    ArkAddress,
    Delivery,
    InvalidArkAddress,
    MailboxDelivery,
    UnknownDelivery,
    ark_id,
    mailbox_delivery,
)
from barkd_py.ark.clause import HashLock
from barkd_py.ark.policy import (
    Policy,
    PubkeyPolicy,
    ServerHtlcReceivePolicy,
    ServerHtlcSendPolicy,
    encode_policy,
)
from barkd_py.bitcoin.address import BECH32M_CONST, bech32_encode, bech32_split
from barkd_py.bitcoin.keys import PublicKey, SecretKey, shared_point
from barkd_py.bitcoin.units import Network
from barkd_py.errors import chain_text
from tests.support.vectors import Case, cases, params

DEFECTS = {
    "Bech32": AddressDefect.BECH32,
    "Hrp": AddressDefect.HRP,
    "Arkade": AddressDefect.ARKADE,
    "UnknownVersion": AddressDefect.UNKNOWN_VERSION,
    "Eof": AddressDefect.TOO_SHORT,
    "VtxoPolicy": AddressDefect.POLICY,
    "Invalid": AddressDefect.INVALID,
}

SERVER = SecretKey(bytes([1] * 32)).public_key
SERVER_MAILBOX = SecretKey(bytes([2] * 32))
VTXO = SecretKey(bytes([3] * 32))
MAILBOX = SecretKey(bytes([4] * 32)).public_key
OURS = ArkAddress.for_vtxo_key(
    VTXO,
    server_pubkey=SERVER,
    server_mailbox_pubkey=SERVER_MAILBOX.public_key,
    mailbox_id=MAILBOX,
    network=Network.REGTEST,
)


@pytest.mark.parametrize("case", params("address", kind="valid"))
def test_valid_addresses_match_upstream(case: Case) -> None:
    address = ArkAddress.parse(case["address"])
    assert address.is_testnet is case["testnet"]
    assert address.ark_id.hex() == case["ark_id"]
    assert encode_policy(address.policy).hex() == case["policy_hex"]
    assert address.policy.kind == case["policy_type"]
    assert address.user_pubkey.hex() == case["user_pubkey"]
    assert address.payload().hex() == case["payload"]
    for delivery, expected in zip(address.deliveries, case["delivery"], strict=True):
        match delivery:
            case MailboxDelivery(blinded_id):
                assert (1, blinded_id.hex()) == (expected["type"], expected["blinded_id"])
            case UnknownDelivery(kind, data):
                assert (kind, data.hex()) == (expected["type"], expected["data"])
    assert address.encode() == case["address"]
    assert ArkAddress.parse(case["address"].upper()) == address


@pytest.mark.parametrize("case", params("address", kind="parse"))
def test_texts_are_parsed_or_refused_like_upstream(case: Case) -> None:
    result = case["result"]
    if "valid_as" in result:
        assert ArkAddress.parse(case["input"]).encode() == result["valid_as"]
    else:
        with pytest.raises(InvalidArkAddress) as refused:
            ArkAddress.parse(case["input"])
        assert str(refused.value) == result["error"]
        assert refused.value.defect is DEFECTS[result["variant"]]


@pytest.mark.parametrize("case", params("keys", kind="wallet"))
def test_addresses_of_a_wallet_match_upstream(case: Case) -> None:
    server = next(c for c in cases("address", kind="valid") if c["name"].startswith("alice"))
    mailbox_vector = cases("mailbox", kind="blinding")[0]
    for expected in case["ark_addresses"]:
        address = ArkAddress.for_vtxo_key(
            SecretKey(bytes.fromhex(case["vtxo_keys"][expected["index"]]["secret"])),
            server_pubkey=PublicKey.from_hex(
                "023af446a4bf68093721b83b79b6a2055a6603d2f83b554ab2dfa759b09abcbf55"
            ),
            server_mailbox_pubkey=PublicKey.from_hex(mailbox_vector["server_mailbox_key"]["pubkey"]),
            mailbox_id=PublicKey.from_hex(case["mailbox_key"]["pubkey"]),
            network=Network(case["network"]),
        )
        assert address.ark_id.hex() == server["ark_id"]
        assert address.encode() == expected["address"]
        assert [blinded.hex() for blinded in address.mailbox_ids()] == [expected["blinded_id"]]


# --- building


def build_error(name: str) -> str:
    return str(next(case["error"] for case in cases("address", kind="builder-error") if case["name"] == name))


def test_an_address_of_ours_needs_a_delivery() -> None:
    with pytest.raises(AddressBuildError) as refused:
        ArkAddress.build(
            server_pubkey=SERVER, policy=PubkeyPolicy(MAILBOX), deliveries=(), network=Network.REGTEST
        )
    assert str(refused.value) == build_error("missing-delivery")


def test_the_mailbox_is_blinded_with_the_policys_own_key() -> None:
    with pytest.raises(AddressBuildError) as refused:
        mailbox_delivery(
            PubkeyPolicy(MAILBOX), VTXO, server_mailbox_pubkey=SERVER_MAILBOX.public_key, mailbox_id=MAILBOX
        )
    assert str(refused.value) == build_error("mailbox-wrong-key")


def test_an_address_whose_blinding_fails_is_not_built() -> None:
    point = shared_point(VTXO, SERVER_MAILBOX.public_key)
    opposite = PublicKey(bytes((5 - point.data[0],)) + point.x_only)
    with pytest.raises(AddressBuildError) as refused:
        mailbox_delivery(
            PubkeyPolicy(VTXO.public_key),
            VTXO,
            server_mailbox_pubkey=SERVER_MAILBOX.public_key,
            mailbox_id=opposite,
        )
    assert "mailbox blinding failed: point at infinity" in chain_text(refused.value)


def test_swapping_the_servers_two_keys_changes_both_parts() -> None:
    swapped = ArkAddress.for_vtxo_key(
        VTXO,
        server_pubkey=SERVER_MAILBOX.public_key,
        server_mailbox_pubkey=SERVER,
        mailbox_id=MAILBOX,
        network=Network.REGTEST,
    )
    assert swapped.ark_id != OURS.ark_id
    assert swapped.mailbox_ids() != OURS.mailbox_ids()


# --- can we pay it?


def test_our_own_address_can_be_paid() -> None:
    OURS.validate_for(SERVER, Network.REGTEST)
    OURS.validate_for(SERVER, Network.SIGNET)  # test networks cannot be told apart


def payable(
    *,
    policy: Policy | None = None,
    deliveries: tuple[MailboxDelivery | UnknownDelivery, ...] = OURS.deliveries,
) -> ArkAddress:
    return ArkAddress(True, ark_id(SERVER), policy or OURS.policy, deliveries)


def refusal(address: ArkAddress, network: Network = Network.REGTEST, server: PublicKey = SERVER) -> str:
    with pytest.raises(AddressNotPayable) as refused:
        address.validate_for(server, network)
    return str(refused.value)


def test_the_network_is_checked_before_the_server() -> None:
    assert refusal(OURS, Network.MAINNET, MAILBOX) == "Ark address is for different network"
    assert refusal(OURS, Network.REGTEST, MAILBOX) == "Ark address is for different server"


@pytest.mark.parametrize(
    "policy",
    [
        ServerHtlcSendPolicy(MAILBOX, bytes(32), 100, HashLock.V1),
        ServerHtlcReceivePolicy(MAILBOX, bytes(32), 100, 12, HashLock.V0),
    ],
)
def test_only_pubkey_policies_are_paid(policy: Policy) -> None:
    text = refusal(payable(policy=policy))
    assert text.startswith("VTXO policy in address cannot be used for arkoor payment: ")


def test_an_address_without_delivery_is_payable() -> None:
    payable(deliveries=()).validate_for(SERVER, Network.REGTEST)


def test_an_address_with_only_unknown_deliveries_is_not() -> None:
    address = payable(deliveries=(UnknownDelivery(0xFF, b"\x01\x02"), UnknownDelivery(0, b"")))
    assert refusal(address) == "Unknown delivery mechanism: type=0xff, data=0102; type=0x0, data="


def test_one_known_delivery_is_enough() -> None:
    address = payable(deliveries=(UnknownDelivery(0xFF, b"\x01"), *OURS.deliveries))
    address.validate_for(SERVER, Network.REGTEST)
    assert len(address.mailbox_ids()) == 1


# --- the text


def test_every_changed_character_is_noticed() -> None:
    text = OURS.encode()
    for position in range(len(text)):
        changed = text[:position] + ("q" if text[position] != "q" else "p") + text[position + 1 :]
        with pytest.raises(InvalidArkAddress):
            ArkAddress.parse(changed)


def test_padding_bits_do_not_make_another_address() -> None:
    split = bech32_split(OURS.encode())
    assert split is not None
    hrp, symbols = split[0], split[1][:-6]
    padded = bech32_encode(hrp, [*symbols[:-1], symbols[-1] | 1], BECH32M_CONST)
    assert padded != OURS.encode()
    assert ArkAddress.parse(padded) == OURS


def test_the_longest_address_is_accepted_and_the_next_refused() -> None:
    # 1023 characters hold 5 + 1011 symbols + 6 of checksum; the payload then has 631 bytes.
    fixed = len(payable(deliveries=()).payload())
    fits = payable(deliveries=(UnknownDelivery(0xFF, bytes(631 - fixed - 4)),))
    assert len(fits.encode()) <= MAX_ADDRESS_CHARACTERS
    assert ArkAddress.parse(fits.encode()) == fits
    with pytest.raises(InvalidArkAddress, match="checksum"):
        ArkAddress.parse(payable(deliveries=(UnknownDelivery(0xFF, bytes(640 - fixed - 4)),)).encode())


points = st.integers(1, 2**250).map(lambda number: SecretKey(number.to_bytes(32, "big")).public_key)
hashes = st.binary(min_size=32, max_size=32)
heights = st.integers(0, 499_934_467)
policies = st.one_of(
    st.builds(PubkeyPolicy, points),
    st.builds(ServerHtlcSendPolicy, points, hashes, heights, st.sampled_from(HashLock)),
    st.builds(
        ServerHtlcReceivePolicy, points, hashes, heights, st.integers(0, 16_383), st.sampled_from(HashLock)
    ),
)
deliveries = st.one_of(
    st.builds(MailboxDelivery, st.binary(min_size=33, max_size=33)),
    st.builds(UnknownDelivery, st.integers(0, 255).filter(lambda kind: kind != 1), st.binary(max_size=60)),
)


@given(st.booleans(), st.binary(min_size=4, max_size=4), policies, st.lists(deliveries, max_size=4))
def test_addresses_round_trip(is_testnet: bool, hint: bytes, policy: Policy, ways: list[Delivery]) -> None:
    address = ArkAddress(is_testnet, hint, policy, tuple(ways))
    assert ArkAddress.parse(address.encode()) == address


@given(st.text(max_size=200))
def test_nonsense_is_refused_in_one_way(text: str) -> None:
    with pytest.raises(InvalidArkAddress):
        ArkAddress.parse(text)


@given(st.lists(st.integers(0, 31), max_size=200))
def test_any_payload_decodes_or_is_refused(symbols: list[int]) -> None:
    text = bech32_encode("tark", [1, *symbols], BECH32M_CONST)
    try:
        address = ArkAddress.parse(text)
    except InvalidArkAddress:
        return
    assert ArkAddress.parse(address.encode()) == address
