"""Tag `lightning`: payments that go out."""

from barkd_py.api.schemas.common import U64, Schema, U64OrEnd


class LightningPayRequest(Schema):
    destination: str
    """A BOLT11 invoice, BOLT12 offer, Lightning address or LNURL."""
    amount_sat: U64 | None = None
    """Required where the destination names no amount."""
    comment: str | None = None
    """For Lightning addresses and LNURLs."""
    retry_for_secs: U64OrEnd = None
    """How long the Ark server may look for a route; it has a maximum, and a default."""


class LightningPayResponse(Schema):
    message: str
    payment_hash: str | None = None


class LightningSendInfo(Schema):
    payment_hash: str
    state: str
    """`unknown`, `start`, `inputs-locked`, `htlc-received`, `payment-initiated`, `revocable-htlcs`,
    `revocation-stuck` or `paid`."""
    invoice: str | None = None
    preimage: str | None = None
