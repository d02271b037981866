"""Reading the node's answer to a transaction or a package.

A package answer names each transaction by its wtxid, in any order, and a refused parent makes its child fail
too, with a misleading error. So the answers are walked in package order and the first real error decides.

Source: sheet 06 §4.5; sheet 11 §2.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from barkd_py.bitcoin.tx import Tx
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind
from barkd_py.errors import ChainUnavailable

_ALREADY_KNOWN = ("txn-already-known", "txn-already-in-mempool", "txn-same-nonwitness-data-in-mempool")
_MISSING_OR_SPENT = "bad-txns-inputs-missingorspent"
_LOW_FEE = "insufficient fee"

_TEXT = {
    BroadcastErrorKind.KNOWN: "transaction already known to the mempool",
    BroadcastErrorKind.MISSING_OR_SPENT: "transaction inputs are missing or already spent",
    BroadcastErrorKind.LOW_FEE: "insufficient fee, rejecting replacement",
}


def classify(reason: str) -> BroadcastErrorKind:
    """The kind of a refusal, from the node's own words."""
    if _MISSING_OR_SPENT in reason:
        return BroadcastErrorKind.MISSING_OR_SPENT
    if _LOW_FEE in reason and "rejecting replacement" in reason:
        return BroadcastErrorKind.LOW_FEE
    if any(text in reason for text in _ALREADY_KNOWN):
        return BroadcastErrorKind.KNOWN
    return BroadcastErrorKind.OTHER


def check_package_result(txs: Sequence[Tx], answer: object) -> None:
    """Return if the whole package was accepted. Raises BroadcastError, or ChainUnavailable if unreadable.

    txs: the package as submitted, parents first.
    """
    match answer:
        case {"package_msg": str(message), "tx-results": dict(results)}:
            pass
        case _:
            raise ChainUnavailable("malformed answer to a package submission")
    if message == "success":
        return
    reasons = _reasons_in_package_order(txs, results)
    known = False
    for _, reason in reasons:
        if reason is None:
            continue
        kind = classify(reason)
        if kind is BroadcastErrorKind.KNOWN:
            known = True
        elif kind is BroadcastErrorKind.OTHER:
            raise BroadcastError(kind, _other_text(message, reasons))
        else:
            raise BroadcastError(kind, _TEXT[kind])
    if known:
        raise BroadcastError(BroadcastErrorKind.KNOWN, _TEXT[BroadcastErrorKind.KNOWN])
    raise BroadcastError(BroadcastErrorKind.OTHER, f"msg: '{message}', no tx errors")


def _reasons_in_package_order(txs: Sequence[Tx], results: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """(txid, reason or None) of each transaction that has a result."""
    reasons: list[tuple[str, str | None]] = []
    for tx in txs:
        match results.get(str(tx.wtxid)):
            case None:
                continue
            case {"error": str(reason)}:
                reasons.append((str(tx.txid), reason))
            case {**other} if "error" not in other:
                reasons.append((str(tx.txid), None))
            case _:
                raise ChainUnavailable("malformed answer to a package submission")
    return reasons


def _other_text(message: str, reasons: Sequence[tuple[str, str | None]]) -> str:
    listed = ", ".join(f"tx {txid}: {reason or '(no error)'}" for txid, reason in reasons)
    return f"msg: '{message}', errors: [{listed}]"
