"""Reorganisations at every state, and sweeps by the server."""

import pytest

from barkd_py.ark.board import board_funding_taproot
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.sighash import taproot_script_spend_sighash
from barkd_py.bitcoin.taproot import leaf_hash
from barkd_py.bitcoin.tx import Tx, Txid, TxIn, TxOut
from barkd_py.chain.source import Mempool, NotFound, TxStatus
from barkd_py.wallet.exits.errors import TransactionRetrievalFailure
from barkd_py.wallet.exits.machine import SPEND_CONFIRMATIONS
from barkd_py.wallet.exits.states import (
    AwaitingDelta,
    AwaitingInputConfirmation,
    Claimable,
    Claimed,
    ClaimInProgress,
    Processing,
    VtxoSwept,
)
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.vtxo_states import StateKind
from tests.wallet.exits.coins import EXIT_DELTA, SERVER
from tests.wallet.exits.conftest import World
from tests.wallet.exits.gates import Ask

PAYEE = p2tr_script(bytes(31) + b"\x01")
SWEEPER = p2tr_script(bytes(31) + b"\x02")


async def exiting(world: World, vtxo: Vtxo) -> VtxoId:
    await world.fund(50_000, 50_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    await world.exits.tick()
    return vtxo_id


async def tick_after_blocks(world: World, count: int = 1) -> None:
    for _ in range(count):
        await world.mine()
        await world.exits.tick()


# --- reorgs


async def test_a_confirmed_level_is_undone_and_done_again(either_world: World) -> None:
    world = either_world
    vtxo = await world.mint.deep(100_000, payments=1)
    vtxo_id = await exiting(world, vtxo)
    await tick_after_blocks(world, 2)
    assert await world.tx_statuses(vtxo_id) == ["confirmed", "confirmed", "awaiting-confirmation"]
    await world.node.reorg(2)
    await world.exits.tick()
    assert await world.tx_statuses(vtxo_id) == [
        "awaiting-confirmation",
        *["awaiting-input-confirmation"] * 2,
    ]
    await world.until_claimable(vtxo_id)
    # every transaction had one child all along
    assert len([entry for entry in await world.onchain.transactions() if entry.is_cpfp]) == 3


@pytest.mark.parametrize("was", [AwaitingDelta, Claimable, ClaimInProgress])
async def test_a_reorg_takes_the_exit_back(either_world: World, was: type) -> None:
    world = either_world
    vtxo_id = await exiting(world, await world.mint.board(100_000))
    await tick_after_blocks(world)
    if was is not AwaitingDelta:
        await tick_after_blocks(world, EXIT_DELTA)
    if was is ClaimInProgress:
        await world.exits.claim(None, PAYEE)
    assert isinstance(await world.state(vtxo_id), was)
    depth = 1 if was is AwaitingDelta else 1 + EXIT_DELTA
    await world.node.reorg(depth)
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), Processing)
    assert await world.tx_statuses(vtxo_id) == ["awaiting-confirmation"]
    async with world.store.read() as tx:
        assert (await tx.vtxos.get(vtxo_id)).state.kind is StateKind.EXITED  # never undone

    await world.until_claimable(vtxo_id)
    await world.exits.claim(None, PAYEE)
    await tick_after_blocks(world)
    assert isinstance(await world.state(vtxo_id), Claimed)


@pytest.mark.parametrize("is_claimable", [False, True])
async def test_the_delay_starts_anew_if_the_exit_is_confirmed_later(
    either_world: World, is_claimable: bool
) -> None:
    """Upstream would offer it for a claim that no node accepts yet."""
    world = either_world
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exiting(world, vtxo)
    await tick_after_blocks(world, 1 + (EXIT_DELTA if is_claimable else 3))
    before = await world.state(vtxo_id)
    assert isinstance(before, Claimable if is_claimable else AwaitingDelta)
    depth = 1 + (EXIT_DELTA if is_claimable else 3)
    await world.node.reorg(depth)
    await world.mine()
    await world.exits.tick()
    state = await world.state(vtxo_id)
    assert isinstance(state, AwaitingDelta)
    confirmed = world.node.index.tip_height
    assert (state.confirmed_block.height, state.claimable_height) == (confirmed, confirmed + EXIT_DELTA)


async def test_a_reorg_behind_the_exit_changes_the_block_it_is_claimable_since(world: World) -> None:
    vtxo_id = await exiting(world, await world.mint.board(100_000))
    await tick_after_blocks(world, 1 + EXIT_DELTA)
    before = await world.state(vtxo_id)
    assert isinstance(before, Claimable)
    await world.node.reorg(1)
    await world.exits.tick()
    after = await world.state(vtxo_id)
    assert isinstance(after, Claimable)
    assert after.claimable_since.height == before.claimable_since.height
    assert after.claimable_since.hash != before.claimable_since.hash
    assert (await world.history(vtxo_id))[-2:] == ["claimable", "claimable"]


async def test_a_shallower_chain_is_no_reason_to_fail(world: World) -> None:
    vtxo_id = await exiting(world, await world.mint.board(100_000))
    await tick_after_blocks(world, 1 + EXIT_DELTA)
    await world.node.reorg(3)  # the tip is one block higher then
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), Claimable)


async def test_finished_exits_stay_what_they_are(world: World) -> None:
    vtxo_id = await exiting(world, await world.mint.board(100_000))
    await world.until_claimable(vtxo_id)
    await world.exits.claim(None, PAYEE)
    await tick_after_blocks(world)
    claimed = await world.status(vtxo_id)
    assert isinstance(claimed.state, Claimed)
    await world.node.reorg(5)
    for _ in range(3):
        await tick_after_blocks(world)
    assert (await world.status(vtxo_id)).state == claimed.state
    # the claim itself is mined again, as the node has kept it
    assert world.node.index.tx(claimed.state.txid) is not None


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_claim_that_a_reorg_and_the_mempool_have_lost_is_sent_again(
    world: World, restarted: bool
) -> None:
    vtxo_id = await exiting(world, await world.mint.board(100_000))
    await world.until_claimable(vtxo_id)
    txid = await world.exits.claim(None, PAYEE)
    await tick_after_blocks(world)
    claimed = await world.status(vtxo_id)
    await world.node.reorg(1)
    world.evict(txid)
    if restarted:
        await world.restart()
    await world.exits.tick()
    assert list(world.mempool) == [txid]
    await tick_after_blocks(world)
    assert world.node.index.tx(txid) is not None
    assert (await world.status(vtxo_id)).state == claimed.state
    # once it is deep enough, nobody asks for it any more
    await tick_after_blocks(world, SPEND_CONFIRMATIONS)
    world.chain.calls.clear()
    await tick_after_blocks(world)
    assert "tx_status" not in world.chain.calls


async def test_the_funding_of_a_board_may_be_undone_as_well(either_world: World) -> None:
    world = either_world
    await world.fund(50_000, 50_000)
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    await world.node.reorg(1)
    await world.exits.tick()
    state = await world.state(vtxo_id)
    assert isinstance(state, Processing)
    assert state.transactions[0].status == AwaitingInputConfirmation(frozenset({vtxo.anchor_point.txid}))
    await tick_after_blocks(world)
    assert await world.tx_statuses(vtxo_id) == ["awaiting-confirmation"]
    await world.until_claimable(vtxo_id)


async def test_blocks_in_the_middle_of_a_look_do_not_confuse_it(world: World) -> None:
    """What was read before and after the block is thrown away together."""
    vtxo_id = await exiting(world, await world.mint.board(100_000))
    looks = 0

    async def mine_behind_it(txid: Txid, ask: Ask) -> TxStatus:
        nonlocal looks
        looks += 1
        answer = await ask()
        if looks == 1:
            await world.mine()
        return answer

    world.chain.answer_status = mine_behind_it
    await world.node.mine_exactly([])  # so that all is asked for again
    await world.exits.tick()
    state = await world.state(vtxo_id)
    assert isinstance(state, AwaitingDelta)
    assert state.tip_height == world.node.index.tip_height


# --- sweeps


async def sweep(world: World, vtxo: Vtxo) -> Tx:
    """The server takes the board's funding output after its expiry."""
    taproot = board_funding_taproot(vtxo.user_pubkey, vtxo.server_pubkey, vtxo.expiry_height)
    spent = vtxo.anchor_output
    unsigned = Tx(
        2,
        (TxIn(vtxo.anchor_point, sequence=0),),
        (TxOut(spent.value_sat - 1_000, SWEEPER),),
        vtxo.expiry_height,
    )
    sighash = taproot_script_spend_sighash(unsigned, 0, (spent,), leaf_hash(taproot.leaves[0]))
    witness = (SERVER.sign_schnorr(sighash), taproot.leaves[0], taproot.control_block(0))
    return Tx(2, (TxIn(vtxo.anchor_point, sequence=0, witness=witness),), unsigned.outputs, unsigned.locktime)


async def swept_board(world: World) -> tuple[Vtxo, VtxoId]:
    """An exit without funds, whose input the server has just taken."""
    world.mint.expiry_height = world.node.index.tip_height
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    await world.exits.tick()
    await world.node.mine_exactly([await sweep(world, vtxo)])
    return vtxo, vtxo_id


async def test_a_sweep_is_believed_when_it_is_seven_blocks_deep(either_world: World) -> None:
    world = either_world
    vtxo, vtxo_id = await swept_board(world)
    await world.fund(50_000)  # one block on top
    for above in range(1, 7):
        await world.exits.tick()
        assert isinstance(await world.state(vtxo_id), Processing), above
        await world.mine()
    await world.exits.tick()  # spender_height == tip - 7
    state = await world.state(vtxo_id)
    assert isinstance(state, VtxoSwept)
    assert state.spent_inputs == (vtxo.anchor_point,)
    await world.exits.start([vtxo_id])  # it may be tried again, and comes to the same end
    assert await world.history(vtxo_id) == ["start"]
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), VtxoSwept)
    assert "broadcast_package" not in world.chain.calls  # nothing was spent on a lost cause
    assert [movement.status for movement in await world.movements()] == [MovementStatus.FAILED] * 2
    async with world.store.read() as tx:
        assert (await tx.vtxos.get(vtxo_id)).state.kind is StateKind.SPENDABLE


async def test_a_sweep_that_is_reorganised_away_leaves_the_exit_alive(either_world: World) -> None:
    world = either_world
    vtxo, vtxo_id = await swept_board(world)
    await world.fund(50_000)
    await world.exits.tick()
    await world.node.reorg(2, transactions=[])
    world.evict(*[txid for txid, tx in world.mempool.items() if tx.inputs[0].prevout == vtxo.anchor_point])
    await world.mine()
    await world.onchain.sync()
    await world.exits.tick()
    assert await world.tx_statuses(vtxo_id) == ["awaiting-confirmation"]


async def test_a_sweep_that_waits_in_the_mempool_is_no_sweep(world: World) -> None:
    world.mint.expiry_height = world.node.index.tip_height
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.node.broadcast((await sweep(world, vtxo)).serialize().hex())
    await world.exits.start([vtxo_id])
    for _ in range(10):
        await world.exits.tick()
        assert isinstance(await world.state(vtxo_id), Processing)
        await world.node.mine_exactly([])


async def test_a_failed_lookup_is_no_sweep(either_world: World) -> None:
    world = either_world
    _, vtxo_id = await swept_board(world)
    await world.mine(10)

    def fail(name: str, when: str) -> None:
        if name in ("spender", "is_spent_confirmed"):
            raise TransactionRetrievalFailure(vtxo_id.outpoint.txid, "no answer")

    world.chain.gate = fail
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), Processing)
    world.chain.gate = None
    await world.exits.tick()
    await world.mine()  # it has to be seen twice
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), VtxoSwept)


async def test_a_sweep_that_is_not_seen_for_a_block_has_to_be_seen_twice_again(world: World) -> None:
    vtxo, vtxo_id = await swept_board(world)
    (exit_tx,) = vtxo.exit_transactions()
    await world.mine(10)
    await world.exits.tick()

    async def still_there(txid: Txid, ask: Ask) -> TxStatus:
        return Mempool() if txid == exit_tx.txid else await ask()

    world.chain.answer_status = still_there
    await tick_after_blocks(world)
    world.chain.answer_status = None
    await tick_after_blocks(world)
    assert isinstance(await world.state(vtxo_id), Processing)
    await tick_after_blocks(world)
    assert isinstance(await world.state(vtxo_id), VtxoSwept)


async def test_our_own_exit_transaction_is_no_sweep(either_world: World) -> None:
    """A node may have the block before its index of transactions has the transaction."""
    world = either_world
    vtxo = await world.mint.board(100_000)
    vtxo_id = await exiting(world, vtxo)
    await world.mine(3)
    (exit_tx,) = vtxo.exit_transactions()

    async def lag(txid: Txid, ask: Ask) -> TxStatus:
        return NotFound() if txid == exit_tx.txid else await ask()

    world.chain.answer_status = lag
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), AwaitingDelta)
