"""Devnet's node on a real bitcoind: what it mirrors, reorganisations, restarts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from barkd_py.bitcoin.address import address_from_script
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.bitcoind import BitcoindNode, BitcoindRpc
from barkd_py.devnet.chain.node import NodeRefusal
from barkd_py.errors import ChainUnavailable
from tests.devnet.purse import SCRIPT, Purse, exit_child, exit_parent, pay, spend

pytestmark = pytest.mark.interop

ADDRESS = address_from_script(SCRIPT, Network.REGTEST)


@pytest.fixture
async def node(tmp_path: Path, bitcoind_exec: str) -> AsyncIterator[BitcoindNode]:
    running = await BitcoindNode.start(Path(bitcoind_exec), tmp_path / "bitcoind")
    await running.mine(110)
    yield running
    await running.close()


@pytest.fixture
async def somebody(node: BitcoindNode) -> AsyncIterator[BitcoindRpc]:
    """Somebody else who uses the same bitcoind."""
    rpc = BitcoindRpc(node.rpc_url, node.cookie_file)
    yield rpc
    await rpc.close()


async def assert_same_chain(node: BitcoindNode, rpc: BitcoindRpc) -> None:
    """The index holds the active chain, block by block."""
    assert node.index.tip_height == await rpc.call("getblockcount")
    for height in range(max(0, node.index.tip_height - 8), node.index.tip_height + 1):
        block = node.index.block_at(height)
        assert block is not None
        assert str(block.hash) == await rpc.call("getblockhash", height)
        assert block.raw.hex() == await rpc.call("getblock", str(block.hash), 0)


async def test_index_follows_what_others_mine_and_invalidate(
    node: BitcoindNode, somebody: BitcoindRpc
) -> None:
    await somebody.call("generatetoaddress", 3, ADDRESS)
    await node.refresh()
    await assert_same_chain(node, somebody)

    lost = await somebody.call("getblockhash", node.index.tip_height - 1)
    await somebody.call("invalidateblock", lost)
    await node.refresh()
    assert node.index.tip_height == 111
    await assert_same_chain(node, somebody)

    await somebody.call("reconsiderblock", lost)
    await node.refresh()
    assert node.index.tip_height == 113
    await assert_same_chain(node, somebody)


async def test_pool_mirrors_what_others_send(node: BitcoindNode, somebody: BitcoindRpc) -> None:
    purse = Purse(node)
    await purse.fill(3)
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    other = spend([purse.coin()], [pay(90_000)])
    await somebody.call("submitpackage", [tx.serialize().hex() for tx in (parent, child)])
    await somebody.call("sendrawtransaction", other.serialize().hex())
    await node.refresh()
    assert {entry.txid for entry in node.pool} == {parent.txid, child.txid, other.txid}
    entry = node.pool.get(child.txid)
    assert entry is not None
    assert entry.fee_sat == 1000
    await somebody.call("generatetoaddress", 1, ADDRESS)
    await node.refresh()
    assert len(node.pool) == 0
    assert node.index.tx(child.txid) is not None


async def test_reorg_of_empty_blocks_of_the_same_second(node: BitcoindNode, somebody: BitcoindRpc) -> None:
    for depth in (1, 2, 6):
        before = node.index.tip.ref
        tip = await node.reorg(depth)
        assert tip.height == before.height + 1
        await assert_same_chain(node, somebody)


async def test_reorg_with_an_invalid_transaction_changes_nothing(
    node: BitcoindNode, somebody: BitcoindRpc
) -> None:
    purse = Purse(node)
    await purse.fill(1)
    await node.mine(3)
    tip = node.index.tip.ref
    broken = spend([purse.coin()], [pay(1000)], break_signature=True)
    with pytest.raises(NodeRefusal, match="TestBlockValidity failed"):
        await node.reorg(2, transactions=[broken])
    with pytest.raises(NodeRefusal, match="TestBlockValidity failed"):
        await node.mine_exactly([broken])
    await node.refresh()
    assert node.index.tip.ref == tip
    await assert_same_chain(node, somebody)


async def test_restart_keeps_chain_and_mempool(tmp_path: Path, bitcoind_exec: str) -> None:
    node = await BitcoindNode.start(Path(bitcoind_exec), tmp_path)
    await node.mine(110)
    waiting = await faucet.pay(node, [pay(50_000)])
    tip = node.index.tip.ref
    await node.close()
    again = await BitcoindNode.start(Path(bitcoind_exec), tmp_path)
    assert again.index.tip.ref == tip
    assert {entry.txid for entry in again.pool} == {waiting.txid}
    await again.close()


async def test_program_that_is_no_bitcoind_is_refused(tmp_path: Path) -> None:
    for executable in (Path("/bin/true"), tmp_path / "nothing"):
        with pytest.raises(ChainUnavailable):
            await BitcoindNode.start(executable, tmp_path / "datadir")
