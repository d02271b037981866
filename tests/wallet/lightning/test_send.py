"""Payments that go out: settled, failed and taken back, stuck and exited, and what is never begun."""

import asyncio
from dataclasses import replace

import pytest

from barkd_py.ark.fees import LightningSendFees
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.units import Network
from barkd_py.errors import BarkdError, ServerRejected, ServerUnavailable, chain_text
from barkd_py.server_rpc.api import LightningFailureReason, PaymentSucceeded
from barkd_py.wallet.lightning.ids import send_action_id
from barkd_py.wallet.lightning.send.errors import PaymentInProgress
from barkd_py.wallet.lightning.send.states import FORMAT, MAX_LOST, Initiated, Locked, Revocable, Stuck
from barkd_py.wallet.lightning.send.terms import CannotCoverLightningPayment
from barkd_py.wallet.movements import MovementStatus, PaymentMethod, PaymentMethodKind
from barkd_py.wallet.vtxo_states import StateKind
from tests.fakes.pay_server import PAY_INFO, PayServer
from tests.wallet.lightning.payer import PREIMAGE, Payer, bolt11, open_payer

COIN_SAT = 100_000
AMOUNT_SAT = 10_000
FEE_SAT = 115  # 75, and 4000 ppm of the amount
HASH = sha256(PREIMAGE)


async def assert_refunded(payer: Payer) -> None:
    await payer.assert_even(COIN_SAT)
    assert await payer.name() == "unknown"
    movement = await payer.movement()
    assert movement.status is MovementStatus.FAILED
    assert movement.effective_balance_sat == 0
    assert movement.offchain_fee_sat == 0
    assert movement.metadata["payment_preimage"] is None


async def assert_paid(payer: Payer) -> None:
    await payer.assert_even(COIN_SAT - AMOUNT_SAT - FEE_SAT)
    assert await payer.name() == "paid"
    assert (await payer.sends.find(HASH)).preimage == PREIMAGE
    movement = await payer.movement()
    assert movement.status is MovementStatus.SUCCESSFUL
    assert movement.effective_balance_sat == -AMOUNT_SAT - FEE_SAT
    assert movement.offchain_fee_sat == FEE_SAT
    assert movement.metadata["payment_preimage"] == PREIMAGE.hex()


# --- settled


async def test_a_payment_is_made(payer: Payer) -> None:
    (coin,) = await payer.vtxos(StateKind.SPENDABLE)
    invoice = bolt11()
    assert await payer.pay(invoice, retry_for_secs=30) == HASH
    assert await payer.name() == "payment-initiated"
    attempt = payer.server.attempt(HASH)
    assert (attempt.invoice, attempt.amount_sat, attempt.retry_for_secs) == (invoice.text, AMOUNT_SAT, 30)
    assert attempt.mailbox_id == payer.keychain.mailbox_key.public_key
    assert (await payer.balance()).pending_lightning_send_sat == AMOUNT_SAT + FEE_SAT

    movement = await payer.movement()
    assert movement.status is MovementStatus.PENDING
    assert movement.intended_balance_sat == -AMOUNT_SAT
    assert movement.effective_balance_sat == -AMOUNT_SAT - FEE_SAT
    assert movement.offchain_fee_sat == FEE_SAT
    assert movement.input_vtxos == (coin.id,)
    assert [(each.method, each.amount_sat) for each in movement.sent_to] == [
        (PaymentMethod(PaymentMethodKind.INVOICE, invoice.text), AMOUNT_SAT)
    ]
    assert dict(movement.metadata) == {
        "htlc_vtxos": [str(htlc_id) for htlc_id in attempt.htlc_ids],
        "payment_hash": HASH.hex(),
        "payment_preimage": None,
    }

    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


async def test_the_htlcs_are_what_was_asked_for(payer: Payer) -> None:
    await payer.pay()
    state = await payer.state()
    assert isinstance(state, Initiated)
    policy = state.payment.htlc_policy
    assert policy.kind == "server-htlc-send-v1"
    assert policy.htlc_expiry_height == payer.server.chain.height + PAY_INFO.htlc_send_expiry_delta
    async with payer.store.read() as tx:
        htlcs = await tx.vtxos.bodies(state.htlc_ids)
    assert [htlc.policy for htlc in htlcs] == [policy]
    change = await payer.vtxos(StateKind.SPENDABLE)
    assert sorted(vtxo.amount_sat for vtxo in change) == [
        44_942,
        44_943,
    ]  # change beyond the payment is split
    assert {vtxo.user_pubkey for vtxo in change} == {policy.user_pubkey}
    assert state.payment.revocation_pubkey != policy.user_pubkey


async def test_the_first_look_may_see_the_end(payer: Payer) -> None:
    async def settle_at_once(**order: object) -> None:
        await payer.server.initiate_lightning_payment(**order)  # type: ignore[arg-type]
        payer.server.settle(PREIMAGE)

    payer.liar.answers["initiate_lightning_payment"] = settle_at_once
    await payer.pay()
    await assert_paid(payer)


async def test_the_mailbox_settles_without_a_question(payer: Payer) -> None:
    await payer.pay()
    asked = payer.liar.calls["check_lightning_payment"]
    await payer.sends.on_finished(HASH, PREIMAGE)
    await payer.sends.poller.drive_all()
    assert payer.liar.calls["check_lightning_payment"] == asked
    assert await payer.name() == "paid"


async def test_the_mailbox_says_that_it_failed(payer: Payer) -> None:
    await payer.pay()
    payer.server.fail(HASH)
    await payer.sends.on_finished(HASH, None)
    await payer.sends.poller.drive_all()
    await assert_refunded(payer)


async def test_the_mailbox_speaks_of_a_payment_that_is_not_known(payer: Payer) -> None:
    await payer.sends.on_finished(HASH, PREIMAGE)
    assert await payer.name() == "unknown"


async def test_several_inputs_and_no_change(payer: Payer) -> None:
    await payer.add_coin(50_000, expiry_height=900)
    amount_sat = 150_000 - 75 - 598
    await payer.pay(bolt11(amount_sat))
    attempt = payer.server.attempt(HASH)
    assert len(attempt.htlc_ids) == 2
    assert await payer.vtxos(StateKind.SPENDABLE) == ()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await payer.assert_even(0)


async def test_dust_is_paid_with_isolated_outputs(payer: Payer) -> None:
    """The example of sheet 05 §4.4: 100 sat out of one VTXO."""
    await payer.pay(bolt11(100))
    attempt = payer.server.attempt(HASH)
    htlcs = [payer.server.books[htlc_id].vtxo for htlc_id in attempt.htlc_ids]
    assert [htlc.amount_sat for htlc in htlcs] == [176]
    payer.server.fail(HASH)
    await payer.drive()
    await assert_refunded(payer)


async def test_an_amountless_invoice_gets_what_the_payer_says(payer: Payer) -> None:
    await payer.pay(bolt11(None), AMOUNT_SAT)
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


async def test_the_server_looks_for_a_route_as_long_as_32_bits_can_say(payer: Payer) -> None:
    await payer.pay(bolt11(), retry_for_secs=2**64 - 1)
    assert payer.server.attempt(HASH).retry_for_secs == 4_294_967_295


async def test_several_htlcs_come_back_together(payer: Payer) -> None:
    await payer.add_coin(50_000, expiry_height=900)
    await payer.pay(bolt11(150_000 - 75 - 598))
    assert len(payer.server.attempt(HASH).htlc_ids) == 2
    payer.server.fail(HASH)
    await payer.drive()
    await payer.assert_even(150_000)
    assert (await payer.movement()).effective_balance_sat == 0
    assert [call for call in payer.liar.calls if call == "request_lightning_pay_htlc_revocation"] == [
        "request_lightning_pay_htlc_revocation"
    ]


async def test_a_sub_satoshi_invoice_is_rounded_up(payer: Payer) -> None:
    await payer.pay(bolt11(amount_msat=9_999_001))
    assert payer.server.attempt(HASH).amount_sat == AMOUNT_SAT


async def test_twice_as_much_may_be_paid(payer: Payer) -> None:
    await payer.pay(bolt11(5_000), AMOUNT_SAT)
    assert payer.server.attempt(HASH).amount_sat == AMOUNT_SAT


async def test_whoever_waits_gets_the_end(payer: Payer) -> None:
    looks = 0

    async def settle_at_the_third_look(payment_hash: bytes) -> object:
        nonlocal looks
        looks += 1
        if looks == 3:
            payer.server.settle(PREIMAGE)
        return await payer.server.check_lightning_payment(payment_hash)

    payer.liar.answers["check_lightning_payment"] = settle_at_the_third_look
    await payer.pay(wait=True)
    await assert_paid(payer)


async def test_whoever_waits_is_told_of_the_failure(payer: Payer) -> None:
    async def fail_at_once(payment_hash: bytes) -> object:
        payer.server.fail(payment_hash)
        return await payer.server.check_lightning_payment(payment_hash)

    payer.liar.answers["check_lightning_payment"] = fail_at_once
    with pytest.raises(BarkdError, match="Lightning payment failed"):
        await payer.pay(wait=True)
    await assert_refunded(payer)


# --- failed


@pytest.mark.parametrize("reason", LightningFailureReason)
async def test_a_payment_that_failed_is_taken_back(payer: Payer, reason: LightningFailureReason) -> None:
    await payer.pay()
    payer.server.fail(HASH, reason)
    await payer.drive()
    await assert_refunded(payer)
    (back,) = [vtxo for vtxo in await payer.vtxos(StateKind.SPENDABLE) if vtxo.amount_sat == 10_115]
    assert back.id in (await payer.movement()).output_vtxos


async def test_a_payment_that_failed_in_the_same_call_is_no_error(payer: Payer) -> None:
    async def fail_at_once(**order: object) -> None:
        await payer.server.initiate_lightning_payment(**order)  # type: ignore[arg-type]
        payer.server.fail(HASH)

    payer.liar.answers["initiate_lightning_payment"] = fail_at_once
    assert await payer.pay() == HASH
    await assert_refunded(payer)


async def test_after_a_failure_the_invoice_can_be_paid(payer: Payer) -> None:
    await payer.pay()
    payer.server.fail(HASH)
    await payer.drive()
    await payer.pay()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    new, old = await payer.movements()
    assert (new.status, old.status) == (MovementStatus.SUCCESSFUL, MovementStatus.FAILED)
    assert await payer.name() == "paid"


async def test_a_refusal_of_the_htlcs_undoes_everything(payer: Payer) -> None:
    payer.server.lag = -2  # its tip is ahead: the HTLCs would expire too soon
    with pytest.raises(ServerRejected, match="requested expiry is too low"):
        await payer.pay()
    await assert_refunded(payer)
    assert payer.server.attempts == {}


async def test_a_refusal_to_pay_takes_the_htlcs_back(payer: Payer) -> None:
    async def refuse(**_: object) -> None:
        raise ServerRejected("bad user input: no")

    payer.liar.answers["initiate_lightning_payment"] = refuse
    await payer.pay()
    await assert_refunded(payer)


async def test_a_server_that_is_a_block_behind_gets_enough(payer: Payer) -> None:
    """At its tip the input is in a dearer bracket."""
    async with payer.store.transaction() as tx:
        await tx.vtxos.mark_spent([vtxo.id for vtxo in await payer.vtxos(StateKind.SPENDABLE)])
    height = payer.server.chain.height
    await payer.add_coin(50_000, expiry_height=height + 198)  # 198 blocks: 1000 ppm; 199: 4000
    payer.server.lag = 1
    await payer.pay()
    assert (await payer.movement()).offchain_fee_sat == FEE_SAT
    assert await payer.name() == "payment-initiated"


async def test_a_server_that_forgets_is_told_again(payer: Payer) -> None:
    payer.server.forgets = True
    await payer.pay()
    assert await payer.name() == "payment-initiated"
    payer.server.forgets = False
    await payer.drive()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


async def test_a_server_that_never_knows_gives_the_htlcs_back(payer: Payer) -> None:
    payer.server.forgets = True
    await payer.pay()
    for _ in range(MAX_LOST):
        await payer.drive()
    await assert_refunded(payer)


# --- outages


@pytest.mark.parametrize(
    "call",
    ["request_lightning_pay_htlc_cosign", "register_vtxo_transactions", "initiate_lightning_payment"],
)
async def test_an_outage_is_waited_for(payer: Payer, call: str) -> None:
    payer.server.away.add(call)
    with pytest.raises(ServerUnavailable):
        await payer.pay()
    with pytest.raises(ServerUnavailable):
        await payer.drive()
    payer.server.away.clear()
    await payer.drive()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


async def test_a_poll_that_is_not_answered_is_no_news(payer: Payer) -> None:
    await payer.pay()
    payer.server.away.add("check_lightning_payment")
    await payer.drive()
    assert await payer.name() == "payment-initiated"


async def test_the_chain_source_is_away(payer: Payer) -> None:
    await payer.pay()
    payer.server.chain.is_away = True
    await payer.drive()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    assert await payer.name() == "paid"


@pytest.mark.parametrize(
    "call",
    [
        "request_lightning_pay_htlc_cosign",
        "register_vtxo_transactions",
        "initiate_lightning_payment",
        "check_lightning_payment",
    ],
)
async def test_an_answer_that_is_lost_changes_nothing(payer: Payer, call: str) -> None:
    payer.liar.lost[call] = 1
    try:
        await payer.pay()
    except ServerUnavailable:
        await payer.drive()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


async def test_a_lost_revocation_is_asked_for_again(payer: Payer) -> None:
    await payer.pay()
    payer.server.fail(HASH)
    payer.liar.lost["request_lightning_pay_htlc_revocation"] = 2
    with pytest.raises(ServerUnavailable):
        await payer.drive()
    assert isinstance(await payer.state(), Stuck)
    await payer.drive()
    await assert_refunded(payer)


async def test_htlcs_that_were_cosigned_unheard_come_back_though_they_would_expire_too_soon(
    payer: Payer,
) -> None:
    """Upstream releases the inputs, which the server has spent in its books."""
    payer.liar.lost["request_lightning_pay_htlc_cosign"] = 1
    with pytest.raises(ServerUnavailable):
        await payer.pay()
    payer.server.chain.height += 5
    await payer.drive()
    assert payer.liar.calls["request_arkoor_cosign"] == 1
    await assert_refunded(payer)


async def test_until_the_books_are_known_nothing_is_undone(payer: Payer) -> None:
    payer.liar.lost["request_lightning_pay_htlc_cosign"] = 1
    with pytest.raises(ServerUnavailable):
        await payer.pay()
    payer.server.chain.height += 5
    payer.server.away |= {"get_vtxo_statuses", "request_arkoor_cosign"}
    with pytest.raises(ServerRejected):
        await payer.drive()
    assert isinstance(await payer.state(), Locked)
    payer.server.away.clear()
    await payer.drive()
    await assert_refunded(payer)


async def test_a_payment_that_was_made_unheard_is_no_failure(payer: Payer) -> None:
    """Told again, the server refuses: the HTLCs are its own by now. Upstream waits for ever."""
    payer.liar.lost["initiate_lightning_payment"] = 1
    with pytest.raises(ServerUnavailable):
        await payer.pay()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


async def test_a_preimage_in_a_refusal_counts(payer: Payer) -> None:
    """The attempt is said to have failed, and was settled after all."""
    await payer.pay()
    payer.server.fail(HASH)

    async def refuse(_: object) -> None:
        payer.server.settle(PREIMAGE)
        raise ServerRejected(f"invoice has already been paid, preimage: {PREIMAGE.hex()}")

    payer.liar.answers["request_lightning_pay_htlc_revocation"] = refuse
    await payer.drive()
    await assert_paid(payer)


async def test_a_late_success_counts_while_the_htlcs_are_stuck(payer: Payer) -> None:
    await payer.pay()
    payer.server.fail(HASH)
    payer.server.away.add("request_lightning_pay_htlc_revocation")
    with pytest.raises(ServerUnavailable):
        await payer.drive()
    assert await payer.name() == "revocation-stuck"
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


# --- stuck


async def test_a_payment_that_nobody_answers_comes_back_after_the_htlcs_expired(payer: Payer) -> None:
    await payer.pay()
    state = await payer.state()
    assert isinstance(state, Initiated)
    expiry = state.payment.htlc_expiry_height
    payer.server.chain.height = expiry - 12
    await payer.drive()
    assert await payer.name() == "payment-initiated"
    payer.server.chain.height = expiry - 11
    with pytest.raises(ServerRejected, match="not eligible for revocation yet"):
        await payer.drive()
    assert await payer.name() == "revocation-stuck"
    payer.server.chain.height = expiry
    with pytest.raises(ServerRejected):
        await payer.drive()
    assert payer.exits.started == []  # the server is right to wait
    payer.server.chain.height = expiry + 1
    await payer.drive()
    await assert_refunded(payer)


async def stuck_at(payer: Payer, height_before_expiry: int) -> None:
    """The payment failed, and the server refuses to give the HTLCs back."""
    await payer.pay()
    state = await payer.state()
    assert isinstance(state, Initiated)
    payer.server.fail(HASH)

    async def refuse(_: object) -> None:
        raise ServerRejected("bad user input: no")

    payer.liar.answers["request_lightning_pay_htlc_revocation"] = refuse
    payer.server.chain.height = state.payment.htlc_expiry_height - height_before_expiry


async def test_htlcs_that_the_server_keeps_exit_before_they_expire(payer: Payer) -> None:
    await stuck_at(payer, 12)
    with pytest.raises(ServerRejected):
        await payer.drive()
    assert payer.exits.started == []
    payer.server.chain.height += 1
    await payer.drive()
    htlc_ids = payer.server.attempt(HASH).htlc_ids
    assert payer.exits.started == list(htlc_ids)
    movement = await payer.movement()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert movement.exited_vtxos == htlc_ids
    assert (await payer.balance()).pending_lightning_send_sat == AMOUNT_SAT + FEE_SAT

    await payer.drive()
    assert await payer.name() == "revocation-stuck"
    assert payer.exits.started == list(htlc_ids)
    assert (await payer.sends.find(HASH)).state.value == "revocation-stuck"


async def test_what_is_exiting_may_still_be_paid(payer: Payer) -> None:
    await stuck_at(payer, 11)
    await payer.drive()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


async def test_a_server_that_is_away_when_htlcs_expire_does_not_keep_them(payer: Payer) -> None:
    await payer.pay()
    state = await payer.state()
    assert isinstance(state, Initiated)
    payer.server.away |= {"check_lightning_payment", "request_lightning_pay_htlc_revocation"}
    payer.server.chain.height = state.payment.htlc_expiry_height - 11
    with pytest.raises(ServerUnavailable):
        await payer.drive()
    assert payer.exits.started == []  # it may be restarting
    payer.server.chain.height += 3
    await payer.drive()
    assert payer.exits.started == list(payer.server.attempt(HASH).htlc_ids)


async def test_htlcs_exit_before_the_tree_below_them_expires(payer: Payer) -> None:
    async with payer.store.transaction() as tx:
        await tx.vtxos.mark_spent([vtxo.id for vtxo in await payer.vtxos(StateKind.SPENDABLE)])
    height = payer.server.chain.height
    await payer.add_coin(50_000, expiry_height=height + 100)
    await payer.pay()
    # A margin of 12 blocks, and three transactions: the coin's, and the two of an arkoor.
    payer.server.chain.height = height + 84
    await payer.drive()
    assert await payer.name() == "payment-initiated"
    payer.server.chain.height = height + 85
    await payer.drive()
    assert payer.exits.started == list(payer.server.attempt(HASH).htlc_ids)


async def test_what_cannot_exit_waits_for_the_server(payer: Payer) -> None:
    await stuck_at(payer, 11)
    payer.exits.refuses |= set(payer.server.attempt(HASH).htlc_ids)
    with pytest.raises(BarkdError, match="too small to exit"):
        await payer.drive()
    del payer.liar.answers["request_lightning_pay_htlc_revocation"]
    await payer.drive()
    await assert_refunded(payer)


async def test_a_tip_that_is_not_known_does_not_start_the_count_of_silence(payer: Payer) -> None:
    await payer.pay()
    state = await payer.state()
    assert isinstance(state, Initiated)
    payer.server.away |= {"check_lightning_payment", "request_lightning_pay_htlc_revocation"}
    payer.server.chain.height = state.payment.htlc_expiry_height - 11
    with pytest.raises(ServerUnavailable):
        await payer.drive()
    async with payer.store.transaction() as tx:  # the silence begins anew
        row = await tx.actions.find(send_action_id(HASH))
        assert row is not None
        stuck = FORMAT.encode(Stuck(state.payment, state.htlc_ids))
        await tx.actions.save(row.id, row.kind, stuck, state.htlc_ids)
    payer.server.chain.is_away = True
    with pytest.raises(ServerUnavailable):
        await payer.drive()
    payer.server.chain.is_away = False
    with pytest.raises(ServerUnavailable):
        await payer.drive()
    assert payer.exits.started == []
    stuck_now = await payer.state()
    assert isinstance(stuck_now, Stuck)
    assert stuck_now.silent_since_height == payer.server.chain.height


async def test_htlcs_that_somebody_put_on_the_chain_are_followed_there(payer: Payer) -> None:
    await stuck_at(payer, 50)
    with pytest.raises(ServerRejected):
        await payer.drive()
    htlc_ids = payer.server.attempt(HASH).htlc_ids
    await payer.mark_exited(htlc_ids)
    await payer.drive()
    state = await payer.state()
    assert isinstance(state, Stuck)
    assert state.exiting == htlc_ids
    movement = await payer.movement()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert movement.exited_vtxos == htlc_ids


# --- one payment per invoice


async def test_what_is_paid_is_not_paid_again(payer: Payer) -> None:
    await payer.pay()
    payer.server.settle(PREIMAGE)
    await payer.drive()
    calls = sum(payer.liar.calls.values())
    with pytest.raises(BarkdError, match=r"^Invoice has already been paid$"):
        await payer.pay()
    assert sum(payer.liar.calls.values()) == calls
    await assert_paid(payer)


async def test_what_is_under_way_is_not_started_again(payer: Payer) -> None:
    await payer.pay()
    assert await payer.pay(amount_sat=15_000) == HASH  # what is asked now does not matter
    assert len(payer.server.attempts[HASH]) == 1
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid(payer)


async def test_naming_a_payment_again_goes_on_with_it(payer: Payer) -> None:
    payer.server.away.add("initiate_lightning_payment")
    with pytest.raises(ServerUnavailable):
        await payer.pay()
    payer.server.away.clear()
    await payer.pay()
    assert await payer.name() == "payment-initiated"
    assert len(payer.server.attempts[HASH]) == 1


async def test_a_hundred_calls_at_once_make_one_payment(payer: Payer) -> None:
    await payer.add_coin()
    results = await asyncio.gather(*(payer.pay() for _ in range(100)), return_exceptions=True)
    refusals = [result for result in results if isinstance(result, BaseException)]
    assert {type(refusal) for refusal in refusals} == {PaymentInProgress}
    assert len(results) - len(refusals) == 1
    assert len(payer.server.attempts[HASH]) == 1
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await payer.assert_even(2 * COIN_SAT - AMOUNT_SAT - FEE_SAT)


async def test_many_invoices_at_once(payer: Payer) -> None:
    """Whatever there is no money for is refused, and the rest is paid."""
    for _ in range(9):
        await payer.add_coin(20_000)
    preimages = [bytes([number]) * 32 for number in range(20)]
    results = await asyncio.gather(
        *(payer.pay(bolt11(preimage=preimage)) for preimage in preimages), return_exceptions=True
    )
    begun = [
        preimage for preimage, result in zip(preimages, results, strict=True) if result == sha256(preimage)
    ]
    assert 9 <= len(begun) < 20
    for preimage in begun:
        payer.server.settle(preimage)
    await payer.sends.poller.drive_all()
    await payer.assert_even(COIN_SAT + 9 * 20_000 - len(begun) * (AMOUNT_SAT + FEE_SAT))


async def test_payments_wait_for_the_change_of_others(payer: Payer) -> None:
    """There is one coin; each payment gets what the one before has left."""
    preimages = [bytes([number]) * 32 for number in range(3)]
    results = await asyncio.gather(*(payer.pay(bolt11(preimage=preimage)) for preimage in preimages))
    assert results == [sha256(preimage) for preimage in preimages]
    for preimage in preimages:
        payer.server.settle(preimage)
    await payer.sends.poller.drive_all()
    await payer.assert_even(COIN_SAT - 3 * (AMOUNT_SAT + FEE_SAT))


async def test_whoever_waits_for_the_end_does_not_hold_up_the_others(payer: Payer) -> None:
    """The first leaves two pieces of change. The second takes one, and is under way for long."""

    async def slow(payment_hash: bytes) -> object:
        await asyncio.sleep(0.01)  # there are no pauses between the looks
        return await payer.server.check_lightning_payment(payment_hash)

    payer.liar.answers["check_lightning_payment"] = slow
    orders = [(10_000, b"\x01" * 32), (40_000, b"\x02" * 32), (40_000, b"\x03" * 32)]
    first, second, third = [
        asyncio.create_task(payer.pay(bolt11(amount_sat, preimage), wait=preimage[0] == 2))
        for amount_sat, preimage in orders
    ]
    await asyncio.wait_for(asyncio.gather(first, third), 60)
    assert not second.done()
    for _, preimage in orders:
        payer.server.settle(preimage)
    await asyncio.wait_for(second, 60)
    await payer.sends.poller.drive_all()
    async with payer.store.read() as tx:
        assert await tx.actions.list() == ()


async def test_nobody_waits_for_change_that_is_too_little(payer: Payer) -> None:
    big, second = bolt11(90_000), bolt11(preimage=b"\x67" * 32)
    results = await asyncio.gather(payer.pay(big), payer.pay(second), return_exceptions=True)
    assert results[0] == HASH
    assert isinstance(results[1], CannotCoverLightningPayment)


async def test_two_wallets_do_not_pay_one_invoice(payer: Payer) -> None:
    """The other one's attempt is open at the server."""
    await payer.pay()
    payer.server.attempts[sha256(b"other")] = payer.server.attempts.pop(HASH)
    payer.server.attempts[HASH] = payer.server.attempts[sha256(b"other")]
    other = bolt11(preimage=b"\x65" * 32)
    payer.server.attempts[other.payment_hash] = payer.server.attempts[HASH]
    spendable = (await payer.balance()).spendable_sat
    with pytest.raises(ServerRejected, match="payment already in progress for this invoice"):
        await payer.pay(other)
    assert (await payer.balance()).spendable_sat == spendable


# --- never begun


REFUSED: list[tuple[str, Bolt11Invoice, int | None, str]] = [
    ("mainnet", bolt11(network=Network.MAINNET), None, "Invoice is for wrong network: bitcoin"),
    ("testnet", bolt11(network=Network.TESTNET), None, "Invoice is for wrong network: testnet"),
    ("signet", bolt11(network=Network.SIGNET), 10_000, "Invoice is for wrong network: signet"),
    (
        "one sat less",
        bolt11(),
        AMOUNT_SAT - 1,
        "invalid user amount: invoice=0.00010000 BTC, user=0.00009999 BTC",
    ),
    (
        "more than twice as much",
        bolt11(),
        2 * AMOUNT_SAT + 1,
        "invalid user amount: invoice=0.00010000 BTC, user=0.00020001 BTC",
    ),
    (
        "nothing for something",
        bolt11(),
        0,
        "invalid user amount: invoice=0.00010000 BTC, user=0 BTC",
    ),
    ("no amount at all", bolt11(None), None, "user amount required"),
    (
        "zero of any amount",
        bolt11(None),
        0,
        "Cannot pay invoice for 0 sats (0 sat invoices are not any-amount invoices)",
    ),
    (
        "an invoice for zero",
        bolt11(0),
        None,
        "Cannot pay invoice for 0 sats (0 sat invoices are not any-amount invoices)",
    ),
    (
        "more than there is",
        bolt11(COIN_SAT),
        None,
        "Could not find enough suitable VTXOs to cover lightning payment: Could not find enough suitable "
        "VTXOs to cover payment + fees: Insufficient money available. Needed 0.00100475 BTC but "
        "0.00100000 BTC is available",
    ),
]


@pytest.mark.parametrize(
    ("invoice", "amount_sat", "message"),
    [case[1:] for case in REFUSED],
    ids=[case[0] for case in REFUSED],
)
async def test_what_is_refused_leaves_no_trace(
    payer: Payer, invoice: Bolt11Invoice, amount_sat: int | None, message: str
) -> None:
    keys = await payer.keychain.reserve()
    with pytest.raises(BarkdError) as raised:
        await payer.pay(invoice, amount_sat)
    assert chain_text(raised.value) == message
    assert (await payer.keychain.reserve()).index == keys.index + 1
    assert await payer.movements() == []
    await payer.assert_even(COIN_SAT)


async def test_an_expired_invoice_is_the_payees_to_refuse(payer: Payer) -> None:
    """As in barkd; the payee's node sends the money back."""
    await payer.pay(bolt11(timestamp=1_500_000_000))
    payer.server.fail(HASH, LightningFailureReason.DESTINATION_REJECTED)
    await payer.drive()
    await assert_refunded(payer)


async def test_a_wallet_without_money_pays_nothing(sqlite_database: str, pay_server: PayServer) -> None:
    async with open_payer(sqlite_database, pay_server) as payer:
        with pytest.raises(
            BarkdError, match="Could not find enough suitable VTXOs to cover lightning payment"
        ):
            await payer.pay()
        assert await payer.state() is None


async def test_htlcs_are_no_inputs(payer: Payer) -> None:
    """A recovery may leave HTLC VTXOs spendable; the server refuses them."""
    await payer.pay()
    async with payer.store.transaction() as tx:
        htlc_ids = payer.server.attempt(HASH).htlc_ids
        await tx.vtxos.mark_spent([vtxo.id for vtxo in await payer.vtxos(StateKind.SPENDABLE)])
        held = await tx.vtxos.get_many(htlc_ids)
        await tx.vtxos.release(htlc_ids, held[0].state.holder)  # type: ignore[union-attr]
    with pytest.raises(BarkdError, match="Could not find enough suitable VTXOs to cover lightning payment"):
        await payer.pay(bolt11(100, preimage=b"\x66" * 32))


async def test_an_absurd_fee_is_not_paid(payer: Payer) -> None:
    payer.server.info_ = replace(
        PAY_INFO, fees=replace(PAY_INFO.fees, lightning_send=LightningSendFees(0, 20_001, ()))
    )
    with pytest.raises(BarkdError, match=r"the server asks for a fee of 0\.00020001 BTC"):
        await payer.pay()
    await payer.assert_even(COIN_SAT)
    payer.server.info_ = replace(
        PAY_INFO, fees=replace(PAY_INFO.fees, lightning_send=LightningSendFees(0, 20_000, ()))
    )
    await payer.pay()


async def test_inputs_that_outlive_the_htlcs_are_preferred(payer: Payer) -> None:
    height = payer.server.chain.height
    await payer.add_coin(COIN_SAT, expiry_height=height + 258 + 24 + 11)
    await payer.pay()
    (spent,) = (await payer.movement()).input_vtxos
    assert payer.server.books[spent].vtxo.expiry_height == 1_000


# --- estimates


@pytest.mark.parametrize(
    ("amount_sat", "fee_sat", "is_covered"),
    [
        (0, 75, True),
        (1_000, 79, True),
        (10_000, 115, True),
        (99_999, 875, False),
        (99_999_999_999, 800_000_075, False),
    ],
)
async def test_fees_are_estimated(payer: Payer, amount_sat: int, fee_sat: int, is_covered: bool) -> None:
    (coin,) = await payer.vtxos(StateKind.SPENDABLE)
    estimate = await payer.sends.estimate(amount_sat)
    assert estimate.gross_amount_sat == amount_sat + fee_sat
    assert (estimate.fee_sat, estimate.net_amount_sat) == (fee_sat, amount_sat)
    assert estimate.vtxos_spent == ((coin.id,) if is_covered else ())


# --- looking after them


async def test_a_payment_is_looked_at_ever_less_often(payer: Payer) -> None:
    await payer.pay()
    assert await payer.sends.poller.is_pending()
    asked = payer.liar.calls["check_lightning_payment"]

    async def looks(seconds: int) -> int:
        nonlocal asked
        for _ in range(seconds):
            payer.clock.seconds += 1
            await payer.sends.poller.poll()
            await payer.sends.poller.settle_down()
        before, asked = asked, payer.liar.calls["check_lightning_payment"]
        return asked - before

    assert await looks(10) == 10
    payer.clock.seconds += 120
    assert 3 <= await looks(20) <= 5
    payer.clock.seconds += 10_000
    assert 2 <= await looks(20) <= 3
    payer.server.settle(PREIMAGE)
    await looks(11)
    assert await payer.name() == "paid"
    assert not await payer.sends.poller.is_pending()


async def test_a_mailbox_message_during_a_look_is_not_lost(payer: Payer) -> None:
    await payer.pay()
    gate = asyncio.Event()

    async def slow(payment_hash: bytes) -> object:
        status = await payer.server.check_lightning_payment(payment_hash)
        await gate.wait()
        return status

    payer.liar.answers["check_lightning_payment"] = slow
    drive = asyncio.create_task(payer.sends.poller.drive_all())
    async with asyncio.timeout(60):
        while not payer.liar.calls["check_lightning_payment"] > 1:
            await asyncio.sleep(0)
    await payer.sends.on_finished(HASH, PREIMAGE)
    gate.set()
    await drive
    await payer.sends.poller.drive_all()
    assert await payer.name() == "paid"


async def test_a_caller_who_leaves_does_not_stop_the_payment(payer: Payer) -> None:
    gate = asyncio.Event()
    reached = asyncio.Event()

    async def slow(**order: object) -> None:
        reached.set()
        await gate.wait()
        await payer.server.initiate_lightning_payment(**order)  # type: ignore[arg-type]

    payer.liar.answers["initiate_lightning_payment"] = slow
    caller = asyncio.create_task(payer.pay())
    await asyncio.wait_for(reached.wait(), 60)
    caller.cancel()
    gate.set()
    (task,) = payer.sends.drives.tasks([send_action_id(HASH)])
    await task
    assert await payer.name() == "payment-initiated"


async def test_a_state_survives_its_encoding(payer: Payer) -> None:
    await payer.pay()
    initiated = await payer.state()
    assert isinstance(initiated, Initiated)
    for state in (
        initiated,
        Locked(initiated.payment, 3),
        Revocable(initiated.payment, initiated.htlc_ids),
        Stuck(initiated.payment, initiated.htlc_ids, 5, initiated.htlc_ids),
    ):
        assert FORMAT.decode(FORMAT.encode(state)) == state


async def test_success_without_a_preimage_is_none(payer: Payer) -> None:
    await payer.pay()
    payer.server.attempt(HASH).status = PaymentSucceeded(b"\x00" * 32)
    await payer.drive()
    assert await payer.name() == "payment-initiated"
