"""Tag `history`: movements."""

import enum
from datetime import datetime
from typing import Any

from pydantic import Field

from barkd_py.api.schemas.common import I64, U32, U64, Schema
from barkd_py.wallet.movements import MovementStatus as MovementStatus
from barkd_py.wallet.movements import PaymentMethodKind


class HistoryQuery(Schema):
    type: str | None = None
    value: str | None = None


class PaymentMethodType(enum.Enum):
    ARK = PaymentMethodKind.ARK.value
    BITCOIN = PaymentMethodKind.BITCOIN.value
    OUTPUT_SCRIPT = PaymentMethodKind.OUTPUT_SCRIPT.value
    INVOICE = PaymentMethodKind.INVOICE.value
    OFFER = PaymentMethodKind.OFFER.value
    LIGHTNING_ADDRESS = PaymentMethodKind.LIGHTNING_ADDRESS.value
    LNURL = PaymentMethodKind.LNURL.value
    CUSTOM = PaymentMethodKind.CUSTOM.value


class PaymentMethod(Schema):
    type: PaymentMethodType
    value: str


class MovementDestination(Schema):
    destination: PaymentMethod
    amount_sat: U64


class MovementSubsystem(Schema):
    name: str
    kind: str


class MovementTimestamp(Schema):
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None


class Movement(Schema):
    """One entry of the wallet's history."""

    id: U32
    status: MovementStatus
    subsystem: MovementSubsystem
    metadata: dict[str, Any] = Field(default_factory=dict)
    intended_balance_sat: I64
    effective_balance_sat: I64
    offchain_fee_sat: U64
    sent_to: list[MovementDestination]
    received_on: list[MovementDestination]
    input_vtxos: list[str]
    output_vtxos: list[str]
    exited_vtxos: list[str]
    time: MovementTimestamp
