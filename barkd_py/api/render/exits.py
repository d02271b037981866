"""Exits, which the two versions of the contract tell in different words.

`contract` is never UNSTATED here: which words a path uses then, the router knows. Source: protocol sheet 07
§7.8, §8.1; sheet 06 §3.
"""

from typing import Final, assert_never

from barkd_py.api.contract import Contract
from barkd_py.api.render.values import Json, block_ref, transaction
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import FeeRate
from barkd_py.daemon import wallet_api
from barkd_py.wallet.exits import errors as exit_errors
from barkd_py.wallet.exits import states as exits


def knows_exit_state(state: exits.ExitState, contract: Contract) -> bool:
    """Whether a client has a word for the state. Exits in others are hidden from it, never disguised."""
    is_new = isinstance(state, exits.VtxoAlreadySpent | exits.VtxoSwept | exits.Canceled)
    return contract is not Contract.V0_1_4 or not is_new


def exit_status(
    exit_: exits.ExitStatus, contract: Contract, fast: FeeRate, *, with_history: bool = False
) -> Json:
    """fast: the rate that a child should pay, for clients that tell a cheap one apart."""
    json: Json = {"vtxo_id": str(exit_.vtxo_id), "state": exit_state(exit_.state, contract, fast)}
    if with_history:
        json["history"] = [
            exit_state(state, contract, fast) for state in exit_.history if knows_exit_state(state, contract)
        ]
    if exit_.packages:
        json["transactions"] = [_exit_package(package) for package in exit_.packages]
    return json


def exit_progress(progress: exits.ExitProgress, contract: Contract, fast: FeeRate) -> Json:
    shown = [exit_ for exit_ in progress.exits if knows_exit_state(exit_.state, contract)]
    claimable_height = progress.claimable_height
    if contract is Contract.V0_1_4 and any(_claimable_height(exit_.state) is None for exit_ in shown):
        # There it is the height at which all exits can be claimed, so it takes all of them.
        claimable_height = None
    rendered = []
    for exit_ in shown:
        json = exit_status(exit_, contract, fast)
        if exit_.error is not None:
            json["error"] = exit_error(exit_.error, contract)
        rendered.append(json)
    return {"exits": rendered, "done": progress.is_done, "claimable_height": claimable_height}


def _claimable_height(state: exits.ExitState) -> int | None:
    match state:
        case exits.AwaitingDelta():
            return state.claimable_height
        case exits.Claimable() | exits.ClaimInProgress():
            return state.claimable_since.height
        case _:
            return None


def exit_state(state: exits.ExitState, contract: Contract, fast: FeeRate) -> Json:
    json: Json = {"type": state.type, "tip_height": state.tip_height}
    match state:
        case exits.Processing():
            json["transactions"] = [
                {"txid": str(tx.txid), "status": _exit_tx_status(tx, contract, fast)}
                for tx in state.transactions
            ]
        case exits.AwaitingDelta():
            json["confirmed_block"] = block_ref(state.confirmed_block)
            json["claimable_height"] = state.claimable_height
        case exits.Claimable():
            scanned = state.last_scanned_block
            json["claimable_since"] = block_ref(state.claimable_since)
            json["last_scanned_block"] = None if scanned is None else block_ref(scanned)
        case exits.ClaimInProgress():
            json["claimable_since"] = block_ref(state.claimable_since)
            json["claim_txid"] = str(state.claim_txid)
        case exits.Claimed():
            json["txid"] = str(state.txid)
            json["block"] = block_ref(state.block)
        case exits.VtxoSwept():
            json["spent_inputs"] = [str(outpoint) for outpoint in state.spent_inputs]
        case exits.Start() | exits.VtxoAlreadySpent() | exits.Canceled():
            pass
        case _:
            assert_never(state)
    return json


def _exit_tx_status(tx: exits.ExitTx, contract: Contract, fast: FeeRate) -> Json:
    status = tx.status
    match status:
        case exits.VerifyInputs():
            return {"type": status.type}
        case exits.AwaitingInputConfirmation():
            return {"type": status.type, "txids": sorted(str(txid) for txid in status.txids)}
        case exits.AwaitingCpfpBroadcast():
            return {"type": "needs-signed-package" if contract is Contract.V0_1_4 else status.type}
        case exits.AwaitingConfirmation():
            if contract is Contract.V0_1_4:
                return _old_broadcast_status(status, fast)
            return _with_child(status.type, status.child_txid, _exit_origin(status.origin, status.fee))
        case exits.TxConfirmed():
            return {
                "type": status.type,
                # Mined without a child: the contract has no word for that, so its own id stands in.
                "child_txid": str(tx.txid if status.child_txid is None else status.child_txid),
                "block": block_ref(status.block),
                "origin": _exit_origin(status.origin, None),
            }
        case _:
            assert_never(status)


def _old_broadcast_status(status: exits.AwaitingConfirmation, fast: FeeRate) -> Json:
    """What 0.1.4 called a package that was broadcast. Source: sheet 06 §3.3."""
    fee = status.fee
    origin = _exit_origin(status.origin, fee)
    if not status.in_mempool:
        return _with_child("needs-broadcasting", status.child_txid, origin)
    if isinstance(status.origin, exits.MempoolOrigin) and fee is not None and fee.fee_rate < fast:
        return {
            "type": "needs-replacement-package",
            "min_fee_rate_sat_per_kvb": fee.fee_rate.sat_per_kvb,
            "min_fee_rate_kwu": fee.fee_rate.sat_per_kwu,
            "min_fee": fee.fee_sat,
        }
    return _with_child("broadcast-with-cpfp", status.child_txid, origin)


def _with_child(type_: str, child_txid: Txid, origin: Json) -> Json:
    return {"type": type_, "child_txid": str(child_txid), "origin": origin}


def _exit_origin(origin: exits.ExitTxOrigin, fee: wallet_api.PackageFee | None) -> Json:
    match origin:
        case exits.WalletOrigin():
            block = origin.confirmed_in
            return {"type": origin.type, "confirmed_in": None if block is None else block_ref(block)}
        case exits.BlockOrigin():
            return {"type": origin.type, "confirmed_in": block_ref(origin.confirmed_in)}
        case exits.MempoolOrigin():
            # Clients of 0.1.4 cannot do without the numbers, newer ones skip them.
            return {
                "type": origin.type,
                "fee_rate_sat_per_kvb": 0 if fee is None else fee.fee_rate.sat_per_kvb,
                "fee_rate": 0 if fee is None else fee.fee_rate.sat_per_kwu,
                "total_fee": 0 if fee is None else fee.fee_sat,
            }
        case _:
            assert_never(origin)


def _exit_package(package: exits.ExitPackage) -> Json:
    child = package.child
    if child is None:
        return {"exit": transaction(package.tx), "child": None}
    json: Json = {"info": transaction(child.tx)}
    if child.fee is not None:
        json["fee_info"] = {
            "fee_rate_sat_per_kvb": child.fee.fee_rate.sat_per_kvb,
            "total_fee_sat": child.fee.fee_sat,
        }
    json["origin"] = _exit_origin(child.origin, child.fee)
    return {"exit": transaction(package.tx), "child": json}


_EXIT_ERRORS_AFTER_0_1_4: Final = (
    exit_errors.CannotCancelExit,
    exit_errors.ExitTxAlreadyBroadcast,
    exit_errors.InvalidFeeMargin,
    exit_errors.NonStandardExit,
    exit_errors.NotExiting,
    exit_errors.UnknownExitVtxo,
    exit_errors.VtxoAlreadyExited,
    exit_errors.SpentVtxo,
    exit_errors.SweptVtxo,
)


def exit_error(error: exit_errors.ExitError, contract: Contract) -> Json:
    """The tag of the error with its fields. Source: sheet 06 §3.3, §3.5."""
    if contract is Contract.V0_1_4:
        if isinstance(error, _EXIT_ERRORS_AFTER_0_1_4):
            return {"type": exit_errors.InternalExitError.tag, "error": str(error)}
        if isinstance(error, exit_errors.DustLimit):
            return {"type": error.tag, "vtxo": error.amount_sat, "dust": error.dust_sat}
    return {"type": error.tag, **_exit_error_fields(error)}


def _exit_error_fields(error: exit_errors.ExitError) -> Json:
    match error:
        case exit_errors.DustLimit():
            return {"vtxo": str(error.vtxo), "amount": error.amount_sat, "dust": error.dust_sat}
        case exit_errors.ClaimFeeExceedsOutput():
            return {"needed": error.needed_sat, "output": error.output_sat}
        case exit_errors.InsufficientConfirmedFundsForExit():
            return {"needed": error.needed_sat, "available": error.available_sat}
        case exit_errors.InvalidLocktime():
            return {"tip": error.tip_height, "error": error.error}
        case _:
            fields = vars(error)
            return {name: _plain(fields[name]) for name in _EXIT_ERROR_FIELDS if name in fields}


_EXIT_ERROR_FIELDS: Final = ("vtxo", "vtxo_id", "txid", "height", "state", "margin", "error")
"""Fields of errors that have the contract's names, in its order."""


def _plain(value: object) -> object:
    return value if isinstance(value, int) else str(value)


def exit_fee_estimate(estimate: exits.ExitFeeEstimate) -> Json:
    return {
        "exit_broadcast_fee_sat": estimate.broadcast_fee_sat,
        "claim_fee_sat": estimate.claim_fee_sat,
        "total_fee_sat": estimate.total_fee_sat,
        "fee_rate_sat_per_vb": estimate.fee_rate.sat_per_kwu / 250,
        "txs_to_broadcast": estimate.txs_to_broadcast,
        "fundable": estimate.is_fundable,
    }
