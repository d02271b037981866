"""Participations that only the server knows: its answer to our request was lost, or our database was.

The mailbox names the unlock hash of a round that was held for us. Nothing in it proves that we asked for the
round, and a server could turn our coins into fees by making participations up. So what it tells is taken over
only if we can have asked and forgotten it: every input is a VTXO that a recovery has found, or that was there
before one began, which is to say, once per VTXO; or one that the server refuses to take from us (it may have
held the round, its answer lost), at the fee of an unattended refresh. And all of it must be ours, at no more
than the published fee, with the published lifetime, and must not shorten the life of an input.

Source: sheet 04 §19; sheet 09 §1.7.2.
"""

import logging
from collections.abc import Collection, Sequence

from barkd_py.ark.info import ArkInfo
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Tx
from barkd_py.chain.source import ChainSource, Confirmed
from barkd_py.errors import ProtocolViolation, ServerRejected, StoreError, chain_text
from barkd_py.server_rpc.api import ArkServerApi, RoundParticipation
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.movements import ROUND_REFRESH, MovementUpdate
from barkd_py.wallet.rounds.bounds import UnattendedBounds, highest_fee_sat
from barkd_py.wallet.rounds.participation import CLIENT_EXPIRY_BUFFER_BLOCKS, MAX_RECOVERED_FEE_PERCENT
from barkd_py.wallet.rounds.states import Delegated, Output, Round, Submitting, decode_round, encode_round
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.recovery import RecoveryOutcome
from barkd_py.wallet.vtxo_states import MovementHolder, NewVtxo, Spendable, WalletVtxo

log = logging.getLogger(__name__)

CONFIRMATION_BLOCKS = 144
"""How long after it was held a round may have been confirmed."""


class NotOurParticipation(ProtocolViolation):
    """What the server tells of a round cannot be ours, or must not be."""


class ParticipationRecovery:
    """Stores what the server tells of our participations. gap_limit: how far ahead to look for our keys."""

    def __init__(
        self,
        store: Store,
        server: ArkServerApi,
        chain: ChainSource,
        keychain: Keychain,
        unattended: UnattendedBounds,
        *,
        gap_limit: int,
    ) -> None:
        self._store = store
        self._server = server
        self._chain = chain
        self._keychain = keychain
        self._unattended = unattended
        self._gap_limit = gap_limit

    async def restore(self, unlock_hash: bytes) -> int | None:
        """Take a participation over, unless it is known; bad ones are dropped.

        Returns the stored participation that this is the lost answer of, if there is one: it still has to be
        told. Raises ServerError, ChainError: nothing is known yet.
        """
        async with self._store.read() as tx:
            if await tx.rounds.has_unlock_hash(unlock_hash):
                return None
        try:
            told = await self._server.round_participation_status(unlock_hash)
            return await self._take_over(unlock_hash, told)
        except ServerRejected as error:
            if not error.not_found:
                raise
            log.info("the server does not know the round of a mailbox message")
        except ProtocolViolation as error:
            log.error("dropping a round of a mailbox message: %s", chain_text(error))
        return None

    async def _take_over(self, unlock_hash: bytes, told: RoundParticipation) -> int | None:
        if not told.input_vtxo_ids or not told.output_vtxos or told.funding_tx is None:
            raise NotOurParticipation("it has no inputs, no outputs, or was not held")
        if len(set(told.input_vtxo_ids)) != len(told.input_vtxo_ids):
            raise NotOurParticipation("it has an input twice")
        if (unanswered := await self._unanswered(told)) is not None:
            return unanswered
        async with self._store.read() as tx:
            if await tx.vtxos.known([vtxo.id for vtxo in told.output_vtxos]):
                return None
            stored = await tx.vtxos.known(told.input_vtxo_ids)
        missing = [vtxo_id for vtxo_id in told.input_vtxo_ids if vtxo_id not in stored]
        is_forgotten = await self._is_forgotten(told.input_vtxo_ids, stored)
        info = await self._server.info()
        await self._check_ours(told.output_vtxos, info.server_pubkey)
        held_height = await self._held_height(told.funding_tx)
        fetched = await self._fetch(missing, info.server_pubkey)
        outputs = tuple(Output(vtxo.amount_sat, vtxo.user_pubkey) for vtxo in told.output_vtxos)
        async with self._store.transaction() as tx:
            await tx.vtxos.insert(NewVtxo(vtxo, Spendable()) for vtxo in fetched)
            inputs = await tx.vtxos.get_many(told.input_vtxo_ids)
            if min(vtxo.expiry_height for vtxo in told.output_vtxos) < _min_expiry_height(
                inputs, held_height, info
            ):
                raise NotOurParticipation("its VTXOs expire too soon")
            total_sat = sum(vtxo.amount_sat for vtxo in inputs)
            fee_sat = total_sat - sum(output.amount_sat for output in outputs)
            max_fee_sat = min(
                highest_fee_sat(inputs, info),
                total_sat * MAX_RECOVERED_FEE_PERCENT // 100
                if is_forgotten
                else self._unattended.max_fee_sat(total_sat),
            )
            if not 0 <= fee_sat <= max_fee_sat:
                raise NotOurParticipation(f"its fee of {fee_sat} sat for {total_sat} sat is out of bounds")
            round_ = Round(
                inputs=told.input_vtxo_ids,
                outputs=outputs,
                state=Delegated(unlock_hash, told.funding_tx.txid),
            )
            update = MovementUpdate(
                effective_balance_sat=-fee_sat,
                offchain_fee_sat=fee_sat,
                input_vtxos=round_.inputs,
                metadata={"funding_txid": str(told.funding_tx.txid)},
            )
            movement = await tx.movements.create(ROUND_REFRESH, update)
            await tx.vtxos.steal_lock(round_.inputs, MovementHolder(movement.id))
            await tx.rounds.insert(
                encode_round(round_), round_.inputs, movement_id=movement.id, unlock_hash=unlock_hash
            )
        log.info("found a round that was held for us: %s", told.funding_tx.txid)
        return None

    async def _unanswered(self, told: RoundParticipation) -> int | None:
        """The participation that was handed to the server, and whose answer never came."""
        given = sorted((vtxo.amount_sat, vtxo.user_pubkey) for vtxo in told.output_vtxos)
        async with self._store.read() as tx:
            for row in await tx.rounds.list():
                try:
                    round_ = decode_round(row.payload)
                except StoreError:
                    continue  # whoever looks after it has said so
                wanted = sorted((output.amount_sat, output.user_pubkey) for output in round_.outputs)
                if (
                    isinstance(round_.state, Submitting)
                    and set(round_.inputs) == set(told.input_vtxo_ids)
                    and wanted == given
                ):
                    return row.id
        return None

    async def _is_forgotten(self, input_ids: Sequence[VtxoId], stored_ids: Collection[VtxoId]) -> bool:
        """Whether we can have forgotten a participation of these: the database was lost, or put back from a
        backup, and this life of the wallet did not make all of them by itself.

        False: the server has just refused one of them, and this may be why. Raises NotOurParticipation.
        """
        async with self._store.read() as tx:
            run = await tx.recovery.run()
            refused = await tx.recovery.pending(input_ids)
            found = await tx.recovery.outcomes(input_ids)
            stored = {vtxo.id: vtxo for vtxo in await tx.vtxos.get_many(sorted(stored_ids))}
        for vtxo_id in input_ids:
            if vtxo_id in refused:
                continue
            if run is None:
                raise NotOurParticipation("we did not ask for it")
            vtxo = stored.get(vtxo_id)
            if (
                vtxo is not None
                and vtxo.created_at > run.started_at
                and not _is_found(vtxo, found.get(vtxo_id))
            ):
                raise NotOurParticipation(f"we did not ask for it: {vtxo_id} is newer than the recovery")
        return not refused

    async def _held_height(self, funding_tx: Tx) -> int:
        match await self._chain.tx_status(funding_tx.txid):
            case Confirmed(block):
                return block.height
            case _:
                return (await self._chain.tip()).height

    async def _check_ours(self, vtxos: Sequence[Vtxo], server_pubkey: PublicKey) -> None:
        """Raises NotOurParticipation."""
        for vtxo in vtxos:
            if vtxo.server_pubkey != server_pubkey or not isinstance(vtxo.policy, PubkeyPolicy):
                raise NotOurParticipation(f"VTXO {vtxo.id} is of another server or policy")
        keys = {vtxo.user_pubkey for vtxo in vtxos}
        if keys - await self._keychain.gap_scan(keys, self._gap_limit):
            raise NotOurParticipation("one of the VTXOs is not ours")

    async def _fetch(self, vtxo_ids: Sequence[VtxoId], server_pubkey: PublicKey) -> Sequence[Vtxo]:
        """Inputs that the wallet has forgotten. Raises NotOurParticipation, VtxoInvalid, ChainError."""
        if not vtxo_ids:
            return ()
        found = (await self._server.get_vtxos(vtxo_ids)).found
        if len(found) != len(vtxo_ids):
            raise NotOurParticipation("the server does not know all of its inputs")
        await self._check_ours(found, server_pubkey)
        for vtxo in found:
            anchor = await self._chain.get_tx(vtxo.anchor_point.txid)
            if anchor is None:
                raise NotOurParticipation(f"the anchor of input {vtxo.id} is not on the chain")
            validate(vtxo, anchor)
        return found


def _is_found(vtxo: WalletVtxo, outcome: RecoveryOutcome | None) -> bool:
    """Whether the recovery has brought the VTXO, and not only looked at one that we had."""
    return outcome is not None and not (outcome is RecoveryOutcome.SKIPPED and vtxo.state == Spendable())


def _min_expiry_height(inputs: Sequence[WalletVtxo], held_height: int, info: ArkInfo) -> int:
    longest = max(vtxo.expiry_height for vtxo in inputs) - CLIENT_EXPIRY_BUFFER_BLOCKS
    return max(longest, held_height + info.vtxo_lifetime - CONFIRMATION_BLOCKS)
