"""The end of a swap: cosigning the new coins' leaves, and trading forfeits of the old ones for the preimage.

Nonces of forfeits live in memory until they are used, are asked for again, or get old. Once all inputs of a
participation are forfeited, whoever asks gets the preimage.

Source: sheet 10 §6.7 (RequestLeafVtxoCosign, RequestForfeitNonces, ForfeitVtxos), §3.2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection

from barkd_py.ark.cosign import BadCosignature, Cosignature
from barkd_py.ark.rounds import ForfeitBundle, HarkForfeit, leaf_task
from barkd_py.ark.vtxo import NotAHarkLeaf, Vtxo, VtxoId
from barkd_py.bitcoin.musig import SecNonce
from barkd_py.bitcoin.tx import Tx
from barkd_py.devnet.ark_server.failures import BadArgument, Failure
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import MAX_FORFEIT_NONCES, ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.devnet.ark_server.store import participation_rows, round_rows, vtxo_rows
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.participation_rows import Participation


@dataclass(frozen=True, slots=True)
class _Nonce:
    unlock_hash: bytes
    sec_nonce: SecNonce = field(repr=False)
    pub_nonce: bytes
    made_at: float


@dataclass(frozen=True, slots=True)
class _Signed:
    """A forfeit with all signatures."""

    forfeit: HarkForfeit
    tx: Tx


class Forfeits:
    """The server's side of swaps. clock: Unix seconds."""

    def __init__(
        self, settings: ServerSettings, keys: ServerKeys, store: Store, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._store = store
        self._clock = clock
        self._nonces: dict[VtxoId, _Nonce] = {}

    # --- leaves

    async def cosign_leaf(self, vtxo_id: VtxoId, pub_nonce: bytes) -> Cosignature:
        """Sign a leaf transaction; it needs the preimage too, so this gives nothing away. Raises Failure."""
        vtxo = await self._store.transact(partial(_round_vtxo, vtxo_id=vtxo_id))
        try:
            return leaf_task(vtxo).cosign(self._keys.server, pub_nonce)
        except NotAHarkLeaf as error:
            # The real server crashes here.
            raise BadArgument(str(error)) from None

    # --- forfeits

    async def nonces(self, unlock_hash: bytes, vtxo_ids: Sequence[VtxoId]) -> list[bytes]:
        """Public nonces for the forfeits of some inputs, in their order. Raises Failure."""
        found = await self._store.transact(partial(participation_rows.find, unlock_hash=unlock_hash))
        if found is None:
            raise BadArgument("unknown unlock hash")
        left = set(found.swap.inputs)
        for vtxo_id in vtxo_ids:
            if vtxo_id not in left:
                raise _not_part(vtxo_id)
            left.remove(vtxo_id)
        vtxos = await self._store.transact(partial(_user_vtxos, vtxo_ids=vtxo_ids))
        return [self._nonce(vtxo, unlock_hash).pub_nonce for vtxo in vtxos]

    def _nonce(self, vtxo: Vtxo, unlock_hash: bytes) -> _Nonce:
        nonce = self._nonces.get(vtxo.id)
        if nonce is None or nonce.unlock_hash != unlock_hash:
            pair = HarkForfeit(vtxo, unlock_hash).task.generate_nonce(self._keys.server)
            nonce = self._nonces[vtxo.id] = _Nonce(unlock_hash, *pair, self._clock())
        return nonce

    def prune(self) -> None:
        """Forget old nonces."""
        oldest = self._clock() - self._settings.round_forfeit_nonces_timeout_secs
        self._nonces = {key: nonce for key, nonce in self._nonces.items() if nonce.made_at >= oldest}

    async def forfeit(self, bundles: Sequence[ForfeitBundle]) -> bytes:
        """Take the forfeits of all inputs of one participation; the preimage. Raises Failure."""
        unlock_hash = _common_hash(bundles)
        ids = [bundle.vtxo_id for bundle in bundles]
        vtxos, found = await self._store.transact(
            partial(_inputs_and_participation, vtxo_ids=ids, unlock_hash=unlock_hash)
        )
        if found.is_forfeited:
            return found.swap.preimage
        _check_complete(found, ids)
        signed = [self._finish(vtxo, bundle) for vtxo, bundle in zip(vtxos, bundles, strict=True)]
        if found.round is None:
            raise Failure("round participation has no round_id")
        await self._store.transact(partial(_record, found=found, signed=signed))
        return found.swap.preimage

    def _finish(self, vtxo: Vtxo, bundle: ForfeitBundle) -> _Signed:
        """Sign one forfeit; its nonce is used up, whatever the outcome."""
        nonce = self._nonces.pop(vtxo.id, None)
        if nonce is None:
            raise BadArgument(f"no forfeit nonces generated for vtxo {vtxo.id}")
        if nonce.unlock_hash != bundle.unlock_hash:
            raise BadArgument(
                f"forfeit nonces were generated for unlock hash {nonce.unlock_hash.hex()} "
                f"instead of {bundle.unlock_hash.hex()}"
            )
        forfeit = HarkForfeit(vtxo, bundle.unlock_hash)
        try:
            tx = forfeit.finish(bundle, self._keys.server, nonce.sec_nonce, nonce.pub_nonce)
        except BadCosignature as error:
            raise BadArgument(f"forfeit validation failed for vtxo {vtxo.id}: {error}") from None
        return _Signed(forfeit, tx)


def _not_part(vtxo_id: VtxoId) -> BadArgument:
    return BadArgument(f"vtxo with id {vtxo_id} is not part of this round participation")


def _common_hash(bundles: Sequence[ForfeitBundle]) -> bytes:
    if not bundles:
        raise BadArgument("zero forfeit bundles provided")
    unlock_hash = bundles[0].unlock_hash
    seen: set[VtxoId] = set()
    for bundle in bundles:
        if bundle.unlock_hash != unlock_hash:
            raise BadArgument("not all forfeit bundles have same unlock hash")
        if bundle.vtxo_id in seen:
            raise BadArgument(f"duplicate vtxo with id {bundle.vtxo_id}")
        seen.add(bundle.vtxo_id)
    return unlock_hash


def _check_complete(found: Participation, ids: Sequence[VtxoId]) -> None:
    for vtxo_id in ids:
        if vtxo_id not in found.swap.inputs:
            raise _not_part(vtxo_id)
    missing = [str(vtxo_id) for vtxo_id in found.swap.inputs if vtxo_id not in ids]
    if missing:
        raise BadArgument(f"missing input vtxos: {{{', '.join(missing)}}}")


def check_nonce_count(count: int) -> None:
    """Raises BadArgument."""
    if count > MAX_FORFEIT_NONCES:
        raise BadArgument(f"too many vtxo ids, max is {MAX_FORFEIT_NONCES}")


# --- the rows


def _user_vtxos(connection: Connection, vtxo_ids: Sequence[VtxoId]) -> list[Vtxo]:
    return [row.user_vtxo() for row in vtxo_rows.get_all(connection, vtxo_ids)]


def _round_vtxo(connection: Connection, vtxo_id: VtxoId) -> Vtxo:
    row = vtxo_rows.get(connection, vtxo_id)
    if not row.is_user_vtxo:
        raise Failure(f"requested VTXO {vtxo_id} is not a user VTXO")
    vtxo = row.user_vtxo()
    if round_rows.find(connection, vtxo.anchor_point.txid) is None:
        raise BadArgument("VTXO's chain anchor is not a known round")
    return vtxo


def _inputs_and_participation(
    connection: Connection, vtxo_ids: Sequence[VtxoId], unlock_hash: bytes
) -> tuple[list[Vtxo], Participation]:
    vtxos = _user_vtxos(connection, vtxo_ids)
    found = participation_rows.find(connection, unlock_hash)
    if found is None:
        raise BadArgument("unknown unlock hash")
    return vtxos, found


def _record(connection: Connection, found: Participation, signed: Sequence[_Signed]) -> None:
    """Store the forfeits, and make the new coins spendable."""
    assert found.round is not None
    stored = round_rows.find(connection, found.round)
    assert stored is not None
    spends = [(each.forfeit.vtxo.id, each.tx.txid) for each in signed]
    vtxo_rows.put_virtual_txs(connection, [], signed=[each.tx for each in signed])
    forfeited = [each.forfeit.server_vtxo(each.tx.inputs[0].witness[0]) for each in signed]
    vtxo_rows.insert_new(connection, forfeited, SpendState.ROUND_FORFEIT)
    vtxo_rows.record_forfeits(connection, spends)
    participation_rows.record_forfeits(connection, found.id, spends)
    tree = stored.tree.tree()
    vtxo_rows.claim(connection, [tree.vtxo(leaf, stored.tree.signatures).id for leaf in found.leaves])
