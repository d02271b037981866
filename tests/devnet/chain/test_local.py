"""The built-in node: which blocks it accepts, reorganisations, restarts and kills."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from barkd_py.bitcoin.tx import BlockHash, Tx
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.block import Block, merkle_root, solve
from barkd_py.devnet.chain.block_log import BlockLog
from barkd_py.devnet.chain.kernel import BlockRejected
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.devnet.chain.node import NodeRefusal
from tests.devnet.purse import Purse, coin_of, exit_child, exit_parent, pay, spend


@pytest.fixture
async def purse(node: LocalNode) -> Purse:
    purse = Purse(node)
    await purse.fill(20)
    return purse


def with_coinbase(block: Block, change: Callable[[Tx], Tx]) -> Block:
    """The block with another coinbase, solved again."""
    transactions = (change(block.transactions[0]), *block.transactions[1:])
    root = merkle_root([tx.txid for tx in transactions])
    return Block(solve(replace(block.header, merkle_root=root)), transactions)


def with_time(block: Block, seconds: int) -> Block:
    return replace(block, header=solve(replace(block.header, time=seconds)))


def one_sat_more(coinbase: Tx) -> Tx:
    reward = coinbase.outputs[0]
    outputs = (replace(reward, value_sat=reward.value_sat + 1), *coinbase.outputs[1:])
    return replace(coinbase, outputs=outputs)


def wrong_height(coinbase: Tx) -> Tx:
    script = b"\x01\x05" + coinbase.inputs[0].script_sig[2:]
    return replace(coinbase, inputs=(replace(coinbase.inputs[0], script_sig=script),))


def without_commitment(coinbase: Tx) -> Tx:
    return replace(coinbase, outputs=coinbase.outputs[:1])


async def assert_refused(node: LocalNode, block: Block, reason: str) -> None:
    """The block is refused for a reason, and another one on the same tip is not."""
    tip, log_length = node.index.tip.ref, len(node.index.tip.raw)
    with pytest.raises(BlockRejected) as refusal:
        await node.submit_block(block)
    assert refusal.value.reason.startswith(reason)
    assert node.index.tip.ref == tip
    assert len(node.index.tip.raw) == log_length
    await node.mine()
    assert node.index.tip_height == tip.height + 1


# -- what consensus refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (one_sat_more, "bad-cb-amount"),
        (wrong_height, "bad-cb-height"),
        (without_commitment, "unexpected-witness"),
    ],
)
async def test_wrong_coinbase_is_refused(node: LocalNode, change: Callable[[Tx], Tx], reason: str) -> None:
    block = with_coinbase(node.build_on(node.index.tip.hash), change)
    await assert_refused(node, block, reason)


async def test_time_at_the_median_is_refused(node: LocalNode) -> None:
    median = node.index.median_time_past(node.index.tip_height)
    block = with_time(node.build_on(node.index.tip.hash), median)
    await assert_refused(node, block, "time-too-old")


async def test_time_after_the_median_is_accepted(node: LocalNode) -> None:
    median = node.index.median_time_past(node.index.tip_height)
    await node.submit_block(with_time(node.build_on(node.index.tip.hash), median + 1))
    assert node.index.tip.header.time == median + 1


async def test_time_far_ahead_is_refused(node: LocalNode) -> None:
    block = with_time(node.build_on(node.index.tip.hash), int(time.time()) + 2 * 3600 + 60)
    await assert_refused(node, block, "time-too-new")


async def test_clock_far_ahead_still_makes_valid_blocks(tmp_path: Path) -> None:
    node = LocalNode(tmp_path, clock=lambda: time.time() + 100 * 86_400)
    await node.mine(3)
    assert node.index.tip_height == 3
    assert node.index.tip.header.time > time.time() + 3600
    await node.close()


async def test_unknown_parent_is_refused(node: LocalNode) -> None:
    block = node.build_on(node.index.tip.hash)
    header = solve(replace(block.header, previous=BlockHash(b"\x05" * 32)))
    await assert_refused(node, replace(block, header=header), "prev-blk-not-found")


async def test_coinbase_is_spendable_in_the_hundredth_block_after_it(node: LocalNode) -> None:
    """Consensus, not only mempool: the miner puts it into a block by hand."""
    purse_script = pay(0).script_pubkey
    (own,) = await node.mine(reward_script=purse_script)
    block = node.index.block_at(own.height)
    assert block is not None
    mined = node.index.tx(block.txids[0])
    assert mined is not None
    tx = spend([coin_of(mined.tx, 0)], [pay(mined.tx.outputs[0].value_sat)])
    await node.mine(98)
    with pytest.raises(NodeRefusal) as refusal:
        await node.mine_exactly([tx])
    assert "bad-txns-premature-spend-of-coinbase" in refusal.value.message
    await node.mine(1)
    await node.mine_exactly([tx])
    confirmed = node.index.tx(tx.txid)
    assert confirmed is not None
    assert confirmed.height == own.height + 100


@pytest.mark.parametrize(("blocks_between", "is_mature"), [(3, False), (4, True)])
async def test_relative_timelock_counts_blocks(
    node: LocalNode, purse: Purse, blocks_between: int, is_mature: bool
) -> None:
    coin = await purse.rich_coin(50_000)
    await node.mine(blocks_between)
    tx = spend([coin], [pay(49_000)], sequence=5)
    if is_mature:
        await node.mine_exactly([tx])
        assert node.index.tx(tx.txid) is not None
    else:
        with pytest.raises(NodeRefusal, match="bad-txns-nonfinal"):
            await node.mine_exactly([tx])


async def test_wrong_signature_in_a_block_is_refused(node: LocalNode, purse: Purse) -> None:
    tip = node.index.tip.ref
    with pytest.raises(NodeRefusal, match="Invalid Schnorr signature"):
        await node.mine_exactly([spend([purse.coin()], [pay(90_000)], break_signature=True)])
    assert node.index.tip.ref == tip


async def test_block_may_spend_its_own_outputs_in_order_only(node: LocalNode, purse: Purse) -> None:
    parent = spend([purse.coin()], [pay(90_000)])
    child = spend([coin_of(parent, 0)], [pay(80_000)])
    with pytest.raises(NodeRefusal, match="bad-txns-inputs-missingorspent"):
        await node.mine_exactly([child, parent])
    await node.mine_exactly([parent, child])
    assert node.index.tx(child.txid) is not None


async def test_fees_go_to_the_miner(node: LocalNode, purse: Purse) -> None:
    await purse.broadcast(spend([purse.coin()], [pay(97_000)]), spend([purse.coin()], [pay(95_000)]))
    (block,) = await node.mine()
    coinbase = node.index.tx(node.index.tip.txids[0])
    assert coinbase is not None
    assert coinbase.tx.outputs[0].value_sat == 5_000_000_000 + 3_000 + 5_000
    assert len(node.pool) == 0
    assert block == node.index.tip.ref


async def test_whole_exit_chain_fits_one_block(node: LocalNode, purse: Purse) -> None:
    tx = exit_parent(purse.coin())
    chain = [tx]
    for _ in range(4):
        tx = exit_parent(coin_of(tx, 0))
        chain.append(tx)
    await node.mine_exactly(chain)
    assert node.index.spend(chain[0].outpoint(0)) is not None
    assert node.index.coin(chain[-1].outpoint(0)) is not None


# -- reorganisations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 6])
async def test_reorg_replaces_blocks_and_returns_their_transactions(
    node: LocalNode, purse: Purse, depth: int
) -> None:
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    await node.mine()
    await node.mine(depth - 1)
    before = node.index.tip.ref
    lost = node.index.block_at(before.height - depth + 1)
    assert lost is not None

    tip = await node.reorg(depth)

    assert tip.height == before.height + 1
    assert node.index.tip.ref == tip
    assert node.index.block(lost.hash) is None
    assert node.index.tx(parent.txid) is None
    assert {parent.txid, child.txid} <= {entry.txid for entry in node.pool}
    await node.mine()
    assert node.index.tx(child.txid) is not None


async def test_branch_of_equal_length_stays_aside(node: LocalNode) -> None:
    fork = node.index.tip.hash
    rival = node.build_on(fork)
    await node.mine()
    tip = node.index.tip.ref
    await node.submit_block(rival)
    assert node.index.tip.ref == tip


async def test_longer_branch_wins(node: LocalNode) -> None:
    first = node.build_on(node.index.tip.hash)
    await node.mine()
    await node.submit_block(first)
    # The chain does not know `first` as its own, so the second block is made by hand.
    next_block = node.build_on(node.index.tip.hash)
    header = solve(replace(next_block.header, previous=first.header.hash))
    second = replace(next_block, header=header)
    await node.submit_block(second)
    assert node.index.tip.hash == second.header.hash
    assert node.index.block(first.header.hash) is not None


async def test_reorg_that_holds_an_invalid_transaction_changes_nothing(node: LocalNode, purse: Purse) -> None:
    await node.mine(2)
    tip = node.index.tip.ref
    with pytest.raises(NodeRefusal, match="Invalid Schnorr signature"):
        await node.reorg(2, transactions=[spend([purse.coin()], [pay(1000)], break_signature=True)])
    assert node.index.tip.ref == tip
    await node.mine()
    assert node.index.tip_height == tip.height + 1


async def test_reorg_of_more_than_there_is_is_refused(node: LocalNode) -> None:
    for depth in (0, -1, node.index.tip_height + 1):
        with pytest.raises(NodeRefusal):
            await node.reorg(depth)


async def test_transaction_that_needs_a_lost_coinbase_is_dropped(node: LocalNode) -> None:
    await node.mine(reward_script=pay(0).script_pubkey)
    own = node.index.tx(node.index.tip.txids[0])
    assert own is not None
    await node.mine(100)
    coin = coin_of(own.tx, 0)
    await node.broadcast(spend([coin], [pay(coin.value_sat - 1000)]).serialize().hex())
    await node.reorg(101)
    assert node.index.output(coin.outpoint) is None
    assert len(node.pool) == 0


# -- restarts ------------------------------------------------------------------------------------------


async def test_chain_and_mempool_survive_a_restart(tmp_path: Path) -> None:
    node = LocalNode(tmp_path)
    await node.mine(110)
    purse = Purse(node)
    await purse.fill(4)
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    tip, coins = node.index.tip.ref, purse.coins(2)
    await node.close()

    again = LocalNode(tmp_path)
    assert again.index.tip.ref == tip
    assert {entry.txid for entry in again.pool} == {parent.txid, child.txid}
    await again.broadcast(spend(coins[:1], [pay(90_000)]).serialize().hex())
    await again.mine()
    assert again.index.tx(child.txid) is not None
    await again.close()


async def test_stale_branches_in_the_log_do_no_harm(tmp_path: Path) -> None:
    node = LocalNode(tmp_path)
    await node.mine(20)
    await node.reorg(5)
    await node.submit_block(node.build_on(node.index.tip.header.previous))
    tip = node.index.tip.ref
    await node.close()
    again = LocalNode(tmp_path)
    assert again.index.tip.ref == tip
    await again.close()


async def test_block_that_was_logged_but_not_judged_counts(tmp_path: Path) -> None:
    """Killed between the write and the kernel."""
    node = LocalNode(tmp_path)
    await node.mine(5)
    block = node.build_on(node.index.tip.hash)
    await node.close()
    log = BlockLog(tmp_path / "blocks.log")
    log.append(block.serialize())
    log.close()
    again = LocalNode(tmp_path)
    assert again.index.tip.hash == block.header.hash
    await again.close()


async def test_invalid_block_in_the_log_is_passed_over(tmp_path: Path) -> None:
    """Killed between the write and the refusal."""
    node = LocalNode(tmp_path)
    await node.mine(5)
    tip = node.index.tip.ref
    block = with_coinbase(node.build_on(node.index.tip.hash), one_sat_more)
    await node.close()
    log = BlockLog(tmp_path / "blocks.log")
    log.append(block.serialize())
    log.close()
    again = LocalNode(tmp_path)
    assert again.index.tip.ref == tip
    await again.mine()
    assert again.index.tip_height == tip.height + 1
    await again.close()


async def test_refused_blocks_leave_no_trace_in_the_log(node: LocalNode, tmp_path: Path) -> None:
    path = tmp_path / "chain" / "blocks.log"
    before = path.read_bytes()
    with pytest.raises(BlockRejected):
        await node.submit_block(with_coinbase(node.build_on(node.index.tip.hash), one_sat_more))
    assert path.read_bytes() == before


_MINE_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from barkd_py.devnet.chain.local import LocalNode

async def main():
    node = LocalNode(Path(sys.argv[1]))
    while True:
        (block,) = await node.mine()
        print(block.height, block.hash, flush=True)

asyncio.run(main())
"""


async def test_killed_process_loses_no_block_that_it_told_of(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _MINE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(30):
        told = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().splitlines(keepends=True)
    process.wait()
    process.stdout.close()
    last = [line for line in [told, *rest] if line.endswith("\n")][-1]
    height, block_hash = last.split()
    node = LocalNode(tmp_path)
    block = node.index.block_at(int(height))
    assert block is not None
    assert str(block.hash) == block_hash
    await node.close()


async def test_faucet_pays_the_same_chain_after_a_restart(tmp_path: Path) -> None:
    node = LocalNode(tmp_path)
    await node.mine(105)
    await node.close()
    again = LocalNode(tmp_path)
    tx = await faucet.pay(again, [pay(1_000_000)])
    await again.mine()
    assert again.index.tx(tx.txid) is not None
    await again.close()


async def test_empty_faucet_says_what_to_do(tmp_path: Path) -> None:
    node = LocalNode(tmp_path)
    await node.mine(99)
    with pytest.raises(faucet.FaucetEmpty, match="mine some blocks"):
        await faucet.pay(node, [pay(1000)])
    await node.mine(1)
    await faucet.pay(node, [pay(1000)])
    await node.close()


async def test_faucet_pays_many_times_without_a_block(node: LocalNode) -> None:
    for _ in range(15):
        await faucet.pay(node, [pay(1_000_000_000)])
    assert len(node.pool) == 15
    await node.mine()
    assert len(node.pool) == 0
