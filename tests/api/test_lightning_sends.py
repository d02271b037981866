"""Paying over Lightning, over HTTP: every kind of destination, every refusal, what is asked of the wallet."""

import time

import pytest

from barkd_py.bitcoin.address import bech32_encode, to_5_bits
from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.bolt12_invoice import Bolt12Invoice
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import ServerRejected
from barkd_py.wallet.lightning.send.service import LightningSend, SendState
from tests.bitcoin.test_bolt12_invoice import invoice_records, signed
from tests.fakes.lightning import FakeLightning
from tests.fakes.wallet import UNREACHABLE
from tests.support.api_server import RunningApi

PAYMENT_HASH = b"\x77" * 32
OFFER = "lno1zcss9mk8y3wkklfvevcrszlmu23kfrxh49px20665dqwmn4p72pksese"
LNURL = bech32_encode("lnurl", to_5_bits(b"https://service.example/pay?id=1"), 1)
ADDRESS = "user@example.com"

PAY, SEND = "/api/v1/lightning/pay", "/api/v1/wallet/send"
SUCCESS = {PAY: "Payment initiated successfully", SEND: "Payment sent successfully"}
NO_DESTINATION = {
    PAY: "argument is not a valid BOLT-11 invoice, BOLT-12 offer, Lightning address or LNURL",
    SEND: "Argument is not a valid destination. Supported are: Ark addresses, BOLT-11 invoices, "
    "BOLT-12 offers, Lightning addresses and LNURL",
}


def invoice(amount_msat: int | None = 1_000_000, network: Network = Network.REGTEST) -> str:
    return create_invoice(
        SecretKey(b"\x21" * 32),
        network=network,
        amount_msat=amount_msat,
        payment_hash=PAYMENT_HASH,
        payment_secret=b"\x31" * 32,
        timestamp=int(time.time()),
    ).text


async def post(api: RunningApi, path: str, **body: object) -> tuple[int, object]:
    answer = await api.http.post(path, json=body)
    return answer.status_code, answer.json()


def lightning(api: RunningApi) -> FakeLightning:
    found = api.wallet.lightning
    assert isinstance(found, FakeLightning)
    return found


@pytest.mark.parametrize("path", [PAY, SEND])
@pytest.mark.parametrize("text", [invoice(), invoice().upper()])
async def test_an_invoice_is_paid(api: RunningApi, path: str, text: str) -> None:
    status, answer = await post(api, path, destination=text, retry_for_secs=30)
    assert (status, answer) == (200, {"message": SUCCESS[path], "payment_hash": PAYMENT_HASH.hex()})
    (asked,) = lightning(api).asked
    assert (asked.amount_sat, asked.comment, asked.retry_for_secs) == (None, None, 30)


@pytest.mark.parametrize("path", [PAY, SEND])
@pytest.mark.parametrize("destination", [OFFER, ADDRESS, LNURL, LNURL.upper()])
async def test_every_other_kind_is_paid(api: RunningApi, path: str, destination: str) -> None:
    status, answer = await post(api, path, destination=destination, amount_sat=1000)
    assert status == 200
    assert isinstance(answer, dict)
    assert answer["message"] == SUCCESS[path]
    assert len(answer["payment_hash"]) == 64


@pytest.mark.parametrize("path", [PAY, SEND])
@pytest.mark.parametrize("destination", [ADDRESS, LNURL])
async def test_comments_go_to_services(api: RunningApi, path: str, destination: str) -> None:
    await post(api, path, destination=destination, amount_sat=1000, comment="für dich & mich")
    assert lightning(api).asked[0].comment == "für dich & mich"


@pytest.mark.parametrize("path", [PAY, SEND])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"destination": invoice(), "comment": "x"}, "comment is not supported for BOLT-11 invoices"),
        ({"destination": OFFER, "comment": ""}, "comment is not supported for BOLT-12 offers"),
        ({"destination": ADDRESS}, "bad request: amount is required for Lightning addresses"),
        ({"destination": LNURL}, "bad request: amount is required for LNURL"),
    ],
)
async def test_what_a_destination_does_not_take_is_a_bad_request(
    api: RunningApi, path: str, body: dict[str, object], message: str
) -> None:
    assert await post(api, path, **body) == (400, {"message": message})
    assert lightning(api).asked == []


@pytest.mark.parametrize("path", [PAY, SEND])
@pytest.mark.parametrize(
    "destination",
    [
        "",
        "hello",
        f" {invoice()}",
        f"lightning:{invoice()}",
        f"bitcoin:?lightning={invoice()}",
        invoice()[:-1] + ("q" if invoice()[-1] != "q" else "p"),
        "lnurlp://service.example/pay",
        "lnurl1qqqq",
        LNURL[:-1],
        "user@",
        OFFER[:-1],
    ],
)
async def test_what_is_no_destination_is_a_bad_request(api: RunningApi, path: str, destination: str) -> None:
    status, answer = await post(api, path, destination=destination, amount_sat=1000)
    assert (status, answer) == (400, {"message": NO_DESTINATION[path]})


@pytest.mark.parametrize(
    "destination",
    ["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "tark1qqqqqqqqqq"],
)
async def test_what_is_not_lightning_is_not_paid_over_it(api: RunningApi, destination: str) -> None:
    assert await post(api, PAY, destination=destination, amount_sat=1) == (
        400,
        {"message": NO_DESTINATION[PAY]},
    )


@pytest.mark.parametrize("path", [PAY, SEND])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"destination": invoice(network=Network.MAINNET)}, "Invoice is for wrong network: bitcoin"),
        ({"destination": invoice(network=Network.SIGNET)}, "Invoice is for wrong network: signet"),
        ({"destination": invoice(network=Network.TESTNET)}, "Invoice is for wrong network: testnet"),
        (
            {"destination": invoice(), "amount_sat": 5},
            "invalid user amount: invoice=0.00001000 BTC, user=0.00000005 BTC",
        ),
        (
            {"destination": invoice(), "amount_sat": 2001},
            "invalid user amount: invoice=0.00001000 BTC, user=0.00002001 BTC",
        ),
        ({"destination": invoice(None)}, "user amount required"),
        (
            {"destination": invoice(None), "amount_sat": 0},
            "Cannot pay invoice for 0 sats (0 sat invoices are not any-amount invoices)",
        ),
        (
            {"destination": invoice(0)},
            "Cannot pay invoice for 0 sats (0 sat invoices are not any-amount invoices)",
        ),
    ],
)
async def test_what_cannot_be_paid_is_a_failure(
    api: RunningApi, path: str, body: dict[str, object], message: str
) -> None:
    assert await post(api, path, **body) == (500, {"message": message})


@pytest.mark.parametrize("path", [PAY, SEND])
async def test_what_goes_wrong_is_told_with_its_causes(api: RunningApi, path: str) -> None:
    lightning(api).failure = UNREACHABLE
    assert await post(api, path, destination=invoice()) == (500, {"message": str(UNREACHABLE)})
    lightning(api).failure = ServerRejected("bad user input: no", not_found=True)
    assert await post(api, path, destination=invoice()) == (500, {"message": "bad user input: no"})


async def test_a_send_is_found_by_its_hash_and_by_its_invoice(api: RunningApi) -> None:
    preimage = b"\x99" * 32
    lightning(api).sends[PAYMENT_HASH] = LightningSend(PAYMENT_HASH, SendState.PAID, preimage=preimage)
    expected = {
        "payment_hash": PAYMENT_HASH.hex(),
        "state": "paid",
        "invoice": None,
        "preimage": preimage.hex(),
    }
    for identifier in (PAYMENT_HASH.hex(), PAYMENT_HASH.hex().upper(), invoice()):
        answer = await api.http.get(f"/api/v1/lightning/sends/{identifier}")
        assert (answer.status_code, answer.json()) == (200, expected)


async def test_a_send_is_found_by_the_invoice_of_an_offer(api: RunningApi) -> None:
    text = str(Bolt12Invoice.decode(signed(invoice_records(t168=PAYMENT_HASH))))
    lightning(api).sends[PAYMENT_HASH] = LightningSend(PAYMENT_HASH, SendState.PAYMENT_INITIATED, text)
    answer = await api.http.get(f"/api/v1/lightning/sends/{text}")
    assert (answer.json()["payment_hash"], answer.json()["invoice"]) == (PAYMENT_HASH.hex(), text)


async def test_a_send_that_is_not_known_is_unknown(api: RunningApi) -> None:
    answer = await api.http.get(f"/api/v1/lightning/sends/{'0' * 64}")
    assert (answer.status_code, answer.json()) == (
        200,
        {"payment_hash": "0" * 64, "state": "unknown", "invoice": None, "preimage": None},
    )


@pytest.mark.parametrize("identifier", ["x", "0" * 63, "0" * 65, "lnbcrt1qqqq", "g" * 64])
async def test_what_names_no_send_is_a_bad_request(api: RunningApi, identifier: str) -> None:
    answer = await api.http.get(f"/api/v1/lightning/sends/{identifier}")
    assert (answer.status_code, answer.json()) == (
        400,
        {"message": "identifier is not a valid payment hash or invoice"},
    )


async def test_the_fee_of_a_payment_is_estimated(api: RunningApi) -> None:
    answer = await api.http.get("/api/v1/fees/lightning/pay", params={"amount_sat": 1000})
    assert (answer.status_code, answer.json()) == (
        200,
        {"gross_amount_sat": 1007, "fee_sat": 7, "net_amount_sat": 1000, "vtxos_spent": []},
    )
    lightning(api).failure = UNREACHABLE
    answer = await api.http.get("/api/v1/fees/lightning/pay", params={"amount_sat": 1000})
    assert (answer.status_code, answer.json()) == (
        500,
        {"message": f"Failed to estimate lightning send fee: {UNREACHABLE}"},
    )


# --- BIP-321


async def bip321(api: RunningApi, query: str = "", **body: object) -> tuple[int, dict[str, str]]:
    answer = await api.http.post(f"/api/v1/wallet/bip321{query}", json=body)
    found: dict[str, str] = answer.json()
    return answer.status_code, found


async def test_a_uri_without_wishes_names_an_ark_address(api: RunningApi) -> None:
    status, answer = await bip321(api)
    assert status == 200
    assert answer == {"ark": answer["ark"], "bip321": f"bitcoin:?ark={answer['ark']}"}
    assert answer["ark"].startswith("tark1")
    assert (await bip321(api))[1]["ark"] != answer["ark"]


async def test_a_uri_with_everything(api: RunningApi) -> None:
    status, answer = await bip321(
        api, amount_sat=100_000, onchain=True, label="Tea & cake", message="für zwei"
    )
    assert status == 200
    assert list(answer) == ["ark", "bolt11", "onchain", "bip321"]
    assert answer["bip321"] == (
        f"bitcoin:?amount=0.001&label=Tea%20%26%20cake&message=f%C3%BCr%20zwei"
        f"&lightning={answer['bolt11']}&tb={answer['onchain']}&ark={answer['ark']}"
    )


@pytest.mark.parametrize(
    ("amount_sat", "text"), [(1, "0.00000001"), (10, "0.0000001"), (12345678, "0.12345678"), (10**8, "1")]
)
async def test_amounts_are_in_bitcoin(api: RunningApi, amount_sat: int, text: str) -> None:
    _, answer = await bip321(api, amount_sat=amount_sat)
    assert answer["bip321"].startswith(f"bitcoin:?amount={text}&")


async def test_a_uri_in_capitals(api: RunningApi) -> None:
    status, answer = await bip321(api, "?uppercase=true", onchain=True, label="TEA 2")
    assert status == 200
    expected = f"bitcoin:?label=TEA%202&tb={answer['onchain']}&ark={answer['ark']}"
    assert answer["bip321"] == expected.upper()
    assert answer["ark"].islower()


@pytest.mark.parametrize("body", [{"label": "tea"}, {"message": "TEa"}])
async def test_what_has_no_capitals_is_refused_after_it_was_made(
    api: RunningApi, body: dict[str, object]
) -> None:
    before = len(api.wallet.keys)
    assert await bip321(api, "?uppercase=true", **body) == (
        400,
        {"message": "bad request: cannot upper-case the URI: it carries a label, message, or base58 address"},
    )
    assert len(api.wallet.keys) == before + 1


async def test_an_empty_label_is_kept(api: RunningApi) -> None:
    _, answer = await bip321(api, label="")
    assert answer["bip321"].startswith("bitcoin:?label=&ark=")


async def test_a_uri_for_nothing_is_a_failure(api: RunningApi) -> None:
    assert await bip321(api, amount_sat=0) == (
        500,
        {"message": "Failed to build BIP 321 URI: amount cannot be zero"},
    )


async def test_an_invoice_that_fails_fails_the_uri(api: RunningApi) -> None:
    lightning(api).failure = UNREACHABLE
    assert await bip321(api, amount_sat=5) == (
        500,
        {"message": f"Failed to build BIP 321 URI: failed to generate lightning invoice: {UNREACHABLE}"},
    )


async def test_a_uri_needs_a_body(api: RunningApi) -> None:
    answer = await api.http.post("/api/v1/wallet/bip321")
    assert answer.status_code == 415
    answer = await api.http.post(
        "/api/v1/wallet/bip321", content=b"", headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
