"""Lightning invoices: the examples of BOLT-11, and what makes an invoice unpayable."""

import pytest
from btclib_secp256k1 import recovery
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.address import bech32_encode, bech32_split, to_5_bits
from barkd_py.bitcoin.bolt11 import (
    MAX_INVOICE_CHARACTERS,
    Bolt11Invoice,
    Currency,
    InvalidInvoice,
    create_invoice,
    signing_digest,
)
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from tests.support.vectors import Case, cases, params

PAYEE = "03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad"
PAYMENT_HASH = bytes.fromhex("0001020304050607080900010203040506070809000102030405060708090102")
NODE = SecretKey(bytes.fromhex("e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734"))


def example(beginning: str) -> Bolt11Invoice:
    [case] = [case for case in cases("bolt11", kind="valid") if case["name"].startswith(beginning)]
    return Bolt11Invoice.parse(case["invoice"])


@pytest.mark.parametrize("case", params("bolt11", kind="valid"))
def test_the_examples_are_read(case: Case) -> None:
    invoice = Bolt11Invoice.parse(case["invoice"])
    # The last example negates the signature, which then belongs to another key.
    assert (invoice.payee.hex() == PAYEE) == ("high-S" not in case["name"])
    assert invoice.payment_secret == b"\x11" * 32
    assert (invoice.description is None) != (invoice.description_hash is None)
    assert str(invoice) == case["invoice"].lower()


@pytest.mark.parametrize("case", params("bolt11", kind="invalid"))
def test_the_invalid_examples_are_refused(case: Case) -> None:
    with pytest.raises(InvalidInvoice):
        Bolt11Invoice.parse(case["invoice"])


def test_a_donation_has_no_amount() -> None:
    invoice = example("Please make a donation")
    assert invoice.amount_msat is None
    assert invoice.amount_sat is None
    assert invoice.payment_hash == PAYMENT_HASH
    assert invoice.description == "Please consider supporting this project"
    assert invoice.timestamp == 1496314658
    assert (invoice.expiry_secs, invoice.min_final_cltv_delta) == (3600, 18)
    assert invoice.expires_at == 1496314658 + 3600


def test_amount_and_expiry_are_read() -> None:
    invoice = example("Please send $3 for a cup of coffee")
    assert invoice.amount_msat == 250_000_000
    assert invoice.expiry_secs == 60
    assert invoice.description == "1 cup coffee"


def test_a_description_may_be_a_hash() -> None:
    invoice = example("Now send $24")
    assert invoice.description is None
    assert invoice.description_hash is not None
    assert invoice.description_hash.hex() == (
        "3925b6f67e2c340036ed12093dd44e0368df1b6ea26c53dbe4811f58fd5db8c1"
    )


def test_a_description_may_have_any_letters() -> None:
    assert example("Please send 0.0025 BTC for a cup of nonsense").description == "ナンセンス 1杯"


def test_pico_amounts_are_exact_and_round_up() -> None:
    invoice = example("Please send 0.00967878534 BTC")
    assert invoice.amount_msat == 967_878_534
    assert invoice.amount_sat == 967_879
    assert (invoice.expiry_secs, invoice.min_final_cltv_delta) == (604_800, 10)


def test_the_network_is_in_the_prefix() -> None:
    testnet = example("The same, on testnet")
    assert testnet.currency is Currency.TESTNET
    assert testnet.is_of(Network.TESTNET)
    # A signet invoice says lntbs.
    assert not testnet.is_of(Network.SIGNET)
    assert not testnet.is_of(Network.MAINNET)


@pytest.mark.parametrize(
    ("network", "prefix"),
    [
        (Network.MAINNET, "lnbc1"),
        (Network.SIGNET, "lntbs1"),
        (Network.MUTINYNET, "lntbs1"),
        (Network.REGTEST, "lnbcrt1"),
    ],
)
def test_our_invoices_name_their_network(network: Network, prefix: str) -> None:
    invoice = invoice_for(None, network=network)
    assert invoice.text.startswith(prefix)
    assert invoice.is_of(network)


# --- writing and reading


def invoice_for(amount_msat: int | None, *, network: Network = Network.REGTEST) -> Bolt11Invoice:
    return create_invoice(
        NODE,
        network=network,
        amount_msat=amount_msat,
        payment_hash=PAYMENT_HASH,
        payment_secret=b"\x11" * 32,
        timestamp=1_700_000_000,
        description="tea & cake",
    )


@given(
    st.none() | st.integers(1, (2**64 - 1) // 10),  # the most that fits in tenths of a millisatoshi
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**35 - 1),
    st.text(max_size=80),
    st.integers(0, 2**40),
    st.integers(0, 2**20),
)
def test_invoices_round_trip(
    amount_msat: int | None, payment_hash: bytes, timestamp: int, description: str, expiry: int, cltv: int
) -> None:
    invoice = create_invoice(
        NODE,
        network=Network.REGTEST,
        amount_msat=amount_msat,
        payment_hash=payment_hash,
        payment_secret=PAYMENT_HASH,
        timestamp=timestamp,
        description=description,
        expiry_secs=expiry,
        min_final_cltv_delta=cltv,
    )
    assert (
        invoice.amount_msat,
        invoice.payment_hash,
        invoice.timestamp,
        invoice.description,
        invoice.expiry_secs,
        invoice.min_final_cltv_delta,
        invoice.payee,
    ) == (amount_msat, payment_hash, timestamp, description, expiry, cltv, NODE.public_key)


def test_upper_case_is_fine_and_mixed_case_is_not() -> None:
    text = invoice_for(1000).text
    assert Bolt11Invoice.parse(text.upper()).payment_hash == PAYMENT_HASH
    with pytest.raises(InvalidInvoice):
        Bolt11Invoice.parse(text[:4].upper() + text[4:])


def test_every_changed_character_is_noticed() -> None:
    text = invoice_for(1000).text
    for position in range(len(text)):
        changed = text[:position] + ("q" if text[position] != "q" else "p") + text[position + 1 :]
        with pytest.raises(InvalidInvoice):
            Bolt11Invoice.parse(changed)


def signed(hrp: str, fields: list[tuple[str, list[int]]]) -> str:
    """An invoice of any fields, with a right signature."""
    tags = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    data = [0] * 7
    for tag, value in fields:
        data += [tags.index(tag), len(value) >> 5, len(value) & 31, *value]
    compact, recovery_id = recovery.sign(signing_digest(hrp, data), NODE.secret_bytes)
    return bech32_encode(hrp, [*data, *to_5_bits(compact + bytes((recovery_id,)))], 1)


HASH = ("p", to_5_bits(PAYMENT_HASH))
SECRET = ("s", to_5_bits(PAYMENT_HASH))
TEXT = ("d", to_5_bits(b"tea"))
TEXT_HASH = ("h", to_5_bits(PAYMENT_HASH))
FEATURES = ("9", [16, 8, 0])  # bits 14 and 8
GOOD = [HASH, SECRET, TEXT, FEATURES]


def test_the_least_invoice_is_accepted() -> None:
    assert Bolt11Invoice.parse(signed("lnbcrt", GOOD)).description == "tea"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([SECRET, TEXT, FEATURES], "exactly one payment hash"),
        ([HASH, *GOOD], "exactly one payment hash"),
        ([HASH, TEXT, FEATURES], "exactly one payment secret"),
        ([SECRET, *GOOD], "exactly one payment secret"),
        ([HASH, SECRET, FEATURES], "exactly one description"),
        ([TEXT, *GOOD], "exactly one description"),
        ([TEXT_HASH, *GOOD], "exactly one description"),
        ([HASH, SECRET, TEXT], "no features"),
        ([HASH, SECRET, TEXT, ("9", [8, 0])], "payment secrets"),
        ([HASH, SECRET, TEXT, ("9", [1, 0, 16, 8, 0])], "unknown features"),  # bit 20
        ([HASH, SECRET, ("d", to_5_bits(b"\xff\xff")), FEATURES], "not UTF-8"),
        ([*GOOD, ("x", [31] * 14)], "overflows"),
        ([*GOOD, ("n", to_5_bits(SecretKey(bytes([9] * 32)).public_key.data))], "signature"),
    ],
)
def test_an_invoice_that_nobody_could_pay_is_refused(
    fields: list[tuple[str, list[int]]], reason: str
) -> None:
    with pytest.raises(InvalidInvoice, match=reason):
        Bolt11Invoice.parse(signed("lnbcrt", fields))


def test_a_named_payee_must_be_the_signer() -> None:
    named = ("n", to_5_bits(NODE.public_key.data))
    assert Bolt11Invoice.parse(signed("lnbcrt", [*GOOD, named])).payee == NODE.public_key


def test_fields_of_another_length_and_unknown_ones_are_skipped() -> None:
    odd = [("p", [0] * 51), ("s", [0] * 53), ("n", [0] * 52), ("2", [1, 2, 3]), ("9", [0])]
    assert Bolt11Invoice.parse(signed("lnbcrt", [*GOOD, *odd])).payment_hash == PAYMENT_HASH


@pytest.mark.parametrize(
    "hrp", ["ln", "lnxx", "lnbcrtx", "lnbcrt10x", "lnbcrt1pp", "lnbcrt18446745u", "lnbcrt1p", "ln10m"]
)
def test_unknown_prefixes_and_impossible_amounts_are_refused(hrp: str) -> None:
    text = signed(hrp, GOOD) if hrp != "lnbcrt18446745u" else signed("lnbcrt184467440737096u", GOOD)
    with pytest.raises(InvalidInvoice):
        Bolt11Invoice.parse(text)


def test_a_field_that_runs_past_the_end_is_refused() -> None:
    split = bech32_split(signed("lnbcrt", GOOD))
    assert split is not None
    data = [*split[1][:-110], 1, 0, 5, 0]  # a field of five symbols with one left
    compact, recovery_id = recovery.sign(signing_digest("lnbcrt", data), NODE.secret_bytes)
    text = bech32_encode("lnbcrt", [*data, *to_5_bits(compact + bytes((recovery_id,)))], 1)
    with pytest.raises(InvalidInvoice, match="inside a field"):
        Bolt11Invoice.parse(text)


def test_too_long_invoices_are_refused() -> None:
    text = signed("lnbcrt", [*GOOD, *([("2", [0] * 1000)] * 7)])
    assert len(text) > MAX_INVOICE_CHARACTERS
    with pytest.raises(InvalidInvoice):
        Bolt11Invoice.parse(text)


@given(st.text(max_size=100))
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidInvoice):
        Bolt11Invoice.parse(text)
