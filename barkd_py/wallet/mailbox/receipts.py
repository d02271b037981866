"""What the history says of payments that came in.

A VTXO that had expired, and was swept, before it got here is kept, for the server may refresh it. It is no
income: nobody pays with it, and nobody but the server can make it money. Source: sheet 02 §5.5.
"""

from collections.abc import Collection, Mapping, Sequence

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.wallet.movements import (
    ARKOOR_RECEIVE,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.store import Transaction

SWEPT = (
    "it had expired, and what it comes from was spent on the chain, before it was received: "
    "it is no money unless the server refreshes it"
)


async def note_receipt(
    tx: Transaction, vtxos: Sequence[Vtxo], addresses: Mapping[PublicKey, str], swept: Collection[VtxoId]
) -> None:
    """Movements of VTXOs that were just stored. addresses: ours, by key. swept: those that are no income."""
    money = [vtxo for vtxo in vtxos if vtxo.id not in swept]
    if money:
        await tx.movements.create_finished(
            ARKOOR_RECEIVE, MovementStatus.SUCCESSFUL, _update(money, addresses, _sum_sat(money))
        )
    no_money = [vtxo for vtxo in vtxos if vtxo.id in swept]
    if no_money:
        update = _update(no_money, addresses, 0, SWEPT)
        await tx.movements.create_finished(ARKOOR_RECEIVE, MovementStatus.FAILED, update)


def _update(
    vtxos: Sequence[Vtxo], addresses: Mapping[PublicKey, str], effective_sat: int, error: str | None = None
) -> MovementUpdate:
    return MovementUpdate(
        intended_balance_sat=_sum_sat(vtxos),
        effective_balance_sat=effective_sat,
        output_vtxos=tuple(vtxo.id for vtxo in vtxos),
        received_on=_received_on(vtxos, addresses),
        metadata={} if error is None else {"error": error},
    )


def _received_on(
    vtxos: Sequence[Vtxo], addresses: Mapping[PublicKey, str]
) -> tuple[MovementDestination, ...]:
    """Our addresses, each with the sum that came in on it."""
    sums: dict[PublicKey, int] = {}
    for vtxo in vtxos:
        sums[vtxo.user_pubkey] = sums.get(vtxo.user_pubkey, 0) + vtxo.amount_sat
    return tuple(
        MovementDestination(PaymentMethod(PaymentMethodKind.ARK, addresses[key]), amount_sat)
        for key, amount_sat in sums.items()
    )


def _sum_sat(vtxos: Sequence[Vtxo]) -> int:
    return sum(vtxo.amount_sat for vtxo in vtxos)
