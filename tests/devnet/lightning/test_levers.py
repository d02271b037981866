"""The levers of Lightning: what nodes outside Ark issue is what wallets read; bad requests are refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio

from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.bolt12_invoice import Bolt12Invoice, UnexpectedBolt12Invoice, genesis_hash
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.runner import Devnet, DevnetOptions, running_devnet
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos.bark_server_pb2_grpc import ArkServiceStub
from tests.devnet.levers import levers_of, pull

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUIET = ServerSettings(round_interval_secs=3600)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Devnet]:
    options = DevnetOptions(tmp_path_factory.mktemp("devnet"), ark_settings=QUIET)
    async with running_devnet(options) as devnet:
        yield devnet


@pytest_asyncio.fixture(loop_scope="module")
async def levers(running: Devnet) -> AsyncIterator[httpx.AsyncClient]:
    async with levers_of(running) as levers:
        yield levers


async def fetch(running: Devnet, offer: Offer, amount_sat: int | None = None) -> Bolt12Invoice:
    """The invoice that the Ark server gets for an offer."""
    request = pb.FetchBolt12InvoiceRequest(offer=offer.data)
    if amount_sat is not None:
        request.amount_sat = amount_sat
    async with grpc.aio.insecure_channel(running.urls.ark_server_url.removeprefix("http://")) as channel:
        stub: Any = ArkServiceStub(channel)  # type: ignore[no-untyped-call]
        return Bolt12Invoice.decode((await stub.FetchBolt12Invoice(request)).invoice)


async def test_invoice(levers: httpx.AsyncClient) -> None:
    asked = await pull(
        levers,
        "/lightning/invoice",
        amount_msat=12_345_678,
        description="tea",
        expiry_secs=60,
        min_final_cltv_delta=30,
        preimage="42" * 32,
    )
    invoice = Bolt11Invoice.parse(asked["invoice"])
    assert (invoice.amount_msat, invoice.description) == (12_345_678, "tea")
    assert (invoice.expiry_secs, invoice.min_final_cltv_delta) == (60, 30)
    assert invoice.payment_hash == sha256(b"\x42" * 32) == bytes.fromhex(asked["payment_hash"])
    assert invoice.is_of(Network.REGTEST)
    books = (await levers.get("/lightning")).json()
    assert str(invoice.payee) == books["outside_node_id"] != books["node_id"]


async def test_invoice_without_amount(levers: httpx.AsyncClient) -> None:
    asked = await pull(levers, "/lightning/invoice")
    assert Bolt11Invoice.parse(asked["invoice"]).amount_msat is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("invoice", {"amount_sat": 0}),
        ("invoice", {"amount_sat": "1"}),
        ("invoice", {"fail": "bad weather"}),
        ("invoice", {"hold": 1}),
        ("invoice", {"fail_times": True}),
        ("invoice", {"preimage": "42"}),
        ("pay", {}),
        ("pay", {"invoice": "lnbcrt1"}),
        ("settle", {"payment_hash": "zz"}),
        ("fail", {"payment_hash": "42" * 32, "reason": "bad weather"}),
        ("address", {"name": "Anna Smith"}),
        ("address", {"name": "anna", "min_sendable_msat": 0}),
    ],
)
async def test_requests_that_are_refused(levers: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    answer = await levers.post(f"/lightning/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_nothing_to_settle(levers: httpx.AsyncClient) -> None:
    unknown = await levers.post("/lightning/settle", json={"payment_hash": "43" * 32})
    assert unknown.status_code == 404
    asked = await pull(levers, "/lightning/invoice", amount_sat=1)
    unpaid = await levers.post("/lightning/fail", json={"payment_hash": asked["payment_hash"]})
    assert (unpaid.status_code, unpaid.json()["error"]) == (400, "no payment is waiting")


async def test_invoice_of_somebody_else_is_not_paid(levers: httpx.AsyncClient) -> None:
    asked = await pull(levers, "/lightning/invoice", amount_sat=1_000)
    paid = await pull(levers, "/lightning/pay", invoice=asked["invoice"])
    assert (paid["status"], paid["reason"]) == ("failed", "no-route")


@pytest.mark.parametrize("by_path", [False, True])
async def test_offers_and_their_invoices(running: Devnet, levers: httpx.AsyncClient, by_path: bool) -> None:
    asked = await pull(
        levers, "/lightning/offer", amount_msat=7_000_500, description="coffee", by_path=by_path
    )
    offer = Offer.parse(asked["offer"])
    assert (offer.amount_msat, offer.description) == (7_000_500, "coffee")
    assert (offer.issuer_id is None) == by_path
    assert offer.is_of(genesis_hash(Network.REGTEST), mainnet=False)
    for amount_sat, wanted_msat in ((None, 7_001_000), (8_000, 8_000_000)):
        (await fetch(running, offer, amount_sat)).verify(offer, wanted_msat)
    first, second = await fetch(running, offer), await fetch(running, offer)
    assert first.payment_hash != second.payment_hash


async def test_offer_whose_amount_is_the_payers(running: Devnet, levers: httpx.AsyncClient) -> None:
    offer = Offer.parse((await pull(levers, "/lightning/offer"))["offer"])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fetch(running, offer)
    assert refused.value.details() == (
        "bad user input: cannot determine the amount to request for this offer: user amount required"
    )
    (await fetch(running, offer, 5)).verify(offer, 5_000)


@pytest.mark.parametrize(
    ("lie", "text"), [({"foreign_key": True}, "public keys mismatch"), ({"answer_msat": 9}, "amount")]
)
async def test_forged_invoices(
    running: Devnet, levers: httpx.AsyncClient, lie: dict[str, Any], text: str
) -> None:
    offer = Offer.parse((await pull(levers, "/lightning/offer", amount_sat=5, **lie))["offer"])
    with pytest.raises(UnexpectedBolt12Invoice, match=text):
        (await fetch(running, offer)).verify(offer, 5_000)


async def test_offer_that_nobody_made(running: Devnet, levers: httpx.AsyncClient) -> None:
    text = (await pull(levers, "/lightning/offer", amount_sat=5))["offer"]
    for data in (b"", Offer.parse(text).data[:-1]):
        async with grpc.aio.insecure_channel(running.urls.ark_server_url.removeprefix("http://")) as channel:
            stub: Any = ArkServiceStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.FetchBolt12Invoice(pb.FetchBolt12InvoiceRequest(offer=data))
        assert refused.value.details() == "bad user input: invalid offer"


async def test_lnurl_of_anybody(running: Devnet, levers: httpx.AsyncClient) -> None:
    for path in ("/.well-known/lnurlp/zoe", "/lnurlp/zoe"):
        answer = (await levers.get(path)).json()
        assert (answer["tag"], answer["commentAllowed"]) == ("payRequest", 140)
        assert answer["callback"] == f"{running.urls.control_url}/lnurlp/zoe/callback"
    given = (await levers.get(answer["callback"], params={"amount": 5_000, "comment": "hi"})).json()
    invoice = Bolt11Invoice.parse(given["pr"])
    assert invoice.amount_msat == 5_000
    assert invoice.description_hash == sha256(answer["metadata"].encode())
    found = (await levers.get("/lightning")).json()["invoices"]
    assert [each["comment"] for each in found if each["invoice"] == given["pr"]] == ["hi"]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({}, "amount is missing"),
        ({"amount": "x"}, "amount is missing"),
        ({"amount": 1}, "amount is out of bounds"),
        ({"amount": 5_000, "comment": "x" * 141}, "comment is too long"),
    ],
)
async def test_lnurl_refuses(levers: httpx.AsyncClient, query: dict[str, Any], reason: str) -> None:
    answer = (await levers.get("/lnurlp/zoe/callback", params=query)).json()
    assert answer == {"status": "ERROR", "reason": reason}


async def test_lnurl_that_behaves_as_it_is_told(levers: httpx.AsyncClient) -> None:
    made = await pull(
        levers, "/lightning/address", name="mallory", answer_msat=9_000, comment_allowed=None, tag="login"
    )
    assert made["address"].startswith("mallory@127.0.0.1:")
    answer = (await levers.get("/lnurlp/mallory")).json()
    assert answer["tag"] == "login"
    assert "commentAllowed" not in answer
    given = (await levers.get("/lnurlp/mallory/callback", params={"amount": 5_000})).json()
    assert Bolt11Invoice.parse(given["pr"]).amount_msat == 9_000
    await pull(levers, "/lightning/address", name="mallory", error="closed")
    refused = (await levers.get("/lnurlp/mallory/callback", params={"amount": 5_000})).json()
    assert refused == {"status": "ERROR", "reason": "closed"}


async def test_everything_is_kept_over_a_restart(tmp_path: Path) -> None:
    options = DevnetOptions(tmp_path, ark_settings=QUIET)
    async with (
        running_devnet(options) as devnet,
        httpx.AsyncClient(base_url=devnet.urls.control_url, trust_env=False, timeout=60.0) as levers,
    ):
        asked = await pull(levers, "/lightning/invoice", amount_sat=5, hold=True)
        offer = Offer.parse((await pull(levers, "/lightning/offer", amount_sat=5))["offer"])
        await pull(levers, "/lightning/address", name="anna", error="closed")
        before = (await levers.get("/lightning")).json()
    async with (
        running_devnet(options) as devnet,
        httpx.AsyncClient(base_url=devnet.urls.control_url, trust_env=False, timeout=60.0) as levers,
    ):
        after = (await levers.get("/lightning")).json()
        assert after == before
        assert asked["invoice"] in {each["invoice"] for each in after["invoices"]}
        (await fetch(devnet, offer)).verify(offer, 5_000)
        refused = (await levers.get("/lnurlp/anna/callback", params={"amount": 5_000})).json()
        assert refused["reason"] == "closed"
