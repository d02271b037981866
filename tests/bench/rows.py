"""Fills a wallet's database with rows, past everything that would make them one by one."""

from collections.abc import Iterator
from hashlib import sha256, sha512
from itertools import islice

import sqlalchemy as sa

from barkd_py.wallet.movements import PaymentMethod, PaymentMethodKind
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.tables import movement, movement_destination, movement_vtxo
from barkd_py.wallet.vtxo_states import NewVtxo, Spendable
from tests.wallet.samples import make_vtxo, vtxo_of_depth

_BATCH = 1_000

# Above the ids of anything else; far above any tip, so that nothing is due for a refresh.
_FIRST_VTXO = 1 << 200
_EXPIRY_HEIGHT = 1_000_000


async def add_vtxos(store: Store, count: int) -> None:
    """Spendable VTXOs that the server is said to know already."""
    base = vtxo_of_depth(1)
    made = (
        NewVtxo(
            make_vtxo(
                _FIRST_VTXO + number,
                base=base,
                amount_sat=1_000 + number % 977,
                expiry_height=_EXPIRY_HEIGHT + number % 500,
            ),
            Spendable(),
        )
        for number in range(count)
    )
    while batch := list(islice(made, _BATCH)):
        async with store.transaction() as tx:
            await tx.vtxos.insert(batch, registered=True)


def payee_of(number: int) -> PaymentMethod:
    """Of a movement: a script. Like all that a wallet holds, it looks like chance, and packs like that."""
    return PaymentMethod(PaymentMethodKind.OUTPUT_SCRIPT, sha512(b"%d" % number).hexdigest())


def _vtxo_id(seed: str) -> str:
    return f"{sha256(seed.encode()).hexdigest()}:0"


async def add_movements(store: Store, count: int) -> None:
    """Finished payments, each to another payee."""
    async with store.read() as tx:
        newest = await tx.movements.list(limit=1)
    numbers = iter(range(newest[0].id + 1 if newest else 1, (newest[0].id if newest else 0) + count + 1))
    while batch := list(islice(numbers, _BATCH)):
        async with store.transaction() as tx:
            for table, rows in _movement_rows(batch):
                await tx._connection.execute(sa.insert(table), rows)


def _movement_rows(numbers: list[int]) -> Iterator[tuple[sa.Table, list[dict[str, object]]]]:
    from barkd_py.wallet.store.transaction import system_clock

    now = system_clock()
    yield (
        movement,
        [
            {
                "id": number,
                "status": "successful",
                "subsystem_name": "bark.arkoor",
                "subsystem_kind": "send",
                "metadata": "{}",
                "intended_balance_sat": -1_000,
                "effective_balance_sat": -1_000,
                "offchain_fee_sat": 0,
                "created_at": now,
                "updated_at": now,
                "completed_at": now,
            }
            for number in numbers
        ],
    )
    yield (
        movement_destination,
        [
            {
                "movement_id": number,
                "role": "sent_to",
                "position": 0,
                "method_kind": payee.kind.value,
                "method_value": payee.value,
                "amount_sat": 1_000,
            }
            for number in numbers
            for payee in (payee_of(number),)
        ],
    )
    yield (
        movement_vtxo,
        [
            {"movement_id": number, "role": role, "position": 0, "vtxo_id": _vtxo_id(f"{role} {number}")}
            for number in numbers
            for role in ("input", "output")
        ],
    )
