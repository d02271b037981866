"""The RPCs of Lightning: messages in and out.

Source: sheet 10 §6.5, §6.6; sheet 08 §4.5, §4.6.
"""

from collections.abc import Callable, Sequence

from barkd_py.ark.mailbox import decode_mailbox_id
from barkd_py.bitcoin.bolt12 import InvalidOffer
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.devnet.ark_server.failures import BadArgument, Failure, Malformed
from barkd_py.devnet.ark_server.lightning.invoice import parse_invoice, read_offer
from barkd_py.devnet.ark_server.lightning.receive import (
    ClaimRequest,
    GrantRequest,
    LightningReceives,
    MoneyProof,
    ReceiveRequest,
    ReceiveState,
)
from barkd_py.devnet.ark_server.lightning.send import LightningSends, PaymentRequest
from barkd_py.devnet.ark_server.rpc import fields
from barkd_py.devnet.ark_server.settings import PROTOCOL_VERSION_HASH_LOCKS, Emulation, ServerSettings
from barkd_py.devnet.ark_server.vtxos.arkoor import CosignedPart, PartRequest
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2

_TOO_OLD = "Your client version is too old, you need to update in order to be able to {} Lightning payments."

ConvertParts = Callable[[Sequence[pb.ArkoorCosignRequest]], list[PartRequest]]


class LightningRpcs:
    """What `ArkService` answers about Lightning. convert: the parts of a package; raises Malformed."""

    def __init__(
        self,
        settings: ServerSettings,
        sends: LightningSends,
        receives: LightningReceives,
        convert: ConvertParts,
    ) -> None:
        self._settings = settings
        self._sends = sends
        self._receives = receives
        self._convert = convert

    # --- sending

    async def pay_htlc_cosign(
        self, request: pb.LightningPayHtlcCosignRequest, version: int
    ) -> pb.ArkoorPackageCosignResponse:
        _check_version(version, "send")
        return _cosigned(await self._sends.cosign_htlcs(self._parts(request.parts)))

    async def initiate(self, request: pb.InitiateLightningPaymentRequest, version: int) -> None:
        _check_version(version, "send")
        await self._sends.initiate(
            PaymentRequest(
                htlc_ids=tuple(fields.vtxo_ids(request.htlc_vtxo_ids)),
                invoice=parse_invoice(request.invoice),
                amount_sat=request.payment_amount_sat,
                mailbox_id=_mailbox_id(request),
                retry_secs=request.retry_for_secs if request.HasField("retry_for_secs") else None,
            )
        )

    async def payment_status(self, request: pb.CheckLightningPaymentRequest) -> pb.LightningPaymentStatus:
        state = await self._sends.state(_payment_hash(request.hash), wait=request.wait)
        if state.preimage is not None:
            return pb.LightningPaymentStatus(success=pb.PaymentSuccessStatus(preimage=state.preimage))
        if state.reason is None:
            return pb.LightningPaymentStatus(pending=core_pb2.Empty())
        failure = core_pb2.LightningPaymentFailure()
        if self._settings.emulate is Emulation.V0_8:
            failure.reason = core_pb2.LightningFailureReason.ValueType(state.reason)
        return pb.LightningPaymentStatus(failed=failure)

    async def revoke(self, request: pb.ArkoorPackageCosignRequest) -> pb.ArkoorPackageCosignResponse:
        return _cosigned(await self._sends.revoke(self._parts(request.parts)))

    async def fetch_bolt12_invoice(
        self, request: pb.FetchBolt12InvoiceRequest
    ) -> pb.FetchBolt12InvoiceResponse:
        try:
            offer = read_offer(request.offer)
        except InvalidOffer:
            raise BadArgument("invalid offer") from None
        if request.HasField("amount_sat"):
            amount_sat = request.amount_sat
        elif offer.amount_sat is not None:
            amount_sat = offer.amount_sat
        else:
            what = "user amount required"
            if offer.currency is not None:
                what = f"offer currency is not supported: {offer.currency}"
            raise BadArgument(f"cannot determine the amount to request for this offer: {what}")
        invoice = await self._sends.fetch_invoice(request.offer, amount_sat * 1000)
        return pb.FetchBolt12InvoiceResponse(invoice=invoice)

    # --- receiving

    async def start_receive(
        self, request: pb.StartLightningReceiveRequest, version: int
    ) -> pb.StartLightningReceiveResponse:
        _check_version(version, "receive")
        invoice = await self._receives.start(
            ReceiveRequest(
                payment_hash=_payment_hash(request.payment_hash),
                amount_sat=request.amount_sat,
                min_cltv_delta=request.min_cltv_delta,
                mailbox_id=_mailbox_id(request),
                description=request.description,
            )
        )
        return pb.StartLightningReceiveResponse(bolt11=invoice)

    async def receive_status(
        self, request: pb.CheckLightningReceiveRequest
    ) -> pb.CheckLightningReceiveResponse:
        return _receive_status(await self._receives.state(_payment_hash(request.hash), wait=request.wait))

    async def prepare_claim(
        self, request: pb.PrepareLightningReceiveClaimRequest, version: int
    ) -> pb.PrepareLightningReceiveClaimResponse:
        _check_version(version, "receive")
        state = await self._receives.grant(
            GrantRequest(
                payment_hash=_payment_hash(request.payment_hash),
                user_pubkey=fields.public_key(request.user_pubkey),
                expiry_height=request.htlc_recv_expiry,
                proof=_proof(request),
            )
        )
        return pb.PrepareLightningReceiveClaimResponse(
            receive=_receive_status(state), htlc_vtxos=[vtxo.encode() for vtxo in state.htlcs]
        )

    async def claim(self, request: pb.ClaimLightningReceiveRequest) -> pb.ArkoorPackageCosignResponse:
        payment_hash = _payment_hash(request.payment_hash)
        preimage = fields.hash32(request.payment_preimage, "invalid payment preimage")
        if not request.HasField("cosign_request"):
            raise BadArgument("cosign request missing")
        try:
            parts = self._convert(request.cosign_request.parts)
        except Malformed as error:
            raise BadArgument("invalid cosign request") from error
        return _cosigned(await self._receives.claim(ClaimRequest(payment_hash, preimage, parts)))

    async def cancel(self, request: pb.CancelLightningReceiveRequest) -> None:
        await self._receives.cancel(_payment_hash(request.payment_hash))

    def _parts(self, parts: Sequence[pb.ArkoorCosignRequest]) -> list[PartRequest]:
        try:
            return self._convert(parts)
        except Malformed as error:
            # Not an INVALID_ARGUMENT: the real server forgets to say whose fault it is.
            raise Failure(f"Failed to parse request: rpc conversion error: {error}") from None


def _check_version(version: int, what: str) -> None:
    if version < PROTOCOL_VERSION_HASH_LOCKS:
        raise BadArgument(_TOO_OLD.format(what))


def _payment_hash(data: bytes) -> bytes:
    return fields.hash32(data, "invalid payment hash")


def _mailbox_id(
    request: pb.InitiateLightningPaymentRequest | pb.StartLightningReceiveRequest,
) -> PublicKey | None:
    if not request.HasField("mailbox_id"):
        return None
    try:
        return decode_mailbox_id(request.mailbox_id)
    except DecodeError:
        raise Malformed("invalid mailbox_id") from None


def _proof(request: pb.PrepareLightningReceiveClaimRequest) -> MoneyProof | str | None:
    match request.WhichOneof("lightning_receive_anti_dos"):
        case "input_vtxo":
            proof = request.input_vtxo
            vtxo_id = fields.vtxo_id(proof.vtxo_id)
            if len(proof.attestation) != 64:
                raise BadArgument("invalid attestation")
            return MoneyProof(vtxo_id, proof.attestation)
        case "token":
            return request.token
        case _:
            return None


def _receive_status(state: ReceiveState) -> pb.CheckLightningReceiveResponse:
    return pb.CheckLightningReceiveResponse(
        invoice=state.receive.invoice,
        amount_sat=state.receive.amount_sat,
        status=pb.LightningReceiveStatus.ValueType(state.receive.status.wire_value),
        htlc_vtxos=[vtxo.id for vtxo in state.htlcs],
    )


def _cosigned(answers: Sequence[CosignedPart]) -> pb.ArkoorPackageCosignResponse:
    return pb.ArkoorPackageCosignResponse(
        parts=[
            pb.ArkoorCosignResponse(
                server_pub_nonces=answer.pub_nonces, server_partial_sigs=answer.partial_sigs
            )
            for answer in answers
        ]
    )
