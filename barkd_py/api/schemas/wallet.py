"""Tag `wallet`: the wallet itself, its VTXOs, payments."""

import enum
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from barkd_py.api.schemas.common import U16, U32, U64, Schema, SwitchOrEnd, U32OrEnd, U64OrEnd

# --- requests


class BarkNetwork(enum.Enum):
    """The network of a new wallet."""

    MAINNET = "mainnet"
    SIGNET = "signet"
    MUTINYNET = "mutinynet"
    REGTEST = "regtest"


class CookieFile(Schema):
    cookie: str


class UserPass(Schema):
    user: str
    password: str = Field(alias="pass")


class CookieAuth(Schema):
    cookie: CookieFile


class UserPassAuth(Schema):
    user_pass: UserPass = Field(alias="user-pass")


class BitcoindConfig(Schema):
    bitcoind: str
    bitcoind_auth: CookieAuth | UserPassAuth


class EsploraConfig(Schema):
    url: str


class BitcoindChainSource(Schema):
    bitcoind: BitcoindConfig


class EsploraChainSource(Schema):
    esplora: EsploraConfig


class CreateWalletRequest(Schema):
    ark_server: str | None = None
    ark_server_access_token: str | None = Field(default=None, json_schema_extra={"deprecated": True})
    chain_source: BitcoindChainSource | EsploraChainSource | None = None
    mnemonic: str | None = None
    network: BarkNetwork
    birthday_height: U32 | None = None
    gap_limit: U32OrEnd = None
    force: SwitchOrEnd = False


class WalletDeleteRequest(Schema):
    dangerous: bool
    fingerprint: str


class SendRequest(Schema):
    destination: str
    amount_sat: U64 | None = None
    comment: str | None = None
    retry_for_secs: U64OrEnd = None


class ImportVtxoRequest(Schema):
    vtxos: list[str]
    gap_limit: U32OrEnd = None
    skip_status_check: SwitchOrEnd = False
    allow_partial: SwitchOrEnd = False


class VtxosQuery(Schema):
    all: bool | None = None


# --- answers


class WalletExistsResponse(Schema):
    fingerprint: str | None


class CreateWalletResponse(Schema):
    fingerprint: str


class WalletDeleteResponse(Schema):
    deleted: bool
    fingerprint: str | None
    message: str


class ConnectedResponse(Schema):
    connected: bool


class MnemonicResponse(Schema):
    mnemonic: str


class ArkAddressResponse(Schema):
    address: str


class NextRoundStart(Schema):
    start_time: datetime


class MailboxSyncResponse(Schema):
    checkpoint: U64


class SendResponse(Schema):
    message: str
    payment_hash: str | None = None


class EncodedVtxoResponse(Schema):
    encoded: str


class Balance(Schema):
    """The off-chain balance; the fields are disjoint and their sum is the total."""

    spendable_sat: U64
    needs_refresh_sat: U64
    pending_lightning_send_sat: U64
    claimable_lightning_receive_sat: U64
    pending_in_round_sat: U64
    pending_board_sat: U64
    pending_arkoor_send_sat: U64
    pending_offboard_sat: U64
    pending_exit_sat: U64


class SpendableState(Schema):
    type: Literal["spendable"]


class SpentState(Schema):
    type: Literal["spent"]


class ExitedState(Schema):
    type: Literal["exited"]


class LockedState(Schema):
    type: Literal["locked"]
    movement_id: U32 | None = None
    action_id: str | None = None


VtxoStateInfo = Annotated[
    SpendableState | SpentState | ExitedState | LockedState, Field(discriminator="type")
]


class VtxoInfo(Schema):
    id: str
    amount_sat: U64
    policy_type: str
    user_pubkey: str
    server_pubkey: str
    expiry_height: U32
    exit_delta: U16
    chain_anchor: str
    """The on-chain output that the VTXO's transactions hang off."""
    exit_depth: U16


class WalletVtxoInfo(VtxoInfo):
    state: VtxoStateInfo


class PpmExpiryFeeEntry(Schema):
    expiry_blocks_threshold: U32
    ppm: U64


class BoardFees(Schema):
    min_fee_sat: U64
    base_fee_sat: U64
    ppm: U64


class OffboardFees(Schema):
    base_fee_sat: U64
    fixed_additional_vb: U64
    ppm_expiry_table: list[PpmExpiryFeeEntry]


class RefreshFees(Schema):
    base_fee_sat: U64
    ppm_expiry_table: list[PpmExpiryFeeEntry]


class LightningReceiveFees(Schema):
    base_fee_sat: U64
    ppm: U64


class LightningSendFees(Schema):
    min_fee_sat: U64
    base_fee_sat: U64
    ppm_expiry_table: list[PpmExpiryFeeEntry]


class FeeSchedule(Schema):
    board: BoardFees
    offboard: OffboardFees
    refresh: RefreshFees
    lightning_receive: LightningReceiveFees
    lightning_send: LightningSendFees


class ArkInfo(Schema):
    """What the Ark server says about itself; deltas and the lifetime in blocks."""

    network: str
    server_pubkey: str
    mailbox_pubkey: str
    round_interval: str
    nb_round_nonces: U64
    vtxo_exit_delta: U16
    vtxo_lifetime: U16
    htlc_send_expiry_delta: U16
    htlc_expiry_delta: U16
    max_vtxo_amount: U64
    required_board_confirmations: U64
    max_user_invoice_cltv_delta: U16
    min_board_amount_sat: U64
    offboard_feerate_sat_per_kvb: U64
    ln_receive_anti_dos_required: bool
    fees: FeeSchedule
    max_vtxo_exit_depth: U16
    tos_link: str | None
    max_offboard_inputs: U64
    vtxo_expiry_delta: U16 = Field(json_schema_extra={"deprecated": True})
