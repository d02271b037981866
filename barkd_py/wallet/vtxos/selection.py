"""Which VTXOs to spend, and which to refresh. Pure: candidates in, choices out.

Payments take the VTXOs that expire first, so that money does not age; at the same expiry the deepest first,
because depth is what makes an exit dear, and only a refresh brings it back. Where the server caps the number
of inputs, larger ones replace the smallest chosen so far.

The fee of a payment depends on the VTXOs that pay it, and they depend on the fee: the choice is extended
until it covers both (`select_with_fee`). It only grows, so that ends.

Source: protocol sheet 03 §7; sheet 05 §6.4.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from barkd_py.ark.fees import VtxoFeeInfo
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.units import DUST_SAT, FeeRate, format_btc
from barkd_py.errors import BarkdError, InsufficientFunds

MAX_FEE_ITERATIONS = 100

# A VTXO this many blocks from its refresh threshold is refreshed along with others that must be.
SOON_BLOCKS = 28

# Exits should cost less than this part of a VTXO; below, it is better merged into others.
EXIT_COST_MULTIPLE = 2


class Candidate(Protocol):
    """What a choice depends on. policy_kind: name of the policy; only `pubkey` can pay."""

    @property
    def id(self) -> VtxoId: ...

    @property
    def amount_sat(self) -> int: ...

    @property
    def expiry_height(self) -> int: ...

    @property
    def exit_depth(self) -> int: ...

    @property
    def policy_kind(self) -> str: ...


class RefreshCandidate(Candidate, Protocol):
    """exit_tx_weight_wu: total weight of the VTXO's exit transactions."""

    @property
    def exit_tx_weight_wu(self) -> int: ...


V = TypeVar("V", bound=Candidate)
R = TypeVar("R", bound=RefreshCandidate)


class NotEnoughVtxos(InsufficientFunds):
    """The candidates do not add up to what is needed.

    max_inputs: the cap, if it is what stands in the way; available_sat is then what the largest inputs hold.
    """

    def __init__(self, *, needed_sat: int, available_sat: int, max_inputs: int | None = None) -> None:
        needed, available = format_btc(needed_sat), format_btc(available_sat)
        reason = (
            f"{available} is available"
            if max_inputs is None
            else f"the best {max_inputs} inputs only amount to {available}"
        )
        super().__init__(f"Insufficient money available. Needed {needed} but {reason}")
        self.needed_sat = needed_sat
        self.available_sat = available_sat
        self.max_inputs = max_inputs


class CannotCoverPaymentAndFees(InsufficientFunds):
    """No choice covers payment and fees; the cause says what is missing."""

    def __init__(self) -> None:
        super().__init__("Could not find enough suitable VTXOs to cover payment + fees")


class FeeDidNotConverge(BarkdError):
    def __init__(self) -> None:
        super().__init__("Fee calculation did not converge after maximum iterations")


@dataclass(frozen=True, slots=True)
class SelectionLimits:
    """What a candidate must be, and how many may be taken; None is no limit.

    max_exit_depth: the depth at which the server refuses inputs. expires_after_height: usually the tip.
    exclude: ids that the server blamed, or that are spoken for.
    """

    max_exit_depth: int | None = None
    expires_after_height: int | None = None
    max_inputs: int | None = None
    exclude: Collection[VtxoId] = frozenset()

    def allows(self, vtxo: Candidate) -> bool:
        # Recovery may leave HTLC VTXOs spendable; the server refuses them as inputs of payments.
        return (
            vtxo.policy_kind == PubkeyPolicy.KIND
            and vtxo.id not in self.exclude
            and (self.max_exit_depth is None or vtxo.exit_depth < self.max_exit_depth)
            and (self.expires_after_height is None or vtxo.expiry_height > self.expires_after_height)
        )


NO_LIMITS = SelectionLimits()


@dataclass(frozen=True, slots=True)
class FeeSelection(Generic[V]):
    """vtxos: in spending order; together they hold total_sat, at least the amount and fee_sat."""

    vtxos: tuple[V, ...]
    total_sat: int
    fee_sat: int


class _Scan(Generic[V]):
    """One pass over the candidates in spending order. It can be continued to a higher target."""

    def __init__(self, candidates: Iterable[V], limits: SelectionLimits) -> None:
        allowed = (vtxo for vtxo in candidates if limits.allows(vtxo))
        self._waiting = sorted(allowed, key=lambda v: (v.expiry_height, -v.exit_depth, -v.amount_sat))
        self._next = 0
        self._max_inputs = limits.max_inputs
        self._chosen: list[V] = []  # always in spending order: a later candidate goes to the end
        self.total_sat = 0

    @property
    def chosen(self) -> tuple[V, ...]:
        return tuple(self._chosen)

    def cover(self, target_sat: int) -> None:
        """Extend the choice until it holds the target. Raises NotEnoughVtxos."""
        while self.total_sat < target_sat:
            if self._next == len(self._waiting):
                capped = self._max_inputs is not None and len(self._waiting) > self._max_inputs
                raise NotEnoughVtxos(
                    needed_sat=target_sat,
                    available_sat=self.total_sat,
                    max_inputs=self._max_inputs if capped else None,
                )
            self._consider(self._waiting[self._next])
            self._next += 1

    def _consider(self, vtxo: V) -> None:
        if self._max_inputs is None or len(self._chosen) < self._max_inputs:
            self._chosen.append(vtxo)
            self.total_sat += vtxo.amount_sat
            return
        if not self._chosen:
            return
        # The smallest chosen one, the later of equals.
        smallest = min(reversed(range(len(self._chosen))), key=lambda i: self._chosen[i].amount_sat)
        if vtxo.amount_sat > self._chosen[smallest].amount_sat:
            self.total_sat += vtxo.amount_sat - self._chosen.pop(smallest).amount_sat
            self._chosen.append(vtxo)


def select(candidates: Iterable[V], target_sat: int, limits: SelectionLimits = NO_LIMITS) -> tuple[V, ...]:
    """VTXOs that hold at least target_sat, in spending order; none for a target of 0. Raises NotEnoughVtxos.

    candidates: spendable ones, in the store's order (which decides between equals).
    """
    scan = _Scan(candidates, limits)
    scan.cover(target_sat)
    return scan.chosen


def select_with_fee(
    candidates: Iterable[V],
    amount_sat: int,
    fee: Callable[[int, Sequence[VtxoFeeInfo]], int],
    *,
    tip_height: int,
    limits: SelectionLimits = NO_LIMITS,
) -> FeeSelection[V]:
    """VTXOs that hold the amount and the fee of spending them.

    fee: of an amount paid with such VTXOs. Raises CannotCoverPaymentAndFees or FeeDidNotConverge, and what
    the fee function raises.
    """
    scan = _Scan(candidates, limits)
    fee_sat = 0
    for _ in range(MAX_FEE_ITERATIONS):
        try:
            scan.cover(amount_sat + fee_sat)
        except NotEnoughVtxos as error:
            raise CannotCoverPaymentAndFees from error
        chosen = scan.chosen
        fee_sat = fee(amount_sat, fee_infos(chosen, tip_height))
        if amount_sat + fee_sat <= scan.total_sat:
            return FeeSelection(chosen, scan.total_sat, fee_sat)
    raise FeeDidNotConverge


def fee_infos(vtxos: Iterable[Candidate], tip_height: int) -> list[VtxoFeeInfo]:
    """What the fees of VTXOs depend on, at a tip."""
    return [
        VtxoFeeInfo.at_tip(
            amount_sat=vtxo.amount_sat, expiry_height=vtxo.expiry_height, tip_height=tip_height
        )
        for vtxo in vtxos
    ]


# --- refresh


@dataclass(frozen=True, slots=True)
class RefreshRules:
    """When a VTXO must or should be refreshed.

    refresh_threshold: blocks before expiry (config `vtxo_refresh_expiry_threshold`). max_exit_depth: the
    server's, None if it is not known. fee_rate: the fast one of now, for what an exit would cost.
    """

    tip_height: int
    refresh_threshold: int
    max_exit_depth: int | None
    fee_rate: FeeRate

    def must(self, vtxo: RefreshCandidate) -> bool:
        """Expired, about to expire, or too deep to be spent."""
        return (
            vtxo.expiry_height <= self.tip_height
            or self._is_near_expiry(vtxo, self.refresh_threshold)
            or (self.max_exit_depth is not None and vtxo.exit_depth >= self.max_exit_depth)
        )

    @property
    def must_before_height(self) -> int:
        """What expires below this height must be refreshed."""
        return self.tip_height + max(1, self.refresh_threshold) if self.tip_height > 0 else 1

    def should(self, vtxo: RefreshCandidate) -> bool:
        """Worth taking along: soon due, half way to the greatest depth, or too small for an exit."""
        exit_cost_sat = self.fee_rate.fee_wu(vtxo.exit_tx_weight_wu)
        return (
            (self.max_exit_depth is not None and vtxo.exit_depth >= self.max_exit_depth // 2)
            or self._is_near_expiry(vtxo, self.refresh_threshold + SOON_BLOCKS)
            or vtxo.amount_sat < EXIT_COST_MULTIPLE * exit_cost_sat
            or vtxo.amount_sat < DUST_SAT
        )

    def _is_near_expiry(self, vtxo: RefreshCandidate, threshold: int) -> bool:
        return self.tip_height > max(0, vtxo.expiry_height - threshold)


def select_for_maintenance(
    candidates: Iterable[R], rules: RefreshRules, *, exclude: Collection[VtxoId] = frozenset()
) -> tuple[R, ...]:
    """All spendable VTXOs that must or should be refreshed, if any of them must; else none."""
    allowed = [vtxo for vtxo in candidates if vtxo.id not in exclude]
    if not any(rules.must(vtxo) for vtxo in allowed):
        return ()
    return tuple(vtxo for vtxo in allowed if rules.must(vtxo) or rules.should(vtxo))
