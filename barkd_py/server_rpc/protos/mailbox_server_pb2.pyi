# grpcio-tools 1.85.1
from . import core_pb2 as _core_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PostArkoorMessageRequest(_message.Message):
    __slots__ = ("blinded_id", "vtxos")
    BLINDED_ID_FIELD_NUMBER: _ClassVar[int]
    VTXOS_FIELD_NUMBER: _ClassVar[int]
    blinded_id: bytes
    vtxos: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, blinded_id: _Optional[bytes] = ..., vtxos: _Optional[_Iterable[bytes]] = ...) -> None: ...

class MailboxRequest(_message.Message):
    __slots__ = ("mailbox_id", "authorization", "checkpoint")
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    mailbox_id: bytes
    authorization: bytes
    checkpoint: int
    def __init__(self, mailbox_id: _Optional[bytes] = ..., authorization: _Optional[bytes] = ..., checkpoint: _Optional[int] = ...) -> None: ...

class MailboxMessage(_message.Message):
    __slots__ = ("arkoor", "round_participation_completed", "incoming_lightning_payment", "recovery_vtxo_ids", "lightning_send_finished", "checkpoint")
    ARKOOR_FIELD_NUMBER: _ClassVar[int]
    ROUND_PARTICIPATION_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    INCOMING_LIGHTNING_PAYMENT_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    LIGHTNING_SEND_FINISHED_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    arkoor: ArkoorMessage
    round_participation_completed: RoundParticipationCompleted
    incoming_lightning_payment: IncomingLightningPaymentMessage
    recovery_vtxo_ids: RecoveryVtxoIdsMessage
    lightning_send_finished: LightningSendFinishedMessage
    checkpoint: int
    def __init__(self, arkoor: _Optional[_Union[ArkoorMessage, _Mapping]] = ..., round_participation_completed: _Optional[_Union[RoundParticipationCompleted, _Mapping]] = ..., incoming_lightning_payment: _Optional[_Union[IncomingLightningPaymentMessage, _Mapping]] = ..., recovery_vtxo_ids: _Optional[_Union[RecoveryVtxoIdsMessage, _Mapping]] = ..., lightning_send_finished: _Optional[_Union[LightningSendFinishedMessage, _Mapping]] = ..., checkpoint: _Optional[int] = ...) -> None: ...

class ArkoorMessage(_message.Message):
    __slots__ = ("vtxos",)
    VTXOS_FIELD_NUMBER: _ClassVar[int]
    vtxos: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, vtxos: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RoundParticipationCompleted(_message.Message):
    __slots__ = ("payment_hashes", "unlock_hash")
    PAYMENT_HASHES_FIELD_NUMBER: _ClassVar[int]
    UNLOCK_HASH_FIELD_NUMBER: _ClassVar[int]
    payment_hashes: _containers.RepeatedScalarFieldContainer[bytes]
    unlock_hash: bytes
    def __init__(self, payment_hashes: _Optional[_Iterable[bytes]] = ..., unlock_hash: _Optional[bytes] = ...) -> None: ...

class IncomingLightningPaymentMessage(_message.Message):
    __slots__ = ("payment_hash", "amount_msat")
    PAYMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_MSAT_FIELD_NUMBER: _ClassVar[int]
    payment_hash: bytes
    amount_msat: int
    def __init__(self, payment_hash: _Optional[bytes] = ..., amount_msat: _Optional[int] = ...) -> None: ...

class RecoveryVtxoIdsMessage(_message.Message):
    __slots__ = ("vtxo_ids",)
    VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    vtxo_ids: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, vtxo_ids: _Optional[_Iterable[bytes]] = ...) -> None: ...

class LightningSendFinishedMessage(_message.Message):
    __slots__ = ("payment_hash", "preimage", "failure")
    PAYMENT_HASH_FIELD_NUMBER: _ClassVar[int]
    PREIMAGE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    payment_hash: bytes
    preimage: bytes
    failure: _core_pb2.LightningPaymentFailure
    def __init__(self, payment_hash: _Optional[bytes] = ..., preimage: _Optional[bytes] = ..., failure: _Optional[_Union[_core_pb2.LightningPaymentFailure, _Mapping]] = ...) -> None: ...

class MailboxMessages(_message.Message):
    __slots__ = ("messages", "have_more")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    HAVE_MORE_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[MailboxMessage]
    have_more: bool
    def __init__(self, messages: _Optional[_Iterable[_Union[MailboxMessage, _Mapping]]] = ..., have_more: _Optional[bool] = ...) -> None: ...

class PostRecoveryVtxoIdsRequest(_message.Message):
    __slots__ = ("mailbox_id", "vtxo_ids", "authorization")
    MAILBOX_ID_FIELD_NUMBER: _ClassVar[int]
    VTXO_IDS_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZATION_FIELD_NUMBER: _ClassVar[int]
    mailbox_id: bytes
    vtxo_ids: _containers.RepeatedScalarFieldContainer[bytes]
    authorization: bytes
    def __init__(self, mailbox_id: _Optional[bytes] = ..., vtxo_ids: _Optional[_Iterable[bytes]] = ..., authorization: _Optional[bytes] = ...) -> None: ...
