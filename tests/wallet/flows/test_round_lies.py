"""Rounds with a server that lies: nothing is signed or forfeited that does not lead to what was asked for.

One test per line of sheet 04 §23. After the lie the server is honest, and the money must come out right.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.genesis import HashLockedTransition
from barkd_py.ark.tree import TreeSpec
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import OutPoint, Tx
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.server_rpc.api import RoundAttempt, RoundFinished, RoundParticipation, VtxoProposal
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.rounds.states import Delegated, Issued, Signed, SyncError, Waiting
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.liar import Liar, between
from tests.wallet.flows.rounds import (
    assert_nothing_stuck,
    hold_round,
    refreshes,
    round_of,
    settle,
)

STRANGER = SecretKey(bytes([9]) * 32).public_key


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60)


async def assert_refreshed(owner: Owner) -> None:
    """The one VTXO that there is was refreshed, once, and everything else is as it was."""
    await assert_nothing_stuck(owner)
    (movement,) = await refreshes(owner)
    assert movement.status is MovementStatus.SUCCESSFUL
    (new,) = await owner.wallet.list_vtxos(include_all=False)
    old = await owner.wallet.get_vtxo(movement.input_vtxos[0])
    assert new.amount_sat == old.amount_sat - movement.offchain_fee_sat


# --- the proposal

SpecLie = Callable[[TreeSpec], TreeSpec]


def _of_our_leaf(**changes: Any) -> SpecLie:
    def lie(spec: TreeSpec) -> TreeSpec:
        ours = next(i for i, leaf in enumerate(spec.leaves) if leaf.cosign_pubkey is not None)
        leaf = replace(spec.leaves[ours], **changes)
        return replace(spec, leaves=(*spec.leaves[:ours], leaf, *spec.leaves[ours + 1 :]))

    return lie


SPEC_LIES: dict[str, SpecLie] = {
    "another server key": lambda spec: replace(spec, server_pubkey=STRANGER),
    "a shorter exit delta": lambda spec: replace(spec, exit_delta=spec.exit_delta - 1),
    "a longer exit delta": lambda spec: replace(spec, exit_delta=spec.exit_delta + 1),
    "an expiry that is too soon": lambda spec: replace(spec, expiry_height=spec.expiry_height - 7),
    "another unlock hash": _of_our_leaf(unlock_hash=bytes(32)),
    "another cosign key": _of_our_leaf(cosign_pubkey=STRANGER),
    "no cosign key": _of_our_leaf(cosign_pubkey=None),
    "one satoshi less": _of_our_leaf(amount_sat=1),
    "a tree of one leaf": lambda spec: replace(spec, leaves=spec.leaves[:1]),
}


def _with_spec(proposal: VtxoProposal, spec: TreeSpec) -> VtxoProposal:
    """A proposal that is right in itself: its funding transaction pays for this tree."""
    tx = proposal.unsigned_round_tx
    paid = Tx(tx.version, tx.inputs, (spec.funding_output, *tx.outputs[1:]), tx.locktime)
    return replace(proposal, vtxos_spec=spec.encode(), unsigned_round_tx=paid)


def _unfunded(proposal: VtxoProposal) -> VtxoProposal:
    tx = proposal.unsigned_round_tx
    output = replace(tx.outputs[0], value_sat=tx.outputs[0].value_sat - 1)
    return replace(
        proposal, unsigned_round_tx=Tx(tx.version, tx.inputs, (output, *tx.outputs[1:]), tx.locktime)
    )


def _lie_about_spec(lie: SpecLie) -> Callable[[VtxoProposal], VtxoProposal]:
    return lambda proposal: _with_spec(proposal, lie(TreeSpec.decode(proposal.vtxos_spec)))


PROPOSAL_LIES: dict[str, Callable[[VtxoProposal], VtxoProposal]] = {
    **{name: _lie_about_spec(lie) for name, lie in SPEC_LIES.items()},
    "a funding transaction of too little": _unfunded,
    "a nonce too few": lambda proposal: replace(proposal, agg_nonces=proposal.agg_nonces[:-1]),
    "a nonce too many": lambda proposal: replace(proposal, agg_nonces=proposal.agg_nonces * 2),
    "rubbish": lambda proposal: replace(proposal, vtxos_spec=b"\x02rubbish"),
    "nothing": lambda proposal: replace(proposal, vtxos_spec=b""),
}


@pytest.mark.parametrize("lie", PROPOSAL_LIES)
async def test_a_bad_proposal_is_not_signed(net: Net, alice: Owner, lie: str) -> None:
    liar = between(alice)
    rounds = alice.wallet.rounds
    before_sat = await alice.spendable_sat()
    await rounds.refresh_all()
    stream = alice.wallet.server.subscribe_rounds()
    engine = net.devnet.ark_server.rounds
    engine.trigger()
    attempt = await anext(stream)
    assert isinstance(attempt, RoundAttempt)
    await rounds.on_event(attempt)
    engine.go_on()
    proposal = await anext(stream)
    assert isinstance(proposal, VtxoProposal)
    await rounds.on_event(PROPOSAL_LIES[lie](proposal))
    assert liar.calls["provide_vtxo_signatures"] == 0
    (info,) = await rounds.list()
    assert isinstance(info.round.state, Waiting)
    assert info.round.failures == 1
    assert isinstance(info.status, SyncError)
    assert await alice.spendable_sat() == before_sat  # free for other uses until the next round

    # The right one comes too late: the nonces are gone.
    await rounds.on_event(proposal)
    assert liar.calls["provide_vtxo_signatures"] == 0
    engine.go_on()
    await rounds.on_event(await anext(stream))
    await stream.aclose()
    await hold_round(net, alice)
    await settle(net, alice)
    await assert_refreshed(alice)


# --- the end of the round


def _unsigned(finished: RoundFinished) -> RoundFinished:
    return replace(finished, cosign_sigs=tuple(map(_flipped, finished.cosign_sigs)))


def _other_tx(finished: RoundFinished) -> RoundFinished:
    tx = finished.signed_round_tx
    return replace(finished, signed_round_tx=Tx(tx.version, tx.inputs, tx.outputs, tx.locktime + 1))


FINISHED_LIES: dict[str, Callable[[RoundFinished], RoundFinished]] = {
    "another funding transaction": _other_tx,
    "a bad signature": _unsigned,
    "a signature too few": lambda finished: replace(finished, cosign_sigs=finished.cosign_sigs[:-1]),
    "a signature too many": lambda finished: replace(finished, cosign_sigs=finished.cosign_sigs * 2),
}


@pytest.mark.parametrize("lie", FINISHED_LIES)
async def test_a_bad_end_of_a_round_is_looked_up(net: Net, alice: Owner, lie: str) -> None:
    rounds = alice.wallet.rounds
    await rounds.refresh_all()
    async with round_of(net, alice) as held:
        await held.step()
        (info,) = await rounds.list()
        assert isinstance(info.round.state, Signed)
        finished = await held.hear()
        assert isinstance(finished, RoundFinished)
        await rounds.on_event(FINISHED_LIES[lie](finished))
    (info,) = await rounds.list()
    assert isinstance(info.round.state, Delegated)
    assert info.round.state.funding_txid == finished.signed_round_tx.txid
    await settle(net, alice)
    await assert_refreshed(alice)


# --- leaves that the server delivers


def _leaf(vtxo: Vtxo, **changes: Any) -> Vtxo:
    last = vtxo.genesis[-1]
    assert isinstance(last.transition, HashLockedTransition)
    transition = replace(last.transition, **changes)
    changed = replace(vtxo, genesis=(*vtxo.genesis[:-1], replace(last, transition=transition)))
    return changed.with_computed_point()


def _each(change: Callable[[Vtxo], Vtxo]) -> Callable[[RoundParticipation], RoundParticipation]:
    return lambda told: replace(told, output_vtxos=tuple(map(change, told.output_vtxos)))


STATUS_LIES: dict[str, Callable[[RoundParticipation], RoundParticipation]] = {
    "another unlock hash": _each(lambda vtxo: _leaf(vtxo, unlock_hash=bytes(32))),
    "another key in the leaf": _each(lambda vtxo: _leaf(vtxo, user_pubkey=STRANGER)),
    "a forged point": _each(lambda vtxo: replace(vtxo, point=OutPoint(vtxo.point.txid, 1))),
    "another amount": _each(lambda vtxo: replace(vtxo, amount_sat=vtxo.amount_sat - 1)),
    "another server key": _each(lambda vtxo: replace(vtxo, server_pubkey=STRANGER)),
    "another exit delta": _each(lambda vtxo: replace(vtxo, exit_delta=vtxo.exit_delta + 1)),
    "a near expiry": _each(lambda vtxo: replace(vtxo, expiry_height=100)),
    "another policy": _each(lambda vtxo: replace(vtxo, policy=replace(vtxo.policy, user_pubkey=STRANGER))),
    "a tree that is not signed": _each(
        lambda vtxo: vtxo.with_signatures([bytes(63) + b"\x01"] * len(vtxo.genesis))
    ),
    "another anchor": _each(lambda vtxo: replace(vtxo, anchor_point=OutPoint(vtxo.anchor_point.txid, 1))),
    "none": lambda told: replace(told, output_vtxos=()),
    "the same twice": lambda told: replace(told, output_vtxos=told.output_vtxos * 2),
    "no funding transaction": lambda told: replace(told, funding_tx=None),
}


async def _delegated(net: Net, alice: Owner) -> Liar:
    """A delegated refresh whose round is held and confirmed; the wallet has not looked."""
    liar = between(alice)
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    await hold_round(net, alice)
    await net.mine()
    await alice.wallet.chain.fetch_tip()
    return liar


@pytest.mark.parametrize("lie", STATUS_LIES)
async def test_nothing_is_forfeited_for_bad_leaves(net: Net, alice: Owner, lie: str) -> None:
    liar = await _delegated(net, alice)
    liar.lies["round_participation_status"] = STATUS_LIES[lie]
    for _ in range(2):
        (info,) = await alice.wallet.rounds.list()
        assert isinstance(info.status, SyncError), lie
        assert isinstance(info.round.state, Delegated)
    assert liar.calls["forfeit_vtxos"] == liar.calls["request_forfeit_nonces"] == 0
    liar.lies.clear()
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


@pytest.mark.parametrize(("exit_delta", "is_taken"), [(144, True), (145, False)])
async def test_the_exit_delta_may_rise_to_a_day_while_a_delegated_round_waits(
    net: Net, alice: Owner, exit_delta: int, is_taken: bool
) -> None:
    """Or to twice what was agreed to: `tests/wallet/rounds/test_bounds.py`."""
    liar = between(alice)
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    assert old.exit_delta == 12
    await alice.wallet.rounds.refresh_delegated([old.id])
    server = net.devnet.ark_server
    server.settings = replace(server.settings, vtxo_exit_delta=exit_delta)
    await net.restart_ark_server()
    await alice.wallet.server.refresh()
    await hold_round(net)
    await net.mine()
    await alice.wallet.chain.fetch_tip()
    if is_taken:
        await alice.wallet.rounds.sync()
        await assert_refreshed(alice)
        (new,) = await alice.wallet.list_vtxos(include_all=False)
        assert new.exit_delta == exit_delta
        return
    for _ in range(2):
        (info,) = await alice.wallet.rounds.list()
        assert isinstance(info.status, SyncError)
        assert "exit delta has risen from 12 to 145" in info.status.error
        assert isinstance(info.round.state, Delegated)
    assert liar.calls["forfeit_vtxos"] == liar.calls["request_forfeit_nonces"] == 0


# --- the swap


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


async def test_a_bad_cosignature_of_a_leaf_stops_the_swap(net: Net, alice: Owner) -> None:
    liar = await _delegated(net, alice)
    liar.lies["request_leaf_vtxo_cosign"] = lambda answer: answer._replace(
        partial_sig=_flipped(answer.partial_sig)
    )
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.status, SyncError)
    assert liar.calls["forfeit_vtxos"] == liar.calls["request_forfeit_nonces"] == 0
    liar.lies.clear()
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


@pytest.mark.parametrize("lie", [lambda nonces: nonces[:-1], lambda nonces: nonces * 2], ids=["few", "many"])
async def test_a_wrong_number_of_forfeit_nonces_stops_the_swap(
    net: Net, alice: Owner, lie: Callable[[Any], Any]
) -> None:
    liar = await _delegated(net, alice)
    liar.lies["request_forfeit_nonces"] = lie
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.status, SyncError)
    assert liar.calls["forfeit_vtxos"] == 0
    liar.lies.clear()
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


@pytest.mark.parametrize("lie", [_flipped, lambda preimage: preimage[:31], lambda _: bytes(32)])
async def test_a_wrong_preimage_is_asked_for_again(
    net: Net, alice: Owner, lie: Callable[[bytes], bytes]
) -> None:
    liar = await _delegated(net, alice)
    liar.lies["forfeit_vtxos"] = lie
    for _ in range(2):
        (info,) = await alice.wallet.rounds.list()
        assert isinstance(info.status, SyncError)
        assert isinstance(info.round.state, Issued)
        assert info.round.state.forfeits_sent
        assert await alice.spendable_sat() == 0
        balance = await alice.wallet.balance()
        assert balance.total_sat == balance.pending_in_round_sat > 0
    liar.lies.clear()
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


async def test_nothing_is_forfeited_without_confirmations(net: Net, alice: Owner) -> None:
    liar = between(alice)
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    await hold_round(net, alice)
    await alice.wallet.rounds.sync()
    assert liar.calls["forfeit_vtxos"] == liar.calls["request_leaf_vtxo_cosign"] == 0
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_nothing_is_forfeited_for_a_tree_that_was_taken(
    net: Net, alice: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a delegated round the server has all the keys, and could spend the root as soon as it is mined."""
    liar = between(alice)
    (old,) = await alice.wallet.list_vtxos(include_all=False)
    await alice.wallet.rounds.refresh_delegated([old.id])
    await hold_round(net, alice)

    async def taken(_: OutPoint) -> bool:
        return True

    with monkeypatch.context() as lying:
        lying.setattr(alice.wallet.chain, "is_spent_confirmed", taken)
        await settle(net, alice)
        assert liar.calls["request_leaf_vtxo_cosign"] > 0
        assert liar.calls["forfeit_vtxos"] == 0
    await settle(net, alice)
    await assert_refreshed(alice)


async def test_nothing_is_forfeited_without_time_for_two_exits(net: Net, alice: Owner) -> None:
    """The round is confirmed, but its VTXOs expire too soon by the time that the wallet looks."""
    liar = between(alice)
    await alice.wallet.rounds.refresh_all()
    await hold_round(net, alice)
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.round.state, Issued)
    lifetime = net.devnet.ark_server.settings.vtxo_lifetime
    await net.mine(lifetime - 60)
    await alice.board(40_000)  # the tip is far ahead, and time goes on for all the same
    await net.mine(30)
    await alice.wallet.chain.fetch_tip()
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.status, SyncError)
    assert "refusing to forfeit" in info.status.error
    assert liar.calls["forfeit_vtxos"] == 0
