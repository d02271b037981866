"""Taking in the signed transactions of VTXOs that the server cosigned.

Until then the server knows only their ids: it could neither publish them nor hand them out to a wallet that
recovers from its seed. Nothing proves ownership, and nothing needs to: who has all signatures may register.

Source: sheet 10 §6.3.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo, VtxoId, VtxoInvalid
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.devnet.ark_server.failures import BadArgument, TxBodyError
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.vtxo_rows import VirtualTx


async def register_transactions(store: Store, vtxos: Sequence[Vtxo]) -> None:
    """Check all VTXOs, then store all of them; one bad VTXO refuses the whole list. Idempotent."""
    if not vtxos:
        raise BadArgument("no vtxos provided")
    unique: dict[VtxoId, Vtxo] = {}
    for vtxo in vtxos:
        unique.setdefault(vtxo.id, vtxo)
    transactions: dict[Txid, Tx] = {}
    for vtxo in unique.values():
        await _verify(store, vtxo)
        transactions.update((tx.txid, tx) for tx in vtxo.exit_transactions())

    def write(connection: Connection) -> None:
        vtxo_rows.put_virtual_txs(connection, [], signed=list(transactions.values()))
        vtxo_rows.register(connection, unique.values())

    await store.transact(write)


async def _verify(store: Store, vtxo: Vtxo) -> None:
    try:
        anchor = await store.transact(partial(_anchor_of_known, vtxo=vtxo))
    except TxBodyError as error:
        raise BadArgument(f"vtxo not found in database: {vtxo.id}") from error
    if not vtxo.is_fully_signed:
        raise BadArgument(f"vtxo {vtxo.id} is not fully signed")
    anchor_txid = vtxo.anchor_point.txid
    if anchor is None:
        raise BadArgument(f"chain anchor tx not found: {anchor_txid}")
    if anchor.signed is None:
        raise BadArgument(f"chain anchor tx has no signed_tx: {anchor_txid}")
    try:
        validate(vtxo, anchor.signed)
    except VtxoInvalid as error:
        raise BadArgument(f"vtxo validation failed: {vtxo.id}") from error


def _anchor_of_known(connection: Connection, vtxo: Vtxo) -> VirtualTx | None:
    """The transaction at the root of a VTXO; the VTXO itself must be in the books, and be a user's."""
    vtxo_rows.get(connection, vtxo.id).user_vtxo()
    return vtxo_rows.find_virtual_tx(connection, vtxo.anchor_point.txid)
