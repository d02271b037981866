"""What is easily got wrong in rounds: one test per trap of sheet 04 §25 that takes a server to fall into."""

from dataclasses import replace

import pytest

from barkd_py.ark.fees import refresh_fee
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.server_rpc.api import RoundFailed, RoundFinished, RoundParticipation
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.rounds.states import Delegated, Issued, Registered, SyncError, Waiting
from barkd_py.wallet.vtxos.selection import fee_infos
from tests.support.processes import until
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.liar import between
from tests.wallet.flows.offboards import wealth_sat
from tests.wallet.flows.rounds import (
    assert_nothing_stuck,
    assert_refreshed,
    hold_round,
    let_round_end,
    refreshes,
    round_of,
    settle,
    stored_rounds,
)


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(
        round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60, vtxo_lifetime=100
    )


async def test_a_registration_that_the_server_threw_away_is_noticed(net: Net, alice: Owner) -> None:
    """The server says yes while it sleeps between rounds, and means nothing by it."""
    net.fault("SubmitPayment", kind="swallow")
    await alice.wallet.rounds.refresh_all()
    assert isinstance(await hold_round(net, alice), RoundFailed)
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.round.state, Waiting)
    assert info.round.failures == 1
    assert await alice.spendable_sat() > 0
    assert isinstance(await hold_round(net, alice), RoundFinished)
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_a_refresh_joins_the_round_whose_window_is_open(net: Net, alice: Owner) -> None:
    """The stream has told of the attempt before anybody asked for a refresh."""
    async with round_of(net, alice, is_open=True):
        await alice.wallet.rounds.refresh_all()

        async def is_registered() -> bool:
            (state,) = await stored_rounds(alice)
            return isinstance(state, Registered)

        await until(is_registered)
    await let_round_end(net)


async def test_a_participation_that_the_server_has_deleted_is_handed_over_again(
    net: Net, alice: Owner
) -> None:
    """As it does when one comes between two attempts of a round; all that shows is that it is not known."""
    liar = between(alice)
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    net.fault(
        "RoundParticipationStatus", kind="error", code="NOT_FOUND", text="round participation not found"
    )
    await alice.wallet.rounds.sync()
    assert liar.calls["submit_round_participation"] == 2
    (state,) = await stored_rounds(alice)
    assert isinstance(state, Delegated)
    await hold_round(net)
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_a_participation_that_is_deleted_for_ever_is_given_up(net: Net, alice: Owner) -> None:
    before_sat = await alice.spendable_sat()
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    net.fault("RoundParticipationStatus", kind="error", code="NOT_FOUND", text="not found", count=None)
    for _ in range(5):
        await alice.wallet.rounds.sync()
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.FAILED
    assert "participation not found" in str(movement.metadata["error"])
    assert await alice.spendable_sat() == before_sat


async def test_a_refresh_in_person_supersedes_a_delegated_one(net: Net, alice: Owner) -> None:
    total_sat = await wealth_sat(alice)
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    await alice.wallet.rounds.refresh([old.id])
    for _ in range(2):
        await hold_round(net, alice)
        await settle(net, alice)
    await assert_nothing_stuck(alice)
    statuses = sorted(movement.status for movement in await refreshes(alice))
    assert statuses == [MovementStatus.FAILED, MovementStatus.SUCCESSFUL]
    assert await wealth_sat(alice) == total_sat


async def test_a_delegated_input_that_was_paid_away_ends_the_participation(
    net: Net, alice: Owner, bob: Owner
) -> None:
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), old.amount_sat)
    await hold_round(net)
    await settle(net, alice)
    await alice.wallet.rounds.sync()
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == old.amount_sat


async def test_an_unsigned_funding_transaction_is_taken_from_the_chain(net: Net, alice: Owner) -> None:
    liar = between(alice)

    def unsigned(told: RoundParticipation) -> RoundParticipation:
        tx = told.funding_tx
        if tx is None:
            return told
        inputs = tuple(replace(tx_in, witness=()) for tx_in in tx.inputs)
        return replace(told, funding_tx=replace(tx, inputs=inputs))

    liar.lies["round_participation_status"] = unsigned
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    await hold_round(net)
    await alice.wallet.rounds.sync()
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_a_scheduled_refresh_pays_the_fee_of_its_height(net: Net, alice: Owner) -> None:
    await alice.board(50_000)
    young = min(await alice.wallet.list_vtxos(include_all=False), key=lambda vtxo: vtxo.expiry_height)
    info = await alice.wallet.server.info()
    tip_height = await alice.wallet.tip_height()
    height = tip_height + 10
    dear = refresh_fee(info.fees, fee_infos([young], tip_height))
    cheap = refresh_fee(info.fees, fee_infos([young], height))
    assert cheap < dear  # otherwise this shows nothing
    await alice.wallet.rounds.refresh_delegated([young.id], height)
    await net.mine(10)
    await hold_round(net)
    await settle(net, alice)
    await assert_refreshed(alice)
    (movement,) = await refreshes(alice)
    assert movement.offchain_fee_sat == cheap


async def test_confirmations_may_be_none(net: Net, alice: Owner) -> None:
    alice.changes = {"round_tx_required_confirmations": 0}
    await alice.restart()
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


async def test_the_preimage_is_had_even_when_time_for_exits_is_over(net: Net, alice: Owner) -> None:
    """The forfeits are out, and the answer was lost: there is nothing left to protect by waiting."""
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    net.fault("ForfeitVtxos", stage="after-commit", kind="drop")
    await settle(net, alice)
    (state,) = await stored_rounds(alice)
    assert isinstance(state, Issued)
    assert state.forfeits_sent
    await net.mine(80)
    await alice.wallet.chain.fetch_tip()
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


async def test_a_wallet_far_ahead_of_the_server_does_not_sign_a_short_life(net: Net, alice: Owner) -> None:
    """The server's tip is older than ours by more than the slack of six blocks."""
    liar = between(alice)
    await alice.wallet.rounds.refresh_all()
    async with round_of(net, alice) as held:
        proposal = await held.hear()
        await net.mine(7)
        await alice.wallet.chain.fetch_tip()
        await alice.wallet.rounds.on_event(proposal)
    await let_round_end(net)
    assert liar.calls["provide_vtxo_signatures"] == 0
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.status, SyncError)
    assert "below the required minimum" in info.status.error
