"""Inputs that are read bit by bit are those that would be chosen with all VTXOs in sight."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

import pytest

from barkd_py.ark.fees import VtxoFeeInfo
from barkd_py.ark.vtxo import Vtxo
from barkd_py.errors import BarkdError
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.exits import ExitRow
from barkd_py.wallet.vtxo_states import WalletVtxo
from barkd_py.wallet.vtxos.inputs import FIRST_COUNT, choose
from barkd_py.wallet.vtxos.selection import NotEnoughVtxos, SelectionLimits, select, select_with_fee
from tests.wallet.samples import insert, make_vtxo, user_vtxos

T = TypeVar("T")

TIP_HEIGHT = 1_000


def random_wallet(random: Random, count: int) -> list[Vtxo]:
    """Few amounts, heights and depths, so that many are equal; HTLCs and expired ones among them."""
    return [
        make_vtxo(
            random.getrandbits(200),
            base=random.choice(user_vtxos()),
            amount_sat=random.randrange(1, 6) * 1_000,
            expiry_height=TIP_HEIGHT + random.randrange(-2, 6),
        )
        for _ in range(count)
    ]


def random_limits(random: Random, vtxos: Sequence[Vtxo]) -> SelectionLimits:
    return SelectionLimits(
        max_exit_depth=random.choice([None, 1, 3]),
        expires_after_height=random.choice([None, TIP_HEIGHT, TIP_HEIGHT + 3]),
        max_inputs=random.choice([None, None, 1, 7, 40]),
        exclude=frozenset(vtxo.id for vtxo in random.sample(vtxos, min(random.randrange(3), len(vtxos)))),
    )


def fee_of(amount_sat: int, infos: Sequence[VtxoFeeInfo]) -> int:
    return 10 + sum(info.expiry_blocks * info.amount_sat // 1_000 for info in infos)


def outcome_of(pick: Callable[[], T]) -> T | str:
    try:
        return pick()
    except BarkdError as error:
        return f"{error!r} {error.__cause__!r}"


async def chosen(
    tx: Transaction, pick: Callable[[Sequence[WalletVtxo]], T], limits: SelectionLimits
) -> T | str:
    try:
        return await choose(tx, pick, expires_after_height=limits.expires_after_height)
    except BarkdError as error:
        return f"{error!r} {error.__cause__!r}"


@pytest.mark.parametrize("count", [0, FIRST_COUNT, 300])
async def test_what_is_not_read_changes_no_choice(store: Store, count: int) -> None:
    random = Random(count)
    vtxos = random_wallet(random, count) or [make_vtxo(1)]
    await insert(store, *vtxos)
    async with store.transaction() as tx:
        for vtxo in random.sample(vtxos, len(vtxos) // 10):
            await tx.exits.save(ExitRow(vtxo.id, "vtxo-swept", "{}", "[]", None))
    async with store.read() as tx:
        payable = await tx.vtxos.payable()
        total_sat = sum(vtxo.amount_sat for vtxo in payable)
        for _ in range(150):
            limits = random_limits(random, vtxos)
            amount_sat = int(random.uniform(0, 1.2) ** 3 * total_sat)

            def pick(seen: Sequence[WalletVtxo]) -> object:
                return select(seen, amount_sat, limits)  # noqa: B023

            def pick_with_fee(seen: Sequence[WalletVtxo]) -> object:
                return select_with_fee(seen, amount_sat, fee_of, tip_height=TIP_HEIGHT, limits=limits)  # noqa: B023

            assert await chosen(tx, pick, limits) == outcome_of(lambda: pick(payable))
            assert await chosen(tx, pick_with_fee, limits) == outcome_of(lambda: pick_with_fee(payable))


async def test_no_more_is_read_than_is_needed(sqlite_store: Store) -> None:
    await insert(sqlite_store, *random_wallet(Random(1), 1_000))
    seen: list[int] = []

    def pick(vtxos: Sequence[WalletVtxo]) -> tuple[WalletVtxo, ...]:
        seen.append(len(vtxos))
        return select(vtxos, 100_000)

    async with sqlite_store.read() as tx:
        await choose(tx, pick)
        few = seen.copy()
        with pytest.raises(NotEnoughVtxos):
            await choose(tx, lambda vtxos: select(vtxos, 10**9))
    assert few == [FIRST_COUNT, 8 * FIRST_COUNT]


async def test_who_has_nothing_is_told_so(sqlite_store: Store) -> None:
    async with sqlite_store.read() as tx:
        with pytest.raises(NotEnoughVtxos):
            await choose(tx, lambda vtxos: select(vtxos, 1))
