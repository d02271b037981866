"""Movements in the database, and what is told about them."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from barkd_py.errors import StoreError
from barkd_py.wallet.movements import (
    ARKOOR_RECEIVE,
    ARKOOR_SEND,
    BOARD,
    Movement,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
    PendingIsNotFinished,
    UnknownMovement,
)
from barkd_py.wallet.notifications import MovementCreated, MovementUpdated, WalletEvent
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.recovery import RecoveryEntry, RecoveryOutcome
from barkd_py.wallet.store.tables import movement as movement_table
from tests.wallet.samples import ACTION_ID, Clock, make_id

ARK = PaymentMethod(PaymentMethodKind.ARK, "tark1alice")
INVOICE = PaymentMethod(PaymentMethodKind.INVOICE, "lni" + "q" * 20_000)

FULL = MovementUpdate(
    intended_balance_sat=-1_000,
    effective_balance_sat=-1_100,
    offchain_fee_sat=100,
    metadata={"note": "naïve \U0001f600 \x00", "nested": {"list": [1, None, True]}},
    sent_to=(MovementDestination(ARK, 600), MovementDestination(ARK, 400)),
    received_on=(MovementDestination(INVOICE, 5),),
    input_vtxos=(make_id(3), make_id(1)),
    output_vtxos=(make_id(2),),
    exited_vtxos=(make_id(9), make_id(8)),
)


@pytest.fixture
def events(store: Store) -> list[WalletEvent]:
    seen: list[WalletEvent] = []
    store.on_commit(seen.extend)
    return seen


async def load(store: Store, movement_id: int) -> Movement:
    async with store.read() as tx:
        return await tx.movements.get(movement_id)


async def test_what_goes_in_comes_out(store: Store, clock: Clock) -> None:
    async with store.transaction() as tx:
        created = await tx.movements.create(ARKOOR_SEND, FULL)

    assert await load(store, created.id) == created
    assert created == Movement(
        id=created.id,
        status=MovementStatus.PENDING,
        subsystem=ARKOOR_SEND,
        created_at=clock.now,
        updated_at=clock.now,
        metadata=FULL.metadata,
        intended_balance_sat=-1_000,
        effective_balance_sat=-1_100,
        offchain_fee_sat=100,
        sent_to=FULL.sent_to,
        received_on=FULL.received_on,
        input_vtxos=FULL.input_vtxos,
        output_vtxos=FULL.output_vtxos,
        exited_vtxos=FULL.exited_vtxos,
    )


async def test_creation_is_announced(store: Store, events: list[WalletEvent]) -> None:
    async with store.transaction() as tx:
        plain = await tx.movements.create(BOARD)
    assert events == [MovementCreated(plain)]


async def test_creation_with_an_update_announces_the_update_first(
    store: Store, events: list[WalletEvent]
) -> None:
    async with store.transaction() as tx:
        full = await tx.movements.create(ARKOOR_SEND, FULL)
    assert events == [MovementUpdated(full), MovementCreated(full)]


async def test_a_finished_movement_is_announced_once(
    store: Store, clock: Clock, events: list[WalletEvent]
) -> None:
    async with store.transaction() as tx:
        received = await tx.movements.create_finished(ARKOOR_RECEIVE, MovementStatus.SUCCESSFUL, FULL)
    assert events == [MovementCreated(received)]
    assert (received.status, received.completed_at) == (MovementStatus.SUCCESSFUL, clock.now)
    assert await load(store, received.id) == received


async def test_an_action_has_one_movement(store: Store, clock: Clock, events: list[WalletEvent]) -> None:
    async with store.transaction() as tx:
        first = await tx.movements.get_or_create(ACTION_ID, ARKOOR_SEND, FULL)
    clock.advance(minutes=1)
    async with store.transaction() as tx:
        again = await tx.movements.get_or_create(
            ACTION_ID, ARKOOR_SEND, MovementUpdate(sent_to=FULL.sent_to, intended_balance_sat=-7)
        )
    assert again == first
    assert events == [MovementCreated(first)]
    async with store.read() as tx:
        assert await tx.movements.list() == (first,)
        assert await tx.movements.find_by_action(ACTION_ID) == first
        assert await tx.movements.find_by_action("other") is None


async def test_updates_are_stored_and_announced(
    store: Store, clock: Clock, events: list[WalletEvent]
) -> None:
    async with store.transaction() as tx:
        created = await tx.movements.create(ARKOOR_SEND, FULL)
    events.clear()
    clock.advance(minutes=1)

    async with store.transaction() as tx:
        updated = await tx.movements.update(
            created.id, MovementUpdate(output_vtxos=(make_id(2), make_id(5)), replace_sent_to=())
        )

    assert updated == replace(
        created, updated_at=clock.now, sent_to=(), output_vtxos=(make_id(2), make_id(5))
    )
    assert await load(store, created.id) == updated
    assert events == [MovementUpdated(updated)]


async def test_finishing_twice_is_silent(store: Store, clock: Clock, events: list[WalletEvent]) -> None:
    async with store.transaction() as tx:
        created = await tx.movements.create(ARKOOR_SEND)
        finished = await tx.movements.finish(created.id, MovementStatus.FAILED)
    clock.advance(minutes=1)
    async with store.transaction() as tx:
        again = await tx.movements.finish(created.id, MovementStatus.FAILED)

    assert again == finished
    assert await load(store, created.id) == finished
    assert events == [MovementCreated(created), MovementUpdated(finished)]


async def test_another_status_overrides_and_is_announced(
    store: Store, clock: Clock, events: list[WalletEvent]
) -> None:
    async with store.transaction() as tx:
        created = await tx.movements.create(ARKOOR_SEND)
        await tx.movements.finish(created.id, MovementStatus.FAILED)
    clock.advance(minutes=1)
    async with store.transaction() as tx:
        overridden = await tx.movements.finish_with_update(
            created.id, MovementStatus.SUCCESSFUL, MovementUpdate(effective_balance_sat=-3)
        )
    assert (overridden.completed_at, overridden.effective_balance_sat) == (clock.now, -3)
    assert await load(store, created.id) == overridden
    assert events[-1] == MovementUpdated(overridden)


async def test_finishing_into_pending_changes_nothing(store: Store) -> None:
    async with store.transaction() as tx:
        created = await tx.movements.create(ARKOOR_SEND)
        with pytest.raises(PendingIsNotFinished):
            await tx.movements.finish(created.id, MovementStatus.PENDING)
    assert await load(store, created.id) == created


async def test_a_user_patches_metadata(store: Store, clock: Clock, events: list[WalletEvent]) -> None:
    async with store.transaction() as tx:
        created = await tx.movements.create(ARKOOR_SEND, FULL)
    clock.advance(minutes=1)
    async with store.transaction() as tx:
        patched = await tx.movements.patch_metadata(
            created.id, {"note": None, "nested": {"list": "x"}, "n": 1}
        )
    assert patched == replace(created, updated_at=clock.now, metadata={"nested": {"list": "x"}, "n": 1})
    assert await load(store, created.id) == patched
    assert events[-1] == MovementUpdated(patched)


async def test_unknown_movements_are_named(store: Store) -> None:
    async with store.transaction() as tx:
        for attempt in (
            tx.movements.get(7),
            tx.movements.update(7, MovementUpdate()),
            tx.movements.finish(7, MovementStatus.FAILED),
            tx.movements.patch_metadata(7, {}),
        ):
            with pytest.raises(UnknownMovement):
                await attempt


async def test_the_history_is_newest_first_even_if_the_clock_is_put_back(store: Store, clock: Clock) -> None:
    ids = []
    for minutes in (0, 0, 1, 1):
        clock.advance(minutes=minutes)
        async with store.transaction() as tx:
            ids.append((await tx.movements.create(BOARD)).id)
    clock.advance(minutes=-1)  # a clock that was set back
    async with store.transaction() as tx:
        late = (await tx.movements.create(BOARD)).id
    async with store.read() as tx:
        assert [movement.id for movement in await tx.movements.list()] == [
            late,
            ids[3],
            ids[2],
            ids[1],
            ids[0],
        ]


async def test_pages_join_to_the_whole_history(store: Store, clock: Clock) -> None:
    for number in range(23):
        clock.advance(minutes=number % 3 - 1)
        async with store.transaction() as tx:
            await tx.movements.create(BOARD, MovementUpdate(output_vtxos=(make_id(number),)))
    async with store.read() as tx:
        whole = await tx.movements.list()
        pages: list[Movement] = []
        while page := await tx.movements.list(limit=5, before=pages[-1].id if pages else None):
            pages.extend(page)
            assert len(pages) <= 23
    assert tuple(pages) == whole
    assert len(whole) == 23


async def test_movements_are_found_by_exactly_their_method(store: Store) -> None:
    other_kind = PaymentMethod(PaymentMethodKind.CUSTOM, ARK.value)
    async with store.transaction() as tx:
        sent = await tx.movements.create(
            ARKOOR_SEND, MovementUpdate(sent_to=(MovementDestination(ARK, 1), MovementDestination(ARK, 2)))
        )
        received = await tx.movements.create(
            ARKOOR_RECEIVE, MovementUpdate(received_on=(MovementDestination(ARK, 1),))
        )
        await tx.movements.create(ARKOOR_SEND, MovementUpdate(sent_to=(MovementDestination(other_kind, 1),)))
        long = await tx.movements.create(
            ARKOOR_SEND, MovementUpdate(sent_to=(MovementDestination(INVOICE, 1),))
        )
    async with store.read() as tx:
        assert await tx.movements.list_by_method(ARK) == (sent, received)
        assert await tx.movements.list_by_method(INVOICE) == (long,)
        assert await tx.movements.list_by_method(PaymentMethod(PaymentMethodKind.ARK, "tark1ALICE")) == ()


async def test_the_database_refuses_a_status_that_contradicts_its_completion(store: Store) -> None:
    async with store.transaction() as tx:
        created = await tx.movements.create(BOARD)
    with pytest.raises(StoreError):
        async with store.transaction() as tx:
            await tx._connection.execute(sa.update(movement_table).values(status="successful"))
    assert await load(store, created.id) == created


@pytest.fixture
def count_statements() -> Callable[[AsyncEngine], list[str]]:
    def start(engine: AsyncEngine) -> list[str]:
        statements: list[str] = []

        def note(*arguments: object) -> None:
            statements.append(str(arguments[2]))

        sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
        return statements

    return start


async def test_a_longer_history_takes_no_more_statements(
    store: Store, count_statements: Callable[[AsyncEngine], list[str]]
) -> None:
    statements = count_statements(store._reader)
    lengths = []
    for _ in range(2):
        async with store.transaction() as tx:
            for _ in range(30):
                await tx.movements.create(ARKOOR_SEND, FULL)
        statements.clear()
        async with store.read() as tx:
            assert all(movement.sent_to == FULL.sent_to for movement in await tx.movements.list())
        lengths.append(len([statement for statement in statements if statement.startswith("SELECT")]))
    assert lengths == [3, 3]


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "x\udfff\0"])
async def test_what_no_database_can_hold_is_neither_an_error_nor_lost(store: Store, text: str) -> None:
    """Somebody else wrote it: whoever pays, or asks for the history."""
    method = PaymentMethod(PaymentMethodKind.CUSTOM, text)
    async with store.read() as tx:
        assert await tx.movements.list_by_method(method) == ()
    async with store.transaction() as tx:
        made = await tx.movements.create(
            ARKOOR_SEND, MovementUpdate(sent_to=(MovementDestination(method, 1),), metadata={text: text})
        )
        await tx.movements.patch_metadata(made.id, {"other": text})
        entry = RecoveryEntry(make_id(1), RecoveryOutcome.FAILED, 1, text)
        await tx.recovery.put([entry])
    async with store.read() as tx:
        (found,) = await tx.movements.list_by_method(method)
        (noted,) = await tx.recovery.entries()
    assert found.metadata == {text: text, "other": text}
    assert "\N{REPLACEMENT CHARACTER}" in found.sent_to[0].method.value
    assert noted.reason == found.sent_to[0].method.value
