"""Boards, fees, and the on-chain wallet. Source: protocol sheet 07 §7.3, §7.7."""

from typing import Final

from barkd_py.api.render.values import Json, block_ref, transaction
from barkd_py.daemon import wallet_api

_U64_MAX: Final = 2**64 - 1


def pending_board(board: wallet_api.PendingBoard) -> Json:
    return {
        "funding_tx": transaction(board.funding_tx),
        "vtxos": [str(vtxo_id) for vtxo_id in board.vtxo_ids],
        "amount_sat": board.amount_sat,
        "movement_id": board.movement_id,
    }


def fee_estimate(estimate: wallet_api.FeeEstimate) -> Json:
    """Sums that leave the 64 bits of the contract's numbers stop at the largest of them."""
    return {
        "gross_amount_sat": min(estimate.gross_amount_sat, _U64_MAX),
        "fee_sat": min(estimate.fee_sat, _U64_MAX),
        "net_amount_sat": min(estimate.net_amount_sat, _U64_MAX),
        "vtxos_spent": [str(vtxo_id) for vtxo_id in estimate.vtxos_spent],
    }


def fee_rates(rates: wallet_api.FeeRates) -> Json:
    return {
        "fast_sat_per_vb": rates.fast.sat_per_vb_ceil,
        "regular_sat_per_vb": rates.regular.sat_per_vb_ceil,
        "slow_sat_per_vb": rates.slow.sat_per_vb_ceil,
    }


def onchain_balance(balance: wallet_api.OnchainBalance) -> Json:
    return {
        "total_sat": balance.total_sat,
        "trusted_spendable_sat": balance.trusted_spendable_sat,
        "immature_sat": balance.immature_sat,
        "trusted_pending_sat": balance.trusted_pending_sat,
        "untrusted_pending_sat": balance.untrusted_pending_sat,
        "confirmed_sat": balance.confirmed_sat,
    }


def utxo(utxo: wallet_api.OnchainUtxo) -> Json:
    return {
        "outpoint": str(utxo.outpoint),
        "amount_sat": utxo.amount_sat,
        "confirmation_height": utxo.confirmation_height,
    }


def wallet_tx(entry: wallet_api.OnchainTx) -> Json:
    json = transaction(entry.tx)
    if entry.onchain_fee_sat is not None:
        json["onchain_fee_sat"] = entry.onchain_fee_sat
    confirmation = entry.confirmation
    json |= {
        "balance_change_sat": entry.balance_change_sat,
        "confirmation": None if confirmation is None else block_ref(confirmation),
        "is_cpfp": entry.is_cpfp,
    }
    return json
