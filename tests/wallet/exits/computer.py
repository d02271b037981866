"""A computer on which wallets die and start again: the node and the files stay, processes come and go."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.chain.source import ChainSource
from barkd_py.devnet.chain.local import LocalNode
from tests.fakes.chains import Clock
from tests.wallet.exits.conftest import World, source
from tests.wallet.exits.gates import Gate, When
from tests.wallet.flows.crashes import Crash, CrashingStore


@dataclass
class Computer:
    directory: Path
    node: LocalNode
    chain: ChainSource
    clock: Clock

    @asynccontextmanager
    async def process(
        self, kind: type[CrashingStore] = CrashingStore
    ) -> AsyncIterator[tuple[World, CrashingStore]]:
        """A process with the wallet that there is."""
        store = await self._store(kind)
        try:
            yield await World.open(self.node, self.chain, self.clock, store), store
        finally:
            await store.close()

    @asynccontextmanager
    async def first_process(self) -> AsyncIterator[World]:
        """A process with a new wallet."""
        store = await self._store(CrashingStore)
        try:
            yield await World.create(self.node, self.chain, self.clock, store)
        finally:
            await store.close()

    async def _store(self, kind: type[CrashingStore]) -> CrashingStore:
        store = await kind.open(str(self.directory / "db.sqlite"))
        assert isinstance(store, CrashingStore)
        return store


@asynccontextmanager
async def computer_in(directory: Path) -> AsyncIterator[Computer]:
    node, clock = LocalNode(directory / "chain"), Clock()
    chain = source("esplora", node, clock)
    try:
        yield Computer(directory, node, chain, clock)
    finally:
        await chain.close()
        await node.close()


def prepare_in(directory: Path, begin: Callable[[World], Awaitable[None]]) -> Path:
    """Files to copy: of a new wallet at height 130, with which this was done."""

    async def prepare() -> None:
        async with computer_in(directory) as computer:
            await computer.node.mine(130)
            async with computer.first_process() as world:
                await begin(world)

    asyncio.run(prepare())
    return directory


def copied(prepared: Path, directory: Path) -> Path:
    return Path(shutil.copytree(prepared, directory / "world"))


def dying(name: str, number: int, when: When) -> Gate:
    """A gate that kills the process at this call of a method."""
    seen = 0

    def gate(called: str, moment: When) -> None:
        nonlocal seen
        if (called, moment) == (name, when):
            if seen == number:
                raise Crash
            seen += 1

    return gate


# --- what is there afterwards


async def the_vtxo(world: World) -> VtxoId:
    async with world.store.read() as tx:
        (vtxo,) = await tx.vtxos.list(None)
    return vtxo.id


async def children_ever_made(world: World, anchor: OutPoint) -> set[Txid]:
    """All that the on-chain wallet has stored, whether it counts or not."""
    async with world.store.read() as tx:
        state = await tx.onchain.load()
    assert state is not None
    return {
        row.tx.txid
        for row in state.transactions.values()
        if any(tx_in.prevout == anchor for tx_in in row.tx.inputs)
    }


def fee_sat(world: World, txid: Txid) -> int:
    """What a confirmed transaction paid."""

    def confirmed(each: Txid) -> Tx:
        found = world.node.index.tx(each)
        assert found is not None
        return found.tx

    tx = confirmed(txid)
    spent_sat = sum(
        confirmed(tx_in.prevout.txid).outputs[tx_in.prevout.vout].value_sat for tx_in in tx.inputs
    )
    return spent_sat - sum(output.value_sat for output in tx.outputs)
