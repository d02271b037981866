"""The child that pays for a zero-fee parent: how much, and with which coins. Pure.

A parent of an exit pays nothing itself; its last output is a pay-to-anchor output that anyone may spend. The
child spends it with coins of ours and pays for both (child pays for parent). Both are version 3, and TRUC
(BIP-431) limits the child: at most 1000 vB, and every other input confirmed.

All inputs and the one output are taproot key spends, so the weight is known before the child exists:

    child with n ≥ 1 inputs of ours    379 + 230·n WU
    child of the anchor alone          376 WU, without any witness

Source: sheet 06 §4, §8.3.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from barkd_py.bitcoin.tx import P2A_SCRIPT, OutPoint, Tx, Txid, TxOut
from barkd_py.bitcoin.units import DUST_SAT, FeeRate, format_btc
from barkd_py.chain.source import PackageFee
from barkd_py.errors import BarkdError, InsufficientFunds
from barkd_py.onchain.types import OnchainUtxo

MAX_FUNDING_INPUTS = 15
"""The most that keep the child within 1000 vB."""
MAX_CHILD_VSIZE = 1_000
CANONICAL_CHILD_WEIGHT_WU = 609
"""Anchor, one input of ours, one output: what fee estimates assume."""
MIN_FEE_RATE = FeeRate(250)
RELAY_INCREMENT = FeeRate(250)
"""What a replacement must pay more, over the whole new package."""


class MissingAnchor(BarkdError):
    """The parent has no pay-to-anchor output."""

    def __init__(self, txid: Txid) -> None:
        super().__init__(f"Transaction has no fee anchor: {txid}")
        self.txid = txid


class FeeRateTooLow(BarkdError):
    """No node relays a package at this rate."""

    def __init__(self, fee_rate: FeeRate) -> None:
        super().__init__(f"fee rate of {fee_rate} is below {MIN_FEE_RATE}")


class InsufficientConfirmedFunds(InsufficientFunds):
    """The confirmed coins do not pay for the package and leave an output.

    needed_sat: the fee and an output that is not dust. available_sat: all confirmed coins and the anchor.
    """

    def __init__(self, needed_sat: int, available_sat: int) -> None:
        super().__init__(
            f"Insufficient confirmed funds: {format_btc(available_sat)} available "
            f"of {format_btc(needed_sat)} needed"
        )
        self.needed_sat = needed_sat
        self.available_sat = available_sat


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """What the child will be.

    coins: the inputs beside the anchor, possibly none. output_sat: of its one output.
    """

    coins: tuple[OnchainUtxo, ...]
    fee_sat: int
    weight_wu: int
    output_sat: int


def fee_anchor_of(parent: Tx) -> tuple[OutPoint, TxOut]:
    """The first pay-to-anchor output. Raises MissingAnchor."""
    for vout, output in enumerate(parent.outputs):
        if output.script_pubkey == P2A_SCRIPT:
            return parent.outpoint(vout), output
    raise MissingAnchor(parent.txid)


def child_weight_wu(input_count: int) -> int:
    """The weight of the signed child with so many inputs of ours."""
    return 376 if input_count == 0 else 379 + 230 * input_count


def package_fee_sat(
    fee_rate: FeeRate,
    parent_weight_wu: int,
    child_weight_wu: int,
    *,
    replaces_fee_sat: int | None = None,
) -> int:
    """What the child must pay for both, the parent paying nothing.

    replaces_fee_sat: the fee of the package that it is to replace.
    """
    fee_sat = fee_rate.fee_wu(parent_weight_wu + child_weight_wu)
    if replaces_fee_sat is None:
        return fee_sat
    increment_sat = RELAY_INCREMENT.fee_wu(parent_weight_wu) + RELAY_INCREMENT.fee_wu(child_weight_wu)
    return max(fee_sat, replaces_fee_sat + increment_sat)


def plan_child(
    coins: Iterable[OnchainUtxo],
    *,
    parent_weight_wu: int,
    anchor_value_sat: int,
    fee_rate: FeeRate,
    replaces: PackageFee | None = None,
) -> ChildPlan:
    """Choose coins, the largest first, until they and the anchor pay the fee and leave no dust.

    coins: confirmed and spendable ones. Raises InsufficientConfirmedFunds, FeeRateTooLow.
    """
    if fee_rate < MIN_FEE_RATE:
        raise FeeRateTooLow(fee_rate)
    ranked = sorted(coins, key=lambda coin: (-coin.amount_sat, coin.outpoint))
    chosen: list[OnchainUtxo] = []
    total_sat = anchor_value_sat
    while True:
        weight_wu = child_weight_wu(len(chosen))
        fee_sat = package_fee_sat(
            fee_rate,
            parent_weight_wu,
            weight_wu,
            replaces_fee_sat=None if replaces is None else replaces.fee_sat,
        )
        if total_sat - fee_sat >= DUST_SAT:
            return ChildPlan(tuple(chosen), fee_sat, weight_wu, total_sat - fee_sat)
        if len(chosen) in (MAX_FUNDING_INPUTS, len(ranked)):
            available_sat = anchor_value_sat + sum(coin.amount_sat for coin in ranked)
            raise InsufficientConfirmedFunds(fee_sat + DUST_SAT, available_sat)
        chosen.append(ranked[len(chosen)])
        total_sat += chosen[-1].amount_sat
