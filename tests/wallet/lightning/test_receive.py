"""Being paid over Lightning, as it should go, and as it ends otherwise without anybody lying."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from barkd_py.ark.fees import FeeExceedsAmount, LightningReceiveFees
from barkd_py.ark.lightning_receive import CltvTooLarge
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.errors import BarkdError, ChainUnavailable, ServerRejected, ServerUnavailable
from barkd_py.server_rpc.api import LightningReceiveState, RoundInput
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.lightning.receive.errors import (
    AbsurdFee,
    CannotCancelReceive,
    ClaimBudgetExhausted,
    ReceiveCanceled,
    UnknownReceive,
    WindowClosed,
    ZeroInvoice,
)
from barkd_py.wallet.lightning.receive.service import revealed_preimage
from barkd_py.wallet.lightning.receive.states import (
    AwaitingPayment,
    HtlcsReady,
    PreimageRevealed,
)
from barkd_py.wallet.movements import MovementStatus, PaymentMethodKind
from barkd_py.wallet.vtxo_states import StateKind
from barkd_py.wallet.vtxos.anchors import AnchorSpent, AnchorUnconfirmed
from tests.fakes.lightning_server import ReceiveServer
from tests.wallet.lightning.receiver import Receiver, open_receiver

# 10 000 sat at 100 sat and 2 000 ppm.
FEE_SAT = 120


async def assert_paid(receiver: Receiver, payment_hash: bytes, amount_sat: int, fee_sat: int) -> None:
    """Everything is as it has to be after a payment, and nothing is left over."""
    net_sat = amount_sat - fee_sat
    assert await receiver.state(payment_hash) is None
    assert await receiver.balance() == Balance(spendable_sat=net_sat)
    assert await receiver.vtxos(StateKind.LOCKED) == ()
    coins = await receiver.vtxos(StateKind.SPENDABLE)
    assert sum(coin.amount_sat for coin in coins) == net_sat
    assert {coin.id for coin in coins} <= receiver.server.registered
    movement = await receiver.movement()
    assert movement.status is MovementStatus.SUCCESSFUL
    assert (movement.intended_balance_sat, movement.effective_balance_sat) == (amount_sat, net_sat)
    assert movement.offchain_fee_sat == fee_sat
    assert set(movement.output_vtxos) == {coin.id for coin in coins}
    assert movement.input_vtxos == ()
    (source,) = movement.received_on
    assert (source.method.kind, source.amount_sat) == (PaymentMethodKind.INVOICE, amount_sat)
    settled = await receiver.receives.find(payment_hash)
    assert (settled.state, settled.invoice, settled.amount_sat) == (
        "settled",
        source.method.value,
        amount_sat,
    )
    assert sha256(settled.preimage.data) == payment_hash
    assert settled.settled_at is not None
    granted = receiver.server.subscriptions[payment_hash].htlcs
    assert movement.metadata == {
        "payment_hash": payment_hash.hex(),
        "htlc_vtxos": [str(vtxo_id) for vtxo_id in sorted(htlc.id for htlc in granted)],
        "payment_preimage": settled.preimage.data.hex(),
    }
    assert receiver.server.preimages == [settled.preimage.data]


@pytest.mark.parametrize(("amount_sat", "fee_sat"), [(10_000, 120), (345_678, 792), (102, 101)])
async def test_an_invoice_is_paid(receiver: Receiver, amount_sat: int, fee_sat: int) -> None:
    text = await receiver.receives.create(amount_sat, description="a coffee")
    invoice = Bolt11Invoice.parse(text)
    assert (invoice.amount_msat, invoice.description) == (amount_sat * 1000, "a coffee")
    (waiting,) = await receiver.receives.pending()
    assert (waiting.state, waiting.invoice, waiting.htlc_vtxos) == ("awaiting-payment", text, ())
    await receiver.drive(invoice.payment_hash)
    assert await receiver.movements() == []

    receiver.server.pay(invoice.payment_hash)
    await receiver.drive(invoice.payment_hash)
    await assert_paid(receiver, invoice.payment_hash, amount_sat, fee_sat)
    assert await receiver.receives.pending() == []


@pytest.mark.parametrize("pieces", [2, 5])
async def test_a_grant_may_come_in_pieces(receiver: Receiver, pieces: int) -> None:
    receiver.server.pieces = pieces
    payment_hash = await receiver.paid_invoice()
    await receiver.drive(payment_hash)
    assert len(await receiver.vtxos(StateKind.SPENDABLE)) == pieces
    assert len(await receiver.vtxos(StateKind.SPENT)) == pieces
    assert (await receiver.balance()).spendable_sat == 10_000 - FEE_SAT


async def test_what_was_paid_too_much_is_ours(receiver: Receiver) -> None:
    payment_hash = await receiver.invoice()
    receiver.server.pay(payment_hash, received_sat=12_000)
    await receiver.drive(payment_hash)
    movement = await receiver.movement()
    assert (movement.effective_balance_sat, movement.offchain_fee_sat) == (12_000 - 124, 124)
    assert movement.intended_balance_sat == 10_000
    assert (await receiver.balance()).spendable_sat == 12_000 - 124


async def test_what_was_paid_too_little_is_not_taken(receiver: Receiver) -> None:
    """A server that has only a part of it keeps it back, or is refused."""
    payment_hash = await receiver.invoice()
    receiver.server.pay(payment_hash, received_sat=9_999)
    with pytest.raises(Exception, match="enough VTXOs to cover"):
        await receiver.drive(payment_hash)
    assert receiver.server.preimages == []
    assert await receiver.movements() == []


async def test_many_are_paid_at_once(receiver: Receiver) -> None:
    hashes = [await receiver.paid_invoice(10_000 + number) for number in range(8)]
    await receiver.receives.poller.drive_all()
    assert await receiver.receives.pending() == []
    assert len(receiver.server.preimages) == 8
    assert {movement.status for movement in await receiver.movements()} == {MovementStatus.SUCCESSFUL}
    fees = [movement.offchain_fee_sat for movement in await receiver.movements()]
    assert (await receiver.balance()).total_sat == sum(10_000 + n for n in range(8)) - sum(fees)
    assert {(await receiver.receives.find(each)).state for each in hashes} == {"settled"}


async def test_the_same_payment_is_claimed_once(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    await asyncio.gather(
        receiver.receives.poller.drive_all(),
        receiver.receives.poller.drive_all(),
        receiver.receives.on_incoming(payment_hash),
    )
    await receiver.receives.poller.drive_all()
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)
    assert receiver.liar.calls["claim_lightning_receive"] == 1


# --- making invoices


async def test_no_invoice_over_nothing(receiver: Receiver) -> None:
    with pytest.raises(ZeroInvoice, match="Cannot create invoice for 0 sats"):
        await receiver.receives.create(0)


async def test_no_invoice_that_the_fee_eats_up(receiver: Receiver) -> None:
    with pytest.raises(FeeExceedsAmount, match="exceeds amount"):
        await receiver.receives.create(101)
    assert receiver.liar.calls["start_lightning_receive"] == 0


@pytest.mark.parametrize(("fee_sat", "is_fair"), [(60_000, True), (60_001, False), (99_000, False)])
async def test_no_invoice_that_the_server_keeps_most_of(
    receiver: Receiver, fee_sat: int, is_fair: bool
) -> None:
    """Half of it, and 10 000 sat: more is no fee."""
    fees = replace(receiver.server.info_.fees, lightning_receive=LightningReceiveFees(fee_sat, 0))
    receiver.server.info_ = replace(receiver.server.info_, fees=fees)
    if is_fair:
        await receiver.invoice(100_000)
        return
    with pytest.raises(AbsurdFee, match="keeps a fee of"):
        await receiver.invoice(100_000)
    assert receiver.liar.calls["start_lightning_receive"] == 0


async def test_no_invoice_if_the_server_allows_no_time_for_an_exit(receiver: Receiver) -> None:
    receiver.server.info_ = replace(receiver.server.info_, max_user_invoice_cltv_delta=83)
    with pytest.raises(CltvTooLarge) as refusal:
        await receiver.receives.create(10_000)
    # 12 to exit, 40 of the HTLC, margins of 12 and 18, 2 until the grant
    assert str(refusal.value) == (
        "HTLC CLTV delta (84) is greater than Server's max HTLC recv CLTV delta: 83"
    )
    receiver.server.info_ = replace(receiver.server.info_, max_user_invoice_cltv_delta=84)
    payment_hash = await receiver.invoice()
    assert receiver.server.subscriptions[payment_hash].cltv_delta == 84


async def test_nothing_is_kept_of_an_invoice_that_the_server_refuses(receiver: Receiver) -> None:
    receiver.server.away = {"start_lightning_receive"}
    with pytest.raises(ServerUnavailable):
        await receiver.receives.create(10_000)
    assert await receiver.receives.pending() == []
    assert not await receiver.receives.poller.is_pending()


async def test_the_estimate_is_what_a_payment_costs(receiver: Receiver) -> None:
    estimate = await receiver.receives.estimate(10_000)
    assert (estimate.gross_amount_sat, estimate.fee_sat, estimate.net_amount_sat) == (10_000, 120, 9_880)
    assert (await receiver.receives.estimate(50)).net_amount_sat == 0
    assert (await receiver.receives.estimate(0)).fee_sat == 100
    receiver.server.info_ = replace(receiver.server.info_, max_vtxo_amount_sat=20_000)
    with pytest.raises(Exception, match="exceeds maximum value"):
        await receiver.receives.estimate(20_001)


# --- proofs


async def test_a_vtxo_proves_that_we_are_no_stranger(receiver: Receiver) -> None:
    receiver.server.wants_proof = True
    coin = await receiver.add_coin()
    payment_hash = await receiver.paid_invoice()
    await receiver.drive(payment_hash)
    (proof,) = receiver.server.proofs
    assert isinstance(proof, RoundInput)
    assert proof.vtxo_id == coin
    assert (await receiver.balance()).spendable_sat == 5_000 + 10_000 - FEE_SAT


async def test_a_vtxo_about_to_expire_proves_nothing(receiver: Receiver) -> None:
    await receiver.add_coin(expiry_height=202)
    payment_hash = await receiver.paid_invoice()
    await receiver.drive(payment_hash)
    assert receiver.server.proofs == [None]


async def test_a_proof_that_was_spent_meanwhile_is_replaced(receiver: Receiver) -> None:
    receiver.server.wants_proof = True
    gone = await receiver.add_coin()
    payment_hash = await receiver.paid_invoice()
    del receiver.server.owners[gone]
    with pytest.raises(ServerRejected):
        await receiver.drive(payment_hash)
    async with receiver.store.transaction() as tx:
        await tx.vtxos.mark_spent([gone])
    await receiver.add_coin()
    await receiver.drive(payment_hash)
    assert (await receiver.receives.find(payment_hash)).state == "settled"


async def test_a_token_is_shown_once(receiver: Receiver) -> None:
    """It is used up by a grant that we refuse; then a VTXO has to do."""
    receiver.server.wants_proof = True
    receiver.server.tokens = {"a token"}
    payment_hash = await receiver.paid_invoice(token="a token")
    receiver.server.chain.is_away = False
    receiver.liar.lost["prepare_lightning_receive_claim"] = 1
    with pytest.raises(ServerUnavailable):
        await receiver.drive(payment_hash)
    await receiver.drive(payment_hash)
    assert receiver.server.proofs == ["a token"]
    assert (await receiver.receives.find(payment_hash)).state == "settled"


async def test_without_any_proof_it_is_given_up(receiver: Receiver) -> None:
    receiver.server.wants_proof = True
    payment_hash = await receiver.paid_invoice()
    for _ in range(5):
        assert await receiver.state(payment_hash) is not None
        with pytest.raises(ServerRejected, match="either a receive token or a challenge proof"):
            await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is None
    assert receiver.server.preimages == []


# --- ends


async def test_an_invoice_that_expired_is_forgotten_a_minute_later(receiver: Receiver) -> None:
    payment_hash = await receiver.invoice()
    receiver.clock.seconds += 3600 + 60
    await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is not None
    receiver.clock.seconds += 1
    await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is None
    with pytest.raises(UnknownReceive):
        await receiver.receives.find(payment_hash)


async def test_a_payment_just_in_time_is_claimed(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    receiver.clock.seconds += 3600 + 61
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_what_the_server_has_canceled_is_forgotten(receiver: Receiver) -> None:
    payment_hash = await receiver.invoice()
    await receiver.server.cancel_lightning_receive(payment_hash)
    with pytest.raises(ReceiveCanceled, match="canceled server-side"):
        await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is None


async def test_a_server_that_forgot_an_invoice_may_remember(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    forgotten = receiver.server.subscriptions.pop(payment_hash)
    await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is not None
    receiver.server.subscriptions[payment_hash] = forgotten
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_a_server_that_forgot_an_invoice_is_asked_until_it_expires(receiver: Receiver) -> None:
    payment_hash = await receiver.invoice()
    receiver.server.subscriptions.clear()
    receiver.clock.seconds += 3600 + 61
    await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is None


# --- canceling


async def test_an_invoice_is_canceled(receiver: Receiver) -> None:
    payment_hash = await receiver.invoice()
    await receiver.receives.cancel(payment_hash)
    assert receiver.server.subscriptions[payment_hash].state is LightningReceiveState.CANCELED
    assert await receiver.receives.pending() == []
    with pytest.raises(UnknownReceive, match="no pending lightning receive found for this payment hash"):
        await receiver.receives.cancel(payment_hash)


async def test_an_invoice_is_canceled_without_the_server(receiver: Receiver) -> None:
    payment_hash = await receiver.invoice()
    receiver.server.away = {"check_lightning_receive", "cancel_lightning_receive"}
    await receiver.receives.cancel(payment_hash)
    assert await receiver.state(payment_hash) is None


async def test_a_payment_that_has_arrived_is_not_canceled(receiver: Receiver) -> None:
    """Its sender might be of the same server, and would wait for days."""
    payment_hash = await receiver.paid_invoice()
    with pytest.raises(CannotCancelReceive, match="the payment has arrived"):
        await receiver.receives.cancel(payment_hash)
    assert receiver.liar.calls["cancel_lightning_receive"] == 0
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_nothing_is_canceled_after_the_grant(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    receiver.server.away = {"claim_lightning_receive"}
    with pytest.raises(ServerUnavailable):
        await receiver.drive(payment_hash)
    with pytest.raises(CannotCancelReceive, match="preimage has already been revealed"):
        await receiver.receives.cancel(payment_hash)
    settled = await receiver.receives.find(payment_hash)
    assert (settled.state, len(settled.htlc_vtxos)) == ("preimage-revealed", 1)
    assert settled.preimage_revealed_at is not None


async def test_nothing_is_canceled_between_grant_and_claim(receiver: Receiver) -> None:
    payment_hash = await granted(receiver)
    with pytest.raises(CannotCancelReceive, match="HTLCs already granted"):
        await receiver.receives.cancel(payment_hash)


async def granted(receiver: Receiver) -> bytes:
    """A payment that has got as far as its HTLC VTXOs, because the chain source went away then."""
    payment_hash = await receiver.paid_invoice()

    def go_away(answer: object) -> object:
        receiver.server.chain.is_away = (
            receiver.chain_liar.calls["is_spent_confirmed"] >= receiver.server.pieces
        )
        return answer

    receiver.chain_liar.lies["is_spent_confirmed"] = go_away
    with pytest.raises(ChainUnavailable):
        await receiver.drive(payment_hash)
    receiver.server.chain.is_away = False
    receiver.chain_liar.lies.clear()
    assert isinstance(await receiver.state(payment_hash), HtlcsReady)
    return payment_hash


# --- the window


async def test_a_grant_is_locked_and_counts_nowhere(receiver: Receiver) -> None:
    payment_hash = await granted(receiver)
    (htlc,) = await receiver.vtxos(StateKind.LOCKED)
    assert htlc.policy_kind == "server-htlc-receive-v1"
    assert await receiver.balance() == Balance()
    movement = await receiver.movement()
    assert movement.status is MovementStatus.PENDING
    assert (movement.effective_balance_sat, movement.offchain_fee_sat) == (10_000 - FEE_SAT, FEE_SAT)
    assert movement.metadata["payment_preimage"] is None
    async with receiver.store.read() as tx:
        assert await revealed_preimage(tx, payment_hash) is None
    assert receiver.server.preimages == []


@pytest.mark.parametrize("blocks", [0, 1, 18])
async def test_blocks_between_grant_and_claim_are_no_harm(receiver: Receiver, blocks: int) -> None:
    payment_hash = await granted(receiver)
    receiver.server.chain.height += blocks
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_a_grant_that_came_too_late_is_abandoned(receiver: Receiver) -> None:
    payment_hash = await granted(receiver)
    receiver.server.chain.height += 19
    with pytest.raises(WindowClosed):
        await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is None
    assert receiver.server.preimages == []
    assert receiver.liar.calls["claim_lightning_receive"] == 0
    assert await receiver.balance() == Balance()
    assert len(await receiver.vtxos(StateKind.SPENT)) == 1
    movement = await receiver.movement()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.CANCELED, 0)
    assert movement.metadata["payment_preimage"] is None


async def test_the_window_is_looked_at_by_a_height_of_this_moment(receiver: Receiver) -> None:
    """Not by one that was true a while ago: blocks may have come meanwhile."""
    payment_hash = await granted(receiver)
    receiver.server.chain.is_away = False
    old = await receiver.server.chain.tip()
    receiver.server.chain.height += 19

    async def remembered() -> BlockRef:
        return old

    receiver.chain_liar.answers["tip"] = remembered
    with pytest.raises(WindowClosed):
        await receiver.drive(payment_hash)
    assert receiver.server.preimages == []


async def test_nothing_is_revealed_while_the_height_is_not_known(receiver: Receiver) -> None:
    payment_hash = await granted(receiver)
    receiver.server.chain.is_away = True
    for _ in range(3):
        with pytest.raises(ChainUnavailable):
            await receiver.drive(payment_hash)
    assert isinstance(await receiver.state(payment_hash), HtlcsReady)
    assert receiver.server.preimages == []


async def refused_grants(receiver: Receiver, spoil: Callable[[], None], error: type[BarkdError]) -> bytes:
    """`spoil` does something to the chain at each grant, and the payment goes on waiting; its hash."""
    payment_hash = await receiver.paid_invoice()

    def granting(answer: object) -> object:
        spoil()
        return answer

    receiver.liar.lies["prepare_lightning_receive_claim"] = granting
    for _ in range(7):
        with pytest.raises(error):
            await receiver.drive(payment_hash)
    assert isinstance(await receiver.state(payment_hash), AwaitingPayment)
    return payment_hash


async def test_a_grant_waits_for_its_anchor(receiver: Receiver) -> None:
    """Whoever made an unconfirmed transaction can still make another one."""
    chain = receiver.server.chain
    payment_hash = await refused_grants(
        receiver, lambda: chain.unconfirmed.update(chain.txs), AnchorUnconfirmed
    )
    receiver.liar.lies.clear()
    chain.unconfirmed.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_a_grant_that_hangs_off_a_spent_output_buys_nothing(receiver: Receiver) -> None:
    def spend() -> None:
        for tx in receiver.server.chain.txs.values():
            receiver.server.chain.spends |= {tx.outpoint(n): Txid(bytes(32)) for n in range(len(tx.outputs))}

    await refused_grants(receiver, spend, AnchorSpent)
    assert receiver.server.preimages == []


# --- claims that fail


@pytest.mark.parametrize("lost", ["claim_lightning_receive", "register_vtxo_transactions"])
async def test_a_lost_answer_is_asked_for_again(receiver: Receiver, lost: str) -> None:
    payment_hash = await receiver.paid_invoice()
    receiver.liar.lost[lost] = 2
    for _ in range(2):
        with pytest.raises(ServerUnavailable):
            await receiver.drive(payment_hash)
        assert (await receiver.balance()) == Balance(claimable_lightning_receive_sat=10_000 - FEE_SAT)
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_after_some_tries_the_claim_goes_on_more_slowly(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    receiver.server.away = {"claim_lightning_receive"}
    for _ in range(4):
        with pytest.raises(ServerUnavailable):
            await receiver.drive(payment_hash)
    for _ in range(3):
        with pytest.raises(ClaimBudgetExhausted, match="retry budget exhausted"):
            await receiver.drive(payment_hash)
    state = await receiver.state(payment_hash)
    assert isinstance(state, PreimageRevealed)
    assert (state.claim_attempts, state.is_exiting) == (5, False)
    receiver.server.away.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_a_budget_of_nothing_is_used_up_at_once(sqlite_database: str, server: ReceiveServer) -> None:
    async with open_receiver(sqlite_database, server, claim_retries=0) as receiver:
        payment_hash = await receiver.paid_invoice()
        server.away = {"claim_lightning_receive"}
        with pytest.raises(ClaimBudgetExhausted):
            await receiver.drive(payment_hash)


# --- who drives


async def test_the_mailbox_sets_it_going(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    await receiver.receives.on_incoming(payment_hash)
    await receiver.receives.poller.drive_all()
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_the_mailbox_may_tell_of_what_nobody_knows(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Mostly because it is over: then nothing is the matter."""
    with caplog.at_level(logging.INFO):
        await receiver.receives.on_incoming(bytes(32))
    assert caplog.records == []
    assert not await receiver.receives.poller.is_pending()


async def test_an_old_invoice_is_looked_at_less_often(receiver: Receiver) -> None:
    await receiver.invoice()
    looks = await _looks(receiver, 60)
    assert 25 <= looks <= 60
    receiver.clock.seconds += 1_800
    assert await _looks(receiver, 120) <= 3
    assert await receiver.receives.poller.is_pending()


async def _looks(receiver: Receiver, seconds: int) -> int:
    before = receiver.liar.calls["check_lightning_receive"]
    for _ in range(seconds):
        receiver.clock.seconds += 1
        await receiver.receives.poller.poll()
        await receiver.receives.poller.settle_down()
    return receiver.liar.calls["check_lightning_receive"] - before


async def test_trouble_is_asked_about_less_and_less_often(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    await receiver.invoice()
    receiver.server.away = {"check_lightning_receive"}
    with caplog.at_level(logging.WARNING):
        assert await _looks(receiver, 120) <= 8
    assert len(caplog.records) == 1, "the same trouble is told once"


async def test_what_was_under_way_is_polled_after_a_restart(
    sqlite_database: str, server: ReceiveServer
) -> None:
    async with open_receiver(sqlite_database, server) as receiver:
        payment_hash = await receiver.paid_invoice()
    async with open_receiver(sqlite_database, server) as receiver:
        assert await receiver.receives.poller.is_pending()
        await receiver.receives.poller.poll()
        await receiver.receives.poller.settle_down()
        await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)
        assert not await receiver.receives.poller.is_pending()
