"""Rounds that meet lost answers, missed events, restarts and kills: all is recovered, and nothing stuck."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.server_rpc.api import RoundAttempt, RoundFailed, RoundFinished, VtxoProposal
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.rounds.machine import MAX_FAILURES
from barkd_py.wallet.rounds.service import CannotCancel, NotBuilt, NotStored
from barkd_py.wallet.rounds.states import (
    Delegated,
    Issued,
    Pending,
    SyncError,
    Waiting,
)
from barkd_py.wallet.vtxo_states import MovementHolder, Spendable
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.crashes import Crash, CrashingStore, opener
from tests.wallet.flows.liar import between
from tests.wallet.flows.rounds import (
    assert_nothing_stuck,
    assert_refreshed,
    hold_round,
    refreshes,
    round_of,
    settle,
)


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60)


async def wealth_sat(owner: Owner) -> int:
    """What the wallet has, and what it ever paid for refreshes."""
    paid = sum(movement.offchain_fee_sat for movement in await refreshes(owner))
    return (await owner.wallet.balance()).total_sat + paid


# --- missed events


async def test_a_missed_end_is_looked_up_when_the_next_round_starts(net: Net, alice: Owner) -> None:
    before = await wealth_sat(alice)
    rounds = alice.wallet.rounds
    await rounds.refresh_all()
    async with round_of(net, alice) as held:
        await held.step()
        finished = await held.hear()
    assert isinstance(finished, RoundFinished)
    await hold_round(net)  # so the end is not even the last event any more
    assert isinstance(await hold_round(net, alice), RoundFailed)
    (info,) = await rounds.list()
    assert isinstance(info.round.state, Delegated)
    await settle(net, alice)
    await assert_refreshed(alice)
    assert await wealth_sat(alice) == before


async def test_a_missed_end_is_found_by_a_sync(net: Net, alice: Owner) -> None:
    await alice.wallet.rounds.refresh_all()
    async with round_of(net, alice) as held:
        await held.step()
        await held.hear()
    await alice.wallet.rounds.sync()
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.round.state, Issued)
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_a_missed_proposal_costs_one_round(net: Net, alice: Owner) -> None:
    await alice.wallet.rounds.refresh_all()
    async with round_of(net, alice) as held:
        assert isinstance(await held.hear(), VtxoProposal)
        net.devnet.ark_server.rounds.go_on()
        assert isinstance(await held.step(), RoundFailed)
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.round.state, Waiting)
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_events_may_come_twice(net: Net, alice: Owner) -> None:
    await alice.wallet.rounds.refresh_all()
    async with round_of(net, alice) as held:
        for _ in range(2):
            event = await held.step()
            await alice.wallet.rounds.on_event(event)
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_many_tasks_may_see_one_event(net: Net, alice: Owner) -> None:
    liar = between(alice)
    await alice.wallet.rounds.refresh_all()
    engine, stream = net.devnet.ark_server.rounds, alice.wallet.server.subscribe_rounds()
    engine.trigger()
    for _ in range(3):
        event = await anext(stream)
        await asyncio.gather(*(alice.wallet.rounds.on_event(event) for _ in range(20)))
        engine.go_on()
    await stream.aclose()
    assert liar.calls["submit_payment"] == liar.calls["provide_vtxo_signatures"] == 1
    await settle(net, alice)
    await assert_refreshed(alice)


# --- lost answers and refusals


async def test_a_lost_answer_to_joining_costs_one_round(net: Net, alice: Owner) -> None:
    liar = between(alice)
    liar.lost["submit_payment"] = 1
    await alice.wallet.rounds.refresh_all()
    assert isinstance(await hold_round(net, alice), RoundFailed)
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.round.state, Waiting)
    assert isinstance(info.status, SyncError)
    assert "connection lost" in info.status.error
    assert isinstance(await hold_round(net, alice), RoundFinished)
    await settle(net, alice)
    await assert_refreshed(alice)


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_lost_answer_to_signatures_costs_nothing(net: Net, alice: Owner, lost: int) -> None:
    liar = between(alice)
    liar.lost["provide_vtxo_signatures"] = lost
    await alice.wallet.rounds.refresh_all()
    assert isinstance(await hold_round(net, alice), RoundFinished)
    await settle(net, alice)
    await assert_refreshed(alice)


@pytest.mark.parametrize(
    "method",
    [
        "request_leaf_vtxo_cosign",
        "request_forfeit_nonces",
        "forfeit_vtxos",
        "register_vtxo_transactions",
    ],
)
async def test_a_lost_answer_in_the_swap_is_asked_for_again(net: Net, alice: Owner, method: str) -> None:
    liar = between(alice)
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    liar.lost[method] = 1
    await settle(net, alice)
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


async def test_refused_signatures_cost_one_round(net: Net, alice: Owner) -> None:
    net.fault("ProvideVtxoSignatures", kind="error", code="INVALID_ARGUMENT")
    await alice.wallet.rounds.refresh_all()
    assert isinstance(await hold_round(net, alice), RoundFailed)
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_refused_inputs_fail_an_explicit_refresh_as_a_whole(net: Net, alice: Owner) -> None:
    await alice.board(50_000)
    wallet = alice.wallet
    before = await wallet.balance()
    old = await wallet.list_vtxos(include_all=False)
    net.fault(
        "SubmitPayment",
        kind="error",
        code="INVALID_ARGUMENT",
        text="not spendable",
        identifiers=str(old[0].id),
    )
    await wallet.rounds.refresh_all()
    await hold_round(net, alice)
    await assert_nothing_stuck(alice)
    assert await wallet.balance() == before
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.FAILED
    assert (movement.effective_balance_sat, movement.offchain_fee_sat) == (0, 0)
    assert "not spendable" in str(movement.metadata["error"])


async def test_a_server_that_never_takes_us_is_given_up_with_the_reason(net: Net, alice: Owner) -> None:
    net.fault("SubmitPayment", kind="error", code="INTERNAL", text="out of order", count=None)
    before = await alice.wallet.balance()
    await alice.wallet.rounds.refresh_all()
    for failures in range(1, MAX_FAILURES):
        await hold_round(net, alice)
        (info,) = await alice.wallet.rounds.list()
        assert info.round.failures == failures
    await hold_round(net, alice)
    await assert_nothing_stuck(alice)
    assert await alice.wallet.balance() == before
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.FAILED
    assert "out of order" in str(movement.metadata["error"])


# --- the other one is silent


async def test_a_second_attempt_goes_on_without_the_silent_one(net: Net, alice: Owner, bob: Owner) -> None:
    await bob.board(100_000)
    await alice.wallet.rounds.refresh_all()
    await bob.wallet.rounds.refresh_all()
    liar = between(bob)
    liar.lies["submit_payment"] = lambda _: bytes(32)  # so that bob refuses the proposal
    async with round_of(net, alice, bob) as held:
        assert isinstance(await held.step(), VtxoProposal)
        attempt = await held.step()
        assert isinstance(attempt, RoundAttempt)
        assert attempt.attempt_seq == 1
        finished = await held.finish()
    assert isinstance(finished, RoundFinished)
    liar.lies.clear()
    await settle(net, alice, bob)
    await assert_refreshed(alice)
    (info,) = await bob.wallet.rounds.list()
    assert isinstance(info.round.state, Waiting)
    await hold_round(net, bob)
    await settle(net, bob)
    await assert_refreshed(bob)


# --- our own restarts


async def test_a_restart_before_signing_costs_one_round(net: Net, alice: Owner) -> None:
    await alice.wallet.rounds.refresh_all()
    async with round_of(net, alice):
        pass
    wallet = await alice.restart()
    net.devnet.ark_server.rounds.go_on()
    await wallet.rounds.sync()
    (info,) = await wallet.rounds.list()
    assert isinstance(info.round.state, Waiting)
    assert "nonce" in str(info.round.last_error)
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_refreshed(alice)


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_restart_after_signing_costs_nothing(net: Net, alice: Owner, is_announced: bool) -> None:
    await alice.wallet.rounds.refresh_all()
    async with round_of(net, alice) as held:
        await held.step()
        await held.hear()
    await alice.restart()
    if not is_announced:
        await hold_round(net)
    await settle(net, alice)
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


async def test_a_kill_at_any_commit_of_a_round_loses_nothing(net: Net, alice: Owner) -> None:
    """Killed after each commit in turn, opened again, and given two more rounds.

    Before a commit is the same as after the calls that led to it: `test_round_crashes`.
    """
    before = await wealth_sat(alice)
    crashes = 0
    for number in range(12):
        stores: list[CrashingStore] = []
        await alice.wallet.close()
        wallet = await alice.open(opener(stores))
        await wallet.server.info()
        stores[0].arm(number, "after")
        crashed = await _until_crash(lambda: _refresh(net, alice))
        net.devnet.ark_server.rounds.go_on()
        stores[0].arm(None)
        crashes += crashed
        wallet = await alice.restart()
        for _ in range(3):
            net.devnet.ark_server.rounds.go_on()
            await hold_round(net, alice)
            await settle(net, alice)
            await wallet.rounds.sync()
            if not (await wallet.rounds.list()):
                break
        await assert_nothing_stuck(alice)
        await wallet.registration.catch_up()
        assert await wealth_sat(alice) == before, number
        for movement in await refreshes(alice):
            assert movement.status is MovementStatus.SUCCESSFUL
        if not crashed:
            break
    else:
        pytest.fail("a round has more commits than this test expects")
    assert crashes >= 6  # started, joining, registered, signed, issued, forfeits sent, completed


async def _refresh(net: Net, alice: Owner) -> None:
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    await settle(net, alice)


async def _until_crash(work: Callable[[], Awaitable[None]]) -> bool:
    """Whether the process died."""
    try:
        await work()
    except Crash:
        return True
    return False


# --- the server's restarts


@pytest.mark.parametrize("point", ["round.book", "round.sign", "round.broadcast", "round.announce"])
async def test_a_server_killed_at_the_end_of_a_round(net: Net, alice: Owner, point: str) -> None:
    before = await wealth_sat(alice)
    net.fault(point, stage="engine", kind="drop")
    await alice.wallet.rounds.refresh_all()
    async with round_of(net, alice) as held:
        await held.step()
    net.honest()
    await net.restart_ark_server()
    await alice.wallet.rounds.sync()
    await settle(net, alice)
    for _ in range(2):
        await hold_round(net, alice)
        await settle(net, alice)
    await assert_refreshed(alice)
    assert await wealth_sat(alice) == before


# --- inputs that are used for something else


async def test_two_refreshes_of_one_vtxo(net: Net, alice: Owner) -> None:
    wallet = alice.wallet
    (old,) = await wallet.list_vtxos(include_all=False)
    await wallet.rounds.refresh([old.id])
    await wallet.rounds.refresh([old.id])
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    statuses = sorted(movement.status for movement in await refreshes(alice))
    assert statuses == [MovementStatus.FAILED, MovementStatus.SUCCESSFUL]


async def test_what_was_spent_meanwhile_is_left_out(net: Net, alice: Owner, bob: Owner) -> None:
    await alice.board(50_000)
    wallet = alice.wallet
    await wallet.rounds.refresh_all()
    spent = (await wallet.list_vtxos(include_all=False))[0]
    await wallet.send_arkoor(await bob.wallet.new_address(), spent.amount_sat)
    await wallet.rounds.sync()
    (info,) = await wallet.rounds.list()
    assert spent.id not in info.round.inputs
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_refreshed(alice)
    (movement,) = await refreshes(alice)
    assert movement.input_vtxos == info.round.inputs


async def test_a_refresh_of_nothing_that_is_left_is_called_off(net: Net, alice: Owner, bob: Owner) -> None:
    await alice.wallet.rounds.refresh_all()
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), await alice.spendable_sat())
    await alice.wallet.rounds.sync()
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert (movement.status, movement.offchain_fee_sat) == (MovementStatus.FAILED, 0)


async def test_inputs_are_locked_for_the_movement_while_an_attempt_is_held(net: Net, alice: Owner) -> None:
    wallet = alice.wallet
    info = await wallet.rounds.refresh_all()
    async with round_of(net, alice) as held:
        async with wallet.store.read() as tx:
            assert info.movement_id is not None
            locked = await tx.vtxos.held_by(MovementHolder(info.movement_id))
        assert [vtxo.id for vtxo in locked] == list(info.round.inputs)
        await held.finish()


async def test_what_cannot_be_refreshed_is_refused(net: Net, alice: Owner) -> None:
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    with pytest.raises(NotBuilt):
        await alice.wallet.rounds.refresh([old.id, old.id])
    async with round_of(net, alice) as held:
        await alice.wallet.rounds.refresh_all()
        await held.finish()
    async with round_of(net, alice) as held:
        with pytest.raises(NotStored):
            await alice.wallet.rounds.refresh([old.id])
        await held.finish()


# --- cancelling


async def test_a_refresh_is_canceled_until_it_is_signed(net: Net, alice: Owner) -> None:
    wallet = alice.wallet
    info = await wallet.rounds.refresh_all()
    await wallet.rounds.cancel(info.id)
    await assert_nothing_stuck(alice)
    info = await wallet.rounds.refresh_all()
    async with round_of(net, alice):
        await wallet.rounds.cancel(info.id)
        await assert_nothing_stuck(alice)
    net.devnet.ark_server.rounds.go_on()
    info = await wallet.rounds.refresh_all()
    async with round_of(net, alice) as held:
        await held.step()
        with pytest.raises(CannotCancel):
            await wallet.rounds.cancel(info.id)
        await held.finish()
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    third, *called_off = await refreshes(alice)
    assert third.status is MovementStatus.SUCCESSFUL
    for movement in called_off:
        assert movement.status is MovementStatus.FAILED  # in barkd's words
        assert (movement.effective_balance_sat, movement.offchain_fee_sat) == (0, 0)


# --- delegated


async def test_a_delegated_refresh_leaves_its_inputs_free_until_the_round(net: Net, alice: Owner) -> None:
    wallet = alice.wallet
    (old,) = await wallet.list_vtxos(include_all=False)
    info = await wallet.rounds.refresh_delegated([old.id])
    assert isinstance(info.round.state, Delegated)
    assert (await wallet.get_vtxo(old.id)).state == Spendable()
    await hold_round(net, alice)
    await wallet.rounds.sync()
    assert (await wallet.balance()).pending_in_round_sat == old.amount_sat
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_a_lost_answer_to_a_delegation_is_repeated(net: Net, alice: Owner) -> None:
    liar = between(alice)
    liar.lost["submit_round_participation"] = 1
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    with pytest.raises(NotStored, match="Failed to store round participation"):
        await alice.wallet.rounds.refresh_delegated([old.id])
    async with alice.wallet.store.read() as tx:
        assert len(await tx.rounds.list()) == 1
    await alice.wallet.rounds.sync()
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_the_mailbox_brings_the_lost_answer_to_a_delegation(net: Net, alice: Owner) -> None:
    liar = between(alice)
    alice.wallet.mailbox.on_round_completed = alice.wallet.rounds.on_completed
    liar.lost["submit_round_participation"] = 1
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    with pytest.raises(NotStored):
        await alice.wallet.rounds.refresh_delegated([old.id])
    await hold_round(net)
    await net.mine()
    await alice.wallet.chain.fetch_tip()
    await alice.wallet.sync_mailbox()
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


async def test_a_delegation_that_the_wallet_has_forgotten_is_found_by_mail(net: Net, alice: Owner) -> None:
    wallet = alice.wallet
    before = await wealth_sat(alice)
    (old,) = await wallet.list_vtxos(include_all=False)
    info = await wallet.rounds.refresh_delegated([old.id])
    async with wallet.store.transaction() as tx:
        await tx.rounds.delete(info.id)
        assert info.movement_id is not None
        await tx.movements.finish(info.movement_id, MovementStatus.FAILED)
    await wallet.recovery.start()
    await hold_round(net)
    await net.mine()
    await wallet.chain.fetch_tip()
    await wallet.sync_mailbox()
    await wallet.rounds.sync()
    await assert_nothing_stuck(alice)
    found, forgotten = await refreshes(alice)
    assert forgotten.id == info.movement_id
    assert (found.status, found.input_vtxos) == (MovementStatus.SUCCESSFUL, (old.id,))
    assert await wealth_sat(alice) - forgotten.offchain_fee_sat == before


async def test_a_delegation_goes_on_after_a_restart(net: Net, alice: Owner) -> None:
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    await alice.restart()
    await hold_round(net)
    await alice.restart()
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_a_delegation_that_loses_an_input_goes_on_without_it(
    net: Net, alice: Owner, bob: Owner
) -> None:
    await alice.board(50_000)
    wallet = alice.wallet
    old = await wallet.list_vtxos(include_all=False)
    info = await wallet.rounds.refresh_delegated([vtxo.id for vtxo in old])
    await wallet.send_arkoor(await bob.wallet.new_address(), old[0].amount_sat)
    await wallet.rounds.sync()
    await wallet.rounds.sync()
    (now,) = await wallet.rounds.list()
    assert now.round.inputs == (old[1].id,)
    assert now.movement_id == info.movement_id
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_a_second_delegation_replaces_the_first(net: Net, alice: Owner) -> None:
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    await alice.wallet.rounds.refresh_delegated([old.id])
    await alice.wallet.rounds.sync()
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.status, Pending)
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    statuses = sorted(movement.status for movement in await refreshes(alice))
    assert statuses == [MovementStatus.FAILED, MovementStatus.SUCCESSFUL]


async def test_a_scheduled_delegation_waits_for_its_height(net: Net, alice: Owner) -> None:
    wallet = alice.wallet
    (old,) = await wallet.list_vtxos(include_all=False)
    height = await wallet.tip_height() + 3
    info = await wallet.rounds.refresh_delegated([old.id], height)
    assert info.round.scheduled_height == height
    await hold_round(net, alice)
    await settle(net, alice)
    (info,) = await wallet.rounds.list()
    assert isinstance(info.round.state, Delegated)
    await net.mine(2)
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_a_refused_delegation_leaves_nothing_but_its_movement(net: Net, alice: Owner) -> None:
    net.fault("SubmitRoundParticipation", kind="error", code="INVALID_ARGUMENT", text="no")
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    with pytest.raises(NotStored):
        await alice.wallet.rounds.refresh_delegated([old.id])
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.FAILED
