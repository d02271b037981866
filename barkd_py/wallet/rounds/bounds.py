"""What a server may ask of a refresh. Pure.

It announces its fees and timelocks anew while we are connected, so what nobody looks at has narrow bounds:
refreshes that the wallet starts by itself. One that was asked for is refused only if the fee is absurd.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.ark.deadlines import late_preimage_blocks
from barkd_py.ark.fees import refresh_fee
from barkd_py.ark.info import ArkInfo
from barkd_py.bitcoin.units import format_btc
from barkd_py.errors import BarkdError, ProtocolViolation
from barkd_py.wallet.vtxo_states import WalletVtxo
from barkd_py.wallet.vtxos.selection import Candidate, fee_infos

FEE_ALLOWANCE_SAT = 1_000
"""An unattended refresh may cost this much, whatever part of the amount it is: fees have a fixed base."""

MAX_ASKED_FEE_PERCENT = 5
ASKED_FEE_ALLOWANCE_SAT = 10_000

MAX_EXIT_DELTA_GROWTH = 2
FAIR_EXIT_DELTA = 144
"""A day. An exit delta up to here is no reason to let a VTXO expire."""


USUAL_LEAF_DEPTH = 5
"""Transactions of an exit of a new VTXO: hundreds of them in a round."""
ROUND_BLOCKS = 6
"""From the announcement until the forfeits."""


class AbsurdFee(BarkdError):
    """The server's schedule takes more than the bound. Nothing was given."""

    def __init__(self, fee_sat: int, amount_sat: int, max_fee_sat: int) -> None:
        super().__init__(
            f"the server asks for a fee of {format_btc(fee_sat)} for a refresh of {format_btc(amount_sat)},"
            f" more than {format_btc(max_fee_sat)}"
        )


class WorseTerms(ProtocolViolation):
    """The server would give VTXOs that are worse than those it takes."""


def check_lifetime(inputs: Sequence[WalletVtxo], info: ArkInfo, *, tip_height: int, exit_margin: int) -> None:
    """Whether new VTXOs will live long enough to be forfeited for, so that the round can be ended.

    Looked at again before the forfeits; but once the round was held the server has the inputs as spent, and
    all that is left to do is to exit them. Raises WorseTerms.
    """
    if all(vtxo.expiry_height <= tip_height for vtxo in inputs):
        return
    shown_after = max(late_preimage_blocks(vtxo, exit_margin) for vtxo in inputs)
    needed = ROUND_BLOCKS + shown_after + exit_margin + USUAL_LEAF_DEPTH
    if info.vtxo_lifetime < needed:
        raise WorseTerms(
            f"VTXOs of the server live for {info.vtxo_lifetime} blocks, less than the {needed} that it takes"
            " to exit these, and then the new ones"
        )


def check_asked_fee(inputs: Sequence[WalletVtxo], amount_sat: int) -> None:
    """Of a refresh that somebody asked for. amount_sat: what is left. Raises AbsurdFee."""
    total_sat = sum(vtxo.amount_sat for vtxo in inputs)
    max_fee_sat = total_sat * MAX_ASKED_FEE_PERCENT // 100 + ASKED_FEE_ALLOWANCE_SAT
    if total_sat - amount_sat > max_fee_sat:
        raise AbsurdFee(total_sat - amount_sat, total_sat, max_fee_sat)


def highest_fee_sat(inputs: Sequence[Candidate], info: ArkInfo) -> int:
    """The server's fee at any height: it falls as expiry comes nearer. Raises FeeOverflow."""
    return refresh_fee(info.fees, fee_infos(inputs, 0))


def highest_exit_delta(agreed: int) -> int:
    """The longest that is taken for this one."""
    return max(FAIR_EXIT_DELTA, MAX_EXIT_DELTA_GROWTH * agreed)


@dataclass(frozen=True, slots=True)
class UnattendedBounds:
    """max_fee_ppm: of the amount (config `vtxo_refresh_max_fee_ppm`). refresh_threshold: when one begins."""

    max_fee_ppm: int
    refresh_threshold: int

    def max_fee_sat(self, total_sat: int) -> int:
        return max(FEE_ALLOWANCE_SAT, total_sat * self.max_fee_ppm // 1_000_000)

    def check(self, inputs: Sequence[WalletVtxo], amount_sat: int, info: ArkInfo) -> None:
        """amount_sat: what would be left of the inputs. Raises AbsurdFee, WorseTerms."""
        total_sat = sum(vtxo.amount_sat for vtxo in inputs)
        max_fee_sat = self.max_fee_sat(total_sat)
        if total_sat - amount_sat > max_fee_sat:
            raise AbsurdFee(total_sat - amount_sat, total_sat, max_fee_sat)
        shortest = min(vtxo.exit_delta for vtxo in inputs)
        max_exit_delta = highest_exit_delta(shortest)
        if info.vtxo_exit_delta > max_exit_delta:
            raise WorseTerms(
                f"the server's exit delta is {info.vtxo_exit_delta} blocks, that of the VTXOs {shortest};"
                f" at most {max_exit_delta} is taken unasked"
            )
        if info.vtxo_lifetime < 2 * self.refresh_threshold:
            raise WorseTerms(
                f"VTXOs of the server live for {info.vtxo_lifetime} blocks, less than twice the"
                f" {self.refresh_threshold} before expiry in which they are refreshed"
            )
