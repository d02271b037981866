"""What a text asks for: every format, every order, and what is wrong with each way to pay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.address import ArkAddress
from barkd_py.bitcoin.address import bech32_encode, to_5_bits
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import chain_text
from barkd_py.wallet.movements import PaymentMethod, PaymentMethodKind
from barkd_py.wallet.payments.options import (
    InvalidPaymentRequest,
    PaymentOption,
    PaymentRequest,
    parse_payment_request,
)
from barkd_py.wallet.payments.request import decode_lnurl
from tests.support.vectors import cases
from tests.wallet.lightning.payer import bolt11

STRANGER = SecretKey(b"\x09" * 32).public_key
SERVER = SecretKey(b"\x0a" * 32).public_key
ARK_CASE = next(case for case in cases("address", kind="valid") if case["testnet"])
ARK = str(
    ArkAddress.build(
        server_pubkey=SERVER,
        policy=ArkAddress.parse(ARK_CASE["address"]).policy,
        deliveries=ArkAddress.parse(ARK_CASE["address"]).deliveries,
        network=Network.REGTEST,
    )
)
INVOICE = bolt11(2_000, description="a coffee")
OFFER = next(case["offer"] for case in cases("bolt12", kind="offer") if case["name"] == "for testnet")
REGTEST = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
MAINNET = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
LNURL = bech32_encode("lnurl", to_5_bits(b"https://service.example/pay?id=1"), 1)


def parse(text: str, network: Network = Network.REGTEST, server_pubkey: PublicKey = SERVER) -> PaymentRequest:
    return parse_payment_request(text, network, server_pubkey)


def only(text: str, network: Network = Network.REGTEST) -> tuple[PaymentMethodKind, str, tuple[str, ...]]:
    (option,) = parse(text, network).options
    return option.method.kind, option.method.value, option.errors


def refusal(text: str) -> str:
    with pytest.raises(InvalidPaymentRequest) as raised:
        parse(text)
    return chain_text(raised.value)


def test_an_invoice_brings_its_amount_and_description() -> None:
    request = parse(INVOICE.text)
    assert (request.amount_sat, request.label, request.message) == (2_000, None, "a coffee")
    assert only(INVOICE.text) == (PaymentMethodKind.INVOICE, INVOICE.text, ())
    hashed = bolt11(2_000, description_hash=b"\x0c" * 32)
    assert parse(hashed.text).message == "0c" * 32
    assert parse(bolt11(amount_msat=1).text).amount_sat == 1


def test_an_offer_in_dollars_has_no_amount() -> None:
    """Upstream panics."""
    text = next(case["offer"] for case in cases("bolt12", kind="offer") if case["name"] == "with currency")
    request = parse(text, Network.MAINNET)
    assert request.amount_sat is None
    assert request.options[0].needs_amount
    assert request.message == Offer.parse(text).description


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("alice@example.com", PaymentMethodKind.LIGHTNING_ADDRESS, "alice@example.com"),
        ("Alice@Example.com", PaymentMethodKind.LIGHTNING_ADDRESS, "Alice@Example.com"),
        (LNURL, PaymentMethodKind.LNURL, LNURL.lower()),
        (LNURL.upper(), PaymentMethodKind.LNURL, LNURL.lower()),
        (ARK, PaymentMethodKind.ARK, ARK),
        (ARK.upper(), PaymentMethodKind.ARK, ARK),
        (REGTEST, PaymentMethodKind.BITCOIN, REGTEST),
        (f"lightning:{INVOICE.text}", PaymentMethodKind.INVOICE, INVOICE.text),
        (f"LIGHTNING:{INVOICE.text.upper()}", PaymentMethodKind.INVOICE, INVOICE.text),
        (f"lightning:{LNURL}", PaymentMethodKind.LNURL, LNURL.lower()),
        ("lightning:alice@example.com", PaymentMethodKind.LIGHTNING_ADDRESS, "alice@example.com"),
    ],
)
def test_every_format(text: str, kind: PaymentMethodKind, value: str) -> None:
    assert only(text) == (kind, value, ())


@pytest.mark.parametrize("text", ["", "00", "0014" + "ab" * 20, "AB" * 32])
def test_hex_is_a_script_that_is_not_paid(text: str) -> None:
    assert only(text) == (PaymentMethodKind.OUTPUT_SCRIPT, text.lower(), ("unsupported payment option",))


@pytest.mark.parametrize(
    "text", ["hello", "0", "abc", "0 0 ", f" {INVOICE.text}", f"lightning://{INVOICE.text}", "bitcoin:x", "@"]
)
def test_what_is_nothing(text: str) -> None:
    assert refusal(text) == "Invalid payment request: No valid payment option found"


@pytest.mark.parametrize("rest", ["", "hello", ARK, REGTEST, "00"])
def test_a_lightning_uri_is_for_lightning(rest: str) -> None:
    assert refusal(f"lightning:{rest}") == (
        "Invalid payment request: The lightning: URI does not contain a lightning payment destination"
    )


# --- LUD-17


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("lnurlp://service.example/pay?x=1", "https://service.example/pay?x=1"),
        ("LNURLP://Service.Example", "https://service.example/"),
        ("lnurlp://service.example:8443/a#b", "https://service.example:8443/a#b"),
        ("lnurlp://abc.onion/pay", "http://abc.onion/pay"),
        ("lnurlp://abc.onion.:81/pay", "http://abc.onion.:81/pay"),
    ],
)
def test_links_of_lnurl(text: str, url: str) -> None:
    kind, lnurl, errors = only(text)
    assert (kind, errors) == (PaymentMethodKind.LNURL, ())
    assert decode_lnurl(lnurl) == url


@pytest.mark.parametrize(
    "text",
    [
        "lnurlp://",
        "lnurlp:///pay",
        "lnurlp://\\pay",
        "lnurlp://user@service.example/",
        "lnurlp://user:word@service.example/",
        "lnurlp://service.example:port/",
        "lnurlp://[::1/",
        f"lnurlp://service.example/{'x' * 700}",
        "lnurlp://service.example/?tag=login&k1=00",
    ],
)
def test_links_that_are_none(text: str) -> None:
    assert refusal(text) == "Invalid payment request: No valid payment option found"


# --- what is wrong with a way to pay


@pytest.mark.parametrize(
    ("text", "network", "errors"),
    [
        (INVOICE.text, Network.MAINNET, ("network mismatch",)),
        (bolt11(network=Network.TESTNET).text, Network.SIGNET, ("network mismatch",)),
        (bolt11(network=Network.SIGNET).text, Network.MUTINYNET, ()),
        (OFFER, Network.REGTEST, ("network mismatch",)),
        (OFFER, Network.TESTNET, ()),
        (MAINNET, Network.REGTEST, ("network mismatch",)),
        ("2NBFNJTktNa7GZusGbDbGKRZTxdK9VVez3n", Network.SIGNET, ()),
        ("2NBFNJTktNa7GZusGbDbGKRZTxdK9VVez3n", Network.MAINNET, ("network mismatch",)),
    ],
)
def test_networks(text: str, network: Network, errors: tuple[str, ...]) -> None:
    assert only(text, network)[2] == errors


def test_addresses_of_another_server() -> None:
    (option,) = parse(ARK, server_pubkey=STRANGER).options
    assert option.errors == ("invalid ark address: Ark address is for different server",)


def test_the_default_is_the_best_way_that_works() -> None:
    text = f"bitcoin:?tb={REGTEST}&lightning={INVOICE.text}&ark={ARK}"
    request = parse(text)
    assert [option.method.kind for option in request.options] == [
        PaymentMethodKind.BITCOIN,
        PaymentMethodKind.INVOICE,
        PaymentMethodKind.ARK,
    ]
    assert request.default_option == request.options[2]
    foreign = parse(text, server_pubkey=STRANGER)
    assert foreign.default_option == foreign.options[1]
    other = parse_payment_request(f"bitcoin:?tb={REGTEST}", Network.REGTEST, SERVER)
    assert other.default_option == PaymentOption(PaymentMethod(PaymentMethodKind.BITCOIN, REGTEST))
    assert parse("00").default_option is None


# --- BIP-321


def test_a_uri_brings_all_of_it_in_order() -> None:
    request = parse(
        f" bitcoin:{MAINNET}?amount=0.00002&label=tea&message=now&ark={ARK}&lno={OFFER}"
        f"&lightning={INVOICE.text}&tb={REGTEST}&bc={MAINNET}&sp=sp1&pay=x "
    )
    assert (request.amount_sat, request.label, request.message) == (2_000, "tea", "now")
    assert [(option.method.value, option.errors) for option in request.options] == [
        (MAINNET, ("network mismatch",)),
        (REGTEST, ()),
        (INVOICE.text, ()),
        (OFFER, ("network mismatch",)),
        (ARK, ()),
        (MAINNET, ("network mismatch",)),
    ]


def test_amounts_that_differ_are_told() -> None:
    (option,) = parse(f"bitcoin:?amount=0.00001&lightning={INVOICE.text}").options
    assert option.errors == ("amount mismatch: expected 0.00002000 BTC, got 0.00001000 BTC",)
    (free,) = parse(f"bitcoin:?amount=0.00001&lightning={bolt11(None).text}").options
    assert free.errors == ()


def test_unknown_ways_may_be_dropped_until_none_is_left() -> None:
    assert parse("bitcoin:?sp=sp1").options == ()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sp", "Silent payment is required in URI but unsupported on Bark"),
        ("pay", "Private payment is required in URI but unsupported on Bark"),
    ],
)
def test_ways_that_must_be_understood(key: str, message: str) -> None:
    assert refusal(f"bitcoin:?req-{key}=x&ark={ARK}") == f"Invalid payment request: {message}"


def test_who_takes_amounts_and_comments() -> None:
    takes = {
        text: (parse(text).options[0].needs_amount, parse(text).options[0].takes_comment)
        for text in (INVOICE.text, bolt11(None).text, "a@b.c", LNURL, ARK, REGTEST)
    }
    assert list(takes.values()) == [
        (False, False),
        (True, False),
        (True, True),
        (True, True),
        (True, False),
        (True, False),
    ]


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        request = parse(text)
    except InvalidPaymentRequest:
        return
    assert isinstance(request, PaymentRequest)
