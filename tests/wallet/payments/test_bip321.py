"""BIP-321 URIs: what is read, what is refused and why, and that writing is reading backwards."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.address import ArkAddress
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.wallet.payments.bip321 import (
    ArkInstruction,
    Bip321Uri,
    Instruction,
    InvalidBip321,
    NotUpperCase,
    amount_text,
    parse_amount,
)
from tests.support.vectors import cases
from tests.wallet.lightning.payer import bolt11

MAINNET = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
TESTNET = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"
REGTEST = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
BASE58 = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"
INVOICE = bolt11(2_000)
OFFER = Offer.parse("lno1zcss9mk8y3wkklfvevcrszlmu23kfrxh49px20665dqwmn4p72pksese")
ARK_TEXT = str(next(case["address"] for case in cases("address", kind="valid") if case["testnet"]))
ARK = ArkInstruction(ARK_TEXT, ArkAddress.parse(ARK_TEXT))


def test_an_address_alone() -> None:
    assert Bip321Uri.parse(f"bitcoin:{MAINNET}") == Bip321Uri(address=MAINNET)
    assert str(Bip321Uri(address=MAINNET)) == f"bitcoin:{MAINNET}"


def test_everything_at_once() -> None:
    text = (
        f"bitcoin:{MAINNET}?amount=0.00002&label=Tea%20%26%20cake&message=f%C3%BCr+zwei&pop=app%3Acallback"
        f"&lightning={INVOICE.text}&lno={OFFER.text}&sp=sp1qq&pay=pay1&bc={BASE58}&tb={TESTNET}"
        f"&ark={ARK_TEXT}&zzz=2&aaa=1"
    )
    uri = Bip321Uri.parse(text)
    assert uri == Bip321Uri(
        address=MAINNET,
        amount_sat=2_000,
        label="Tea & cake",
        message="für+zwei",
        pop="app:callback",
        invoices=(INVOICE,),
        offers=(OFFER,),
        silent=(Instruction("sp1qq"),),
        private=(Instruction("pay1"),),
        bitcoin=(BASE58,),
        testnet=(TESTNET,),
        ark=(ARK,),
        custom=(("zzz", "2"), ("aaa", "1")),
    )
    assert str(uri) == text.replace("f%C3%BCr+zwei", "f%C3%BCr%2Bzwei").replace(
        "&zzz=2&aaa=1", "&aaa=1&zzz=2"
    )


@pytest.mark.parametrize(
    "text",
    [
        f"  BITCOIN:{MAINNET}  ",
        f"bitcoin:{MAINNET}?",
        f"Bitcoin:{MAINNET}?&&",
        f"bitcoin:{MAINNET.upper()}",
        f"bitcoin:?BC={MAINNET}",
        f"bitcoin:?tb={REGTEST}",
        f"bitcoin:?LIGHTNING={INVOICE.text.upper()}",
        f"bitcoin:?req-lightning={INVOICE.text}",
        f"bitcoin:?REQ-ark={ARK_TEXT}",
        "bitcoin:?sp=anything",
        "bitcoin:?req-pay=anything",
        f"bitcoin:{MAINNET}?pop=https%3A%2F%2Fx",
        f"bitcoin:{MAINNET}?label=",
    ],
)
def test_forms_that_are_read(text: str) -> None:
    assert Bip321Uri.parse(text).has_destination


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "uri is too short"),
        ("bitcoin", "uri is too short"),
        ("litecoin:abc", "invalid scheme"),
        ("lightning:lnbc1", "invalid scheme"),
        ("bitcoin:", "no payment destination: address or payment instruction required"),
        ("bitcoin:?amount=1", "no payment destination: address or payment instruction required"),
        (f"bitcoin:{REGTEST}", f"invalid bitcoin address: {REGTEST}"),
        ("bitcoin:nonsense", "invalid bitcoin address: nonsense"),
        (f"bitcoin:{MAINNET}?amount", "malformed parameter: amount"),
        (f"bitcoin:{MAINNET}?amount=1&amount=1", "duplicate parameter: amount"),
        (f"bitcoin:{MAINNET}?label=a&LABEL=b", "duplicate parameter: label"),
        (f"bitcoin:{MAINNET}?message=a&req-message=b", "duplicate parameter: message"),
        (f"bitcoin:{MAINNET}?pop=a:&pop=b:", "duplicate parameter: pop"),
        (f"bitcoin:{MAINNET}?amount=0", "amount must not be zero"),
        (f"bitcoin:{MAINNET}?amount=0.00000000", "amount must not be zero"),
        (f"bitcoin:{MAINNET}?label=%FF", "UTF-8 decode error: invalid start byte"),
        (f"bitcoin:{MAINNET}?req-pop=HTTPS%3Ax", "required scheme in pop URI is not safe: HTTPS:x"),
        (f"bitcoin:{MAINNET}?req-foo=1", "unsupported required parameter: foo"),
        (f"bitcoin:?tb={MAINNET}", "test address must be valid for the Test network"),
        (f"bitcoin:?bc={TESTNET}", "test address must be valid for the Main network"),
        ("bitcoin:?bc=x", "payment instruction parse error on key bc: x is no bitcoin address"),
        ("bitcoin:?lightning=x", "payment instruction parse error on key lightning: invoice is not bech32"),
        ("bitcoin:?lno=x", "payment instruction parse error on key lno: offer is not bech32"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidBip321) as raised:
        Bip321Uri.parse(text)
    assert str(raised.value) == message


def test_a_broken_ark_address_fails_the_uri() -> None:
    with pytest.raises(InvalidBip321, match=r"^extension error: "):
        Bip321Uri.parse(f"bitcoin:?ark={ARK_TEXT[:-1]}")


# --- amounts


@pytest.mark.parametrize(
    ("text", "amount_sat"),
    [
        ("1", 100_000_000),
        ("5.", 500_000_000),
        (".5", 50_000_000),
        ("0.00000001", 1),
        ("1.10000000", 110_000_000),
        ("0000021000000", 2_100_000_000_000_000),
    ],
)
def test_amounts_that_are_read(text: str, amount_sat: int) -> None:
    assert parse_amount(text) == amount_sat


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-1",
        "+1",
        "1e3",
        "1,000",
        "1.2.3",
        "0.000000001",
        "1.000000000",
        " 1",
        "1 ",
        "0x1",
        "٣",
        "1" * 51,
        "21000001",
    ],
)
def test_amounts_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidBip321):
        parse_amount(text)


@pytest.mark.parametrize(
    ("amount_sat", "text"),
    [
        (1, "0.00000001"),
        (10, "0.0000001"),
        (12_345_678, "0.12345678"),
        (100_000_000, "1"),
        (100_000, "0.001"),
    ],
)
def test_amounts_are_written_without_zeros_at_the_end(amount_sat: int, text: str) -> None:
    assert amount_text(amount_sat) == text


@given(st.integers(1, 21_000_000 * 10**8))
def test_amounts_are_read_back(amount_sat: int) -> None:
    assert parse_amount(amount_text(amount_sat)) == amount_sat


_TEXT = st.text(max_size=30)
_KEY = st.text(string.ascii_lowercase, min_size=1, max_size=8).filter(
    lambda key: (
        key not in {"amount", "label", "message", "pop", "lightning", "lno", "sp", "pay", "bc", "tb", "ark"}
    )
)


@given(
    st.builds(
        Bip321Uri,
        address=st.none() | st.sampled_from([MAINNET, BASE58]),
        amount_sat=st.none() | st.integers(1, 10**15),
        label=st.none() | _TEXT,
        message=st.none() | _TEXT,
        pop=st.none() | _TEXT,
        invoices=st.lists(st.just(INVOICE), max_size=2).map(tuple),
        offers=st.lists(st.just(OFFER), max_size=1).map(tuple),
        bitcoin=st.lists(st.sampled_from([MAINNET, BASE58]), max_size=2).map(tuple),
        testnet=st.lists(st.sampled_from([TESTNET, REGTEST]), max_size=2).map(tuple),
        ark=st.just((ARK,)),
        custom=st.lists(st.tuples(_KEY, _TEXT), max_size=3).map(lambda pairs: tuple(sorted(pairs))),
    )
)
def test_what_is_written_is_read_back(uri: Bip321Uri) -> None:
    assert Bip321Uri.parse(str(uri)) == uri


@given(st.text(max_size=60))
def test_garbage_is_refused_or_has_a_destination(text: str) -> None:
    try:
        uri = Bip321Uri.parse(f"bitcoin:{text}")
    except InvalidBip321:
        return
    assert uri.has_destination


# --- capitals


def test_capitals_say_the_same() -> None:
    uri = Bip321Uri(
        address=MAINNET,
        amount_sat=5,
        label="TEA 2",
        invoices=(Bolt11Invoice.parse(INVOICE.text),),
        ark=(ARK,),
    )
    again = Bip321Uri.parse(uri.upper_case())
    assert uri.upper_case() == str(uri).upper()
    assert (again.amount_sat, again.label) == (5, "TEA 2")
    assert again.invoices[0].payment_hash == INVOICE.payment_hash
    assert again.ark[0].address == ARK.address


@pytest.mark.parametrize(
    "uri",
    [
        Bip321Uri(address=MAINNET, label="Tea"),
        Bip321Uri(address=MAINNET, message="ü"),
        Bip321Uri(address=MAINNET, pop="APP:"),
        Bip321Uri(address=BASE58),
        Bip321Uri(bitcoin=(BASE58,)),
        Bip321Uri(testnet=("2NBFNJTktNa7GZusGbDbGKRZTxdK9VVez3n",)),
        Bip321Uri(address=MAINNET, custom=(("x", "y"),)),
    ],
)
def test_capitals_that_would_say_something_else(uri: Bip321Uri) -> None:
    with pytest.raises(NotUpperCase):
        uri.upper_case()
