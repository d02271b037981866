"""The transactions of exits with their children, as they are shown."""

from collections.abc import Sequence

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.chain.source import PackageFee
from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.rows import LiveExit
from barkd_py.wallet.exits.states import AwaitingConfirmation, ExitChild, ExitPackage, ExitState, Processing
from barkd_py.wallet.store import Transaction


async def load_packages(tx: Transaction, exits: Sequence[LiveExit]) -> dict[VtxoId, tuple[ExitPackage, ...]]:
    """The transactions of exits with their children; none for a VTXO that is not in the database any more, or
    cannot be read.
    """
    known = await tx.vtxos.known([exit_.row.vtxo_id for exit_ in exits])
    listed = [exit_ for exit_ in exits if exit_.row.vtxo_id in known]
    bodies, _ = await tx.vtxos.readable_bodies([exit_.row.vtxo_id for exit_ in listed])
    txids = {exit_tx.txid for vtxo in bodies for exit_tx in vtxo.exit_transactions()}
    children = {row.exit_txid: row for row in await tx.exits.find_children(sorted(txids))}
    packages: dict[VtxoId, tuple[ExitPackage, ...]] = {}
    states = {exit_.row.vtxo_id: exit_.state for exit_ in listed}
    for vtxo in bodies:
        fees = _fees(states[vtxo.id])
        entries: list[ExitPackage] = []
        for exit_tx in vtxo.exit_transactions():
            row = children.get(exit_tx.txid)
            child = (
                None
                if row is None
                else ExitChild(
                    Tx.parse(row.child_tx), payloads.decode_origin(row.origin), fees.get(exit_tx.txid)
                )
            )
            entries.append(ExitPackage(exit_tx, child))
        packages[vtxo.id] = tuple(entries)
    return packages


def _fees(state: ExitState) -> dict[Txid, PackageFee | None]:
    if not isinstance(state, Processing):
        return {}
    return {
        entry.txid: entry.status.fee
        for entry in state.transactions
        if isinstance(entry.status, AwaitingConfirmation)
    }
