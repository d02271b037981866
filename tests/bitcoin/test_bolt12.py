"""Lightning offers: the vectors of BOLT-12."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.bolt12 import InvalidOffer, Offer
from tests.support.vectors import Case, cases, params

OFFERS = params("bolt12", kind="offer")
FORMATS = params("bolt12", kind="format")
REGTEST_GENESIS = bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f")


@pytest.mark.parametrize("case", OFFERS)
def test_offers_are_read_or_refused_as_the_specification_says(case: Case) -> None:
    if not case["valid"]:
        with pytest.raises(InvalidOffer):
            Offer.parse(case["offer"])
        return
    offer = Offer.parse(case["offer"])
    fields = {field["type"]: bytes.fromhex(field["hex"]) for field in case["fields"]}
    assert b"".join(offer.chains) == fields.get(2, b"")
    assert offer.currency == (fields[6].decode() if 6 in fields else None)
    assert offer.amount == (int.from_bytes(fields[8], "big") if 8 in fields else None)
    assert offer.description == (fields[10].decode() if 10 in fields else None)
    assert offer.absolute_expiry == (int.from_bytes(fields[14], "big") if 14 in fields else None)
    assert offer.issuer == (fields[18].decode() if 18 in fields else None)
    assert (offer.issuer_id.data if offer.issuer_id else None) == fields.get(22)
    assert sum(len(field) for field in fields.values()) < len(offer.data)


@pytest.mark.parametrize("case", FORMATS)
def test_the_forms_of_the_text(case: Case) -> None:
    if case["valid"]:
        whole = Offer.parse(cases("bolt12", kind="format")[0]["offer"])
        assert Offer.parse(case["offer"]).data == whole.data
    else:
        with pytest.raises(InvalidOffer):
            Offer.parse(case["offer"])


def offer_named(name: str) -> Offer:
    return Offer.parse(cases("bolt12", kind="offer", name=name)[0]["offer"])


def test_an_amount_in_another_currency_is_no_amount_in_bitcoin() -> None:
    fiat = offer_named("with currency")
    assert (fiat.currency, fiat.amount) == ("USD", 10_000)
    assert fiat.amount_msat is None
    assert fiat.amount_sat is None


def test_an_amount_in_bitcoin_is_rounded_up() -> None:
    offer = offer_named("with amount")
    assert (offer.amount_msat, offer.amount_sat) == (10_000, 10)


def test_no_chain_means_mainnet() -> None:
    offer = offer_named("Minimal bolt12 offer")
    assert offer.is_of(REGTEST_GENESIS, mainnet=True)
    assert not offer.is_of(REGTEST_GENESIS, mainnet=False)
    testnet = offer_named("for testnet")
    assert testnet.is_of(testnet.chains[0], mainnet=False)
    assert not testnet.is_of(REGTEST_GENESIS, mainnet=True)


@given(st.text(max_size=100))
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidOffer):
        Offer.parse(text)
