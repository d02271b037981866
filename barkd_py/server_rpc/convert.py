"""Between protobuf messages and domain types; every length and every count is checked here.

A field of the wrong length raises `ConversionError` with upstream's name for the field. What has the right
length is not yet true: signatures, chains and preimages are verified by the caller.

Source: protocol sheet 08 §4, §5.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

from barkd_py.ark.arkoor import ArkoorDestination
from barkd_py.ark.cosign import Cosignature
from barkd_py.ark.fees import (
    BoardFees,
    FeeSchedule,
    LightningReceiveFees,
    LightningSendFees,
    OffboardFees,
    PpmExpiryFeeEntry,
    RefreshFees,
)
from barkd_py.ark.info import ArkInfo, BadArkInfo
from barkd_py.ark.policy import encode_policy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin import musig
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Tx, TxDecodeError
from barkd_py.server_rpc import api
from barkd_py.server_rpc.errors import ConversionError
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb

PUB_NONCE_LENGTH = 66
PARTIAL_SIG_LENGTH = 32
SIGNATURE_LENGTH = 64
HASH_LENGTH = 32
VTXO_ID_LENGTH = 36

# --- primitives


def exactly(data: bytes, length: int, what: str) -> bytes:
    if len(data) != length:
        raise ConversionError(f"invalid {what}")
    return data


def public_key(data: bytes, what: str = "public key") -> PublicKey:
    """33 bytes that are a point. Servers never send the 65-byte form."""
    try:
        return PublicKey(data)
    except ValueError:
        raise ConversionError(f"invalid {what}") from None


def pub_nonce(data: bytes) -> bytes:
    if len(data) != PUB_NONCE_LENGTH or not musig.is_public_nonce(data):
        raise ConversionError("invalid public musig nonce")
    return data


def agg_nonce(data: bytes) -> bytes:
    # An aggregate may hold the point at infinity, so its content is judged by the signing session.
    return exactly(data, PUB_NONCE_LENGTH, "aggregated musig nonce")


def partial_sig(data: bytes) -> bytes:
    return exactly(data, PARTIAL_SIG_LENGTH, "partial musig signature")


def vtxo_id(data: bytes) -> VtxoId:
    return VtxoId(exactly(data, VTXO_ID_LENGTH, "VTXO ID"))


def vtxo(data: bytes) -> Vtxo:
    """A full VTXO of a user policy, neither validated nor necessarily signed."""
    try:
        return Vtxo.decode(data)
    except DecodeError as error:
        raise ConversionError("invalid full VTXO (with genesis)") from error


def tx(data: bytes, what: str = "bitcoin transaction") -> Tx:
    try:
        return Tx.parse(data)
    except TxDecodeError:
        raise ConversionError(f"invalid {what}") from None


def same_count(expected: int, got: int, what: str) -> None:
    if expected != got:
        raise ConversionError(f"Wrong number of {what}. Expected {expected}, got {got}")


# --- server info


def ark_info(message: pb.ArkInfo) -> ArkInfo:
    """The server's terms; bounds are checked, safety is not."""
    if not message.HasField("fees"):
        raise ConversionError("missing fees")
    try:
        return ArkInfo(
            network=message.network,
            server_pubkey=public_key(message.server_pubkey, "server pubkey"),
            mailbox_pubkey=public_key(message.mailbox_pubkey, "mailbox pubkey"),
            round_interval_secs=message.round_interval_secs,
            nb_round_nonces=message.nb_round_nonces,
            vtxo_exit_delta=message.vtxo_exit_delta,
            vtxo_lifetime=message.vtxo_lifetime or message.vtxo_expiry_delta,
            htlc_send_expiry_delta=message.htlc_send_expiry_delta,
            htlc_expiry_delta=message.htlc_expiry_delta,
            max_vtxo_amount_sat=message.max_vtxo_amount if message.HasField("max_vtxo_amount") else None,
            required_board_confirmations=message.required_board_confirmations,
            max_user_invoice_cltv_delta=message.max_user_invoice_cltv_delta,
            min_board_amount_sat=message.min_board_amount,
            offboard_fee_rate_sat_per_kvb=message.offboard_feerate_sat_vkb,
            ln_receive_anti_dos_required=message.ln_receive_anti_dos_required,
            fees=fee_schedule(message.fees),
            max_vtxo_exit_depth=message.max_vtxo_exit_depth,
            max_offboard_inputs=message.max_offboard_inputs,
            tos_link=message.tos_link if message.HasField("tos_link") else None,
        )
    except BadArkInfo as error:
        raise ConversionError(str(error)) from None


def fee_schedule(message: pb.FeeSchedule) -> FeeSchedule:
    for part in ("board", "offboard", "refresh", "lightning_receive", "lightning_send"):
        if not message.HasField(part):
            raise ConversionError(f"missing {part.replace('_', ' ')} fees")
    return FeeSchedule(
        board=BoardFees(message.board.min_fee_sat, message.board.base_fee_sat, message.board.ppm),
        offboard=OffboardFees(
            message.offboard.base_fee_sat,
            message.offboard.fixed_additional_vb,
            _ppm_table(message.offboard.ppm_expiry_table),
        ),
        refresh=RefreshFees(message.refresh.base_fee_sat, _ppm_table(message.refresh.ppm_expiry_table)),
        lightning_receive=LightningReceiveFees(
            message.lightning_receive.base_fee_sat, message.lightning_receive.ppm
        ),
        lightning_send=LightningSendFees(
            message.lightning_send.min_fee_sat,
            message.lightning_send.base_fee_sat,
            _ppm_table(message.lightning_send.ppm_expiry_table),
        ),
    )


def _ppm_table(entries: Iterable[pb.PpmExpiryFeeEntry]) -> tuple[PpmExpiryFeeEntry, ...]:
    return tuple(PpmExpiryFeeEntry(entry.expiry_blocks_threshold, entry.ppm) for entry in entries)


# --- VTXO look-ups

_SPEND_STATES: dict[int, api.VtxoSpendState] = {
    pb.VTXO_SPEND_STATE_SPENDABLE: api.VtxoSpendState.SPENDABLE,
    pb.VTXO_SPEND_STATE_SPENT: api.VtxoSpendState.SPENT,
    pb.VTXO_SPEND_STATE_UNCLAIMED: api.VtxoSpendState.UNCLAIMED,
    pb.VTXO_SPEND_STATE_UNREGISTERED: api.VtxoSpendState.UNREGISTERED,
    pb.VTXO_SPEND_STATE_HTLC_RECV_UNCLAIMED: api.VtxoSpendState.HTLC_RECV_UNCLAIMED,
}


def spend_state_or_none(number: int) -> api.VtxoSpendState | None:
    """None for unspecified and for numbers of the future: never taken for spendable."""
    return _SPEND_STATES.get(number)


def spend_state(number: int) -> api.VtxoSpendState:
    state = spend_state_or_none(number)
    if state is None:
        raise ConversionError(f"unknown spend state {number}; this wallet may need updating")
    return state


def recovery_page(message: pb.RecoverVtxosByXpubResponse) -> api.XpubRecoveryPage:
    """Entries whose VTXO cannot be decoded, or whose index no key has, are left out."""
    entries = []
    for entry in message.vtxos:
        try:
            decoded = vtxo(entry.vtxo)
        except ConversionError:
            continue
        if entry.derivation_index < 2**31:
            state = spend_state_or_none(entry.spend_state)
            entries.append(api.RecoveredVtxo(decoded, entry.derivation_index, state))
    cursor = vtxo_id(message.cursor_vtxo_id) if message.HasField("cursor_vtxo_id") else None
    return api.XpubRecoveryPage(tuple(entries), message.nb_keys_scanned, message.have_more, cursor)


# --- cosigning


def board_cosignature(message: pb.BoardCosignResponse) -> Cosignature:
    return Cosignature(pub_nonce(message.pub_nonce), partial_sig(message.partial_sig))


def leaf_cosignature(message: pb.LeafVtxoCosignResponse) -> Cosignature:
    return Cosignature(pub_nonce(message.public_nonce), partial_sig(message.partial_signature))


def arkoor_request(parts: Iterable[api.ArkoorCosignPart]) -> list[pb.ArkoorCosignRequest]:
    return [
        pb.ArkoorCosignRequest(
            input_vtxo_id=bytes(item.part.input.id),
            outputs=_destinations(item.part.outputs),
            user_pub_nonces=item.user_pub_nonces,
            isolated_outputs=_destinations(item.part.isolated),
            use_checkpoint=item.part.use_checkpoint,
            attestation=item.attestation,
        )
        for item in parts
    ]


def _destinations(destinations: Iterable[ArkoorDestination]) -> list[pb.ArkoorDestination]:
    return [
        pb.ArkoorDestination(total_amount=output.amount_sat, policy=encode_policy(output.policy))
        for output in destinations
    ]


def arkoor_cosignatures(
    message: pb.ArkoorPackageCosignResponse, requested: Sequence[api.ArkoorCosignPart]
) -> tuple[api.ArkoorCosignature, ...]:
    """One answer per part, in request order, each with one nonce and signature per nonce that was sent."""
    same_count(len(requested), len(message.parts), "packages")
    answers = []
    for asked, part in zip(requested, message.parts, strict=True):
        count = len(asked.user_pub_nonces)
        same_count(count, len(part.server_pub_nonces), "server nonces provided")
        same_count(count, len(part.server_partial_sigs), "server partial sigs")
        answers.append(
            api.ArkoorCosignature(
                tuple(pub_nonce(nonce) for nonce in part.server_pub_nonces),
                tuple(partial_sig(sig) for sig in part.server_partial_sigs),
            )
        )
    return tuple(answers)


# --- mailbox


def mailbox_message(message: mb.MailboxMessage) -> api.MailboxMessage:
    """The content is passed on as delivered; only whoever processes it can say what a bad part costs."""
    return api.MailboxMessage(message.checkpoint, _mailbox_content(message))


def _mailbox_content(message: mb.MailboxMessage) -> api.MailboxContent:
    match message.WhichOneof("message"):
        case "arkoor":
            return api.ArkoorDelivery(tuple(message.arkoor.vtxos))
        case "round_participation_completed":
            return api.RoundParticipationCompleted(message.round_participation_completed.unlock_hash)
        case "incoming_lightning_payment":
            incoming = message.incoming_lightning_payment
            return api.IncomingLightningPayment(incoming.payment_hash, incoming.amount_msat)
        case "recovery_vtxo_ids":
            return api.RecoveryVtxoIds(tuple(message.recovery_vtxo_ids.vtxo_ids))
        case "lightning_send_finished":
            finished = message.lightning_send_finished
            return api.LightningSendFinished(
                finished.payment_hash,
                finished.preimage if finished.HasField("preimage") else None,
                failure_reason(finished.failure),
            )
        case _:
            return api.UnknownMessage()


def mailbox_page(message: mb.MailboxMessages) -> api.MailboxPage:
    return api.MailboxPage(tuple(mailbox_message(entry) for entry in message.messages), message.have_more)


def failure_reason(message: core_pb2.LightningPaymentFailure) -> api.LightningFailureReason:
    try:
        return api.LightningFailureReason(message.reason)
    except ValueError:  # a reason of the future
        return api.LightningFailureReason.UNSPECIFIED


# --- rounds


def round_input(item: api.RoundInput) -> pb.InputVtxo:
    return pb.InputVtxo(vtxo_id=bytes(item.vtxo_id), attestation=item.attestation)


def vtxo_request(item: api.VtxoRequest) -> pb.VtxoRequest:
    return pb.VtxoRequest(amount=item.amount_sat, policy=encode_policy(item.policy))


def signed_vtxo_request(item: api.SignedVtxoRequest) -> pb.SignedVtxoRequest:
    return pb.SignedVtxoRequest(
        vtxo=vtxo_request(item.request),
        cosign_pubkey=item.cosign_pubkey.data,
        public_nonces=item.pub_nonces,
    )


def round_event(message: pb.RoundEvent) -> api.RoundEvent:
    match message.WhichOneof("event"):
        case "attempt":
            attempt = message.attempt
            if len(attempt.round_attempt_challenge) != HASH_LENGTH:
                raise ConversionError("invalid challenge")
            return api.RoundAttempt(attempt.round_seq, attempt.attempt_seq, attempt.round_attempt_challenge)
        case "vtxo_proposal":
            proposal = message.vtxo_proposal
            return api.VtxoProposal(
                proposal.round_seq,
                proposal.attempt_seq,
                proposal.vtxos_spec,
                tx(proposal.unsigned_round_tx, "unsigned_round_tx"),
                tuple(agg_nonce(nonce) for nonce in proposal.vtxos_agg_nonces),
            )
        case "finished":
            finished = message.finished
            return api.RoundFinished(
                finished.round_seq,
                finished.attempt_seq,
                tx(finished.signed_round_tx, "signed_round_tx"),
                tuple(
                    exactly(sig, SIGNATURE_LENGTH, "vtxo_cosign_signatures")
                    for sig in finished.vtxo_cosign_signatures
                ),
            )
        case "failed":
            return api.RoundFailed(message.failed.round_seq)
        case _:
            raise ConversionError("unknown round event")


_PARTICIPATION_STATES: dict[int, api.RoundParticipationState] = {
    pb.ROUND_PART_PENDING: api.RoundParticipationState.PENDING,
    pb.ROUND_PART_ISSUED: api.RoundParticipationState.ISSUED,
    pb.ROUND_PART_RELEASED: api.RoundParticipationState.RELEASED,
}


def round_participation(message: pb.RoundParticipationStatusResponse) -> api.RoundParticipation:
    state = _PARTICIPATION_STATES.get(message.status)
    if state is None:
        raise ConversionError(f"unknown round participation status {message.status}")
    preimage = None
    if message.HasField("unlock_preimage"):
        preimage = exactly(message.unlock_preimage, HASH_LENGTH, "SHA-256 hash")
    return api.RoundParticipation(
        state,
        tuple(vtxo_id(data) for data in message.input_vtxo_ids),
        tx(message.round_funding_tx) if message.HasField("round_funding_tx") else None,
        tuple(vtxo(data) for data in message.output_vtxos),
        preimage,
    )


# --- offboard


def offboard_request(item: api.OffboardRequest) -> pb.OffboardRequest:
    return pb.OffboardRequest(
        net_amount_sat=item.net_amount_sat,
        offboard_spk=item.script_pubkey,
        deduct_fees_from_gross_amount=item.deduct_fees_from_gross_amount,
        fee_rate_kwu=item.fee_rate.sat_per_kwu,
    )


def prepared_offboard(message: pb.PrepareOffboardResponse, input_count: int) -> api.PreparedOffboard:
    same_count(input_count, len(message.forfeit_cosign_nonces), "forfeit cosign nonces")
    return api.PreparedOffboard(
        tx(message.offboard_tx), tuple(pub_nonce(nonce) for nonce in message.forfeit_cosign_nonces)
    )


# --- Lightning


def payment_status(message: pb.LightningPaymentStatus) -> api.LightningPaymentStatus:
    match message.WhichOneof("payment_status"):
        case "pending":
            return api.PaymentPending()
        case "success":
            preimage = exactly(message.success.preimage, HASH_LENGTH, "lightning payment preimage")
            return api.PaymentSucceeded(preimage)
        case "failed":
            return api.PaymentFailed(failure_reason(message.failed))
        case _:
            raise ConversionError("unknown payment status")


_RECEIVE_STATES: dict[int, api.LightningReceiveState] = {
    pb.CREATED: api.LightningReceiveState.CREATED,
    pb.ACCEPTED: api.LightningReceiveState.ACCEPTED,
    pb.HTLCS_READY: api.LightningReceiveState.HTLCS_READY,
    pb.SETTLED: api.LightningReceiveState.SETTLED,
    pb.CANCELED: api.LightningReceiveState.CANCELED,
}


def receive_status(message: pb.CheckLightningReceiveResponse) -> api.LightningReceiveStatus:
    state = _RECEIVE_STATES.get(message.status)
    if state is None:
        raise ConversionError(f"unknown lightning receive status {message.status}")
    return api.LightningReceiveStatus(
        message.invoice, message.amount_sat, state, tuple(vtxo_id(data) for data in message.htlc_vtxos)
    )


def receive_grant(message: pb.PrepareLightningReceiveClaimResponse) -> api.LightningReceiveGrant:
    if not message.HasField("receive"):
        raise ConversionError("lightning receive field missing")
    return api.LightningReceiveGrant(
        receive_status(message.receive), tuple(vtxo(data) for data in message.htlc_vtxos)
    )


def anti_dos(request: pb.PrepareLightningReceiveClaimRequest, proof: api.RoundInput | str | None) -> None:
    """Set the proof that the request carries."""
    match proof:
        case None:
            pass
        case str():
            request.token = proof
        case api.RoundInput():
            request.input_vtxo.CopyFrom(round_input(proof))
        case _:
            assert_never(proof)
