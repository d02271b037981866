"""The RPCs of the Ark server that wallets call, each with its messages. Source: protocol sheet 08 §3."""

from collections.abc import Callable

from barkd_py.server_rpc.connection import ARK_SERVICE, Method, Req, Resp
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb


def _ark(name: str, request: type[Req], response: Callable[[bytes], Resp]) -> Method[Req, Resp]:
    return Method(ARK_SERVICE, name, request, response)


def _mailbox(name: str, request: type[Req], response: Callable[[bytes], Resp]) -> Method[Req, Resp]:
    return Method("mailbox_server.MailboxService", name, request, response)


_EMPTY = core_pb2.Empty.FromString

GET_OFFBOARD_FEE_RATE = _ark("GetOffboardFeeRate", core_pb2.Empty, pb.OffboardFeeRateResponse.FromString)
GET_VTXO = _ark("GetVtxo", pb.GetVtxoRequest, pb.GetVtxoResponse.FromString)
GET_VTXO_STATUS = _ark("GetVtxoStatus", pb.GetVtxoStatusRequest, pb.GetVtxoStatusResponse.FromString)
GET_VTXOS_BY_IDS = _ark("GetVtxosByIds", pb.GetVtxosByIdsRequest, pb.GetVtxosByIdsResponse.FromString)
GET_VTXOS_STATUS_BY_IDS = _ark(
    "GetVtxosStatusByIds", pb.GetVtxosStatusByIdsRequest, pb.GetVtxosStatusByIdsResponse.FromString
)
RECOVER_VTXOS_BY_XPUB = _ark(
    "RecoverVtxosByXpub", pb.RecoverVtxosByXpubRequest, pb.RecoverVtxosByXpubResponse.FromString
)
REQUEST_BOARD_COSIGN = _ark("RequestBoardCosign", pb.BoardCosignRequest, pb.BoardCosignResponse.FromString)
REGISTER_BOARD_VTXO = _ark("RegisterBoardVtxo", pb.BoardVtxoRequest, _EMPTY)
REGISTER_VTXO_TRANSACTIONS = _ark("RegisterVtxoTransactions", pb.RegisterVtxoTransactionsRequest, _EMPTY)
REQUEST_ARKOOR_COSIGN = _ark(
    "RequestArkoorCosign", pb.ArkoorPackageCosignRequest, pb.ArkoorPackageCosignResponse.FromString
)
REQUEST_LIGHTNING_PAY_HTLC_COSIGN = _ark(
    "RequestLightningPayHtlcCosign",
    pb.LightningPayHtlcCosignRequest,
    pb.ArkoorPackageCosignResponse.FromString,
)
REQUEST_LIGHTNING_PAY_HTLC_REVOCATION = _ark(
    "RequestLightningPayHtlcRevocation",
    pb.ArkoorPackageCosignRequest,
    pb.ArkoorPackageCosignResponse.FromString,
)
INITIATE_LIGHTNING_PAYMENT = _ark("InitiateLightningPayment", pb.InitiateLightningPaymentRequest, _EMPTY)
CHECK_LIGHTNING_PAYMENT = _ark(
    "CheckLightningPayment", pb.CheckLightningPaymentRequest, pb.LightningPaymentStatus.FromString
)
FETCH_BOLT12_INVOICE = _ark(
    "FetchBolt12Invoice", pb.FetchBolt12InvoiceRequest, pb.FetchBolt12InvoiceResponse.FromString
)
START_LIGHTNING_RECEIVE = _ark(
    "StartLightningReceive", pb.StartLightningReceiveRequest, pb.StartLightningReceiveResponse.FromString
)
CHECK_LIGHTNING_RECEIVE = _ark(
    "CheckLightningReceive", pb.CheckLightningReceiveRequest, pb.CheckLightningReceiveResponse.FromString
)
PREPARE_LIGHTNING_RECEIVE_CLAIM = _ark(
    "PrepareLightningReceiveClaim",
    pb.PrepareLightningReceiveClaimRequest,
    pb.PrepareLightningReceiveClaimResponse.FromString,
)
CLAIM_LIGHTNING_RECEIVE = _ark(
    "ClaimLightningReceive", pb.ClaimLightningReceiveRequest, pb.ArkoorPackageCosignResponse.FromString
)
CANCEL_LIGHTNING_RECEIVE = _ark("CancelLightningReceive", pb.CancelLightningReceiveRequest, _EMPTY)
PREPARE_OFFBOARD = _ark("PrepareOffboard", pb.PrepareOffboardRequest, pb.PrepareOffboardResponse.FromString)
FINISH_OFFBOARD = _ark("FinishOffboard", pb.FinishOffboardRequest, pb.FinishOffboardResponse.FromString)
NEXT_ROUND_TIME = _ark("NextRoundTime", core_pb2.Empty, pb.NextRoundTimeResponse.FromString)
SUBSCRIBE_ROUNDS = _ark("SubscribeRounds", core_pb2.Empty, pb.RoundEvent.FromString)
LAST_ROUND_EVENT = _ark("LastRoundEvent", core_pb2.Empty, pb.RoundEvent.FromString)
SUBMIT_PAYMENT = _ark("SubmitPayment", pb.SubmitPaymentRequest, pb.SubmitPaymentResponse.FromString)
PROVIDE_VTXO_SIGNATURES = _ark("ProvideVtxoSignatures", pb.VtxoSignaturesRequest, _EMPTY)
SUBMIT_ROUND_PARTICIPATION = _ark(
    "SubmitRoundParticipation", pb.RoundParticipationRequest, pb.RoundParticipationResponse.FromString
)
ROUND_PARTICIPATION_STATUS = _ark(
    "RoundParticipationStatus",
    pb.RoundParticipationStatusRequest,
    pb.RoundParticipationStatusResponse.FromString,
)
REQUEST_LEAF_VTXO_COSIGN = _ark(
    "RequestLeafVtxoCosign", pb.LeafVtxoCosignRequest, pb.LeafVtxoCosignResponse.FromString
)
REQUEST_FORFEIT_NONCES = _ark(
    "RequestForfeitNonces", pb.ForfeitNoncesRequest, pb.ForfeitNoncesResponse.FromString
)
FORFEIT_VTXOS = _ark("ForfeitVtxos", pb.ForfeitVtxosRequest, pb.ForfeitVtxosResponse.FromString)

POST_ARKOOR_MESSAGE = _mailbox("PostArkoorMessage", mb.PostArkoorMessageRequest, _EMPTY)
SUBSCRIBE_MAILBOX = _mailbox("SubscribeMailbox", mb.MailboxRequest, mb.MailboxMessage.FromString)
READ_MAILBOX = _mailbox("ReadMailbox", mb.MailboxRequest, mb.MailboxMessages.FromString)
POST_RECOVERY_VTXO_IDS = _mailbox("PostRecoveryVtxoIds", mb.PostRecoveryVtxoIdsRequest, _EMPTY)
