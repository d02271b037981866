"""Exits on a chain: levels, children, replacements, evictions, strangers, outages, and what it all costs."""

import asyncio
from contextlib import suppress

import pytest

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from barkd_py.bitcoin.units import DUST_SAT, FeeRate
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind, TxStatus
from barkd_py.errors import ChainUnavailable
from barkd_py.onchain.cpfp import package_fee_sat, plan_child
from barkd_py.wallet.exits.costs.worth import MAX_AUTOMATIC_FEE_RATE
from barkd_py.wallet.exits.errors import (
    ExitPackageBroadcastFailure,
    InsufficientConfirmedFundsForExit,
    TipRetrievalFailure,
    TransactionRetrievalFailure,
)
from barkd_py.wallet.exits.states import (
    AwaitingConfirmation,
    AwaitingDelta,
    BlockOrigin,
    Claimed,
    ExitFilter,
    MempoolOrigin,
    Processing,
    TxConfirmed,
    VtxoAlreadySpent,
    WalletOrigin,
)
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.vtxo_states import StateKind
from tests.fakes.coins import Stranger
from tests.wallet.exits.coins import EXIT_DELTA
from tests.wallet.exits.conftest import World
from tests.wallet.exits.gates import Ask, When

PAYEE = p2tr_script(bytes(31) + b"\x01")
ALL = ExitFilter.ALL


def fee_paid_sat(world: World, vtxos: tuple[Vtxo, ...]) -> int:
    """What the confirmed children of these VTXOs' exit transactions have paid, anchors included."""
    txids = {exit_tx.txid: exit_tx for vtxo in vtxos for exit_tx in vtxo.exit_transactions()}
    total_sat = 0
    for exit_tx in txids.values():
        spend = world.node.index.spend(exit_tx.outpoint(len(exit_tx.outputs) - 1))
        assert spend is not None
        total_sat += spend_fee_sat(world, spend.txid)
    return total_sat


def spend_fee_sat(world: World, txid: Txid) -> int:
    child = confirmed_tx(world, txid)
    spent_sat = sum(
        confirmed_tx(world, tx_in.prevout.txid).outputs[tx_in.prevout.vout].value_sat
        for tx_in in child.inputs
    )
    return spent_sat - sum(output.value_sat for output in child.outputs)


def confirmed_tx(world: World, txid: Txid) -> Tx:
    found = world.node.index.tx(txid)
    assert found is not None
    return found.tx


async def exit_of(world: World, vtxo: Vtxo) -> VtxoId:
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    return vtxo_id


# --- from start to claimed


async def test_a_board_exits_and_is_claimed(either_world: World) -> None:
    world = either_world
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.tick()
    (exit_tx,) = vtxo.exit_transactions()
    child = world.child_of(exit_tx)
    assert child.version == 3
    child_fee_sat = world.fee_sat(exit_tx, child)

    assert await world.until_claimable(vtxo_id) == 1 + EXIT_DELTA
    txid = await world.exits.claim(None, PAYEE)
    claim = world.mempool[txid]
    claim_fee_sat = world.fee_sat(claim)
    await world.mine()
    await world.exits.tick()

    assert await world.history(vtxo_id) == [
        "start",
        *["processing"] * 3,
        "awaiting-delta",
        "claimable",
        "claim-in-progress",
        "claimed",
    ]
    assert claim.outputs == (TxOut(100_000 - claim_fee_sat, PAYEE),)
    assert await world.onchain_sat() == 50_000 - child_fee_sat
    (movement,) = await world.movements()
    assert movement.status is MovementStatus.SUCCESSFUL
    async with world.store.read() as tx:
        assert (await tx.vtxos.get(vtxo_id)).state.kind is StateKind.EXITED


async def test_a_deep_chain_is_confirmed_level_by_level(either_world: World) -> None:
    """Every satoshi is accounted for: fees paid and money received make up for what there was before."""
    world = either_world
    await world.fund(40_000, 40_000)
    vtxo = await world.mint.deep(200_000, payments=5)
    assert vtxo.exit_depth == 11
    before_sat = await world.onchain_sat() + vtxo.amount_sat
    vtxo_id = await exit_of(world, vtxo)

    levels: list[int] = []

    async def step() -> None:
        await world.exits.tick()
        state = await world.state(vtxo_id)
        if isinstance(state, Processing):
            levels.append(sum(isinstance(entry.status, TxConfirmed) for entry in state.transactions))
            assert len(world.mempool) == 2  # one package at a time

    async def done() -> bool:
        return isinstance(await world.state(vtxo_id), AwaitingDelta)

    assert await world.until(done, step=step) == 11
    assert levels == list(range(11))

    await world.until_claimable(vtxo_id)
    script = await own_script(world)
    txid = await world.exits.claim([vtxo_id], script)
    claim_fee_sat = world.fee_sat(world.mempool[txid])
    await world.mine()
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), Claimed)
    fees_sat = fee_paid_sat(world, (vtxo,)) + claim_fee_sat
    assert await world.onchain_sat() == before_sat - fees_sat


async def test_twenty_vtxos_share_their_ancestors(world: World) -> None:
    await world.fund(*[20_000] * 8)
    vtxos = await world.mint.round([10_000 + 100 * index for index in range(20)])
    distinct = {exit_tx.txid for vtxo in vtxos for exit_tx in vtxo.exit_transactions()}
    assert len(distinct) == 20 + 7  # four levels: 5 parents, 2 grandparents... and the root
    before_sat = await world.onchain_sat() + sum(vtxo.amount_sat for vtxo in vtxos)
    ids = await world.hold(*vtxos)
    await world.exits.start_all()

    await world.until_claimable(*ids)
    assert world.chain.calls.count("broadcast_package") == len(distinct)

    txid = await world.exits.claim(None, await own_script(world))
    claim = world.mempool[txid]
    assert len(claim.inputs) == 20
    claim_fee_sat = world.fee_sat(claim)
    await world.mine()
    await world.exits.tick()
    assert [type(await world.state(vtxo_id)) for vtxo_id in ids] == [Claimed] * 20
    assert await world.onchain_sat() == before_sat - fee_paid_sat(world, vtxos) - claim_fee_sat
    assert {movement.status for movement in await world.movements()} == {MovementStatus.SUCCESSFUL}


async def own_script(world: World) -> bytes:
    (coin, *_) = await world.onchain.utxos()
    return coin.output.script_pubkey


async def test_exits_that_share_a_transaction_pay_for_it_once(world: World) -> None:
    await world.fund(50_000, 50_000)
    board = await world.mint.board(100_000)
    first, second = await world.mint.pay(board, [60_000, 40_000])
    for vtxo in (first, second):
        await exit_of(world, vtxo)
    await world.exits.tick()
    assert world.chain.calls.count("broadcast_package") == 1
    assert await world.tx_statuses(first.id) == await world.tx_statuses(second.id)
    assert len(world.mempool) == 2


async def test_one_look_takes_an_exit_over_what_others_have_confirmed(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.deep(100_000, payments=1)
    stranger = Stranger()
    coins = [await stranger.fund(world.node, 20_000) for _ in range(3)]
    for exit_tx, coin in zip(vtxo.exit_transactions(), coins, strict=True):
        await broadcast_with_foreign_child(world, stranger, coin, exit_tx, 5_000)
        await world.mine()
    await world.mine(EXIT_DELTA)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.tick()
    assert await world.history(vtxo_id) == ["start", "processing", "awaiting-delta", "claimable"]
    assert "broadcast_package" not in world.chain.calls


# --- what pays


async def test_an_anchor_with_value_pays_for_itself(world: World) -> None:
    vtxo = await world.mint.board(100_000, fee_sat=900)
    await exit_of(world, vtxo)
    await world.exits.tick()
    (exit_tx,) = vtxo.exit_transactions()
    child = world.child_of(exit_tx)
    assert len(child.inputs) == 1
    assert child.weight_wu == 376
    fee_sat = package_fee_sat(FeeRate(250), exit_tx.weight_wu, child.weight_wu)
    assert child.outputs[0].value_sat == 900 - fee_sat
    await world.mine()
    assert await world.onchain_sat() == 900 - fee_sat


async def test_without_funds_an_exit_says_what_is_missing_until_there_are_some(world: World) -> None:
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    needed_sat = package_fee_sat(FeeRate(250), 496, 376) + DUST_SAT
    for _ in range(3):
        progress = await world.exits.progress()
        (entry,) = progress.exits
        assert isinstance(entry.error, InsufficientConfirmedFundsForExit)
        assert (entry.error.needed_sat, entry.error.available_sat) == (needed_sat, 0)
        assert not progress.is_done
        await world.mine()
    assert (await world.exits.status(vtxo_id)).error is not None
    assert await world.tx_statuses(vtxo_id) == ["awaiting-cpfp-broadcast"]
    await world.fund(5_000)
    (entry,) = (await world.exits.progress()).exits
    assert entry.error is None
    assert await world.tx_statuses(vtxo_id) == ["awaiting-confirmation"]


async def test_a_coin_that_is_one_satoshi_too_small(world: World) -> None:
    needed_sat = package_fee_sat(FeeRate(250), 496, 609) + DUST_SAT
    await world.fund(needed_sat - 1)
    vtxo = await world.mint.board(100_000)
    await exit_of(world, vtxo)
    (entry,) = (await world.exits.progress()).exits
    assert isinstance(entry.error, InsufficientConfirmedFundsForExit)
    assert (entry.error.needed_sat, entry.error.available_sat) == (needed_sat, needed_sat - 1)
    assert world.mempool == {}


async def test_unconfirmed_money_does_not_pay(world: World) -> None:
    """Two exits and one coin: the second waits for the change of the first one's child."""
    await world.fund(50_000)
    first, second = await world.mint.board(100_000), await world.mint.board(100_000)
    for vtxo in (first, second):
        await exit_of(world, vtxo)
    progress = await world.exits.progress()
    errors = [type(entry.error) for entry in progress.exits]
    assert sorted(errors, key=str) == sorted([type(None), InsufficientConfirmedFundsForExit], key=str)
    await world.mine()
    assert [entry.error for entry in (await world.exits.progress()).exits] == [None, None]


async def test_a_child_has_no_more_inputs_than_relay_allows(world: World) -> None:
    await world.fund(*[600] * 25)
    vtxo = await world.mint.board(100_000)
    await exit_of(world, vtxo)
    (entry,) = (await world.exits.progress(FeeRate(1_000))).exits
    assert entry.error is None
    child = world.child_of(vtxo.exit_transactions()[0])
    assert 1 < len(child.inputs) <= 16
    assert child.vsize <= 1_000


# --- replacing


async def unmined_block(world: World) -> None:
    """A block without the mempool's transactions: they paid too little."""
    await world.node.mine_exactly([])


async def test_a_child_is_replaced_when_the_rate_has_risen(either_world: World) -> None:
    world = either_world
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.set_rates(FeeRate(1_000))
    await world.exits.tick()
    (exit_tx,) = vtxo.exit_transactions()
    old = world.child_of(exit_tx)
    old_fee_sat = world.fee_sat(old)
    assert old_fee_sat == package_fee_sat(FeeRate(1_000), 496, 609)

    await world.set_rates(FeeRate(1_100))
    await world.exits.tick()
    assert world.child_of(exit_tx) == old  # not twice in one block

    await unmined_block(world)
    await world.exits.tick()
    new = world.child_of(exit_tx)
    assert new != old
    assert world.fee_sat(new) == package_fee_sat(FeeRate(1_100), 496, 609, replaces_fee_sat=old_fee_sat)
    state = await world.state(vtxo_id)
    assert isinstance(state, Processing)
    status = state.transactions[0].status
    assert isinstance(status, AwaitingConfirmation)
    assert (status.child_txid, status.origin) == (new.txid, WalletOrigin())
    assert (await world.onchain.balance()).total_sat == 50_000 - world.fee_sat(new)

    await world.mine()
    await world.exits.tick()
    assert await world.onchain_sat() == 50_000 - spend_fee_sat(world, new.txid)
    assert await world.onchain.transactions() == tuple(
        [entry for entry in await world.onchain.transactions() if entry.tx.txid != old.txid]
    )


@pytest.mark.parametrize("rate", [FeeRate(1_000), FeeRate(999)])
async def test_a_child_that_pays_enough_stays(world: World, rate: FeeRate) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    await exit_of(world, vtxo)
    await world.exits.progress(FeeRate(1_000))
    child = world.child_of(vtxo.exit_transactions()[0])
    for _ in range(3):
        await unmined_block(world)
        await world.exits.progress(rate)
    assert world.child_of(vtxo.exit_transactions()[0]) == child
    assert world.chain.calls.count("broadcast_package") == 1


async def test_a_rate_that_the_user_gives_is_followed_at_once(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    await exit_of(world, vtxo)
    fees = []
    for rate in (1_000, 2_000, 3_000):
        await world.exits.progress(FeeRate(rate))
        fees.append(world.fee_sat(world.child_of(vtxo.exit_transactions()[0])))
    assert fees == [package_fee_sat(FeeRate(rate), 496, 609) for rate in (1_000, 2_000, 3_000)]


async def test_no_estimate_makes_us_pay_more_than_the_cap(world: World) -> None:
    await world.fund(50_000_000)
    vtxo = await world.mint.board(100_000)
    await exit_of(world, vtxo)
    await world.set_rates(FeeRate(10_000_000))
    await world.exits.tick()
    child = world.child_of(vtxo.exit_transactions()[0])
    assert world.fee_sat(child) == package_fee_sat(MAX_AUTOMATIC_FEE_RATE, 496, 609)


@pytest.mark.parametrize("rate", [FeeRate(1_000), MAX_AUTOMATIC_FEE_RATE])
async def test_the_child_that_is_broadcast_is_the_one_that_was_planned(world: World, rate: FeeRate) -> None:
    """Of the anchor and our coins it makes one output, which is ours, and pays what the rate asks for."""
    await world.fund(*[150_000] * 4)
    before_sat = await world.onchain_sat()
    coins = await world.onchain.utxos()
    vtxo = await world.mint.board(100_000)
    await exit_of(world, vtxo)
    await world.set_rates(rate)
    await world.exits.tick()
    (parent,) = vtxo.exit_transactions()
    child = world.child_of(parent)
    spent = {tx_in.prevout for tx_in in child.inputs} - {parent.outpoint(len(parent.outputs) - 1)}
    plan = plan_child(coins, parent_weight_wu=parent.weight_wu, anchor_value_sat=0, fee_rate=rate)
    assert len(spent) == len(child.inputs) - 1 > 0
    assert spent == {coin.outpoint for coin in plan.coins}
    (output,) = child.outputs
    assert output.value_sat == plan.output_sat
    assert world.fee_sat(child) == plan.fee_sat == package_fee_sat(rate, parent.weight_wu, child.weight_wu)
    assert child.version == 3
    await world.mine()
    assert await world.onchain_sat() == before_sat - plan.fee_sat  # so the output is ours


async def test_nothing_pays_for_a_transaction_that_is_in_no_exit_of_ours(either_world: World) -> None:
    """Neither of a VTXO that does not exit, nor of one whose exit was called off, nor of a stranger's."""
    world = either_world
    await world.fund(*[50_000] * 4)
    exiting, resting, called_off, foreign = [await world.mint.board(100_000) for _ in range(4)]
    await exit_of(world, exiting)
    await world.hold(resting)
    await world.exits.cancel(await exit_of(world, called_off))
    stranger = Stranger()
    ours = exiting.exit_transactions()[0]
    coins = [await stranger.fund(world.node, 20_000) for _ in range(2)]
    for vtxo, coin in zip((called_off, foreign), coins, strict=True):  # a better child would be welcome
        await broadcast_with_foreign_child(world, stranger, coin, vtxo.exit_transactions()[0], 200)
    before = set(world.mempool)
    for rate in (None, FeeRate(1_000), FeeRate(2_000)):
        await world.exits.tick()
        await world.exits.progress(rate)
    child = world.child_of(ours)
    assert set(world.mempool) - before == {ours.txid, child.txid}
    for vtxo in (resting, called_off, foreign):
        (untracked,) = vtxo.exit_transactions()
        anchor = untracked.outpoint(len(untracked.outputs) - 1)
        assert not world.onchain.unconfirmed_spenders(anchor)
        async with world.store.read() as tx:
            assert await tx.exits.find_children([untracked.txid]) == ()
    assert world.onchain.unconfirmed_spenders(ours.outpoint(len(ours.outputs) - 1)) == (child,)


async def test_too_little_for_a_replacement_keeps_the_child(world: World) -> None:
    await world.fund(2_000)
    vtxo = await world.mint.board(100_000)
    await exit_of(world, vtxo)
    await world.exits.progress(FeeRate(1_000))
    child = world.child_of(vtxo.exit_transactions()[0])
    (entry,) = (await world.exits.progress(FeeRate(5_000))).exits
    assert entry.error is None  # it waits for a block like any other
    assert world.child_of(vtxo.exit_transactions()[0]) == child
    assert (await world.onchain.balance()).total_sat == 2_000 - world.fee_sat(child)


async def test_a_refused_replacement_leaves_the_first_child_in_place(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.progress(FeeRate(1_000))
    child = world.child_of(vtxo.exit_transactions()[0])
    balance_sat = (await world.onchain.balance()).total_sat

    def refuse(name: str, when: When) -> None:
        if name == "broadcast_package" and when == "before":
            raise BroadcastError(BroadcastErrorKind.LOW_FEE, "insufficient fee, rejecting replacement")

    world.chain.gate = refuse
    (entry,) = (await world.exits.progress(FeeRate(2_000))).exits
    assert entry.error is None
    status = await world.status(vtxo_id)
    assert status.packages[0].child is not None
    assert status.packages[0].child.tx == child
    assert (await world.onchain.balance()).total_sat == balance_sat


# --- strangers


async def broadcast_with_foreign_child(
    world: World, stranger: Stranger, coin: tuple[OutPoint, TxOut], parent: Tx, fee_sat: int
) -> Tx:
    vout = len(parent.outputs) - 1
    child = stranger.spend(
        [coin],
        [TxOut(coin[1].value_sat - fee_sat, stranger.script)],
        version=3,
        anchors=[(parent.outpoint(vout), parent.outputs[vout])],
    )
    answer = await world.node.submit_package([parent.serialize().hex(), child.serialize().hex()])
    assert answer["package_msg"] == "success", answer
    return child


async def test_a_foreign_child_that_pays_enough_is_accepted(either_world: World) -> None:
    world = either_world
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    (exit_tx,) = vtxo.exit_transactions()
    stranger = Stranger()
    coin = await stranger.fund(world.node, 20_000)
    child = await broadcast_with_foreign_child(world, stranger, coin, exit_tx, 9_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.tick()
    state = await world.state(vtxo_id)
    assert isinstance(state, Processing)
    status = state.transactions[0].status
    assert isinstance(status, AwaitingConfirmation)
    assert (status.child_txid, status.origin) == (child.txid, MempoolOrigin())
    assert status.fee is not None
    assert (status.fee.fee_sat, status.fee.weight_wu) == (9_000, exit_tx.weight_wu + child.weight_wu)

    await world.mine()
    await world.exits.tick()
    package = (await world.status(vtxo_id)).packages[0]
    assert package.child is not None
    assert package.child.tx == child
    assert isinstance(package.child.origin, BlockOrigin)
    assert await world.onchain_sat() == 50_000
    assert "broadcast_package" not in world.chain.calls


async def test_a_foreign_child_is_remembered_though_a_block_comes_during_the_look(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    (exit_tx,) = vtxo.exit_transactions()
    stranger = Stranger()
    coin = await stranger.fund(world.node, 20_000)
    child = await broadcast_with_foreign_child(world, stranger, coin, exit_tx, 9_000)
    await world.mine()
    vtxo_id = await exit_of(world, vtxo)

    async def mine_first(txid: Txid, ask: Ask) -> TxStatus:
        world.chain.answer_status = None
        await world.mine()
        return await ask()

    world.chain.answer_status = mine_first
    await world.exits.tick()
    package = (await world.status(vtxo_id)).packages[0]
    assert package.child is not None
    assert package.child.tx == child


async def test_a_foreign_child_that_pays_too_little_is_replaced(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    (exit_tx,) = vtxo.exit_transactions()
    stranger = Stranger()
    coin = await stranger.fund(world.node, 20_000)
    await broadcast_with_foreign_child(world, stranger, coin, exit_tx, 300)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.progress(FeeRate(1_000))
    ours = world.child_of(exit_tx)
    assert world.fee_sat(ours) == package_fee_sat(FeeRate(1_000), 496, 609, replaces_fee_sat=300)
    status = await world.status(vtxo_id)
    assert status.packages[0].child is not None
    assert (status.packages[0].child.tx, status.packages[0].child.origin) == (ours, WalletOrigin())


async def test_our_child_counts_no_more_once_a_stranger_has_replaced_it(either_world: World) -> None:
    world = either_world
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    (exit_tx,) = vtxo.exit_transactions()
    stranger = Stranger()
    coin = await stranger.fund(world.node, 20_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.tick()
    ours = world.child_of(exit_tx)
    assert (await world.onchain.balance()).total_sat == 50_000 - world.fee_sat(ours)

    theirs = await broadcast_with_foreign_child(world, stranger, coin, exit_tx, 9_000)
    await world.exits.tick()
    state = await world.state(vtxo_id)
    assert isinstance(state, Processing)
    assert isinstance(state.transactions[0].status, AwaitingConfirmation)
    assert state.transactions[0].status.child_txid == theirs.txid
    assert (await world.onchain.balance()).total_sat == 50_000
    assert all(entry.tx != ours for entry in await world.onchain.transactions())
    await world.mine()
    await world.exits.tick()
    assert await world.onchain_sat() == 50_000


async def test_a_transaction_that_is_mined_without_a_child_is_confirmed_all_the_same(world: World) -> None:
    """Upstream pays for a child then."""
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.node.mine_exactly(vtxo.exit_transactions())
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), AwaitingDelta)
    assert "broadcast_package" not in world.chain.calls


async def test_a_vtxo_that_others_put_on_the_chain_is_noticed(either_world: World) -> None:
    world = either_world
    board = await world.mint.board(100_000)
    ours, sibling = await world.mint.pay(board, [60_000, 40_000])
    untouched = await world.mint.board(50_000)
    await world.hold(ours, untouched)
    await world.exits.tick()
    assert await world.exits.statuses(ALL) == []

    txs = sibling.exit_transactions()
    for exit_tx in txs[:-1]:
        await world.node.mine_exactly([exit_tx])
        await world.exits.tick()
    assert await world.exits.statuses(ALL) == []  # only what is above it
    await world.node.mine_exactly([ours.exit_transactions()[-1]])
    await world.exits.tick()
    (status,) = await world.exits.statuses(ALL)
    assert status.vtxo_id == ours.id
    assert isinstance(status.state, AwaitingDelta)
    async with world.store.read() as tx:
        assert (await tx.vtxos.get(ours.id)).state.kind is StateKind.EXITED
        assert (await tx.vtxos.get(untouched.id)).state.kind is StateKind.SPENDABLE


# --- what a look costs


async def test_between_blocks_each_exit_costs_one_call(either_world: World) -> None:
    """What is in the mempool with its child can only be replaced or evicted; and no coin is confirmed."""
    world = either_world
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.progress()
    await world.exits.progress()
    world.chain.calls.clear()
    await world.exits.progress()
    assert set(world.chain.calls) == {"tip", "spender"}
    assert world.chain.calls.count("spender") == 1
    await world.mine()
    await world.exits.progress()
    assert isinstance(await world.state(vtxo_id), AwaitingDelta)
    world.chain.calls.clear()
    await world.exits.progress()
    assert set(world.chain.calls) == {"tip"}


async def test_who_waits_for_funds_has_them_looked_for(world: World) -> None:
    """Also between blocks: the index of a source may be behind its tip."""
    vtxo_id = await exit_of(world, await world.mint.board(100_000))
    await world.exits.progress()
    assert isinstance((await world.status(vtxo_id)).error, InsufficientConfirmedFundsForExit)
    world.chain.calls.clear()
    await world.exits.progress()
    assert "find_wallet_transactions" in world.chain.calls


# --- evictions


async def test_an_evicted_package_is_broadcast_again_with_the_same_child(either_world: World) -> None:
    world = either_world
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.tick()
    (exit_tx,) = vtxo.exit_transactions()
    child = world.child_of(exit_tx)
    for _ in range(3):
        world.evict(child.txid, exit_tx.txid)
        await world.exits.tick()
        assert world.child_of(exit_tx) == child
        assert await world.tx_statuses(vtxo_id) == ["awaiting-confirmation"]
    await world.mine()
    assert await world.onchain_sat() == 50_000 - spend_fee_sat(world, child.txid)


async def test_a_child_whose_coin_is_gone_is_replaced_by_another(world: World) -> None:
    await world.fund(50_000, 30_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.tick()
    (exit_tx,) = vtxo.exit_transactions()
    child = world.child_of(exit_tx)
    world.evict(child.txid, exit_tx.txid)
    # the same coins, spent while the on-chain wallet thought they were free
    await world.onchain.evict(child.txid)
    payment = await world.onchain.build_drain(PAYEE, FeeRate(1_000))
    await world.node.mine_exactly([payment.tx])
    await world.fund(40_000)
    await world.exits.tick()
    other = world.child_of(exit_tx)
    assert other != child
    assert await world.tx_statuses(vtxo_id) == ["awaiting-confirmation"]
    assert (await world.onchain.balance()).total_sat == 40_000 - world.fee_sat(other)


async def test_a_refused_package_is_an_error_and_frees_its_coins(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)

    def refuse(name: str, when: When) -> None:
        if name == "broadcast_package" and when == "before":
            raise BroadcastError(BroadcastErrorKind.OTHER, "msg: 'transaction failed', errors: []")

    world.chain.gate = refuse
    (entry,) = (await world.exits.progress()).exits
    assert isinstance(entry.error, ExitPackageBroadcastFailure)
    assert entry.error.txid == vtxo.exit_transactions()[0].txid
    assert await world.tx_statuses(vtxo_id) == ["awaiting-cpfp-broadcast"]
    assert (await world.onchain.balance()).total_sat == 50_000
    world.chain.gate = None
    (entry,) = (await world.exits.progress()).exits
    assert entry.error is None
    assert await world.tx_statuses(vtxo_id) == ["awaiting-confirmation"]


# --- outages


async def test_an_unanswered_broadcast_is_repeated_with_the_same_child(world: World) -> None:
    await world.fund(50_000, 50_000)
    vtxo = await world.mint.board(100_000)
    await exit_of(world, vtxo)

    def lose(name: str, when: When) -> None:
        if name == "broadcast_package" and when == "before":
            raise ChainUnavailable("the line is dead")

    world.chain.gate = lose
    for _ in range(3):
        (entry,) = (await world.exits.progress()).exits
        assert isinstance(entry.error, ExitPackageBroadcastFailure)
    world.chain.gate = None
    await world.exits.tick()
    child = world.child_of(vtxo.exit_transactions()[0])
    assert (await world.onchain.balance()).total_sat == 100_000 - world.fee_sat(child)


@pytest.mark.parametrize("method", ["tx_status", "spender", "is_spent_confirmed", "get_tx", "block_hash"])
async def test_an_outage_changes_nothing(world: World, method: str) -> None:
    """At whichever call and in whichever state: the exit stays what it is, and later goes on."""
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)

    def fail(name: str, when: When) -> None:
        if name == method and when == "before":
            raise ChainUnavailable("the line is dead")

    async def disturbed_tick() -> None:
        before = await world.status(vtxo_id)
        world.chain.gate = fail
        with suppress(TipRetrievalFailure, TransactionRetrievalFailure, ChainUnavailable):
            await world.exits.tick()
        after = await world.status(vtxo_id)
        # what it got to know is true; nothing goes backwards, and nothing is concluded from silence
        assert after.history[: len(before.history)] == before.history
        assert after.state.type in ("start", "processing", "awaiting-delta", "claimable")
        world.chain.gate = None
        await world.exits.tick()

    async def done() -> bool:
        return (await world.state(vtxo_id)).type == "claimable"

    await world.until(done, step=disturbed_tick)
    assert await world.onchain_sat() == 50_000 - fee_paid_sat(world, (vtxo,))


async def test_without_a_tip_nothing_is_known(world: World) -> None:
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)

    def fail(name: str, when: When) -> None:
        if name == "tip":
            raise ChainUnavailable("the line is dead")

    world.chain.gate = fail
    with pytest.raises(TipRetrievalFailure):
        await world.exits.tick()
    assert await world.history(vtxo_id) == ["start"]


async def test_a_chain_source_that_never_answers_holds_up_no_stop(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    asked = asyncio.Event()

    async def never(txid: Txid, ask: Ask) -> TxStatus:
        asked.set()
        return await asyncio.Future()

    world.chain.answer_status = never
    tick = asyncio.create_task(world.exits.tick())
    await asyncio.wait_for(asked.wait(), 60)
    tick.cancel()
    done, _ = await asyncio.wait({tick}, timeout=60)
    assert done
    assert tick.cancelled()
    assert await world.history(vtxo_id) == ["start"]


# --- spent off-chain


async def test_a_vtxo_that_is_spent_meanwhile_ends_its_exit(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exit_of(world, vtxo)
    await world.exits.tick()
    async with world.store.transaction() as tx:
        await tx.vtxos.mark_spent([vtxo_id])
    await world.mine()
    for _ in range(2):
        await world.exits.tick()
        assert isinstance(await world.state(vtxo_id), VtxoAlreadySpent)
    (movement,) = await world.movements()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.CANCELED, 0)
    assert (await world.history(vtxo_id)).count("vtxo-already-spent") == 1


# --- one that ends while another goes on


async def claimed_unseen(world: World) -> tuple[VtxoId, VtxoId, Txid]:
    """Two exits that nobody asked for: the claim of the first is in a block, the second is to be paid for."""
    await world.fund(50_000, 50_000, 50_000)
    first, second = await world.hold(await world.mint.board(100_000), await world.mint.board(100_000))
    await world.exits.start_held(first)
    await world.until_claimable(first)
    claim = await world.exits.claim(None, PAYEE)
    await world.mine()
    await world.exits.start_held(second)
    return first, second, claim


async def test_an_exit_that_ends_does_not_keep_another_from_being_paid_for(either_world: World) -> None:
    world = either_world
    first, second, _ = await claimed_unseen(world)
    await world.exits.tick()
    assert isinstance(await world.state(first), Claimed)
    assert await world.tx_statuses(second) == ["awaiting-confirmation"]


async def test_a_claim_is_watched_whatever_happens_to_what_is_paid_for_next(world: World) -> None:
    first, _, claim = await claimed_unseen(world)

    def breaks(name: str, when: When) -> None:
        if name == "broadcast_package":
            raise RuntimeError("a bug")

    world.chain.gate = breaks
    with pytest.raises(RuntimeError):
        await world.exits.tick()
    assert isinstance(await world.state(first), Claimed)
    world.chain.gate = None
    await world.node.reorg(1)
    world.evict(claim)
    await world.exits.tick()
    assert claim in world.mempool
