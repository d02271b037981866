"""Domain objects as the JSON of a client's contract version.

Everything that depends on the version is decided here; the wallet knows nothing of versions. The results are
plain dictionaries with their keys in the order of the contract. What upstream leaves out when it has no value
is left out here (`completed_at`), what it gives as null is null (`confirmation`).

Source: protocol sheet 07 §7, §8.1; sheet 06 §3 (exits).
"""

from barkd_py.api.render.exits import (
    exit_error,
    exit_fee_estimate,
    exit_progress,
    exit_state,
    exit_status,
    knows_exit_state,
)
from barkd_py.api.render.history import (
    movement,
    notification,
    wait_result,
)
from barkd_py.api.render.lightning import lightning_receive, lightning_send
from barkd_py.api.render.onchain import (
    fee_estimate,
    fee_rates,
    onchain_balance,
    pending_board,
    utxo,
    wallet_tx,
)
from barkd_py.api.render.rounds import offboard_result, round_info
from barkd_py.api.render.values import (
    block_ref,
    duration,
    timestamp,
    transaction,
)
from barkd_py.api.render.wallet import (
    NO_VTXO_LIMIT_SAT,
    ark_info,
    balance,
    recovery_report,
    vtxo,
    vtxo_state,
)

__all__ = [
    "NO_VTXO_LIMIT_SAT",
    "ark_info",
    "balance",
    "block_ref",
    "duration",
    "exit_error",
    "exit_fee_estimate",
    "exit_progress",
    "exit_state",
    "exit_status",
    "fee_estimate",
    "fee_rates",
    "knows_exit_state",
    "lightning_receive",
    "lightning_send",
    "movement",
    "notification",
    "offboard_result",
    "onchain_balance",
    "pending_board",
    "recovery_report",
    "round_info",
    "timestamp",
    "transaction",
    "utxo",
    "vtxo",
    "vtxo_state",
    "wait_result",
    "wallet_tx",
]
