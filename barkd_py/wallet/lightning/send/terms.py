"""What a payment over Lightning costs, and what pays for it. Pure.

The fee is the server's, by its schedule and the inputs' distance from expiry; it comes on top of the amount,
and pays the way through Lightning too. There is no reserve beyond it: a server that finds no way for that
much says so, and the payment comes back.

Source: protocol sheet 05 §4.2, §6.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from barkd_py.ark.deadlines import ARKOOR_EXIT_DEPTH, exit_start_height
from barkd_py.ark.fees import VtxoFeeInfo, lightning_send_fee
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.units import format_btc
from barkd_py.errors import BarkdError, InsufficientFunds
from barkd_py.wallet.lightning.bounds import max_send_fee_sat
from barkd_py.wallet.vtxo_states import WalletVtxo
from barkd_py.wallet.vtxos.selection import FeeSelection, SelectionLimits, select_with_fee


class CannotCoverLightningPayment(InsufficientFunds):
    """The cause says what is missing."""

    def __init__(self) -> None:
        super().__init__("Could not find enough suitable VTXOs to cover lightning payment")


class AbsurdFee(BarkdError):
    """The server's schedule asks for more than anybody would pay. Nothing was paid."""

    def __init__(self, fee_sat: int, amount_sat: int) -> None:
        super().__init__(
            f"the server asks for a fee of {format_btc(fee_sat)} for a payment of {format_btc(amount_sat)}"
        )


@dataclass(frozen=True, slots=True)
class PayEstimate:
    """gross: what leaves the wallet. vtxos_spent: none if no choice covers it."""

    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...]


@dataclass(frozen=True, slots=True)
class PayTerms:
    """What a payment costs at this moment."""

    info: ArkInfo
    tip_height: int
    exit_margin: int

    @property
    def htlc_expiry_height(self) -> int:
        return self.tip_height + self.info.htlc_send_expiry_delta

    def fee_sat(self, amount_sat: int, infos: Sequence[VtxoFeeInfo]) -> int:
        """The fee at this tip, or at the one before if that is more: the server may be a block behind. What
        is too much goes into the search for a route.
        """
        before = [replace(info, expiry_blocks=info.expiry_blocks + 1) for info in infos]
        return max(lightning_send_fee(self.info.fees, amount_sat, each) for each in (infos, before))

    def outlives_htlcs(self, vtxo: WalletVtxo) -> bool:
        """Whether it is an input to be taken before others.

        A tree that expires before its HTLCs are dealt with forces stuck ones on the chain early.
        """
        dealt_with_height = self.htlc_expiry_height + 2 * self.info.vtxo_exit_delta
        return exit_start_height(vtxo, self.exit_margin, deeper_by=ARKOOR_EXIT_DEPTH) > dealt_with_height

    def select(self, payable: Sequence[WalletVtxo], amount_sat: int) -> FeeSelection[WalletVtxo]:
        """Of those that have not expired. Raises CannotCoverPaymentAndFees."""
        limits = SelectionLimits(
            max_exit_depth=self.info.max_vtxo_exit_depth, expires_after_height=self.tip_height
        )
        return select_with_fee(payable, amount_sat, self.fee_sat, tip_height=self.tip_height, limits=limits)

    def check_fee(self, fee_sat: int, amount_sat: int) -> None:
        """Raises AbsurdFee."""
        if fee_sat > max_send_fee_sat(amount_sat):
            raise AbsurdFee(fee_sat, amount_sat)
