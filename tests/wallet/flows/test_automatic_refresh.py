"""Money that is left alone is kept alive: refreshes that nobody asks for.

Source: sheet 09 §1.10; sheet 04 §13, §15.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from barkd_py.daemon.loops import Daemon
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import ServerRejected
from barkd_py.server_rpc.api import RoundAttempt, RoundFailed, RoundFinished
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.rounds.maintenance import QUIET_BLOCKS
from barkd_py.wallet.rounds.service import MAX_MAINTENANCE_TRIES
from barkd_py.wallet.rounds.states import Issued, Registered
from barkd_py.wallet.vtxo_states import Spendable, WalletVtxo
from tests.support.processes import until
from tests.wallet.flows.conftest import BOB, Net, Owner
from tests.wallet.flows.liar import between
from tests.wallet.flows.rounds import assert_nothing_stuck, hold_round, refreshes, settle, stored_rounds
from tests.wallet.flows.test_loops import short_backoff

THRESHOLD = 12
LIFETIME = 100
PATIENCE_SECS = 180


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(
        round_interval_secs=3600, round_submit_secs=600, round_sign_secs=600, vtxo_lifetime=LIFETIME
    )


async def mine_to(net: Net, owner: Owner, height: int) -> None:
    tip = await owner.wallet.chain.fetch_tip()
    assert tip.height <= height
    await net.mine(height - tip.height)
    assert (await owner.wallet.chain.fetch_tip()).height == height


async def vtxos_of(owner: Owner) -> Sequence[WalletVtxo]:
    return sorted(await owner.wallet.list_vtxos(include_all=False), key=lambda vtxo: vtxo.expiry_height)


@pytest.fixture
async def due(net: Net, bob: Owner) -> Owner:
    """Bob, with two VTXOs that must be refreshed."""
    for _ in range(2):
        await bob.board(50_000)
    soonest, _ = await vtxos_of(bob)
    await mine_to(net, bob, soonest.expiry_height - 5)
    return bob


async def test_a_vtxo_left_alone_is_refreshed_before_it_expires(net: Net) -> None:
    """A daemon that nobody talks to, whose VTXO would expire."""
    async with net.owner("bob", BOB, daemon_sync_interval_secs=1) as bob:
        await bob.board(50_000)
        (old,) = await vtxos_of(bob)
        bob.wallet.background = Daemon(bob.wallet, backoff=short_backoff, tip_interval_secs=0.1)
        await bob.wallet.start()
        engine = net.devnet.ark_server.rounds
        await mine_to(net, bob, old.expiry_height - THRESHOLD + 1)

        async def listens() -> bool:
            return engine.events.nb_subscribers > 0

        async def is_registered() -> bool:
            return any(isinstance(state, Registered) for state in await stored_rounds(bob))

        async def is_held() -> bool:
            return any(isinstance(state, Issued) for state in await stored_rounds(bob))

        async def is_new() -> bool:
            return [vtxo.id for vtxo in await vtxos_of(bob)] not in ([old.id], [])

        await until(listens, within_secs=PATIENCE_SECS)
        engine.trigger()
        await until(is_registered, within_secs=PATIENCE_SECS)
        engine.go_on()
        await until(is_held, within_secs=PATIENCE_SECS)
        await net.mine()
        await until(is_new, within_secs=PATIENCE_SECS)
        (new,) = await vtxos_of(bob)
        assert new.amount_sat == old.amount_sat - (await refreshes(bob))[0].offchain_fee_sat
        assert (await refreshes(bob))[0].input_vtxos == (old.id,)
        await mine_to(net, bob, old.expiry_height + 1)
        assert await bob.spendable_sat() == new.amount_sat


async def test_the_threshold_and_what_goes_along(net: Net, alice: Owner, bob: Owner) -> None:
    await alice.board(50_000)
    await net.mine(20)
    await alice.board(40_000)
    must, soon, fine = await vtxos_of(alice)
    assert soon.expiry_height - must.expiry_height < 28 < fine.expiry_height - must.expiry_height
    await mine_to(net, alice, must.expiry_height - THRESHOLD)  # where both *should* be, and none must
    assert isinstance(await hold_round(net, alice), RoundFailed)
    assert await refreshes(alice) == []
    await mine_to(net, alice, must.expiry_height - THRESHOLD + 1)
    # Only the first attempt of a round is joined.
    await alice.wallet.rounds.on_event(RoundAttempt(1, 1, bytes(32)))
    assert await refreshes(alice) == []
    assert isinstance(await hold_round(net, alice), RoundFinished)
    await settle(net, alice)
    await assert_nothing_stuck(alice)
    (movement,) = await refreshes(alice)
    assert set(movement.input_vtxos) == {must.id, soon.id}
    assert movement.status is MovementStatus.SUCCESSFUL
    assert {vtxo.id for vtxo in await vtxos_of(alice)} == {fine.id, *movement.output_vtxos}


async def test_a_refused_vtxo_is_left_out_at_once_and_tried_again_later(net: Net, due: Owner) -> None:
    bad, good = await vtxos_of(due)
    fault = {"kind": "error", "code": "INVALID_ARGUMENT", "text": "not spendable", "identifiers": str(bad.id)}
    net.fault("SubmitPayment", **fault, contains=bytes(bad.id).hex(), count=None)
    assert isinstance(await hold_round(net, due), RoundFinished)
    await settle(net, due)
    good_movement, bad_movement = sorted(await refreshes(due), key=lambda each: len(each.input_vtxos))
    assert (good_movement.status, good_movement.input_vtxos) == (MovementStatus.SUCCESSFUL, (good.id,))
    assert (bad_movement.status, set(bad_movement.input_vtxos)) == (MovementStatus.FAILED, {bad.id, good.id})
    assert "not spendable" in str(bad_movement.metadata["error"])
    await hold_round(net, due)
    assert len(await refreshes(due)) == 2  # it rests
    net.honest()
    await net.mine(QUIET_BLOCKS)
    await due.wallet.chain.fetch_tip()
    assert isinstance(await hold_round(net, due), RoundFinished)
    await settle(net, due)
    await assert_nothing_stuck(due)
    assert bad.id not in {vtxo.id for vtxo in await vtxos_of(due)}


async def test_a_server_that_refuses_everything_is_asked_a_limited_number_of_times(
    net: Net, due: Owner
) -> None:
    liar = between(due)
    for _ in range(MAX_MAINTENANCE_TRIES):
        await due.wallet.send_arkoor(await due.wallet.new_address(), 1_000)
    await due.wallet.sync_mailbox()
    before = await vtxos_of(due)
    assert len(before) > MAX_MAINTENANCE_TRIES

    async def refuse(inputs: Sequence[Any], *_: object, **__: object) -> bytes:
        raise ServerRejected("no", [str(inputs[0].vtxo_id)])

    liar.answers["submit_payment"] = refuse
    await hold_round(net, due)
    assert liar.calls["submit_payment"] == MAX_MAINTENANCE_TRIES
    assert [each.status for each in await refreshes(due)] == [MovementStatus.FAILED] * MAX_MAINTENANCE_TRIES
    await assert_nothing_stuck(due)
    assert {(vtxo.id, vtxo.state) for vtxo in await vtxos_of(due)} == {
        (vtxo.id, Spendable()) for vtxo in before
    }


async def test_rounds_that_never_come_about_are_given_up_for_a_while(net: Net, due: Owner) -> None:
    """With the reason in the history, and not one failed movement per round for ever."""
    net.fault("SubmitPayment", kind="error", code="INTERNAL", text="out of order", count=None)
    for _ in range(7):
        await hold_round(net, due)
    (movement,) = await refreshes(due)
    assert movement.status is MovementStatus.FAILED
    assert "out of order" in str(movement.metadata["error"])
    await assert_nothing_stuck(due)
    net.honest()
    await net.mine(QUIET_BLOCKS)
    await due.wallet.chain.fetch_tip()
    assert isinstance(await hold_round(net, due), RoundFinished)
    await settle(net, due)
    await assert_nothing_stuck(due)
