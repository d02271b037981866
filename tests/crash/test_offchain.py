"""Boards, payments between wallets and refreshes, each killed at a few points. All points: `make crash`."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.crash.case import run_case
from tests.crash.flows import Flow, offchain
from tests.crash.quick import cases, name_of
from tests.crash.world import KillPoint, World

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


@pytest.mark.parametrize(("flow", "point"), cases(offchain.FLOWS), ids=name_of)
async def test_money_survives_a_kill(world: World, flow: Flow, point: KillPoint) -> None:
    await run_case(world, flow, point)


async def test_a_movement_that_is_missing_is_missed(world: World) -> None:
    """The books of these tests notice it: what a wallet owns is to the satoshi what its history tells."""
    await world.settle()
    movement = (await world.history("board"))[0]
    world.victim.process.kill()
    with _without_movement(world.victim.datadir / "db.sqlite", movement["id"]):
        await world.victim.start()
        ends = {what: end async for what, end in world.books.loose_ends()}
        world.victim.process.kill()
    await world.victim.start()
    assert ends == {"victim: not as the history tells it (sat)": movement["effective_balance_sat"]}
    await world.settle()


@contextmanager
def _without_movement(file: Path, movement_id: int) -> Iterator[None]:
    """The daemon is down before and after."""
    with closing(sqlite3.connect(file)) as database, database:
        (row,) = database.execute("SELECT * FROM movement WHERE id = ?", (movement_id,)).fetchall()
        database.execute("DELETE FROM movement WHERE id = ?", (movement_id,))
    yield
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(f"INSERT INTO movement VALUES ({','.join('?' * len(row))})", row)
