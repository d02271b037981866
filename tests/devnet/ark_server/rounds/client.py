"""The scripted client in rounds and offboards, with every check that a wallet makes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from barkd_py.ark.attestations import (
    attest,
    delegated_participation_message,
    offboard_request_message,
    round_attempt_message,
)
from barkd_py.ark.cosign import Cosignature
from barkd_py.ark.fees import VtxoFeeInfo, offboard_fee, refresh_fee
from barkd_py.ark.offboard import OffboardForfeits, verify_offboard_tx
from barkd_py.ark.policy import encode_policy
from barkd_py.ark.rounds import (
    AcceptedProposal,
    HarkForfeit,
    RoundOutput,
    RoundTerms,
    accept_delegated,
    accept_finished,
    accept_proposal,
    finish_leaf,
    leaf_task,
    unlock_vtxos,
)
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.musig import SecNonce, generate_nonce
from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.bitcoin.units import FeeRate
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from tests.devnet.ark_server.client import METADATA, Client


class Events:
    """An open subscription to rounds."""

    def __init__(self, client: Client) -> None:
        self._call = client.ark.SubscribeRounds(core_pb2.Empty(), metadata=METADATA)

    async def opened(self) -> "Events":
        await self._call.initial_metadata()
        return self

    async def next(self, kind: str) -> Any:
        """The next event, which must be of this kind."""
        event = await self._call.read()
        assert isinstance(event, pb.RoundEvent), "the stream ended"
        assert event.WhichOneof("event") == kind
        return getattr(event, kind)


@dataclass
class InPerson:
    """A participation in person. request: change it to provoke refusals."""

    inputs: tuple[Vtxo, ...]
    output: RoundOutput
    cosign_secret: SecretKey
    sec_nonces: list[SecNonce]
    request: pb.SubmitPaymentRequest
    unlock_hash: bytes = b""
    accepted: AcceptedProposal | None = None


@dataclass
class LockedCoins:
    """The new coins of a finished round, before the swap."""

    inputs: tuple[Vtxo, ...]
    vtxos: tuple[Vtxo, ...]
    funding_tx: Tx
    unlock_hash: bytes


@dataclass
class PreparedOffboard:
    """A prepared offboard, checked; it can be finished."""

    inputs: tuple[Vtxo, ...]
    tx: Tx
    server_nonces: list[bytes]
    request: pb.PrepareOffboardRequest
    forfeits: OffboardForfeits = field(init=False)

    def __post_init__(self) -> None:
        self.forfeits = OffboardForfeits(self.inputs, self.tx)


class RoundClient(Client):
    """A user who takes part in rounds, and leaves by offboards."""

    # --- rounds in person

    async def refresh_fee_sat(self, inputs: Sequence[Vtxo], height: int | None = None) -> int:
        at_height = (await self.chain.tip()).height if height is None else height
        infos = [
            VtxoFeeInfo.at_tip(
                amount_sat=vtxo.amount_sat, expiry_height=vtxo.expiry_height, tip_height=at_height
            )
            for vtxo in inputs
        ]
        return refresh_fee(self.server.settings.fees, infos)

    async def prepare_round(
        self, attempt: pb.RoundAttempt, *inputs: Vtxo, fee_sat: int | None = None
    ) -> InPerson:
        """Swap all inputs for one coin."""
        fee = await self.refresh_fee_sat(inputs) if fee_sat is None else fee_sat
        cosign_secret = SecretKey.generate()
        amount_sat = sum(vtxo.amount_sat for vtxo in inputs) - fee
        output = RoundOutput(amount_sat, self.policy, cosign_secret.public_key)
        pairs = [generate_nonce(cosign_secret) for _ in range(self.server.settings.nb_round_nonces)]
        request = pb.SubmitPaymentRequest(
            vtxo_requests=[
                pb.SignedVtxoRequest(
                    vtxo=pb.VtxoRequest(amount=amount_sat, policy=encode_policy(output.policy)),
                    cosign_pubkey=cosign_secret.public_key.data,
                    public_nonces=[pub_nonce for _, pub_nonce in pairs],
                )
            ]
        )
        prepared = InPerson(
            tuple(inputs), output, cosign_secret, [sec_nonce for sec_nonce, _ in pairs], request
        )
        self.attest_round(attempt, prepared)
        return prepared

    def attest_round(self, attempt: pb.RoundAttempt, prepared: InPerson) -> None:
        """Sign for all inputs, and put them into the request."""
        outputs = [(prepared.output, prepared.cosign_secret.public_key)]
        del prepared.request.input_vtxos[:]
        for vtxo in prepared.inputs:
            message = round_attempt_message(attempt.round_attempt_challenge, vtxo.id, outputs)
            prepared.request.input_vtxos.add(vtxo_id=vtxo.id, attestation=attest(message, self.secret))

    async def submit(self, prepared: InPerson) -> InPerson:
        answer = await self.call(self.ark.SubmitPayment, prepared.request)
        prepared.unlock_hash = answer.unlock_hash
        return prepared

    async def join(self, attempt: pb.RoundAttempt, *inputs: Vtxo) -> InPerson:
        return await self.submit(await self.prepare_round(attempt, *inputs))

    async def terms(self) -> RoundTerms:
        settings = self.server.settings
        tip = await self.chain.tip()
        return RoundTerms(
            self.server.keys.server_pubkey, settings.vtxo_exit_delta, tip.height + settings.vtxo_lifetime
        )

    async def signatures(self, joined: InPerson, proposal: pb.VtxoProposal) -> pb.VtxoSignaturesRequest:
        """Check the proposal, and sign it."""
        joined.accepted = accept_proposal(
            proposal.vtxos_spec,
            Tx.parse(proposal.unsigned_round_tx),
            list(proposal.vtxos_agg_nonces),
            outputs=[joined.output],
            unlock_hash=joined.unlock_hash,
            terms=await self.terms(),
            nb_nonces=len(joined.sec_nonces),
        )
        partials = joined.accepted.tree.cosign_leaf(
            joined.accepted.leaves[0],
            joined.cosign_secret,
            joined.sec_nonces,
            list(proposal.vtxos_agg_nonces),
        )
        return pb.VtxoSignaturesRequest(
            pubkey=joined.cosign_secret.public_key.data, signatures=list(partials)
        )

    async def sign(self, joined: InPerson, proposal: pb.VtxoProposal) -> None:
        await self.call(self.ark.ProvideVtxoSignatures, await self.signatures(joined, proposal))

    def locked_coins(self, joined: InPerson, finished: pb.RoundFinished) -> LockedCoins:
        """Check the finished round."""
        assert joined.accepted is not None
        funding_tx = Tx.parse(finished.signed_round_tx)
        vtxos = accept_finished(joined.accepted, funding_tx, list(finished.vtxo_cosign_signatures))
        return LockedCoins(joined.inputs, vtxos, funding_tx, joined.unlock_hash)

    async def hold_round(self, *inputs: Vtxo) -> LockedCoins:
        """A round with this user alone, from the trigger to its end."""
        events = await Events(self).opened()
        if self.server.rounds.events.last is not None:
            await events._call.read()
        self.server.rounds.trigger()
        joined = await self.join(await events.next("attempt"), *inputs)
        self.server.rounds.go_on()
        await self.sign(joined, await events.next("vtxo_proposal"))
        return self.locked_coins(joined, await events.next("finished"))

    # --- delegated

    async def delegated_request(
        self,
        *inputs: Vtxo,
        height: int | None = None,
        amounts_sat: Sequence[int] | None = None,
        mailbox: bool = True,
    ) -> pb.RoundParticipationRequest:
        if amounts_sat is None:
            total_sat = sum(vtxo.amount_sat for vtxo in inputs)
            amounts_sat = [total_sat - await self.refresh_fee_sat(inputs, height)]
        outputs = [RoundOutput(amount_sat, self.policy) for amount_sat in amounts_sat]
        return pb.RoundParticipationRequest(
            input_vtxos=[
                pb.InputVtxo(
                    vtxo_id=vtxo.id,
                    attestation=attest(delegated_participation_message(vtxo.id, outputs), self.secret),
                )
                for vtxo in inputs
            ],
            vtxo_requests=[
                pb.VtxoRequest(amount=output.amount_sat, policy=encode_policy(output.policy))
                for output in outputs
            ],
            unblinded_mailbox_id=self.mailbox_id.data if mailbox else None,
            scheduled_height=height,
        )

    async def delegate(self, *inputs: Vtxo, height: int | None = None) -> bytes:
        """The unlock hash."""
        request = await self.delegated_request(*inputs, height=height)
        answer = await self.call(self.ark.SubmitRoundParticipation, request)
        unlock_hash: bytes = answer.unlock_hash
        return unlock_hash

    async def participation(self, unlock_hash: bytes) -> Any:
        request = pb.RoundParticipationStatusRequest(unlock_hash=unlock_hash)
        return await self.call(self.ark.RoundParticipationStatus, request)

    async def delegated_coins(self, unlock_hash: bytes, *inputs: Vtxo) -> LockedCoins:
        """Check what the server made of a delegated participation."""
        status = await self.participation(unlock_hash)
        assert status.status == pb.ROUND_PART_ISSUED
        funding_tx = Tx.parse(status.round_funding_tx)
        vtxos = tuple(Vtxo.decode(data) for data in status.output_vtxos)
        outputs = [RoundOutput(vtxo.amount_sat, self.policy) for vtxo in vtxos]
        terms = await self.terms()
        accept_delegated(vtxos, funding_tx, outputs=outputs, unlock_hash=unlock_hash, terms=terms)
        return LockedCoins(inputs, vtxos, funding_tx, unlock_hash)

    # --- the swap

    async def sign_leaves(self, coins: LockedCoins) -> tuple[Vtxo, ...]:
        signed = []
        for vtxo in coins.vtxos:
            sec_nonce, pub_nonce = leaf_task(vtxo).generate_nonce(self.secret)
            answer = await self.call(
                self.ark.RequestLeafVtxoCosign,
                pb.LeafVtxoCosignRequest(vtxo_id=vtxo.id, public_nonce=pub_nonce),
            )
            cosignature = Cosignature(answer.public_nonce, answer.partial_signature)
            signed.append(finish_leaf(vtxo, self.secret, sec_nonce, pub_nonce, cosignature))
        return tuple(signed)

    async def forfeit_request(self, coins: LockedCoins) -> pb.ForfeitVtxosRequest:
        ids = [vtxo.id for vtxo in coins.inputs]
        answer = await self.call(
            self.ark.RequestForfeitNonces,
            pb.ForfeitNoncesRequest(unlock_hash=coins.unlock_hash, vtxo_ids=ids),
        )
        assert len(answer.public_nonces) == len(ids)
        return pb.ForfeitVtxosRequest(
            forfeit_bundles=[
                HarkForfeit(vtxo, coins.unlock_hash).sign(self.secret, nonce).encode()
                for vtxo, nonce in zip(coins.inputs, answer.public_nonces, strict=True)
            ]
        )

    async def swap(self, coins: LockedCoins) -> tuple[Vtxo, ...]:
        """Forfeit the inputs; the new coins, fully signed and registered."""
        signed = await self.sign_leaves(coins)
        answer = await self.call(self.ark.ForfeitVtxos, await self.forfeit_request(coins))
        unlocked = unlock_vtxos(signed, answer.unlock_preimage, coins.funding_tx)
        await self.register(*unlocked)
        return unlocked

    # --- offboards

    async def offboard_request(
        self,
        inputs: Sequence[Vtxo],
        destination: bytes,
        *,
        send_sat: int | None = None,
        fee_rate: FeeRate | None = None,
        add_sat: int = 0,
    ) -> pb.PrepareOffboardRequest:
        """Leave with whole inputs, or send an amount. add_sat: ask for more than is paid for."""
        rate = fee_rate or self.server.fee_rates.regular
        tip = await self.chain.tip()
        gross_sat = sum(vtxo.amount_sat for vtxo in inputs)
        fee_sat = offboard_fee(
            self.server.settings.fees,
            gross_sat if send_sat is None else send_sat,
            [
                VtxoFeeInfo.at_tip(
                    amount_sat=vtxo.amount_sat, expiry_height=vtxo.expiry_height, tip_height=tip.height
                )
                for vtxo in inputs
            ],
            script_pubkey=destination,
            fee_rate=rate,
        )
        net_sat = (gross_sat - fee_sat if send_sat is None else send_sat) + add_sat
        request = pb.PrepareOffboardRequest(
            offboard=pb.OffboardRequest(
                net_amount_sat=net_sat,
                offboard_spk=destination,
                deduct_fees_from_gross_amount=send_sat is None,
                fee_rate_kwu=rate.sat_per_kwu,
            ),
            input_vtxo_ids=[vtxo.id for vtxo in inputs],
        )
        self.attest_offboard(request, inputs)
        return request

    def attest_offboard(self, request: pb.PrepareOffboardRequest, inputs: Sequence[Vtxo]) -> None:
        message = offboard_request_message(
            net_amount_sat=request.offboard.net_amount_sat,
            script_pubkey=request.offboard.offboard_spk,
            input_ids=[vtxo.id for vtxo in inputs],
        )
        del request.attestation[:]
        request.attestation.extend(attest(message, self.secret) for _ in inputs)

    async def prepare_offboard(
        self, inputs: Sequence[Vtxo], request: pb.PrepareOffboardRequest
    ) -> PreparedOffboard:
        """Open a session, and check what the server proposes."""
        answer = await self.call(self.ark.PrepareOffboard, request)
        tx = Tx.parse(answer.offboard_tx)
        destination = TxOut(request.offboard.net_amount_sat, request.offboard.offboard_spk)
        verify_offboard_tx(tx, destination, len(inputs))
        return PreparedOffboard(tuple(inputs), tx, list(answer.forfeit_cosign_nonces), request)

    def finish_request(self, prepared: PreparedOffboard) -> pb.FinishOffboardRequest:
        answers = prepared.forfeits.sign([self.secret] * len(prepared.inputs), prepared.server_nonces)
        return pb.FinishOffboardRequest(
            offboard_txid=prepared.tx.txid,
            user_nonces=[answer.pub_nonce for answer in answers],
            partial_signatures=[answer.partial_sig for answer in answers],
        )

    async def finish_offboard(self, prepared: PreparedOffboard) -> Tx:
        answer = await self.call(self.ark.FinishOffboard, self.finish_request(prepared))
        signed = Tx.parse(answer.signed_offboard_tx)
        assert signed.txid == prepared.tx.txid
        return signed
