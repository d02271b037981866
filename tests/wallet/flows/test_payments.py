"""Boards and payments between wallets, as they should go."""

from barkd_py.wallet.movements import ARKOOR_RECEIVE, ARKOOR_SEND, BOARD, MovementStatus
from tests.wallet.flows.conftest import Net, Owner


async def test_a_board_becomes_spendable_when_it_is_confirmed(net: Net, alice: Owner) -> None:
    await alice.fund_onchain(200_000)
    wallet = alice.wallet
    before = await alice.spendable_sat()
    pending = await wallet.board_amount(100_000)
    fee_sat = 330
    assert pending.amount_sat == 100_000 - fee_sat
    assert not pending.funding_tx.has_witness
    assert await wallet.pending_boards() == (pending,)
    assert (await wallet.balance()).pending_board_sat == pending.amount_sat
    await wallet.boards.drive_all()
    assert await alice.spendable_sat() == before

    await net.mine()
    await wallet.chain.fetch_tip()
    await wallet.boards.drive_all()
    assert await wallet.pending_boards() == ()
    assert await alice.spendable_sat() == before + pending.amount_sat
    movement, _ = await wallet.list_movements()
    assert (movement.subsystem, movement.status) == (BOARD, MovementStatus.SUCCESSFUL)
    assert movement.id == pending.movement_id
    assert movement.intended_balance_sat == 100_000
    assert movement.effective_balance_sat == pending.amount_sat
    assert movement.offchain_fee_sat == fee_sat
    assert movement.output_vtxos == pending.vtxo_ids
    assert movement.metadata["chain_anchor"] == f"{pending.funding_tx.txid}:0"


async def test_a_payment_arrives(alice: Owner, bob: Owner) -> None:
    before = await alice.spendable_sat()
    address = await bob.wallet.new_address()
    await alice.wallet.send_arkoor(address, 30_000)
    assert await alice.spendable_sat() == before - 30_000
    sent = (await alice.wallet.list_movements())[0]
    assert (sent.subsystem, sent.status) == (ARKOOR_SEND, MovementStatus.SUCCESSFUL)
    assert sent.intended_balance_sat == sent.effective_balance_sat == -30_000
    assert [entry.method.value for entry in sent.sent_to] == [address]
    assert len(sent.output_vtxos) == 2  # change that is larger than the payment is split

    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == 30_000
    (received,) = await bob.wallet.list_movements()
    assert (received.subsystem, received.status) == (ARKOOR_RECEIVE, MovementStatus.SUCCESSFUL)
    assert received.effective_balance_sat == 30_000
    assert [(entry.method.value, entry.amount_sat) for entry in received.received_on] == [(address, 30_000)]
