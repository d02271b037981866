"""Rounds in person, as they should go."""

from dataclasses import replace

import pytest

from barkd_py.ark.fees import refresh_fee
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.server_rpc.api import RoundFinished
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.rounds.states import Issued, Registered, Signed, Unconfirmed, Waiting
from barkd_py.wallet.vtxos.selection import fee_infos
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.rounds import assert_nothing_stuck, hold_round, refreshes, round_of, settle
from tests.wallet.samples import note_swept


@pytest.fixture
def server_settings() -> ServerSettings:
    """Rounds are held when a test says so, and go on when it says so."""
    return ServerSettings(round_interval_secs=3600, round_submit_secs=60, round_sign_secs=5)


async def test_a_refresh_gives_a_new_vtxo_for_an_old_one(net: Net, alice: Owner) -> None:
    wallet = alice.wallet
    (old,) = await wallet.list_vtxos(include_all=False)
    before = await wallet.balance()
    info = await wallet.rounds.refresh([old.id])
    assert isinstance(info.round.state, Waiting)
    assert await wallet.balance() == before  # nothing is locked before the round

    fee_sat = refresh_fee((await wallet.server.info()).fees, fee_infos([old], await wallet.tip_height()))
    async with round_of(net, alice) as held:
        (listed,) = await wallet.rounds.list()
        assert isinstance(listed.round.state, Registered)
        assert (await wallet.balance()).pending_in_round_sat == old.amount_sat
        await held.step()
        (listed,) = await wallet.rounds.list()
        assert isinstance(listed.round.state, Signed)
        finished = await held.finish()
    assert isinstance(finished, RoundFinished)
    (listed,) = await wallet.rounds.list()
    assert isinstance(listed.round.state, Issued)
    assert listed.status == Unconfirmed(finished.signed_round_tx.txid)
    assert (await wallet.balance()).pending_in_round_sat == old.amount_sat

    await settle(net, alice)
    await assert_nothing_stuck(alice)
    (new,) = await wallet.list_vtxos(include_all=False)
    assert new.amount_sat == old.amount_sat - fee_sat == await alice.spendable_sat()
    assert new.anchor_point.txid == finished.signed_round_tx.txid
    assert new.expiry_height > old.expiry_height
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.SUCCESSFUL
    assert movement.intended_balance_sat == 0
    assert movement.effective_balance_sat == -fee_sat
    assert movement.offchain_fee_sat == fee_sat
    assert (movement.input_vtxos, movement.output_vtxos) == ((old.id,), (new.id,))
    assert movement.metadata == {"funding_txid": str(finished.signed_round_tx.txid)}


async def test_the_refresh_of_what_was_no_income_is_the_income(net: Net, alice: Owner) -> None:
    """It had expired, and was swept, before it came."""
    (received,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.board(50_000)
    income_sat = await alice.spendable_sat() - received.amount_sat
    async with alice.wallet.store.transaction() as tx:
        await note_swept(tx, [await tx.vtxos.body(received.id)])
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    await settle(net, alice)
    (movement,) = await refreshes(alice)
    assert len(movement.input_vtxos) == 2
    assert movement.effective_balance_sat == await alice.spendable_sat() - income_sat


async def test_a_refreshed_vtxo_pays(net: Net, alice: Owner, bob: Owner) -> None:
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    await settle(net, alice)
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), 12_345)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == 12_345


async def test_two_wallets_in_one_round(net: Net, alice: Owner, bob: Owner) -> None:
    await bob.board(100_000)
    await alice.wallet.rounds.refresh_all()
    await bob.wallet.rounds.refresh_all()
    finished = await hold_round(net, alice, bob)
    assert isinstance(finished, RoundFinished)
    await settle(net, alice, bob)
    for owner in (alice, bob):
        await assert_nothing_stuck(owner)
        (new,) = await owner.wallet.list_vtxos(include_all=False)
        assert new.anchor_point.txid == finished.signed_round_tx.txid


async def test_a_participation_that_cannot_be_read_does_not_stop_the_others(
    net: Net, alice: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    """Its inputs are left alone, and it is named once."""
    wallet = alice.wallet
    (first,) = await wallet.list_vtxos(include_all=False)
    await alice.board(50_000)
    (second,) = [vtxo for vtxo in await wallet.list_vtxos(include_all=False) if vtxo.id != first.id]
    rotten = await wallet.rounds.refresh([first.id])
    await wallet.rounds.refresh([second.id])
    async with wallet.store.transaction() as tx:
        row = await tx.rounds.find(rotten.id)
        assert row is not None
        await tx.rounds.update(replace(row, payload='{"version": 1, "state": {}}'))
    await hold_round(net, alice)
    await settle(net, alice)
    kept = {vtxo.id for vtxo in await wallet.list_vtxos(include_all=False)}
    assert first.id in kept
    assert second.id not in kept
    named = [each for each in caplog.messages if f"round state {rotten.id} is passed over" in each]
    assert len(named) == 1
