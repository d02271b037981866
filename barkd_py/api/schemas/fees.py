"""Tag `fees`."""

from barkd_py.api.schemas.common import U64, Schema


class FeeEstimateQuery(Schema):
    amount_sat: U64


class FeeEstimateResponse(Schema):
    gross_amount_sat: U64
    fee_sat: U64
    net_amount_sat: U64
    vtxos_spent: list[str]


class OffboardAllFeeEstimateQuery(Schema):
    address: str


class SendOnchainFeeEstimateQuery(Schema):
    amount_sat: U64
    address: str


class OffboardFeeEstimateRequest(Schema):
    address: str
    vtxos: list[str]


class OnchainFeeRatesResponse(Schema):
    fast_sat_per_vb: U64
    regular_sat_per_vb: U64
    slow_sat_per_vb: U64
