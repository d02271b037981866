"""Tag `onchain`."""

from barkd_py.api.schemas.common import I64, U32, U64, BlockRef, Schema, TransactionInfo


class OnchainSendRequest(Schema):
    destination: str
    amount_sat: U64


class OnchainSendManyRequest(Schema):
    destinations: list[str]
    """`address:amount`, the amount with its denomination: `bcrt1…:10000 sat`."""
    immediate: bool | None = None


class OnchainDrainRequest(Schema):
    destination: str


class Address(Schema):
    address: str


class Send(Schema):
    txid: str


class OnchainBalance(Schema):
    total_sat: U64
    trusted_spendable_sat: U64
    immature_sat: U64
    trusted_pending_sat: U64
    untrusted_pending_sat: U64
    confirmed_sat: U64


class UtxoInfo(Schema):
    outpoint: str
    amount_sat: U64
    confirmation_height: U32 | None


class WalletTxInfo(TransactionInfo):
    onchain_fee_sat: U64 | None = None
    balance_change_sat: I64
    confirmation: BlockRef | None
    is_cpfp: bool
