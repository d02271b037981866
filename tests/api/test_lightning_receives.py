"""Payments that come in, over HTTP."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from barkd_py.ark.address import ArkAddress
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from tests.fakes.wallet import MAILBOX_SECRET, SERVER_SECRET, UNREACHABLE, some_vtxo
from tests.support.api_server import RunningApi

RECEIVES = "/api/v1/lightning/receives"
MOMENT = datetime(2026, 6, 1, 12, 0, 0, 500_000, tzinfo=UTC)
OTHER = str(
    ArkAddress.for_vtxo_key(
        SecretKey(b"\x71" * 32),
        server_pubkey=SERVER_SECRET.public_key,
        server_mailbox_pubkey=MAILBOX_SECRET.public_key,
        mailbox_id=SecretKey(b"\x72" * 32).public_key,
        network=Network.REGTEST,
    )
)


async def create(api: RunningApi, **body: Any) -> Bolt11Invoice:
    answer = await api.http.post(f"{RECEIVES}/invoice", json={"amount_sat": 1_000, **body})
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"invoice"}
    return Bolt11Invoice.parse(answer.json()["invoice"])


async def test_an_invoice_is_as_it_was_asked_for(api: RunningApi) -> None:
    invoice = await create(api, description="a coffee", token="a token")
    assert (invoice.amount_sat, invoice.description) == (1_000, "a coffee")
    assert api.wallet.lightning.tokens == ["a token"]


async def test_a_pending_payment_has_the_names_of_all_versions(api: RunningApi) -> None:
    invoice = await create(api)
    expected = api.wallet.lightning.expected[invoice.payment_hash]
    (listed,) = (await api.http.get(RECEIVES)).json()
    assert listed == {
        "payment_hash": invoice.payment_hash.hex(),
        "state": "awaiting-payment",
        "invoice": invoice.text,
        "payment_preimage": expected.preimage.data.hex(),
        "amount_sat": 1_000,
        "htlc_vtxo_ids": [],
        "settled_at": None,
        "preimage_revealed_at": None,
        "finished_at": None,
        "htlc_vtxos": [],
    }


async def test_the_oldest_comes_first(api: RunningApi) -> None:
    invoices = [(await create(api)).text for _ in range(3)]
    assert [each["invoice"] for each in (await api.http.get(RECEIVES)).json()] == invoices


async def test_granted_vtxos_and_moments_are_shown(api: RunningApi) -> None:
    invoice = await create(api)
    htlc = some_vtxo("11" * 32 + ":0", 900)
    expected = api.wallet.lightning.expected
    expected[invoice.payment_hash] = replace(
        expected[invoice.payment_hash],
        state="preimage-revealed",
        htlc_vtxos=(htlc,),
        preimage_revealed_at=MOMENT,
    )
    shown = (await api.http.get(f"{RECEIVES}/{invoice.payment_hash.hex()}")).json()
    assert shown["htlc_vtxo_ids"] == [str(htlc.id)]
    assert [each["id"] for each in shown["htlc_vtxos"]] == [str(htlc.id)]
    assert shown["preimage_revealed_at"] == "2026-06-01T12:00:00.500Z"
    assert (shown["settled_at"], shown["finished_at"]) == (None, None)


async def test_a_settled_payment_is_found_by_all_its_names(api: RunningApi) -> None:
    invoice = await create(api)
    expected = api.wallet.lightning.expected
    settled = replace(expected[invoice.payment_hash], state="settled", settled_at=MOMENT, finished_at=MOMENT)
    expected[invoice.payment_hash] = settled
    assert (await api.http.get(RECEIVES)).json() == []
    names = [invoice.payment_hash.hex(), invoice.text, invoice.text.upper(), settled.preimage.data.hex()]
    names += [invoice.payment_hash.hex().upper(), settled.preimage.data.hex().upper()]
    for name in names:
        shown = await api.http.get(f"{RECEIVES}/{name}")
        assert shown.status_code == 200, name
        assert shown.json()["state"] == "settled"
        assert shown.json()["settled_at"] == shown.json()["finished_at"] == "2026-06-01T12:00:00.500Z"


async def test_a_lost_payment_is_finished_and_not_settled(api: RunningApi) -> None:
    invoice = await create(api)
    expected = api.wallet.lightning.expected
    expected[invoice.payment_hash] = replace(
        expected[invoice.payment_hash],
        state="preimage-revealed",
        preimage_revealed_at=MOMENT,
        finished_at=MOMENT,
    )
    shown = (await api.http.get(f"{RECEIVES}/{invoice.payment_hash.hex()}")).json()
    assert (shown["state"], shown["settled_at"]) == ("preimage-revealed", None)
    assert shown["finished_at"] == "2026-06-01T12:00:00.500Z"


async def test_an_unknown_payment_is_not_found(api: RunningApi) -> None:
    """As documented by all versions; the newest says 500."""
    answer = await api.http.get(f"{RECEIVES}/{'ab' * 32}")
    assert answer.status_code == 404
    assert answer.json() == {"resources": ["ab" * 32], "message": "No invoice found"}


@pytest.mark.parametrize("name", ["x", "ab" * 31, "ab" * 33, "lnbcrt1", "zz" * 32])
async def test_names_of_nothing(api: RunningApi, name: str) -> None:
    found = await api.http.get(f"{RECEIVES}/{name}")
    assert (found.status_code, found.json()["message"]) == (
        400,
        "identifier is not a valid payment hash, invoice or preimage",
    )
    canceled = await api.http.delete(f"{RECEIVES}/{name}")
    assert (canceled.status_code, canceled.json()["message"]) == (
        400,
        "identifier is not a valid payment hash or invoice",
    )


async def test_a_payment_is_canceled_by_hash_or_invoice(api: RunningApi) -> None:
    first, second = await create(api), await create(api)
    for name in (first.payment_hash.hex(), second.text):
        answer = await api.http.delete(f"{RECEIVES}/{name}")
        assert (answer.status_code, answer.content) == (200, b"")
    again = await api.http.delete(f"{RECEIVES}/{first.text}")
    assert (again.status_code, again.json()["message"]) == (
        500,
        "Failed to cancel lightning receive: no pending lightning receive found for this payment hash",
    )


async def test_what_is_too_late_to_cancel(api: RunningApi) -> None:
    invoice = await create(api)
    expected = api.wallet.lightning.expected
    expected[invoice.payment_hash] = replace(expected[invoice.payment_hash], state="preimage-revealed")
    answer = await api.http.delete(f"{RECEIVES}/{invoice.text}")
    assert (answer.status_code, answer.json()["message"]) == (
        500,
        "Failed to cancel lightning receive: cannot cancel: preimage has already been revealed",
    )


async def test_a_payment_that_is_named_by_its_preimage_is_not_in_the_log(
    api: RunningApi, caplog: pytest.LogCaptureFixture
) -> None:
    invoice = await create(api)
    expected = api.wallet.lightning.expected
    expected[invoice.payment_hash] = replace(expected[invoice.payment_hash], state="preimage-revealed")
    preimage = expected[invoice.payment_hash].preimage.data.hex()
    assert (await api.http.delete(f"{RECEIVES}/{preimage}")).status_code == 500
    assert f"DELETE {RECEIVES}/{{identifier}} failed with 500" in caplog.text
    assert preimage not in caplog.text


async def test_an_invoice_over_nothing(api: RunningApi) -> None:
    answer = await api.http.post(f"{RECEIVES}/invoice", json={"amount_sat": 0})
    assert (answer.status_code, answer.json()["message"]) == (
        500,
        "Failed to create invoice: Cannot create invoice for 0 sats "
        "(this would create an explicit 0 sat invoice, not an any-amount invoice)",
    )


async def test_a_server_that_is_away(api: RunningApi) -> None:
    api.wallet.lightning.failure = UNREACHABLE
    for path, body in (
        ("invoice", {"amount_sat": 1_000}),
        ("invoice/for-address", {"amount_sat": 1_000, "address": OTHER}),
    ):
        answer = await api.http.post(f"{RECEIVES}/{path}", json=body)
        assert answer.status_code == 500
        assert answer.json()["message"].startswith("Failed to create invoice")
    estimate = await api.http.get("/api/v1/fees/lightning/receive?amount_sat=1000")
    assert estimate.status_code == 500
    assert estimate.json()["message"].startswith("Failed to estimate lightning receive fee: ")


async def test_an_invoice_for_an_address(api: RunningApi) -> None:
    answer = await api.http.post(
        f"{RECEIVES}/invoice/for-address", json={"amount_sat": 1_000, "address": OTHER, "description": "x"}
    )
    assert answer.status_code == 200
    assert Bolt11Invoice.parse(answer.json()["invoice"]).description == "x"
    assert api.wallet.lightning.addresses == [ArkAddress.parse(OTHER)]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("x", "bad request: address is not a valid Ark address: bech32m decoding error: parsing failed"),
        (
            str(replace(ArkAddress.parse(OTHER), deliveries=())),
            "bad request: invalid arkoor address: no mailbox delivery mechanism configured on destination",
        ),
    ],
)
async def test_an_address_that_will_not_do(api: RunningApi, address: str, message: str) -> None:
    answer = await api.http.post(
        f"{RECEIVES}/invoice/for-address", json={"amount_sat": 1_000, "address": address}
    )
    assert (answer.status_code, answer.json()["message"]) == (400, message)
    assert api.wallet.lightning.expected == {}


async def test_the_estimate(api: RunningApi) -> None:
    answer = await api.http.get("/api/v1/fees/lightning/receive?amount_sat=1000")
    assert answer.json() == {
        "gross_amount_sat": 1_000, "fee_sat": 7, "net_amount_sat": 993, "vtxos_spent": [],
    }  # fmt: skip
