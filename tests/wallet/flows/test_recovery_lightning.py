"""A wallet that loses its database amid Lightning payments: what is had again, and what is not.

Source: sheet 02 §6.6, §6.8, trap 8; sheet 05 §4.8.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.units import FeeRate
from barkd_py.errors import BarkdError
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.exits.states import ExitFilter
from barkd_py.wallet.lightning.send.service import SendState
from barkd_py.wallet.movements import LIGHTNING_SEND, MovementStatus
from barkd_py.wallet.payments.request import parse_lightning_destination
from barkd_py.wallet.recovery.report import RecoveryOutcome, RecoveryReport
from tests.support.processes import until
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.lightning import Outside
from tests.wallet.flows.offboards import target_of
from tests.wallet.flows.test_recovery import BOTH, reborn, recover, spendable

AMOUNT_SAT = 10_000


@pytest.fixture
def outside(net: Net) -> Outside:
    return Outside(net)


async def pay(owner: Owner, text: str) -> bytes:
    destination = parse_lightning_destination(text)
    assert destination is not None
    with suppress(BarkdError):  # the failure may be known at once, and the refusal with it
        await owner.wallet.lightning.pay(destination, None, retry_for_secs=0)
    return Bolt11Invoice.parse(text).payment_hash


@asynccontextmanager
async def after_losing_everything(net: Net, owner: Owner) -> AsyncIterator[tuple[Owner, RecoveryReport]]:
    """The wallet that its words bring back, once its recovery has ended."""
    await owner.wallet.registration.catch_up()
    await owner.wallet.close()
    async with reborn(net, owner) as again:
        yield again, await recover(again)


async def ends_as(owner: Owner, payment_hash: bytes, state: SendState) -> None:
    async def ended() -> bool:
        await owner.wallet.lightning.resume()
        return (await owner.wallet.lightning.send(payment_hash)).state is state

    await until(ended)


# --- when all is over


@BOTH
async def test_what_finished_payments_have_left_is_found(
    net: Net, alice: Owner, bob: Owner, outside: Outside
) -> None:
    """Change of a payment on chain and of one over Lightning, what came in over Lightning, and a board.

    Something of each is unspent at the end.
    """
    found: dict[str, set[VtxoId]] = {}
    known = await spendable(alice)

    async def settled(what: str) -> None:
        nonlocal known
        await net.mine()
        await alice.wallet.offboards.drive_all()
        found[what] = await spendable(alice) - known
        known |= found[what]

    async def received() -> bool:
        await alice.wallet.lightning.resume()
        return (
            await alice.wallet.lightning.receive(Bolt11Invoice.parse(invoice).payment_hash)
        ).state == "settled"

    await alice.wallet.offboards.send(50_000, await target_of(bob))
    await settled("change of a payment on chain")
    payment_hash = await pay(alice, await outside.invoice(AMOUNT_SAT))
    await ends_as(alice, payment_hash, SendState.PAID)
    await settled("change of a Lightning payment")
    invoice = await alice.wallet.lightning.create_invoice(20_000)
    await outside.pay(invoice)
    await until(received)
    await settled("a Lightning payment that came in")
    await alice.board(60_000)
    await settled("a board")
    before = await spendable(alice)
    balance = await alice.wallet.balance()
    assert all(vtxos & before for vtxos in found.values()), found

    async with after_losing_everything(net, alice) as (again, report):
        assert report.is_complete
        assert await spendable(again) == before
        assert await again.wallet.balance() == balance == Balance(spendable_sat=balance.spendable_sat)
        await again.wallet.mailbox.sync()
        assert await spendable(again) == before


# --- sending


async def held(owner: Owner, outside: Outside, **behaviour: object) -> tuple[bytes, int]:
    """A payment that waits for its payee; what its HTLCs hold."""
    payment_hash = await pay(owner, await outside.invoice(AMOUNT_SAT, **(behaviour or {"hold": True})))
    return payment_hash, (await owner.wallet.balance()).pending_lightning_send_sat


@pytest.mark.both_stores
@BOTH
async def test_a_payment_under_way_that_fails_comes_back(net: Net, alice: Owner, outside: Outside) -> None:
    before_sat = await alice.spendable_sat()
    payment_hash, htlc_sat = await held(alice, outside)
    async with after_losing_everything(net, alice) as (again, report):
        (entry,) = [each for each in report.entries if each.outcome is RecoveryOutcome.LOCKED]
        assert entry.amount_sat == htlc_sat
        assert "a Lightning payment was under way; it is asked back" in (entry.reason or "")
        assert report.is_complete
        under_way = Balance(spendable_sat=before_sat - htlc_sat, pending_lightning_send_sat=htlc_sat)
        assert await again.wallet.balance() == under_way
        await again.wallet.lightning.resume()  # the server keeps it while it pays
        await again.wallet.recovery.start()
        assert await again.wallet.balance() == under_way, "once more changes nothing"
        (pending,) = await again.movements(LIGHTNING_SEND)
        assert pending.status is MovementStatus.PENDING

        await outside.fail(payment_hash)
        await ends_as(again, payment_hash, SendState.UNKNOWN)
        assert await again.wallet.balance() == Balance(spendable_sat=before_sat)
        (failed,) = await again.movements(LIGHTNING_SEND)
        assert (failed.status, failed.effective_balance_sat) == (MovementStatus.FAILED, 0)
        await again.wallet.recovery.start()
        assert await again.wallet.balance() == Balance(spendable_sat=before_sat)
        assert (await again.wallet.recovery.report()).pending == 0


@BOTH
async def test_a_payment_under_way_that_succeeds_is_known_as_paid(
    net: Net, alice: Owner, outside: Outside
) -> None:
    before_sat = await alice.spendable_sat()
    payment_hash, htlc_sat = await held(alice, outside)
    async with after_losing_everything(net, alice) as (again, _):
        await outside.settle(payment_hash)
        await ends_as(again, payment_hash, SendState.PAID)
        preimage = (await again.wallet.lightning.send(payment_hash)).preimage
        assert preimage is not None
        assert sha256(preimage) == payment_hash
        assert await again.wallet.balance() == Balance(spendable_sat=before_sat - htlc_sat)
        (paid,) = await again.movements(LIGHTNING_SEND)
        assert (paid.status, paid.effective_balance_sat) == (MovementStatus.SUCCESSFUL, -htlc_sat)


async def test_a_payment_that_nobody_answers_comes_back_when_it_expires(
    net: Net, alice: Owner, outside: Outside
) -> None:
    before_sat = await alice.spendable_sat()
    payment_hash, htlc_sat = await held(alice, outside, never=True)
    async with after_losing_everything(net, alice) as (again, _):
        await net.mine(257)
        await again.wallet.chain.fetch_tip()
        await again.wallet.lightning.resume()
        assert (await again.wallet.balance()).pending_lightning_send_sat == htlc_sat
        await net.mine(3)
        await again.restart()
        await ends_as(again, payment_hash, SendState.UNKNOWN)
        assert (await again.wallet.balance()).total_sat == before_sat


async def test_htlcs_that_the_server_keeps_are_taken_on_chain(
    net: Net, alice: Owner, outside: Outside
) -> None:
    """The payment failed, the server gave nothing back, and then the database was lost."""
    await alice.fund_onchain(100_000)
    net.fault("RequestLightningPayHtlcRevocation", stage="before", kind="error", code="INTERNAL", count=None)
    payment_hash, htlc_sat = await held(alice, outside, fail="destination-rejected")
    async with after_losing_everything(net, alice) as (again, _):
        wallet = again.wallet
        assert (await wallet.balance()).pending_lightning_send_sat == htlc_sat
        assert await wallet.exits.statuses(ExitFilter.ALL) == []
        await net.mine(247)
        await wallet.chain.fetch_tip()

        async def is_claimable() -> bool:
            await net.mine(2)
            await wallet.chain.fetch_tip()
            await wallet.lightning.resume()
            await wallet.exits.progress(FeeRate(1_000))
            return [each.state.type for each in await wallet.exits.statuses(ExitFilter.ALL)] == ["claimable"]

        await until(is_claimable)
        assert wallet.onchain is not None
        await wallet.onchain.sync()
        onchain_sat = (await wallet.onchain.balance()).total_sat
        address = await wallet.onchain.next_address()
        await wallet.exits.claim(None, parse_address(address, wallet.network), FeeRate(1_000))
        await net.mine()
        await wallet.onchain.sync()
        await wallet.exits.progress(FeeRate(1_000))
        assert htlc_sat - 2_000 < (await wallet.onchain.balance()).total_sat - onchain_sat < htlc_sat
        await ends_as(again, payment_hash, SendState.UNKNOWN)
        assert (await wallet.balance()).total_sat == await again.spendable_sat()


# --- receiving


async def invoiced(owner: Owner, outside: Outside) -> bytes:
    """Somebody pays an invoice of ours; the server holds the payment."""
    text = await owner.wallet.lightning.create_invoice(AMOUNT_SAT)
    assert (await outside.pay(text))["status"] == "held"
    return Bolt11Invoice.parse(text).payment_hash


async def is_granted(owner: Owner, outside: Outside) -> bool:
    with suppress(BarkdError):
        await owner.wallet.lightning.resume()
    (receive,) = (await outside.books())["receives"]
    return bool(receive["status"] not in ("pending", "accepted"))


@BOTH
async def test_a_payment_to_us_before_its_preimage_is_out_goes_back_to_the_sender(
    net: Net, bob: Owner, outside: Outside
) -> None:
    """The preimage follows from no words; so the money is the sender's, and the report says why."""
    net.fault(
        "PrepareLightningReceiveClaim", stage="after-commit", kind="error", code="UNAVAILABLE", count=None
    )
    await invoiced(bob, outside)
    await until(lambda: is_granted(bob, outside))
    net.honest()
    async with after_losing_everything(net, bob) as (again, report):
        assert await again.wallet.balance() == Balance()
        for entry in report.entries:
            assert entry.outcome is RecoveryOutcome.SKIPPED
            assert "its preimage was in the lost database only" in (entry.reason or "")

        async def went_back() -> bool:
            await net.mine(20)
            await outside.advance(600)
            return await outside.incoming() == ["failed"]

        await until(went_back)
        await again.wallet.sync()
        assert await again.wallet.balance() == Balance()


@BOTH
async def test_a_payment_to_us_whose_preimage_is_out_is_ours(net: Net, bob: Owner, outside: Outside) -> None:
    """The claim was answered, and stored nowhere but at the server."""
    await invoiced(bob, outside)

    async def is_claimed() -> bool:
        await bob.wallet.lightning.resume()
        return await bob.spendable_sat() > 0

    await until(is_claimed)
    had_sat = await bob.spendable_sat()
    async with after_losing_everything(net, bob) as (again, report):
        assert await again.wallet.balance() == Balance(spendable_sat=had_sat)
        assert report.amount_sat(RecoveryOutcome.RECOVERED) == had_sat


@BOTH
async def test_a_claim_whose_answer_was_lost_with_the_database_is_told_of(
    net: Net, bob: Owner, outside: Outside
) -> None:
    """The server has the preimage and has cosigned; our half of the signatures was never made."""
    net.fault("ClaimLightningReceive", stage="after-commit", kind="error", code="INTERNAL", count=None)
    payment_hash = await invoiced(bob, outside)

    async def is_revealed() -> bool:
        await bob.wallet.lightning.resume()
        return (await bob.wallet.lightning.receive(payment_hash)).state == "preimage-revealed"

    await until(is_revealed)
    had_sat = (await bob.wallet.balance()).claimable_lightning_receive_sat
    net.honest()
    async with after_losing_everything(net, bob) as (again, report):
        assert await again.wallet.balance() == Balance()
        if report.searched_by_key:  # an older server tells nobody of it
            (lost,) = [each for each in report.entries if each.reason != "it was spent"]
            assert (lost.outcome, lost.amount_sat) == (RecoveryOutcome.SKIPPED, had_sat)
            assert "it was never signed by us" in (lost.reason or "")
