"""What both kinds of participation must obey: whole amounts, the fee, and inputs that can be spent.

Source: sheet 10 §6.7; sheet 04 §9.
"""

from collections.abc import Sequence

from barkd_py.ark.attestations import AttestedOutput
from barkd_py.ark.fees import FeeOverflow, FeeSchedule, VtxoFeeInfo, refresh_fee
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.units import DUST_SAT, format_btc
from barkd_py.devnet.ark_server.failures import BadArgument, Failure, UnusableInputs
from barkd_py.devnet.ark_server.store import vtxo_rows
from barkd_py.devnet.ark_server.store.vtxo_rows import VtxoRow


def check_amounts(inputs: Sequence[Vtxo], outputs: Sequence[AttestedOutput]) -> None:
    """Raises BadArgument."""
    if len({vtxo.id for vtxo in inputs}) != len(inputs):
        raise BadArgument("duplicate input")
    total_in_sat = sum(vtxo.amount_sat for vtxo in inputs)
    total_out_sat = 0
    for output in outputs:
        if output.amount_sat < DUST_SAT:
            raise BadArgument(f"vtxo amount must be at least {format_btc(DUST_SAT)}")
        if not isinstance(output.policy, PubkeyPolicy):
            raise BadArgument(f"invalid vtxo policy: {output.policy.kind}")
        total_out_sat += output.amount_sat
        if total_out_sat > total_in_sat:
            raise BadArgument(
                f"total output amount ({format_btc(total_out_sat)}) "
                f"exceeds total input amount ({format_btc(total_in_sat)})"
            )


def check_fee(
    fees: FeeSchedule, inputs: Sequence[Vtxo], outputs: Sequence[AttestedOutput], height: int
) -> None:
    """Check that what the outputs leave covers the fee of a refresh at a height. Raises BadArgument."""
    infos = [
        VtxoFeeInfo.at_tip(amount_sat=vtxo.amount_sat, expiry_height=vtxo.expiry_height, tip_height=height)
        for vtxo in inputs
    ]
    try:
        expected_sat = refresh_fee(fees, infos)
    except FeeOverflow as error:
        raise Failure("fee overflowed") from error
    paid_sat = sum(vtxo.amount_sat for vtxo in inputs) - sum(output.amount_sat for output in outputs)
    if paid_sat < expected_sat:
        raise BadArgument(
            f"insufficient refresh fee: expected at least {format_btc(expected_sat)}, "
            f"got {format_btc(paid_sat)}"
        )


def check_all_spendable(rows: Sequence[VtxoRow], *, tip_height: int, text: str) -> None:
    """Raises UnusableInputs, which names all inputs that cannot be spent, with the text as its cause."""
    unusable = [row.id for row in rows if not _is_spendable(row, tip_height)]
    if unusable:
        raise UnusableInputs(unusable) from BadArgument(text)


def _is_spendable(row: VtxoRow, tip_height: int) -> bool:
    try:
        vtxo_rows.check_spendable(row, tip_height=tip_height)
    except BadArgument:
        return False
    return True
