"""Where every satoshi counts, on both databases."""

import itertools

import pytest
import sqlalchemy as sa

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.balance import Balance, BalanceReader
from barkd_py.wallet.movements import ROUND_REFRESH
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.store.exits import COMMITTED_KINDS, LIVE_KINDS, ExitRow
from barkd_py.wallet.vtxo_states import (
    ActionHolder,
    Exited,
    Holder,
    Locked,
    MovementHolder,
    NewVtxo,
    Spendable,
    Spent,
    VtxoState,
)
from tests.wallet.samples import insert, make_vtxo, vtxo_of_depth

TIP = 500
_numbers = itertools.count(1)


async def balance(store: Store, tip_height: int = TIP, max_exit_depth: int | None = None) -> Balance:
    return await BalanceReader(store).balance(tip_height, max_exit_depth)


async def put(
    store: Store, amount_sat: int, state: VtxoState | None = None, expiry_height: int = 1_000
) -> VtxoId:
    vtxo = make_vtxo(next(_numbers), amount_sat=amount_sat, expiry_height=expiry_height)
    (vtxo_id,) = await insert(store, vtxo, state=state)
    return vtxo_id


async def start_action(store: Store, action_id: str, kind: ActionKind, *reports: VtxoId) -> ActionHolder:
    async with store.transaction() as tx:
        await tx.actions.save(action_id, kind, "{}", reports)
    return ActionHolder(action_id)


async def lock(store: Store, holder: Holder | None, *ids: VtxoId) -> None:
    async with store.transaction() as tx:
        await tx.vtxos.lock(ids, holder)


async def test_an_empty_wallet(store: Store) -> None:
    assert await balance(store) == Balance()
    assert Balance().total_sat == 0


async def test_expired_vtxos_need_a_refresh(store: Store) -> None:
    await put(store, 1, expiry_height=TIP)
    await put(store, 2, expiry_height=TIP - 1)
    await put(store, 4, expiry_height=TIP + 1)
    assert await balance(store) == Balance(spendable_sat=4, needs_refresh_sat=3)
    assert await balance(store, tip_height=0) == Balance(spendable_sat=7)


async def test_deep_vtxos_need_a_refresh_once_the_limit_is_known(store: Store) -> None:
    for number, depth in ((1, 1), (2, 3), (3, 5)):
        await insert(store, make_vtxo(number, amount_sat=depth, base=vtxo_of_depth(depth)))
    assert await balance(store) == Balance(spendable_sat=9)
    assert await balance(store, max_exit_depth=3) == Balance(spendable_sat=1, needs_refresh_sat=8)


async def test_spent_and_undecided_vtxos_count_nowhere(store: Store) -> None:
    await put(store, 1, Spent())
    await put(store, 2, Locked(None))
    await put(store, 4, Exited())
    assert await balance(store) == Balance()


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (ActionKind.LIGHTNING_SEND, "pending_lightning_send_sat"),
        (ActionKind.LIGHTNING_RECEIVE, "claimable_lightning_receive_sat"),
        (ActionKind.BOARD, "pending_board_sat"),
        (ActionKind.ARKOOR_SEND, "pending_arkoor_send_sat"),
        (ActionKind.OFFBOARD, "pending_offboard_sat"),
    ],
)
async def test_an_action_has_what_it_reports_while_it_is_locked(
    store: Store, kind: ActionKind, field: str
) -> None:
    reported, unreported, free = [await put(store, amount) for amount in (1, 2, 4)]
    holder = await start_action(store, "a", kind, reported, free)
    await lock(store, holder, reported, unreported)
    assert await balance(store) == Balance(spendable_sat=4, **{field: 1})

    async with store.transaction() as tx:  # the next state of the action reports other VTXOs
        await tx.actions.save("a", kind, "{}", [unreported])
    assert await balance(store) == Balance(spendable_sat=4, **{field: 2})


async def test_a_board_reports_what_its_movement_holds(store: Store) -> None:
    board = await put(store, 8)
    async with store.transaction() as tx:
        movement = await tx.movements.create(ROUND_REFRESH)
        await tx.actions.save("board.00.0", ActionKind.BOARD, "{}", [board])
        await tx.vtxos.lock([board], MovementHolder(movement.id))
    assert await balance(store) == Balance(pending_board_sat=8)


async def test_the_oldest_action_has_a_vtxo_that_two_report(store: Store) -> None:
    contested = await put(store, 8)
    await start_action(store, "old", ActionKind.OFFBOARD, contested)
    holder = await start_action(store, "new", ActionKind.ARKOOR_SEND, contested)
    await lock(store, holder, contested)
    assert await balance(store) == Balance(pending_offboard_sat=8)


async def test_a_round_has_inputs_that_are_locked_for_exactly_its_movement(store: Store) -> None:
    ours, anothers, undecided, free = [await put(store, amount) for amount in (1, 2, 4, 8)]
    async with store.transaction() as tx:
        movement, other = [await tx.movements.create(ROUND_REFRESH) for _ in range(2)]
        await tx.rounds.insert("{}", [ours, anothers, undecided, free], movement_id=movement.id)
        await tx.vtxos.lock([ours], MovementHolder(movement.id))
        await tx.vtxos.lock([anothers], MovementHolder(other.id))
        await tx.vtxos.lock([undecided], None)
    assert await balance(store) == Balance(spendable_sat=8, pending_in_round_sat=1)


async def test_a_round_without_movement_has_inputs_that_nobody_holds(store: Store) -> None:
    undecided, held = await put(store, 1), await put(store, 2)
    async with store.transaction() as tx:
        movement = await tx.movements.create(ROUND_REFRESH)
        await tx.rounds.insert("{}", [undecided, held])
        await tx.vtxos.lock([undecided], None)
        await tx.vtxos.lock([held], MovementHolder(movement.id))
    assert await balance(store) == Balance(pending_in_round_sat=1)


async def test_an_input_of_two_rounds_counts_once(store: Store) -> None:
    coin = await put(store, 8)
    async with store.transaction() as tx:
        movement = await tx.movements.create(ROUND_REFRESH)
        for _ in range(2):
            await tx.rounds.insert("{}", [coin], movement_id=movement.id)
        await tx.vtxos.lock([coin], MovementHolder(movement.id))
    assert await balance(store) == Balance(pending_in_round_sat=8)


async def test_a_round_comes_before_actions(store: Store) -> None:
    coin = await put(store, 8)
    await start_action(store, "a", ActionKind.ARKOOR_SEND, coin)
    async with store.transaction() as tx:
        movement = await tx.movements.create(ROUND_REFRESH)
        await tx.rounds.insert("{}", [coin], movement_id=movement.id)
        await tx.vtxos.lock([coin], MovementHolder(movement.id))
    assert await balance(store) == Balance(pending_in_round_sat=8)


EXIT_KINDS = [
    "start",
    "processing",
    "awaiting-delta",
    "claimable",
    "claim-in-progress",
    "claimed",
    "canceled",
]


@pytest.mark.parametrize("kind", EXIT_KINDS)
async def test_committed_exits_count_until_they_are_claimed(store: Store, kind: str) -> None:
    exited = await put(store, 1, Exited())
    not_yet = await put(store, 2)
    async with store.transaction() as tx:
        for vtxo_id in (exited, not_yet):
            await tx.exits.save(ExitRow(vtxo_id, kind, "{}", "[]", None))
    counted = 1 if kind in ("awaiting-delta", "claimable", "claim-in-progress") else 0
    assert await balance(store) == Balance(spendable_sat=2, pending_exit_sat=counted)


def test_committed_exits_are_live() -> None:
    assert COMMITTED_KINDS < LIVE_KINDS < set(EXIT_KINDS) | {"vtxo-already-spent", "vtxo-swept"}


async def test_a_vtxo_that_exits_under_an_action_counts_once(store: Store) -> None:
    coin = await put(store, 8)
    holder = await start_action(store, "a", ActionKind.ARKOOR_SEND, coin)
    await lock(store, holder, coin)
    async with store.transaction() as tx:
        await tx.vtxos.mark_exited([coin])
        await tx.exits.save(ExitRow(coin, "awaiting-delta", "{}", "[]", None))
    assert await balance(store) == Balance(pending_exit_sat=8)


async def test_the_fields_add_up(store: Store) -> None:
    ids = [await put(store, 1 << number) for number in range(4)]
    holder = await start_action(store, "a", ActionKind.OFFBOARD, ids[0])
    await lock(store, holder, ids[0])
    assert (await balance(store)).total_sat == 0b1111


async def test_the_balance_is_read_again_after_a_commit_and_for_another_view(store: Store) -> None:
    statements: list[str] = []
    sa.event.listen(
        store._reader.sync_engine, "before_cursor_execute", lambda *args: statements.append(str(args[2]))
    )
    reader = BalanceReader(store)

    def reads() -> int:
        return sum("SELECT" in statement and "sum(" in statement for statement in statements)

    async def look(tip_height: int = TIP) -> tuple[Balance, int]:
        return await reader.balance(tip_height, None), reads()

    assert await look() == (Balance(), 1)
    assert await look() == (Balance(), 1)
    assert await look(TIP + 1) == (Balance(), 2)
    await put(store, 5)
    assert await look() == (Balance(spendable_sat=5), 3)


async def test_ten_thousand_vtxos(store: Store) -> None:
    base = vtxo_of_depth(1)
    async with store.transaction() as tx:
        await tx.vtxos.insert(
            NewVtxo(make_vtxo(number, base=base, amount_sat=1), Spendable())
            for number in range(10_000, 20_000)
        )
    assert await balance(store) == Balance(spendable_sat=10_000)
