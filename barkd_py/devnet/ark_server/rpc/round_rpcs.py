"""The RPCs of rounds: messages in and out.

Source: sheet 10 §6.7; sheet 08 §4.8.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol, TypeVar

import grpc

from barkd_py.ark.mailbox import decode_mailbox_id
from barkd_py.ark.rounds import ForfeitBundle
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.devnet.ark_server.failures import BadArgument, Malformed, Missing, RpcStatus
from barkd_py.devnet.ark_server.rounds.attempt import AttestedInput, CosignedOutput, PaymentRequest
from barkd_py.devnet.ark_server.rounds.delegated import DelegatedParticipations, DelegatedRequest, Status
from barkd_py.devnet.ark_server.rounds.engine import RoundEngine
from barkd_py.devnet.ark_server.rounds.events import (
    AttemptStarted,
    RoundEvent,
    RoundFailed,
    RoundFinished,
    TreeProposed,
)
from barkd_py.devnet.ark_server.rounds.forfeits import Forfeits, check_nonce_count
from barkd_py.devnet.ark_server.rpc import fields
from barkd_py.devnet.ark_server.settings import PROTOCOL_VERSION_HASH_LOCKS, ServerSettings
from barkd_py.devnet.ark_server.store.participation_rows import WantedOutput
from barkd_py.server_rpc.protos import bark_server_pb2 as pb

T = TypeVar("T")


class RoundRpcs:
    """What `ArkService` answers about rounds."""

    def __init__(
        self,
        settings: ServerSettings,
        engine: RoundEngine,
        delegated: DelegatedParticipations,
        forfeits: Forfeits,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._delegated = delegated
        self._forfeits = forfeits

    # --- events

    def next_round_time(self) -> pb.NextRoundTimeResponse:
        return pb.NextRoundTimeResponse(timestamp=int(self._engine.next_round_at))

    def last_event(self) -> pb.RoundEvent:
        event = self._engine.events.last
        if event is None:
            raise Missing("no round event yet", [""])
        return round_event(event)

    async def events(self) -> AsyncIterator[pb.RoundEvent]:
        async for event in self._engine.events.subscribe():
            yield round_event(event)

    # --- in person

    async def submit_payment(self, request: pb.SubmitPaymentRequest) -> pb.SubmitPaymentResponse:
        payment = PaymentRequest(
            inputs=_inputs(request.input_vtxos, "round attempt"),
            outputs=tuple(self._cosigned_output(each) for each in request.vtxo_requests),
        )
        if request.offboard_requests:
            raise RpcStatus(grpc.StatusCode.UNIMPLEMENTED, "offboards in rounds are no longer supported")
        unlock_hash = await self._engine.submit_payment(payment)
        return pb.SubmitPaymentResponse(unlock_hash=unlock_hash)

    def _cosigned_output(self, request: pb.SignedVtxoRequest) -> CosignedOutput:
        if len(request.public_nonces) != self._settings.nb_round_nonces:
            raise BadArgument(f"need exactly {self._settings.nb_round_nonces} public nonces")
        return _converted(
            "invalid signed vtxo request",
            lambda: CosignedOutput(
                wanted=_wanted(request.vtxo),
                cosign_pubkey=fields.public_key(request.cosign_pubkey),
                pub_nonces=tuple(fields.public_nonce(nonce) for nonce in request.public_nonces),
            ),
        )

    async def provide_signatures(self, request: pb.VtxoSignaturesRequest) -> None:
        cosign_pubkey = fields.public_key(request.pubkey)
        partials = tuple(fields.partial_signature(data) for data in request.signatures)
        await self._engine.provide_signatures(cosign_pubkey, partials)

    # --- delegated

    async def submit_participation(
        self, request: pb.RoundParticipationRequest
    ) -> pb.RoundParticipationResponse:
        inputs = _inputs(request.input_vtxos, "delegated round participation")
        has_mailbox = request.HasField("unblinded_mailbox_id")
        mailbox_id = _mailbox_id(request.unblinded_mailbox_id) if has_mailbox else None
        outputs = tuple(
            _converted("invalid vtxo request", lambda each=each: _wanted(each))  # type: ignore[misc]
            for each in request.vtxo_requests
        )
        scheduled_height = request.scheduled_height if request.HasField("scheduled_height") else None
        delegated = DelegatedRequest(inputs, outputs, mailbox_id, scheduled_height)
        return pb.RoundParticipationResponse(unlock_hash=await self._delegated.submit(delegated))

    async def participation_status(
        self, request: pb.RoundParticipationStatusRequest
    ) -> pb.RoundParticipationStatusResponse:
        status = await self._delegated.status(fields.hash32(request.unlock_hash, "invalid SHA-256 hash"))
        return _status(status)

    # --- the swap

    async def cosign_leaf(self, request: pb.LeafVtxoCosignRequest) -> pb.LeafVtxoCosignResponse:
        vtxo_id = fields.vtxo_id(request.vtxo_id)
        answer = await self._forfeits.cosign_leaf(vtxo_id, fields.public_nonce(request.public_nonce))
        return pb.LeafVtxoCosignResponse(public_nonce=answer.pub_nonce, partial_signature=answer.partial_sig)

    async def forfeit_nonces(self, request: pb.ForfeitNoncesRequest) -> pb.ForfeitNoncesResponse:
        check_nonce_count(len(request.vtxo_ids))
        unlock_hash = fields.hash32(request.unlock_hash, "invalid SHA-256 hash")
        nonces = await self._forfeits.nonces(unlock_hash, fields.vtxo_ids(request.vtxo_ids))
        return pb.ForfeitNoncesResponse(public_nonces=nonces)

    async def forfeit(self, request: pb.ForfeitVtxosRequest) -> pb.ForfeitVtxosResponse:
        preimage = await self._forfeits.forfeit([_bundle(data) for data in request.forfeit_bundles])
        return pb.ForfeitVtxosResponse(unlock_preimage=preimage)


def require_hash_locks(version: int) -> None:
    """Raises BadArgument for clients that are too old for rounds."""
    if version < PROTOCOL_VERSION_HASH_LOCKS:
        raise BadArgument(
            "Your client version is too old, you need to update in order to be able to participate in rounds."
        )


def _inputs(messages: Iterable[pb.InputVtxo], kind: str) -> tuple[AttestedInput, ...]:
    """kind: of the attestations."""
    return tuple(
        AttestedInput(
            fields.vtxo_id(message.vtxo_id),
            fields.signature(message.attestation, f"invalid {kind} attestation"),
        )
        for message in messages
    )


def _wanted(message: pb.VtxoRequest) -> WantedOutput:
    return WantedOutput(message.amount, fields.policy(message.policy))


def _converted(what: str, convert: Callable[[], T]) -> T:
    """What a conversion gives; its failure is the client's, and says in what."""
    try:
        return convert()
    except Malformed as error:
        raise BadArgument(what) from error


def _mailbox_id(data: bytes) -> PublicKey:
    try:
        return decode_mailbox_id(data)
    except DecodeError as error:
        raise BadArgument("invalid unblinded mailbox id") from error


def _bundle(data: bytes) -> ForfeitBundle:
    try:
        return ForfeitBundle.decode(data)
    except DecodeError:
        raise Malformed("invalid hArk forfeit bundle") from None


def _status(status: Status) -> pb.RoundParticipationStatusResponse:
    return pb.RoundParticipationStatusResponse(
        status=pb.RoundParticipationStatus.ValueType(status.stage.value),
        input_vtxo_ids=status.input_ids,
        round_funding_tx=None if status.funding_tx is None else status.funding_tx.serialize(),
        output_vtxos=[vtxo.encode() for vtxo in status.vtxos],
        unlock_preimage=status.preimage,
    )


class _HasAttempt(Protocol):
    @property
    def round_seq(self) -> int: ...

    @property
    def attempt_seq(self) -> int: ...


def round_event(event: RoundEvent) -> pb.RoundEvent:
    """The message of an event."""
    match event:
        case AttemptStarted():
            attempt = pb.RoundAttempt(**_numbers(event), round_attempt_challenge=event.challenge)
            return pb.RoundEvent(attempt=attempt)
        case TreeProposed():
            proposal = pb.VtxoProposal(
                **_numbers(event),
                vtxos_spec=event.spec,
                unsigned_round_tx=event.unsigned_funding_tx.serialize(),
                vtxos_agg_nonces=event.agg_nonces,
            )
            return pb.RoundEvent(vtxo_proposal=proposal)
        case RoundFinished():
            finished = pb.RoundFinished(
                **_numbers(event),
                signed_round_tx=event.funding_tx.serialize(),
                vtxo_cosign_signatures=event.signatures,
            )
            return pb.RoundEvent(finished=finished)
        case RoundFailed():
            return pb.RoundEvent(failed=pb.RoundFailed(round_seq=event.round_seq))


def _numbers(event: _HasAttempt) -> dict[str, int]:
    return {"round_seq": event.round_seq, "attempt_seq": event.attempt_seq}
