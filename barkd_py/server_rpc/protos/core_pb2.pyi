# grpcio-tools 1.85.1
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LightningFailureReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIGHTNING_FAILURE_UNSPECIFIED: _ClassVar[LightningFailureReason]
    LIGHTNING_FAILURE_FEE_TOO_LOW: _ClassVar[LightningFailureReason]
    LIGHTNING_FAILURE_CLTV_TOO_LONG: _ClassVar[LightningFailureReason]
    LIGHTNING_FAILURE_NO_ROUTE: _ClassVar[LightningFailureReason]
    LIGHTNING_FAILURE_DESTINATION_REJECTED: _ClassVar[LightningFailureReason]
    LIGHTNING_FAILURE_SETUP_TIMEOUT: _ClassVar[LightningFailureReason]
    LIGHTNING_FAILURE_INVOICE_STATE: _ClassVar[LightningFailureReason]
    LIGHTNING_FAILURE_OTHER: _ClassVar[LightningFailureReason]
    LIGHTNING_FAILURE_RETRIES_EXHAUSTED: _ClassVar[LightningFailureReason]
LIGHTNING_FAILURE_UNSPECIFIED: LightningFailureReason
LIGHTNING_FAILURE_FEE_TOO_LOW: LightningFailureReason
LIGHTNING_FAILURE_CLTV_TOO_LONG: LightningFailureReason
LIGHTNING_FAILURE_NO_ROUTE: LightningFailureReason
LIGHTNING_FAILURE_DESTINATION_REJECTED: LightningFailureReason
LIGHTNING_FAILURE_SETUP_TIMEOUT: LightningFailureReason
LIGHTNING_FAILURE_INVOICE_STATE: LightningFailureReason
LIGHTNING_FAILURE_OTHER: LightningFailureReason
LIGHTNING_FAILURE_RETRIES_EXHAUSTED: LightningFailureReason

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LightningPaymentFailure(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: LightningFailureReason
    def __init__(self, reason: _Optional[_Union[LightningFailureReason, str]] = ...) -> None: ...
