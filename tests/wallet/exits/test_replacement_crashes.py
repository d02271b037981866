"""The process dies around everything that the replacement of a child does, and starts again.

The node lives on, with whatever it has got. In the end the exit transaction has one child, which is the one
that is stored, no more than one replacement was ever made, and what the wallet misses is that child's fee.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from barkd_py.bitcoin.tx import Tx
from barkd_py.bitcoin.units import FeeRate
from barkd_py.wallet.exits.children import known_child
from barkd_py.wallet.exits.states import AwaitingDelta
from tests.wallet.exits.computer import (
    Computer,
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
from tests.wallet.flows.crashes import Crash

COINS_SAT = (30_000, 30_000)
LOW, HIGH = FeeRate(500), FeeRate(2_000)

Point = tuple[str, int, When]
"""Where the process dies: at which of its commits, or of its calls by name."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board whose exit has begun, and coins to pay with."""

    async def begin(world: World) -> None:
        await world.fund(*COINS_SAT)
        (vtxo_id,) = await world.hold(await world.mint.board(100_000))
        await world.exits.start([vtxo_id])

    return prepare_in(tmp_path_factory.mktemp("prepared"), begin)


async def replace_child(computer: Computer, point: Point | None) -> tuple[Sequence[str], int]:
    """The first child, then a higher rate; dies at the point. The calls and commits of the replacement."""
    async with computer.process() as (world, store):
        await world.set_rates(LOW)
        await world.exits.tick()
        await world.onchain.sync()
        assert len(world.mempool) == 2
        await world.set_rates(HIGH)
        world.chain.calls.clear()
        store.arm(None)
        match point:
            case ("commit", number, when):
                store.arm(number, when)
            case (name, number, when):
                world.chain.gate = dying(name, number, when)
        await world.exits.progress(HIGH)
        return list(world.chain.calls), store.commits


async def finish(computer: Computer, rate: FeeRate = HIGH) -> None:
    """A new process, until the exit transaction is in a block."""
    async with computer.process() as (world, _):
        vtxo_id = await the_vtxo(world)
        await world.set_rates(rate)

        async def is_there() -> bool:
            return isinstance(await world.state(vtxo_id), AwaitingDelta)

        await world.until(is_there, step=world.exits.tick, blocks=5)
        await verify(world)


async def verify(world: World) -> None:
    vtxo_id = await the_vtxo(world)
    async with world.store.read() as tx:
        vtxo = await tx.vtxos.body(vtxo_id)
    (exit_tx,) = vtxo.exit_transactions()
    anchor = exit_tx.outpoint(len(exit_tx.outputs) - 1)
    spend = world.node.index.spend(anchor)
    assert spend is not None
    async with world.store.read() as tx:
        (row,) = await tx.exits.find_children([exit_tx.txid])
    assert known_child(row).tx.txid == spend.txid
    assert spend.txid in (made := await children_ever_made(world, anchor))
    assert len(made) <= 2, "the first child, and one that replaced it"
    paid_sat = fee_sat(world, spend.txid)
    assert paid_sat <= highest_fee_sat(exit_tx)
    assert await world.onchain_sat() == sum(COINS_SAT) - paid_sat
    balance = await world.onchain.balance()
    assert balance.confirmed_sat == balance.total_sat, "no coin is held by a child that cannot be"
    assert not world.mempool


def highest_fee_sat(exit_tx: Tx) -> int:
    """What one replacement at the higher rate pays, with up to two coins."""
    return HIGH.fee_wu(exit_tx.weight_wu + 609 + 230)


@pytest.fixture(scope="module")
def points(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Point]:
    """Before each call, around each commit, and after the broadcast."""
    directory = copied(prepared, tmp_path_factory.mktemp("counted"))

    async def count() -> tuple[Sequence[str], int]:
        async with computer_in(directory) as computer:
            counted = await replace_child(computer, None)
            await finish(computer)
            return counted

    calls, commits = asyncio.run(count())
    assert calls.count("broadcast_package") == 1
    assert commits >= 3, "the old child's coins, the new child, its row"
    numbered = [(name, calls[:place].count(name)) for place, name in enumerate(calls)]
    around: tuple[When, ...] = ("before", "after")
    return [
        *[("commit", number, when) for number in range(commits) for when in around],
        *[(name, number, "before") for name, number in numbered],
        ("broadcast_package", 0, "after"),
    ]


async def test_a_crash_at_each_point(prepared: Path, tmp_path: Path, points: Sequence[Point]) -> None:
    for place, point in enumerate(points):
        await crash_at(copied(prepared, tmp_path / str(place)), point)


async def crash_at(directory: Path, point: Point) -> None:
    async with computer_in(directory) as computer:
        with pytest.raises(Crash):
            await replace_child(computer, point)
        try:
            await finish(computer)
        except AssertionError as error:
            raise AssertionError(f"after a crash at {point}") from error


@pytest.mark.parametrize("commit", [1, 2])
async def test_a_replacement_that_was_never_sent_may_not_be_needed_any_more(
    prepared: Path, tmp_path: Path, commit: int
) -> None:
    """The rates have fallen again: the first child does, and the coins of the second one are free."""
    async with computer_in(copied(prepared, tmp_path)) as computer:
        with pytest.raises(Crash):
            await replace_child(computer, ("commit", commit, "after"))
        await finish(computer, LOW)


async def test_a_crash_of_every_second_process(prepared: Path, tmp_path: Path) -> None:
    """Each dies behind its second commit."""
    async with computer_in(copied(prepared, tmp_path)) as computer:
        with pytest.raises(Crash):
            await replace_child(computer, ("commit", 1, "after"))
        for _ in range(4):
            async with computer.process() as (world, store):
                await world.set_rates(HIGH)
                store.arm(1, "after")
                try:
                    await world.exits.progress(HIGH)
                except Crash:
                    continue
                break
        await finish(computer)
