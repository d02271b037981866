"""What every chain source must do, on any node: the tests get `source` and `node` from who imports them."""

import pytest

from barkd_py.bitcoin.tx import BlockHash, Tx, Txid, TxOut, fee_anchor
from barkd_py.bitcoin.units import BlockRef, Network
from barkd_py.chain.source import (
    BroadcastError,
    BroadcastErrorKind,
    ChainSource,
    Confirmed,
    Mempool,
    NetworkMismatch,
    NotFound,
    Spend,
)
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node
from tests.fakes.coins import Stranger

UNKNOWN = Txid(bytes(31) + b"\x07")


def hash_at(node: Node, height: int) -> BlockHash:
    block = node.index.block_at(height)
    assert block is not None
    return block.hash


async def test_the_right_network_is_accepted(source: ChainSource, node: Node) -> None:
    await source.check_startup(Network.REGTEST)


async def test_another_network_is_refused(source: ChainSource, node: Node) -> None:
    with pytest.raises(NetworkMismatch) as refusal:
        await source.check_startup(Network.SIGNET)
    assert str(refusal.value) == "Network mismatch: expected Signet, got Regtest"


async def test_fetched_tip_is_the_tip_of_the_node(source: ChainSource, node: Node) -> None:
    await source.tip()
    (block,) = await node.mine()
    assert await source.fetch_tip() == block
    assert await source.tip() == block


async def test_block_hash_is_known_up_to_the_tip(source: ChainSource, node: Node) -> None:
    height = node.index.tip_height
    assert await source.block_hash(height) == node.index.tip.hash
    assert await source.block_hash(0) == hash_at(node, 0)
    assert await source.block_hash(height + 1) is None


async def test_a_block_names_its_transactions(source: ChainSource, node: Node) -> None:
    coin = await Stranger().fund(node, 50_000)
    tx = Stranger().spend([coin], [TxOut(49_000, Stranger().script)])
    await source.broadcast(tx)
    (block,) = await node.mine()
    txids = await source.block_txids(block.hash)
    assert txids == frozenset(node.index.tip.txids)
    assert tx.txid in txids
    assert await source.block_txids(BlockHash(bytes(32))) is None


async def test_transaction_goes_from_unknown_over_mempool_to_block(source: ChainSource, node: Node) -> None:
    coin = await Stranger().fund(node, 50_000)
    tx = Stranger().spend([coin], [TxOut(49_000, Stranger().script)])
    assert await source.tx_status(tx.txid) == NotFound()
    assert await source.get_tx(tx.txid) is None
    await source.broadcast(tx)
    assert await source.tx_status(tx.txid) == Mempool()
    assert await source.get_tx(tx.txid) == tx
    (block,) = await node.mine()
    assert await source.tx_status(tx.txid) == Confirmed(block)
    assert await source.get_tx(tx.txid) == tx


async def test_spender_is_found_in_mempool_and_in_blocks(source: ChainSource, node: Node) -> None:
    coin = await Stranger().fund(node, 50_000)
    height = node.index.tip_height
    outpoint, _ = coin
    tx = Stranger().spend([coin], [TxOut(49_000, Stranger().script)])
    assert await source.spender(outpoint, since_height=height) is None
    assert not await source.is_spent_confirmed(outpoint)

    await source.broadcast(tx)
    assert await source.spender(outpoint, since_height=height) == Spend(tx.txid, Mempool())
    assert not await source.is_spent_confirmed(outpoint)

    (block,) = await node.mine()
    await node.mine(2)
    assert await source.spender(outpoint, since_height=height) == Spend(tx.txid, Confirmed(block))
    assert await source.is_spent_confirmed(outpoint)


async def test_output_of_an_unconfirmed_transaction_has_an_unconfirmed_spender(
    source: ChainSource, node: Node
) -> None:
    coin = await Stranger().fund(node, 50_000)
    parent = Stranger().spend([coin], [TxOut(49_000, Stranger().script)])
    child = Stranger().spend([(parent.outpoint(0), parent.outputs[0])], [TxOut(48_000, Stranger().script)])
    await source.broadcast(parent)
    tip_height = node.index.tip_height
    assert await source.spender(parent.outpoint(0), since_height=tip_height) is None
    await source.broadcast(child)
    assert await source.spender(parent.outpoint(0), since_height=tip_height) == Spend(child.txid, Mempool())


async def test_broadcasting_again_is_a_success(source: ChainSource, node: Node) -> None:
    coin = await Stranger().fund(node, 50_000)
    tx = Stranger().spend([coin], [TxOut(49_000, Stranger().script)])
    await source.broadcast(tx)
    await source.broadcast(tx)
    await node.mine()
    await source.broadcast(tx)
    assert isinstance(await source.tx_status(tx.txid), Confirmed)


@pytest.fixture
async def coin_and_spend(node: Node) -> tuple[Tx, Tx, Tx]:
    """Three conflicting transactions: the second pays hardly more than the first, the third far more."""
    coin = await Stranger().fund(node, 50_000)

    def paying(fee_sat: int) -> Tx:
        return Stranger().spend([coin], [TxOut(50_000 - fee_sat, Stranger().script)])

    return paying(1_000), paying(1_001), paying(5_000)


async def test_refused_broadcasts_are_classified(
    source: ChainSource, node: Node, coin_and_spend: tuple[Tx, Tx, Tx]
) -> None:
    first, hardly_more, much_more = coin_and_spend
    await source.broadcast(first)
    with pytest.raises(BroadcastError) as refusal:
        await source.broadcast(hardly_more)
    assert refusal.value.kind is BroadcastErrorKind.LOW_FEE
    assert "insufficient fee, rejecting replacement" in str(refusal.value)

    await node.mine()
    with pytest.raises(BroadcastError) as refusal:
        await source.broadcast(much_more)
    assert refusal.value.kind is BroadcastErrorKind.MISSING_OR_SPENT

    unsigned = Tx(2, first.inputs, (TxOut(1, b"\x6a"),))
    with pytest.raises(BroadcastError):
        await source.broadcast(unsigned)


async def exit_package(node: Node, fee_sat: int, *, parent_coin_sat: int = 20_000) -> tuple[Tx, Tx]:
    """A zero-fee version 3 parent with an anchor, and its child."""
    parent_coin = await Stranger("server").fund(node, parent_coin_sat)
    fee_coin = await Stranger().fund(node, 30_000)
    parent = Stranger("server").spend(
        [parent_coin], [TxOut(parent_coin_sat, Stranger().script), fee_anchor()], version=3
    )
    child = Stranger().spend(
        [fee_coin],
        [TxOut(30_000 - fee_sat, Stranger().script)],
        version=3,
        anchors=[(parent.outpoint(1), parent.outputs[1])],
    )
    return parent, child


async def test_package_with_zero_fee_parent_is_accepted_and_again(source: ChainSource, node: Node) -> None:
    parent, child = await exit_package(node, 1_000)
    await source.broadcast_package([parent, child])
    assert await source.tx_status(child.txid) == Mempool()
    await source.broadcast_package([parent, child])
    await node.mine()
    assert isinstance(await source.tx_status(parent.txid), Confirmed)


async def test_package_of_one_is_accepted(source: ChainSource, node: Node) -> None:
    coin = await Stranger().fund(node, 50_000)
    tx = Stranger().spend([coin], [TxOut(49_000, Stranger().script)])
    await source.broadcast_package([tx])
    assert await source.tx_status(tx.txid) == Mempool()


async def test_package_fee_counts_each_transaction_once(source: ChainSource, node: Node) -> None:
    parent, child = await exit_package(node, 1_000)
    assert await source.package_fee(child.txid) is None
    await source.broadcast_package([parent, child])
    fee = await source.package_fee(child.txid)
    assert fee is not None
    assert fee.fee_sat == 1_000
    # a node knows the sum of virtual sizes only
    exact = parent.weight_wu + child.weight_wu
    assert exact <= fee.weight_wu < exact + 2 * 4
    assert 1_000_000 / (exact + 8) <= fee.fee_rate.sat_per_kwu < 1_000_000 / exact + 1
    await node.mine()
    assert await source.package_fee(child.txid) is None
    assert await source.package_fee(UNKNOWN) is None


async def test_cheaper_child_is_low_fee(source: ChainSource, node: Node) -> None:
    parent, child = await exit_package(node, 1_000)
    await source.broadcast_package([parent, child])
    outputs = (TxOut(child.outputs[0].value_sat + 1, Stranger().script),)
    cheaper = Stranger().spend(
        [(child.inputs[0].prevout, TxOut(30_000, Stranger().script))],
        outputs,
        version=3,
        anchors=[(parent.outpoint(1), parent.outputs[1])],
    )
    with pytest.raises(BroadcastError) as refusal:
        await source.broadcast_package([parent, cheaper])
    assert refusal.value.kind is BroadcastErrorKind.LOW_FEE
    assert str(refusal.value) == "insufficient fee, rejecting replacement"


async def test_child_that_comes_too_late_is_missing_or_spent(source: ChainSource, node: Node) -> None:
    parent, child = await exit_package(node, 1_000)
    coin = await Stranger().fund(node, 30_000)
    late = Stranger().spend(
        [coin],
        [TxOut(20_000, Stranger().script)],
        version=3,
        anchors=[(parent.outpoint(1), parent.outputs[1])],
    )
    await source.broadcast_package([parent, child])
    await node.mine()
    with pytest.raises(BroadcastError) as refusal:
        await source.broadcast_package([parent, late])
    assert refusal.value.kind is BroadcastErrorKind.MISSING_OR_SPENT
    assert str(refusal.value) == "transaction inputs are missing or already spent"


async def test_mined_package_is_refused_without_reasons(source: ChainSource, node: Node) -> None:
    parent, child = await exit_package(node, 1_000)
    await source.broadcast_package([parent, child])
    await node.mine()
    with pytest.raises(BroadcastError) as refusal:
        await source.broadcast_package([parent, child])
    assert refusal.value.kind is BroadcastErrorKind.OTHER
    assert str(refusal.value) == "msg: 'package-not-child-with-unconfirmed-parents', no tx errors"


async def test_package_that_leaves_the_anchor_is_other_with_all_reasons(
    source: ChainSource, node: Node
) -> None:
    parent, _ = await exit_package(node, 1_000)
    child = Stranger().spend(
        [(parent.outpoint(0), parent.outputs[0])], [TxOut(19_000, Stranger().script)], version=3
    )
    with pytest.raises(BroadcastError) as refusal:
        await source.broadcast_package([parent, child])
    assert refusal.value.kind is BroadcastErrorKind.OTHER
    text = str(refusal.value)
    assert text.startswith(f"msg: 'unspent-dust', errors: [tx {parent.txid}: min relay fee not met")
    assert f"tx {child.txid}: missing-ephemeral-spends" in text


async def test_wrong_package_order_is_refused(source: ChainSource, node: Node) -> None:
    parent, child = await exit_package(node, 1_000)
    with pytest.raises(BroadcastError) as refusal:
        await source.broadcast_package([child, parent])
    assert refusal.value.kind is BroadcastErrorKind.OTHER
    assert "package topology disallowed" in str(refusal.value)


async def test_reorg_shows_in_every_answer(source: ChainSource, node: Node) -> None:
    tx = await faucet.pay(node, [TxOut(10_000, Stranger().script)])
    (block,) = await node.mine()
    assert await source.tx_status(tx.txid) == Confirmed(block)
    tip = await node.reorg(1)
    assert await source.block_hash(block.height) != block.hash
    assert await source.tx_status(tx.txid) == Mempool()
    assert await source.fetch_tip() == BlockRef(tip.height, tip.hash)
