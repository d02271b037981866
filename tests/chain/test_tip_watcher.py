"""When a tip counts as new, and what wakes the watcher."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import zmq
import zmq.asyncio

from barkd_py.bitcoin.tx import BlockHash
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.block_announcements import ZmqUnusable, listen_for_blocks
from barkd_py.chain.source import ChainSource
from barkd_py.chain.tip_watcher import watch_tip, watch_tip_announced
from barkd_py.devnet.chain.node import Node
from barkd_py.errors import ChainUnavailable

NEVER_S = 3_600.0


class Tips:
    """Only the tip of a chain source: gives the next of its answers, the last one for ever."""

    def __init__(self, *answers: BlockRef | ChainUnavailable) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Semaphore(0)

    async def fetch_tip(self) -> BlockRef:
        self.asked.release()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ChainUnavailable):
            raise answer
        return answer


def block(height: int, fork: int = 0) -> BlockRef:
    return BlockRef(height, BlockHash(bytes([height, fork]) + bytes(30)))


@asynccontextmanager
async def watching(source: object, wake: asyncio.Event) -> AsyncIterator["asyncio.Queue[BlockRef]"]:
    seen: asyncio.Queue[BlockRef] = asyncio.Queue()
    task = asyncio.create_task(
        watch_tip(source, seen.put_nowait, interval_s=NEVER_S, wake=wake)  # type: ignore[arg-type]
    )
    yield seen
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_first_tip_and_changes_are_told_and_nothing_twice() -> None:
    tips, wake = Tips(block(1), block(1), block(1, fork=1), block(3)), asyncio.Event()
    async with watching(tips, wake) as seen:
        await tips.asked.acquire()
        for _ in range(3):
            while wake.is_set():
                await asyncio.sleep(0)
            wake.set()
            await tips.asked.acquire()
        told = [await seen.get() for _ in range(3)]
    assert told == [block(1), block(1, fork=1), block(3)]
    assert seen.empty()


async def test_failed_look_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    tips, wake = Tips(ChainUnavailable("down"), block(2)), asyncio.Event()
    async with watching(tips, wake) as seen:
        await tips.asked.acquire()
        wake.set()
        assert await seen.get() == block(2)
    assert "tip watcher failed to fetch tip: down" in caplog.text


async def test_interval_is_enough(source: ChainSource, node: Node) -> None:
    seen: asyncio.Queue[BlockRef] = asyncio.Queue()
    task = asyncio.create_task(watch_tip(source, seen.put_nowait, interval_s=0.001))
    assert await seen.get() == node.index.tip.ref
    await node.mine(2)
    assert await seen.get() == node.index.tip.ref
    task.cancel()


async def test_announcement_wakes_the_watcher(source: ChainSource, node: Node) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.XPUB) as publisher:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        seen: asyncio.Queue[BlockRef] = asyncio.Queue()
        task = asyncio.create_task(
            watch_tip_announced(
                source, seen.put_nowait, interval_s=NEVER_S, zmq_address=f"tcp://127.0.0.1:{port}"
            )
        )
        assert await seen.get() == node.index.tip.ref
        assert await publisher.recv() == b"\x01hashblock"  # the subscription
        (tip,) = await node.mine()
        await publisher.send_multipart([b"hashblock", tip.hash[::-1], b"\0\0\0\0"])
        assert await seen.get() == tip
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_malformed_address_leaves_polling(
    source: ChainSource, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    seen: asyncio.Queue[BlockRef] = asyncio.Queue()
    task = asyncio.create_task(
        watch_tip_announced(source, seen.put_nowait, interval_s=0.001, zmq_address="nonsense")
    )
    await seen.get()
    (tip,) = await node.mine()
    assert await seen.get() == tip
    task.cancel()
    assert "syncing on interval only: cannot connect to nonsense" in caplog.text
    with pytest.raises(ZmqUnusable):
        await listen_for_blocks("nonsense", asyncio.Event())
