# grpcio-tools 1.85.1
from . import core_pb2 as _core_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VtxoSpendState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VTXO_SPEND_STATE_UNSPECIFIED: _ClassVar[VtxoSpendState]
    VTXO_SPEND_STATE_SPENDABLE: _ClassVar[VtxoSpendState]
    VTXO_SPEND_STATE_SPENT: _ClassVar[VtxoSpendState]
    VTXO_SPEND_STATE_UNCLAIMED: _ClassVar[VtxoSpendState]
    VTXO_SPEND_STATE_UNREGISTERED: _ClassVar[VtxoSpendState]
    VTXO_SPEND_STATE_HTLC_RECV_UNCLAIMED: _ClassVar[VtxoSpendState]

class LightningReceiveStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CREATED: _ClassVar[LightningReceiveStatus]
    ACCEPTED: _ClassVar[LightningReceiveStatus]
    HTLCS_READY: _ClassVar[LightningReceiveStatus]
    SETTLED: _ClassVar[LightningReceiveStatus]
    CANCELED: _ClassVar[LightningReceiveStatus]

class RoundParticipationStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUND_PART_PENDING: _ClassVar[RoundParticipationStatus]
    ROUND_PART_ISSUED: _ClassVar[RoundParticipationStatus]
    ROUND_PART_RELEASED: _ClassVar[RoundParticipationStatus]
VTXO_SPEND_STATE_UNSPECIFIED: VtxoSpendState
VTXO_SPEND_STATE_SPENDABLE: VtxoSpendState
VTXO_SPEND_STATE_SPENT: VtxoSpendState
VTXO_SPEND_STATE_UNCLAIMED: VtxoSpendState
VTXO_SPEND_STATE_UNREGISTERED: VtxoSpendState
VTXO_SPEND_STATE_HTLC_RECV_UNCLAIMED: VtxoSpendState
CREATED: LightningReceiveStatus
ACCEPTED: LightningReceiveStatus
HTLCS_READY: LightningReceiveStatus
SETTLED: LightningReceiveStatus
CANCELED: LightningReceiveStatus
ROUND_PART_PENDING: RoundParticipationStatus
ROUND_PART_ISSUED: RoundParticipationStatus
ROUND_PART_RELEASED: RoundParticipationStatus

class HandshakeRequest(_message.Message):
    __slots__ = ("bark_version",)
    BARK_VERSION_FIELD_NUMBER: _ClassVar[int]
    bark_version: str
    def __init__(self, bark_version: _Optional[str] = ...) -> None: ...

class HandshakeResponse(_message.Message):
    __slots__ = ("min_protocol_version", "max_protocol_version", "psa")
    MIN_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PSA_FIELD_NUMBER: _ClassVar[int]
    min_protocol_version: int
    max_protocol_version: int
    psa: str
    def __init__(self, min_protocol_version: _Optional[int] = ..., max_protocol_version: _Optional[int] = ..., psa: _Optional[str] = ...) -> None: ...

class OffboardFeeRateResponse(_message.Message):
    __slots__ = ("sat_vkb",)
    SAT_VKB_FIELD_NUMBER: _ClassVar[int]
    sat_vkb: int
    def __init__(self, sat_vkb: _Optional[int] = ...) -> None: ...

class ArkInfo(_message.Message):
    __slots__ = ("network", "server_pubkey", "round_interval_secs", "nb_round_nonces", "vtxo_exit_delta", "vtxo_expiry_delta", "htlc_send_expiry_delta", "htlc_expiry_delta", "max_vtxo_amount", "required_board_confirmations", "max_user_invoice_cltv_delta", "min_board_amount", "offboard_feerate_sat_vkb", "ln_receive_anti_dos_required", "mailbox_pubkey", "fees", "max_vtxo_exit_depth", "max_offboard_inputs", "vtxo_lifetime", "tos_link")
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    SERVER_PUBKEY_FIELD_NUMBER: _ClassVar[int]
    ROUND_INTERVAL_SECS_FIELD_NUMBER: _ClassVar[int]
    NB_ROUND_NONCES_FIELD_NUMBER: _ClassVar[int]
    VTXO_EXIT_DELTA_FIELD_NUMBER: _ClassVar[int]
    VTXO_EXPIRY_DELTA_FIELD_NUMBER: _ClassVar[int]
    HTLC_SEND_EXPIRY_DELTA_FIELD_NUMBER: _ClassVar[int]
    HTLC_EXPIRY_DELTA_FIELD_NUMBER: _ClassVar[int]
    MAX_VTXO_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_BOARD_CONFIRMATIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_USER_INVOICE_CLTV_DELTA_FIELD_NUMBER: _ClassVar[int]
    MIN_BOARD_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    OFFBOARD_FEERATE_SAT_VKB_FIELD_NUMBER: _ClassVar[int]
    LN_RECEIVE_ANTI_DOS_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_PUBKEY_FIELD_NUMBER: _ClassVar[int]
    FEES_FIELD_NUMBER: _ClassVar[int]
    MAX_VTXO_EXIT_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_OFFBOARD_INPUTS_FIELD_NUMBER: _ClassVar[int]
    VTXO_LIFETIME_FIELD_NUMBER: _ClassVar[int]
    TOS_LINK_FIELD_NUMBER: _ClassVar[int]
    network: str
    server_pubkey: bytes
    round_interval_secs: int
    nb_round_nonces: int
    vtxo_exit_delta: int
    vtxo_expiry_delta: int
    htlc_send_expiry_delta: int
    htlc_expiry_delta: int
    max_vtxo_amount: int
    required_board_confirmations: int
    max_user_invoice_cltv_delta: int
    min_board_amount: int
    offboard_feerate_sat_vkb: int
    ln_receive_anti_dos_required: bool
    mailbox_pubkey: bytes
    fees: FeeSchedule
    max_vtxo_exit_depth: int
    max_offboard_inputs: int
    vtxo_lifetime: int
    tos_link: str
    def __init__(self, network: _Optional[str] = ..., server_pubkey: _Optional[bytes] = ..., round_interval_secs: _Optional[int] = ..., nb_round_nonces: _Optional[int] = ..., vtxo_exit_delta: _Optional[int] = ..., vtxo_expiry_delta: _Optional[int] = ..., htlc_send_expiry_delta: _Optional[int] = ..., htlc_expiry_delta: _Optional[int] = ..., max_vtxo_amount: _Optional[int] = ..., required_board_confirmations: _Optional[int] = ..., max_user_invoice_cltv_delta: _Optional[int] = ..., min_board_amount: _Optional[int] = ..., offboard_feerate_sat_vkb: _Optional[int] = ..., ln_receive_anti_dos_required: _Optional[bool] = ..., mailbox_pubkey: _Optional[bytes] = ..., fees: _Optional[_Union[FeeSchedule, _Mapping]] = ..., max_vtxo_exit_depth: _Optional[int] = ..., max_offboard_inputs: _Optional[int] = ..., vtxo_lifetime: _Optional[int] = ..., tos_link: _Optional[str] = ...) -> None: ...

class FeeSchedule(_message.Message):
    __slots__ = ("board", "offboard", "refresh", "lightning_receive", "lightning_send")
    BOARD_FIELD_NUMBER: _ClassVar[int]
    OFFBOARD_FIELD_NUMBER: _ClassVar[int]
    REFRESH_FIELD_NUMBER: _ClassVar[int]
    LIGHTNING_RECEIVE_FIELD_NUMBER: _ClassVar[int]
    LIGHTNING_SEND_FIELD_NUMBER: _ClassVar[int]
    board: BoardFees
    offboard: OffboardFees
    refresh: RefreshFees
    lightning_receive: LightningReceiveFees
    lightning_send: LightningSendFees
    def __init__(self, board: _Optional[_Union[BoardFees, _Mapping]] = ..., offboard: _Optional[_Union[OffboardFees, _Mapping]] = ..., refresh: _Optional[_Union[RefreshFees, _Mapping]] = ..., lightning_receive: _Optional[_Union[LightningReceiveFees, _Mapping]] = ..., lightning_send: _Optional[_Union[LightningSendFees, _Mapping]] = ...) -> None: ...

class BoardFees(_message.Message):
    __slots__ = ("min_fee_sat", "base_fee_sat", "ppm")
    MIN_FEE_SAT_FIELD_NUMBER: _ClassVar[int]
    BASE_FEE_SAT_FIELD_NUMBER: _ClassVar[int]
    PPM_FIELD_NUMBER: _ClassVar[int]
    min_fee_sat: int
    base_fee_sat: int
    ppm: int
    def __init__(self, min_fee_sat: _Optional[int] = ..., base_fee_sat: _Optional[int] = ..., ppm: _Optional[int] = ...) -> None: ...

class OffboardFees(_message.Message):
    __slots__ = ("base_fee_sat", "fixed_additional_vb", "ppm_expiry_table")
    BASE_FEE_SAT_FIELD_NUMBER: _ClassVar[int]
    FIXED_ADDITIONAL_VB_FIELD_NUMBER: _ClassVar[int]
    PPM_EXPIRY_TABLE_FIELD_NUMBER: _ClassVar[int]
    base_fee_sat: int
    fixed_additional_vb: int
    ppm_expiry_table: _containers.RepeatedCompositeFieldContainer[PpmExpiryFeeEntry]
    def __init__(self, base_fee_sat: _Optional[int] = ..., fixed_additional_vb: _Optional[int] = ..., ppm_expiry_table: _Optional[_Iterable[_Union[PpmExpiryFeeEntry, _Mapping]]] = ...) -> None: ...

class RefreshFees(_message.Message):
    __slots__ = ("base_fee_sat", "ppm_expiry_table")
    BASE_FEE_SAT_FIELD_NUMBER: _ClassVar[int]
    PPM_EXPIRY_TABLE_FIELD_NUMBER: _ClassVar[int]
    base_fee_sat: int
    ppm_expiry_table: _containers.RepeatedCompositeFieldContainer[PpmExpiryFeeEntry]
    def __init__(self, base_fee_sat: _Optional[int] = ..., ppm_expiry_table: _Optional[_Iterable[_Union[PpmExpiryFeeEntry, _Mapping]]] = ...) -> None: ...

class LightningReceiveFees(_message.Message):
    __slots__ = ("base_fee_sat", "ppm")
    BASE_FEE_SAT_FIELD_NUMBER: _ClassVar[int]
    PPM_FIELD_NUMBER: _ClassVar[int]
    base_fee_sat: int
    ppm: int
    def __init__(self, base_fee_sat: _Optional[int] = ..., ppm: _Optional[int] = ...) -> None: ...

class LightningSendFees(_message.Message):
    __slots__ = ("min_fee_sat", "base_fee_sat", "ppm_expiry_table")
    MIN_FEE_SAT_FIELD_NUMBER: _ClassVar[int]
    BASE_FEE_SAT_FIELD_NUMBER: _ClassVar[int]
    PPM_EXPIRY_TABLE_FIELD_NUMBER: _ClassVar[int]
    min_fee_sat: int
    base_fee_sat: int
    ppm_expiry_table: _containers.RepeatedCompositeFieldContainer[PpmExpiryFeeEntry]
    def __init__(self, min_fee_sat: _Optional[int] = ..., base_fee_sat: _Optional[int] = ..., ppm_expiry_table: _Optional[_Iterable[_Union[PpmExpiryFeeEntry, _Mapping]]] = ...) -> None: ...

class PpmExpiryFeeEntry(_message.Message):
    __slots__ = ("expiry_blocks_threshold", "ppm")
    EXPIRY_BLOCKS_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PPM_FIELD_NUMBER: _ClassVar[int]
    expiry_blocks_threshold: int
    ppm: int
    def __init__(self, expiry_blocks_threshold: _Optional[int] = ..., ppm: _Optional[int] = ...) -> None: ...

class GetVtxoRequest(_message.Message):
    __slots__ = ("vtxo_id",)
    VTXO_ID_FIELD_NUMBER: _ClassVar[int]
    vtxo_id: bytes
    def __init__(self, vtxo_id: _Optional[bytes] = ...) -> None: ...

class GetVtxoResponse(_message.Message):
    __slots__ = ("vtxo",)
    VTXO_FIELD_NUMBER: _ClassVar[int]
    vtxo: bytes
    def __init__(self, vtxo: _Optional[bytes] = ...) -> None: ...

class GetVtxoStatusRequest(_message.Message):
    __slots__ = ("vtxo_id", "attestation")
    VTXO_ID_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    vtxo_id: bytes
    attestation: bytes
    def __init__(self, vtxo_id: _Optional[bytes] = ..., attestation: _Optional[bytes] = ...) -> None: ...

class GetVtxoStatusResponse(_message.Message):
    __slots__ = ("spend_state",)
    SPEND_STATE_FIELD_NUMBER: _ClassVar[int]
    spend_state: VtxoSpendState
    def __init__(self, spend_state: _Optional[_Union[VtxoSpendState, str]] = ...) -> None: ...

class GetVtxosByIdsRequest(_message.Message):
    __slots__ = ("vtxo_ids",)
    VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    vtxo_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, vtxo_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetVtxosByIdsResponse(_message.Message):
    __slots__ = ("vtxos", "missing_vtxo_ids")
    VTXOS_FIELD_NUMBER: _ClassVar[int]
    MISSING_VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    vtxos: _containers.RepeatedScalarFieldContainer[bytes]
    missing_vtxo_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, vtxos: _Optional[_Iterable[bytes]] = ..., missing_vtxo_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class VtxoStatusQuery(_message.Message):
    __slots__ = ("vtxo_id", "attestation")
    VTXO_ID_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    vtxo_id: bytes
    attestation: bytes
    def __init__(self, vtxo_id: _Optional[bytes] = ..., attestation: _Optional[bytes] = ...) -> None: ...

class GetVtxosStatusByIdsRequest(_message.Message):
    __slots__ = ("vtxos",)
    VTXOS_FIELD_NUMBER: _ClassVar[int]
    vtxos: _containers.RepeatedCompositeFieldContainer[VtxoStatusQuery]
    def __init__(self, vtxos: _Optional[_Iterable[_Union[VtxoStatusQuery, _Mapping]]] = ...) -> None: ...

class VtxoStatus(_message.Message):
    __slots__ = ("vtxo_id", "spend_state")
    VTXO_ID_FIELD_NUMBER: _ClassVar[int]
    SPEND_STATE_FIELD_NUMBER: _ClassVar[int]
    vtxo_id: bytes
    spend_state: VtxoSpendState
    def __init__(self, vtxo_id: _Optional[bytes] = ..., spend_state: _Optional[_Union[VtxoSpendState, str]] = ...) -> None: ...

class GetVtxosStatusByIdsResponse(_message.Message):
    __slots__ = ("vtxos", "missing_vtxo_ids")
    VTXOS_FIELD_NUMBER: _ClassVar[int]
    MISSING_VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    vtxos: _containers.RepeatedCompositeFieldContainer[VtxoStatus]
    missing_vtxo_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, vtxos: _Optional[_Iterable[_Union[VtxoStatus, _Mapping]]] = ..., missing_vtxo_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RecoverVtxosByXpubRequest(_message.Message):
    __slots__ = ("xpub", "start_index", "authorization", "cursor_vtxo_id")
    XPUB_FIELD_NUMBER: _ClassVar[int]
    START_INDEX_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_FIELD_NUMBER: _ClassVar[int]
    CURSOR_VTXO_ID_FIELD_NUMBER: _ClassVar[int]
    xpub: bytes
    start_index: int
    authorization: bytes
    cursor_vtxo_id: bytes
    def __init__(self, xpub: _Optional[bytes] = ..., start_index: _Optional[int] = ..., authorization: _Optional[bytes] = ..., cursor_vtxo_id: _Optional[bytes] = ...) -> None: ...

class RecoveredVtxo(_message.Message):
    __slots__ = ("vtxo", "derivation_index", "spend_state")
    VTXO_FIELD_NUMBER: _ClassVar[int]
    DERIVATION_INDEX_FIELD_NUMBER: _ClassVar[int]
    SPEND_STATE_FIELD_NUMBER: _ClassVar[int]
    vtxo: bytes
    derivation_index: int
    spend_state: VtxoSpendState
    def __init__(self, vtxo: _Optional[bytes] = ..., derivation_index: _Optional[int] = ..., spend_state: _Optional[_Union[VtxoSpendState, str]] = ...) -> None: ...

class RecoverVtxosByXpubResponse(_message.Message):
    __slots__ = ("vtxos", "nb_keys_scanned", "have_more", "cursor_vtxo_id")
    VTXOS_FIELD_NUMBER: _ClassVar[int]
    NB_KEYS_SCANNED_FIELD_NUMBER: _ClassVar[int]
    HAVE_MORE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_VTXO_ID_FIELD_NUMBER: _ClassVar[int]
    vtxos: _containers.RepeatedCompositeFieldContainer[RecoveredVtxo]
    nb_keys_scanned: int
    have_more: bool
    cursor_vtxo_id: bytes
    def __init__(self, vtxos: _Optional[_Iterable[_Union[RecoveredVtxo, _Mapping]]] = ..., nb_keys_scanned: _Optional[int] = ..., have_more: _Optional[bool] = ..., cursor_vtxo_id: _Optional[bytes] = ...) -> None: ...

class BoardCosignRequest(_message.Message):
    __slots__ = ("amount", "utxo", "expiry_height", "user_pubkey", "pub_nonce", "funding_tx")
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    UTXO_FIELD_NUMBER: _ClassVar[int]
    EXPIRY_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    USER_PUBKEY_FIELD_NUMBER: _ClassVar[int]
    PUB_NONCE_FIELD_NUMBER: _ClassVar[int]
    FUNDING_TX_FIELD_NUMBER: _ClassVar[int]
    amount: int
    utxo: bytes
    expiry_height: int
    user_pubkey: bytes
    pub_nonce: bytes
    funding_tx: bytes
    def __init__(self, amount: _Optional[int] = ..., utxo: _Optional[bytes] = ..., expiry_height: _Optional[int] = ..., user_pubkey: _Optional[bytes] = ..., pub_nonce: _Optional[bytes] = ..., funding_tx: _Optional[bytes] = ...) -> None: ...

class BoardCosignResponse(_message.Message):
    __slots__ = ("pub_nonce", "partial_sig")
    PUB_NONCE_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_SIG_FIELD_NUMBER: _ClassVar[int]
    pub_nonce: bytes
    partial_sig: bytes
    def __init__(self, pub_nonce: _Optional[bytes] = ..., partial_sig: _Optional[bytes] = ...) -> None: ...

class BoardVtxoRequest(_message.Message):
    __slots__ = ("board_vtxo",)
    BOARD_VTXO_FIELD_NUMBER: _ClassVar[int]
    board_vtxo: bytes
    def __init__(self, board_vtxo: _Optional[bytes] = ...) -> None: ...

class RegisterVtxoTransactionsRequest(_message.Message):
    __slots__ = ("vtxos",)
    VTXOS_FIELD_NUMBER: _ClassVar[int]
    vtxos: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, vtxos: _Optional[_Iterable[bytes]] = ...) -> None: ...

class VtxoRequest(_message.Message):
    __slots__ = ("amount", "policy")
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    amount: int
    policy: bytes
    def __init__(self, amount: _Optional[int] = ..., policy: _Optional[bytes] = ...) -> None: ...

class ArkoorDestination(_message.Message):
    __slots__ = ("total_amount", "policy")
    TOTAL_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    total_amount: int
    policy: bytes
    def __init__(self, total_amount: _Optional[int] = ..., policy: _Optional[bytes] = ...) -> None: ...

class ArkoorCosignRequest(_message.Message):
    __slots__ = ("input_vtxo_id", "outputs", "user_pub_nonces", "isolated_outputs", "use_checkpoint", "attestation")
    INPUT_VTXO_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    USER_PUB_NONCES_FIELD_NUMBER: _ClassVar[int]
    ISOLATED_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    USE_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    input_vtxo_id: bytes
    outputs: _containers.RepeatedCompositeFieldContainer[ArkoorDestination]
    user_pub_nonces: _containers.RepeatedScalarFieldContainer[bytes]
    isolated_outputs: _containers.RepeatedCompositeFieldContainer[ArkoorDestination]
    use_checkpoint: bool
    attestation: bytes
    def __init__(self, input_vtxo_id: _Optional[bytes] = ..., outputs: _Optional[_Iterable[_Union[ArkoorDestination, _Mapping]]] = ..., user_pub_nonces: _Optional[_Iterable[bytes]] = ..., isolated_outputs: _Optional[_Iterable[_Union[ArkoorDestination, _Mapping]]] = ..., use_checkpoint: _Optional[bool] = ..., attestation: _Optional[bytes] = ...) -> None: ...

class ArkoorPackageCosignRequest(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[ArkoorCosignRequest]
    def __init__(self, parts: _Optional[_Iterable[_Union[ArkoorCosignRequest, _Mapping]]] = ...) -> None: ...

class ArkoorCosignResponse(_message.Message):
    __slots__ = ("server_pub_nonces", "server_partial_sigs")
    SERVER_PUB_NONCES_FIELD_NUMBER: _ClassVar[int]
    SERVER_PARTIAL_SIGS_FIELD_NUMBER: _ClassVar[int]
    server_pub_nonces: _containers.RepeatedScalarFieldContainer[bytes]
    server_partial_sigs: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, server_pub_nonces: _Optional[_Iterable[bytes]] = ..., server_partial_sigs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ArkoorPackageCosignResponse(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[ArkoorCosignResponse]
    def __init__(self, parts: _Optional[_Iterable[_Union[ArkoorCosignResponse, _Mapping]]] = ...) -> None: ...

class LightningPayHtlcCosignRequest(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[ArkoorCosignRequest]
    def __init__(self, parts: _Optional[_Iterable[_Union[ArkoorCosignRequest, _Mapping]]] = ...) -> None: ...

class InitiateLightningPaymentRequest(_message.Message):
    __slots__ = ("invoice", "htlc_vtxo_ids", "payment_amount_sat", "mailbox_id", "retry_for_secs")
    INVOICE_FIELD_NUMBER: _ClassVar[int]
    HTLC_VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_AMOUNT_SAT_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    RETRY_FOR_SECS_FIELD_NUMBER: _ClassVar[int]
    invoice: str
    htlc_vtxo_ids: _containers.RepeatedScalarFieldContainer[bytes]
    payment_amount_sat: int
    mailbox_id: bytes
    retry_for_secs: int
    def __init__(self, invoice: _Optional[str] = ..., htlc_vtxo_ids: _Optional[_Iterable[bytes]] = ..., payment_amount_sat: _Optional[int] = ..., mailbox_id: _Optional[bytes] = ..., retry_for_secs: _Optional[int] = ...) -> None: ...

class CheckLightningPaymentRequest(_message.Message):
    __slots__ = ("hash", "wait")
    HASH_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    wait: bool
    def __init__(self, hash: _Optional[bytes] = ..., wait: _Optional[bool] = ...) -> None: ...

class PaymentSuccessStatus(_message.Message):
    __slots__ = ("preimage",)
    PREIMAGE_FIELD_NUMBER: _ClassVar[int]
    preimage: bytes
    def __init__(self, preimage: _Optional[bytes] = ...) -> None: ...

class LightningPaymentStatus(_message.Message):
    __slots__ = ("pending", "success", "failed")
    PENDING_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    pending: _core_pb2.Empty
    success: PaymentSuccessStatus
    failed: _core_pb2.LightningPaymentFailure
    def __init__(self, pending: _Optional[_Union[_core_pb2.Empty, _Mapping]] = ..., success: _Optional[_Union[PaymentSuccessStatus, _Mapping]] = ..., failed: _Optional[_Union[_core_pb2.LightningPaymentFailure, _Mapping]] = ...) -> None: ...

class FetchBolt12InvoiceRequest(_message.Message):
    __slots__ = ("offer", "amount_sat")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_SAT_FIELD_NUMBER: _ClassVar[int]
    offer: bytes
    amount_sat: int
    def __init__(self, offer: _Optional[bytes] = ..., amount_sat: _Optional[int] = ...) -> None: ...

class FetchBolt12InvoiceResponse(_message.Message):
    __slots__ = ("invoice",)
    INVOICE_FIELD_NUMBER: _ClassVar[int]
    invoice: bytes
    def __init__(self, invoice: _Optional[bytes] = ...) -> None: ...

class StartLightningReceiveRequest(_message.Message):
    __slots__ = ("payment_hash", "amount_sat", "min_cltv_delta", "mailbox_id", "description")
    PAYMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_SAT_FIELD_NUMBER: _ClassVar[int]
    MIN_CLTV_DELTA_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    payment_hash: bytes
    amount_sat: int
    min_cltv_delta: int
    mailbox_id: bytes
    description: str
    def __init__(self, payment_hash: _Optional[bytes] = ..., amount_sat: _Optional[int] = ..., min_cltv_delta: _Optional[int] = ..., mailbox_id: _Optional[bytes] = ..., description: _Optional[str] = ...) -> None: ...

class StartLightningReceiveResponse(_message.Message):
    __slots__ = ("bolt11",)
    BOLT11_FIELD_NUMBER: _ClassVar[int]
    bolt11: str
    def __init__(self, bolt11: _Optional[str] = ...) -> None: ...

class CheckLightningReceiveRequest(_message.Message):
    __slots__ = ("hash", "wait")
    HASH_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    wait: bool
    def __init__(self, hash: _Optional[bytes] = ..., wait: _Optional[bool] = ...) -> None: ...

class CheckLightningReceiveResponse(_message.Message):
    __slots__ = ("invoice", "amount_sat", "status", "htlc_vtxos")
    INVOICE_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_SAT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HTLC_VTXOS_FIELD_NUMBER: _ClassVar[int]
    invoice: str
    amount_sat: int
    status: LightningReceiveStatus
    htlc_vtxos: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, invoice: _Optional[str] = ..., amount_sat: _Optional[int] = ..., status: _Optional[_Union[LightningReceiveStatus, str]] = ..., htlc_vtxos: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PrepareLightningReceiveClaimRequest(_message.Message):
    __slots__ = ("payment_hash", "user_pubkey", "htlc_recv_expiry", "input_vtxo", "token")
    PAYMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    USER_PUBKEY_FIELD_NUMBER: _ClassVar[int]
    HTLC_RECV_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    INPUT_VTXO_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    payment_hash: bytes
    user_pubkey: bytes
    htlc_recv_expiry: int
    input_vtxo: InputVtxo
    token: str
    def __init__(self, payment_hash: _Optional[bytes] = ..., user_pubkey: _Optional[bytes] = ..., htlc_recv_expiry: _Optional[int] = ..., input_vtxo: _Optional[_Union[InputVtxo, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class PrepareLightningReceiveClaimResponse(_message.Message):
    __slots__ = ("receive", "htlc_vtxos")
    RECEIVE_FIELD_NUMBER: _ClassVar[int]
    HTLC_VTXOS_FIELD_NUMBER: _ClassVar[int]
    receive: CheckLightningReceiveResponse
    htlc_vtxos: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, receive: _Optional[_Union[CheckLightningReceiveResponse, _Mapping]] = ..., htlc_vtxos: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ClaimLightningReceiveRequest(_message.Message):
    __slots__ = ("payment_hash", "payment_preimage", "cosign_request")
    PAYMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_PREIMAGE_FIELD_NUMBER: _ClassVar[int]
    COSIGN_REQUEST_FIELD_NUMBER: _ClassVar[int]
    payment_hash: bytes
    payment_preimage: bytes
    cosign_request: ArkoorPackageCosignRequest
    def __init__(self, payment_hash: _Optional[bytes] = ..., payment_preimage: _Optional[bytes] = ..., cosign_request: _Optional[_Union[ArkoorPackageCosignRequest, _Mapping]] = ...) -> None: ...

class CancelLightningReceiveRequest(_message.Message):
    __slots__ = ("payment_hash",)
    PAYMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    payment_hash: bytes
    def __init__(self, payment_hash: _Optional[bytes] = ...) -> None: ...

class OffboardRequest(_message.Message):
    __slots__ = ("net_amount_sat", "offboard_spk", "deduct_fees_from_gross_amount", "fee_rate_kwu")
    NET_AMOUNT_SAT_FIELD_NUMBER: _ClassVar[int]
    OFFBOARD_SPK_FIELD_NUMBER: _ClassVar[int]
    DEDUCT_FEES_FROM_GROSS_AMOUNT_FIELD_NUMBER: _ClassVar[int]
    FEE_RATE_KWU_FIELD_NUMBER: _ClassVar[int]
    net_amount_sat: int
    offboard_spk: bytes
    deduct_fees_from_gross_amount: bool
    fee_rate_kwu: int
    def __init__(self, net_amount_sat: _Optional[int] = ..., offboard_spk: _Optional[bytes] = ..., deduct_fees_from_gross_amount: _Optional[bool] = ..., fee_rate_kwu: _Optional[int] = ...) -> None: ...

class PrepareOffboardRequest(_message.Message):
    __slots__ = ("offboard", "input_vtxo_ids", "attestation")
    OFFBOARD_FIELD_NUMBER: _ClassVar[int]
    INPUT_VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    offboard: OffboardRequest
    input_vtxo_ids: _containers.RepeatedScalarFieldContainer[bytes]
    attestation: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, offboard: _Optional[_Union[OffboardRequest, _Mapping]] = ..., input_vtxo_ids: _Optional[_Iterable[bytes]] = ..., attestation: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PrepareOffboardResponse(_message.Message):
    __slots__ = ("offboard_tx", "forfeit_cosign_nonces")
    OFFBOARD_TX_FIELD_NUMBER: _ClassVar[int]
    FORFEIT_COSIGN_NONCES_FIELD_NUMBER: _ClassVar[int]
    offboard_tx: bytes
    forfeit_cosign_nonces: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, offboard_tx: _Optional[bytes] = ..., forfeit_cosign_nonces: _Optional[_Iterable[bytes]] = ...) -> None: ...

class FinishOffboardRequest(_message.Message):
    __slots__ = ("offboard_txid", "user_nonces", "partial_signatures")
    OFFBOARD_TXID_FIELD_NUMBER: _ClassVar[int]
    USER_NONCES_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    offboard_txid: bytes
    user_nonces: _containers.RepeatedScalarFieldContainer[bytes]
    partial_signatures: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, offboard_txid: _Optional[bytes] = ..., user_nonces: _Optional[_Iterable[bytes]] = ..., partial_signatures: _Optional[_Iterable[bytes]] = ...) -> None: ...

class FinishOffboardResponse(_message.Message):
    __slots__ = ("signed_offboard_tx",)
    SIGNED_OFFBOARD_TX_FIELD_NUMBER: _ClassVar[int]
    signed_offboard_tx: bytes
    def __init__(self, signed_offboard_tx: _Optional[bytes] = ...) -> None: ...

class NextRoundTimeResponse(_message.Message):
    __slots__ = ("timestamp",)
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    timestamp: int
    def __init__(self, timestamp: _Optional[int] = ...) -> None: ...

class RoundAttempt(_message.Message):
    __slots__ = ("round_seq", "attempt_seq", "round_attempt_challenge")
    ROUND_SEQ_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_SEQ_FIELD_NUMBER: _ClassVar[int]
    ROUND_ATTEMPT_CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    round_seq: int
    attempt_seq: int
    round_attempt_challenge: bytes
    def __init__(self, round_seq: _Optional[int] = ..., attempt_seq: _Optional[int] = ..., round_attempt_challenge: _Optional[bytes] = ...) -> None: ...

class VtxoProposal(_message.Message):
    __slots__ = ("round_seq", "attempt_seq", "vtxos_spec", "unsigned_round_tx", "vtxos_agg_nonces")
    ROUND_SEQ_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_SEQ_FIELD_NUMBER: _ClassVar[int]
    VTXOS_SPEC_FIELD_NUMBER: _ClassVar[int]
    UNSIGNED_ROUND_TX_FIELD_NUMBER: _ClassVar[int]
    VTXOS_AGG_NONCES_FIELD_NUMBER: _ClassVar[int]
    round_seq: int
    attempt_seq: int
    vtxos_spec: bytes
    unsigned_round_tx: bytes
    vtxos_agg_nonces: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, round_seq: _Optional[int] = ..., attempt_seq: _Optional[int] = ..., vtxos_spec: _Optional[bytes] = ..., unsigned_round_tx: _Optional[bytes] = ..., vtxos_agg_nonces: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RoundFinished(_message.Message):
    __slots__ = ("round_seq", "attempt_seq", "signed_round_tx", "vtxo_cosign_signatures")
    ROUND_SEQ_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_SEQ_FIELD_NUMBER: _ClassVar[int]
    SIGNED_ROUND_TX_FIELD_NUMBER: _ClassVar[int]
    VTXO_COSIGN_SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    round_seq: int
    attempt_seq: int
    signed_round_tx: bytes
    vtxo_cosign_signatures: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, round_seq: _Optional[int] = ..., attempt_seq: _Optional[int] = ..., signed_round_tx: _Optional[bytes] = ..., vtxo_cosign_signatures: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RoundFailed(_message.Message):
    __slots__ = ("round_seq",)
    ROUND_SEQ_FIELD_NUMBER: _ClassVar[int]
    round_seq: int
    def __init__(self, round_seq: _Optional[int] = ...) -> None: ...

class RoundEvent(_message.Message):
    __slots__ = ("attempt", "vtxo_proposal", "finished", "failed")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    VTXO_PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    attempt: RoundAttempt
    vtxo_proposal: VtxoProposal
    finished: RoundFinished
    failed: RoundFailed
    def __init__(self, attempt: _Optional[_Union[RoundAttempt, _Mapping]] = ..., vtxo_proposal: _Optional[_Union[VtxoProposal, _Mapping]] = ..., finished: _Optional[_Union[RoundFinished, _Mapping]] = ..., failed: _Optional[_Union[RoundFailed, _Mapping]] = ...) -> None: ...

class InputVtxo(_message.Message):
    __slots__ = ("vtxo_id", "attestation")
    VTXO_ID_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    vtxo_id: bytes
    attestation: bytes
    def __init__(self, vtxo_id: _Optional[bytes] = ..., attestation: _Optional[bytes] = ...) -> None: ...

class SignedVtxoRequest(_message.Message):
    __slots__ = ("vtxo", "cosign_pubkey", "public_nonces")
    VTXO_FIELD_NUMBER: _ClassVar[int]
    COSIGN_PUBKEY_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_NONCES_FIELD_NUMBER: _ClassVar[int]
    vtxo: VtxoRequest
    cosign_pubkey: bytes
    public_nonces: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, vtxo: _Optional[_Union[VtxoRequest, _Mapping]] = ..., cosign_pubkey: _Optional[bytes] = ..., public_nonces: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SubmitPaymentRequest(_message.Message):
    __slots__ = ("input_vtxos", "vtxo_requests", "offboard_requests", "unblinded_mailbox_id")
    INPUT_VTXOS_FIELD_NUMBER: _ClassVar[int]
    VTXO_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    OFFBOARD_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    UNBLINDED_MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    input_vtxos: _containers.RepeatedCompositeFieldContainer[InputVtxo]
    vtxo_requests: _containers.RepeatedCompositeFieldContainer[SignedVtxoRequest]
    offboard_requests: _containers.RepeatedCompositeFieldContainer[OffboardRequest]
    unblinded_mailbox_id: bytes
    def __init__(self, input_vtxos: _Optional[_Iterable[_Union[InputVtxo, _Mapping]]] = ..., vtxo_requests: _Optional[_Iterable[_Union[SignedVtxoRequest, _Mapping]]] = ..., offboard_requests: _Optional[_Iterable[_Union[OffboardRequest, _Mapping]]] = ..., unblinded_mailbox_id: _Optional[bytes] = ...) -> None: ...

class SubmitPaymentResponse(_message.Message):
    __slots__ = ("unlock_hash",)
    UNLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    unlock_hash: bytes
    def __init__(self, unlock_hash: _Optional[bytes] = ...) -> None: ...

class VtxoSignaturesRequest(_message.Message):
    __slots__ = ("pubkey", "signatures")
    PUBKEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    pubkey: bytes
    signatures: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, pubkey: _Optional[bytes] = ..., signatures: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RoundParticipationRequest(_message.Message):
    __slots__ = ("input_vtxos", "vtxo_requests", "unblinded_mailbox_id", "scheduled_height")
    INPUT_VTXOS_FIELD_NUMBER: _ClassVar[int]
    VTXO_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    UNBLINDED_MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    input_vtxos: _containers.RepeatedCompositeFieldContainer[InputVtxo]
    vtxo_requests: _containers.RepeatedCompositeFieldContainer[VtxoRequest]
    unblinded_mailbox_id: bytes
    scheduled_height: int
    def __init__(self, input_vtxos: _Optional[_Iterable[_Union[InputVtxo, _Mapping]]] = ..., vtxo_requests: _Optional[_Iterable[_Union[VtxoRequest, _Mapping]]] = ..., unblinded_mailbox_id: _Optional[bytes] = ..., scheduled_height: _Optional[int] = ...) -> None: ...

class RoundParticipationResponse(_message.Message):
    __slots__ = ("unlock_hash",)
    UNLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    unlock_hash: bytes
    def __init__(self, unlock_hash: _Optional[bytes] = ...) -> None: ...

class RoundParticipationStatusRequest(_message.Message):
    __slots__ = ("unlock_hash",)
    UNLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    unlock_hash: bytes
    def __init__(self, unlock_hash: _Optional[bytes] = ...) -> None: ...

class RoundParticipationStatusResponse(_message.Message):
    __slots__ = ("status", "input_vtxo_ids", "round_funding_tx", "output_vtxos", "unlock_preimage")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    INPUT_VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FUNDING_TX_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_VTXOS_FIELD_NUMBER: _ClassVar[int]
    UNLOCK_PREIMAGE_FIELD_NUMBER: _ClassVar[int]
    status: RoundParticipationStatus
    input_vtxo_ids: _containers.RepeatedScalarFieldContainer[bytes]
    round_funding_tx: bytes
    output_vtxos: _containers.RepeatedScalarFieldContainer[bytes]
    unlock_preimage: bytes
    def __init__(self, status: _Optional[_Union[RoundParticipationStatus, str]] = ..., input_vtxo_ids: _Optional[_Iterable[bytes]] = ..., round_funding_tx: _Optional[bytes] = ..., output_vtxos: _Optional[_Iterable[bytes]] = ..., unlock_preimage: _Optional[bytes] = ...) -> None: ...

class LeafVtxoCosignRequest(_message.Message):
    __slots__ = ("vtxo_id", "public_nonce")
    VTXO_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_NONCE_FIELD_NUMBER: _ClassVar[int]
    vtxo_id: bytes
    public_nonce: bytes
    def __init__(self, vtxo_id: _Optional[bytes] = ..., public_nonce: _Optional[bytes] = ...) -> None: ...

class LeafVtxoCosignResponse(_message.Message):
    __slots__ = ("public_nonce", "partial_signature")
    PUBLIC_NONCE_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    public_nonce: bytes
    partial_signature: bytes
    def __init__(self, public_nonce: _Optional[bytes] = ..., partial_signature: _Optional[bytes] = ...) -> None: ...

class ForfeitNoncesRequest(_message.Message):
    __slots__ = ("unlock_hash", "vtxo_ids")
    UNLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    unlock_hash: bytes
    vtxo_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, unlock_hash: _Optional[bytes] = ..., vtxo_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ForfeitNoncesResponse(_message.Message):
    __slots__ = ("public_nonces",)
    PUBLIC_NONCES_FIELD_NUMBER: _ClassVar[int]
    public_nonces: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, public_nonces: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ForfeitVtxosRequest(_message.Message):
    __slots__ = ("forfeit_bundles",)
    FORFEIT_BUNDLES_FIELD_NUMBER: _ClassVar[int]
    forfeit_bundles: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, forfeit_bundles: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ForfeitVtxosResponse(_message.Message):
    __slots__ = ("unlock_preimage",)
    UNLOCK_PREIMAGE_FIELD_NUMBER: _ClassVar[int]
    unlock_preimage: bytes
    def __init__(self, unlock_preimage: _Optional[bytes] = ...) -> None: ...
