"""What a board costs, and what is signed for it. Pure.

Source: sheet 03 §1.
"""

from dataclasses import dataclass

from barkd_py.ark.board import BoardTemplate
from barkd_py.ark.fees import AmountAfterFeeIsDust, board_fee, subtract_fee
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Tx
from barkd_py.bitcoin.units import DUST_SAT
from barkd_py.server_rpc.api import MAX_BOARD_FUNDING_INPUTS
from barkd_py.wallet.boards.errors import (
    BoardBelowMinimum,
    BoardTooLarge,
    BoardTooSmall,
    TooManyBoardInputs,
    WrongFundingOutput,
)


@dataclass(frozen=True, slots=True)
class BoardFeeEstimate:
    gross_amount_sat: int
    fee_sat: int
    net_amount_sat: int
    vtxos_spent: tuple[VtxoId, ...] = ()


def estimate_fee(info: ArkInfo, amount_sat: int) -> BoardFeeEstimate:
    """Raises BoardBelowMinimum, BoardTooLarge, FeeExceedsAmount, FeeOverflow."""
    if amount_sat < info.min_board_amount_sat:
        raise BoardBelowMinimum(amount_sat, info.min_board_amount_sat)
    if info.max_vtxo_amount_sat is not None and amount_sat > info.max_vtxo_amount_sat:
        raise BoardTooLarge(amount_sat, info.max_vtxo_amount_sat)
    fee_sat = board_fee(info.fees, amount_sat)
    return BoardFeeEstimate(amount_sat, fee_sat, subtract_fee(amount_sat, fee_sat))


def plan_template(
    funding_tx: Tx, script_pubkey: bytes, user_pubkey: PublicKey, info: ArkInfo, expiry_height: int
) -> BoardTemplate:
    """What is to be signed for this funding transaction, after every check that we can make.

    Raises TooManyBoardInputs, WrongFundingOutput, BoardTooSmall, FeeExceedsAmount, AmountAfterFeeIsDust,
    FeeOverflow.
    """
    if len(funding_tx.inputs) > MAX_BOARD_FUNDING_INPUTS:
        raise TooManyBoardInputs(len(funding_tx.inputs))
    vouts = [vout for vout, out in enumerate(funding_tx.outputs) if out.script_pubkey == script_pubkey]
    if not vouts:
        raise WrongFundingOutput("PSBT output does not pay to the expected board funding address")
    if len(vouts) > 1:
        raise WrongFundingOutput("PSBT pays to the board funding address more than once")
    (vout,) = vouts
    amount_sat = funding_tx.outputs[vout].value_sat
    if amount_sat < info.min_board_amount_sat:
        raise BoardTooSmall(amount_sat, info.min_board_amount_sat)
    fee_sat = board_fee(info.fees, amount_sat)
    if subtract_fee(amount_sat, fee_sat) < DUST_SAT:  # upstream takes it, and could never exit it
        raise AmountAfterFeeIsDust(amount_sat=amount_sat, fee_sat=fee_sat, dust_sat=DUST_SAT)
    return BoardTemplate(
        user_pubkey=user_pubkey,
        server_pubkey=info.server_pubkey,
        amount_sat=amount_sat,
        fee_sat=fee_sat,
        expiry_height=expiry_height,
        exit_delta=info.vtxo_exit_delta,
        utxo=funding_tx.outpoint(vout),
    )
