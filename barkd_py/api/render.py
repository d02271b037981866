"""Domain objects as the JSON of a client's contract version.

Everything that depends on the version is decided here; the wallet knows nothing of versions. The results are
plain dictionaries with their keys in the order of the contract. What upstream leaves out when it has no value
is left out here (`completed_at`), what it gives as null is null (`confirmation`).

Source: protocol sheet 07 §7, §8.1; sheet 06 §3 (exits).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, assert_never

from barkd_py.api.contract import Contract
from barkd_py.ark.fees import FeeSchedule, PpmExpiryFeeEntry
from barkd_py.ark.info import ArkInfo
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import BlockRef, FeeRate
from barkd_py.daemon import wallet_api
from barkd_py.wallet.exits import errors as exit_errors
from barkd_py.wallet.exits import states as exits
from barkd_py.wallet.lightning.receives import LightningReceive
from barkd_py.wallet.lightning.sends import LightningSend
from barkd_py.wallet.movements import (
    Movement,
    MovementDestination,
    PaymentMethod,
    PaymentMethodKind,
)
from barkd_py.wallet.notifications import (
    ChannelLagging,
    MovementCreated,
    MovementUpdated,
    Notification,
    WaitResult,
)
from barkd_py.wallet.recovery.report import RecoveryOutcome, RecoveryReport
from barkd_py.wallet.rounds import states as rounds
from barkd_py.wallet.vtxos import (
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

Json = dict[str, Any]

NO_VTXO_LIMIT_SAT: Final = 21_000_000 * 100_000_000
"""For `max_vtxo_amount` where the server sets none: upstream's null breaks clients of every version."""

_DURATION_UNITS: Final = (
    ("year", 31_557_600),
    ("month", 2_630_016),
    ("day", 86_400),
)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with the shortest exact fraction: `2026-06-01T12:00:00.5` is written `….500Z`."""
    utc = moment.astimezone(UTC)
    text = utc.strftime("%Y-%m-%dT%H:%M:%S")
    if not utc.microsecond:
        return f"{text}Z"
    if utc.microsecond % 1000:
        return f"{text}.{utc.microsecond:06}Z"
    return f"{text}.{utc.microsecond // 1000:03}Z"


def duration(seconds: int) -> str:
    """`1h 30m`, `2days`, `0s`; a year has 365.25 days and a month a twelfth of that."""
    parts = []
    for name, length in _DURATION_UNITS:
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{name}{'s' if count > 1 else ''}")
    for name, length in (("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts) or "0s"


# --- wallet


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


# --- history, notifications


def movement(movement: Movement, contract: Contract) -> Json:
    json: Json = {
        "id": movement.id,
        "status": movement.status.value,
        "subsystem": {"name": movement.subsystem.name, "kind": movement.subsystem.kind},
    }
    if movement.metadata:
        json["metadata"] = dict(movement.metadata)
    json |= {
        "intended_balance_sat": movement.intended_balance_sat,
        "effective_balance_sat": movement.effective_balance_sat,
        "offchain_fee_sat": movement.offchain_fee_sat,
        "sent_to": [_destination(destination, contract) for destination in movement.sent_to],
        "received_on": [_destination(destination, contract) for destination in movement.received_on],
        "input_vtxos": [str(vtxo_id) for vtxo_id in movement.input_vtxos],
        "output_vtxos": [str(vtxo_id) for vtxo_id in movement.output_vtxos],
        "exited_vtxos": [str(vtxo_id) for vtxo_id in movement.exited_vtxos],
        "time": {
            "created_at": timestamp(movement.created_at),
            "updated_at": timestamp(movement.updated_at),
        },
    }
    if movement.completed_at is not None:
        json["time"]["completed_at"] = timestamp(movement.completed_at)
    return json


def _destination(destination: MovementDestination, contract: Contract) -> Json:
    return {
        "destination": _payment_method(destination.method, contract),
        "amount_sat": destination.amount_sat,
    }


def _payment_method(method: PaymentMethod, contract: Contract) -> Json:
    kind = method.kind
    if kind is PaymentMethodKind.LNURL and contract is Contract.V0_1_4:
        kind = PaymentMethodKind.CUSTOM
    return {"type": kind.value, "value": method.value}


def notification(event: Notification, contract: Contract) -> Json:
    match event:
        case MovementCreated(changed):
            return {"type": "movement-created", "movement": movement(changed, contract)}
        case MovementUpdated(changed):
            return {"type": "movement-updated", "movement": movement(changed, contract)}
        case ChannelLagging():
            return {"type": "channel-lagging"}
        case _:
            assert_never(event)


def wait_result(result: WaitResult, contract: Contract) -> Json:
    last = result.last_pushed_at
    return {
        "notifications": [notification(event, contract) for event in result.notifications],
        "last_pushed_at": None if last is None else timestamp(last),
    }


# --- boards, fees, on chain


def transaction(tx: Tx) -> Json:
    return {"txid": str(tx.txid), "tx": tx.serialize().hex()}


def pending_board(board: wallet_api.PendingBoard) -> Json:
    return {
        "funding_tx": transaction(board.funding_tx),
        "vtxos": [str(vtxo_id) for vtxo_id in board.vtxo_ids],
        "amount_sat": board.amount_sat,
        "movement_id": board.movement_id,
    }


def fee_estimate(estimate: wallet_api.FeeEstimate) -> Json:
    return {
        "gross_amount_sat": estimate.gross_amount_sat,
        "fee_sat": estimate.fee_sat,
        "net_amount_sat": estimate.net_amount_sat,
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


def block_ref(block: BlockRef) -> Mapping[str, object]:
    return {"height": block.height, "hash": str(block.hash)}


# --- exits
#
# `contract` is never UNSTATED here: which words a path uses then, the router knows.


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


# --- rounds and offboards


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


def offboard_result(result: wallet_api.OffboardResult) -> Json:
    return {"offboard_txid": str(result.offboard_txid), "movement_id": result.movement_id}


def lightning_send(send: LightningSend) -> Json:
    return {
        "payment_hash": send.payment_hash.hex(),
        "state": send.state.value,
        "invoice": send.invoice,
        "preimage": None if send.preimage is None else send.preimage.hex(),
    }


def lightning_receive(receive: LightningReceive, contract: Contract) -> Json:
    """All names of all versions: the newer ones of a moment, and the older ones that clients of 0.1.4 read.

    The preimage is a secret until the payment has settled; the contract wants it shown.
    """
    revealed_at, settled_at = receive.preimage_revealed_at, receive.settled_at
    settled = None if settled_at is None else timestamp(settled_at)
    return {
        "payment_hash": receive.payment_hash.hex(),
        "state": receive.state,
        "invoice": receive.invoice,
        "payment_preimage": receive.preimage.data.hex(),
        "amount_sat": receive.amount_sat,
        "htlc_vtxo_ids": [str(htlc.id) for htlc in receive.htlc_vtxos],
        "settled_at": settled,
        "preimage_revealed_at": None if revealed_at is None else timestamp(revealed_at),
        "finished_at": settled,
        "htlc_vtxos": [vtxo(htlc, contract) for htlc in receive.htlc_vtxos],
    }
