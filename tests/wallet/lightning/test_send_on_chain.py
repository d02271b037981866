"""Payments whose HTLCs went on the chain: there the server may still make a success of them."""

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn
from barkd_py.bitcoin.units import BlockRef
from barkd_py.errors import BarkdError, ChainUnavailable, ServerRejected
from barkd_py.wallet.exits.states import (
    AwaitingDelta,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitState,
    Processing,
    VtxoAlreadySpent,
    VtxoSwept,
)
from barkd_py.wallet.lightning.send.errors import AlreadyPaid, HtlcsOnChain
from barkd_py.wallet.lightning.send.states import Stuck
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.vtxo_states import StateKind
from tests.wallet.lightning.payer import PREIMAGE, Payer, bolt11
from tests.wallet.lightning.test_send import AMOUNT_SAT, COIN_SAT, FEE_SAT, HASH, assert_refunded, stuck_at

BLOCK = BlockRef(450, BlockHash(b"\x01" * 32))
CLAIMABLE = Claimable(460, BLOCK)
SIGNATURE = b"\x02" * 64
SCRIPT = b"\x03" * 70


def waiting() -> AwaitingDelta:
    return AwaitingDelta(450, BLOCK, 480)


async def exiting(payer: Payer) -> VtxoId:
    """The server keeps the HTLC, and its exit has begun."""
    await stuck_at(payer, 11)
    await payer.drive()
    (htlc_id,) = payer.exits.started
    await payer.exit(htlc_id, Processing(440, ()))
    return htlc_id


def taken_by(payer: Payer, htlc_id: VtxoId, *witness: bytes) -> Txid:
    """The transaction that takes the output on the chain."""
    tx = Tx(2, (TxIn(htlc_id.outpoint, witness=witness),), ())
    payer.server.chain.txs[tx.txid] = tx
    payer.server.chain.spends[htlc_id.outpoint] = tx.txid
    return tx.txid


async def assert_under_way(payer: Payer) -> None:
    await payer.drive()
    assert await payer.name() == "revocation-stuck"
    attempts = len(payer.server.attempts[HASH])
    with pytest.raises(HtlcsOnChain, match="already in progress for this invoice: its HTLCs are being taken"):
        await payer.pay()
    assert len(payer.server.attempts[HASH]) == attempts


async def assert_paid_on_chain(payer: Payer) -> None:
    """Whatever the exits make of it later."""
    assert await payer.state() is None
    found = await payer.sends.find(HASH)
    assert (found.state.value, found.preimage) == ("paid", PREIMAGE)
    with pytest.raises(AlreadyPaid):
        await payer.pay()
    assert len(payer.server.attempts[HASH]) == 1
    movement = await payer.movement()
    assert movement.status is MovementStatus.SUCCESSFUL
    assert movement.effective_balance_sat == -AMOUNT_SAT - FEE_SAT
    assert movement.metadata["payment_preimage"] == PREIMAGE.hex()
    assert [each.effective_balance_sat for each in await payer.exit_movements()] == [0]
    assert (await payer.balance()).spendable_sat == COIN_SAT - AMOUNT_SAT - FEE_SAT


async def test_an_invoice_is_not_paid_again_while_its_htlcs_exit(payer: Payer) -> None:
    htlc_id = await exiting(payer)
    await assert_under_way(payer)
    states: list[ExitState] = [waiting(), CLAIMABLE]
    for state in states:
        await payer.exit(htlc_id, state)
        await assert_under_way(payer)
    assert (await payer.movement()).status is MovementStatus.FAILED


@pytest.mark.parametrize("stage", ["waiting", "being claimed", "claimed"])
async def test_htlcs_that_the_server_takes_with_the_preimage_are_a_payment(payer: Payer, stage: str) -> None:
    """The server pays the payee, says nothing, and takes the HTLC long before we could."""
    htlc_id = await exiting(payer)
    await payer.exit(htlc_id, waiting())
    await assert_under_way(payer)
    txid = taken_by(payer, htlc_id, SIGNATURE, PREIMAGE, SCRIPT)
    if stage == "being claimed":
        await payer.exit(htlc_id, ClaimInProgress(470, BLOCK, txid))
    if stage == "claimed":
        await payer.exit(htlc_id, Claimed(470, txid, BLOCK))
    await payer.drive()
    await assert_paid_on_chain(payer)
    await payer.exit(htlc_id, Claimed(480, txid, BLOCK))  # the exits see it as well
    await assert_paid_on_chain(payer)


async def test_an_invoice_that_is_named_again_is_found_paid_on_the_chain(payer: Payer) -> None:
    htlc_id = await exiting(payer)
    await payer.exit(htlc_id, waiting())
    taken_by(payer, htlc_id, SIGNATURE, PREIMAGE, SCRIPT)
    with pytest.raises(AlreadyPaid):
        await payer.pay()
    await assert_paid_on_chain(payer)


@pytest.mark.parametrize("is_known", [True, False], ids=["our claim", "a claim of our seed"])
async def test_htlcs_that_we_claimed_are_no_payment(payer: Payer, is_known: bool) -> None:
    htlc_id = await exiting(payer)
    await payer.exit(htlc_id, CLAIMABLE)
    txid = taken_by(payer, htlc_id, SIGNATURE, b"\x04" * 32, SCRIPT)
    if is_known:
        async with payer.store.transaction() as tx:
            await tx.exits.save_claim(payer.server.chain.txs.pop(txid))
    await payer.exit(htlc_id, ClaimInProgress(470, BLOCK, txid))
    await assert_under_way(payer)
    await payer.exit(htlc_id, Claimed(480, txid, BLOCK))
    await payer.drive()
    assert await payer.state() is None
    assert await payer.name() == "unknown"
    assert await payer.vtxos(StateKind.LOCKED) == ()
    movement = await payer.movement()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
    (exit_movement,) = await payer.exit_movements()
    assert exit_movement.status is MovementStatus.SUCCESSFUL
    assert exit_movement.effective_balance_sat == -AMOUNT_SAT - FEE_SAT

    await payer.pay()  # so now it may be paid
    payer.server.settle(PREIMAGE)
    await payer.drive()
    assert await payer.name() == "paid"


async def test_a_claim_that_cannot_be_read_decides_nothing(payer: Payer) -> None:
    htlc_id = await exiting(payer)
    txid = taken_by(payer, htlc_id, SIGNATURE, PREIMAGE, SCRIPT)
    tx = payer.server.chain.txs.pop(txid)
    await payer.exit(htlc_id, Claimed(480, txid, BLOCK))
    with pytest.raises(ChainUnavailable):
        await payer.drive()
    with pytest.raises(BarkdError):
        await payer.pay()
    assert len(payer.server.attempts[HASH]) == 1
    payer.server.chain.txs[txid] = tx
    await payer.drive()
    await assert_paid_on_chain(payer)


async def test_a_preimage_in_another_input_proves_nothing(payer: Payer) -> None:
    htlc_id = await exiting(payer)
    await payer.exit(htlc_id, waiting())
    other = OutPoint(Txid(b"\x05" * 32), 0)
    tx = Tx(2, (TxIn(htlc_id.outpoint, witness=(SIGNATURE,)), TxIn(other, witness=(PREIMAGE,))), ())
    payer.server.chain.txs[tx.txid] = tx
    payer.server.chain.spends[htlc_id.outpoint] = tx.txid
    await assert_under_way(payer)


async def test_the_server_may_say_the_preimage_while_the_htlcs_are_on_the_chain(payer: Payer) -> None:
    htlc_id = await exiting(payer)
    await payer.exit(htlc_id, waiting())
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_paid_on_chain(payer)


async def assert_history_is_the_balance(payer: Payer) -> None:
    async with payer.store.read() as tx:
        history_sat = sum(each.effective_balance_sat for each in await tx.movements.list())
    assert COIN_SAT + history_sat == (await payer.balance()).total_sat


async def test_what_is_swept_below_the_htlcs_is_not_paid_again(payer: Payer) -> None:
    """Nothing shows whether the payee was paid."""
    htlc_id = await exiting(payer)
    await payer.exit(htlc_id, VtxoSwept(480, (htlc_id.outpoint,)))
    await assert_under_way(payer)
    assert await payer.vtxos(StateKind.LOCKED) == ()
    assert (await payer.balance()).pending_lightning_send_sat == 0
    await assert_history_is_the_balance(payer)
    payer.server.settle(PREIMAGE)
    await payer.drive()
    assert await payer.name() == "paid"
    await assert_paid_on_chain(payer)
    await assert_history_is_the_balance(payer)


@pytest.mark.parametrize("is_swept_first", [True, False], ids=["swept, then paid", "paid, then swept"])
async def test_a_swept_htlc_that_was_paid_with_has_left_once(payer: Payer, is_swept_first: bool) -> None:
    """The preimage comes between the sweep and the next look at it, or before it."""
    htlc_id = await exiting(payer)
    swept = VtxoSwept(480, (htlc_id.outpoint,))
    payer.server.settle(PREIMAGE)
    if is_swept_first:
        await payer.exit(htlc_id, swept)
    await payer.drive()
    await assert_history_is_the_balance(payer)
    await payer.exit(htlc_id, swept)  # the exits' last word
    await assert_history_is_the_balance(payer)
    assert (await payer.movement()).effective_balance_sat == -AMOUNT_SAT - FEE_SAT


async def test_a_payment_that_is_made_while_its_htlc_exits_ends_the_exit(payer: Payer) -> None:
    htlc_id = await exiting(payer)
    payer.server.settle(PREIMAGE)
    await payer.drive()
    await assert_history_is_the_balance(payer)
    await payer.exit(htlc_id, VtxoAlreadySpent(441))
    await assert_history_is_the_balance(payer)
    (exit_movement,) = await payer.exit_movements()
    assert exit_movement.status is MovementStatus.CANCELED


async def test_a_swept_htlc_that_the_server_gives_back_has_not_left(payer: Payer) -> None:
    """The user exits it while the server pays; the way to it is swept, and the payment fails."""
    await payer.pay()
    (htlc_id,) = payer.server.attempt(HASH).htlc_ids
    await payer.exit(htlc_id, VtxoSwept(480, (htlc_id.outpoint,)))
    payer.server.fail(HASH)
    await payer.drive()
    await assert_refunded(payer)
    await assert_history_is_the_balance(payer)


async def test_an_exit_that_is_canceled_leaves_it_to_the_server(payer: Payer) -> None:
    htlc_id = await exiting(payer)
    await payer.exit(htlc_id, Canceled(441))
    await payer.drive()
    state = await payer.state()
    assert isinstance(state, Stuck)
    assert state.exiting == ()
    del payer.liar.answers["request_lightning_pay_htlc_revocation"]
    await payer.drive()
    await assert_refunded_though_exiting(payer)


async def assert_refunded_though_exiting(payer: Payer) -> None:
    await assert_refunded(payer)
    assert [each.effective_balance_sat for each in await payer.exit_movements()] == [0]


async def test_one_htlc_comes_back_and_the_other_is_taken_on_the_chain(payer: Payer) -> None:
    """The server puts one of two on the chain itself, gives the other back, and waits for a second try."""
    await payer.add_coin(50_000, expiry_height=900)
    invoice = bolt11(150_000 - 75 - 598)
    await payer.pay(invoice)
    first, second = payer.server.attempt(HASH).htlc_ids
    sizes = {vtxo.id: vtxo.amount_sat for vtxo in await payer.vtxos(StateKind.LOCKED)}
    await payer.exit(first, waiting())
    payer.server.fail(HASH)
    await payer.drive()
    movement = await payer.movement()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert movement.exited_vtxos == (first,)
    balance = await payer.balance()
    assert balance.spendable_sat + balance.needs_refresh_sat == sizes[second]
    with pytest.raises(HtlcsOnChain):
        await payer.pay(invoice)
    taken_by(payer, first, SIGNATURE, PREIMAGE, SCRIPT)
    await payer.drive()
    assert await payer.name() == "paid"
    movement = await payer.movement()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.SUCCESSFUL, -sizes[first])


async def test_a_revocation_that_is_refused_does_not_hide_what_is_on_the_chain(payer: Payer) -> None:
    """The user has exited it while the server was thought to pay."""
    await payer.pay()
    (htlc_id,) = payer.server.attempt(HASH).htlc_ids
    await payer.exit(htlc_id, waiting())
    payer.server.fail(HASH)

    async def refuse(_: object) -> None:
        raise ServerRejected("no")

    payer.liar.answers["request_lightning_pay_htlc_revocation"] = refuse
    await payer.drive()
    await assert_under_way(payer)
    taken_by(payer, htlc_id, SIGNATURE, PREIMAGE, SCRIPT)
    await payer.drive()
    await assert_paid_on_chain(payer)
