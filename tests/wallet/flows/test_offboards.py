"""Offboards and sends on chain, as they should go."""

import pytest

from barkd_py.ark.offboard import OffboardRequestInvalid
from barkd_py.wallet.movements import OFFBOARD, SEND_ONCHAIN, MovementStatus
from barkd_py.wallet.offboards.terms import OffboardTarget
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.offboards import assert_settled, onchain_sat, target_of
from tests.wallet.samples import note_swept


async def test_whole_vtxos_leave(net: Net, alice: Owner, bob: Owner) -> None:
    before_sat = await alice.spendable_sat()
    target = await target_of(bob)
    estimate = await alice.wallet.offboards.estimate_all(target.script_pubkey)
    assert estimate.gross_amount_sat == before_sat == estimate.net_amount_sat + estimate.fee_sat
    result = await alice.wallet.offboards.offboard_all(target)

    (movement,) = await alice.movements(OFFBOARD)
    assert movement.id == result.movement_id
    assert movement.status is MovementStatus.PENDING
    assert (await alice.wallet.balance()).total_sat == 0
    assert await onchain_sat(bob) == estimate.net_amount_sat
    await net.mine()
    await alice.wallet.offboards.drive_all()
    await assert_settled(alice)
    (movement,) = await alice.movements(OFFBOARD)
    assert movement.status is MovementStatus.SUCCESSFUL
    assert movement.intended_balance_sat == movement.effective_balance_sat == -before_sat
    assert movement.offchain_fee_sat == estimate.fee_sat
    assert [entry.method.value for entry in movement.sent_to] == [target.address]
    assert [entry.amount_sat for entry in movement.sent_to] == [estimate.net_amount_sat]
    assert movement.metadata["offboard_txid"] == str(result.offboard_txid)
    assert movement.input_vtxos == estimate.vtxos_spent


async def test_what_was_no_income_does_not_leave_with_an_offboard(alice: Owner, bob: Owner) -> None:
    """It had expired, and was swept, before it came."""
    (received,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.board(50_000)
    income_sat = await alice.spendable_sat() - received.amount_sat
    async with alice.wallet.store.transaction() as tx:
        await note_swept(tx, [await tx.vtxos.body(received.id)])
    await alice.wallet.offboards.offboard_all(await target_of(bob))
    (movement,) = await alice.movements(OFFBOARD)
    assert movement.intended_balance_sat == -income_sat - received.amount_sat
    assert movement.effective_balance_sat == -income_sat


@pytest.mark.parametrize("amount_sat", [330, 100_000, 400_000])
async def test_an_amount_is_sent_on_chain(net: Net, alice: Owner, bob: Owner, amount_sat: int) -> None:
    before_sat = await alice.spendable_sat()
    target = await target_of(bob)
    estimate = await alice.wallet.offboards.estimate_send(amount_sat, target.script_pubkey)
    result = await alice.wallet.offboards.send(amount_sat, target)
    assert await alice.spendable_sat() == before_sat - amount_sat - estimate.fee_sat
    assert await onchain_sat(bob) == amount_sat
    await net.mine()
    await alice.wallet.offboards.drive_all()
    await assert_settled(alice)
    (movement,) = await alice.movements(SEND_ONCHAIN)
    assert (movement.id, movement.status) == (result.movement_id, MovementStatus.SUCCESSFUL)
    assert movement.intended_balance_sat == -amount_sat
    assert movement.effective_balance_sat == -amount_sat - estimate.fee_sat
    assert movement.offchain_fee_sat == estimate.fee_sat
    assert movement.input_vtxos == estimate.vtxos_spent
    assert sum([(await alice.wallet.get_vtxo(each)).amount_sat for each in movement.output_vtxos]) == (
        before_sat - amount_sat - estimate.fee_sat
    )


async def test_several_vtxos_leave_through_a_fan_out(net: Net, alice: Owner, bob: Owner) -> None:
    """More than one connector; the server checks each forfeit, and keeps those it can use."""
    await alice.wallet.send_arkoor(await alice.wallet.new_address(), 20_000)
    await alice.wallet.sync_mailbox()
    vtxos = await alice.wallet.list_vtxos(include_all=False)
    chosen, kept = [vtxo.id for vtxo in vtxos[:-1]], vtxos[-1].id
    assert len(chosen) > 1
    target = await target_of(bob)
    estimate = await alice.wallet.offboards.estimate(chosen, target.script_pubkey)
    await alice.wallet.offboards.offboard(chosen, target)
    await net.mine()
    await alice.wallet.offboards.drive_all()
    await assert_settled(alice)
    assert await onchain_sat(bob) == estimate.net_amount_sat
    assert [vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=False)] == [kept]


async def test_destinations_that_do_not_relay_are_refused(alice: Owner) -> None:
    target = OffboardTarget("nowhere", b"\x51\x02\x4e\x74")
    for leaves in (alice.wallet.offboards.offboard_all(target), alice.wallet.offboards.send(50_000, target)):
        with pytest.raises(OffboardRequestInvalid):
            await leaves
    assert await alice.movements(OFFBOARD) == await alice.movements(SEND_ONCHAIN) == []
    await assert_settled(alice)
