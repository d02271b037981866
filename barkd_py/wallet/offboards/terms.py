"""What an offboard costs, and what is left of the VTXOs that leave. Pure.

Source: sheet 03 §3.2, §3.3; sheet 05 §6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.ark.fees import VtxoFeeInfo, offboard_fee, subtract_fee_above_dust
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.script import ScriptType, dust_limit_sat, script_type
from barkd_py.bitcoin.units import FeeRate
from barkd_py.errors import InsufficientFunds
from barkd_py.wallet.offboards.errors import (
    DuplicateOffboardInput,
    OffboardLeavesDust,
    TooManyOffboardInputs,
)
from barkd_py.wallet.offboards.states import Payment
from barkd_py.wallet.vtxo_states import WalletVtxo
from barkd_py.wallet.vtxos.selection import FeeSelection, SelectionLimits, fee_infos, select_with_fee

_MIN_RELAYED_P2WPKH_SAT = 294


@dataclass(frozen=True, slots=True)
class OffboardEstimate:
    """gross: what leaves the wallet; net: what arrives. vtxos_spent: none if no choice covers it."""

    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...]


@dataclass(frozen=True, slots=True)
class OffboardTarget:
    """Where to: an address of the wallet's network, and its script."""

    address: str
    script_pubkey: bytes


@dataclass(frozen=True, slots=True)
class OffboardTerms:
    """What an offboard costs at this moment, at this target."""

    info: ArkInfo
    fee_rate: FeeRate
    tip_height: int
    script_pubkey: bytes

    def fee_sat(self, amount_sat: int, infos: Sequence[VtxoFeeInfo]) -> int:
        return offboard_fee(
            self.info.fees, amount_sat, infos, script_pubkey=self.script_pubkey, fee_rate=self.fee_rate
        )

    def whole_fee_sat(self, vtxos: Sequence[WalletVtxo]) -> int:
        return self.fee_sat(sum(vtxo.amount_sat for vtxo in vtxos), fee_infos(vtxos, self.tip_height))

    def select(self, payable: Sequence[WalletVtxo], amount_sat: int) -> FeeSelection[WalletVtxo]:
        """Inputs that expire above the tip. Raises CannotCoverPaymentAndFees."""
        # Expired ones are refused as inputs of the split by newer servers.
        limits = SelectionLimits(
            max_exit_depth=self.info.max_vtxo_exit_depth,
            expires_after_height=self.tip_height,
            max_inputs=self.info.max_offboard_inputs,
        )
        return select_with_fee(payable, amount_sat, self.fee_sat, tip_height=self.tip_height, limits=limits)


def min_output_sat(script_pubkey: bytes) -> int:
    """The least that nodes relay to a script. The protocol's own limit is lower for P2WPKH."""
    if script_type(script_pubkey) is ScriptType.P2WPKH:
        return _MIN_RELAYED_P2WPKH_SAT
    return dust_limit_sat(script_pubkey) or 0


def plan_whole(inputs: Sequence[WalletVtxo], target: OffboardTarget, terms: OffboardTerms) -> Payment:
    most = terms.info.max_offboard_inputs
    if len(inputs) > most:
        raise TooManyOffboardInputs(len(inputs), most)
    input_ids = tuple(vtxo.id for vtxo in inputs)
    if len(set(input_ids)) != len(input_ids):
        raise DuplicateOffboardInput
    gross_sat = sum(vtxo.amount_sat for vtxo in inputs)
    fee_sat = terms.whole_fee_sat(inputs)
    try:
        net_amount_sat = subtract_fee_above_dust(
            gross_sat, fee_sat, dust_sat=min_output_sat(target.script_pubkey)
        )
    except InsufficientFunds as error:
        raise OffboardLeavesDust from error
    if not inputs:
        raise OffboardLeavesDust
    return Payment(
        address=target.address,
        script_pubkey=target.script_pubkey,
        net_amount_sat=net_amount_sat,
        fee_sat=fee_sat,
        fee_rate_sat_per_kwu=terms.fee_rate.sat_per_kwu,
        deducts_fee=True,
        input_ids=input_ids,
    )


def whole_estimate(vtxos: Sequence[WalletVtxo], terms: OffboardTerms) -> OffboardEstimate:
    gross_sat = sum(vtxo.amount_sat for vtxo in vtxos)
    fee_sat = terms.whole_fee_sat(vtxos)
    return OffboardEstimate(gross_sat, fee_sat, max(0, gross_sat - fee_sat), tuple(vtxo.id for vtxo in vtxos))
