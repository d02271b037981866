"""The parameters of a devnet Ark server; most of them are announced in ArkInfo.

The defaults suit tests on regtest: short delays, one confirmation. `CAPTAIND` has what the real server does
out of the box, where that differs.

Source: sheet 10 §2; sheet 05 §6.5 (fees).
"""

import enum
from dataclasses import dataclass, field, replace

from barkd_py.ark.fees import (
    BoardFees,
    FeeSchedule,
    LightningReceiveFees,
    LightningSendFees,
    OffboardFees,
    PpmExpiryFeeEntry,
    RefreshFees,
)
from barkd_py.bitcoin.units import DUST_SAT, FeeRate, Network

MIN_PROTOCOL_VERSION = 4
MAX_PROTOCOL_VERSION = 5
PROTOCOL_VERSION_BOARD_FUNDING_TX = 4

MAX_BOARD_INPUTS = 100
MAX_POSTED_VTXOS = 100
MAX_POSTED_RECOVERY_IDS = 20
MAX_LOOKED_UP_IDS = 1000
MAX_OFFBOARD_INPUTS = 100
MAX_FORFEIT_NONCES = 1000

PROTOCOL_VERSION_HASH_LOCKS = 5
"""From here on clients can take part in rounds and use Lightning."""

BOARD_LIFETIME_SLACK_BLOCKS = 3
"""How far ahead of the server's tip a client's may be when it computes a board's expiry."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024


class Emulation(enum.Enum):
    """Which generation of server to be: the newer one has look-ups of many ids in one call."""

    V0_6 = "0.6"
    V0_8 = "0.8"


_BRACKETS = (
    PpmExpiryFeeEntry(0, 0),
    PpmExpiryFeeEntry(97, 1000),
    PpmExpiryFeeEntry(199, 4000),
    PpmExpiryFeeEntry(2161, 8000),
)

DEFAULT_FEES = FeeSchedule(
    board=BoardFees(min_fee_sat=330, base_fee_sat=100, ppm=1000),
    offboard=OffboardFees(base_fee_sat=200, fixed_additional_vb=212, ppm_expiry_table=_BRACKETS),
    refresh=RefreshFees(base_fee_sat=150, ppm_expiry_table=_BRACKETS),
    lightning_receive=LightningReceiveFees(base_fee_sat=100, ppm=2000),
    lightning_send=LightningSendFees(min_fee_sat=10, base_fee_sat=75, ppm_expiry_table=_BRACKETS),
)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All parameters. Amounts in satoshi, deltas and lifetimes in blocks.

    max_arkoor_fanout: outputs per input of an out-of-round payment, not announced.
    require_board_funding_tx: whether boards must show their funding transaction, as on mainnet.
    round_submit_secs, round_sign_secs: how long a round waits for participants, and for their signatures.
    offboard_session_secs: how long a prepared offboard can be finished; it goes by the server's clock.
    offboard_fee_rate_window_secs: how long an offboard may use a fee rate of the past.
    fast_fee_rate: of rounds. regular_fee_rate: of offboards, at the start.
    resume_rounds: whether a start finishes a round that was booked but not signed when the server was
    killed; the real server does not.
    max_mailbox_items: rows per page of a mailbox. group_complete_pages: never cut what one post brought;
    the real server does, and clients must cope with it.
    xpub_scan_keys: keys that one search by extended public key derives. xpub_max_vtxos: in one answer.
    rich_errors: whether INTERNAL failures say why.
    ln_max_fee_ppm: how much of the fee for a Lightning payment may go to the route.
    receive_htlc_forward_timeout_secs: how long a payment is held for a receiver that does not come.
    payment_retry_secs: how long the server's node tries to pay, unless a wallet asks for less.
    pool_amounts_sat: VTXOs that the server keeps for receivers; pool_lifetime and pool_pre_expiry: for how
    many blocks they live, and how many before their end they are no longer given out; pool_max_depth: from
    which exit depth on the change of a grant is not used again.
    """

    network: Network = Network.REGTEST
    vtxo_lifetime: int = 4320
    vtxo_exit_delta: int = 12
    max_vtxo_exit_depth: int = 100
    max_arkoor_fanout: int = 4
    min_board_amount_sat: int = 20_000
    max_vtxo_amount_sat: int | None = None
    required_board_confirmations: int = 1
    require_board_funding_tx: bool = True
    round_interval_secs: int = 10
    round_submit_secs: float = 2.0
    round_sign_secs: float = 5.0
    round_forfeit_nonces_timeout_secs: float = 30.0
    nb_round_nonces: int = 8
    offboard_session_secs: float = 30.0
    offboard_check_secs: float = 1.0
    offboard_fee_rate_window_secs: float = 15 * 60.0
    htlc_expiry_delta: int = 6
    htlc_send_expiry_delta: int = 258
    max_user_invoice_cltv_delta: int = 250
    ln_receive_anti_dos_required: bool = False
    max_ln_receive_amount_sat: int | None = None
    ln_max_fee_ppm: int = 900_000
    invoice_expiry_secs: int = 48 * 3600
    receive_htlc_forward_timeout_secs: float = 180.0
    payment_retry_secs: int = 60
    pool_amounts_sat: tuple[int, ...] = (20_000,) * 10 + (200_000,) * 12 + (5_000_000,) * 10
    pool_lifetime: int = 432
    pool_pre_expiry: int = 144
    pool_max_depth: int = 12
    fees: FeeSchedule = field(default=DEFAULT_FEES)
    fast_fee_rate: FeeRate = field(default=FeeRate.from_sat_per_vb(25))
    regular_fee_rate: FeeRate = field(default=FeeRate.from_sat_per_vb(10))
    resume_rounds: bool = True
    max_mailbox_items: int = 100
    group_complete_pages: bool = True
    emulate: Emulation = Emulation.V0_8
    xpub_scan_keys: int = 1000
    xpub_max_vtxos: int = 1000
    rich_errors: bool = True
    public_service_announcement: str | None = None
    tos_link: str | None = None

    @property
    def smallest_board_sat(self) -> int:
        return max(self.min_board_amount_sat, DUST_SAT)


CAPTAIND = replace(
    ServerSettings(),
    vtxo_exit_delta=144,
    required_board_confirmations=3,
    require_board_funding_tx=False,
    round_sign_secs=2.0,
    htlc_expiry_delta=40,
    pool_max_depth=3,
    resume_rounds=False,
    group_complete_pages=False,
    emulate=Emulation.V0_6,
)
