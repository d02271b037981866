"""Paying over Lightning through a whole devnet: every destination, every ending, and the way out by force."""

from contextlib import suppress

import pytest

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.units import FeeRate
from barkd_py.daemon.loops import Daemon
from barkd_py.errors import BarkdError, ServerRejected
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.exits.states import ExitFilter
from barkd_py.wallet.lightning.send.errors import HtlcsOnChain
from barkd_py.wallet.lightning.send.service import LightningSend, SendState
from barkd_py.wallet.movements import LIGHTNING_SEND, MovementStatus
from barkd_py.wallet.payments.request import InvoiceDestination, parse_lightning_destination
from tests.support.processes import until
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.lightning import Outside

AMOUNT_SAT = 10_000


@pytest.fixture
def outside(net: Net) -> Outside:
    return Outside(net)


async def pay(owner: Owner, text: str, amount_sat: int | None = None, **options: object) -> bytes:
    destination = parse_lightning_destination(text)
    assert destination is not None
    return await owner.wallet.lightning.pay(destination, amount_sat, **options)  # type: ignore[arg-type]


async def driven(owner: Owner, payment_hash: bytes) -> LightningSend:
    await owner.wallet.lightning.resume()
    return await owner.wallet.lightning.send(payment_hash)


async def ends_as(owner: Owner, payment_hash: bytes, state: SendState) -> LightningSend:
    """Drive until it is under way no more, or where it was expected."""

    async def ended() -> bool:
        return (await driven(owner, payment_hash)).state is state

    await until(ended)
    return await owner.wallet.lightning.send(payment_hash)


async def assert_paid(
    owner: Owner, before_sat: int, payment_hash: bytes, amount_sat: int = AMOUNT_SAT
) -> None:
    found = await ends_as(owner, payment_hash, SendState.PAID)
    assert found.preimage is not None
    assert sha256(found.preimage) == payment_hash
    (paid,) = await owner.movements(LIGHTNING_SEND)
    assert paid.status is MovementStatus.SUCCESSFUL
    assert paid.effective_balance_sat == -amount_sat - paid.offchain_fee_sat
    assert await owner.wallet.balance() == Balance(
        spendable_sat=before_sat - amount_sat - paid.offchain_fee_sat
    )


async def assert_refunded(owner: Owner, before_sat: int, payment_hash: bytes) -> None:
    await ends_as(owner, payment_hash, SendState.UNKNOWN)
    (failed,) = await owner.movements(LIGHTNING_SEND)
    assert (failed.status, failed.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert await owner.wallet.balance() == Balance(spendable_sat=before_sat)


async def test_every_destination_is_paid(alice: Owner, outside: Outside) -> None:
    before_sat = await alice.spendable_sat()
    address, lnurl = await outside.address("carol", comment_allowed=50)
    payments = [
        await pay(alice, await outside.invoice(AMOUNT_SAT)),
        await pay(alice, await outside.offer(AMOUNT_SAT)),
        await pay(alice, await outside.offer(AMOUNT_SAT, by_path=True)),
        await pay(alice, address, AMOUNT_SAT, comment="Käse & Brot"),
        await pay(alice, lnurl, AMOUNT_SAT),
    ]
    for payment_hash in payments:
        await ends_as(alice, payment_hash, SendState.PAID)
    sent = await alice.movements(LIGHTNING_SEND)
    assert {each.status for each in sent} == {MovementStatus.SUCCESSFUL}
    fees_sat = sum(each.offchain_fee_sat for each in sent)
    assert await alice.wallet.balance() == Balance(
        spendable_sat=before_sat - len(payments) * AMOUNT_SAT - fees_sat
    )
    books = await outside.books()
    assert [each["comment"] for each in books["invoices"] if each["comment"]] == ["Käse & Brot"]
    assert {each["status"] for each in books["payments"]} == {"succeeded"}


@pytest.mark.both_stores
async def test_what_was_paid_can_be_spent_on(alice: Owner, bob: Owner, outside: Outside) -> None:
    """The change of a payment is money like any other."""
    before_sat = await alice.spendable_sat()
    payment_hash = await pay(alice, await outside.invoice(AMOUNT_SAT))
    await assert_paid(alice, before_sat, payment_hash)
    rest_sat = await alice.spendable_sat()
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), rest_sat)
    await bob.wallet.sync_mailbox()
    assert await bob.wallet.balance() == Balance(spendable_sat=rest_sat)


@pytest.mark.parametrize("reason", ["no-route", "destination-rejected", "fee-too-low"])
async def test_what_fails_comes_back_and_can_be_spent(
    alice: Owner, bob: Owner, outside: Outside, reason: str
) -> None:
    before_sat = await alice.spendable_sat()
    payment_hash = await pay(alice, await outside.invoice(AMOUNT_SAT, fail=reason), retry_for_secs=0)
    await assert_refunded(alice, before_sat, payment_hash)
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), before_sat)
    await bob.wallet.sync_mailbox()
    assert await bob.wallet.balance() == Balance(spendable_sat=before_sat)


async def test_dust_that_fails_comes_back(alice: Owner, outside: Outside) -> None:
    before_sat = await alice.spendable_sat()
    payment_hash = await pay(alice, await outside.invoice(1, fail="destination-rejected"), retry_for_secs=0)
    await assert_refunded(alice, before_sat, payment_hash)


async def test_an_invoice_that_failed_can_be_paid(alice: Owner, outside: Outside) -> None:
    before_sat = await alice.spendable_sat()
    text = await outside.invoice(AMOUNT_SAT, fail="destination-rejected", fail_times=1)
    payment_hash = await pay(alice, text, retry_for_secs=0)
    await assert_refunded(alice, before_sat, payment_hash)
    await pay(alice, text)
    await ends_as(alice, payment_hash, SendState.PAID)
    with pytest.raises(BarkdError, match="Invoice has already been paid"):
        await pay(alice, text)


async def test_a_success_that_is_called_a_failure_is_one(alice: Owner, outside: Outside) -> None:
    """The server's node says failed, and has the preimage when the HTLCs are asked back."""
    before_sat = await alice.spendable_sat()
    payment_hash = await pay(alice, await outside.invoice(AMOUNT_SAT, late=True))
    await assert_paid(alice, before_sat, payment_hash)


async def test_a_daemon_left_alone_hears_of_the_end(alice: Owner, outside: Outside) -> None:
    """By its mailbox, or by looking."""
    wallet = alice.wallet
    wallet.background = Daemon(wallet)
    await wallet.start()
    payment_hash = await pay(alice, await outside.invoice(AMOUNT_SAT, hold=True))
    assert (await wallet.lightning.send(payment_hash)).state is SendState.PAYMENT_INITIATED
    await outside.settle(payment_hash)

    async def is_paid() -> bool:
        return (await wallet.lightning.send(payment_hash)).state is SendState.PAID

    await until(is_paid)


async def test_an_answer_is_lost_at_every_call(net: Net, alice: Owner, outside: Outside) -> None:
    """And the daemon is restarted each time; every invoice is paid once."""
    before_sat = await alice.spendable_sat()
    calls = ("RequestLightningPayHtlcCosign", "InitiateLightningPayment", "CheckLightningPayment")
    for rpc in calls:
        net.fault(rpc, stage="after-commit", kind="error", code="UNAVAILABLE")
        text = await outside.invoice(AMOUNT_SAT)
        payment_hash = Bolt11Invoice.parse(text).payment_hash
        try:
            await pay(alice, text)
        except BarkdError:
            assert rpc != "CheckLightningPayment"
        await alice.restart()
        await ends_as(alice, payment_hash, SendState.PAID)
    books = await outside.books()
    assert [each["status"] for each in books["payments"]] == ["succeeded"] * len(calls)
    fees_sat = sum(each.offchain_fee_sat for each in await alice.wallet.list_movements())
    boarding_sat = sum(
        each.offchain_fee_sat
        for each in await alice.wallet.list_movements()
        if each.subsystem != LIGHTNING_SEND
    )
    assert await alice.wallet.balance() == Balance(
        spendable_sat=before_sat - len(calls) * AMOUNT_SAT - (fees_sat - boarding_sat)
    )


async def test_htlcs_that_were_cosigned_unheard_come_back(net: Net, alice: Owner, outside: Outside) -> None:
    """By the time the wallet asks again they would expire too soon, so the server refuses."""
    before_sat = await alice.spendable_sat()
    net.fault("RequestLightningPayHtlcCosign", stage="after-commit", kind="error", code="UNAVAILABLE")
    text = await outside.invoice(AMOUNT_SAT)
    with pytest.raises(BarkdError):
        await pay(alice, text)
    await net.mine(3)
    await alice.restart()
    await assert_refunded(alice, before_sat, Bolt11Invoice.parse(text).payment_hash)


# --- blocks


async def held(owner: Owner, outside: Outside) -> bytes:
    """A payment that nobody will answer."""
    payment_hash = await pay(owner, await outside.invoice(AMOUNT_SAT, never=True))
    assert (await owner.wallet.lightning.send(payment_hash)).state is SendState.PAYMENT_INITIATED
    return payment_hash


async def test_htlcs_that_expire_come_back(net: Net, alice: Owner, outside: Outside) -> None:
    """A payment that is never answered; the daemon is stopped and started on the way."""
    before_sat = await alice.spendable_sat()
    payment_hash = await held(alice, outside)
    await net.mine(247)
    await alice.restart()
    assert (await driven(alice, payment_hash)).state is SendState.REVOCATION_STUCK
    await net.mine(11)
    await alice.restart()
    assert (await driven(alice, payment_hash)).state is SendState.REVOCATION_STUCK
    assert await alice.wallet.exits.statuses(ExitFilter.ALL) == []
    await net.mine(2)
    await alice.restart()
    await assert_refunded(alice, before_sat, payment_hash)


async def test_htlcs_that_the_server_keeps_are_taken_on_chain(
    net: Net, alice: Owner, outside: Outside
) -> None:
    """The payment failed, and the server does not give the money back: it exits before the HTLCs expire.

    What comes out of the exit can be claimed when they have.
    """
    await alice.fund_onchain(100_000)
    before_sat = await alice.spendable_sat()
    net.fault("RequestLightningPayHtlcRevocation", stage="before", kind="error", code="INTERNAL", count=None)
    text = await outside.invoice(AMOUNT_SAT, fail="destination-rejected")
    payment_hash = Bolt11Invoice.parse(text).payment_hash
    with suppress(BarkdError):  # the failure may be known at once, and the refusal with it
        await pay(alice, text, retry_for_secs=0)

    async def is_stuck() -> bool:
        return (await driven(alice, payment_hash)).state is SendState.REVOCATION_STUCK

    await until(is_stuck)
    await net.mine(247)
    await alice.wallet.chain.fetch_tip()
    assert (await driven(alice, payment_hash)).state is SendState.REVOCATION_STUCK
    (exit_,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
    (failed,) = await alice.movements(LIGHTNING_SEND)
    assert (failed.status, failed.exited_vtxos) == (MovementStatus.FAILED, (exit_.vtxo_id,))
    htlc_sat = (await alice.wallet.get_vtxo(exit_.vtxo_id)).amount_sat

    async def is_claimable() -> bool:
        await net.mine(2)
        await alice.wallet.chain.fetch_tip()
        await alice.wallet.exits.progress(FeeRate(1_000))
        (status,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
        return status.state.type == "claimable"

    await until(is_claimable)
    assert (await driven(alice, payment_hash)).state is SendState.REVOCATION_STUCK
    with pytest.raises(HtlcsOnChain):
        await pay(alice, text)
    assert alice.wallet.onchain is not None
    await alice.wallet.onchain.sync()
    onchain_before_sat = (await alice.wallet.onchain.balance()).total_sat
    address = await alice.wallet.onchain.next_address()
    await alice.wallet.exits.claim(None, parse_address(address, alice.wallet.network), FeeRate(1_000))
    await net.mine()
    await alice.wallet.onchain.sync()
    await alice.wallet.exits.progress(FeeRate(1_000))
    assert (await driven(alice, payment_hash)).state is SendState.UNKNOWN
    gained_sat = (await alice.wallet.onchain.balance()).total_sat - onchain_before_sat
    assert htlc_sat - 2_000 < gained_sat < htlc_sat
    assert await alice.spendable_sat() == before_sat - htlc_sat


async def test_htlcs_that_the_server_takes_on_chain_were_paid_with(
    net: Net, alice: Owner, outside: Outside
) -> None:
    """The payee is paid, and the server says nothing; so the HTLCs exit. It takes them with the preimage long
    before they could be claimed, and the invoice is not paid a second time.
    """
    await alice.fund_onchain(100_000)
    before_sat = await alice.spendable_sat()
    text = await outside.invoice(AMOUNT_SAT, hold=True)
    payment_hash = await pay(alice, text)
    for rpc in ("CheckLightningPayment", "RequestLightningPayHtlcRevocation"):
        net.fault(rpc, stage="before", kind="error", code="UNAVAILABLE", count=None)
    await outside.settle(payment_hash)
    await net.mine(247)
    await alice.wallet.chain.fetch_tip()
    assert (await driven(alice, payment_hash)).state is SendState.REVOCATION_STUCK
    await net.mine(3)
    await alice.wallet.chain.fetch_tip()
    await driven(alice, payment_hash)
    (exit_,) = await alice.wallet.exits.statuses(ExitFilter.ALL)

    async def is_on_chain() -> bool:
        await net.mine()
        await alice.wallet.chain.fetch_tip()
        await alice.wallet.exits.progress(FeeRate(1_000))
        (status,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
        return status.state.type == "awaiting-delta"

    await until(is_on_chain)
    with pytest.raises(HtlcsOnChain):
        await pay(alice, text)

    async def is_paid() -> bool:
        await net.mine()
        await outside.sweep()
        await alice.wallet.chain.fetch_tip()
        return (await driven(alice, payment_hash)).state is SendState.PAID

    await until(is_paid)
    assert (await alice.wallet.exits.status(exit_.vtxo_id)).state.type == "awaiting-delta"
    with pytest.raises(BarkdError, match="Invoice has already been paid"):
        await pay(alice, text)
    (paid,) = await alice.movements(LIGHTNING_SEND)
    assert (paid.status, paid.exited_vtxos) == (MovementStatus.SUCCESSFUL, (exit_.vtxo_id,))
    assert paid.effective_balance_sat == await alice.spendable_sat() - before_sat


async def test_an_expired_invoice_costs_nothing(alice: Owner, outside: Outside) -> None:
    before_sat = await alice.spendable_sat()
    text = await outside.invoice(AMOUNT_SAT, expiry_secs=1)
    await outside.advance(10)
    payment_hash = await pay(alice, text, retry_for_secs=0)
    await assert_refunded(alice, before_sat, payment_hash)


async def test_two_wallets_pay_one_invoice_once(alice: Owner, bob: Owner, outside: Outside) -> None:
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), 100_000)
    await bob.wallet.sync_mailbox()
    text = await outside.invoice(AMOUNT_SAT, hold=True)
    payment_hash = await pay(alice, text)
    with pytest.raises(ServerRejected, match="payment already in progress for this invoice"):
        await pay(bob, text)
    assert await bob.wallet.balance() == Balance(spendable_sat=100_000)
    await outside.settle(payment_hash)
    await ends_as(alice, payment_hash, SendState.PAID)
    with pytest.raises(ServerRejected, match="invoice has already been paid"):
        await bob.wallet.lightning.pay(InvoiceDestination(Bolt11Invoice.parse(text)), None)
    assert await bob.wallet.balance() == Balance(spendable_sat=100_000)


async def test_a_wallet_reads_what_a_uri_asks_for(alice: Owner, outside: Outside) -> None:
    invoice = await outside.invoice(AMOUNT_SAT)
    ark = await alice.wallet.new_address()
    request = await alice.wallet.read_payment_request(f"bitcoin:?lightning={invoice}&ark={ark}")
    assert [(option.method.value, option.errors) for option in request.options] == [(invoice, ()), (ark, ())]
    assert request.default_option == request.options[1]
