"""The index: what a block adds, its disconnection takes away again."""

from collections.abc import Sequence

import pytest

from barkd_py.bitcoin.tx import OutPoint, Tx
from barkd_py.devnet.chain.index import ChainIndex, script_hash
from barkd_py.devnet.chain.local import LocalNode
from tests.devnet.purse import SCRIPT, Purse, coin_of, pay, spend

OTHER = b"\x51\x20" + b"\x06" * 32


def seen(index: ChainIndex, txs: Sequence[Tx]) -> list[object]:
    """Everything that the index says about transactions, their outputs and two scripts."""
    outpoints = {OutPoint(tx.txid, vout) for tx in txs for vout in range(len(tx.outputs))}
    outpoints |= {tx_in.prevout for tx in txs for tx_in in tx.inputs}
    answers: list[object] = [index.tip.ref]
    answers.extend(index.tx(tx.txid) for tx in txs)
    for outpoint in sorted(outpoints):
        answers.extend((index.output(outpoint), index.spend(outpoint), index.coin(outpoint)))
    answers.extend(tuple(index.script_txids(script_hash(script))) for script in (SCRIPT, OTHER))
    return answers


async def test_disconnecting_is_the_inverse_of_connecting(node: LocalNode) -> None:
    purse = Purse(node)
    await purse.fill(3)
    first = spend(purse.coins(2), [pay(50_000), pay(50_000, OTHER), pay(50_000)])
    second = spend([coin_of(first, 0), purse.coin()], [pay(60_000), pay(60_000)])
    third = spend([coin_of(second, 0), coin_of(first, 2)], [pay(90_000, OTHER)])
    txs = [first, second, third]
    copy = ChainIndex(_block(node, 0))
    for height in range(1, node.index.tip_height + 1):
        copy.connect(_block(node, height))
    before = seen(copy, txs)
    await node.mine_exactly(txs)
    copy.connect(_block(node, node.index.tip_height))
    assert seen(copy, txs) == seen(node.index, txs) != before
    copy.disconnect()
    assert seen(copy, txs) == before


def _block(node: LocalNode, height: int) -> bytes:
    block = node.index.block_at(height)
    assert block is not None
    return block.raw


async def test_transaction_counts_once_for_a_script_that_it_touches_often(node: LocalNode) -> None:
    purse = Purse(node)
    await purse.fill(2)
    before = len(node.index.script_txids(script_hash(SCRIPT)))
    await node.mine_exactly([spend(purse.coins(2), [pay(50_000), pay(50_000), pay(50_000)])])
    assert len(node.index.script_txids(script_hash(SCRIPT))) == before + 1


async def test_block_elsewhere_is_not_connected(node: LocalNode) -> None:
    block = _block(node, node.index.tip_height)
    tip = node.index.tip.ref
    with pytest.raises(ValueError, match="does not build on the tip"):
        node.index.connect(block)
    assert node.index.tip.ref == tip


def test_script_hash_is_in_natural_byte_order() -> None:
    # SHA-256 of the empty string, as everybody writes it.
    assert script_hash(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
