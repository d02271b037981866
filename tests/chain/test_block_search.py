"""Reading blocks from a node: in pieces, and while the chain changes."""

import pytest

from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.bitcoind import BitcoindSource
from barkd_py.chain.source import ChainMoved, WalletQuery
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node
from tests.chain.test_matching import Window, script
from tests.fakes.chains import FALLBACK, Clock, bitcoind_source, rpc_client
from tests.fakes.node_rpc import NodeRpc


def query(node: Node, after_height: int, window: Window | None = None) -> WalletQuery:
    after = node.index.block_at(after_height)
    assert after is not None
    return WalletQuery(window or Window(), frozenset(), after.ref, node.index.tip.ref)


async def test_long_search_is_answered_in_pieces(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    tx = await faucet.pay(node, [TxOut(5_000, script(1))])
    await node.mine(12)
    source = BitcoindSource(rpc_client(rpc, clock), fallback_fee_rate=FALLBACK, clock=clock, search_blocks=10)
    pending = await faucet.pay(node, [TxOut(6_000, script(2))])
    start = node.index.tip_height - 15

    first = await source.find_wallet_transactions(query(node, start))
    assert first.until.height == start + 10
    assert [found.tx for found in first.confirmed] == [tx]
    assert first.mempool == ()

    rest = await source.find_wallet_transactions(query(node, first.until.height))
    assert rest.until == node.index.tip.ref
    assert rest.mempool == (pending,)


async def test_reorg_during_the_search_is_noticed(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    source = bitcoind_source(rpc, clock)
    stale = query(node, node.index.tip_height - 1)
    await node.reorg(2)
    with pytest.raises(ChainMoved):
        await source.find_wallet_transactions(stale)


async def test_tip_that_is_not_reached_is_noticed(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    source = bitcoind_source(rpc, clock)
    asked = query(node, node.index.tip_height - 3)
    above = BlockRef(asked.tip.height + 1, asked.tip.hash)
    with pytest.raises(ChainMoved):
        await source.find_wallet_transactions(WalletQuery(Window(), frozenset(), asked.after, above))


async def test_mempool_transactions_are_fetched_once(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    source = bitcoind_source(rpc, clock)
    ours = await faucet.pay(node, [TxOut(5_000, script(1))])
    await faucet.pay(node, [TxOut(6_000, faucet.FAUCET_SCRIPT)])
    window = Window()
    asked = query(node, node.index.tip_height, window)
    assert (await source.find_wallet_transactions(asked)).mempool == (ours,)
    assert rpc.calls.count("getrawtransaction") == 2
    assert (await source.find_wallet_transactions(asked)).mempool == (ours,)
    assert rpc.calls.count("getrawtransaction") == 2


async def test_two_wallets_on_one_source_do_not_hide_each_other(
    node: Node, rpc: NodeRpc, clock: Clock
) -> None:
    class Other(Window):
        def index_of(self, script_pubkey: bytes) -> int | None:
            return None

    source = bitcoind_source(rpc, clock)
    ours = await faucet.pay(node, [TxOut(5_000, script(1))])
    assert (await source.find_wallet_transactions(query(node, 100, Other()))).mempool == ()
    assert (await source.find_wallet_transactions(query(node, 100))).mempool == (ours,)


async def test_transaction_that_leaves_the_mempool_meanwhile_is_passed_over(
    node: Node, rpc: NodeRpc, clock: Clock
) -> None:
    source = bitcoind_source(rpc, clock)
    gone = await faucet.pay(node, [TxOut(5_000, script(1))])

    def drop(method: str) -> None:
        if method == "getrawtransaction" and gone.txid in node.pool:
            node.pool.remove(gone.txid)

    rpc.before = drop
    assert (await source.find_wallet_transactions(query(node, 100))).mempool == ()


async def test_spend_of_a_watched_output_is_found_in_blocks(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    tx = await faucet.pay(node, [TxOut(5_000, faucet.FAUCET_SCRIPT)])
    await node.mine()
    source = bitcoind_source(rpc, clock)
    asked = query(node, node.index.tip_height - 1)
    watched = WalletQuery(Window(), frozenset({tx.inputs[0].prevout}), asked.after, asked.tip)
    (found,) = (await source.find_wallet_transactions(watched)).confirmed
    assert (found.tx, found.block) == (tx, node.index.tip.ref)
    assert found.block_time == node.index.tip.header.time
