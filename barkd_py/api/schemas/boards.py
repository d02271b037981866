"""Tag `boards`."""

from barkd_py.api.schemas.common import U32, U64, Schema, TransactionInfo


class BoardRequest(Schema):
    amount_sat: U64


class PendingBoardInfo(Schema):
    """A board that waits for confirmations; the amount is net of the board fee."""

    funding_tx: TransactionInfo
    vtxos: list[str]
    amount_sat: U64
    movement_id: U32
