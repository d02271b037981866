"""Invoices for offers, and the signatures of BOLT-12: its vectors, the worked example, and every lie."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.address import bech32_split, to_8_bits
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.bolt12_invoice import (
    GENESIS_HASHES,
    Bolt12Invoice,
    InvalidBolt12Invoice,
    UnexpectedBolt12Invoice,
    genesis_hash,
)
from barkd_py.bitcoin.bolt12_signature import merkle_root, signature_digest
from barkd_py.bitcoin.keys import PublicKey, SecretKey, verify_schnorr
from barkd_py.bitcoin.tlv import big_size, read_tlv_stream, tlv_record, truncated_u64
from barkd_py.bitcoin.units import Network
from tests.support.vectors import Case, cases, params

REGTEST = genesis_hash(Network.REGTEST)
NODE = SecretKey(b"\x41" * 32)
STRANGER = SecretKey(b"\x42" * 32)
AMOUNT_MSAT = 10_000_000

# The worked example of sheet 05 §4.1: the last hop of its one path signs.
WORKED_OFFER = cases("bolt12", kind="worked")[0]["offer"]


# --- making invoices, record by record


def path(end: PublicKey) -> bytes:
    """A blinded path of one hop."""
    return STRANGER.public_key.data * 2 + b"\x01" + end.data + b"\x00\x00"


def offer_text(records: Mapping[int, bytes]) -> str:
    symbols = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    data = stream(records)
    number, bits = int.from_bytes(data, "big"), len(data) * 8
    padding = -bits % 5
    number, bits = number << padding, bits + padding
    return "lno1" + "".join(symbols[number >> shift & 31] for shift in range(bits - 5, -1, -5))


def stream(records: Mapping[int, bytes]) -> bytes:
    return b"".join(tlv_record(kind, records[kind]) for kind in sorted(records))


OFFER_RECORDS = {2: REGTEST, 8: truncated_u64(AMOUNT_MSAT), 10: b"tea", 22: NODE.public_key.data}
OFFER = Offer.parse(offer_text(OFFER_RECORDS))


def invoice_records(**changes: bytes | None) -> dict[int, bytes]:
    """Unsigned. changes: by `t` and the type; None leaves a record out."""
    records: dict[int, bytes] = {
        **OFFER_RECORDS,
        0: b"\x00" * 8,
        80: REGTEST,
        82: truncated_u64(AMOUNT_MSAT),
        88: STRANGER.public_key.data,
        160: path(NODE.public_key),
        162: b"\x00" * 28,
        164: truncated_u64(1_700_000_000),
        168: b"\x55" * 32,
        170: truncated_u64(AMOUNT_MSAT),
        176: NODE.public_key.data,
    }
    for name, value in changes.items():
        records.pop(int(name[1:]), None)
        if value is not None:
            records[int(name[1:])] = value
    return records


def signed(records: dict[int, bytes], key: SecretKey = NODE) -> bytes:
    digest = signature_digest("invoice", merkle_root(read_tlv_stream(stream(records))))
    return stream({**records, 240: key.sign_schnorr(digest)})


# --- signatures


@pytest.mark.parametrize("case", params("bolt12", kind="signature"))
def test_the_merkle_root_is_that_of_the_specification(case: Case) -> None:
    records = list(read_tlv_stream(bytes.fromhex(case["records"])))
    assert merkle_root(records).hex() == case["merkle"]


def test_the_signature_of_the_specification_verifies() -> None:
    case = cases("bolt12", kind="signature", message="invoice_request")[0]
    split = bech32_split(case["bolt12"])
    assert split is not None
    records = list(read_tlv_stream(to_8_bits(split[1])[0]))
    digest = signature_digest("invoice_request", merkle_root(records))
    assert digest.hex() == case["digest"]
    payer = next(record.value for record in records if record.type == 88)
    signature = next(record.value for record in records if record.type == 240)
    assert signature.hex() == case["signature"]
    assert verify_schnorr(PublicKey(payer).x_only, digest, signature)


def test_signatures_are_not_signed_themselves() -> None:
    records = list(read_tlv_stream(signed(invoice_records())))
    without = [record for record in records if record.type != 240]
    assert merkle_root(records) == merkle_root(without)


# --- the worked example


def test_the_offer_of_the_worked_example_names_the_end_of_its_path() -> None:
    offer = Offer.parse(WORKED_OFFER)
    assert offer.amount_msat == 10_000
    assert [end.data.hex() for end in offer.path_ends] == [
        "02531fe6068134503d2723133227c867ac8fa6c83c537e9a44c3c5bdbdcb1fe337"
    ]


# --- reading


def test_an_invoice_is_read() -> None:
    invoice = Bolt12Invoice.decode(signed(invoice_records(t170=truncated_u64(10_000_001), t82=None)))
    assert invoice.amount_msat == 10_000_001
    assert invoice.amount_sat == 10_001
    assert invoice.payment_hash == b"\x55" * 32
    assert invoice.expires_at == 1_700_000_000 + 7200
    assert invoice.is_of(Network.REGTEST)
    assert not invoice.is_of(Network.MAINNET)
    assert invoice.is_signed()


def test_the_text_form_is_read_back() -> None:
    invoice = Bolt12Invoice.decode(signed(invoice_records()))
    assert str(invoice).startswith("lni1")
    assert Bolt12Invoice.parse(str(invoice)) == invoice
    assert Bolt12Invoice.parse(str(invoice).upper()) == invoice


def test_without_a_chain_it_is_mainnet() -> None:
    invoice = Bolt12Invoice.decode(signed(invoice_records(t80=None)))
    assert invoice.is_of(Network.MAINNET)


@pytest.mark.parametrize("network", [*GENESIS_HASHES, Network.MUTINYNET])
def test_every_network_has_its_chain(network: Network) -> None:
    invoice = Bolt12Invoice.decode(signed(invoice_records(t80=genesis_hash(network))))
    assert invoice.is_of(network)


@pytest.mark.parametrize("missing", [160, 162, 164, 168, 170, 176])
def test_what_is_required_must_be_there(missing: int) -> None:
    with pytest.raises(InvalidBolt12Invoice, match=f"no record of type {missing}"):
        Bolt12Invoice.decode(signed(invoice_records(**{f"t{missing}": None})))


BAD: list[tuple[str, dict[str, Any]]] = [
    ("message paths", {"t236": b""}),
    ("unknown even type", {"t178": b""}),
    ("another amount than requested", {"t82": truncated_u64(AMOUNT_MSAT - 1)}),
    ("payment hash of 31 bytes", {"t168": b"\x55" * 31}),
    ("chain of 33 bytes", {"t80": b"\x00" * 33}),
    ("node id that is no point", {"t176": b"\x05" * 33}),
    ("number with a leading zero", {"t164": b"\x00\x01"}),
    ("number of nine bytes", {"t170": b"\x01" * 9, "t82": None}),
    ("expiry above 32 bits", {"t166": truncated_u64(1 << 32)}),
    ("no paths", {"t160": b"", "t162": b""}),
    ("two paths, terms for one", {"t160": path(NODE.public_key) * 2}),
    ("one path, terms for two", {"t162": b"\x00" * 56}),
    ("terms cut short", {"t162": b"\x00" * 27}),
    ("terms whose features are missing", {"t162": b"\x00" * 27 + b"\x01"}),
    ("path cut short", {"t160": path(NODE.public_key)[:-1]}),
    ("unknown required feature", {"t174": b"\x04"}),
]


@pytest.mark.parametrize(("changes"), [changes for _, changes in BAD], ids=[name for name, _ in BAD])
def test_what_no_invoice_can_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidBolt12Invoice):
        Bolt12Invoice.decode(signed(invoice_records(**changes)))


def test_multi_path_payments_may_be_demanded() -> None:
    assert Bolt12Invoice.decode(signed(invoice_records(t174=b"\x01\x00\x00"))).is_signed()


def test_unknown_odd_types_are_signed_and_passed_over() -> None:
    assert Bolt12Invoice.decode(signed(invoice_records(t177=b"new"))).is_signed()


@given(st.data())
def test_no_invoice_ends_early(data: st.DataObject) -> None:
    whole = signed(invoice_records())
    with pytest.raises(InvalidBolt12Invoice):
        Bolt12Invoice.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(InvalidBolt12Invoice):
        Bolt12Invoice.decode(garbage)


@pytest.mark.parametrize("text", ["", "lni1", "lno1qqqq", "lni1qqqqqq", "lnbc1", "lni1b", "nonsense"])
def test_texts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidBolt12Invoice):
        Bolt12Invoice.parse(text)


# --- verifying


def test_the_invoice_that_was_asked_for_is_verified() -> None:
    Bolt12Invoice.decode(signed(invoice_records())).verify(OFFER, AMOUNT_MSAT)


def test_the_end_of_a_path_may_sign_for_an_offer_without_an_issuer() -> None:
    records = {**OFFER_RECORDS, 16: path(STRANGER.public_key) + path(NODE.public_key)}
    del records[22]
    offer = Offer.parse(offer_text(records))
    signed_by_end = signed(invoice_records(t22=None, t16=records[16]))
    Bolt12Invoice.decode(signed_by_end).verify(offer, AMOUNT_MSAT)


def test_the_end_of_a_path_may_not_sign_for_an_issuer() -> None:
    records = {**OFFER_RECORDS, 16: path(STRANGER.public_key)}
    offer = Offer.parse(offer_text(records))
    forged = invoice_records(t16=records[16], t176=STRANGER.public_key.data)
    with pytest.raises(UnexpectedBolt12Invoice, match="public keys mismatch"):
        Bolt12Invoice.decode(signed(forged, STRANGER)).verify(offer, AMOUNT_MSAT)


def test_an_invoice_of_another_key_is_refused() -> None:
    forged = signed(invoice_records(t176=STRANGER.public_key.data), STRANGER)
    with pytest.raises(UnexpectedBolt12Invoice, match=r"^public keys mismatch$"):
        Bolt12Invoice.decode(forged).verify(OFFER, AMOUNT_MSAT)


def test_an_offer_that_the_server_put_its_own_key_into_does_not_help() -> None:
    """The signer is bound to the offer that we hold, not to the one that the invoice repeats."""
    own = STRANGER.public_key.data
    forged = signed(invoice_records(t22=own, t176=own), STRANGER)
    with pytest.raises(UnexpectedBolt12Invoice, match="public keys mismatch"):
        Bolt12Invoice.decode(forged).verify(OFFER, AMOUNT_MSAT)


def test_a_signature_of_another_key_is_refused() -> None:
    forged = signed(invoice_records(), STRANGER)
    with pytest.raises(UnexpectedBolt12Invoice, match=r"^invalid signature$"):
        Bolt12Invoice.decode(forged).verify(OFFER, AMOUNT_MSAT)


@pytest.mark.parametrize("bit", [0, 100, 511])
def test_a_flipped_bit_of_the_signature_is_refused(bit: int) -> None:
    whole = bytearray(signed(invoice_records()))
    whole[-64 + bit // 8] ^= 1 << bit % 8
    with pytest.raises(UnexpectedBolt12Invoice, match=r"^invalid signature$"):
        Bolt12Invoice.decode(bytes(whole)).verify(OFFER, AMOUNT_MSAT)


@pytest.mark.parametrize("difference", [-1000, -1, 1, 1000])
def test_another_amount_is_refused(difference: int) -> None:
    amount = truncated_u64(AMOUNT_MSAT + difference)
    invoice = Bolt12Invoice.decode(signed(invoice_records(t82=amount, t170=amount)))
    message = (
        "invoice amount doesn't match the requested amount: "
        f"invoice={AMOUNT_MSAT + difference} msat, requested={AMOUNT_MSAT} msat"
    )
    with pytest.raises(UnexpectedBolt12Invoice, match=f"^{message}$"):
        invoice.verify(OFFER, AMOUNT_MSAT)


def test_another_offer_of_the_same_issuer_is_refused() -> None:
    with pytest.raises(UnexpectedBolt12Invoice, match=r"^invoice is for another offer$"):
        Bolt12Invoice.decode(signed(invoice_records(t10=b"coffee"))).verify(OFFER, AMOUNT_MSAT)


# --- TLV


@given(st.integers(0, 2**64 - 1), st.binary(max_size=300))
def test_records_are_read_back(kind: int, value: bytes) -> None:
    (record,) = read_tlv_stream(tlv_record(kind, value))
    assert (record.type, record.value, record.encoded_type) == (kind, value, big_size(kind))
