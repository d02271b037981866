"""What the Ark server charges, and the arithmetic that both sides must agree on to the satoshi.

A fee has up to three parts: a base, a share of the amount in parts per million (ppm), and for payments on
chain the weight of the output. Where VTXOs are consumed, their ppm depends on how far they are from expiry: a
table of thresholds sorts them into brackets, and of an amount that only uses part of them the cheapest
brackets are charged first.

The server runs on 64-bit integers: where one of its steps would overflow there is no fee at all, and so we
raise `FeeOverflow` at the same places. Only products of amount and ppm, and their sum, are exact; they are
rounded up once, at the end.

Source: protocol sheet 05 §6, sheet 08 §4.1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from barkd_py.bitcoin.units import FeeRate, format_btc
from barkd_py.errors import BarkdError, InsufficientFunds, ProtocolViolation

U64_MAX = 2**64 - 1
U32_MAX = 2**32 - 1
PPM = 1_000_000


class FeeOverflow(BarkdError):
    """No fee can be computed: a step leaves the 64 bits that the server computes with."""

    def __init__(self) -> None:
        super().__init__("fee overflowed")


class FeeExceedsAmount(InsufficientFunds):
    """Nothing would be left of the amount, or less than nothing."""

    def __init__(self, *, amount_sat: int, fee_sat: int) -> None:
        super().__init__(f"Fee ({format_btc(fee_sat)}) exceeds amount ({format_btc(amount_sat)})")
        self.amount_sat = amount_sat
        self.fee_sat = fee_sat


class AmountAfterFeeIsDust(InsufficientFunds):
    """What is left of the amount is too small for an output."""

    def __init__(self, *, amount_sat: int, fee_sat: int, dust_sat: int) -> None:
        super().__init__(
            f"Amount after fee ({format_btc(amount_sat - fee_sat)}) is below dust limit"
            f" ({format_btc(dust_sat)}). Amount: {format_btc(amount_sat)}, Fee: {format_btc(fee_sat)}"
        )
        self.amount_sat = amount_sat
        self.fee_sat = fee_sat
        self.dust_sat = dust_sat


class FeeScheduleInvalid(ProtocolViolation):
    """The server's fee table is not sorted, so brackets would be ambiguous.

    table: name of the table. previous, current: the two neighbouring values in the wrong order.
    """

    def __init__(self, table: str, what: str, *, previous: int, current: int) -> None:
        super().__init__(f"{table} ppm expiry table {what}. {previous} is higher than {current}.")
        self.table = table
        self.previous = previous
        self.current = current


# --- the schedule


@dataclass(frozen=True, slots=True)
class PpmExpiryFeeEntry:
    """VTXOs with at least this many blocks to expiry pay this rate (until the next entry's threshold)."""

    expiry_blocks_threshold: int
    ppm: int


@dataclass(frozen=True, slots=True)
class BoardFees:
    min_fee_sat: int
    base_fee_sat: int
    ppm: int


@dataclass(frozen=True, slots=True)
class OffboardFees:
    """fixed_additional_vb: what the server charges on top of the output script's length, in vbytes."""

    base_fee_sat: int
    fixed_additional_vb: int
    ppm_expiry_table: tuple[PpmExpiryFeeEntry, ...]


@dataclass(frozen=True, slots=True)
class RefreshFees:
    base_fee_sat: int
    ppm_expiry_table: tuple[PpmExpiryFeeEntry, ...]


@dataclass(frozen=True, slots=True)
class LightningReceiveFees:
    base_fee_sat: int
    ppm: int


@dataclass(frozen=True, slots=True)
class LightningSendFees:
    min_fee_sat: int
    base_fee_sat: int
    ppm_expiry_table: tuple[PpmExpiryFeeEntry, ...]


@dataclass(frozen=True, slots=True)
class FeeSchedule:
    board: BoardFees
    offboard: OffboardFees
    refresh: RefreshFees
    lightning_receive: LightningReceiveFees
    lightning_send: LightningSendFees


def validate_schedule(schedule: FeeSchedule) -> None:
    """Check that thresholds and rates never fall along a table. Raises FeeScheduleInvalid.

    Equal neighbours are fine (the later entry wins), and so are empty tables (nothing is charged).
    """
    tables = (
        ("lightning_send", schedule.lightning_send.ppm_expiry_table),
        ("offboard", schedule.offboard.ppm_expiry_table),
        ("refresh", schedule.refresh.ppm_expiry_table),
    )
    for name, table in tables:
        for previous, current in pairwise(table):
            if previous.expiry_blocks_threshold > current.expiry_blocks_threshold:
                raise FeeScheduleInvalid(
                    name,
                    "must be sorted by expiry threshold in ascending order of expiry",
                    previous=previous.expiry_blocks_threshold,
                    current=current.expiry_blocks_threshold,
                )
            if previous.ppm > current.ppm:
                raise FeeScheduleInvalid(
                    name,
                    "fee curve must be in ascending order",
                    previous=previous.ppm,
                    current=current.ppm,
                )


# --- the formulas


@dataclass(frozen=True, slots=True)
class VtxoFeeInfo:
    """What a fee depends on in a VTXO. expiry_blocks: blocks until expiry, 0 if it expired."""

    amount_sat: int
    expiry_blocks: int

    @classmethod
    def at_tip(cls, *, amount_sat: int, expiry_height: int, tip_height: int) -> "VtxoFeeInfo":
        return cls(amount_sat, max(0, expiry_height - tip_height))

    @classmethod
    def fresh(cls, amount_sat: int) -> "VtxoFeeInfo":
        """A VTXO that never expires: the worst case, for estimates without a selection."""
        return cls(amount_sat, U32_MAX)


def board_fee(schedule: FeeSchedule, amount_sat: int) -> int:
    """Fee of boarding: the value of the exit transaction's anchor. amount_sat: the funding output.

    The server rebuilds the exit transaction from its own schedule, so this fee must match exactly.
    """
    fees = schedule.board
    return max(fees.min_fee_sat, _u64(fees.base_fee_sat + _u64(_ceil_ppm(amount_sat * fees.ppm))))


def lightning_receive_fee(schedule: FeeSchedule, amount_sat: int) -> int:
    """Fee of receiving an invoice of this amount; the receiver gets the difference."""
    fees = schedule.lightning_receive
    return _u64(fees.base_fee_sat + _u64(_ceil_ppm(amount_sat * fees.ppm)))


def lightning_send_fee(schedule: FeeSchedule, amount_sat: int, vtxos: Iterable[VtxoFeeInfo]) -> int:
    """Fee on top of a Lightning payment of amount_sat out of these VTXOs."""
    fees = schedule.lightning_send
    share = ppm_expiry_fee(fees.ppm_expiry_table, vtxos, chargeable_sat=amount_sat)
    return max(fees.min_fee_sat, _u64(fees.base_fee_sat + share))


def refresh_fee(schedule: FeeSchedule, vtxos: Iterable[VtxoFeeInfo]) -> int:
    """Fee of refreshing these VTXOs; the new VTXOs get the difference."""
    fees = schedule.refresh
    return _u64(fees.base_fee_sat + ppm_expiry_fee(fees.ppm_expiry_table, vtxos))


def offboard_fee(
    schedule: FeeSchedule,
    amount_sat: int,
    vtxos: Iterable[VtxoFeeInfo],
    *,
    script_pubkey: bytes,
    fee_rate: FeeRate,
) -> int:
    """Fee of an output on chain, paid for with these VTXOs.

    amount_sat: for whole VTXOs their sum (the fee is deducted from it); for send-onchain the amount of the
    output (the fee comes on top). fee_rate: the server's offboard rate, as the integer sat/kwu that the
    request carries. Only the length of the script counts.
    """
    fees = schedule.offboard
    weight_wu = _u64((len(script_pubkey) + fees.fixed_additional_vb) * 4)
    weight_fee_sat = _u64(weight_wu * fee_rate.sat_per_kwu + 999) // 1000
    share = ppm_expiry_fee(fees.ppm_expiry_table, vtxos, chargeable_sat=amount_sat)
    return _u64(_u64(fees.base_fee_sat + weight_fee_sat) + share)


def ppm_expiry_fee(
    table: Sequence[PpmExpiryFeeEntry], vtxos: Iterable[VtxoFeeInfo], *, chargeable_sat: int | None = None
) -> int:
    """The ppm part of a fee, by blocks to expiry. The order of the VTXOs does not matter.

    chargeable_sat: at most this much of the VTXOs' amount is charged, lowest bracket first; None: all of it.
    Source: sheet 05 §6.1.
    """
    # Bracket 0 is for VTXOs below every threshold; bracket i + 1 belongs to table entry i.
    bracket_sats = [0] * (len(table) + 1)
    for vtxo in vtxos:
        bracket = 0
        for index, entry in enumerate(table, start=1):
            if vtxo.expiry_blocks >= entry.expiry_blocks_threshold:
                bracket = index
        bracket_sats[bracket] = _u64(bracket_sats[bracket] + vtxo.amount_sat)

    remaining_sat = U64_MAX if chargeable_sat is None else chargeable_sat
    millionths = 0
    for bracket_sat, entry in zip(bracket_sats, (PpmExpiryFeeEntry(0, 0), *table), strict=True):
        charged_sat = min(bracket_sat, remaining_sat)
        remaining_sat -= charged_sat
        millionths += charged_sat * entry.ppm
    return _u64(_ceil_ppm(millionths))


def subtract_fee(amount_sat: int, fee_sat: int) -> int:
    """What is left after the fee. Raises FeeExceedsAmount if that is nothing."""
    if fee_sat >= amount_sat:
        raise FeeExceedsAmount(amount_sat=amount_sat, fee_sat=fee_sat)
    return amount_sat - fee_sat


def subtract_fee_above_dust(amount_sat: int, fee_sat: int, *, dust_sat: int) -> int:
    """What is left after the fee. Raises FeeExceedsAmount, or AmountAfterFeeIsDust below dust_sat."""
    if fee_sat > amount_sat:
        raise FeeExceedsAmount(amount_sat=amount_sat, fee_sat=fee_sat)
    if amount_sat - fee_sat < dust_sat:
        raise AmountAfterFeeIsDust(amount_sat=amount_sat, fee_sat=fee_sat, dust_sat=dust_sat)
    return amount_sat - fee_sat


def _ceil_ppm(millionths: int) -> int:
    return -(-millionths // PPM)


def _u64(value: int) -> int:
    if value > U64_MAX:
        raise FeeOverflow
    return value
