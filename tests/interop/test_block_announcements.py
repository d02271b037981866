"""Block announcements of a real bitcoind."""

import asyncio

import pytest

from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.tip_watcher import watch_tip_announced
from barkd_py.devnet.chain.node import Node
from tests.interop.real_node import RunningBitcoind, bitcoind, node  # noqa: F401

pytestmark = pytest.mark.interop


async def test_a_new_block_is_told_without_polling(
    node: Node,  # noqa: F811
    bitcoind: RunningBitcoind,  # noqa: F811
) -> None:
    source = bitcoind.source()
    seen: asyncio.Queue[BlockRef] = asyncio.Queue()
    watcher = asyncio.create_task(
        watch_tip_announced(source, seen.put_nowait, interval_s=3_600, zmq_address=bitcoind.zmq)
    )
    await seen.get()
    async with asyncio.timeout(30):
        # the subscription takes a moment to arrive, and blocks before it are not announced
        while seen.empty():
            await node.mine()
            await asyncio.sleep(0.05)
    told = await seen.get()
    known = node.index.block_at(told.height)
    assert known is not None
    assert known.hash == told.hash
    watcher.cancel()
    await source.close()
