"""What the server and the chain say about VTXOs, as far as it can be found out now.

Everything is asked for many VTXOs at once where the server can. One VTXO that spoils a whole answer must not
hide the others: after a failure they are asked for one by one. Only a server that cannot be reached at all
ends the asking.

Source: sheet 02 §6.5, §6.7.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from barkd_py.ark.attestations import attest, vtxo_status_message
from barkd_py.ark.info import is_safe_exit_delta
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo, VtxoId, VtxoInvalid
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import MAX_MONEY_SAT
from barkd_py.chain.source import ChainSource, Confirmed
from barkd_py.errors import ChainError, ProtocolViolation, ServerError, ServerRejected, chain_text
from barkd_py.server_rpc.api import ArkServerApi, StatusQuery, VtxoSpendState
from barkd_py.server_rpc.errors import ConnectFailed
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.recovery.judgement import (
    Disproven,
    Facts,
    Proof,
    Proven,
    Unproven,
    needs_proof,
)
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.exits import LIVE_KINDS
from barkd_py.wallet.store.unreadable import PassedOver
from barkd_py.wallet.vtxo_states import Locked, Spent, StateKind, WalletVtxo
from barkd_py.wallet.vtxos.anchors import AnchorLook, AnchorUnfit

log = logging.getLogger(__name__)

PROOFS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Sighting:
    """A VTXO that somebody named. vtxo: None if only its id. status: if the server said it unasked."""

    vtxo_id: VtxoId
    vtxo: Vtxo | None = None
    status: VtxoSpendState | None = None
    is_status_told: bool = False


class Evidence:
    """gap_limit: how far ahead to look for our keys."""

    def __init__(
        self, store: Store, server: ArkServerApi, chain: ChainSource, keychain: Keychain, *, gap_limit: int
    ) -> None:
        self._store = store
        self._server = server
        self._chain = chain
        self._keychain = keychain
        self._gap_limit = gap_limit
        self._unreadable = PassedOver("recovery: what is stored of a VTXO")

    async def gather(self, sightings: Sequence[Sighting]) -> Mapping[VtxoId, Facts]:
        """Raises ConnectFailed, ServerUnusable, StoreError; anything else is a gap in the facts."""
        server_pubkey = (await self._server.info()).server_pubkey
        facts = await self._stored(sightings)
        facts = await self._with_bodies(facts)
        facts = await self._with_owners(facts, server_pubkey)
        told = {seen.vtxo_id: seen.status for seen in sightings if seen.is_status_told}
        facts = await self._with_statuses(facts, told)
        return await self._with_proofs(facts)

    # --- what is stored

    async def _stored(self, sightings: Sequence[Sighting]) -> dict[VtxoId, Facts]:
        seen = {sighting.vtxo_id: sighting for sighting in sightings}
        async with self._store.read() as tx:
            rows = await tx.vtxos.find_many(seen)
            readable, unreadable = await tx.vtxos.readable_bodies(list(rows))
            spendable_once = {
                vtxo_id
                for vtxo_id, row in rows.items()
                if _history_matters(row)
                and any(entry.state.kind is StateKind.SPENDABLE for entry in await tx.vtxos.history(vtxo_id))
            }
            exits = await tx.exits.find_many(list(rows))
        for error in unreadable:
            self._unreadable.note(error.vtxo_id, error)
        bodies = {vtxo.id: vtxo for vtxo in readable}
        lost = {error.vtxo_id for error in unreadable}
        return {
            vtxo_id: Facts(
                bodies.get(vtxo_id, sighting.vtxo),
                is_unreadable=vtxo_id in lost,
                state=None if (row := rows.get(vtxo_id)) is None else row.state,
                was_spendable=vtxo_id in spendable_once,
                is_exiting=vtxo_id in exits and exits[vtxo_id].kind in LIVE_KINDS,
            )
            for vtxo_id, sighting in seen.items()
        }

    # --- bodies

    async def _with_bodies(self, facts: dict[VtxoId, Facts]) -> dict[VtxoId, Facts]:
        wanted = [vtxo_id for vtxo_id, each in facts.items() if each.vtxo is None]
        if not wanted:
            return facts
        found, unknown = await self._fetch(wanted)
        for vtxo_id in wanted:
            vtxo = found.get(vtxo_id)
            facts[vtxo_id] = replace(facts[vtxo_id], vtxo=vtxo, is_unknown=vtxo_id in unknown)
        return facts

    async def _fetch(self, ids: Sequence[VtxoId]) -> tuple[Mapping[VtxoId, Vtxo], Collection[VtxoId]]:
        """The bodies that the server hands out, and the ids that it does not know."""
        try:
            lookup = await self._server.get_vtxos(ids)
            return {vtxo.id: vtxo for vtxo in lookup.found}, frozenset(lookup.missing)
        except ConnectFailed:
            raise
        except (ServerError, ProtocolViolation) as error:
            log.warning("looking up %d VTXOs failed: %s", len(ids), chain_text(error))
        found: dict[VtxoId, Vtxo] = {}
        unknown: set[VtxoId] = set()
        for vtxo_id in ids:
            try:
                found[vtxo_id] = await self._server.get_vtxo(vtxo_id)
            except ConnectFailed:
                raise
            except ServerRejected as error:
                if error.not_found:
                    unknown.add(vtxo_id)
            except (ServerError, ProtocolViolation) as error:
                log.warning("looking up VTXO %s failed: %s", vtxo_id, chain_text(error))
        return found, unknown

    # --- whose they are

    async def _with_owners(self, facts: dict[VtxoId, Facts], server_pubkey: PublicKey) -> dict[VtxoId, Facts]:
        candidates = {
            vtxo_id: each.vtxo
            for vtxo_id, each in facts.items()
            if each.vtxo is not None and each.vtxo.server_pubkey == server_pubkey
        }
        keys = {vtxo.user_pubkey for vtxo in candidates.values()}
        ours = await self._keychain.gap_scan(keys, self._gap_limit)
        for vtxo_id, vtxo in candidates.items():
            facts[vtxo_id] = replace(facts[vtxo_id], is_of_our_server=True, is_ours=vtxo.user_pubkey in ours)
        return facts

    # --- what the server says of them

    async def _with_statuses(
        self, facts: dict[VtxoId, Facts], told: Mapping[VtxoId, VtxoSpendState | None]
    ) -> dict[VtxoId, Facts]:
        asked = [
            each.vtxo
            for vtxo_id, each in facts.items()
            if each.vtxo is not None and each.is_ours and vtxo_id not in told and _status_matters(each)
        ]
        statuses = {**told, **await self.statuses(asked)}
        late = [
            vtxo
            for each in facts.values()
            if (vtxo := each.vtxo) is not None
            and each.is_ours
            and statuses.get(vtxo.id) is VtxoSpendState.UNREGISTERED
            and vtxo.is_fully_signed
        ]
        statuses |= await self._register(late)
        return {
            vtxo_id: replace(each, status=statuses.get(vtxo_id)) if each.is_ours else each
            for vtxo_id, each in facts.items()
        }

    async def statuses(self, vtxos: Sequence[Vtxo | WalletVtxo]) -> Mapping[VtxoId, VtxoSpendState]:
        """The server's word on VTXOs of ours; those without a usable answer are left out.

        Raises ConnectFailed.
        """
        if not vtxos:
            return {}
        secrets = await self._keychain.secrets_for([vtxo.user_pubkey for vtxo in vtxos])
        queries = [
            StatusQuery(vtxo.id, attest(vtxo_status_message(vtxo.id), secret))
            for vtxo, secret in zip(vtxos, secrets, strict=True)
        ]
        try:
            return await self._server.get_vtxo_statuses(queries)
        except ConnectFailed:
            raise
        except (ServerError, ProtocolViolation) as error:
            log.warning("asking for the states of %d VTXOs failed: %s", len(vtxos), chain_text(error))
        found: dict[VtxoId, VtxoSpendState] = {}
        for query in queries:
            try:
                found[query.vtxo_id] = await self._server.get_vtxo_status(query.vtxo_id, query.attestation)
            except ConnectFailed:
                raise
            except (ServerError, ProtocolViolation) as error:
                log.warning("asking for the state of VTXO %s failed: %s", query.vtxo_id, chain_text(error))
        return found

    async def _register(self, vtxos: Sequence[Vtxo]) -> Mapping[VtxoId, VtxoSpendState]:
        """Hand in chains that the server was never given, and ask again: only then can they be spent."""
        registered = []
        for vtxo in vtxos:
            try:
                await self._server.register_vtxo_transactions([vtxo])
                registered.append(vtxo)
            except ConnectFailed:
                raise
            except (ServerError, ProtocolViolation) as error:
                log.warning("registering VTXO %s failed: %s", vtxo.id, chain_text(error))
        return await self.statuses(registered)

    # --- proofs

    async def _with_proofs(self, facts: dict[VtxoId, Facts]) -> dict[VtxoId, Facts]:
        wanted = [(vtxo_id, each.vtxo) for vtxo_id, each in facts.items() if needs_proof(each)]
        proofs = await self.prove([vtxo for _, vtxo in wanted if vtxo is not None])
        is_mainnet = (await self._server.info()).is_mainnet
        safe = []
        for vtxo_id, vtxo in wanted:
            proof = proofs[vtxo_id]
            if vtxo is not None and proof == Proven(is_on_chain=False):
                if is_safe_exit_delta(vtxo.exit_delta, is_mainnet=is_mainnet):
                    safe.append(vtxo)
                else:
                    proof = Disproven(f"its exit delta is {vtxo.exit_delta} blocks")
            facts[vtxo_id] = replace(facts[vtxo_id], proof=proof)
        for vtxo_id, proof in (await self.look_at_anchors(safe)).items():
            facts[vtxo_id] = replace(facts[vtxo_id], proof=proof)
        return facts

    async def look_at_anchors(self, vtxos: Sequence[Vtxo]) -> Mapping[VtxoId, Proof]:
        """Whether what they hang off is there, of VTXOs that are valid, and not on the chain as a whole.

        Those that share an anchor share what is asked, and are looked at one after another.
        """
        by_anchor: dict[Txid, list[Vtxo]] = {}
        for vtxo in vtxos:
            by_anchor.setdefault(vtxo.anchor_point.txid, []).append(vtxo)
        turns = asyncio.Semaphore(PROOFS_AT_ONCE)

        async def one(sharing: Sequence[Vtxo]) -> list[tuple[VtxoId, Proof]]:
            async with turns:
                look = AnchorLook(self._chain)
                return [(vtxo.id, await _anchored(vtxo, look)) for vtxo in sharing]

        found = await asyncio.gather(*map(one, by_anchor.values()))
        return {vtxo_id: proof for each in found for vtxo_id, proof in each}

    async def prove(self, vtxos: Sequence[Vtxo]) -> Mapping[VtxoId, Proof]:
        """Each VTXO's chain against the anchor on the chain."""
        anchors: dict[Txid, asyncio.Task[Tx | None]] = {}
        turns = asyncio.Semaphore(PROOFS_AT_ONCE)

        def anchor_of(vtxo: Vtxo) -> asyncio.Task[Tx | None]:
            txid = vtxo.anchor_point.txid
            if txid not in anchors:
                anchors[txid] = asyncio.create_task(self._chain.get_tx(txid))
            return anchors[txid]

        async def one(vtxo: Vtxo) -> tuple[VtxoId, Proof]:
            async with turns:
                return vtxo.id, await self._prove(vtxo, anchor_of(vtxo))

        try:
            return dict(await asyncio.gather(*map(one, vtxos)))
        finally:
            await asyncio.gather(*anchors.values(), return_exceptions=True)

    async def _prove(self, vtxo: Vtxo, anchor_tx: asyncio.Task[Tx | None]) -> Proof:
        if vtxo.amount_sat > MAX_MONEY_SAT:
            return Disproven("its amount cannot be")
        try:
            anchor = await asyncio.shield(anchor_tx)
            if anchor is None:
                return Unproven(f"its anchor {vtxo.anchor_point.txid} is not on the chain")
            await asyncio.to_thread(validate, vtxo, anchor)
            status = await self._chain.tx_status(vtxo.point.txid)
        except VtxoInvalid as error:
            return Disproven(f"it is invalid: {chain_text(error)}")
        except ChainError as error:
            return Unproven(f"the chain source: {chain_text(error)}")
        return Proven(is_on_chain=isinstance(status, Confirmed))


async def _anchored(vtxo: Vtxo, look: AnchorLook) -> Proof:
    try:
        return Proven(is_swept=await look.check(vtxo))
    except AnchorUnfit as error:
        return Unproven(chain_text(error))
    except ChainError as error:
        return Unproven(f"the chain source: {chain_text(error)}")


def _history_matters(row: WalletVtxo) -> bool:
    return row.state == Locked(None) or row.state == Spent()


def _status_matters(facts: Facts) -> bool:
    """Not of what is in use, exiting, or spent by ourselves."""
    match facts.state:
        case None:
            return True
        case Locked(holder):
            return holder is None
        case Spent():
            return not facts.was_spendable
        case state:
            return state.kind is StateKind.SPENDABLE
