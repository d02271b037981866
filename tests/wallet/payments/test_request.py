"""What a destination is taken for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.address import BECH32M_CONST, bech32_encode, to_5_bits
from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.wallet.payments.request import (
    ArkadeDestination,
    ArkDestination,
    BitcoinDestination,
    InvoiceDestination,
    LightningAddressDestination,
    LnurlDestination,
    OfferDestination,
    decode_lnurl,
    is_invoice,
    is_lightning_address,
    parse_destination,
    parse_lightning_destination,
)
from tests.support.vectors import cases

ARK = cases("address", kind="valid")[0]["address"]
ARKADE = cases("address", kind="parse", name="version-0")[0]["input"]
OFFER = cases("bolt12", kind="offer", valid=True)[0]["offer"]
INVOICE = create_invoice(
    SecretKey(bytes([1] * 32)),
    network=Network.REGTEST,
    amount_msat=1000,
    payment_hash=bytes(32),
    payment_secret=bytes(32),
    timestamp=0,
).text
LNURL = (
    "LNURL1DP68GURN8GHJ7UM9WFMXJCM99E3K7MF0V9CXJ0M385EKVCENXC6R2C35XVUKXEFCV5MKVV34X5EKZD3EV56NYD3HXQURZEPEXEJXXEPNX"
    "SCRVWFNV9NXZCN9XQ6XYEFHVGCXXCMYXYMNSERXFQ5FNS"
)
LNURL_URL = "https://service.com/api?q=3fc3645b439ce8e7f2553a69e5267081d96dcd340693afabe04be7b0ccd178df"
TAPROOT = "bcrt1p8wpt9v4frpf3tkn0srd97pksgsxc5hs52lafxwru9kgeephvs7rqjeprhg"
MAINNET_SEGWIT = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"


def kind_of(text: str) -> type | None:
    found = parse_destination(text, Network.REGTEST)
    return None if found is None else type(found)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (ARK, ArkDestination),
        (ARK.upper(), ArkDestination),
        (ARKADE, ArkadeDestination),
        (INVOICE, InvoiceDestination),
        (INVOICE.upper(), InvoiceDestination),
        (OFFER, OfferDestination),
        (OFFER[:20] + "+\n " + OFFER[20:], OfferDestination),
        ("alice@example.com", LightningAddressDestination),
        ("alice@localhost", LightningAddressDestination),
        (LNURL, LnurlDestination),
        (LNURL.lower(), LnurlDestination),
        (TAPROOT, BitcoinDestination),
        ("mk2QpYatsKicvFVuTAQLBryyccRXMUaGHP", BitcoinDestination),
    ],
)
def test_destinations_are_recognised(text: str, kind: type) -> None:
    assert kind_of(text) is kind


DAMAGED = [
    ARK[:-1] + ("q" if ARK[-1] != "q" else "p"),
    INVOICE[:-1] + ("q" if INVOICE[-1] != "q" else "p"),
    LNURL[:-1] + "Q",
    TAPROOT[:-1] + "q",
    ARK[:10].upper() + ARK[10:],
]


@pytest.mark.parametrize(
    "text",
    [
        *DAMAGED,
        "",
        " ",
        "nonsense",
        f" {ARK}",
        f"{ARK}\n",
        f"{TAPROOT} ",
        f"lightning:{INVOICE}",
        f"bitcoin:{TAPROOT}",
        "lnurlp://example.com/pay",
        "00" * 32,
    ],
)
def test_nothing_else_is_a_destination(text: str) -> None:
    assert kind_of(text) is None


def test_an_invoice_with_a_wrong_signature_is_none() -> None:
    invoice = cases("bolt11", kind="invalid", name="Signature is not recoverable.")[0]["invoice"]
    assert not is_invoice(invoice)
    assert kind_of(invoice) is None


def test_what_only_begins_like_an_invoice_for_an_offer_is_none() -> None:
    assert not is_invoice("lni1x")


def test_an_expired_invoice_of_another_network_is_still_one() -> None:
    invoice = cases("bolt11", kind="valid")[0]["invoice"]
    assert is_invoice(invoice)
    found = parse_destination(invoice, Network.REGTEST)
    assert isinstance(found, InvoiceDestination)
    assert not found.invoice.is_of(Network.REGTEST)


def test_an_offer_that_asks_for_another_currency_is_recognised() -> None:
    offer = cases("bolt12", kind="offer", name="with currency")[0]["offer"]
    found = parse_destination(offer, Network.REGTEST)
    assert isinstance(found, OfferDestination)
    assert found.offer.amount_msat is None


def test_an_invalid_offer_is_none() -> None:
    assert kind_of("lno1") is None
    assert kind_of("lno1pgpq") is None


def test_the_network_of_a_bitcoin_address_is_checked() -> None:
    here = parse_destination(TAPROOT, Network.REGTEST)
    assert here == BitcoinDestination(TAPROOT, None)
    elsewhere = parse_destination(MAINNET_SEGWIT, Network.REGTEST)
    assert isinstance(elsewhere, BitcoinDestination)
    assert elsewhere.problem is not None


def test_only_lightning_destinations_can_be_paid_over_lightning() -> None:
    for text in (INVOICE, OFFER, "alice@example.com", LNURL):
        assert parse_lightning_destination(text) == parse_destination(text, Network.REGTEST)
    for text in (ARK, ARKADE, TAPROOT):
        assert parse_lightning_destination(text) is None


# --- Lightning addresses


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("Alice.B@example.com", "https://example.com/.well-known/lnurlp/Alice.B"),
        ("a+b_c@pay.example", "https://pay.example/.well-known/lnurlp/a%2Bb_c"),
        ("a/../b?c#d@example.com", "https://example.com/.well-known/lnurlp/a%2F..%2Fb%3Fc%23d"),
        ("me@1-2.example", "https://1-2.example/.well-known/lnurlp/me"),
    ],
)
def test_where_a_lightning_address_asks_for_an_invoice(address: str, url: str) -> None:
    assert LightningAddressDestination(address).url == url


@pytest.mark.parametrize(
    "text",
    [
        "a@" + ".".join(["b" * 63] * 3),
        "a" * 64 + "@b",
        "jörg@bücher.example",
        "a@b_c.d",
    ],
)
def test_lightning_addresses(text: str) -> None:
    assert is_lightning_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "@example.com",
        "a@",
        "a",
        "a@@b",
        ".a@b",
        "a.@b",
        "a..b@c",
        "a b@c",
        "a@b..c",
        "a@.b",
        "a@b.",
        "a@-b",
        "a@b-",
        "a@b:443",
        "a@b/c",
        "a@b?c",
        "a@[127.0.0.1]",
        '"a b"@c',
        "a" * 65 + "@b",
        "a@" + "b" * 64,
        "a@" + ".".join(["b" * 63] * 4),
        "a@b\n",
    ],
)
def test_not_lightning_addresses(text: str) -> None:
    assert not is_lightning_address(text)


# --- LNURL


def lnurl(url: str, *, hrp: str = "lnurl", constant: int = 1) -> str:
    return bech32_encode(hrp, to_5_bits(url.encode()), constant)


def test_an_lnurl_is_a_url() -> None:
    assert decode_lnurl(LNURL) == LNURL_URL
    assert decode_lnurl(lnurl("https://a.b/c")) == "https://a.b/c"


def test_both_checksums_and_longer_prefixes_are_read() -> None:
    assert decode_lnurl(lnurl("https://a.b", constant=BECH32M_CONST)) == "https://a.b"
    assert decode_lnurl(lnurl("https://a.b", hrp="lnurlp")) == "https://a.b"
    assert decode_lnurl(lnurl("https://a.b", hrp="nurl")) is None


def test_logging_in_is_not_paying() -> None:
    assert decode_lnurl(lnurl("https://a.b?tag=login&k1=00")) is None
    assert decode_lnurl(lnurl("https://a.b?tag=login")) is not None


def test_an_lnurl_that_is_not_text_or_too_long_is_none() -> None:
    assert decode_lnurl(bech32_encode("lnurl", to_5_bits(b"\xff\xfe"), 1)) is None
    assert decode_lnurl(lnurl("https://a.b/" + "c" * 700)) is None


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_destination(text, Network.REGTEST)
