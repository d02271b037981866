"""From destinations to payments: offers, services, invoices of other implementations."""

import json

import httpx
import pytest

from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.tlv import truncated_u64
from barkd_py.bitcoin.units import Network
from barkd_py.errors import BarkdError, ServerRejected, chain_text
from barkd_py.wallet.lightning.send.invoices import Order, payment_amount_sat
from barkd_py.wallet.movements import PaymentMethod, PaymentMethodKind
from barkd_py.wallet.payments.request import (
    LightningAddressDestination,
    LnurlDestination,
    OfferDestination,
)
from tests.bitcoin.test_bolt12_invoice import (
    AMOUNT_MSAT,
    OFFER,
    OFFER_RECORDS,
    STRANGER,
    invoice_records,
    offer_text,
    signed,
)
from tests.fakes.pay_server import PayServer
from tests.support.vectors import Case, params
from tests.wallet.lightning.payer import OFFERED_AT, PREIMAGE, Payer, bolt11, open_payer
from tests.wallet.lightning.test_send import HASH

AMOUNT_SAT = AMOUNT_MSAT // 1000


def offer(**changes: bytes | None) -> Offer:
    """changes: by `t` and the type; None leaves a record out."""
    records = dict(OFFER_RECORDS)
    for name, value in changes.items():
        records.pop(int(name[1:]), None)
        if value is not None:
            records[int(name[1:])] = value
    return Offer.parse(offer_text(records))


async def pay_offer(payer: Payer, amount_sat: int | None = None, *, of: Offer = OFFER) -> bytes:
    return await payer.sends.pay(OfferDestination(of), amount_sat)


# --- offers


async def test_an_offer_is_paid(payer: Payer) -> None:
    payer.server.offer_invoice = signed(invoice_records(t168=HASH))
    assert await pay_offer(payer) == HASH
    assert payer.server.offers == [(OFFER.data, None)]  # the server finds the amount in the offer
    attempt = payer.server.attempt(HASH)
    assert attempt.invoice.startswith("lni1")
    assert attempt.amount_sat == AMOUNT_SAT
    payer.server.settle(PREIMAGE)
    await payer.drive()
    assert await payer.name() == "paid"
    (destination,) = (await payer.movement()).sent_to
    assert destination.method == PaymentMethod(PaymentMethodKind.OFFER, OFFER.text)


async def test_the_payer_may_say_the_amount(payer: Payer) -> None:
    amount = truncated_u64(20_000_000)
    payer.server.offer_invoice = signed(invoice_records(t168=HASH, t82=amount, t170=amount))
    await pay_offer(payer, 20_000)
    assert payer.server.offers == [(OFFER.data, 20_000)]
    assert payer.server.attempt(HASH).amount_sat == 20_000


async def test_a_sub_satoshi_offer_is_rounded_up(payer: Payer) -> None:
    """Sheet 05 §4.1: an offer of 7 000 500 msat brings an invoice over 7 001 000."""
    of = offer(t8=truncated_u64(7_000_500))
    amount = truncated_u64(7_001_000)
    records = invoice_records(t168=HASH, t8=truncated_u64(7_000_500), t82=amount, t170=amount)
    payer.server.offer_invoice = signed(records)
    await pay_offer(payer, of=of)
    assert payer.server.attempt(HASH).amount_sat == 7_001


@pytest.mark.parametrize(
    ("of", "amount_sat", "message"),
    [
        (
            offer(t8=None),
            None,
            "cannot determine the amount to pay for this offer: user amount required",
        ),
        (
            offer(t6=b"USD"),
            None,
            "cannot determine the amount to pay for this offer: offer currency is not supported: USD",
        ),
        (
            OFFER,
            0,
            "Cannot pay invoice for 0 sats (0 sat invoices are not any-amount invoices)",
        ),
        (offer(t2=None), None, "Invoice is for wrong network: bitcoin"),
    ],
    ids=["no amount", "dollars", "zero", "mainnet"],
)
async def test_offers_that_are_not_asked_about(
    payer: Payer, of: Offer, amount_sat: int | None, message: str
) -> None:
    with pytest.raises(BarkdError) as raised:
        await pay_offer(payer, amount_sat, of=of)
    assert chain_text(raised.value) == message
    assert payer.server.offers == []


MORE = truncated_u64(AMOUNT_MSAT + 1)


@pytest.mark.parametrize(
    ("invoice", "problem"),
    [
        (signed(invoice_records(t82=MORE, t170=MORE)), "invoice amount doesn't match the requested amount"),
        (signed(invoice_records(t176=STRANGER.public_key.data), STRANGER), "public keys mismatch"),
        (signed(invoice_records(), STRANGER), "invalid signature"),
        (signed(invoice_records(t10=b"cake")), "invoice is for another offer"),
        (signed(invoice_records(t160=None)), "invoice has no record of type 160"),
        (b"", "invoice has no record of type 160"),
        (b"\x00", "invoice is malformed"),
    ],
    ids=["dearer", "its own key", "its own signature", "another offer", "no paths", "nothing", "garbage"],
)
async def test_a_server_that_brings_another_invoice_is_not_paid(
    payer: Payer, invoice: bytes, problem: str
) -> None:
    payer.server.offer_invoice = invoice
    with pytest.raises(BarkdError) as raised:
        await pay_offer(payer)
    assert chain_text(raised.value).startswith(f"invalid BOLT12 invoice received from offer: {problem}")
    assert payer.server.attempts == {}
    assert await payer.movements() == []


async def test_an_old_invoice_for_an_offer_is_not_paid(payer: Payer) -> None:
    """The payee may have been paid long ago, and the server may have the preimage."""
    created = OFFERED_AT - 7_200
    payer.server.offer_invoice = signed(invoice_records(t168=HASH, t164=truncated_u64(created)))
    with pytest.raises(BarkdError) as raised:
        await pay_offer(payer)
    assert chain_text(raised.value) == "invalid BOLT12 invoice received from offer: invoice has expired"
    assert payer.server.attempts == {}
    assert await payer.movements() == []
    payer.server.offer_invoice = signed(invoice_records(t168=HASH, t164=truncated_u64(created + 1)))
    assert await pay_offer(payer) == HASH


async def test_an_invoice_of_another_network_is_not_paid(payer: Payer) -> None:
    payer.server.offer_invoice = signed(invoice_records(t168=HASH, t80=None))
    with pytest.raises(BarkdError, match="Invoice is for wrong network: bitcoin"):
        await pay_offer(payer)
    assert payer.server.attempts == {}


async def test_a_server_that_brings_none_says_why(payer: Payer) -> None:
    async def refuse(offer: bytes, amount_sat: int | None) -> bytes:
        raise ServerRejected("bad user input: invalid offer")

    payer.liar.answers["fetch_bolt12_invoice"] = refuse
    with pytest.raises(ServerRejected, match="invalid offer"):
        await pay_offer(payer)


# --- services


def service(request: httpx.Request) -> httpx.Response:
    if request.url.host == "broken.example":
        return httpx.Response(500)
    if "amount" not in request.url.params:
        body: dict[str, object] = {
            "tag": "payRequest",
            "callback": f"https://{request.url.host}/pay",
            "minSendable": 1,
            "maxSendable": 10**9,
            "metadata": "[]",
        }
    else:
        network = Network.MAINNET if request.url.host == "mainnet.example" else Network.REGTEST
        msat = int(request.url.params["amount"])
        body = {"pr": bolt11(None, amount_msat=msat, network=network).text}
    return httpx.Response(200, content=json.dumps(body).encode())


@pytest.mark.parametrize(
    ("destination", "kind", "value"),
    [
        (
            LightningAddressDestination("alice@service.example"),
            PaymentMethodKind.LIGHTNING_ADDRESS,
            "alice@service.example",
        ),
        (
            LnurlDestination("lnurl1xyz", "https://service.example/pay"),
            PaymentMethodKind.LNURL,
            "lnurl1xyz",
        ),
    ],
)
async def test_a_service_is_paid(
    sqlite_database: str,
    pay_server: PayServer,
    destination: LightningAddressDestination | LnurlDestination,
    kind: PaymentMethodKind,
    value: str,
) -> None:
    transport = httpx.MockTransport(service)
    async with open_payer(sqlite_database, pay_server, transport=transport) as payer:
        await payer.add_coin()
        assert await payer.sends.pay(destination, 5_000, comment="hello") == HASH
        assert pay_server.attempt(HASH).amount_sat == 5_000
        (sent,) = (await payer.movement()).sent_to
        assert (sent.method, sent.amount_sat) == (PaymentMethod(kind, value), 5_000)


@pytest.mark.parametrize(
    ("destination", "amount_sat", "message"),
    [
        (
            LightningAddressDestination("alice@broken.example"),
            5_000,
            "lightning address error: failed to make lnurl request: status 500",
        ),
        (
            LnurlDestination("lnurl1xyz", "https://broken.example/"),
            5_000,
            "lnurl-pay error: failed to make lnurl request: status 500",
        ),
        (
            LightningAddressDestination("alice@mainnet.example"),
            5_000,
            "Invoice is for wrong network: bitcoin",
        ),
        (LightningAddressDestination("alice@service.example"), None, "user amount required"),
        (
            LnurlDestination("lnurl1xyz", "https://service.example/"),
            0,
            "Cannot pay invoice for 0 sats (0 sat invoices are not any-amount invoices)",
        ),
    ],
)
async def test_services_that_are_not_paid(
    sqlite_database: str,
    pay_server: PayServer,
    destination: LightningAddressDestination | LnurlDestination,
    amount_sat: int | None,
    message: str,
) -> None:
    transport = httpx.MockTransport(service)
    async with open_payer(sqlite_database, pay_server, transport=transport) as payer:
        await payer.add_coin()
        with pytest.raises(BarkdError) as raised:
            await payer.sends.pay(destination, amount_sat)
        assert chain_text(raised.value) == message
        assert await payer.movements() == []


async def test_comments_are_for_services(payer: Payer) -> None:
    with pytest.raises(BarkdError, match="comment is not supported for BOLT-11 invoices"):
        await payer.pay(comment="x")
    with pytest.raises(BarkdError, match="comment is not supported for BOLT-12 offers"):
        await payer.sends.pay(OfferDestination(OFFER), None, comment="x")


# --- amounts and foreign invoices


@pytest.mark.parametrize(
    ("invoice_sat", "user_sat", "paid_sat"),
    [(331, None, 331), (331, 331, 331), (331, 662, 662), (None, 5, 5), (None, 0, 0), (0, 0, 0)],
)
def test_the_amount_of_a_payment(invoice_sat: int | None, user_sat: int | None, paid_sat: int) -> None:
    assert payment_amount_sat(invoice_sat, user_sat) == paid_sat


@pytest.mark.parametrize("case", params("bolt11", kind="valid"))
def test_invoices_of_other_implementations_have_amount_and_network(case: Case) -> None:
    """BOLT-11's own: they are paid, or refused because they are of another network or name no amount."""
    invoice = Bolt11Invoice.parse(case["invoice"])
    method = PaymentMethod(PaymentMethodKind.INVOICE, invoice.text)
    network = next(network for network in Network if invoice.is_of(network))
    other = Network.REGTEST if network is Network.MAINNET else Network.MAINNET
    user_sat = None if invoice.amount_msat is not None else 7
    expected = 7 if invoice.amount_sat is None else -(-(invoice.amount_msat or 0) // 1000)
    assert Order(invoice, user_sat, method).payable_sat(network) == expected
    with pytest.raises(BarkdError, match="Invoice is for wrong network"):
        Order(invoice, user_sat, method).payable_sat(other)
    if invoice.amount_sat:
        with pytest.raises(BarkdError, match=r"invalid user amount: invoice=.* BTC, user=0 BTC"):
            Order(invoice, 0, method).payable_sat(other)
