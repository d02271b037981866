"""`bark_server.ArkService`: messages in and out; the work is done elsewhere.

Fields are converted before anything else, in the order that the sheet gives per RPC, so that the first wrong
one is reported. RPCs that are missing here answer UNIMPLEMENTED.

Source: sheet 10 §6; sheet 08 §3.1.
"""

from collections.abc import AsyncIterator, Sequence

import grpc

from barkd_py.ark.fees import FeeSchedule, PpmExpiryFeeEntry
from barkd_py.devnet.ark_server.failures import BadArgument, Failure, Malformed, RpcStatus
from barkd_py.devnet.ark_server.funds.fee_rates import FeeRates
from barkd_py.devnet.ark_server.rpc import fields
from barkd_py.devnet.ark_server.rpc.call_context import CallContext, header, open_stream
from barkd_py.devnet.ark_server.rpc.lightning_rpcs import LightningRpcs
from barkd_py.devnet.ark_server.rpc.offboard_rpcs import OffboardRpcs
from barkd_py.devnet.ark_server.rpc.round_rpcs import RoundRpcs, require_hash_locks
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import (
    MAX_OFFBOARD_INPUTS,
    MAX_PROTOCOL_VERSION,
    MIN_PROTOCOL_VERSION,
    PROTOCOL_VERSION_BOARD_FUNDING_TX,
    Emulation,
    ServerSettings,
)
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.vtxos import lookups
from barkd_py.devnet.ark_server.vtxos.arkoor import Arkoor, PartRequest
from barkd_py.devnet.ark_server.vtxos.boards import BoardRequest, Boards
from barkd_py.devnet.ark_server.vtxos.lookups import StatusQuery
from barkd_py.devnet.ark_server.vtxos.registration import register_transactions
from barkd_py.devnet.ark_server.vtxos.xpub_search import XpubSearch, XpubSearches
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos.bark_server_pb2_grpc import ArkServiceServicer

_INVALID_STATUS_ATTESTATION = "invalid VTXO status attestation"


class ArkService(ArkServiceServicer):
    """The service."""

    def __init__(
        self,
        settings: ServerSettings,
        keys: ServerKeys,
        store: Store,
        boards: Boards,
        arkoor: Arkoor,
        rounds: RoundRpcs,
        offboards: OffboardRpcs,
        lightning: LightningRpcs,
        fee_rates: FeeRates,
        xpub_searches: XpubSearches,
    ) -> None:
        self._xpub_searches = xpub_searches
        self._settings = settings
        self._keys = keys
        self._store = store
        self._boards = boards
        self._arkoor = arkoor
        self._rounds = rounds
        self._offboards = offboards
        self._lightning = lightning
        self._fee_rates = fee_rates

    # --- info

    async def Handshake(self, request: pb.HandshakeRequest, context: CallContext) -> pb.HandshakeResponse:
        return pb.HandshakeResponse(
            min_protocol_version=MIN_PROTOCOL_VERSION,
            max_protocol_version=MAX_PROTOCOL_VERSION,
            psa=self._settings.public_service_announcement,
        )

    async def GetArkInfo(self, request: core_pb2.Empty, context: CallContext) -> pb.ArkInfo:
        return ark_info(self._settings, self._keys, self._fee_rates)

    async def GetOffboardFeeRate(
        self, request: core_pb2.Empty, context: CallContext
    ) -> pb.OffboardFeeRateResponse:
        return self._offboards.fee_rate()

    # --- look-ups

    async def GetVtxo(self, request: pb.GetVtxoRequest, context: CallContext) -> pb.GetVtxoResponse:
        vtxo_id = fields.vtxo_id(request.vtxo_id)
        return pb.GetVtxoResponse(vtxo=await lookups.vtxo_bytes(self._store, vtxo_id))

    async def GetVtxoStatus(
        self, request: pb.GetVtxoStatusRequest, context: CallContext
    ) -> pb.GetVtxoStatusResponse:
        state = await lookups.spend_state(self._store, _status_query(request))
        return pb.GetVtxoStatusResponse(spend_state=pb.VtxoSpendState.ValueType(state))

    async def GetVtxosByIds(
        self, request: pb.GetVtxosByIdsRequest, context: CallContext
    ) -> pb.GetVtxosByIdsResponse:
        self._require(Emulation.V0_8)
        vtxos, missing = await lookups.many_vtxo_bytes(self._store, fields.vtxo_ids(request.vtxo_ids))
        return pb.GetVtxosByIdsResponse(vtxos=vtxos, missing_vtxo_ids=missing)

    async def GetVtxosStatusByIds(
        self, request: pb.GetVtxosStatusByIdsRequest, context: CallContext
    ) -> pb.GetVtxosStatusByIdsResponse:
        self._require(Emulation.V0_8)
        queries = [_status_query(query) for query in request.vtxos]
        states, missing = await lookups.many_spend_states(self._store, queries)
        return pb.GetVtxosStatusByIdsResponse(
            vtxos=[
                pb.VtxoStatus(vtxo_id=vtxo_id, spend_state=pb.VtxoSpendState.ValueType(state))
                for vtxo_id, state in states
            ],
            missing_vtxo_ids=missing,
        )

    async def RecoverVtxosByXpub(
        self, request: pb.RecoverVtxosByXpubRequest, context: CallContext
    ) -> pb.RecoverVtxosByXpubResponse:
        self._require(Emulation.V0_8)
        cursor = fields.vtxo_id(request.cursor_vtxo_id) if request.HasField("cursor_vtxo_id") else None
        search = XpubSearch(request.xpub, request.start_index, request.authorization, cursor)
        found = await self._xpub_searches.run(search)
        return pb.RecoverVtxosByXpubResponse(
            vtxos=[
                pb.RecoveredVtxo(
                    vtxo=each.encoded,
                    derivation_index=each.index,
                    spend_state=pb.VtxoSpendState.ValueType(each.state),
                )
                for each in found.vtxos
            ],
            nb_keys_scanned=found.keys_scanned,
            have_more=found.have_more,
            cursor_vtxo_id=None if found.cursor is None else bytes(found.cursor),
        )

    def _require(self, emulation: Emulation) -> None:
        if self._settings.emulate is not emulation:
            raise RpcStatus(grpc.StatusCode.UNIMPLEMENTED, "")

    # --- boards

    async def RequestBoardCosign(
        self, request: pb.BoardCosignRequest, context: CallContext
    ) -> pb.BoardCosignResponse:
        version = protocol_version(context)
        needs_tx = self._settings.require_board_funding_tx
        if needs_tx and version < PROTOCOL_VERSION_BOARD_FUNDING_TX:
            raise BadArgument(
                "Your client version is too old, you need to update in order to be able to board."
            )
        board = BoardRequest(
            amount_sat=request.amount,
            user_pubkey=fields.public_key(request.user_pubkey),
            expiry_height=fields.height(request.expiry_height, "expiry_height"),
            utxo=fields.outpoint(request.utxo),
            pub_nonce=fields.public_nonce(request.pub_nonce),
            funding_tx=fields.transaction(request.funding_tx) if needs_tx else None,
        )
        answer = await self._boards.cosign(board)
        return pb.BoardCosignResponse(pub_nonce=answer.pub_nonce, partial_sig=answer.partial_sig)

    async def RegisterBoardVtxo(self, request: pb.BoardVtxoRequest, context: CallContext) -> core_pb2.Empty:
        await self._boards.register(fields.vtxo_with_reason(request.board_vtxo))
        return core_pb2.Empty()

    # --- registration

    async def RegisterVtxoTransactions(
        self, request: pb.RegisterVtxoTransactionsRequest, context: CallContext
    ) -> core_pb2.Empty:
        await register_transactions(self._store, [fields.vtxo_with_reason(data) for data in request.vtxos])
        return core_pb2.Empty()

    async def RegisterVtxos(
        self, request: pb.RegisterVtxoTransactionsRequest, context: CallContext
    ) -> core_pb2.Empty:
        return await self.RegisterVtxoTransactions(request, context)

    # --- out-of-round payments

    async def RequestArkoorCosign(
        self, request: pb.ArkoorPackageCosignRequest, context: CallContext
    ) -> pb.ArkoorPackageCosignResponse:
        try:
            parts = part_requests(request.parts)
        except Malformed as error:
            # Not an INVALID_ARGUMENT: the real server forgets to say whose fault it is.
            raise Failure(f"Failed to parse request: rpc conversion error: {error}") from None
        answers = await self._arkoor.cosign(parts)
        return pb.ArkoorPackageCosignResponse(
            parts=[
                pb.ArkoorCosignResponse(
                    server_pub_nonces=answer.pub_nonces, server_partial_sigs=answer.partial_sigs
                )
                for answer in answers
            ]
        )

    # --- rounds

    async def NextRoundTime(self, request: core_pb2.Empty, context: CallContext) -> pb.NextRoundTimeResponse:
        return self._rounds.next_round_time()

    async def LastRoundEvent(self, request: core_pb2.Empty, context: CallContext) -> pb.RoundEvent:
        return self._rounds.last_event()

    async def SubscribeRounds(
        self, request: core_pb2.Empty, context: CallContext
    ) -> AsyncIterator[pb.RoundEvent]:
        await open_stream(context)
        async for event in self._rounds.events():
            yield event

    async def SubmitPayment(
        self, request: pb.SubmitPaymentRequest, context: CallContext
    ) -> pb.SubmitPaymentResponse:
        require_hash_locks(protocol_version(context))
        return await self._rounds.submit_payment(request)

    async def ProvideVtxoSignatures(
        self, request: pb.VtxoSignaturesRequest, context: CallContext
    ) -> core_pb2.Empty:
        require_hash_locks(protocol_version(context))
        await self._rounds.provide_signatures(request)
        return core_pb2.Empty()

    async def SubmitRoundParticipation(
        self, request: pb.RoundParticipationRequest, context: CallContext
    ) -> pb.RoundParticipationResponse:
        require_hash_locks(protocol_version(context))
        return await self._rounds.submit_participation(request)

    async def RoundParticipationStatus(
        self, request: pb.RoundParticipationStatusRequest, context: CallContext
    ) -> pb.RoundParticipationStatusResponse:
        return await self._rounds.participation_status(request)

    async def RequestLeafVtxoCosign(
        self, request: pb.LeafVtxoCosignRequest, context: CallContext
    ) -> pb.LeafVtxoCosignResponse:
        require_hash_locks(protocol_version(context))
        return await self._rounds.cosign_leaf(request)

    async def RequestForfeitNonces(
        self, request: pb.ForfeitNoncesRequest, context: CallContext
    ) -> pb.ForfeitNoncesResponse:
        require_hash_locks(protocol_version(context))
        return await self._rounds.forfeit_nonces(request)

    async def ForfeitVtxos(
        self, request: pb.ForfeitVtxosRequest, context: CallContext
    ) -> pb.ForfeitVtxosResponse:
        require_hash_locks(protocol_version(context))
        return await self._rounds.forfeit(request)

    # --- Lightning

    async def RequestLightningPayHtlcCosign(
        self, request: pb.LightningPayHtlcCosignRequest, context: CallContext
    ) -> pb.ArkoorPackageCosignResponse:
        return await self._lightning.pay_htlc_cosign(request, protocol_version(context))

    async def InitiateLightningPayment(
        self, request: pb.InitiateLightningPaymentRequest, context: CallContext
    ) -> core_pb2.Empty:
        await self._lightning.initiate(request, protocol_version(context))
        return core_pb2.Empty()

    async def CheckLightningPayment(
        self, request: pb.CheckLightningPaymentRequest, context: CallContext
    ) -> pb.LightningPaymentStatus:
        return await self._lightning.payment_status(request)

    async def RequestLightningPayHtlcRevocation(
        self, request: pb.ArkoorPackageCosignRequest, context: CallContext
    ) -> pb.ArkoorPackageCosignResponse:
        return await self._lightning.revoke(request)

    async def FetchBolt12Invoice(
        self, request: pb.FetchBolt12InvoiceRequest, context: CallContext
    ) -> pb.FetchBolt12InvoiceResponse:
        return await self._lightning.fetch_bolt12_invoice(request)

    async def StartLightningReceive(
        self, request: pb.StartLightningReceiveRequest, context: CallContext
    ) -> pb.StartLightningReceiveResponse:
        return await self._lightning.start_receive(request, protocol_version(context))

    async def CheckLightningReceive(
        self, request: pb.CheckLightningReceiveRequest, context: CallContext
    ) -> pb.CheckLightningReceiveResponse:
        return await self._lightning.receive_status(request)

    async def PrepareLightningReceiveClaim(
        self, request: pb.PrepareLightningReceiveClaimRequest, context: CallContext
    ) -> pb.PrepareLightningReceiveClaimResponse:
        return await self._lightning.prepare_claim(request, protocol_version(context))

    async def ClaimLightningReceive(
        self, request: pb.ClaimLightningReceiveRequest, context: CallContext
    ) -> pb.ArkoorPackageCosignResponse:
        protocol_version(context)
        return await self._lightning.claim(request)

    async def CancelLightningReceive(
        self, request: pb.CancelLightningReceiveRequest, context: CallContext
    ) -> core_pb2.Empty:
        await self._lightning.cancel(request)
        return core_pb2.Empty()

    # --- offboards

    async def PrepareOffboard(
        self, request: pb.PrepareOffboardRequest, context: CallContext
    ) -> pb.PrepareOffboardResponse:
        return await self._offboards.prepare(request, protocol_version(context))

    async def FinishOffboard(
        self, request: pb.FinishOffboardRequest, context: CallContext
    ) -> pb.FinishOffboardResponse:
        return await self._offboards.finish(request)


def _status_query(request: pb.GetVtxoStatusRequest | pb.VtxoStatusQuery) -> StatusQuery:
    vtxo_id = fields.vtxo_id(request.vtxo_id)
    return StatusQuery(vtxo_id, fields.signature(request.attestation, _INVALID_STATUS_ATTESTATION))


def part_requests(parts: Sequence[pb.ArkoorCosignRequest]) -> list[PartRequest]:
    """The parts of a package. Raises Malformed."""
    return [
        PartRequest(
            user_pub_nonces=tuple(fields.public_nonce(nonce) for nonce in part.user_pub_nonces),
            input_id=fields.vtxo_id(part.input_vtxo_id),
            outputs=tuple(fields.destination(output) for output in part.outputs),
            isolated=tuple(fields.destination(output) for output in part.isolated_outputs),
            use_checkpoint=part.use_checkpoint,
            attestation=fields.signature(part.attestation, "Failed to parse attestation"),
        )
        for part in parts
    ]


def protocol_version(context: CallContext) -> int:
    """The client's protocol version. Raises Malformed if it does not say one."""
    text = header(context, "pver")
    if text is None:
        raise Malformed("missing pver header")
    if not (text.isascii() and text.isdecimal()):
        raise Malformed("invalid protocol version header")
    return int(text)


def ark_info(settings: ServerSettings, keys: ServerKeys, fee_rates: FeeRates) -> pb.ArkInfo:
    """What the server announces."""
    return pb.ArkInfo(
        network=settings.network.bitcoin_name,
        server_pubkey=keys.server_pubkey.data,
        mailbox_pubkey=keys.mailbox_pubkey.data,
        round_interval_secs=settings.round_interval_secs,
        nb_round_nonces=settings.nb_round_nonces,
        vtxo_exit_delta=settings.vtxo_exit_delta,
        vtxo_expiry_delta=settings.vtxo_lifetime,
        vtxo_lifetime=settings.vtxo_lifetime,
        htlc_send_expiry_delta=settings.htlc_send_expiry_delta,
        htlc_expiry_delta=settings.htlc_expiry_delta,
        max_vtxo_amount=settings.max_vtxo_amount_sat,
        required_board_confirmations=settings.required_board_confirmations,
        max_user_invoice_cltv_delta=settings.max_user_invoice_cltv_delta,
        min_board_amount=settings.min_board_amount_sat,
        offboard_feerate_sat_vkb=fee_rates.regular.sat_per_kvb,
        ln_receive_anti_dos_required=settings.ln_receive_anti_dos_required,
        fees=_fee_schedule(settings.fees),
        max_vtxo_exit_depth=settings.max_vtxo_exit_depth,
        max_offboard_inputs=MAX_OFFBOARD_INPUTS,
        tos_link=settings.tos_link,
    )


def _fee_schedule(fees: FeeSchedule) -> pb.FeeSchedule:
    return pb.FeeSchedule(
        board=pb.BoardFees(
            min_fee_sat=fees.board.min_fee_sat, base_fee_sat=fees.board.base_fee_sat, ppm=fees.board.ppm
        ),
        offboard=pb.OffboardFees(
            base_fee_sat=fees.offboard.base_fee_sat,
            fixed_additional_vb=fees.offboard.fixed_additional_vb,
            ppm_expiry_table=_ppm_table(fees.offboard.ppm_expiry_table),
        ),
        refresh=pb.RefreshFees(
            base_fee_sat=fees.refresh.base_fee_sat,
            ppm_expiry_table=_ppm_table(fees.refresh.ppm_expiry_table),
        ),
        lightning_receive=pb.LightningReceiveFees(
            base_fee_sat=fees.lightning_receive.base_fee_sat, ppm=fees.lightning_receive.ppm
        ),
        lightning_send=pb.LightningSendFees(
            min_fee_sat=fees.lightning_send.min_fee_sat,
            base_fee_sat=fees.lightning_send.base_fee_sat,
            ppm_expiry_table=_ppm_table(fees.lightning_send.ppm_expiry_table),
        ),
    )


def _ppm_table(table: Sequence[PpmExpiryFeeEntry]) -> list[pb.PpmExpiryFeeEntry]:
    return [
        pb.PpmExpiryFeeEntry(expiry_blocks_threshold=entry.expiry_blocks_threshold, ppm=entry.ppm)
        for entry in table
    ]
