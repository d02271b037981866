"""What the history says of payments that came in.

A VTXO that had expired, and was swept, before it got here is kept, for the server may refresh it. It is no
income: nobody pays with it, and nobody but the server can make it money. Source: sheet 02 §5.5.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.errors import BarkdError, chain_text
from barkd_py.wallet.movements import (
    ARKOOR_RECEIVE,
    MovementDestination,
    MovementStatus,
    MovementUpdate,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.vtxo_states import Locked, StateKind, WalletVtxo

log = logging.getLogger(__name__)

SWEPT = (
    "it had expired, and what it comes from was spent on the chain, before it was received: "
    "it is no money unless the server refreshes it"
)

AddressesOf = Callable[[Sequence[PublicKey]], Awaitable[Mapping[PublicKey, str]]]


class KeptMail:
    """Payments that are kept because they were no money when they came. One that gets to the chain by an exit
    before it was released has come after all. addresses_of: ours, by key.
    """

    def __init__(self, store: Store, addresses_of: AddressesOf) -> None:
        self._store = store
        self._addresses_of = addresses_of

    async def on_chain(self, vtxo_ids: Sequence[VtxoId]) -> Callable[[Transaction], Awaitable[None]]:
        """What is to be written together with the exit of VTXOs: the income of those that are kept."""
        async with self._store.read() as tx:
            kept = await _kept(tx, vtxo_ids)
        try:
            addresses = await self._addresses_of(list({vtxo.user_pubkey: None for vtxo in kept}))
        except BarkdError as error:  # an exit waits for nothing but the chain
            log.warning("what payments came in on is not known: %s", chain_text(error))
            addresses = {}

        async def write(tx: Transaction) -> None:
            for vtxo in await _kept(tx, [vtxo.id for vtxo in kept]):
                await note_receipt(tx, [vtxo], addresses, ())

        return write


async def _kept(tx: Transaction, vtxo_ids: Sequence[VtxoId]) -> Sequence[WalletVtxo]:
    """Those that are held and never were spendable, and that no recovery has brought (`recovery.ledger`)."""
    rows = await tx.vtxos.find_many(vtxo_ids)
    held = [
        row for row in rows.values() if row.state == Locked(None) and row.policy_kind == PubkeyPolicy.KIND
    ]
    met = await tx.recovery.outcomes([row.id for row in held])
    return [
        row
        for row in held
        if row.id not in met
        and not any(entry.state.kind is StateKind.SPENDABLE for entry in await tx.vtxos.history(row.id))
    ]


async def note_receipt(
    tx: Transaction,
    vtxos: Sequence[Vtxo | WalletVtxo],
    addresses: Mapping[PublicKey, str],
    swept: Collection[VtxoId],
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
    vtxos: Sequence[Vtxo | WalletVtxo],
    addresses: Mapping[PublicKey, str],
    effective_sat: int,
    error: str | None = None,
) -> MovementUpdate:
    return MovementUpdate(
        intended_balance_sat=_sum_sat(vtxos),
        effective_balance_sat=effective_sat,
        output_vtxos=tuple(vtxo.id for vtxo in vtxos),
        received_on=_received_on(vtxos, addresses),
        metadata={} if error is None else {"error": error},
    )


def _received_on(
    vtxos: Sequence[Vtxo | WalletVtxo], addresses: Mapping[PublicKey, str]
) -> tuple[MovementDestination, ...]:
    """Our addresses, each with the sum that came in on it, as far as they are known."""
    sums: dict[PublicKey, int] = {}
    for vtxo in vtxos:
        sums[vtxo.user_pubkey] = sums.get(vtxo.user_pubkey, 0) + vtxo.amount_sat
    return tuple(
        MovementDestination(PaymentMethod(PaymentMethodKind.ARK, addresses[key]), amount_sat)
        for key, amount_sat in sums.items()
        if key in addresses
    )


def _sum_sat(vtxos: Sequence[Vtxo | WalletVtxo]) -> int:
    return sum(vtxo.amount_sat for vtxo in vtxos)
