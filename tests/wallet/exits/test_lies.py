"""Chain sources that lie, as far as lies can be found out: nothing is concluded from them."""

import pytest

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Txid, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import Confirmed, Mempool, NotFound, Spend, TxStatus
from barkd_py.devnet.chain import faucet
from barkd_py.wallet.exits.errors import BlockRetrievalFailure, TransactionRetrievalFailure
from barkd_py.wallet.exits.states import AwaitingDelta, Claimable, Claimed, Processing, Start, WalletOrigin
from tests.fakes.coins import Stranger
from tests.wallet.exits.conftest import World
from tests.wallet.exits.gates import Ask, AskSpender

SCRIPT = p2tr_script(bytes(31) + b"\x01")


async def exiting(world: World) -> tuple[Vtxo, VtxoId]:
    await world.fund(50_000, 50_000)
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    await world.exits.tick()
    return vtxo, vtxo_id


async def a_stranger_s_payment(world: World) -> Txid:
    """A transaction in a block that has nothing to do with us."""
    tx = await faucet.pay(world.node, [TxOut(10_000, SCRIPT)])
    await world.mine()
    return tx.txid


@pytest.mark.parametrize("height", [1, 10_000], ids=["in another chain", "in the future"])
async def test_a_confirmation_in_a_block_that_is_not_there(either_world: World, height: int) -> None:
    world = either_world
    vtxo, vtxo_id = await exiting(world)
    before = await world.state(vtxo_id)
    (exit_tx,) = vtxo.exit_transactions()
    elsewhere = Confirmed(BlockRef(height, BlockHash(sha256(b"another chain"))))

    async def lie(txid: Txid, ask: Ask) -> TxStatus:
        return elsewhere if txid == exit_tx.txid else await ask()

    world.chain.answer_status = lie
    await world.node.mine_exactly([])  # else nobody asks again
    await world.exits.tick()
    status = await world.exits.status(vtxo_id)
    assert status.state == before
    assert isinstance(status.error, BlockRetrievalFailure)
    world.chain.answer_status = None
    await world.mine()
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), AwaitingDelta)


async def test_a_child_that_does_not_spend_the_anchor(either_world: World) -> None:
    world = either_world
    vtxo, vtxo_id = await exiting(world)
    (exit_tx,) = vtxo.exit_transactions()
    child, before = world.child_of(exit_tx), await world.status(vtxo_id)
    stranger = await a_stranger_s_payment(world)
    await world.node.reorg(1)

    async def lie(outpoint: OutPoint, ask: AskSpender) -> Spend | None:
        return Spend(stranger, Mempool()) if outpoint.txid == exit_tx.txid else await ask()

    world.chain.answer_spender = lie
    await world.exits.tick()
    status = await world.status(vtxo_id)
    assert isinstance(status.error, TransactionRetrievalFailure)
    assert (status.state, status.packages) == (before.state, before.packages)
    assert child.txid in {entry.txid for entry in await world.onchain.transactions()}  # it still counts


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_a_claim_that_does_not_spend_the_vtxo(either_world: World, is_confirmed: bool) -> None:
    """Believed, the exit would be over, and its coin out of sight."""
    world = either_world
    vtxo, vtxo_id = await exiting(world)
    await world.until_claimable(vtxo_id)
    stranger = await a_stranger_s_payment(world)
    spend = Spend(stranger, Confirmed(world.node.index.tip.ref) if is_confirmed else Mempool())

    async def lie(outpoint: OutPoint, ask: AskSpender) -> Spend | None:
        return spend if outpoint == vtxo.point else await ask()

    world.chain.answer_spender = lie
    await world.exits.tick()
    status = await world.exits.status(vtxo_id)
    assert isinstance(status.state, Claimable)
    assert isinstance(status.error, TransactionRetrievalFailure)
    world.chain.answer_spender = None
    await world.exits.claim(None, SCRIPT)
    await world.mine()
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), Claimed)


async def test_a_claim_in_a_block_that_is_not_there(world: World) -> None:
    vtxo, vtxo_id = await exiting(world)
    await world.until_claimable(vtxo_id)
    txid = await world.exits.claim(None, SCRIPT)
    before = await world.state(vtxo_id)
    elsewhere = Confirmed(BlockRef(world.node.index.tip_height, BlockHash(sha256(b"another chain"))))

    async def lie(outpoint: OutPoint, ask: AskSpender) -> Spend | None:
        return Spend(txid, elsewhere) if outpoint == vtxo.point else await ask()

    world.chain.answer_spender = lie
    await world.exits.tick()
    assert await world.state(vtxo_id) == before


async def test_a_sweep_that_does_not_spend_the_input(world: World) -> None:
    """Believed, the exit would be given up."""
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    stranger = await a_stranger_s_payment(world)
    block = world.node.index.tip.ref
    await world.mine(10)

    async def spent(_: OutPoint) -> bool:
        return True

    async def lie(outpoint: OutPoint, ask: AskSpender) -> Spend | None:
        return Spend(stranger, Confirmed(block)) if outpoint == vtxo.anchor_point else await ask()

    world.chain.answer_spender, world.chain.answer_spent = lie, spent
    await world.exits.tick()
    status = await world.exits.status(vtxo_id)
    assert isinstance(status.state, Start)
    assert isinstance(status.error, TransactionRetrievalFailure)
    world.chain.answer_spender = world.chain.answer_spent = None
    await world.fund(50_000)
    await world.exits.tick()
    assert await world.tx_statuses(vtxo_id) == ["awaiting-confirmation"]


async def test_one_wrong_answer_about_the_input_ends_nothing(either_world: World) -> None:
    """It names no spender: a node is not asked about old blocks."""
    world = either_world
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.mine(10)
    await world.fund(50_000)
    await world.exits.start([vtxo_id])

    async def spent(_: OutPoint) -> bool:
        return True

    world.chain.answer_spent = spent
    for _ in range(3):  # at one tip
        await world.exits.tick()
        assert isinstance(await world.state(vtxo_id), Processing)
    world.chain.answer_spent = None
    await world.node.mine_exactly([])
    await world.exits.tick()
    assert await world.tx_statuses(vtxo_id) == ["awaiting-confirmation"]


async def test_who_names_spenders_must_name_one(world: World) -> None:
    """However often it says that there is one."""
    vtxo = await world.mint.board(100_000)
    (vtxo_id,) = await world.hold(vtxo)
    await world.mine(10)
    await world.exits.start([vtxo_id])

    async def spent(_: OutPoint) -> bool:
        return True

    world.chain.answer_spent = spent
    for _ in range(3):
        await world.exits.tick()
        assert isinstance(await world.state(vtxo_id), Processing)
        await world.node.mine_exactly([])


async def test_a_stranger_s_child_that_pays_us_something_is_not_ours(world: World) -> None:
    await world.fund(50_000)
    vtxo = await world.mint.board(100_000)
    (exit_tx,) = vtxo.exit_transactions()
    (coin, *_) = await world.onchain.utxos()
    stranger = Stranger()
    money = await stranger.fund(world.node, 20_000)
    child = stranger.spend(
        [money],
        [TxOut(1_000, coin.output.script_pubkey), TxOut(10_000, stranger.script)],
        version=3,
        anchors=[(exit_tx.outpoint(1), exit_tx.outputs[1])],
    )
    answer = await world.node.submit_package([exit_tx.serialize().hex(), child.serialize().hex()])
    assert answer["package_msg"] == "success", answer
    (vtxo_id,) = await world.hold(vtxo)
    await world.exits.start([vtxo_id])
    await world.exits.tick()
    (package,) = (await world.status(vtxo_id)).packages
    assert package.child is not None
    assert package.child.tx == child
    assert not isinstance(package.child.origin, WalletOrigin)
    assert await world.onchain_sat() == 51_000


async def test_a_transaction_that_is_hidden_is_broadcast_again_and_nothing_more(world: World) -> None:
    """The exit transaction is confirmed, and the source says that it knows nothing of it."""
    vtxo, vtxo_id = await exiting(world)
    (exit_tx,) = vtxo.exit_transactions()
    await world.mine()

    async def hide_status(txid: Txid, ask: Ask) -> TxStatus:
        return NotFound() if txid == exit_tx.txid else await ask()

    async def hide_spend(_outpoint: OutPoint, _ask: AskSpender) -> Spend | None:
        return None

    async def unspent(_: OutPoint) -> bool:
        return False

    world.chain.answer_status, world.chain.answer_spender = hide_status, hide_spend
    world.chain.answer_spent = unspent
    before_sat = (await world.onchain.balance()).total_sat
    for _ in range(3):
        await world.exits.tick()
        assert isinstance(await world.state(vtxo_id), Processing)
    world.chain.answer_status = world.chain.answer_spender = world.chain.answer_spent = None
    await world.exits.tick()
    assert isinstance(await world.state(vtxo_id), AwaitingDelta)
    assert await world.onchain_sat() == before_sat
