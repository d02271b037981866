"""How far the action is that holds a VTXO: that decides whether the VTXO may be used for something else."""

from typing import TypeVar

from barkd_py.wallet.actions.executor import Machine
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import ActionHolder, Locked, WalletVtxo

S = TypeVar("S")


async def state_of_holder(store: Store, machine: Machine[S], vtxo: WalletVtxo) -> S | None:
    """The stored state; None if no action of this kind holds it. Raises StoreError."""
    match vtxo.state:
        case Locked(ActionHolder(action_id)):
            async with store.read() as tx:
                checkpoint = await tx.actions.find(action_id)
            if checkpoint is not None and checkpoint.kind is machine.kind:
                return machine.format.decode(checkpoint.payload)
    return None
