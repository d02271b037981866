"""Lists that are brought up to date by what changed always equal those that are read anew."""

import asyncio
import random
from contextlib import suppress

import pytest
import sqlalchemy as sa

from barkd_py.errors import StoreError
from barkd_py.wallet.listings import HistoryListing, VtxoListing
from barkd_py.wallet.movements import BOARD, MovementStatus, MovementUpdate
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.tables import vtxo as vtxo_table
from barkd_py.wallet.vtxos.states import UNSPENT, NewVtxo, Spendable, StateKind, VtxoStateConflict
from tests.wallet.samples import Clock, insert, make_id, make_vtxo

EVERY = frozenset(StateKind)


async def history(store: Store) -> object:
    async with store.read() as tx:
        return await tx.movements.list()


async def vtxos(store: Store, kinds: frozenset[StateKind]) -> object:
    async with store.read() as tx:
        return await tx.vtxos.list(kinds)


async def change_something(store: Store, clock: Clock, chance: random.Random) -> None:
    """One transaction of a random kind, which may fail."""
    clock.advance(seconds=chance.choice((-1, 0, 0, 1)))
    number, other = chance.randrange(30), chance.randrange(30)
    async with store.transaction() as tx:
        match chance.randrange(8):
            case 0 | 1:
                vtxo = make_vtxo(number, amount_sat=1_000 * (number % 3), expiry_height=number % 4)
                await tx.vtxos.insert([NewVtxo(vtxo, Spendable())])
            case 2:
                await tx.vtxos.lock(list(await tx.vtxos.known([make_id(number), make_id(other)])), None)
            case 3:
                await tx.vtxos.mark_spent(list(await tx.vtxos.known([make_id(number)])))
            case 4:
                await tx.vtxos.remove([make_id(number)])
            case 5:
                await tx.vtxos.mark_registered([make_id(number)])
            case 6:
                await tx.movements.create(BOARD, MovementUpdate(offchain_fee_sat=number))
                if number % 5 == 0:
                    raise ZeroDivisionError
            case _:
                if pending := await tx.movements.list_pending():
                    await tx.movements.finish(chance.choice(pending).id, MovementStatus.FAILED)


@pytest.mark.parametrize("seed", range(5))
async def test_after_any_changes_the_lists_are_those_of_the_database(
    sqlite_store: Store, clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)
    movements = HistoryListing(sqlite_store)
    every, unspent = VtxoListing(sqlite_store, EVERY), VtxoListing(sqlite_store, UNSPENT)
    for _ in range(150):
        with suppress(ZeroDivisionError, VtxoStateConflict):
            await change_something(sqlite_store, clock, chance)
        if chance.random() < 0.3:
            assert await movements.list() == await history(sqlite_store)
            assert await every.list() == await vtxos(sqlite_store, EVERY)
            assert await unspent.list() == await vtxos(sqlite_store, UNSPENT)


async def test_changes_during_the_first_read_are_not_lost(store: Store, clock: Clock) -> None:
    movements, every = HistoryListing(store), VtxoListing(store, EVERY)
    await insert(store, *(make_vtxo(number) for number in range(3)))
    async with store.transaction() as tx:
        pending = await tx.movements.create(BOARD)

    async def change() -> None:
        for number in range(10, 15):
            await insert(store, make_vtxo(number))
            async with store.transaction() as tx:
                await tx.movements.create(BOARD)
                await tx.movements.update(pending.id, MovementUpdate(offchain_fee_sat=number))
                await tx.vtxos.mark_spent([make_id(number - 10)] if number < 13 else [])

    await asyncio.gather(movements.list(), every.list(), change(), movements.list(), every.list())

    assert await movements.list() == await history(store)
    assert await every.list() == await vtxos(store, EVERY)


async def test_what_did_not_change_stays_the_same_object(sqlite_store: Store) -> None:
    movements, every = HistoryListing(sqlite_store), VtxoListing(sqlite_store, EVERY)
    await insert(sqlite_store, make_vtxo(1), make_vtxo(2))
    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)
    old_movements, old_vtxos = await movements.list(), await every.list()
    assert await movements.list() is old_movements

    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)
        await tx.vtxos.mark_spent([make_id(2)])

    assert (await movements.list())[1] is old_movements[0]
    kept, changed = await every.list()
    assert (kept.id, kept) == (make_id(1), old_vtxos[0])
    assert kept is old_vtxos[0]
    assert changed is not old_vtxos[1]


@pytest.fixture
def reads(sqlite_store: Store) -> list[str]:
    sent: list[str] = []

    def note(*arguments: object) -> None:
        sent.append(str(arguments[2]))

    sa.event.listen(sqlite_store._reader.sync_engine, "before_cursor_execute", note)
    return sent


async def test_a_change_costs_one_query_however_long_the_lists(sqlite_store: Store, reads: list[str]) -> None:
    movements, every = HistoryListing(sqlite_store), VtxoListing(sqlite_store, EVERY)
    await insert(sqlite_store, *(make_vtxo(number) for number in range(600)))
    await movements.list()
    await every.list()

    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)
        await tx.vtxos.mark_spent([make_id(5)])
    reads.clear()
    await movements.list()
    await every.list()

    assert len([statement for statement in reads if statement.startswith("SELECT")]) == 1


async def test_a_change_that_could_not_be_read_is_read_later(sqlite_store: Store) -> None:
    every = VtxoListing(sqlite_store, EVERY)
    await insert(sqlite_store, make_vtxo(1))
    await every.list()
    await insert(sqlite_store, make_vtxo(2))
    reader, sqlite_store._reader = sqlite_store._reader, sqlite_store._writer
    async with sqlite_store.transaction() as tx:
        await tx._connection.execute(sa.text(f"ALTER TABLE {vtxo_table.name} RENAME TO away"))
    with pytest.raises(StoreError):
        await every.list()

    async with sqlite_store.transaction() as tx:
        await tx._connection.execute(sa.text(f"ALTER TABLE away RENAME TO {vtxo_table.name}"))
    sqlite_store._reader = reader

    assert {vtxo.id for vtxo in await every.list()} == {make_id(1), make_id(2)}
