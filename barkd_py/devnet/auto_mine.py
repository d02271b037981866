"""Blocks without being asked: at an interval, or as soon as a transaction waits. Off by default."""

import asyncio
import logging

from barkd_py.bitcoin.tx import Txid
from barkd_py.devnet.chain.node import Node
from barkd_py.errors import ChainError

log = logging.getLogger(__name__)


class AutoMiner:
    """Mines by itself while `run` runs.

    interval_seconds: between two blocks, None for never.
    on_transaction: whenever something new is in the pool.
    """

    def __init__(
        self, node: Node, *, interval_seconds: float | None = None, on_transaction: bool = False
    ) -> None:
        self._node = node
        self._reconfigured = asyncio.Event()
        self._seen: set[Txid] = set()
        self.interval_seconds = interval_seconds
        self.on_transaction = on_transaction

    def configure(self, *, interval_seconds: float | None, on_transaction: bool) -> None:
        """Change both settings at once."""
        self.interval_seconds = interval_seconds
        self.on_transaction = on_transaction
        self._reconfigured.set()

    async def run(self) -> None:
        """Mine for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mine_at_intervals())
            tasks.create_task(self._mine_transactions())

    async def _mine_at_intervals(self) -> None:
        while True:
            self._reconfigured.clear()
            try:
                await asyncio.wait_for(self._reconfigured.wait(), self.interval_seconds)
            except TimeoutError:
                await self._mine()

    async def _mine_transactions(self) -> None:
        while True:
            changes = self._node.changed.count
            waiting = {entry.txid for entry in self._node.pool}
            # What a block did not take (a transaction that pays nothing, say) is not tried again and again.
            is_new = bool(waiting - self._seen)
            self._seen = waiting
            if self.on_transaction and is_new:
                await self._mine()
            else:
                await self._node.changed.wait(changes)

    async def _mine(self) -> None:
        try:
            await self._node.mine()
        except ChainError:
            log.warning("could not mine a block", exc_info=True)
