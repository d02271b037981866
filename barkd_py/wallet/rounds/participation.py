"""What a refresh takes and gives: all inputs become one VTXO, less the fee. Pure.

Source: sheet 04 §12, §13.
"""

from collections.abc import Collection, Sequence

from barkd_py.ark.fees import refresh_fee, subtract_fee_above_dust
from barkd_py.ark.info import ArkInfo
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import DUST_SAT, format_btc
from barkd_py.errors import BarkdError, InsufficientFunds
from barkd_py.wallet.movements import MovementUpdate
from barkd_py.wallet.vtxo_states import Locked, MovementHolder, Spendable, WalletVtxo
from barkd_py.wallet.vtxos.selection import Candidate, fee_infos

CLIENT_EXPIRY_BUFFER_BLOCKS = 6
"""How much less than the announced lifetime a round may give: our tip may be ahead of the server's."""

MAX_RECOVERED_FEE_PERCENT = 5
"""What a participation may have cost that only the server tells us of."""


class DuplicateInput(BarkdError):
    def __init__(self, vtxo_id: VtxoId) -> None:
        super().__init__(f"duplicate VTXO id: {vtxo_id}")


class UnknownInput(BarkdError):
    """Not a `NotFound`: clients of a refresh know it as a failed operation."""

    def __init__(self, vtxo_id: VtxoId) -> None:
        super().__init__(f"vtxo with id {vtxo_id} not found")


class InputNotSpendable(BarkdError):
    def __init__(self, vtxo: WalletVtxo) -> None:
        super().__init__(f"input VTXO {vtxo.id} is not spendable (state: {vtxo.state.kind})")


class TooLittleToRefresh(InsufficientFunds):
    def __init__(self) -> None:
        super().__init__(f"vtxo amount must be at least {format_btc(DUST_SAT)} to participate in a round")


class TooMuchForOneVtxo(BarkdError):
    """The server gives no VTXO this large; fewer inputs at a time would do."""

    def __init__(self, amount_sat: int, max_sat: int) -> None:
        super().__init__(
            f"output of {format_btc(amount_sat)} exceeds maximum vtxo amount of {format_btc(max_sat)}"
        )


def output_amount_sat(inputs: Sequence[Candidate], info: ArkInfo, height: int) -> int:
    """What is left of the inputs in a round at this height.

    Raises TooLittleToRefresh, FeeExceedsAmount, AmountAfterFeeIsDust, TooMuchForOneVtxo, FeeOverflow.
    """
    total_sat = sum(vtxo.amount_sat for vtxo in inputs)
    if total_sat < DUST_SAT:
        raise TooLittleToRefresh
    fee_sat = refresh_fee(info.fees, fee_infos(inputs, height))
    amount_sat = subtract_fee_above_dust(total_sat, fee_sat, dust_sat=DUST_SAT)
    if info.max_vtxo_amount_sat is not None and amount_sat > info.max_vtxo_amount_sat:
        raise TooMuchForOneVtxo(amount_sat, info.max_vtxo_amount_sat)
    return amount_sat


def cut_to_size(inputs: Sequence[WalletVtxo], max_amount_sat: int | None) -> list[list[WalletVtxo]]:
    """The inputs in groups, none of which holds more than the server puts into one VTXO.

    One that is larger by itself is left out: no round takes it.
    """
    if max_amount_sat is None:
        return [list(inputs)] if inputs else []
    groups: list[list[WalletVtxo]] = []
    room_sat = 0
    for vtxo in inputs:
        if vtxo.amount_sat > max_amount_sat:
            continue
        if not groups or vtxo.amount_sat > room_sat:
            groups.append([])
            room_sat = max_amount_sat
        groups[-1].append(vtxo)
        room_sat -= vtxo.amount_sat
    return groups


def available(inputs: Sequence[WalletVtxo], movement_id: int | None) -> list[WalletVtxo]:
    """Those that nobody else has: spendable, or locked for this very movement."""
    ours = None if movement_id is None else Locked(MovementHolder(movement_id))
    return [vtxo for vtxo in inputs if vtxo.state == Spendable() or vtxo.state == ours]


def movement_update(inputs: Sequence[WalletVtxo], amount_sat: int) -> MovementUpdate:
    """What the history says of a refresh. It can be repeated."""
    fee_sat = sum(vtxo.amount_sat for vtxo in inputs) - amount_sat
    return MovementUpdate(
        intended_balance_sat=0,
        effective_balance_sat=-fee_sat,
        offchain_fee_sat=fee_sat,
        replace_input_vtxos=tuple(vtxo.id for vtxo in inputs),
    )


def has_counterparty_risk(vtxo: Vtxo, own_keys: Collection[PublicKey]) -> bool:
    """Whether somebody else could undo the VTXO together with the server, or we could not claim it.

    So it is if anybody but us signed a payment on the way to it.
    """
    if vtxo.user_pubkey not in own_keys:
        return True
    return any(not own_keys_of.intersection(own_keys) for own_keys_of in map(set, vtxo.past_arkoor_pubkeys))
