"""The machine of an exit: which state follows which, given what the chain looks like.

An exit transaction pays no fee and can be relayed only together with a child that spends its fee anchor; the
rules of relay (TRUC) allow one unconfirmed parent. So the chain from the anchor to the VTXO is confirmed one
transaction after the other, and at any time one of them is the *frontier*: the first that is not confirmed.
Everything before it is confirmed, everything after it waits.

`step` takes the present state and an `ExitView`, all of which was read at one tip, and returns the next
state. It has no memory beside the state and makes no calls; `TABLE` holds every transition there is:

    start ──▶ processing ──▶ awaiting-delta ──▶ claimable ◀──▶ claim-in-progress ──▶ claimed
      │         │  │  ▲            │                │                  │                ▲
      │         │  │  └────────────┴── reorg ───────┴──────────────────┘                │
      │         │  │                                └── spent and confirmed ────────────┘
      │         │  └── an input was spent for good by something else ──▶ vtxo-swept
      ├─────────┴── the wallet has spent the VTXO off-chain ──▶ vtxo-already-spent
      └─────────┴── the user calls it off ──▶ canceled          (`cancel` in `service`, not a step)

Steps are repeated with the same view until nothing changes, so one look at the chain brings an exit as far as
it can get. An exit goes back to `processing` whenever its last transaction is not confirmed any more, from
every live state; upstream forgets this after `claimable`. Finished exits stay as they are.

`claimed` means that the output is spent, whoever did it: that is the contract. What the movement says depends
on who it was (`rows`).

Source: sheet 06 §2; §9 and §10 for the departures.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import OutPoint, Txid
from barkd_py.bitcoin.units import DUST_SAT, BlockRef
from barkd_py.chain.source import Confirmed, Mempool, NotFound, PackageFee, Spend, TxStatus
from barkd_py.wallet.exits.errors import ClaimMissingSignableClause, DustLimit, ExitError
from barkd_py.wallet.exits.states import (
    AwaitingConfirmation,
    AwaitingCpfpBroadcast,
    AwaitingDelta,
    AwaitingInputConfirmation,
    BlockOrigin,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitState,
    ExitTx,
    ExitTxOrigin,
    ExitTxStatus,
    MempoolOrigin,
    Processing,
    Start,
    TxConfirmed,
    VerifyInputs,
    VtxoAlreadySpent,
    VtxoSwept,
    WalletOrigin,
)

MAX_STEPS = 100
"""A stop in case the machine runs in a circle, which it must not."""

SPEND_CONFIRMATIONS = 6
"""A foreign spend of an output on the way is final if its block is deeper than this below the tip."""


# --- the view

_NOT_FOUND = NotFound()


@dataclass(frozen=True, slots=True)
class ChildView:
    """The child of an exit transaction: the one that spends its anchor, or else the one that we keep.

    is_ours: our on-chain wallet made it. fee: of both, while unconfirmed and known.
    """

    txid: Txid
    is_ours: bool
    status: TxStatus
    fee: PackageFee | None = None


@dataclass(frozen=True, slots=True)
class TxView:
    """One exit transaction.

    unconfirmed_inputs: the transactions that it spends from and that are not in a block. If there are any,
    the rest was not looked at.
    conflict: the output that it spends is spent for good by something else.
    contested: it is spent by something else in a young block; nothing to do but wait.
    """

    txid: Txid
    unconfirmed_inputs: frozenset[Txid] = frozenset()
    status: TxStatus = _NOT_FOUND
    child: ChildView | None = None
    conflict: OutPoint | None = None
    contested: bool = False


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """When the output may be claimed. delay: blocks after its confirmation. min_height: and not before.

    script: of the clause; a claim of ours shows it. None if that does not matter.
    """

    delay: int
    min_height: int = 0
    script: bytes | None = None

    def claimable_height(self, confirmed_height: int) -> int:
        return max(confirmed_height + self.delay, self.min_height)


@dataclass(frozen=True, slots=True)
class ExitView:
    """All there is to know about one exit at one tip.

    transactions: in order. terms: None if the wallet can sign none of the VTXO's clauses.
    is_spent_offchain: the wallet counts the VTXO as spent.
    matured_at: the block at the claimable height; None unless all is confirmed and the tip is that high.
    spend: what spends the VTXO's output; looked up only if it has matured.
    is_taken: somebody else's clause, or key, has spent it in a block.
    is_claim_alive: a claim of ours that nobody sees was broadcast again, and not refused.
    """

    vtxo_id: VtxoId
    amount_sat: int
    tip: BlockRef
    transactions: tuple[TxView, ...]
    terms: ClaimTerms | None
    is_spent_offchain: bool = False
    matured_at: BlockRef | None = None
    spend: Spend | None = None
    is_taken: bool = False
    is_claim_alive: bool = False

    @property
    def frontier(self) -> TxView | None:
        """The first transaction that is not confirmed."""
        return next((tx for tx in self.transactions if not isinstance(tx.status, Confirmed)), None)

    @property
    def confirmed_block(self) -> BlockRef | None:
        """The block of the last transaction, if all are confirmed."""
        if self.frontier is not None:
            return None
        blocks = [tx.status.block for tx in self.transactions if isinstance(tx.status, Confirmed)]
        return max(blocks)

    @property
    def claimable_height(self) -> int | None:
        """From when on it may be claimed, if all is confirmed and it can be claimed at all."""
        block = self.confirmed_block
        if block is None or self.terms is None:
            return None
        return self.terms.claimable_height(block.height)


# --- status of one transaction


def origin_of(child: ChildView) -> ExitTxOrigin:
    match child.status:
        case Confirmed(block):
            return WalletOrigin(block) if child.is_ours else BlockOrigin(block)
        case _:
            return WalletOrigin() if child.is_ours else MempoolOrigin()


def status_of(tx: TxView) -> ExitTxStatus:
    """The status follows from the view alone; what it was before does not matter."""
    match tx:
        case TxView(status=Confirmed(block), child=None):
            return TxConfirmed(None, block, BlockOrigin(block))
        case TxView(status=Confirmed(block), child=ChildView() as child):
            return TxConfirmed(child.txid, block, origin_of(child))
        case TxView(unconfirmed_inputs=txids) if txids:
            return AwaitingInputConfirmation(txids)
        case TxView(child=None):
            return AwaitingCpfpBroadcast()
        case TxView(child=ChildView() as child):
            in_mempool = isinstance(tx.status, Mempool)
            return AwaitingConfirmation(child.txid, origin_of(child), in_mempool, child.fee)
        case _:
            raise AssertionError(tx)


# --- states


@dataclass(frozen=True, slots=True)
class Step:
    """error: what keeps the exit where it is, if that is not simply time."""

    state: ExitState
    error: ExitError | None = None


def _unverified(view: ExitView) -> Processing:
    return Processing(view.tip.height, tuple(ExitTx(tx.txid, VerifyInputs()) for tx in view.transactions))


def _step_start(state: Start, view: ExitView) -> Step:
    if view.is_spent_offchain:
        return Step(VtxoAlreadySpent(view.tip.height))
    if view.amount_sat < DUST_SAT:
        return Step(state, DustLimit(view.vtxo_id, view.amount_sat))
    return Step(_unverified(view))


def _step_processing(state: Processing, view: ExitView) -> Step:
    """Follow the transactions, until all are confirmed, or one never can be."""
    if view.is_spent_offchain:
        return Step(VtxoAlreadySpent(view.tip.height))
    frontier = view.frontier
    if frontier is not None and frontier.conflict is not None:
        return Step(VtxoSwept(view.tip.height, (frontier.conflict,)))
    if frontier is None and view.terms is not None:
        return Step(_awaiting(view))
    transactions = tuple(ExitTx(tx.txid, status_of(tx)) for tx in view.transactions)
    error = ClaimMissingSignableClause(view.vtxo_id) if frontier is None else None
    if transactions == state.transactions:
        return Step(state, error)
    return Step(Processing(view.tip.height, transactions), error)


def _awaiting(view: ExitView) -> AwaitingDelta:
    block, height = view.confirmed_block, view.claimable_height
    assert block is not None, "all is confirmed"
    assert height is not None, "it can be claimed"
    return AwaitingDelta(view.tip.height, block, height)


def _foundation(view: ExitView) -> ExitState | None:
    """The state to fall back to, if a reorg took away what an exit that waits or may be claimed stands on."""
    if view.confirmed_block is None:
        return _unverified(view)
    if view.matured_at is None:
        return _awaiting(view)
    return None


def _step_awaiting_delta(state: AwaitingDelta, view: ExitView) -> Step:
    """Wait for the delay, counted from where the last transaction is now."""
    back = _foundation(view)
    if isinstance(back, AwaitingDelta):
        unchanged = (back.confirmed_block, back.claimable_height) == (
            state.confirmed_block,
            state.claimable_height,
        )
        return Step(state if unchanged else back)
    if back is not None:
        return Step(back)
    assert view.matured_at is not None
    return Step(Claimable(view.tip.height, view.matured_at))


def _step_claimable(state: Claimable, view: ExitView) -> Step:
    """Look for whoever spends the output."""
    if (back := _foundation(view)) is not None:
        return Step(back)
    assert view.matured_at is not None
    if view.matured_at != state.claimable_since:
        return Step(Claimable(view.tip.height, view.matured_at))
    match view.spend:
        case Spend(txid, Confirmed(block)):
            return Step(Claimed(view.tip.height, txid, block))
        case Spend(txid, Mempool()):
            return Step(ClaimInProgress(view.tip.height, state.claimable_since, txid))
        case _:
            return Step(replace(state, last_scanned_block=view.tip))


def _step_claim_in_progress(state: ClaimInProgress, view: ExitView) -> Step:
    """Follow the claim; another one may replace it, or it may be gone."""
    if (back := _foundation(view)) is not None:
        return Step(back)
    match view.spend:
        case Spend(txid, Confirmed(block)):
            return Step(Claimed(view.tip.height, txid, block))
        case Spend(txid, Mempool()) if txid == state.claim_txid:
            return Step(state)
        case Spend(txid, Mempool()):
            return Step(ClaimInProgress(view.tip.height, state.claimable_since, txid))
        case _:
            if view.is_claim_alive:
                return Step(state)
            return Step(Claimable(view.tip.height, state.claimable_since))


def _can_judge(state: ExitState, view: ExitView) -> bool:
    """Whether an exit that waits for its claim, or has one, still has a clause that the wallet can sign."""
    waits = isinstance(state, AwaitingDelta | Claimable | ClaimInProgress)
    return not waits or view.confirmed_block is None or view.terms is not None


def _no_clause(state: ExitState, view: ExitView) -> Step:
    return Step(state, ClaimMissingSignableClause(view.vtxo_id))


@dataclass(frozen=True, slots=True)
class Row:
    """One state's row: how it is left, and where to."""

    step: Callable[[Any, ExitView], Step]
    to: frozenset[type]


TABLE: Mapping[type, Row] = MappingProxyType(
    {
        Start: Row(_step_start, frozenset({Processing, VtxoAlreadySpent, Canceled})),
        Processing: Row(
            _step_processing, frozenset({Processing, AwaitingDelta, VtxoAlreadySpent, VtxoSwept, Canceled})
        ),
        AwaitingDelta: Row(_step_awaiting_delta, frozenset({AwaitingDelta, Processing, Claimable})),
        Claimable: Row(
            _step_claimable, frozenset({Claimable, AwaitingDelta, Processing, ClaimInProgress, Claimed})
        ),
        ClaimInProgress: Row(
            _step_claim_in_progress,
            frozenset({ClaimInProgress, Claimable, AwaitingDelta, Processing, Claimed}),
        ),
        Claimed: Row(lambda state, _view: Step(state), frozenset()),
        VtxoAlreadySpent: Row(lambda state, _view: Step(state), frozenset()),
        VtxoSwept: Row(lambda state, _view: Step(state), frozenset()),
        Canceled: Row(lambda state, _view: Step(state), frozenset()),
    }
)
"""Every state, how it is left by a step, and which states may follow it."""


def step(state: ExitState, view: ExitView) -> Step:
    """The next state; the same object if nothing changes."""
    row = TABLE[type(state)]
    taken = row.step(state, view) if _can_judge(state, view) else _no_clause(state, view)
    assert taken.state == state or type(taken.state) in row.to, f"{state} -> {taken.state}"
    return taken


@dataclass(frozen=True, slots=True)
class Advance:
    """passed: the states that were left, oldest first; without those that only noted the last scan."""

    state: ExitState
    passed: tuple[ExitState, ...]
    error: ExitError | None


def advance(state: ExitState, view: ExitView) -> Advance:
    """Repeat `step` until nothing changes."""
    passed: list[ExitState] = []
    for _ in range(MAX_STEPS):
        taken = step(state, view)
        if taken.state == state:
            return Advance(state, tuple(passed), taken.error)
        if not _is_scan_note(state, taken.state):
            passed.append(state)
        state = taken.state
    raise AssertionError("an exit runs in a circle")


def _is_scan_note(before: ExitState, after: ExitState) -> bool:
    """Whether only the last scanned block differs.

    Upstream adds to the history with every block for as long as an exit may be claimed.
    """
    return (
        isinstance(before, Claimable)
        and isinstance(after, Claimable)
        and replace(before, last_scanned_block=None, tip_height=0)
        == replace(after, last_scanned_block=None, tip_height=0)
    )


def cancel(state: ExitState, tip: BlockRef) -> Canceled:
    """What a canceled exit becomes. The caller has made sure that it may be."""
    assert Canceled in TABLE[type(state)].to, f"{state} cannot be canceled"
    return Canceled(tip.height)
