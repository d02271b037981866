"""What the server has in its books, asked before something is undone that it may have booked.

Source: sheet 03 §10, trap 22.
"""

import logging
from collections.abc import Sequence

from barkd_py.ark.attestations import attest, vtxo_status_message
from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import OutsideError, log_text
from barkd_py.server_rpc.api import ArkServerApi, StatusQuery, VtxoSpendState
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.store import Store

log = logging.getLogger(__name__)


async def are_spendable(
    store: Store, keychain: Keychain, server: ArkServerApi, vtxo_ids: Sequence[VtxoId]
) -> bool:
    """Whether the server says so of all of them; no if it does not answer."""
    async with store.read() as tx:
        stored = await tx.vtxos.get_many(vtxo_ids)
    keys = await keychain.secrets_for([vtxo.user_pubkey for vtxo in stored])
    queries = [
        StatusQuery(vtxo.id, attest(vtxo_status_message(vtxo.id), key))
        for vtxo, key in zip(stored, keys, strict=True)
    ]
    try:
        states = await server.get_vtxo_statuses(queries)
    except OutsideError as error:
        log.warning("the state of inputs is not known: %s", log_text(error))
        return False
    return all(states.get(vtxo_id) is VtxoSpendState.SPENDABLE for vtxo_id in vtxo_ids)
