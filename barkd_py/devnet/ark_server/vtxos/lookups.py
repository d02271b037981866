"""Look-ups of VTXOs: the bytes for anybody, the spend state for whoever proves to own it.

Source: sheet 10 §6.1; sheet 08 §4.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from barkd_py.ark.attestations import is_attested, vtxo_status_message
from barkd_py.ark.vtxo import VtxoId
from barkd_py.devnet.ark_server.failures import BadArgument, Failure, Missing
from barkd_py.devnet.ark_server.settings import MAX_LOOKED_UP_IDS
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.vtxo_rows import VtxoRow


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """A VTXO, and the signature by its user key that asks for its state."""

    vtxo_id: VtxoId
    attestation: bytes


async def vtxo_bytes(store: Store, vtxo_id: VtxoId) -> bytes:
    """The full encoding of any output in the books, as it is stored. Raises Missing."""
    row = await store.transact(partial(vtxo_rows.get, vtxo_id=vtxo_id))
    return row.encoded


async def spend_state(store: Store, query: StatusQuery) -> int:
    """The number of the state. The server's own coins do not exist for clients. Raises Missing,
    BadArgument.
    """
    row = await store.transact(partial(vtxo_rows.get, vtxo_id=query.vtxo_id))
    state = _attested_state(row, query)
    if state is None:
        raise Missing("VTXO not found", [query.vtxo_id])
    return state


def _attested_state(row: VtxoRow, query: StatusQuery) -> int | None:
    """The number of the state, None for the server's own coins. Raises BadArgument for a wrong signature."""
    if not row.is_user_vtxo:
        return None
    user_pubkey = row.user_vtxo().user_pubkey
    if not is_attested(vtxo_status_message(query.vtxo_id), user_pubkey, query.attestation):
        cause = Failure("signature failed verification")
        raise BadArgument("invalid VTXO status attestation") from cause
    return row.state.wire_value


async def many_vtxo_bytes(store: Store, vtxo_ids: Sequence[VtxoId]) -> tuple[list[bytes], list[VtxoId]]:
    """The encodings of the known ones in request order, and the unknown ones once each."""
    _check_count(vtxo_ids)
    rows = await store.transact(partial(vtxo_rows.find_all, vtxo_ids=vtxo_ids))
    known = [rows[vtxo_id].encoded for vtxo_id in vtxo_ids if vtxo_id in rows]
    missing = dict.fromkeys(vtxo_id for vtxo_id in vtxo_ids if vtxo_id not in rows)
    return known, list(missing)


async def many_spend_states(
    store: Store, queries: Sequence[StatusQuery]
) -> tuple[list[tuple[VtxoId, int]], list[VtxoId]]:
    """The states of the known ones in request order, and the others once each. Raises BadArgument."""
    _check_count(queries)
    rows = await store.transact(partial(vtxo_rows.find_all, vtxo_ids=[query.vtxo_id for query in queries]))
    states: list[tuple[VtxoId, int]] = []
    missing: dict[VtxoId, None] = {}
    for query in queries:
        row = rows.get(query.vtxo_id)
        state = None if row is None else _attested_state(row, query)
        if state is None:
            missing[query.vtxo_id] = None
        else:
            states.append((query.vtxo_id, state))
    return states, list(missing)


def _check_count(items: Sequence[object]) -> None:
    if len(items) > MAX_LOOKED_UP_IDS:
        raise BadArgument(f"too many vtxo ids, max is {MAX_LOOKED_UP_IDS}")
