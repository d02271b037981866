"""Rounds and offboards. Source: protocol sheet 07 §7.5."""

from typing import assert_never

from barkd_py.api.render.values import Json
from barkd_py.daemon import wallet_api
from barkd_py.wallet.rounds import states as rounds


def round_info(info: rounds.RoundInfo) -> Json:
    participation, state = info.round, info.round.state
    funding_tx = None
    if isinstance(state, rounds.Issued | rounds.Completed) and not state.is_delegated:
        funding_tx = state.funding_tx
    return {
        "id": info.id,
        "status": _round_status(info.status),
        "state": _round_state(state),
        "participation": {
            "inputs": [str(vtxo_id) for vtxo_id in participation.inputs],
            "outputs": [
                {
                    "amount_sat": output.amount_sat,
                    "policy_type": output.policy.kind,
                    "user_pubkey": str(output.user_pubkey),
                }
                for output in participation.outputs
            ],
        },
        "unlock_hash": _round_unlock_hash(state),
        "scheduled_height": participation.scheduled_height,
        "funding_txid": None if funding_tx is None else str(funding_tx.txid),
        "funding_tx_hex": None if funding_tx is None else funding_tx.serialize().hex(),
    }


def _round_status(status: rounds.RoundStatus) -> Json:
    match status:
        case rounds.Pending():
            return {"status": "pending"}
        case rounds.Unconfirmed(funding_txid):
            return {"status": "unconfirmed", "funding_txid": str(funding_txid)}
        case rounds.Confirmed(funding_txid):
            return {"status": "confirmed", "funding_txid": str(funding_txid)}
        case rounds.SyncError(error):
            return {"status": "sync-error", "error": error}
        case rounds.Failed(error):
            return {"status": "failed", "error": error}
        case rounds.Canceled():
            return {"status": "canceled"}
        case _:
            assert_never(status)


def _round_state(state: rounds.RoundState) -> str:
    match state:
        case rounds.Waiting():
            return "pending"
        case rounds.Joining() | rounds.Registered() | rounds.Signed():
            return "ongoing"
        case rounds.Submitting() | rounds.Delegated():
            return "delegated-pending"
        case rounds.Issued() | rounds.Completed():
            return "delegated-pending" if state.is_delegated else "awaiting-confirmations"
        case rounds.Failed():
            return "failed"
        case rounds.Canceled():
            return "canceled"
        case _:
            assert_never(state)


def _round_unlock_hash(state: rounds.RoundState) -> str | None:
    match state:
        case rounds.Delegated() | rounds.Issued() | rounds.Completed():
            return state.unlock_hash.hex()
        case _:
            return None


def offboard_result(result: wallet_api.OffboardResult) -> Json:
    return {"offboard_txid": str(result.offboard_txid), "movement_id": result.movement_id}
