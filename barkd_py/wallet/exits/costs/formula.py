"""What exits would cost on chain. Pure: the facts are gathered by `estimates`.

Every exit transaction that is not confirmed has to be paid for, once, however many exits need it: a package
with a child of the usual weight. A transaction whose child pays enough already costs nothing more. The
estimate leaves a margin, because rates change while the exit goes on. The claim is one transaction.

Source: sheet 06 §3.4.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import MAX_MONEY_SAT, FeeRate
from barkd_py.chain.source import PackageFee
from barkd_py.onchain.cpfp import CANONICAL_CHILD_WEIGHT_WU, package_fee_sat
from barkd_py.wallet.exits.errors import InvalidFeeMargin

DEFAULT_FEE_MARGIN = 1.2


@dataclass(frozen=True, slots=True)
class UnpaidTx:
    """An exit transaction that is not confirmed.

    has_child: somebody pays for it already. child_fee: what the package pays, if that is known.
    """

    txid: Txid
    weight_wu: int
    has_child: bool = False
    child_fee: PackageFee | None = None


def check_margin(margin: float) -> None:
    """Raises InvalidFeeMargin."""
    if not math.isfinite(margin) or margin < 0:
        raise InvalidFeeMargin(_margin_text(margin))


def fee_of(tx: UnpaidTx, fee_rate: FeeRate) -> int | None:
    """What is still to be paid for one transaction; None if nothing is."""
    if not tx.has_child:
        return package_fee_sat(fee_rate, tx.weight_wu, CANONICAL_CHILD_WEIGHT_WU)
    if tx.child_fee is None or tx.child_fee.fee_rate >= fee_rate:
        return None
    return package_fee_sat(
        fee_rate, tx.weight_wu, CANONICAL_CHILD_WEIGHT_WU, replaces_fee_sat=tx.child_fee.fee_sat
    )


@dataclass(frozen=True, slots=True)
class BroadcastEstimate:
    fee_sat: int
    txs_to_broadcast: int


def estimate_broadcast(txs: Iterable[UnpaidTx], fee_rate: FeeRate, margin: float) -> BroadcastEstimate:
    """The fee of all, each counted once, with the margin. Raises InvalidFeeMargin."""
    check_margin(margin)
    distinct = {tx.txid: tx for tx in txs}
    fees_sat = [fee for tx in distinct.values() if (fee := fee_of(tx, fee_rate)) is not None]
    exact = sum(fees_sat) * margin
    if not exact <= MAX_MONEY_SAT:
        raise InvalidFeeMargin(_margin_text(margin))
    return BroadcastEstimate(math.ceil(exact), len(fees_sat))


def _margin_text(margin: float) -> str:
    """The number as clients of barkd read it."""
    if math.isnan(margin):
        return "NaN"
    if math.isinf(margin):
        return "inf" if margin > 0 else "-inf"
    return str(int(margin)) if margin == int(margin) and abs(margin) < 1e16 else repr(margin)
