"""A wallet that dies around each call of a round, a server that dies at each step, a chain that undoes it."""

from collections.abc import Awaitable, Callable

import pytest

from barkd_py.chain.source import Confirmed
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.server_rpc.api import RoundFinished
from barkd_py.wallet.conflicts import FINAL_CONFIRMATIONS
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.rounds.states import Issued, SyncError, Unconfirmed
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.crashes import When, died
from tests.wallet.flows.liar import Doom, between
from tests.wallet.flows.offboards import wealth_sat
from tests.wallet.flows.rounds import (
    assert_nothing_stuck,
    hold_round,
    let_round_end,
    refreshes,
    round_of,
    settle,
    stored_rounds,
)

LOOKS = {"info", "tip", "tx_status", "get_tx", "fee_rates", "last_round_event"}
"""Calls that ask without changing anything: a kill around them is one after the call before."""

Flow = Callable[[Net, Owner], Awaitable[None]]


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60)


async def in_person(net: Net, alice: Owner) -> None:
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    await settle(net, alice)


async def delegated(net: Net, alice: Owner) -> None:
    vtxos = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([vtxo.id for vtxo in vtxos])
    await hold_round(net)
    await settle(net, alice)


async def end_rounds(net: Net, alice: Owner) -> None:
    """Hold rounds until nothing of the wallet's is under way; two are enough."""
    for _ in range(3):
        await settle(net, alice)
        if not await alice.wallet.rounds.list():
            return
        await hold_round(net, alice)
    await settle(net, alice)
    await assert_nothing_stuck(alice)


# --- the wallet


@pytest.mark.parametrize(
    ("flow", "when"), [(in_person, "before"), (in_person, "after"), (delegated, "after")]
)
async def test_a_wallet_killed_around_each_call(net: Net, alice: Owner, flow: Flow, when: When) -> None:
    total_sat = await wealth_sat(alice)
    undisturbed = Doom()
    between(alice, undisturbed)
    await flow(net, alice)
    assert {"request_leaf_vtxo_cosign", "request_forfeit_nonces", "forfeit_vtxos"} <= set(undisturbed.calls)
    for number, name in enumerate(undisturbed.calls):
        if name in LOOKS:
            continue
        await alice.restart()
        between(alice, Doom(number, when))
        assert await died(flow(net, alice)), name
        await alice.restart()
        await let_round_end(net)
        await end_rounds(net, alice)
        await alice.wallet.sync_mailbox()
        await end_rounds(net, alice)
        await assert_nothing_stuck(alice)
        assert await wealth_sat(alice) == total_sat, f"{when} {name}"
        statuses = {movement.status for movement in await refreshes(alice)}
        assert statuses == {MovementStatus.SUCCESSFUL}, f"{when} {name}"


# --- the server


@pytest.mark.parametrize("nb_steps", [0, 1, 2])
async def test_a_server_restarted_after_each_event_of_a_round(net: Net, alice: Owner, nb_steps: int) -> None:
    """After the attempt, after the proposal was signed, and after the end."""
    total_sat = await wealth_sat(alice)
    await alice.wallet.rounds.refresh_all()
    async with round_of(net, alice) as held:
        for _ in range(nb_steps):
            await held.step()
    await net.restart_ark_server()
    await alice.wallet.rounds.sync()
    await end_rounds(net, alice)
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.SUCCESSFUL
    assert await wealth_sat(alice) == total_sat


async def test_a_server_restarted_in_the_swap(net: Net, alice: Owner) -> None:
    """It has forgotten its nonces, so forfeits are signed anew."""
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    net.fault("ForfeitVtxos", kind="drop")
    await settle(net, alice)
    assert len(await stored_rounds(alice)) == 1
    await net.restart_ark_server()
    await alice.wallet.rounds.sync()
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert movement.status is MovementStatus.SUCCESSFUL


# --- several at once


async def test_several_refreshes_of_one_wallet_in_one_round(net: Net, alice: Owner, bob: Owner) -> None:
    """In person and delegated, and somebody else's beside them."""
    for _ in range(3):
        await alice.board(30_000)
    await bob.board(40_000)
    totals = [await wealth_sat(alice), await wealth_sat(bob)]
    old = await alice.wallet.list_vtxos(include_all=False)
    for vtxo in old[:3]:
        await alice.wallet.rounds.refresh([vtxo.id])
    await alice.wallet.rounds.refresh_delegated([old[3].id])
    await bob.wallet.rounds.refresh_all()
    finished = await hold_round(net, alice, bob)
    assert isinstance(finished, RoundFinished)
    assert len(await alice.wallet.rounds.list()) == 4
    await settle(net, alice, bob)
    for owner in (alice, bob):
        await assert_nothing_stuck(owner)
        assert {each.status for each in await refreshes(owner)} == {MovementStatus.SUCCESSFUL}
        new = await owner.wallet.list_vtxos(include_all=False)
        assert {vtxo.anchor_point.txid for vtxo in new} == {finished.signed_round_tx.txid}
    new = await alice.wallet.list_vtxos(include_all=False)
    assert len(await refreshes(alice)) == len(new) == 4
    # captaind finds an output of a round by its policy and amount alone
    assert len({vtxo.user_pubkey for vtxo in new}) == 4
    assert len({vtxo.amount_sat for vtxo in new}) < 4  # otherwise this shows nothing
    assert [await wealth_sat(alice), await wealth_sat(bob)] == totals


async def test_rounds_that_overlap(net: Net, alice: Owner) -> None:
    """The next round is held before the transaction of the last one is confirmed."""
    await alice.board(30_000)
    total_sat = await wealth_sat(alice)
    first, second = await alice.wallet.list_vtxos(include_all=False)
    funding = []
    for vtxo in (first, second):
        await alice.wallet.rounds.refresh([vtxo.id])
        finished = await hold_round(net, alice)
        assert isinstance(finished, RoundFinished)
        funding.append(finished.signed_round_tx.txid)
    infos = await alice.wallet.rounds.list()
    assert [info.status for info in infos] == [Unconfirmed(txid) for txid in funding]
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    assert {each.status for each in await refreshes(alice)} == {MovementStatus.SUCCESSFUL}
    assert await wealth_sat(alice) == total_sat


# --- the chain


async def test_a_reorg_before_the_swap_delays_it(net: Net, alice: Owner) -> None:
    """The funding transaction is confirmed, unconfirmed, and confirmed again; then it is deep enough."""
    liar = between(alice)
    await alice.wallet.rounds.refresh_all()
    finished = await hold_round(net, alice)
    assert isinstance(finished, RoundFinished)
    await net.mine()
    await net.devnet.node.reorg(1)
    await alice.wallet.chain.fetch_tip()
    (info,) = await alice.wallet.rounds.list()
    assert info.status == Unconfirmed(finished.signed_round_tx.txid)
    assert liar.calls["request_leaf_vtxo_cosign"] == liar.calls["forfeit_vtxos"] == 0
    await settle(net, alice)
    await assert_nothing_stuck(alice)


async def test_depth_is_what_was_configured(net: Net, alice: Owner) -> None:
    alice.changes = {"round_tx_required_confirmations": 3}
    await alice.restart()
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    for _ in range(2):
        await settle(net, alice)
        (info,) = await alice.wallet.rounds.list()
        assert isinstance(info.status, Unconfirmed)
    await net.devnet.node.reorg(1)  # still two
    await settle(net, alice)
    await settle(net, alice)
    await assert_nothing_stuck(alice)


async def test_a_reorg_between_forfeits_and_preimage_loses_nothing(net: Net, alice: Owner) -> None:
    total_sat = await wealth_sat(alice)
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    net.fault("ForfeitVtxos", stage="after-commit", kind="drop")
    await settle(net, alice)
    (state,) = await stored_rounds(alice)
    assert isinstance(state, Issued)
    assert state.forfeits_sent
    await net.devnet.node.reorg(1)
    await alice.wallet.chain.fetch_tip()
    await alice.wallet.rounds.sync()  # the preimage is had, whatever the chain does
    await assert_nothing_stuck(alice)
    await net.mine()
    assert await wealth_sat(alice) == total_sat


async def test_a_reorg_after_the_swap_leaves_money(net: Net, alice: Owner, bob: Owner) -> None:
    await alice.wallet.rounds.refresh_all()
    finished = await hold_round(net, alice)
    assert isinstance(finished, RoundFinished)
    await settle(net, alice)
    await net.devnet.node.reorg(1)
    await net.mine()
    await alice.wallet.chain.fetch_tip()
    status = await alice.wallet.chain.tx_status(finished.signed_round_tx.txid)
    assert isinstance(status, Confirmed)
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), 12_345)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == 12_345


async def finished_round(net: Net, alice: Owner, flow: str) -> RoundFinished:
    if flow == "in person":
        await alice.wallet.rounds.refresh_all()
        finished = await hold_round(net, alice)
    else:
        (old,) = await alice.wallet.list_vtxos(include_all=False)
        await alice.wallet.rounds.refresh_delegated([old.id])
        finished = await hold_round(net)
    assert isinstance(finished, RoundFinished)
    return finished


@pytest.mark.parametrize("flow", ["in person", "delegated"])
async def test_a_transaction_that_nobody_has_is_broadcast_again(net: Net, alice: Owner, flow: str) -> None:
    net.fault("round.broadcast", stage="engine", kind="swallow", count=None)
    finished = await finished_round(net, alice, flow)
    txid = finished.signed_round_tx.txid
    await alice.wallet.rounds.sync()
    assert net.devnet.node.pool.get(txid) is not None
    await net.devnet.node.evict(txid)
    await alice.wallet.rounds.sync()
    assert net.devnet.node.pool.get(txid) is not None
    await settle(net, alice)
    await assert_nothing_stuck(alice)


@pytest.mark.parametrize("flow", ["in person", "delegated"])
async def test_a_double_spent_round_forfeits_nothing_and_ends_when_that_is_deep(
    net: Net, alice: Owner, flow: str
) -> None:
    liar = between(alice)
    before_sat = await alice.spendable_sat()
    finished = await finished_round(net, alice, flow)
    conflict = await net.devnet.ark_server.double_spend(finished.signed_round_tx.txid)
    await net.devnet.node.mine_exactly([conflict])
    for _ in range(FINAL_CONFIRMATIONS - 1):
        await alice.wallet.chain.fetch_tip()
        (info,) = await alice.wallet.rounds.list()
        assert isinstance(info.status, SyncError)
        assert "rejected by mempool" in info.status.error
        assert (await alice.wallet.balance()).pending_in_round_sat == before_sat
        await net.mine()
    await alice.wallet.chain.fetch_tip()
    await alice.wallet.rounds.sync()
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert f"was double-spent by {conflict.txid}" in str(movement.metadata["error"])
    assert await alice.spendable_sat() == before_sat
    assert liar.calls["request_leaf_vtxo_cosign"] == liar.calls["forfeit_vtxos"] == 0
