"""What an Ark server says about itself: keys, timelocks, limits and fees.

`ArkInfo` refuses values that would overflow height arithmetic when it is constructed. Whether a wallet may
rely on the server is a second question (`check_safety`): a server chooses the timelocks of
every VTXO, and with bad ones nobody could get out in time.

Source: protocol sheet 08 §2.7-2.8, §4.1.
"""

from dataclasses import dataclass

from barkd_py.ark.fees import FeeSchedule
from barkd_py.ark.policy import MAX_DELTA
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.errors import ProtocolViolation

BITCOIN_NETWORK_NAMES = frozenset({"bitcoin", "testnet", "testnet4", "signet", "regtest"})

# About 16 hours to get a transaction confirmed under full blocks.
MIN_MAINNET_EXIT_DELTA = 96
# Each nonce is signed and sent per tree node: more only serve to exhaust the client.
MAX_MAINNET_ROUND_NONCES = 16
DEFAULT_VTXO_EXIT_MARGIN = 12
# Two weeks until an exit can be claimed; servers announce about a day.
MAX_EXIT_DELTA = 2_016
# Boards have depth 1: with that as the limit, nothing could be paid with, and refreshes would never end.
MIN_EXIT_DEPTH = 2
# Servers announce 100; a VTXO of a large round starts at a depth of about 6.
MIN_MAINNET_EXIT_DEPTH = 20


class BadArkInfo(ProtocolViolation):
    """A field of the server's self-description has no usable value. field: its name on the wire."""

    def __init__(self, field: str) -> None:
        super().__init__(f"invalid {field}")
        self.field = field


class UnsafeServer(ProtocolViolation):
    """The server's parameters would put money at risk; it must not be used."""


@dataclass(frozen=True, slots=True)
class ArkInfo:
    """The Ark server's parameters; deltas in blocks. Raises BadArkInfo on construction.

    network: bitcoin's own name of the chain (`signet` for mutinynet too).
    nb_round_nonces: public nonces that a round asks for per output, exactly.
    vtxo_lifetime: blocks from the tip to the expiry of a new VTXO.
    htlc_expiry_delta: for receives over Lightning; htlc_send_expiry_delta: for sends.
    max_vtxo_amount_sat: None is no limit.
    max_vtxo_exit_depth: VTXOs of this depth or deeper can only be refreshed.
    offboard_fee_rate_sat_per_kvb: for display; the rate that counts is asked for at each offboard.
    ln_receive_anti_dos_required: for display; a proof is always offered.
    """

    network: str
    server_pubkey: PublicKey
    mailbox_pubkey: PublicKey
    round_interval_secs: int
    nb_round_nonces: int
    vtxo_exit_delta: int
    vtxo_lifetime: int
    htlc_send_expiry_delta: int
    htlc_expiry_delta: int
    max_vtxo_amount_sat: int | None
    required_board_confirmations: int
    max_user_invoice_cltv_delta: int
    min_board_amount_sat: int
    offboard_fee_rate_sat_per_kvb: int
    ln_receive_anti_dos_required: bool
    fees: FeeSchedule
    max_vtxo_exit_depth: int
    max_offboard_inputs: int
    tos_link: str | None = None

    def __post_init__(self) -> None:
        if self.network not in BITCOIN_NETWORK_NAMES:
            raise BadArkInfo("network")
        deltas = {
            "vtxo_exit_delta": self.vtxo_exit_delta,
            "htlc_send_expiry_delta": self.htlc_send_expiry_delta,
            "htlc_expiry_delta": self.htlc_expiry_delta,
            "required_board_confirmations": self.required_board_confirmations,
            "max_user_invoice_cltv_delta": self.max_user_invoice_cltv_delta,
            "vtxo_lifetime": self.vtxo_lifetime,
        }
        for name, delta in deltas.items():
            if not 0 <= delta <= MAX_DELTA:
                raise BadArkInfo(name)
        if not 0 <= self.max_vtxo_exit_depth <= 0xFFFF:
            raise BadArkInfo("max_vtxo_exit_depth")

    @property
    def is_mainnet(self) -> bool:
        return self.network == "bitcoin"


def check_safety(info: ArkInfo, *, vtxo_exit_margin: int = DEFAULT_VTXO_EXIT_MARGIN) -> None:
    """Refuse a server whose parameters would make exits unsafe. Raises UnsafeServer.

    vtxo_exit_margin: blocks before expiry at which the wallet starts an exit by itself. There is no upper
    bound on the lifetime: until expiry the exit is always open.
    """
    if info.vtxo_exit_delta == 0:
        raise _unsafe("vtxo_exit_delta is 0")
    if info.nb_round_nonces == 0:
        raise _unsafe("nb_round_nonces is 0")
    if info.vtxo_exit_delta > MAX_EXIT_DELTA:
        raise _unsafe(
            f"vtxo_exit_delta {info.vtxo_exit_delta} is above the maximum of {MAX_EXIT_DELTA} blocks"
        )
    min_exit_depth = MIN_MAINNET_EXIT_DEPTH if info.is_mainnet else MIN_EXIT_DEPTH
    if info.max_vtxo_exit_depth < min_exit_depth:
        raise _unsafe(
            f"max_vtxo_exit_depth {info.max_vtxo_exit_depth} is below the minimum of {min_exit_depth}"
        )
    if not info.is_mainnet:
        return
    confirmations = info.required_board_confirmations
    floor = confirmations + vtxo_exit_margin
    if info.vtxo_lifetime <= floor:
        raise _unsafe(
            f"vtxo_lifetime {info.vtxo_lifetime} is unsafe (minimum > {floor} = "
            f"required_board_confirmations {confirmations} + vtxo_exit_margin {vtxo_exit_margin})"
        )
    if info.vtxo_exit_delta < MIN_MAINNET_EXIT_DELTA:
        raise _unsafe(
            f"vtxo_exit_delta {info.vtxo_exit_delta} is below the mainnet minimum of"
            f" {MIN_MAINNET_EXIT_DELTA} blocks"
        )
    if info.nb_round_nonces > MAX_MAINNET_ROUND_NONCES:
        raise _unsafe(f"nb_round_nonces {info.nb_round_nonces} exceeds cap {MAX_MAINNET_ROUND_NONCES}")


def is_safe_exit_delta(exit_delta: int, *, is_mainnet: bool) -> bool:
    """Whether a wallet may ever have agreed to it.

    VTXOs keep the exit delta that they were made with, also when the server has announced another one since.
    """
    return (MIN_MAINNET_EXIT_DELTA if is_mainnet else 1) <= exit_delta <= MAX_EXIT_DELTA


def _unsafe(what: str) -> UnsafeServer:
    return UnsafeServer(f"server-advertised {what}; refusing to connect")
