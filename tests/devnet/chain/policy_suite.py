"""The tests that play the tables; a module that imports them brings a `purse` fixture, so a node."""

from typing import Any

import pytest

from barkd_py.bitcoin.tx import Txid
from barkd_py.devnet.chain.node import NodeRefusal
from tests.devnet.chain.policy_cases import (
    NO_PACKAGE_CASES,
    PACKAGE_CASES,
    TX_CASES,
    NoPackageCase,
    PackageCase,
    TxCase,
    filled,
    holds,
)
from tests.devnet.purse import Purse, coin_of, exit_child, exit_parent, pay, spend


def _pool(purse: Purse) -> set[Txid]:
    return {entry.txid for entry in purse.node.pool}


@pytest.mark.parametrize("case", TX_CASES, ids=lambda case: case.name)
async def test_transaction_is_judged_as_the_node_does(purse: Purse, case: TxCase) -> None:
    raw, text = await case.play(purse)
    before = _pool(purse)
    if case.code is None:
        assert await purse.node.broadcast(raw) in _pool(purse)
        return
    with pytest.raises(NodeRefusal) as refusal:
        await purse.node.broadcast(raw)
    assert refusal.value.code == case.code
    # A text that ends in the middle of a detail stands for all that begin like it.
    is_prefix = case.name == "coinbase_at_depth_100"
    assert refusal.value.message.startswith(text) if is_prefix else refusal.value.message == text
    assert _pool(purse) == before


@pytest.mark.parametrize("case", PACKAGE_CASES, ids=lambda case: case.name)
async def test_package_is_judged_as_the_node_does(purse: Purse, case: PackageCase) -> None:
    txs, names = await case.play(purse)
    answer = await purse.submit(*txs)
    results: Any = answer["tx-results"]
    assert answer["package_msg"] == filled(case.message, names)
    if not case.results:
        assert results == {}
    for tx, expected in zip(txs, case.results, strict=bool(case.results)):
        result = results[str(tx.wtxid)]
        assert result["txid"] == str(tx.txid)
        assert holds(result, filled(expected, names)), (result, filled(expected, names))
        assert ("error" in result) == ("error" in expected)
        if "fees" in expected:
            assert tx.txid in _pool(purse)
            assert result["fees"].keys() >= expected["fees"].keys()
    replaced: Any = answer["replaced-transactions"]
    assert sorted(replaced) == sorted(filled(case.replaced, names))


@pytest.mark.parametrize("case", NO_PACKAGE_CASES, ids=lambda case: case.name)
async def test_what_is_no_package_is_refused(purse: Purse, case: NoPackageCase) -> None:
    raws = await case.play(purse)
    before = _pool(purse)
    with pytest.raises(NodeRefusal) as refusal:
        await purse.node.submit_package(raws)
    assert (refusal.value.code, refusal.value.message) == (case.code, case.text)
    assert _pool(purse) == before


async def test_replaced_transactions_leave_with_their_descendants(purse: Purse) -> None:
    coin = purse.coin()
    first = spend([coin], [pay(99_000)])
    heir = spend([coin_of(first, 0)], [pay(98_000)])
    await purse.broadcast(first, heir)
    second = spend([coin], [pay(90_000)])
    await purse.broadcast(second)
    pool = _pool(purse)
    assert second.txid in pool
    assert not pool & {first.txid, heir.txid}


async def test_parent_whose_child_was_replaced_stays_but_is_not_mined_alone(purse: Purse) -> None:
    parent, funding = exit_parent(purse.coin()), purse.coin()
    child = exit_child(parent, funding)
    await purse.submit(parent, child)
    await purse.broadcast(spend([funding], [pay(50_000)], version=3))
    assert child.txid not in _pool(purse)
    assert parent.txid in _pool(purse)

    await purse.node.mine()
    assert purse.node.index.tx(parent.txid) is None

    await purse.submit(parent, exit_child(parent, purse.coin()))
    await purse.node.mine()
    assert purse.node.index.tx(parent.txid) is not None


async def test_package_of_a_lost_block_is_mined_again(purse: Purse) -> None:
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    await purse.node.mine()
    await purse.node.reorg(1)
    assert {parent.txid, child.txid} <= _pool(purse)
    (block,) = await purse.node.mine()
    confirmed = purse.node.index.tx(child.txid)
    assert confirmed is not None
    assert confirmed.height == block.height


async def test_conflict_in_the_new_branch_drops_package_with_descendants(purse: Purse) -> None:
    coin = purse.coin()
    parent = exit_parent(coin)
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    await purse.node.mine()
    rival = spend([coin], [pay(90_000)])
    await purse.node.reorg(1, transactions=[rival])
    assert purse.node.index.tx(rival.txid) is not None
    assert not _pool(purse) & {parent.txid, child.txid}


async def test_block_that_conflicts_empties_the_pool_of_it(purse: Purse) -> None:
    coin = purse.coin()
    waiting = spend([coin], [pay(99_000)])
    heir = spend([coin_of(waiting, 0)], [pay(98_000)])
    await purse.broadcast(waiting, heir)
    await purse.node.mine_exactly([spend([coin], [pay(98_999)])])
    assert not _pool(purse) & {waiting.txid, heir.txid}


async def test_checking_judges_without_taking(purse: Purse) -> None:
    await purse.fill(2)
    good = spend([purse.coin()], [pay(90_000)])
    poor = spend([purse.coin()], [pay(99_999)])
    before = _pool(purse)
    await purse.node.check(good.serialize().hex())
    with pytest.raises(NodeRefusal, match="min relay fee not met"):
        await purse.node.check(poor.serialize().hex())
    assert _pool(purse) == before
    await purse.broadcast(good)
    await purse.node.check(good.serialize().hex())
