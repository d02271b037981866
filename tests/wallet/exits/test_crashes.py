"""The process dies after each commit and around each broadcast of an exit and its claim, and starts again.

However it was interrupted, the exit is claimed in the end, each exit transaction had one child, the VTXO one
claim, and the money is all there but for the fees of exactly these.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

from barkd_py.bitcoin.units import FeeRate
from barkd_py.errors import StoreError
from barkd_py.wallet.exits.errors import NotExiting
from barkd_py.wallet.exits.states import Claimable, Claimed, Processing
from barkd_py.wallet.movements import MovementStatus
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.store.tables import exit_claim
from tests.wallet.exits.coins import Mint
from tests.wallet.exits.computer import (
    children_ever_made,
    computer_in,
    copied,
    dying,
    fee_sat,
    prepare_in,
    the_vtxo,
)
from tests.wallet.exits.conftest import World
from tests.wallet.exits.gates import When
from tests.wallet.flows.crashes import Crash, CrashingStore

FUNDS_SAT = 2 * 30_000
AMOUNT_SAT = 100_000
MAX_BLOCKS = 40


class FullDisk(CrashingStore):
    """One commit in two fails and leaves nothing behind; the process goes on. odds: of a failure."""

    dice = Random(4)
    failures = 0
    odds = 0.5

    async def _commit(self, connection: AsyncConnection, unit: AsyncTransaction, tx: Transaction) -> None:
        if self.dice.random() < self.odds:
            self.failures += 1
            raise StoreError("the database or disk is full")
        await super()._commit(connection, unit, tx)


@asynccontextmanager
async def opened(directory: Path, kind: type[CrashingStore] = CrashingStore) -> AsyncIterator[World]:
    """The world as it is in this directory."""
    async with computer_in(directory) as computer, computer.process(kind) as (world, _):
        yield world


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wallet with two coins and a VTXO that is three transactions deep."""

    async def begin(world: World) -> None:
        world.mint = Mint(world.node, world.keychain, exit_delta=2)
        await world.fund(30_000, 30_000)
        await world.hold(await world.mint.deep(AMOUNT_SAT, payments=1))

    return prepare_in(tmp_path_factory.mktemp("prepared"), begin)


async def run(world: World) -> None:
    """Start, go on, claim: from wherever things are, until it is claimed. A block comes after each step."""
    vtxo_id = await the_vtxo(world)
    await world.set_rates(FeeRate(1_000))
    for _ in range(MAX_BLOCKS):
        try:
            state = await world.state(vtxo_id)
        except NotExiting:
            await world.exits.start([vtxo_id])
            state = await world.state(vtxo_id)
        if isinstance(state, Claimed):
            return
        if isinstance(state, Claimable):
            (coin, *_) = await world.onchain.utxos()
            await world.exits.claim(None, coin.output.script_pubkey, FeeRate(1_000))
        await world.exits.tick()
        await world.onchain.sync()
        await world.mine()
    raise AssertionError("it was never claimed")


async def verify(world: World) -> None:
    vtxo_id = await the_vtxo(world)
    async with world.store.read() as tx:
        vtxo = await tx.vtxos.body(vtxo_id)
    fees_sat = 0
    for exit_tx in vtxo.exit_transactions():
        anchor = exit_tx.outpoint(len(exit_tx.outputs) - 1)
        spend = world.node.index.spend(anchor)
        assert spend is not None
        made = await children_ever_made(world, anchor)
        assert made == {spend.txid}, "a second child was made"
        fees_sat += fee_sat(world, spend.txid)
    claim = world.node.index.spend(vtxo.point)
    assert claim is not None
    async with world.store.read() as tx:
        rows = await tx.exits._connection.execute(sa.select(exit_claim.c.txid))
        assert [row.txid for row in rows] == [str(claim.txid)]
    fees_sat += fee_sat(world, claim.txid)
    assert await world.onchain_sat() == FUNDS_SAT + AMOUNT_SAT - fees_sat
    (movement,) = await world.movements()
    assert movement.status is MovementStatus.SUCCESSFUL


@pytest.fixture(scope="module")
def counted(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How many commits and broadcasts an undisturbed exit takes."""
    directory = copied(prepared, tmp_path_factory.mktemp("counted"))

    async def count() -> dict[str, int]:
        async with opened(directory) as world:
            store = world.store
            assert isinstance(store, CrashingStore)
            store.arm(None)
            await run(world)
            commits = store.commits
            await verify(world)
            return {
                "commits": commits,
                "broadcast_package": world.chain.calls.count("broadcast_package"),
                "broadcast": world.chain.calls.count("broadcast"),
            }

    return asyncio.run(count())


def test_an_undisturbed_exit(counted: dict[str, int]) -> None:
    assert counted["broadcast_package"] == 3
    assert counted["broadcast"] == 1
    # start, then for each level the child, its row and what became of it; the delay, the claim, the end
    assert counted["commits"] >= 1 + 3 * 3 + 4


async def test_a_crash_behind_each_commit(prepared: Path, tmp_path: Path, counted: dict[str, int]) -> None:
    for commit in range(counted["commits"]):
        directory = copied(prepared, tmp_path / str(commit))
        async with opened(directory) as world:
            assert isinstance(world.store, CrashingStore)
            world.store.arm(commit, "after")
            with pytest.raises(Crash):
                await run(world)
        async with opened(directory) as world:
            await run(world)
            await verify(world)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "number"),
    [("broadcast_package", 0), ("broadcast_package", 1), ("broadcast_package", 2), ("broadcast", 0)],
)
async def test_a_crash_around_each_broadcast(
    prepared: Path, tmp_path: Path, name: str, number: int, when: When
) -> None:
    directory = copied(prepared, tmp_path)
    async with opened(directory) as world:
        world.chain.gate = dying(name, number, when)
        with pytest.raises(Crash):
            await run(world)
    async with opened(directory) as world:
        await run(world)
        await verify(world)


async def test_every_run_may_crash(prepared: Path, tmp_path: Path) -> None:
    """Before its second commit, again and again: each run still gets a bit further."""
    directory = copied(prepared, tmp_path)
    for _ in range(60):
        async with opened(directory) as world:
            assert isinstance(world.store, CrashingStore)
            world.store.arm(2, "after")
            with suppress(Crash):
                await run(world)
            world.store.arm(None)
            if isinstance(await world.state(await the_vtxo(world)), Claimed):
                await verify(world)
                return
    raise AssertionError("it never was claimed")


async def test_a_disk_that_is_full_now_and_then(prepared: Path, tmp_path: Path) -> None:
    """Nothing is lost, and nothing is paid twice, by a process that meets failures and goes on."""
    async with opened(copied(prepared, tmp_path), FullDisk) as world:
        store = world.store
        assert isinstance(store, FullDisk)
        for _ in range(60):
            with suppress(StoreError):
                await run(world)
                break
        else:
            raise AssertionError("it never was claimed")
        assert store.failures >= 8
        store.odds = 0.0
        await verify(world)


async def test_a_disk_that_is_full_is_no_trouble_of_the_exit(prepared: Path, tmp_path: Path) -> None:
    """Who cannot store a child does not go on as if there were none."""
    async with opened(copied(prepared, tmp_path), FullDisk) as world:
        store = world.store
        assert isinstance(store, FullDisk)
        store.odds = 0.0
        vtxo_id = await the_vtxo(world)
        await world.exits.start([vtxo_id])
        await world.onchain.sync()
        await world.exits._driver.look()
        assert isinstance(await world.state(vtxo_id), Processing), "what follows is to pay"
        store.odds = 1.0
        with pytest.raises(StoreError):
            await world.exits.tick()
        assert (await world.exits.status(vtxo_id)).error is None
