"""The real bark wallet and our daemon pay and are paid over Lightning, by each other and by nodes outside
Ark, on our devnet: both tell the same story, to the sat.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support.processes import Bark, Daemon, Devnet, esplora, eventually

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

BOARD_SAT = 400_000
ONCHAIN_SAT = 500_000

#: A week of devnet's clock would do; the receivers' time is 3 minutes.
FORWARD_TIMEOUT_SECS = 181


@dataclass(frozen=True)
class Wallets:
    """Both wallets with some money, and the network around them."""

    devnet: Devnet
    daemon: Daemon
    bark: Bark

    # --- ours

    async def balance_sat(self) -> int:
        spendable_sat: int = (await self.daemon.get("/wallet/balance"))["spendable_sat"]
        return spendable_sat

    async def pay(self, destination: str, **fields: Any) -> str:
        """Our daemon pays; the payment hash."""
        answer = await self.daemon.post("/lightning/pay", {"destination": destination, **fields})
        payment_hash: str = answer["payment_hash"]
        return payment_hash

    async def paid(self, payment_hash: str) -> dict[str, Any]:
        """The state of a payment of ours once it has arrived. Unasked: nobody calls sync."""
        return await eventually(
            lambda: self.daemon.get(f"/lightning/sends/{payment_hash}"), lambda send: send["state"] == "paid"
        )

    async def movement(self, kind: str) -> dict[str, Any]:
        """Our latest movement of a subsystem, once it is over."""

        async def latest() -> dict[str, Any]:
            movements = await self.daemon.get("/history")
            return next(each for each in movements if each["subsystem"]["name"] == f"bark.{kind}")

        return await eventually(latest, lambda each: each["status"] != "pending")

    async def invoice(self, amount_sat: int) -> str:
        """Our daemon asks for money."""
        answer = await self.daemon.post("/lightning/receives/invoice", {"amount_sat": amount_sat})
        invoice: str = answer["invoice"]
        return invoice

    # --- bark's

    def bark_balance(self) -> dict[str, int]:
        balance: dict[str, int] = self.bark.run("balance")
        return balance

    async def bark_pays(self, destination: str, *arguments: str) -> None:
        """bark pays, and waits until the payment is settled or taken back."""
        await asyncio.to_thread(self.bark.run, "ln", "pay", "invoice", destination, *arguments, "--wait")

    def bark_movement(self, kind: str) -> dict[str, Any]:
        movements: list[dict[str, Any]] = self.bark.run("history")
        of_kind = [each for each in movements if each["subsystem"]["name"] == f"bark.{kind}"]
        return max(of_kind, key=lambda each: each["id"])

    # --- outside

    async def server_books(self) -> dict[str, Any]:
        """What the Ark server and the nodes have in their books."""
        answer = await self.daemon.http.get(f"{self.devnet.control_url}/lightning")
        books: dict[str, Any] = answer.json()
        return books

    async def outside_pays(self, invoice: str) -> "asyncio.Task[Any]":
        """A node outside Ark pays; what came of it."""
        return asyncio.create_task(self.devnet.pull("/lightning/pay", invoice=invoice))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wallets(
    devnet: Devnet, bark_exec: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Wallets]:
    if os.environ.get("CAPTAIND_EXEC"):
        pytest.skip("a real Ark server would need a real Lightning node")
    directory = tmp_path_factory.mktemp("wallets")
    daemon = Daemon(directory / "daemon")
    bark = Bark(bark_exec, directory / "bark")
    await daemon.start()
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    bark.run("create", "--regtest", "--ark", devnet.ark_server_url, "--esplora", devnet.esplora_url)
    await devnet.fund((await daemon.post("/onchain/addresses/next"))["address"], ONCHAIN_SAT)
    await devnet.fund(bark.run("onchain", "address")["address"], ONCHAIN_SAT)
    await daemon.post("/onchain/sync")
    bark.run("onchain", "balance")
    await daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
    bark.run("board", f"{BOARD_SAT} sat")
    await devnet.mine()
    await daemon.post("/wallet/sync")
    bark.run("balance")
    yield Wallets(devnet, daemon, bark)
    await daemon.close()


# --- nodes outside Ark


async def test_our_daemon_pays_outside(wallets: Wallets) -> None:
    before_sat = await wallets.balance_sat()
    asked = await wallets.devnet.pull("/lightning/invoice", amount_sat=12_345, description="tea")
    payment_hash = await wallets.pay(asked["invoice"])
    assert payment_hash == asked["payment_hash"]
    sent = await wallets.paid(payment_hash)
    movement = await wallets.movement("lightning_send")
    assert movement["status"] == "successful"
    assert movement["sent_to"] == [
        {"destination": {"type": "invoice", "value": asked["invoice"]}, "amount_sat": 12_345}
    ]
    assert movement["metadata"]["payment_preimage"] == sent["preimage"]
    assert await wallets.balance_sat() == before_sat - 12_345 - movement["offchain_fee_sat"]


async def test_our_daemon_is_paid_from_outside(wallets: Wallets) -> None:
    before_sat = await wallets.balance_sat()
    outcome = await wallets.outside_pays(await wallets.invoice(23_456))
    assert (await outcome)["status"] == "settled"
    movement = await wallets.movement("lightning_receive")
    assert movement["status"] == "successful"
    received_sat = 23_456 - movement["offchain_fee_sat"]
    assert movement["effective_balance_sat"] == received_sat
    await eventually(wallets.balance_sat, lambda now_sat: now_sat == before_sat + received_sat)


async def test_bark_pays_outside_and_is_paid(wallets: Wallets) -> None:
    before_sat = wallets.bark_balance()["spendable_sat"]
    asked = await wallets.devnet.pull("/lightning/invoice", amount_sat=12_345)
    await wallets.bark_pays(asked["invoice"])
    sent = wallets.bark_movement("lightning_send")
    assert sent["status"] == "successful"
    outcome = await wallets.outside_pays(wallets.bark.run("ln", "invoice", "23456 sat")["invoice"])
    await eventually(
        lambda: asyncio.to_thread(wallets.bark.run, "ln", "claim", "--wait"), lambda _: outcome.done()
    )
    assert (await outcome)["status"] == "settled"
    received = wallets.bark_movement("lightning_receive")
    after_sat = before_sat + sent["effective_balance_sat"] + received["effective_balance_sat"]
    assert wallets.bark_balance()["spendable_sat"] == after_sat


async def test_both_pay_the_same_fees(wallets: Wallets) -> None:
    """Two payments of the same amount, out of boards of the same age."""
    fees_sat: list[int] = []
    for _ in range(2):
        asked = await wallets.devnet.pull("/lightning/invoice", amount_sat=50_000)
        if not fees_sat:
            await wallets.paid(await wallets.pay(asked["invoice"]))
            fees_sat.append((await wallets.movement("lightning_send"))["offchain_fee_sat"])
        else:
            await wallets.bark_pays(asked["invoice"])
            fees_sat.append(wallets.bark_movement("lightning_send")["offchain_fee_sat"])
    assert fees_sat[0] == fees_sat[1] > 0


# --- each other


async def test_bark_pays_our_daemons_invoice(wallets: Wallets) -> None:
    ours_sat, theirs_sat = await wallets.balance_sat(), wallets.bark_balance()["spendable_sat"]
    await wallets.bark_pays(await wallets.invoice(34_567))
    sent = wallets.bark_movement("lightning_send")
    assert sent["status"] == "successful"
    received = await wallets.movement("lightning_receive")
    assert received["status"] == "successful"
    assert sent["metadata"]["payment_preimage"] == received["metadata"]["payment_preimage"]
    assert await wallets.balance_sat() == ours_sat + 34_567 - received["offchain_fee_sat"]
    assert wallets.bark_balance()["spendable_sat"] == theirs_sat - 34_567 - sent["offchain_fee_sat"]


async def test_our_daemon_pays_barks_invoice(wallets: Wallets) -> None:
    ours_sat, theirs_sat = await wallets.balance_sat(), wallets.bark_balance()["spendable_sat"]
    payment_hash = await wallets.pay(wallets.bark.run("ln", "invoice", "45678 sat")["invoice"])
    await asyncio.to_thread(wallets.bark.run, "ln", "claim", "--wait")
    await wallets.paid(payment_hash)
    sent = await wallets.movement("lightning_send")
    assert sent["status"] == "successful"
    received = wallets.bark_movement("lightning_receive")
    assert await wallets.balance_sat() == ours_sat - 45_678 - sent["offchain_fee_sat"]
    assert wallets.bark_balance()["spendable_sat"] == theirs_sat + 45_678 - received["offchain_fee_sat"]


async def test_our_daemon_pays_a_bark_that_does_not_come(wallets: Wallets) -> None:
    before_sat = await wallets.balance_sat()
    await wallets.pay(wallets.bark.run("ln", "invoice", "9999 sat")["invoice"])
    await wallets.devnet.pull("/time", advance_seconds=FORWARD_TIMEOUT_SECS)
    movement = await wallets.movement("lightning_send")
    assert (movement["status"], movement["effective_balance_sat"]) == ("failed", 0)
    assert await wallets.balance_sat() == before_sat


async def test_bark_pays_an_invoice_that_our_daemon_has_cancelled(wallets: Wallets) -> None:
    before_sat = wallets.bark_balance()["spendable_sat"]
    invoice = await wallets.invoice(9_999)
    assert (await wallets.daemon.http.delete(f"/lightning/receives/{invoice}")).status_code == 200
    await wallets.bark_pays(invoice)
    assert wallets.bark_movement("lightning_send")["status"] == "failed"
    assert wallets.bark_balance()["spendable_sat"] == before_sat


# --- offers, and services that give invoices


@pytest.mark.parametrize("by_path", [False, True], ids=["issuer", "path"])
async def test_both_pay_an_offer(wallets: Wallets, by_path: bool) -> None:
    offer = (await wallets.devnet.pull("/lightning/offer", amount_sat=4_321, by_path=by_path))["offer"]
    await wallets.paid(await wallets.pay(offer))
    sent = await wallets.movement("lightning_send")
    assert sent["sent_to"][0]["amount_sat"] == 4_321
    assert sent["sent_to"][0]["destination"] == {"type": "offer", "value": offer}
    await wallets.bark_pays(offer)
    theirs = wallets.bark_movement("lightning_send")
    assert (theirs["status"], theirs["sent_to"]) == ("successful", sent["sent_to"])


async def test_both_refuse_a_forged_invoice_for_an_offer(wallets: Wallets) -> None:
    for lie in ({"foreign_key": True}, {"answer_msat": 5_000_000}):
        offer = (await wallets.devnet.pull("/lightning/offer", amount_sat=4_321, **lie))["offer"]
        refused = await wallets.daemon.http.post("/lightning/pay", json={"destination": offer})
        assert refused.status_code == 500
        with pytest.raises(AssertionError, match="invoice"):
            await wallets.bark_pays(offer)


async def test_both_pay_by_lnurl(wallets: Wallets) -> None:
    lnurl = (await wallets.devnet.pull("/lightning/address", name="anna"))["lnurl"]
    await wallets.paid(await wallets.pay(lnurl, amount_sat=3_210, comment="from us"))
    await wallets.bark_pays(lnurl, "3210 sat", "from bark")
    invoices = (await wallets.server_books())["invoices"]
    paid = [each["comment"] for each in invoices if each["state"] == "paid" and each["comment"]]
    assert sorted(paid) == ["from bark", "from us"]


# --- failures


@pytest.mark.parametrize("reason", ["destination-rejected", "no-route", "fee-too-low"])
async def test_failed_payments_cost_nothing(wallets: Wallets, reason: str) -> None:
    ours_sat, theirs_sat = await wallets.balance_sat(), wallets.bark_balance()["spendable_sat"]
    for who in ("us", "bark"):
        asked = await wallets.devnet.pull("/lightning/invoice", amount_sat=6_000, fail=reason)
        if who == "us":
            await wallets.pay(asked["invoice"], retry_for_secs=0)
        else:
            await wallets.bark_pays(asked["invoice"], "--retry-for", "0")
    assert (await wallets.movement("lightning_send"))["status"] == "failed"
    assert wallets.bark_movement("lightning_send")["status"] == "failed"
    assert await wallets.balance_sat() == ours_sat
    assert wallets.bark_balance()["spendable_sat"] == theirs_sat


async def test_payment_is_tried_again_for_as_long_as_one_likes(wallets: Wallets) -> None:
    asked = await wallets.devnet.pull("/lightning/invoice", amount_sat=6_000, fail="no-route", fail_times=1)
    await wallets.paid(await wallets.pay(asked["invoice"], retry_for_secs=60))


async def test_payment_that_arrives_although_it_was_called_failed(wallets: Wallets) -> None:
    before_sat = await wallets.balance_sat()
    asked = await wallets.devnet.pull("/lightning/invoice", amount_sat=6_000, late=True)
    await wallets.paid(await wallets.pay(asked["invoice"]))
    fee_sat = (await wallets.movement("lightning_send"))["offchain_fee_sat"]
    assert await wallets.balance_sat() == before_sat - 6_000 - fee_sat


# --- time


async def test_payments_that_are_never_answered_come_back_when_their_htlcs_are_over(wallets: Wallets) -> None:
    """Ours after a kill, bark's when it looks again; neither before its time."""
    ours_sat, theirs_sat = await wallets.balance_sat(), wallets.bark_balance()["spendable_sat"]
    asked = [await wallets.devnet.pull("/lightning/invoice", amount_sat=7_000, never=True) for _ in range(2)]
    payment_hash = await wallets.pay(asked[0]["invoice"])
    wallets.bark.run("ln", "pay", "invoice", asked[1]["invoice"])
    assert (await wallets.daemon.get("/wallet/balance"))["pending_lightning_send_sat"] > 7_000
    wallets.daemon.process.kill()
    await wallets.devnet.mine(250)
    await wallets.daemon.start()
    assert (await wallets.daemon.get(f"/lightning/sends/{payment_hash}"))["state"] != "unknown"
    assert (await wallets.daemon.get("/wallet/balance"))["pending_lightning_send_sat"] > 7_000
    await wallets.devnet.mine(12)
    movement = await wallets.movement("lightning_send")
    assert (movement["status"], movement["effective_balance_sat"]) == ("failed", 0)
    assert await wallets.balance_sat() == ours_sat
    theirs = await asyncio.to_thread(wallets.bark_balance)
    assert (theirs["spendable_sat"], theirs["pending_lightning_send_sat"]) == (theirs_sat, 0)


async def test_payer_is_refunded_if_our_daemon_is_away_for_too_long(wallets: Wallets) -> None:
    before_sat = await wallets.balance_sat()
    invoice = await wallets.invoice(8_000)
    wallets.daemon.process.kill()
    outcome = await wallets.outside_pays(invoice)
    await eventually(wallets.server_books, lambda books: books["receives"][-1]["status"] == "accepted")
    await wallets.devnet.pull("/time", advance_seconds=FORWARD_TIMEOUT_SECS)
    assert (await outcome)["status"] == "failed"
    await wallets.daemon.start()
    await wallets.daemon.post("/wallet/sync")
    assert await wallets.balance_sat() == before_sat
