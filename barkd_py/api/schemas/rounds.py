"""Tag `wallet`: rounds and offboards."""

import enum
from typing import Annotated, Literal

from pydantic import Field

from barkd_py.api.schemas.common import U32, U64, Schema


class RefreshRequest(Schema):
    vtxos: list[str]


class DelegatedRefreshRequest(Schema):
    vtxos: list[str]
    height: U32 | None = None
    """The first round from this block height on; the fee is that of this height."""


class VtxoRequestInfo(Schema):
    amount_sat: U64
    policy_type: str
    user_pubkey: str


class RoundParticipationInfo(Schema):
    inputs: list[str]
    outputs: list[VtxoRequestInfo]


class RoundSyncError(Schema):
    """The last look or attempt failed; it goes on."""

    status: Literal["sync-error"]
    error: str


class RoundConfirmed(Schema):
    status: Literal["confirmed"]
    funding_txid: str


class RoundUnconfirmed(Schema):
    status: Literal["unconfirmed"]
    funding_txid: str


class RoundPending(Schema):
    status: Literal["pending"]


class RoundFailed(Schema):
    status: Literal["failed"]
    error: str


class RoundCanceled(Schema):
    status: Literal["canceled"]


RoundStatus = Annotated[
    RoundSyncError | RoundConfirmed | RoundUnconfirmed | RoundPending | RoundFailed | RoundCanceled,
    Field(discriminator="status"),
]


class RoundFlowState(enum.StrEnum):
    """Phase of a participation."""

    DELEGATED_PENDING = "delegated-pending"
    PENDING = "pending"
    ONGOING = "ongoing"
    AWAITING_CONFIRMATIONS = "awaiting-confirmations"
    FAILED = "failed"
    CANCELED = "canceled"


class PendingRoundInfo(Schema):
    id: U32
    status: RoundStatus
    state: RoundFlowState
    participation: RoundParticipationInfo
    unlock_hash: str | None
    scheduled_height: U32 | None
    funding_txid: str | None
    funding_tx_hex: str | None


class OffboardVtxosRequest(Schema):
    address: str | None = None
    """A new address of the on-chain wallet unless given."""
    vtxos: list[str]


class OffboardAllRequest(Schema):
    address: str | None = None
    """A new address of the on-chain wallet unless given."""


class SendOnchainRequest(Schema):
    destination: str
    amount_sat: U64
    """What arrives; the fee comes on top."""


class OffboardResult(Schema):
    offboard_txid: str
    movement_id: U32
