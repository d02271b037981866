"""Tag `lightning`: payments that come in."""

from barkd_py.api.schemas.common import U64, Schema, TextOrEnd
from barkd_py.api.schemas.wallet import WalletVtxoInfo


class LightningInvoiceRequest(Schema):
    amount_sat: U64
    """What the payer pays; the server keeps its fee of it."""
    description: TextOrEnd = None
    token: TextOrEnd = None
    """For a server that wants to see one from a wallet without VTXOs."""


class LightningInvoiceForAddressRequest(Schema):
    amount_sat: U64
    address: str
    """The Ark address that gets the money."""
    description: TextOrEnd = None


class InvoiceInfo(Schema):
    invoice: str


class LightningReceiveInfo(Schema):
    payment_hash: str
    state: str
    """`awaiting-payment`, `htlcs-ready`, `preimage-revealed`, `delivering` or `settled`."""
    invoice: str
    payment_preimage: str
    amount_sat: U64
    htlc_vtxo_ids: list[str]
    """What the server has granted and we have not claimed yet."""
    settled_at: str | None = None
    preimage_revealed_at: str | None = None
    finished_at: str | None = None
    """When it was over. Without `settled_at`: neither the server nor the chain paid."""
    htlc_vtxos: list[WalletVtxoInfo]
