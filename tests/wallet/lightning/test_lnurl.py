"""LNURL-pay: what is asked, what is believed, and what is never asked."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.units import Network
from barkd_py.errors import chain_text
from barkd_py.wallet.lightning.send.lnurl import MAX_ANSWER_BYTES, LnurlClient, LnurlFailed
from barkd_py.wallet.payments.request import LightningAddressDestination
from tests.wallet.lightning.payer import bolt11

URL = "https://service.example/.well-known/lnurlp/alice"
METADATA = '[["text/plain","for alice"],["image/png;base64","AAAA"]]'


@dataclass
class Service:
    """An LNURL-pay service. offer, answer: what is changed in its two answers."""

    offer: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    invoice: Callable[[int], str] = lambda amount_msat: (
        bolt11(None, amount_msat=amount_msat, description_hash=sha256(METADATA.encode())).text
    )
    asked: list[httpx.Request] = field(default_factory=list)
    respond: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        special = self.respond(request)
        if special is not None:
            return special
        if "amount" not in request.url.params:
            offer = {
                "tag": "payRequest",
                "callback": "https://service.example/pay?id=7",
                "minSendable": 1_000,
                "maxSendable": 50_000_000,
                "metadata": METADATA,
            }
            return _json({**offer, **self.offer})
        invoice = self.invoice(int(request.url.params["amount"]))
        return _json({"pr": invoice, "routes": [], **self.answer})

    def client(self, network: Network = Network.MAINNET, **options: Any) -> LnurlClient:
        return LnurlClient(network, transport=httpx.MockTransport(self), resolve=_public, **options)


def _json(body: object) -> httpx.Response:
    return httpx.Response(200, content=json.dumps(body).encode())


async def _public(host: str, port: int) -> Sequence[str]:
    return ["93.184.215.14"]


async def failure(
    service: Service, amount_sat: int = 10_000, comment: str | None = None, **options: Any
) -> str:
    with pytest.raises(LnurlFailed) as raised:
        await service.client(**options).request_invoice(URL, amount_sat, comment)
    return chain_text(raised.value)


async def test_an_invoice_is_asked_for() -> None:
    service = Service()
    invoice = await service.client().request_invoice(URL, 10_000, None)
    assert invoice.amount_msat == 10_000_000
    first, second = service.asked
    assert first.headers["host"] == second.headers["host"] == "service.example"
    assert first.url.path == "/.well-known/lnurlp/alice"
    assert str(second.url).endswith("/pay?id=7&amount=10000000")


async def test_the_address_that_was_looked_up_is_the_one_that_is_asked() -> None:
    """The name could mean another machine a moment later."""
    service = Service()
    await service.client().request_invoice(URL, 10_000, None)
    assert {request.url.host for request in service.asked} == {"93.184.215.14"}
    assert {request.extensions["sni_hostname"] for request in service.asked} == {"service.example"}


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        ("https://service.example/pay", "/pay?amount=10000000"),
        ("https://service.example/pay?x=1", "/pay?x=1&amount=10000000"),
        ("https://service.example/pay?x=1#part", "/pay?x=1&amount=10000000"),
        ("/relative", "/relative?amount=10000000"),
    ],
)
async def test_callbacks_of_every_form(callback: str, expected: str) -> None:
    service = Service(offer={"callback": callback})
    await service.client().request_invoice(URL, 10_000, None)
    assert str(service.asked[1].url).endswith(expected)


async def test_a_comment_is_escaped() -> None:
    service = Service(offer={"commentAllowed": 100})
    comment = "für 2 & mehr #1 ?amount=1"
    await service.client().request_invoice(URL, 10_000, comment)
    assert service.asked[1].url.params["comment"] == comment
    assert service.asked[1].url.params.get_list("amount") == ["10000000"]
    assert b"%20" in service.asked[1].url.raw_path


async def test_a_comment_is_sent_to_a_service_that_says_nothing_of_comments() -> None:
    service = Service()
    await service.client().request_invoice(URL, 10_000, "hello")
    assert service.asked[1].url.params["comment"] == "hello"


async def test_a_comment_is_measured_in_bytes() -> None:
    service = Service(offer={"commentAllowed": 4})
    await service.client().request_invoice(URL, 10_000, "vier")
    assert await failure(service, comment="fünf") == "comment is longer than the 4 bytes that the payee takes"
    assert await failure(Service(offer={"commentAllowed": 0}), comment="x") == (
        "comment is longer than the 0 bytes that the payee takes"
    )


@pytest.mark.parametrize("amount_sat", [1, 50_000])
async def test_the_bounds_are_within(amount_sat: int) -> None:
    await Service().client().request_invoice(URL, amount_sat, None)


async def test_more_or_less_than_the_payee_takes() -> None:
    text = "amount of {} msat is not within what the payee takes: 2000 to 50000000 msat"
    service = Service(offer={"minSendable": 2_000})
    assert await failure(service, 1) == text.format(1_000)
    assert await failure(service, 50_001) == text.format(50_001_000)
    assert len(service.asked) == 2  # nothing was asked of the callback


# --- invoices that are not what was asked for


async def test_another_amount_is_refused() -> None:
    service = Service(invoice=lambda amount_msat: bolt11(None, amount_msat=amount_msat + 1).text)
    assert await failure(service) == (
        "lnurl-pay endpoint returned an invoice for 10000001 msat, "
        "but we requested 0.00010000 BTC (10000000 msat)"
    )


async def test_no_amount_is_refused() -> None:
    service = Service(invoice=lambda _: bolt11(None).text)
    assert await failure(service) == (
        "lnurl-pay endpoint returned an amountless invoice, but we requested 0.00010000 BTC"
    )


async def test_another_description_is_refused() -> None:
    service = Service(
        invoice=lambda msat: bolt11(None, amount_msat=msat, description_hash=sha256(b"another")).text
    )
    assert await failure(service) == (
        "lnurl-pay endpoint returned an invoice that commits to another description"
    )


async def test_an_invoice_that_commits_to_nothing_is_taken() -> None:
    service = Service(invoice=lambda msat: bolt11(None, amount_msat=msat, description="for alice").text)
    assert (await service.client().request_invoice(URL, 10_000, None)).description == "for alice"


@pytest.mark.parametrize("text", ["", "lnbc1", "lni1qqqq", "lno1qqqq"])
async def test_what_is_no_invoice_is_refused(text: str) -> None:
    assert (await failure(Service(invoice=lambda _: text))).startswith("received invalid invoice: ")


# --- answers that are none


@pytest.mark.parametrize(
    ("offer", "message"),
    [
        ({"tag": "withdrawRequest"}, "received lnurl withdraw"),
        ({"tag": "channelRequest"}, "received lnurl channel"),
        ({"tag": "login"}, "failed to make lnurl request: the answer is none of lnurl-pay"),
        (
            {"tag": None, "status": "ERROR", "reason": "closed"},
            "failed to make lnurl request: the service says: closed",
        ),
        ({"callback": None}, "failed to make lnurl request: the answer has no callback or metadata"),
        ({"metadata": []}, "failed to make lnurl request: the answer has no callback or metadata"),
        ({"minSendable": "1"}, "failed to make lnurl request: the answer has no bounds of the amount"),
        ({"minSendable": -1}, "failed to make lnurl request: the answer has no bounds of the amount"),
        ({"maxSendable": 2**64}, "failed to make lnurl request: the answer has no bounds of the amount"),
        ({"maxSendable": 1.5}, "failed to make lnurl request: the answer has no bounds of the amount"),
        ({"maxSendable": True}, "failed to make lnurl request: the answer has no bounds of the amount"),
        (
            {"commentAllowed": "many"},
            "failed to make lnurl request: the answer has a malformed length of comments",
        ),
    ],
)
async def test_answers_of_another_kind(offer: dict[str, Any], message: str) -> None:
    assert await failure(Service(offer=offer)) == message


async def test_a_service_that_gives_no_invoice_says_why() -> None:
    service = Service(answer={"pr": None, "status": "ERROR", "reason": "x" * 1000})
    assert await failure(service) == (f"failed to fetch invoice from lnurlpay: the service says: {'x' * 200}")


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (httpx.Response(500), "status 500"),
        (httpx.Response(404, content=b"{}"), "status 404"),
        (httpx.Response(200, content=b"no"), "the answer is no JSON"),
        (httpx.Response(200, content=b"[]"), "the answer is no JSON object"),
        (httpx.Response(200, content=b"[" * 100_000), "the answer is no JSON"),
        (httpx.Response(200, content=b"\xff\xfe"), "the answer is no JSON"),
        (httpx.Response(200, content=b'{"status": "ERROR", "reason": "\\ud800"}'), "the answer is no JSON"),
        (httpx.Response(200, content=b'{"status": "ERROR", "reason": "a\\nb"}'), "the service says: a b"),
        (httpx.Response(200, content=b" " * (MAX_ANSWER_BYTES + 1)), "the answer is too long"),
    ],
)
async def test_answers_that_cannot_be_read(response: httpx.Response, problem: str) -> None:
    assert await failure(Service(respond=lambda _: response)) == f"failed to make lnurl request: {problem}"


async def test_a_service_that_is_not_there() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    assert await failure(Service(respond=refuse)) == ("failed to make lnurl request: ConnectError: refused")


async def test_a_service_that_does_not_answer_is_given_up() -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    client = LnurlClient(Network.MAINNET, transport=Silent(), resolve=_public, timeout_secs=0.01)
    with pytest.raises(LnurlFailed, match="does not answer in time"):
        await client.request_invoice(URL, 10_000, None)


# --- where nothing is asked


@pytest.mark.parametrize(
    "url",
    [
        "http://service.example/pay",
        "ftp://service.example/pay",
        "file:///etc/passwd",
        "https:///pay",
        "https://user:secret@service.example/pay",
        "https://service.example:port/pay",
        "not a url",
        "",
    ],
)
async def test_urls_that_are_not_asked(url: str) -> None:
    service = Service()
    with pytest.raises(LnurlFailed, match="failed to make lnurl request"):
        await service.client().request_invoice(url, 10_000, None)
    assert service.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:127.0.0.1",
    ],
)
async def test_nothing_is_asked_in_the_network_of_this_machine(address: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["93.184.215.14", address]

    service = Service()
    client = LnurlClient(Network.MAINNET, transport=httpx.MockTransport(service), resolve=resolve)
    with pytest.raises(LnurlFailed) as raised:
        await client.request_invoice(URL, 10_000, None)
    assert chain_text(raised.value) == "failed to make lnurl request: not a public address"
    assert service.asked == []


async def test_a_host_that_is_not_found() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("Name or service not known")

    client = LnurlClient(Network.MAINNET, transport=httpx.MockTransport(Service()), resolve=resolve)
    with pytest.raises(LnurlFailed) as raised:
        await client.request_invoice("https://nothing.invalid/x", 10_000, None)
    assert chain_text(raised.value).startswith("failed to make lnurl request: nothing.invalid is not found")


@pytest.mark.parametrize("where", ["first", "callback", "redirect"])
async def test_a_service_cannot_send_us_into_our_network(where: str) -> None:
    inside = "http://127.0.0.1:8332/"

    def redirect(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(302, headers={"location": inside}) if where == "redirect" else None

    service = Service(offer={"callback": inside} if where == "callback" else {}, respond=redirect)
    with pytest.raises(LnurlFailed) as raised:
        await service.client().request_invoice(inside if where == "first" else URL, 10_000, None)
    assert chain_text(raised.value).endswith(": only https is allowed")
    assert len(service.asked) == (0 if where == "first" else 1)


async def test_few_redirects_are_followed() -> None:
    def moved(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.startswith("/.well-known"):
            return httpx.Response(301, headers={"location": "/new?from=1"})
        return None

    assert (await Service(respond=moved).client().request_invoice(URL, 10_000, None)).amount_sat == 10_000

    def loop(_: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": URL})

    service = Service(respond=loop)
    assert await failure(service) == "failed to make lnurl request: too many redirects"
    assert len(service.asked) == 4


async def test_onion_services_need_no_tls() -> None:
    service = Service(offer={"callback": "http://abc.onion/pay"})
    await service.client().request_invoice("http://abc.onion/x", 10_000, None)
    assert [request.url.host for request in service.asked] == ["abc.onion", "abc.onion"]


async def test_names_are_looked_up_by_the_proxy() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise AssertionError("a look-up would tell who is paid")

    service = Service()
    client = LnurlClient(
        Network.MAINNET,
        socks5_proxy="socks5h://127.0.0.1:9050",
        transport=httpx.MockTransport(service),
        resolve=resolve,
    )
    await client.request_invoice(URL, 10_000, None)
    assert {request.url.host for request in service.asked} == {"service.example"}


async def test_on_regtest_services_are_anywhere() -> None:
    service = Service(offer={"callback": "http://127.0.0.1:3000/pay"})
    address = LightningAddressDestination("alice@127.0.0.1:3000")
    await service.client(Network.REGTEST).request_invoice(address.url, 10_000, None)
    assert str(service.asked[0].url) == "http://127.0.0.1:3000/.well-known/lnurlp/alice"
