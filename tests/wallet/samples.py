"""Things to store: VTXOs cut from the vectors, a clock that stands still, rows that locks need."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import OutPoint, Txid
from barkd_py.wallet.mailbox.receipts import note_receipt
from barkd_py.wallet.movements import ROUND_REFRESH
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.actions import ActionKind
from barkd_py.wallet.vtxo_states import (
    ActionHolder,
    Exited,
    Locked,
    MovementHolder,
    NewVtxo,
    Spendable,
    Spent,
    VtxoState,
    WalletVtxo,
)
from tests.support.vectors import load

ACTION_ID = "0123456789abcdef0123456789abcdef"
OTHER_ACTION_ID = "fedcba9876543210fedcba9876543210"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 9, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@cache
def user_vtxos() -> tuple[Vtxo, ...]:
    """The users' VTXOs of the vectors, of every depth and policy."""
    cases = [case for case in load("vtxo") if case["kind"] == "user"]
    found = {vtxo.id: vtxo for vtxo in (Vtxo.decode_hex(case["full_hex"]) for case in cases)}
    return tuple(found.values())


def vtxo_of_depth(depth: int) -> Vtxo:
    return next(vtxo for vtxo in user_vtxos() if vtxo.exit_depth == depth and vtxo.policy.kind == "pubkey")


def make_vtxo(
    number: int, *, amount_sat: int = 10_000, expiry_height: int = 1_000, base: Vtxo | None = None
) -> Vtxo:
    """A VTXO with an id of its own. Its chain does not lead there, which the store never asks."""
    point = OutPoint(Txid(number.to_bytes(32, "big")), number % 7)
    base = base or vtxo_of_depth(1)
    return replace(base, point=point, amount_sat=amount_sat, expiry_height=expiry_height)


def make_id(number: int) -> VtxoId:
    return make_vtxo(number).id


async def insert(store: Store, *vtxos: Vtxo, state: VtxoState | None = None) -> tuple[VtxoId, ...]:
    async with store.transaction() as tx:
        await tx.vtxos.insert(NewVtxo(vtxo, state or Spendable()) for vtxo in vtxos)
    return tuple(vtxo.id for vtxo in vtxos)


async def note_swept(tx: Transaction, vtxos: Sequence[Vtxo]) -> None:
    """In the history, as payments that had been swept before they came."""
    await note_receipt(tx, vtxos, {vtxo.user_pubkey: "ark1" for vtxo in vtxos}, {vtxo.id for vtxo in vtxos})


async def states(store: Store) -> dict[VtxoId, VtxoState]:
    async with store.read() as tx:
        return {vtxo.id: vtxo.state for vtxo in await tx.vtxos.list(None)}


async def get(store: Store, vtxo_id: VtxoId) -> WalletVtxo:
    async with store.read() as tx:
        return await tx.vtxos.get(vtxo_id)


async def add_holders(tx: Transaction) -> tuple[MovementHolder, ActionHolder, ActionHolder]:
    """A movement and two actions that may hold locks."""
    movement = await tx.movements.create(ROUND_REFRESH)
    for action_id in (ACTION_ID, OTHER_ACTION_ID):
        if await tx.actions.find(action_id) is None:
            await tx.actions.save(action_id, ActionKind.ARKOOR_SEND, json.dumps({}))
    return MovementHolder(movement.id), ActionHolder(ACTION_ID), ActionHolder(OTHER_ACTION_ID)


ALL_STATES: tuple[VtxoState, ...] = (
    Spendable(),
    Locked(None),
    Locked(MovementHolder(1)),
    Locked(ActionHolder(ACTION_ID)),
    Locked(ActionHolder(OTHER_ACTION_ID)),
    Spent(),
    Exited(),
)
