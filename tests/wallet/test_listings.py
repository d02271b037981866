"""Lists that are brought up to date by what changed always equal those that are read anew."""

import asyncio
import random
from contextlib import suppress
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncTransaction

from barkd_py.errors import StoreError
from barkd_py.wallet.listings import HistoryListing, VtxoListing, render_by_method
from barkd_py.wallet.movements import (
    BOARD,
    Movement,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.notifications import MovementUpdated
from barkd_py.wallet.rendered_list import PAGE_ITEMS
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.tables import vtxo as vtxo_table
from barkd_py.wallet.vtxo_states import (
    UNSPENT,
    NewVtxo,
    Spendable,
    StateKind,
    VtxoStateConflict,
    WalletVtxo,
)
from tests.wallet.samples import Clock, insert, make_id, make_vtxo

EVERY = frozenset(StateKind)


def text_of(item: Movement | WalletVtxo) -> bytes:
    """Tells every difference, and has commas of its own."""
    return repr(item).encode()


async def shown(listing: HistoryListing | VtxoListing) -> bytes:
    return b"".join((await listing.rendered("text", text_of)).chunks())


async def history(store: Store) -> bytes:
    async with store.read() as tx:
        return b",".join(map(text_of, await tx.movements.list()))


async def vtxos(store: Store, kinds: frozenset[StateKind]) -> bytes:
    async with store.read() as tx:
        return b",".join(map(text_of, await tx.vtxos.list(kinds)))


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
                pending = [
                    each for each in await tx.movements.list() if each.status is MovementStatus.PENDING
                ]
                if pending:
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
            assert await shown(movements) == await history(sqlite_store)
            assert await shown(every) == await vtxos(sqlite_store, EVERY)
            assert await shown(unspent) == await vtxos(sqlite_store, UNSPENT)


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

    await asyncio.gather(shown(movements), shown(every), change(), shown(movements), shown(every))

    assert await shown(movements) == await history(store)
    assert await shown(every) == await vtxos(store, EVERY)


async def test_only_what_changed_is_rendered_again(sqlite_store: Store) -> None:
    movements, every = HistoryListing(sqlite_store), VtxoListing(sqlite_store, EVERY)
    rendered: list[object] = []

    def render(item: Movement | WalletVtxo) -> bytes:
        rendered.append(item.id)
        return text_of(item)

    await insert(sqlite_store, make_vtxo(1), make_vtxo(2))
    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)
    for _ in range(2):
        await movements.rendered("text", render)
        await every.rendered("text", render)
    assert rendered == [1, make_id(1), make_id(2)]
    rendered.clear()

    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)
        await tx.vtxos.mark_spent([make_id(2)])
    await movements.rendered("text", render)
    await every.rendered("text", render)

    assert rendered == [2, make_id(2)]


async def test_each_form_is_kept_by_itself(sqlite_store: Store) -> None:
    movements = HistoryListing(sqlite_store)
    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)

    async def ids(form: str, suffix: str) -> bytes:
        listed = await movements.rendered(form, lambda movement: f"{movement.id}{suffix}".encode())
        return b"".join(listed.chunks())

    assert (await ids("one", "a"), await ids("other", "b")) == (b"1a", b"1b")
    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)
    assert (await ids("one", "a"), await ids("other", "b")) == (b"2a,1a", b"2b,1b")


async def test_a_list_that_is_being_sent_stays_as_it_was(sqlite_store: Store) -> None:
    movements = HistoryListing(sqlite_store)
    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)
    before = await history(sqlite_store)
    listed = await movements.rendered("text", text_of)
    async with sqlite_store.transaction() as tx:
        await tx.movements.finish(1, MovementStatus.FAILED)
        await tx.movements.create(BOARD)
    await shown(movements)

    assert b"".join(listed.chunks()) == before
    assert listed.size == len(before)


async def test_a_list_that_nobody_asks_for_is_given_up(sqlite_store: Store) -> None:
    """Or each change would be remembered for a client that has gone."""
    movements = HistoryListing(sqlite_store)
    await shown(movements)
    async with sqlite_store.transaction() as tx:
        movement = await tx.movements.create(BOARD)
    copies = [MovementUpdated(replace(movement, id=number)) for number in range(2, 10_001)]
    movements._note_events(copies[:-1])
    (form,) = movements._forms.values()
    assert len(form.changed) == 9_999

    movements._note_events([copies[-1], MovementUpdated(replace(movement, id=20_000))])

    assert (form.pages, form.changed) == (None, {})
    assert await shown(movements) == await history(sqlite_store)


async def test_all_items_as_objects(store: Store) -> None:
    await insert(store, *(make_vtxo(number) for number in range(300)))
    async with store.transaction() as tx:
        for _ in range(3):
            await tx.movements.create(BOARD)
    async with store.read() as tx:
        assert await HistoryListing(store).items() == await tx.movements.list()
        assert await VtxoListing(store, EVERY).items() == await tx.vtxos.list(EVERY)


async def test_movements_of_one_method(store: Store) -> None:
    method = PaymentMethod(PaymentMethodKind.ARK, "tark1payee")
    other = PaymentMethod(PaymentMethodKind.BITCOIN, "tark1payee")
    async with store.transaction() as tx:
        for number in range(300):
            to = MovementDestination(method if number % 2 else other, number)
            await tx.movements.create(BOARD, MovementUpdate(sent_to=(to,)))

    listed = await render_by_method(store, method, lambda movement: str(movement.id).encode())

    assert b"".join(listed.chunks()) == b",".join(b"%d" % number for number in range(2, 301, 2))


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
    await shown(movements)
    await shown(every)

    async with sqlite_store.transaction() as tx:
        await tx.movements.create(BOARD)
        await tx.vtxos.mark_spent([make_id(5)])
    reads.clear()
    await shown(movements)
    await shown(every)

    assert len([statement for statement in reads if statement.startswith("SELECT")]) == 1


async def test_a_change_that_could_not_be_read_is_read_later(sqlite_store: Store) -> None:
    every = VtxoListing(sqlite_store, EVERY)
    await insert(sqlite_store, make_vtxo(1))
    await shown(every)
    await insert(sqlite_store, make_vtxo(2))
    reader, sqlite_store._reader = sqlite_store._reader, sqlite_store._writer
    async with sqlite_store.transaction() as tx:
        await tx._connection.execute(sa.text(f"ALTER TABLE {vtxo_table.name} RENAME TO away"))
    with pytest.raises(StoreError):
        await shown(every)

    async with sqlite_store.transaction() as tx:
        await tx._connection.execute(sa.text(f"ALTER TABLE away RENAME TO {vtxo_table.name}"))
    sqlite_store._reader = reader

    assert await shown(every) == await vtxos(sqlite_store, EVERY)


async def test_a_commit_whose_answer_was_lost_is_shown(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = HistoryListing(sqlite_store)
    await shown(listing)
    commit = AsyncTransaction.commit

    async def commit_and_lose_the_answer(unit: AsyncTransaction) -> None:
        await commit(unit)
        raise DBAPIError("COMMIT", None, Exception("connection was closed in the middle of operation"))

    with monkeypatch.context() as broken:
        broken.setattr(AsyncTransaction, "commit", commit_and_lose_the_answer)
        with pytest.raises(StoreError):
            async with sqlite_store.transaction() as tx:
                await tx.movements.create(BOARD, MovementUpdate(offchain_fee_sat=1))
    in_database = await history(sqlite_store)
    assert in_database != b""
    assert await shown(listing) == in_database


async def test_lists_that_are_read_at_once_take_turns(sqlite_store: Store) -> None:
    """Whoever wants something else waits for one page, not for one of each list."""
    async with sqlite_store.transaction() as tx:
        for _ in range(3 * PAGE_ITEMS):
            await tx.movements.create(BOARD)
    await insert(sqlite_store, *(make_vtxo(number) for number in range(3 * PAGE_ITEMS)))
    turn = asyncio.Lock()
    listings: list[HistoryListing | VtxoListing] = [
        HistoryListing(sqlite_store, turn),
        VtxoListing(sqlite_store, EVERY, turn),
        VtxoListing(sqlite_store, UNSPENT, turn),
    ]
    rendered = [0]  # items, by turn of the loop

    def render(item: Movement | WalletVtxo) -> bytes:
        rendered[-1] += 1
        return b"{}"

    async def count_turns() -> None:
        while True:
            await asyncio.sleep(0)
            rendered.append(0)

    counting = asyncio.create_task(count_turns())
    await asyncio.gather(*(listing.rendered("text", render) for listing in listings))
    counting.cancel()
    assert sum(rendered) == 9 * PAGE_ITEMS
    assert max(rendered) == PAGE_ITEMS
