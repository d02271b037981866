"""Tag `bitcoin`."""

from barkd_py.api.schemas.common import U32, Schema


class TipResponse(Schema):
    tip_height: U32
