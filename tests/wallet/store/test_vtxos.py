"""VTXOs in the database: the matrix once more, now with rows, batches and rivals."""

import asyncio
import re

import pytest
import sqlalchemy as sa

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import StoreError
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.exits import ExitRow
from barkd_py.wallet.store.tables import vtxo_body, vtxo_state
from barkd_py.wallet.store.vtxos import AmountOutOfRange
from barkd_py.wallet.vtxo_states import (
    ActionHolder,
    Exited,
    Lock,
    Locked,
    MarkExited,
    MarkSpent,
    MovementHolder,
    NewVtxo,
    Release,
    Spendable,
    Spent,
    StateChange,
    StateKind,
    StealLock,
    StealSpent,
    UnknownVtxo,
    VtxoState,
    VtxoStateConflict,
    next_state,
)
from tests.wallet.samples import (
    ACTION_ID,
    ALL_STATES,
    Clock,
    add_holders,
    get,
    insert,
    make_id,
    make_vtxo,
    states,
    user_vtxos,
    vtxo_of_depth,
)

MOVEMENT_ID = 1  # the first in an empty database


@pytest.fixture
async def held_store(store: Store) -> Store:
    """With the movement and the actions that the sample states name."""
    async with store.transaction() as tx:
        holder, _, _ = await add_holders(tx)
    assert holder.movement_id == MOVEMENT_ID
    return store


async def history_rows(store: Store) -> int:
    async with store.read() as tx:
        result = await tx._connection.execute(sa.select(sa.func.count()).select_from(vtxo_state))
        return int(result.scalar_one())


async def test_what_goes_in_comes_out(store: Store, clock: Clock) -> None:
    await insert(store, *user_vtxos())

    async with store.read() as tx:
        assert await tx.vtxos.bodies([vtxo.id for vtxo in user_vtxos()]) == user_vtxos()
    for vtxo in user_vtxos():
        stored = await get(store, vtxo.id)
        assert (stored.id, stored.amount_sat, stored.policy_kind) == (
            vtxo.id,
            vtxo.amount_sat,
            vtxo.policy.kind,
        )
        assert (stored.user_pubkey, stored.server_pubkey) == (vtxo.user_pubkey, vtxo.server_pubkey)
        assert (stored.expiry_height, stored.exit_delta) == (vtxo.expiry_height, vtxo.exit_delta)
        assert (stored.anchor_point, stored.exit_depth) == (vtxo.anchor_point, vtxo.exit_depth)
        assert stored.exit_tx_weight_wu == vtxo.exit_tx_weight_wu
        assert (stored.registered, stored.state, stored.created_at) == (False, Spendable(), clock.now)


async def test_what_was_swept_is_chosen_for_nothing_but_a_refresh_once_it_has_expired(store: Store) -> None:
    """By contract it stays spendable, and whoever asks for it by its id gets it."""
    swept, other = make_vtxo(1), make_vtxo(2)
    await insert(store, swept, other)
    for kind in ("canceled", "vtxo-swept"):
        async with store.transaction() as tx:
            await tx.exits.save(ExitRow(swept.id, kind, "{}", "[]", None))
            chosen = [vtxo.id for vtxo in await tx.vtxos.payable()]
            first = [vtxo.id for vtxo in await tx.vtxos.first_payable(2)]
            before = [vtxo.id for vtxo in await tx.vtxos.refreshable(swept.expiry_height - 1)]
            after = [vtxo.id for vtxo in await tx.vtxos.refreshable(swept.expiry_height)]
            spendable = [vtxo.id for vtxo in await tx.vtxos.list([StateKind.SPENDABLE])]
        assert chosen == first == before == ([other.id] if kind == "vtxo-swept" else spendable)
        assert after == spendable
        assert set(spendable) == {swept.id, other.id}
    async with store.read() as tx:
        assert len(await tx.vtxos.payable(limit=1)) == 1


async def test_storing_again_changes_nothing(store: Store, clock: Clock) -> None:
    vtxo = make_vtxo(1)
    await insert(store, vtxo, state=Spent())
    before = await get(store, vtxo.id)
    clock.advance(hours=1)

    async with store.transaction() as tx:
        new = await tx.vtxos.insert([NewVtxo(vtxo, Spendable()), NewVtxo(make_vtxo(2), Spendable())])

    assert new == {make_id(2)}
    assert await get(store, vtxo.id) == before
    async with store.read() as tx:
        assert [entry.state for entry in await tx.vtxos.history(vtxo.id)] == [Spent()]


async def test_one_batch_may_hold_a_vtxo_twice(store: Store) -> None:
    async with store.transaction() as tx:
        new = await tx.vtxos.insert([NewVtxo(make_vtxo(1), Spendable()), NewVtxo(make_vtxo(1), Spendable())])
    assert new == {make_id(1)}


async def test_an_amount_beyond_all_bitcoin_is_refused(store: Store) -> None:
    with pytest.raises(AmountOutOfRange):
        await insert(store, make_vtxo(1), make_vtxo(2, amount_sat=2**64 - 1))
    assert await states(store) == {}


@pytest.mark.parametrize("state", ALL_STATES)
@pytest.mark.parametrize(
    "change",
    [
        Lock(MovementHolder(MOVEMENT_ID)),
        Lock(ActionHolder(ACTION_ID)),
        Release(None),
        Release(MovementHolder(MOVEMENT_ID)),
        Release(ActionHolder(ACTION_ID)),
        MarkSpent(),
        MarkExited(),
        StealLock(ActionHolder(ACTION_ID)),
        StealSpent(),
    ],
)
async def test_rows_follow_the_table(
    held_store: Store, clock: Clock, state: VtxoState, change: StateChange
) -> None:
    (vtxo_id,) = await insert(held_store, make_vtxo(1), state=state)
    since = clock.now
    clock.advance(minutes=1)
    expected, refused = None, None
    try:
        expected = next_state(vtxo_id, state, change)
    except VtxoStateConflict as conflict:
        refused = str(conflict)

    async with held_store.transaction() as tx:
        if refused is None:
            await tx.vtxos.change([vtxo_id], change)
        else:
            with pytest.raises(VtxoStateConflict, match=re.escape(refused)):
                await tx.vtxos.change([vtxo_id], change)

    assert (await get(held_store, vtxo_id)).state == (expected or state)
    async with held_store.read() as tx:
        history = [(entry.state, entry.since) for entry in await tx.vtxos.history(vtxo_id)]
    assert history == [(state, since)] + ([(expected, clock.now)] if expected else [])


async def test_states_of_one_moment_keep_their_order(held_store: Store, clock: Clock) -> None:
    """As they do when the clock is put back."""
    vtxo = make_vtxo(1)
    holder = ActionHolder(ACTION_ID)
    async with held_store.transaction() as tx:  # all its times are one
        await tx.vtxos.insert([NewVtxo(vtxo, Spendable())])
        for _ in range(3):
            await tx.vtxos.lock([vtxo.id], holder)
            await tx.vtxos.release([vtxo.id], holder)
    clock.advance(hours=-1)
    async with held_store.transaction() as tx:
        await tx.vtxos.mark_spent([vtxo.id])
    async with held_store.read() as tx:
        history = await tx.vtxos.history(vtxo.id)
    assert len({entry.since for entry in history[:-1]}) == 1
    assert [entry.state for entry in history] == [Spendable(), Locked(holder)] * 3 + [Spendable(), Spent()]


async def test_a_batch_is_all_or_nothing_even_if_the_transaction_goes_on(held_store: Store) -> None:
    free = await insert(held_store, make_vtxo(1), make_vtxo(2))
    (spent,) = await insert(held_store, make_vtxo(3), state=Spent())
    before, rows = await states(held_store), await history_rows(held_store)

    async with held_store.transaction() as tx:
        with pytest.raises(VtxoStateConflict):
            await tx.vtxos.lock([*free, spent], ActionHolder(ACTION_ID))
        with pytest.raises(UnknownVtxo):
            await tx.vtxos.lock([*free, make_id(99)], ActionHolder(ACTION_ID))

    assert await states(held_store) == before
    assert await history_rows(held_store) == rows


async def test_the_same_state_again_writes_no_row(held_store: Store) -> None:
    ids = await insert(held_store, make_vtxo(1), make_vtxo(2))
    holder = ActionHolder(ACTION_ID)
    async with held_store.transaction() as tx:
        await tx.vtxos.lock(ids, holder)
    rows = await history_rows(held_store)

    async with held_store.transaction() as tx:
        await tx.vtxos.lock(ids, holder)
        await tx.vtxos.lock([ids[0], ids[0]], holder)

    assert await history_rows(held_store) == rows


async def test_a_batch_writes_rows_only_for_what_changes(held_store: Store) -> None:
    ids = await insert(held_store, make_vtxo(1), make_vtxo(2), make_vtxo(3))
    async with held_store.transaction() as tx:
        await tx.vtxos.mark_spent(ids[:1])
    rows = await history_rows(held_store)

    async with held_store.transaction() as tx:
        await tx.vtxos.mark_spent(ids)

    assert await history_rows(held_store) == rows + 2
    assert set((await states(held_store)).values()) == {Spent()}


async def test_unknown_ids_are_named(store: Store) -> None:
    with pytest.raises(UnknownVtxo) as raised:
        await get(store, make_id(5))
    assert str(raised.value) == f"no vtxo found with id {make_id(5)}"
    assert raised.value.resources == (str(make_id(5)),)
    async with store.read() as tx:
        assert await tx.vtxos.find(make_id(5)) is None
        with pytest.raises(UnknownVtxo):
            await tx.vtxos.body(make_id(5))
        with pytest.raises(UnknownVtxo):
            await tx.vtxos.get_many([make_id(5)])


async def test_of_many_rivals_one_gets_the_coin(store: Store) -> None:
    (coin,) = await insert(store, make_vtxo(1))
    holders = []
    async with store.transaction() as tx:
        for _ in range(8):
            movement, _, _ = await add_holders(tx)
            holders.append(movement)

    async def grab(holder: MovementHolder) -> MovementHolder | None:
        try:
            async with store.transaction() as tx:
                await tx.vtxos.lock([coin], holder)
        except VtxoStateConflict:
            return None
        return holder

    winners = [holder for holder in await asyncio.gather(*map(grab, holders)) if holder is not None]

    assert len(winners) == 1
    assert (await get(store, coin)).state == Locked(winners[0])


async def test_the_holders_locks_are_released_together(held_store: Store) -> None:
    ids = await insert(held_store, *map(make_vtxo, range(1, 5)))
    ours, theirs = ActionHolder(ACTION_ID), MovementHolder(MOVEMENT_ID)
    async with held_store.transaction() as tx:
        await tx.vtxos.lock(ids[:2], ours)
        await tx.vtxos.lock(ids[2:3], theirs)
        await tx.vtxos.lock(ids[3:], None)

    async with held_store.read() as tx:
        assert {vtxo.id for vtxo in await tx.vtxos.held_by(ours)} == set(ids[:2])
        assert {vtxo.id for vtxo in await tx.vtxos.held_by(None)} == {ids[3]}
    async with held_store.transaction() as tx:
        await tx.vtxos.release_held_by(ours)

    assert await states(held_store) == {
        ids[0]: Spendable(),
        ids[1]: Spendable(),
        ids[2]: Locked(theirs),
        ids[3]: Locked(None),
    }


async def test_a_lock_needs_its_holder(store: Store) -> None:
    (coin,) = await insert(store, make_vtxo(1))
    for holder in (ActionHolder("unknown"), MovementHolder(77)):
        with pytest.raises(StoreError, match=r"(?i)foreign key"):
            async with store.transaction() as tx:
                await tx.vtxos.lock([coin], holder)
    assert await states(store) == {coin: Spendable()}


async def test_an_action_cannot_leave_its_locks_behind(held_store: Store) -> None:
    (coin,) = await insert(held_store, make_vtxo(1))
    async with held_store.transaction() as tx:
        await tx.vtxos.lock([coin], ActionHolder(ACTION_ID))
    with pytest.raises(StoreError, match=r"(?i)foreign key"):
        async with held_store.transaction() as tx:
            await tx.actions.delete(ACTION_ID)

    async with held_store.transaction() as tx:  # the order within a transaction is free
        await tx.actions.delete(ACTION_ID)
        await tx.vtxos.release_held_by(ActionHolder(ACTION_ID))

    assert await states(held_store) == {coin: Spendable()}


async def test_lists_are_ordered_by_expiry_then_by_falling_amount(store: Store) -> None:
    early_small = make_vtxo(1, amount_sat=1_000, expiry_height=10)
    early_large = make_vtxo(2, amount_sat=2_000, expiry_height=10)
    late = make_vtxo(3, amount_sat=9_000, expiry_height=20)
    await insert(store, late, early_small, early_large)

    async with store.read() as tx:
        listed = await tx.vtxos.list()

    assert [vtxo.id for vtxo in listed] == [early_large.id, early_small.id, late.id]


async def test_lists_show_unspent_vtxos_unless_asked_for_others(store: Store) -> None:
    by_kind: dict[StateKind, VtxoId] = {}
    kinds: tuple[VtxoState, ...] = (Spendable(), Locked(None), Spent(), Exited())
    for number, state in enumerate(kinds):
        (by_kind[state.kind],) = await insert(store, make_vtxo(number), state=state)

    async with store.read() as tx:
        unspent = {vtxo.id for vtxo in await tx.vtxos.list()}
        every = {vtxo.id for vtxo in await tx.vtxos.list(None)}
        exited = [vtxo.id for vtxo in await tx.vtxos.list({StateKind.EXITED})]

    assert unspent == {by_kind[StateKind.SPENDABLE], by_kind[StateKind.LOCKED]}
    assert every == set(by_kind.values())
    assert exited == [by_kind[StateKind.EXITED]]


async def test_pages_join_to_the_whole_list(store: Store) -> None:
    vtxos = [make_vtxo(n, amount_sat=1_000 * (n % 3), expiry_height=10 + n % 4) for n in range(25)]
    await insert(store, *vtxos)

    async with store.read() as tx:
        whole = [vtxo.id for vtxo in await tx.vtxos.list()]
        pages: list[VtxoId] = []
        last = None
        while page := await tx.vtxos.list(limit=4, after=last):
            pages.extend(vtxo.id for vtxo in page)
            last = pages[-1]
            assert len(pages) <= 25

    assert pages == whole
    assert len(whole) == 25


async def test_catch_up_asks_for_what_is_neither_registered_nor_spent(store: Store) -> None:
    (spendable,) = await insert(store, make_vtxo(1))
    (exited,) = await insert(store, make_vtxo(2), state=Exited())
    await insert(store, make_vtxo(3), state=Spent())
    async with store.transaction() as tx:
        await tx.vtxos.insert([NewVtxo(make_vtxo(4), Spendable())], registered=True)
        assert set(await tx.vtxos.unregistered()) == {spendable, exited}
        await tx.vtxos.mark_registered([spendable])
        assert await tx.vtxos.unregistered() == (exited,)


async def test_removing_takes_the_history_along(store: Store) -> None:
    removed, kept = await insert(store, make_vtxo(1), make_vtxo(2))
    async with store.transaction() as tx:
        await tx.vtxos.remove([removed])
    assert await states(store) == {kept: Spendable()}
    assert await history_rows(store) == 1
    async with store.read() as tx:
        assert await tx.vtxos.history(removed) == ()


async def test_more_ids_than_a_statement_takes(store: Store) -> None:
    base = vtxo_of_depth(1)
    ids = await insert(store, *(make_vtxo(number, base=base) for number in range(11_000)))
    async with store.transaction() as tx:
        await tx.vtxos.mark_spent(ids)
        assert len(await tx.vtxos.known(ids)) == 11_000
    assert set((await states(store)).values()) == {Spent()}


async def test_the_history_reads_as_barkd_writes_states(held_store: Store) -> None:
    ids: list[VtxoId] = []
    for number, state in enumerate(ALL_STATES):
        ids += await insert(held_store, make_vtxo(number), state=state)
    async with held_store.read() as tx:
        result = await tx._connection.execute(sa.select(vtxo_state.c.state).order_by(vtxo_state.c.id))
        assert list(result.scalars()) == [
            '{"type":"spendable"}',
            '{"type":"locked","holder":null}',
            '{"type":"locked","holder":{"type":"movement","id":1}}',
            f'{{"type":"locked","holder":{{"type":"action","id":"{ACTION_ID}"}}}}',
            '{"type":"locked","holder":{"type":"action","id":"fedcba9876543210fedcba9876543210"}}',
            '{"type":"spent"}',
            '{"type":"exited"}',
        ]
        for vtxo_id, state in zip(ids, ALL_STATES, strict=True):
            assert [entry.state for entry in await tx.vtxos.history(vtxo_id)] == [state]


async def test_a_damaged_body_is_an_error_not_a_vtxo(store: Store) -> None:
    (vtxo_id,) = await insert(store, make_vtxo(1))
    async with store.transaction() as tx:
        await tx._connection.execute(sa.update(vtxo_body).values(genesis=vtxo_body.c.bare))
    async with store.read() as tx:
        with pytest.raises(StoreError):
            await tx.vtxos.body(vtxo_id)


async def test_whether_something_has_to_be_refreshed(store: Store) -> None:
    deep = make_vtxo(1, expiry_height=1_000, base=vtxo_of_depth(3))
    await insert(store, deep)
    await insert(store, make_vtxo(2, expiry_height=10), state=Spent())
    async with store.read() as tx:
        for height, depth, expected in [
            (1_000, None, False),
            (1_001, None, True),
            (1_000, 4, False),
            (1_000, 3, True),
        ]:
            found = await tx.vtxos.has_spendable(expiring_before=height, min_exit_depth=depth)
            assert found == expected, (height, depth)


async def test_ids_of_what_is_unspent(store: Store) -> None:
    await insert(store, *(make_vtxo(number) for number in range(2_100)))
    async with store.transaction() as tx:
        await tx.vtxos.lock([make_id(2)], None)
        await tx.vtxos.mark_spent([make_id(3)])
    async with store.read() as tx:
        found = await tx.vtxos.unspent_ids()
    assert sorted(found) == sorted(make_id(number) for number in range(2_100) if number != 3)
