"""Which of several exits are worth what they cost, and what they may cost as they go on.

Nobody starts these exits but the daemon itself, so it must not be made to pay more than it saves: whoever
publishes one cheap transaction below a thousand tiny payments would else have a thousand exits paid for. And
once they have begun, fees may rise: what an exit holds is spread over all the transactions that it pays for,
so that all of them together never cost more.

Source: sheet 06 §4.3, §5.1.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import DUST_SAT, FeeRate
from barkd_py.onchain.cpfp import CANONICAL_CHILD_WEIGHT_WU, package_fee_sat

MAX_AUTOMATIC_FEE_RATE = FeeRate.from_sat_per_vb(1_000)
"""Of what nobody looks at. No estimator makes us pay more; upstream follows it wherever it goes."""
CLAIM_WEIGHT_WU = 518
"""Of a claim with one input of the pubkey policy, to a taproot output."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """An exit that has begun. to_pay: its transactions, without those that others have paid for."""

    amount_sat: int
    to_pay: Sequence[Tx]


def bearable_rate(txid: Txid, bearers: Sequence[Bearer]) -> FeeRate:
    """The most that these exits together may pay for one of their transactions.

    At the rate at which an exit costs what it holds, each of its transactions has its part of that; where
    several share one, their parts come together.
    """
    sharers = Counter(tx.txid for bearer in bearers for tx in bearer.to_pay)
    sat_per_wu = Fraction(0)
    for bearer in bearers:
        if any(tx.txid == txid for tx in bearer.to_pay):
            parts = [
                Fraction(tx.weight_wu + CANONICAL_CHILD_WEIGHT_WU, sharers[tx.txid]) for tx in bearer.to_pay
            ]
            whole = sum(parts, Fraction(CLAIM_WEIGHT_WU))
            sat_per_wu += Fraction(bearer.amount_sat, sharers[txid]) / whole
    return FeeRate(int(sat_per_wu * 1000))


def worth_exiting(vtxos: Sequence[Vtxo], confirmed: Collection[Txid], fee_rate: FeeRate) -> frozenset[VtxoId]:
    """Those that hold more than their exits and claims cost now.

    confirmed: exit transactions that need not be paid for. Those that need the same one share its cost.
    """
    unpaid = {vtxo.id: [tx for tx in vtxo.exit_transactions() if tx.txid not in confirmed] for vtxo in vtxos}
    fees_sat = {
        tx.txid: package_fee_sat(fee_rate, tx.weight_wu, CANONICAL_CHILD_WEIGHT_WU)
        for txs in unpaid.values()
        for tx in txs
    }
    claim_sat = fee_rate.fee_wu(CLAIM_WEIGHT_WU)
    left = [vtxo for vtxo in vtxos if vtxo.amount_sat >= DUST_SAT]
    while True:
        sharers = Counter(tx.txid for vtxo in left for tx in unpaid[vtxo.id])

        def cost_sat(vtxo: Vtxo, sharers: Counter[Txid] = sharers) -> int:
            return claim_sat + sum(fees_sat[tx.txid] // sharers[tx.txid] for tx in unpaid[vtxo.id])

        worth = [vtxo for vtxo in left if vtxo.amount_sat > cost_sat(vtxo)]
        if len(worth) == len(left):
            return frozenset([vtxo.id for vtxo in left])
        left = worth  # who stays has more to bear
