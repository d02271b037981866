"""Rounds with a server that lies: nothing is signed or forfeited that does not lead to what was asked for.

One test per line of sheet 04 §23. After the lie the server is honest, and the money must come out right.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.tree import LeafSpec, TreeSpec, VtxoTree
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.musig import generate_nonce
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.tx import OutPoint, Tx, TxOut
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.chain import faucet
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
    stored_rounds,
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


def _ours(spec: TreeSpec) -> LeafSpec:
    (leaf,) = [leaf for leaf in spec.leaves if leaf.cosign_pubkey is not None]
    return leaf


def _of_our_leaf(**changes: Any) -> SpecLie:
    def lie(spec: TreeSpec) -> TreeSpec:
        ours = spec.leaves.index(_ours(spec))
        leaf = replace(spec.leaves[ours], **changes)
        return replace(spec, leaves=(*spec.leaves[:ours], leaf, *spec.leaves[ours + 1 :]))

    return lie


def _only_ours(spec: TreeSpec) -> TreeSpec:
    return replace(spec, leaves=tuple(leaf for leaf in spec.leaves if leaf.cosign_pubkey is not None))


MISSING = "one of our outputs is missing from the round's tree"

SPEC_LIES: dict[str, tuple[SpecLie, str]] = {
    "another server key": (
        lambda spec: replace(spec, server_pubkey=STRANGER),
        "uses an unexpected server pubkey",
    ),
    "a shorter exit delta": (
        lambda spec: replace(spec, exit_delta=spec.exit_delta - 1),
        "uses an unexpected exit delta",
    ),
    "a longer exit delta": (
        lambda spec: replace(spec, exit_delta=spec.exit_delta + 1),
        "uses an unexpected exit delta",
    ),
    "an expiry that is too soon": (
        lambda spec: replace(spec, expiry_height=spec.expiry_height - 7),
        "is below the required minimum",
    ),
    "another unlock hash": (_of_our_leaf(unlock_hash=bytes(32)), MISSING),
    "another cosign key": (_of_our_leaf(cosign_pubkey=STRANGER), MISSING),
    "no cosign key": (_of_our_leaf(cosign_pubkey=None), MISSING),
    "another policy": (_of_our_leaf(policy=PubkeyPolicy(STRANGER)), MISSING),
    "one satoshi less": (lambda spec: _of_our_leaf(amount_sat=_ours(spec).amount_sat - 1)(spec), MISSING),
    "a tree of one leaf": (_only_ours, "a round's tree has at least 2 leaves"),
}
"""Each is a tree that is sound but for this, and what the wallet says of it."""


def _with_spec(proposal: VtxoProposal, spec: TreeSpec) -> VtxoProposal:
    """A proposal that is right in itself: its funding transaction pays for this tree, and its nonces fit."""
    tx = proposal.unsigned_round_tx
    paid = Tx(tx.version, tx.inputs, (spec.funding_output, *tx.outputs[1:]), tx.locktime)
    nonces = proposal.agg_nonces[: spec.nb_internal_nodes]
    return replace(proposal, vtxos_spec=spec.encode(), unsigned_round_tx=paid, agg_nonces=nonces)


def _unfunded(proposal: VtxoProposal) -> VtxoProposal:
    tx = proposal.unsigned_round_tx
    output = replace(tx.outputs[0], value_sat=tx.outputs[0].value_sat - 1)
    return replace(
        proposal, unsigned_round_tx=Tx(tx.version, tx.inputs, (output, *tx.outputs[1:]), tx.locktime)
    )


def _lie_about_spec(lie: SpecLie) -> Callable[[VtxoProposal], VtxoProposal]:
    return lambda proposal: _with_spec(proposal, lie(TreeSpec.decode(proposal.vtxos_spec)))


PROPOSAL_LIES: dict[str, tuple[Callable[[VtxoProposal], VtxoProposal], str]] = {
    **{name: (_lie_about_spec(lie), text) for name, (lie, text) in SPEC_LIES.items()},
    "a funding transaction of too little": (
        _unfunded,
        "the round's funding transaction doesn't pay to its tree",
    ),
    "a nonce too few": (
        lambda proposal: replace(proposal, agg_nonces=proposal.agg_nonces[:-1]),
        "aggregate nonces, received",
    ),
    "a nonce too many": (
        lambda proposal: replace(proposal, agg_nonces=proposal.agg_nonces * 2),
        "aggregate nonces, received",
    ),
    "rubbish": (
        lambda proposal: replace(proposal, vtxos_spec=b"\x02rubbish"),
        "block height exceeds maximum value",
    ),
    "nothing": (lambda proposal: replace(proposal, vtxos_spec=b""), "failed to fill whole buffer"),
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
    tell, text = PROPOSAL_LIES[lie]
    await rounds.on_event(tell(proposal))
    assert liar.calls["provide_vtxo_signatures"] == 0
    (info,) = await rounds.list()
    assert isinstance(info.round.state, Waiting)
    assert info.round.failures == 1
    assert isinstance(info.status, SyncError)
    assert text in info.status.error
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


SIGNER = SecretKey(bytes([0xEE]) * 32)


@dataclass(frozen=True)
class Forgery:
    """A round that the server held with itself: mined, and signed in every node. Only its lie is wrong.

    spec, leaf: what is otherwise about the tree, and about our leaf. neighbour_sat: what hangs beside it.
    vout: where in the funding transaction the tree is. deliver: what becomes of our VTXO at last; it is given
    the honest one as well. text: what the wallet says.
    """

    text: str
    spec: dict[str, Any] = field(default_factory=dict)
    leaf: dict[str, Any] = field(default_factory=dict)
    neighbour_sat: int = 5_000
    vout: int = 0
    deliver: Callable[[Vtxo, Vtxo], Vtxo] = lambda vtxo, honest: vtxo

    async def hold(self, net: Net, told: RoundParticipation) -> RoundParticipation:
        """What the server tells of this round instead of the one that it held for us."""
        (honest,) = told.output_vtxos
        ours = LeafSpec(honest.policy, honest.amount_sat, None, honest.hark_leaf.unlock_hash)
        beside = LeafSpec(PubkeyPolicy(STRANGER), self.neighbour_sat, None, bytes(32))
        agreed = TreeSpec(
            honest.expiry_height,
            honest.server_pubkey,
            honest.exit_delta,
            (SIGNER.public_key,),
            (replace(ours, **self.leaf), beside),
        )
        spec = replace(agreed, **self.spec)
        others = [TxOut(10_000, p2tr_script(STRANGER.x_only))] * self.vout
        funding = await faucet.pay(net.devnet.node, [*others, spec.funding_output])
        await net.mine()
        vtxo = self.deliver(_signed_by_server(VtxoTree(spec, funding.outpoint(self.vout))), honest)
        return replace(told, funding_tx=funding, output_vtxos=(vtxo,))


def _signed_by_server(tree: VtxoTree) -> Vtxo:
    pairs = [generate_nonce(SIGNER) for _ in tree.internal_nodes]
    nonces = tree.aggregate_nonces({}, [[pub for _, pub in pairs]])
    partials = tree.cosign_all(SIGNER, [sec for sec, _ in pairs], nonces)
    return tree.vtxo(0, tree.combine_partials(nonces, {}, [partials]))


def _node_not_signed(vtxo: Vtxo, _: Vtxo) -> Vtxo:
    first = vtxo.genesis[0]
    assert first.transition.signature is not None
    transition = replace(first.transition, signature=_flipped(first.transition.signature))
    return replace(vtxo, genesis=(replace(first, transition=transition), *vtxo.genesis[1:]))


FORGERIES: dict[str, Forgery] = {
    "another unlock hash": Forgery(
        "is locked to another hash than we forfeit to", leaf={"unlock_hash": sha256(b"another")}
    ),
    "another key in the leaf": Forgery(
        "has another key than its policy",
        leaf={"policy": PubkeyPolicy(STRANGER)},
        deliver=lambda vtxo, honest: replace(vtxo, policy=honest.policy).with_computed_point(),
    ),
    "a forged point": Forgery(
        "point doesn't match computed exit outpoint",
        deliver=lambda vtxo, _: replace(vtxo, point=OutPoint(vtxo.point.txid, 1)),
    ),
    "another amount": Forgery("is not the output that we asked for", leaf={"amount_sat": 1_000}),
    "another policy": Forgery("is not the output that we asked for", leaf={"policy": PubkeyPolicy(STRANGER)}),
    "another server key": Forgery("uses an unexpected server pubkey", spec={"server_pubkey": STRANGER}),
    "a longer exit delta": Forgery("uses an unexpected exit delta", spec={"exit_delta": 13}),
    "a shorter exit delta": Forgery("uses an unexpected exit delta", spec={"exit_delta": 11}),
    "a near expiry": Forgery("is below the required minimum", spec={"expiry_height": 130}),
    "a tree that is not signed": Forgery("invalid signature", deliver=_node_not_signed),
    "another anchor": Forgery("is not anchored in the round's funding transaction", vout=1),
    "what no node relays beside it": Forgery("nodes would not relay the exit", neighbour_sat=1),
}

STATUS_LIES: dict[str, tuple[Callable[[RoundParticipation], RoundParticipation], str]] = {
    "none": (lambda told: replace(told, output_vtxos=()), "server delivered 0 VTXOs for 1 outputs"),
    "the same twice": (
        lambda told: replace(told, output_vtxos=told.output_vtxos * 2),
        "server delivered 2 VTXOs for 1 outputs",
    ),
    "no funding transaction": (
        lambda told: replace(told, funding_tx=None),
        "reports a round without its funding transaction",
    ),
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


async def _told_of(liar: Liar, alice: Owner) -> RoundParticipation:
    """What the server says of the delegated refresh while it is honest."""
    (state,) = await stored_rounds(alice)
    assert isinstance(state, Delegated)
    told: RoundParticipation = await liar.round_participation_status(state.unlock_hash)
    return told


async def _assert_refused(liar: Liar, alice: Owner, text: str) -> None:
    """Nothing is given for this; and when the server is honest again, everything comes right."""
    for _ in range(2):
        (info,) = await alice.wallet.rounds.list()
        assert isinstance(info.status, SyncError)
        assert text in info.status.error
        assert isinstance(info.round.state, Delegated)
    assert liar.calls["forfeit_vtxos"] == liar.calls["request_forfeit_nonces"] == 0
    assert liar.calls["request_leaf_vtxo_cosign"] == 0
    liar.lies.clear()
    await alice.wallet.rounds.sync()
    await assert_refreshed(alice)


@pytest.mark.parametrize("lie", FORGERIES)
async def test_nothing_is_forfeited_for_bad_leaves(net: Net, alice: Owner, lie: str) -> None:
    liar = await _delegated(net, alice)
    forged = await FORGERIES[lie].hold(net, await _told_of(liar, alice))
    await alice.wallet.chain.fetch_tip()
    liar.lies["round_participation_status"] = lambda _: forged
    await _assert_refused(liar, alice, FORGERIES[lie].text)


async def test_a_forged_round_without_a_lie_would_be_taken(net: Net, alice: Owner) -> None:
    """So each lie above is found out by itself, and not because the tree is a forger's."""
    liar = await _delegated(net, alice)
    forged = await Forgery("").hold(net, await _told_of(liar, alice))
    await alice.wallet.chain.fetch_tip()
    liar.lies["round_participation_status"] = lambda _: forged
    (info,) = await alice.wallet.rounds.list()
    assert isinstance(info.round.state, Issued)
    assert info.round.state.vtxos == forged.output_vtxos


@pytest.mark.parametrize("lie", STATUS_LIES)
async def test_nothing_is_forfeited_for_less_than_all_leaves(net: Net, alice: Owner, lie: str) -> None:
    liar = await _delegated(net, alice)
    tell, text = STATUS_LIES[lie]
    liar.lies["round_participation_status"] = tell
    await _assert_refused(liar, alice, text)


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
