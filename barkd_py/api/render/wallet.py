"""The wallet: balance, VTXOs, the server, recovery. Source: protocol sheet 07 §7.3."""

from collections.abc import Sequence
from typing import Final, assert_never

from barkd_py.api.contract import Contract
from barkd_py.api.render.values import Json, duration, timestamp
from barkd_py.ark.fees import FeeSchedule, PpmExpiryFeeEntry
from barkd_py.ark.info import ArkInfo
from barkd_py.daemon import wallet_api
from barkd_py.wallet.recovery.report import RecoveryOutcome, RecoveryReport
from barkd_py.wallet.vtxo_states import (
    ActionHolder,
    Exited,
    Holder,
    Locked,
    MovementHolder,
    Spendable,
    Spent,
    VtxoState,
    WalletVtxo,
)

NO_VTXO_LIMIT_SAT: Final = 21_000_000 * 100_000_000
"""For `max_vtxo_amount` where the server sets none: upstream's null breaks clients of every version."""


def balance(balance: wallet_api.Balance) -> Json:
    return {
        "spendable_sat": balance.spendable_sat,
        "needs_refresh_sat": balance.needs_refresh_sat,
        "pending_lightning_send_sat": balance.pending_lightning_send_sat,
        "claimable_lightning_receive_sat": balance.claimable_lightning_receive_sat,
        "pending_in_round_sat": balance.pending_in_round_sat,
        "pending_board_sat": balance.pending_board_sat,
        "pending_arkoor_send_sat": balance.pending_arkoor_send_sat,
        "pending_offboard_sat": balance.pending_offboard_sat,
        "pending_exit_sat": balance.pending_exit_sat,
    }


def vtxo(vtxo: WalletVtxo, contract: Contract) -> Json:
    return {
        "id": str(vtxo.id),
        "amount_sat": vtxo.amount_sat,
        "policy_type": vtxo.policy_kind,
        "user_pubkey": str(vtxo.user_pubkey),
        "server_pubkey": str(vtxo.server_pubkey),
        "expiry_height": vtxo.expiry_height,
        "exit_delta": vtxo.exit_delta,
        "chain_anchor": str(vtxo.anchor_point),
        "exit_depth": vtxo.exit_depth,
        "state": vtxo_state(vtxo.state, contract),
    }


def vtxo_state(state: VtxoState, contract: Contract) -> Json:
    match state:
        case Spendable():
            return {"type": "spendable"}
        case Spent():
            return {"type": "spent"}
        case Exited():
            # Clients of 0.1.4 cannot read the newer word. The VTXO is gone from the wallet either way.
            return {"type": "spent" if contract is Contract.V0_1_4 else "exited"}
        case Locked(holder):
            return {"type": "locked", **_holder(holder)}
        case _:
            assert_never(state)


def _holder(holder: Holder | None) -> Json:
    match holder:
        case MovementHolder(movement_id):
            return {"movement_id": movement_id}
        case ActionHolder(action_id):
            return {"action_id": action_id}
        case None:
            return {}
        case _:
            assert_never(holder)


def ark_info(info: ArkInfo) -> Json:
    limit = info.max_vtxo_amount_sat
    return {
        "network": info.network,
        "server_pubkey": str(info.server_pubkey),
        "mailbox_pubkey": str(info.mailbox_pubkey),
        "round_interval": duration(info.round_interval_secs),
        "nb_round_nonces": info.nb_round_nonces,
        "vtxo_exit_delta": info.vtxo_exit_delta,
        "vtxo_lifetime": info.vtxo_lifetime,
        "htlc_send_expiry_delta": info.htlc_send_expiry_delta,
        "htlc_expiry_delta": info.htlc_expiry_delta,
        "max_vtxo_amount": NO_VTXO_LIMIT_SAT if limit is None else limit,
        "required_board_confirmations": info.required_board_confirmations,
        "max_user_invoice_cltv_delta": info.max_user_invoice_cltv_delta,
        "min_board_amount_sat": info.min_board_amount_sat,
        "offboard_feerate_sat_per_kvb": info.offboard_fee_rate_sat_per_kvb,
        "ln_receive_anti_dos_required": info.ln_receive_anti_dos_required,
        "fees": _fee_schedule(info.fees),
        "max_vtxo_exit_depth": info.max_vtxo_exit_depth,
        "tos_link": info.tos_link,
        "max_offboard_inputs": info.max_offboard_inputs,
        "vtxo_expiry_delta": info.vtxo_lifetime,
    }


def _fee_schedule(fees: FeeSchedule) -> Json:
    return {
        "board": {
            "min_fee_sat": fees.board.min_fee_sat,
            "base_fee_sat": fees.board.base_fee_sat,
            "ppm": fees.board.ppm,
        },
        "offboard": {
            "base_fee_sat": fees.offboard.base_fee_sat,
            "fixed_additional_vb": fees.offboard.fixed_additional_vb,
            "ppm_expiry_table": _ppm_table(fees.offboard.ppm_expiry_table),
        },
        "refresh": {
            "base_fee_sat": fees.refresh.base_fee_sat,
            "ppm_expiry_table": _ppm_table(fees.refresh.ppm_expiry_table),
        },
        "lightning_receive": {
            "base_fee_sat": fees.lightning_receive.base_fee_sat,
            "ppm": fees.lightning_receive.ppm,
        },
        "lightning_send": {
            "min_fee_sat": fees.lightning_send.min_fee_sat,
            "base_fee_sat": fees.lightning_send.base_fee_sat,
            "ppm_expiry_table": _ppm_table(fees.lightning_send.ppm_expiry_table),
        },
    }


def _ppm_table(table: Sequence[PpmExpiryFeeEntry]) -> list[Json]:
    return [{"expiry_blocks_threshold": entry.expiry_blocks_threshold, "ppm": entry.ppm} for entry in table]


def recovery_report(report: RecoveryReport) -> Json:
    """Of no contract of barkd's."""
    if report.finished_at is not None:
        state = "finished"
    else:
        state = "running" if report.error is None else "interrupted"
    return {
        "state": state,
        "started_at": timestamp(report.started_at),
        "finished_at": None if report.finished_at is None else timestamp(report.finished_at),
        "error": report.error,
        "complete": report.is_complete,
        "searched_by_key": report.searched_by_key,
        "pending": report.pending,
        "counts": {outcome.value: count for outcome, count in report.counts().items()},
        "recovered_sat": report.amount_sat(RecoveryOutcome.RECOVERED),
        "vtxos": [
            {
                "vtxo_id": str(entry.vtxo_id),
                "outcome": entry.outcome.value,
                "amount_sat": entry.amount_sat,
                "reason": entry.reason,
            }
            for entry in report.entries
        ],
    }
