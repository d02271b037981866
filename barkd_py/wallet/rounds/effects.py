"""Effects: what a participation's machine asks for, done; what comes of it is the next observation.

Cosign keys and secret nonces are in `_tickets`, in memory: whoever finds an attempt without its ticket knows
that the process that joined it is gone. A ticket is taken out before it is used, and so never used twice.

Errors: what the server refuses is an observation. What is unknown (server or chain away, an answer that is
wrong) is raised out of effects that can be repeated.

Source: sheet 04 §15-§21.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import assert_never

from barkd_py.ark.attestations import attest, delegated_participation_message, round_attempt_message
from barkd_py.ark.rounds import RoundTerms, accept_delegated, min_leaf_expiry
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import Tx
from barkd_py.chain.source import ChainSource
from barkd_py.errors import BarkdError, InsufficientFunds, ProtocolViolation, ServerRejected, chain_text
from barkd_py.server_rpc.api import (
    ArkServerApi,
    RoundFinished,
    RoundInput,
    RoundParticipation,
    RoundParticipationState,
    SignedVtxoRequest,
    VtxoProposal,
    VtxoRequest,
)
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.rounds import machine
from barkd_py.wallet.rounds.bounds import AbsurdFee, UnattendedBounds, WorseTerms, highest_exit_delta
from barkd_py.wallet.rounds.machine import Effect, Observation
from barkd_py.wallet.rounds.participation import (
    CLIENT_EXPIRY_BUFFER_BLOCKS,
    available,
    output_amount_sat,
)
from barkd_py.wallet.rounds.records import Record
from barkd_py.wallet.rounds.signing import Signer, Ticket, sign_tree, take_leaves
from barkd_py.wallet.rounds.states import (
    Agreed,
    Delegated,
    Issued,
    Output,
    Registered,
    Round,
    Signed,
)
from barkd_py.wallet.rounds.swap import FundingTxDoubleSpent, SwapLimits, Swapper
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import WalletVtxo
from barkd_py.wallet.vtxos.registration import Registration

log = logging.getLogger(__name__)

DELIVERY_TRIES = 3


class RoundEffects:
    """Does what is left to do for a participation. limits: of swaps. unattended: for what nobody asked."""

    def __init__(
        self,
        store: Store,
        server: ArkServerApi,
        chain: ChainSource,
        keychain: Keychain,
        registration: Registration,
        limits: SwapLimits,
        unattended: UnattendedBounds,
    ) -> None:
        self._store = store
        self._server = server
        self._chain = chain
        self._keychain = keychain
        self._registration = registration
        self._limits = limits
        self._unattended = unattended
        self._swapper = Swapper(store, server, chain, keychain, limits)
        self._tickets: dict[int, Ticket] = {}
        self.refused: dict[VtxoId, int] = {}
        """Inputs that the server would not take, or that no round came about for, and the height then."""

    def has_ticket(self, round_id: int) -> bool:
        """Whether this process has joined the attempt that the participation is in."""
        return round_id in self._tickets

    def drop_tickets(self) -> None:
        for round_id in list(self._tickets):
            self.drop_ticket(round_id)

    def drop_ticket(self, round_id: int) -> None:
        ticket = self._tickets.pop(round_id, None)
        if ticket is not None:
            ticket.wipe()

    async def perform(self, record: Record, effect: Effect) -> Observation | None:
        """What came of it; None: nothing to see yet. Raises what keeps it from being done."""
        round_, state = record.round, record.round.state
        match effect:
            case machine.Register(challenge):
                return await self._register(record, challenge)
            case machine.SignTree(proposal):
                assert isinstance(state, Registered)
                return await self._sign_tree(record, state, proposal)
            case machine.DeliverSignatures():
                await self._deliver(record)
                return None
            case machine.CheckFinished(finished):
                assert isinstance(state, Signed)
                return await self._check_finished(round_, state, finished)
            case machine.Publish(tx):
                await self._publish(tx)
                return None
            case machine.AskStatus():
                return await self._ask_status(record, effect)
            case machine.Submit():
                return await self._submit(round_)
            case machine.Collect(participation):
                assert isinstance(state, Delegated)
                return await self._collect(round_, state, participation)
            case machine.Swap():
                assert isinstance(state, Issued)
                return await self._swap(round_, state)
            case machine.Forfeit(forfeits):
                assert isinstance(state, Issued)
                return await self._swapper.forfeit(state, forfeits)
            case _:
                assert_never(effect)

    async def note_refused(self, vtxo_ids: Collection[VtxoId]) -> None:
        """Maintenance leaves these alone for a while, and somebody asks whether they are spent elsewhere."""
        async with self._store.transaction() as tx:
            await tx.recovery.add_pending(tuple(vtxo_ids))
        try:
            tip = await self._chain.tip()
        except BarkdError as error:
            log.warning("the tip is not known: %s", chain_text(error))
            return
        self.refused.update(dict.fromkeys(vtxo_ids, tip.height))

    # --- inputs that are gone

    async def without_lost(self, record: Record) -> machine.Shrunk | machine.NothingLeft | None:
        """The participation without the inputs that somebody else has; None if it has them all."""
        async with self._store.read() as tx:
            stored = await tx.vtxos.get_many(record.round.inputs)
        kept = available(stored, record.movement_id)
        return None if len(kept) == len(stored) else await self._shrink(record, stored, kept)

    async def _shrink(
        self, record: Record, stored: Sequence[WalletVtxo], kept: Sequence[WalletVtxo]
    ) -> machine.Shrunk | machine.NothingLeft:
        """The participation with these inputs only, to a new key; at no higher fee than was agreed to."""
        if not kept:
            return machine.NothingLeft("none of the inputs is left to refresh")
        info = await self._server.info()
        height = record.round.scheduled_height or (await self._chain.tip()).height
        try:
            amount_sat = output_amount_sat(kept, info, height)
        except InsufficientFunds as error:
            return machine.NothingLeft(chain_text(error))
        total_sat = sum(vtxo.amount_sat for vtxo in kept)
        agreed_sat = sum(vtxo.amount_sat for vtxo in stored) - sum(
            output.amount_sat for output in record.round.outputs
        )
        max_fee_sat = max(agreed_sat, self._unattended.max_fee_sat(total_sat))
        if total_sat - amount_sat > max_fee_sat:
            refusal = AbsurdFee(total_sat - amount_sat, total_sat, max_fee_sat)
            log.error("refresh %d is not made smaller: %s", record.id, refusal)
            return machine.NothingLeft(str(refusal))
        key = await self._keychain.reserve()
        outputs = (Output(amount_sat, key.public_key),)
        return machine.Shrunk(tuple(vtxo.id for vtxo in kept), outputs)

    # --- joining

    async def _register(self, record: Record, challenge: bytes) -> Observation:
        round_ = record.round
        try:
            info = await self._server.info()
            ticket = Ticket(tuple(Signer.generate(info.nb_round_nonces) for _ in round_.outputs))
            cosigned = [
                (output.request, signer.secret.public_key)
                for output, signer in zip(round_.outputs, ticket.signers, strict=True)
            ]
            inputs, secrets = await self._inputs(round_)
            proofs = await asyncio.to_thread(
                lambda: [
                    RoundInput(vtxo.id, attest(round_attempt_message(challenge, vtxo.id, cosigned), secret))
                    for vtxo, secret in zip(inputs, secrets, strict=True)
                ]
            )
            requests = [
                SignedVtxoRequest(request, cosign_pubkey, signer.pub_nonces)
                for (request, cosign_pubkey), signer in zip(cosigned, ticket.signers, strict=True)
            ]
            unlock_hash = await self._server.submit_payment(
                proofs, requests, mailbox_id=self._keychain.mailbox_key.public_key
            )
        except BarkdError as error:
            return await self._not_registered(round_, error)
        self.drop_ticket(record.id)
        self._tickets[record.id] = ticket
        return machine.Accepted(unlock_hash)

    async def _inputs(self, round_: Round) -> tuple[Sequence[Vtxo], Sequence[SecretKey]]:
        """The inputs and their keys; the server knows their chains when this returns."""
        async with self._store.read() as tx:
            stored = await tx.vtxos.get_many(round_.inputs)
            inputs = await tx.vtxos.bodies(round_.inputs)
        secrets = await self._keychain.secrets_for([vtxo.user_pubkey for vtxo in inputs])
        known = {vtxo.id for vtxo in stored if vtxo.registered}
        missing = [vtxo for vtxo in inputs if vtxo.id not in known]
        await self._server.register_vtxo_transactions(missing)
        self._registration.note_registered(vtxo.id for vtxo in missing)
        return inputs, secrets

    async def _not_registered(self, round_: Round, error: BarkdError) -> Observation:
        log.warning("not taken into a round: %s", chain_text(error))
        if isinstance(error, ServerRejected):
            blamed = _vtxo_ids(error.identifiers) & frozenset(round_.inputs)
            if blamed:
                await self.note_refused(blamed)
            return machine.Refused(chain_text(error), blamed)
        return machine.Unanswered(chain_text(error))

    # --- signing

    async def _sign_tree(self, record: Record, state: Registered, proposal: VtxoProposal) -> Observation:
        ticket = self._tickets[record.id]
        signers, ticket.signers = ticket.signers, ()
        try:
            info = await self._server.info()
            tip = await self._chain.tip()
            # What was announced when we came, not what is now: if that has changed, another attempt is cheap.
            agreed = record.round.agreed or Agreed(info.vtxo_exit_delta, info.vtxo_lifetime)
            terms = RoundTerms(
                info.server_pubkey,
                agreed.exit_delta,
                tip.height + agreed.lifetime - CLIENT_EXPIRY_BUFFER_BLOCKS,
            )
            ticket.partials = await asyncio.to_thread(
                sign_tree, proposal, record.round.outputs, signers, state.unlock_hash, terms
            )
        except (BarkdError, ValueError) as error:
            log.warning("refusing to sign round %d: %s", state.round_seq, chain_text(error))
            return machine.TreeRefused(chain_text(error))
        finally:
            for signer in signers:
                signer.wipe()
        cosign_pubkeys = tuple(signer.secret.public_key for signer in signers)
        return machine.TreeSigned(proposal.vtxos_spec, proposal.unsigned_round_tx, cosign_pubkeys)

    async def _deliver(self, record: Record) -> None:
        """Send our signatures. Whether they arrived, the events tell."""
        ticket = self._tickets.get(record.id)
        for cosign_pubkey, partials in () if ticket is None else ticket.partials:
            for nth in range(1, DELIVERY_TRIES + 1):
                try:
                    await self._server.provide_vtxo_signatures(cosign_pubkey, partials)
                    break
                except ServerRejected as error:
                    # Also what a second delivery gets, if the answer to the first was lost.
                    log.warning("round signatures refused: %s", chain_text(error))
                    break
                except BarkdError as error:
                    log.warning("round signatures, try %d: %s", nth, chain_text(error))

    async def _check_finished(self, round_: Round, state: Signed, finished: RoundFinished) -> Observation:
        try:
            vtxos = await asyncio.to_thread(take_leaves, round_.outputs, state, finished)
        except (ProtocolViolation, ValueError) as error:
            log.error("round %d is not the one that we signed: %s", state.round_seq, chain_text(error))
            return machine.FinishRefused(chain_text(error))
        return machine.TreeFinished(finished.signed_round_tx, vtxos)

    async def _publish(self, funding_tx: Tx) -> None:
        try:
            await self._chain.broadcast(funding_tx)
        except BarkdError as error:
            log.warning("broadcasting round transaction %s: %s", funding_tx.txid, chain_text(error))

    # --- what the server says

    async def _ask_status(self, record: Record, ask: machine.AskStatus) -> Observation:
        """Raises ServerError if the server gives no answer, ProtocolViolation for a bad one."""
        try:
            answer = await self._server.round_participation_status(ask.unlock_hash)
        except ServerRejected as error:
            if not error.not_found:
                raise
            reason = "server reports round participation not found"
            if isinstance(record.round.state, Delegated) and not await self._is_superseded(record):
                # It forgets a participation when one of the inputs is used for something else.
                lost = await self.without_lost(record)
                if isinstance(lost, machine.Shrunk):
                    return lost
            return machine.StatusUnknown(reason, await self._can_repeat(record), ask.then)
        if answer.state is RoundParticipationState.PENDING:
            lost = await self.without_lost(record) if isinstance(record.round.state, Delegated) else None
            return lost if isinstance(lost, machine.Shrunk) else machine.StatusPending()
        if answer.funding_tx is None:
            raise ProtocolViolation("the server reports a round without its funding transaction")
        return machine.StatusIssued(answer, answer.funding_tx.txid)

    async def _can_repeat(self, record: Record) -> bool:
        """Whether all inputs are free, and no newer participation wants one of them."""
        async with self._store.read() as tx:
            stored = await tx.vtxos.get_many(record.round.inputs)
        is_free = len(available(stored, record.movement_id)) == len(stored)
        return is_free and not await self._is_superseded(record)

    async def _is_superseded(self, record: Record) -> bool:
        """Whether a newer participation wants one of the inputs: the server forgets the older one then."""
        async with self._store.read() as tx:
            by_input = await tx.rounds.by_input()
        return any(by_input.get(vtxo_id, (record.id,))[-1] > record.id for vtxo_id in record.round.inputs)

    async def _submit(self, round_: Round) -> Observation:
        try:
            inputs, secrets = await self._inputs(round_)
            requests: list[VtxoRequest] = [output.request for output in round_.outputs]
            proofs = [
                RoundInput(vtxo.id, attest(delegated_participation_message(vtxo.id, requests), secret))
                for vtxo, secret in zip(inputs, secrets, strict=True)
            ]
            unlock_hash = await self._server.submit_round_participation(
                proofs,
                requests,
                mailbox_id=self._keychain.mailbox_key.public_key,
                scheduled_height=round_.scheduled_height,
            )
        except BarkdError as error:
            return await self._not_registered(round_, error)
        return machine.Accepted(unlock_hash)

    async def _collect(
        self, round_: Round, state: Delegated, participation: RoundParticipation
    ) -> Observation | None:
        """The leaves that the server made for us, once they are worth looking at.

        Raises ProtocolViolation if they are not what was asked for; nothing is forfeited for such.
        """
        funding_tx = participation.funding_tx
        assert funding_tx is not None, "checked with the status"
        try:
            if not await self._swapper.is_deep(funding_tx):
                return None
        except FundingTxDoubleSpent as error:
            return machine.DoubleSpent(str(error))
        async with self._store.read() as tx:
            inputs = await tx.vtxos.bodies(round_.inputs)
        info = await self._server.info()
        # Days may be between: it may have changed, but not beyond what would have been agreed to.
        agreed = round_.agreed
        if agreed is not None and info.vtxo_exit_delta > highest_exit_delta(agreed.exit_delta):
            raise WorseTerms(
                f"the server's exit delta has risen from {agreed.exit_delta} to {info.vtxo_exit_delta}"
            )
        tip = await self._chain.tip()
        depth = max((vtxo.exit_depth for vtxo in participation.output_vtxos), default=0)
        exits = min_leaf_expiry(depth, inputs, tip_height=tip.height, exit_margin=self._limits.exit_margin)
        scheduled = 0 if round_.scheduled_height is None else round_.scheduled_height + 1
        terms = RoundTerms(info.server_pubkey, info.vtxo_exit_delta, max(scheduled, exits))
        accept_delegated(
            participation.output_vtxos,
            funding_tx,
            outputs=[output.cosigned_by(None) for output in round_.outputs],
            unlock_hash=state.unlock_hash,
            terms=terms,
        )
        # The server may have given it to us unsigned.
        on_chain = await self._chain.get_tx(funding_tx.txid)
        return machine.LeavesDelivered(on_chain or funding_tx, participation.output_vtxos)

    async def _swap(self, round_: Round, state: Issued) -> Observation | None:
        if not state.forfeits_sent:
            try:
                if not await self._swapper.is_deep(state.funding_tx):
                    return None
            except FundingTxDoubleSpent as error:
                return machine.DoubleSpent(str(error))
        return await self._swapper.prepare(round_, state)


def _vtxo_ids(identifiers: Sequence[str]) -> frozenset[VtxoId]:
    """Those of the texts that are VTXO ids."""
    found = set()
    for text in identifiers:
        try:
            found.add(VtxoId.parse(text))
        except BarkdError:
            log.debug("the server blames %r, which is no VTXO id", text)
    return frozenset(found)
