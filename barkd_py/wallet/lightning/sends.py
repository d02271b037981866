"""Payments over Lightning: starting them, and looking at them.

Source: protocol sheet 05 §4.
"""

import enum
from dataclasses import dataclass

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.payment_request import (
    InvoiceDestination,
    LightningAddressDestination,
    LnurlDestination,
    OfferDestination,
)

LightningDestination = InvoiceDestination | OfferDestination | LightningAddressDestination | LnurlDestination


class SendState(enum.StrEnum):
    """How far a payment is, by the names of the JSON. UNKNOWN: never started, or undone."""

    UNKNOWN = "unknown"
    START = "start"
    INPUTS_LOCKED = "inputs-locked"
    HTLC_RECEIVED = "htlc-received"
    PAYMENT_INITIATED = "payment-initiated"
    REVOCABLE_HTLCS = "revocable-htlcs"
    REVOCATION_STUCK = "revocation-stuck"
    PAID = "paid"


@dataclass(frozen=True, slots=True)
class LightningSend:
    """A payment as clients see it. payment_hash, preimage: 32 bytes.

    invoice: while it is under way. preimage: once it is paid.
    """

    payment_hash: bytes
    state: SendState
    invoice: str | None = None
    preimage: bytes | None = None


@dataclass(frozen=True, slots=True)
class PayEstimate:
    """gross: what leaves the wallet. vtxos_spent: none if no choice covers it."""

    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...]
