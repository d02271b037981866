"""Tells when the best chain has a new tip.

The tip is looked at every interval, and at once when something wakes the watcher (block announcements). A tip
is a height *and* a hash, so that a reorg to the same height is a change too. Looking also refreshes the
cached tip of the chain source.

Source: sheet 06 §6.4, sheet 09 §1.4.
"""

import asyncio
import logging
from collections.abc import Callable

from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.block_announcements import ZmqUnusable, listen_for_blocks
from barkd_py.chain.source import ChainSource
from barkd_py.errors import ChainError

log = logging.getLogger(__name__)


async def watch_tip(
    source: ChainSource,
    on_change: Callable[[BlockRef], None],
    *,
    interval_s: float,
    wake: asyncio.Event | None = None,
) -> None:
    """Call `on_change` with the first tip and with every other one, until cancelled. Never fails.

    A burst of blocks is one change. wake: look now; cleared here.
    """
    wake = wake or asyncio.Event()
    known: BlockRef | None = None
    while True:
        wake.clear()
        try:
            tip = await source.fetch_tip()
        except ChainError as error:
            log.warning("tip watcher failed to fetch tip: %s", error)
        else:
            if tip != known:
                known = tip
                on_change(tip)
        try:
            await asyncio.wait_for(wake.wait(), interval_s)
        except TimeoutError:
            continue


async def watch_tip_announced(
    source: ChainSource,
    on_change: Callable[[BlockRef], None],
    *,
    interval_s: float,
    zmq_address: str,
) -> None:
    """`watch_tip`, woken by bitcoind's announcements; without them if they cannot be received."""
    wake = asyncio.Event()

    async def listen() -> None:
        try:
            await listen_for_blocks(zmq_address, wake)
        except ZmqUnusable as error:
            log.warning("Daemon failed to start tip watcher, syncing on interval only: %s", error)

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        group.create_task(watch_tip(source, on_change, interval_s=interval_s, wake=wake))
