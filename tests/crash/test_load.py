"""A hundred payments at once on one daemon, in either direction, with a kill in their middle: each settles or
fails, none is lost, and the money adds up to the sat.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.runner import Devnet, DevnetOptions, running_devnet
from tests.support.processes import Daemon, esplora, eventually

AT_ONCE = 100
RECEIVED_SAT = 20_000
SENT_SAT = 6_000

#: Far more than it takes: machines may be slow.
PATIENCE_SECS = 280.0

pytestmark = pytest.mark.timeout(900)


#: Payers wait for as long as it takes.
SETTINGS = ServerSettings(round_interval_secs=3600, receive_htlc_forward_timeout_secs=3600)


@pytest.fixture
async def devnet(tmp_path: Path) -> AsyncIterator[Devnet]:
    async with running_devnet(DevnetOptions(tmp_path / "devnet", ark_settings=SETTINGS)) as running:
        yield running


@pytest.fixture
async def daemon(tmp_path: Path, devnet: Devnet) -> AsyncIterator[Daemon]:
    running = Daemon(tmp_path / "daemon")
    running.http.timeout = httpx.Timeout(PATIENCE_SECS)
    await running.start()
    await running.create_wallet(devnet.urls.ark_server_url, esplora(devnet.urls.esplora_url))
    yield running
    await running.close()


@pytest.fixture
async def levers(devnet: Devnet) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=devnet.urls.control_url, timeout=PATIENCE_SECS) as client:
        yield client


async def test_a_hundred_payments_at_once(daemon: Daemon, levers: httpx.AsyncClient) -> None:
    received_sat = await _receive(daemon, levers)
    assert (await daemon.get("/wallet/balance"))["spendable_sat"] == received_sat
    spent_sat = await _send(daemon, levers)
    balance = await daemon.get("/wallet/balance")
    assert balance["spendable_sat"] == received_sat - spent_sat
    assert {name for name, sat in balance.items() if sat} == {"spendable_sat"}
    books = (await levers.get("/lightning")).json()
    assert {receive["status"] for receive in books["receives"]} == {"settled"}
    assert {attempt["status"] for attempt in books["attempts"]} == {"succeeded", "failed"}


async def _receive(daemon: Daemon, levers: httpx.AsyncClient) -> int:
    """Be paid by all at once; what came of it."""
    asked = [daemon.post("/lightning/receives/invoice", {"amount_sat": RECEIVED_SAT}) for _ in range(AT_ONCE)]
    invoices = [answer["invoice"] for answer in await asyncio.gather(*asked)]
    payments = [levers.post("/lightning/pay", json={"invoice": invoice}) for invoice in invoices]
    outcomes = [answer.json()["status"] for answer in await asyncio.gather(*payments)]
    assert outcomes == ["settled"] * AT_ONCE
    await eventually(
        lambda: daemon.get("/lightning/receives"), lambda waiting: waiting == [], within_secs=PATIENCE_SECS
    )
    movements = await daemon.get("/history")
    assert [movement["status"] for movement in movements] == ["successful"] * AT_ONCE
    received_sat: int = sum(movement["effective_balance_sat"] for movement in movements)
    fees_sat = sum(movement["offchain_fee_sat"] for movement in movements)
    assert received_sat == AT_ONCE * RECEIVED_SAT - fees_sat
    return received_sat


async def _send(daemon: Daemon, levers: httpx.AsyncClient) -> int:
    """Pay all at once, some of whom refuse, and be killed meanwhile; what it cost."""
    invoices = []
    for index in range(AT_ONCE):
        terms: dict[str, Any] = {"amount_sat": SENT_SAT}
        if index % 10 == 0:
            terms["fail"] = "destination-rejected"
        elif index % 10 == 1:
            terms["delay_secs"] = 0.5
        invoices.append((await levers.post("/lightning/invoice", json=terms)).json()["invoice"])
    started = asyncio.gather(*(_start(daemon, invoice) for invoice in invoices))

    async def nb_attempts() -> int:
        return len((await levers.get("/lightning")).json()["attempts"])

    await eventually(nb_attempts, lambda count: count >= AT_ONCE // 4, within_secs=PATIENCE_SECS)
    daemon.process.kill()
    is_started = await started
    await daemon.start()
    # Whoever got no answer asks again; nothing is paid twice.
    again = [invoice for invoice, known in zip(invoices, is_started, strict=True) if not known]
    assert again, "the kill came too late to prove anything"
    await asyncio.gather(*(_start(daemon, invoice) for invoice in again))

    async def finished_sends() -> list[dict[str, Any]] | None:
        movements = await daemon.get("/history")
        found = [each for each in movements if each["subsystem"]["kind"] == "send"]
        is_over = {_invoice_of(each) for each in found} == set(invoices)
        return found if is_over and all(each["status"] != "pending" for each in found) else None

    good = [invoice for index, invoice in enumerate(invoices) if index % 10 != 0]
    while True:
        sends = await eventually(finished_sends, lambda found: found is not None, within_secs=PATIENCE_SECS)
        assert sends is not None
        got_through = {_invoice_of(each) for each in sends if each["status"] == "successful"}
        # What the kill caught may have failed, cleanly: it can be paid again.
        again = [invoice for invoice in good if invoice not in got_through]
        if not again:
            break
        await asyncio.gather(*(_start(daemon, invoice) for invoice in again))
    paid = [each for each in sends if each["status"] == "successful"]
    refused = [each for each in sends if each["status"] == "failed"]
    assert sorted(_invoice_of(each) for each in paid) == sorted(good)
    assert {each["effective_balance_sat"] for each in refused} == {0}
    taken = (await levers.get("/lightning")).json()["invoices"]
    assert sum(each["state"] == "paid" for each in taken) == len(good)
    spent_sat: int = -sum(each["effective_balance_sat"] for each in paid)
    assert spent_sat == sum(SENT_SAT + each["offchain_fee_sat"] for each in paid)
    return spent_sat


def _invoice_of(movement: dict[str, Any]) -> str:
    return str(movement["sent_to"][0]["destination"]["value"])


async def _start(daemon: Daemon, invoice: str) -> bool:
    """Ask for a payment; whether there was an answer."""
    try:
        answer = await daemon.http.post("/lightning/pay", json={"destination": invoice})
    except httpx.TransportError:
        return False
    already = ("already been paid", "already in progress")
    assert answer.status_code == 200 or any(text in answer.text for text in already), answer.text
    return True
