"""Tag `wallet`: URIs of BIP-321."""

from barkd_py.api.schemas.common import FlagOrEnd, Schema, TextOrEnd, U64OrEnd


class Bip321UriQuery(Schema):
    uppercase: bool | None = None
    """For compact QR codes; refused if capitals would change what the URI says."""


class Bip321UriRequest(Schema):
    amount_sat: U64OrEnd = None
    """With an amount there is an invoice, too."""
    onchain: FlagOrEnd = None
    label: TextOrEnd = None
    message: TextOrEnd = None


class Bip321UriResponse(Schema):
    ark: str | None = None
    bolt11: str | None = None
    onchain: str | None = None
    bip321: str
