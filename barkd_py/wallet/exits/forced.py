"""Notices VTXOs that somebody else is putting on the chain, so that their exits are started.

A sibling's owner publishes the transactions that both share, the server's watchman publishes what was
forfeited; a VTXO whose own transaction gets there that way is no VTXO any more. Once per new tip, each VTXO's
chain is followed from its first transaction for as long as the chain source knows it. VTXOs share the first
transactions, so this costs little more than one call per round, board or payment that is still off-chain.

Source: sheet 06 §2.7 (auto-start).
"""

import asyncio
from collections.abc import Iterator, Sequence

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import ChainSource, NotFound
from barkd_py.wallet.exits.observe import ChainMemory, Look
from barkd_py.wallet.store import Store

_BATCH = 50


class OnChainWatch:
    """Remembers the first transaction of each VTXO."""

    def __init__(self, store: Store, chain: ChainSource, memory: ChainMemory) -> None:
        self._store = store
        self._chain = chain
        self._memory = memory
        self._roots: dict[VtxoId, Txid] = {}

    async def find(self, vtxo_ids: Sequence[VtxoId], tip: BlockRef) -> tuple[VtxoId, ...]:
        """Those of the VTXOs whose own transaction is in the mempool or in a block.

        Raises ExitError or ChainError if the chain source does not answer.
        """
        await self._learn_roots(vtxo_ids)
        await self._memory.move_to(self._chain, tip)
        look = Look(self._chain, self._memory, tip, {}, lambda _: False)
        try:
            roots = {self._roots[vtxo_id] for vtxo_id in vtxo_ids}
            statuses = await asyncio.gather(*(look.status(root) for root in roots))
            seen = {
                root for root, status in zip(roots, statuses, strict=True) if not isinstance(status, NotFound)
            }
            suspects = [vtxo_id for vtxo_id in vtxo_ids if self._roots[vtxo_id] in seen]
            return tuple([vtxo_id for vtxo_id in suspects if await self._is_on_chain(look, vtxo_id)])
        finally:
            await look.close()

    async def _is_on_chain(self, look: Look, vtxo_id: VtxoId) -> bool:
        async with self._store.read() as tx:
            vtxo = await tx.vtxos.body(vtxo_id)
        for exit_tx in vtxo.exit_transactions():
            if isinstance(await look.status(exit_tx.txid), NotFound):
                return False
        return True

    async def _learn_roots(self, vtxo_ids: Sequence[VtxoId]) -> None:
        wanted = set(vtxo_ids)
        self._roots = {vtxo_id: root for vtxo_id, root in self._roots.items() if vtxo_id in wanted}
        missing = [vtxo_id for vtxo_id in vtxo_ids if vtxo_id not in self._roots]
        for batch in _batches(missing):
            async with self._store.read() as tx:
                bodies = await tx.vtxos.bodies(batch)
            for vtxo in bodies:
                first = next(iter(vtxo.exit_transactions()), None)
                self._roots[vtxo.id] = vtxo.anchor_point.txid if first is None else first.txid
            await asyncio.sleep(0)  # let others have their turn


def _batches(ids: Sequence[VtxoId]) -> Iterator[Sequence[VtxoId]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]
