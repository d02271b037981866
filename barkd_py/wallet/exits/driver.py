"""Brings live exits forward: observe, decide, store; then pay for what waits to be broadcast.

One run is one look at the chain for all exits (`observe`), the machine's verdict on each (`machine`), and one
transaction that stores what has changed, together with its consequences: the VTXO's state and the movement.
If a transaction at a frontier has nobody who pays for it, a child is made, stored and broadcast, and a second
look tells what became of it.

Each exit transaction is paid for once, whoever needs it. The order around a child is law:

    1. the on-chain wallet stores the child, so that its coins are taken
    2. it is stored as the child of its exit transaction
    3. both are broadcast as a package

After a crash behind 1 the wallet knows a transaction that spends the anchor, and it is used instead of a new
one; behind 2 the stored child is broadcast. All children of one exit transaction spend the same anchor, so
not more than one of them can ever be confirmed, and nothing is paid twice.

A child is replaced if it pays less than the rate that is wanted now, whoever made it; without a rate given by
the user not more than once per block for our own, and never above `MAX_AUTOMATIC_FEE_RATE`. A child that the
node refuses is given up at once, and its coins are free again.

Everything here runs under the exits' lock; see `service`. Source: sheet 06 §2.4-2.8, §4.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import BlockRef, FeeRate
from barkd_py.chain.source import (
    BroadcastError,
    BroadcastErrorKind,
    ChainSource,
    Mempool,
    NotFound,
)
from barkd_py.errors import BarkdError, ChainError, StateConflict, chain_text
from barkd_py.onchain.cpfp import InsufficientConfirmedFunds, fee_anchor_of
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.claim import ClaimPaths, terms_of
from barkd_py.wallet.exits.errors import (
    ExitError,
    ExitPackageBroadcastFailure,
    InsufficientConfirmedFundsForExit,
    InternalExitError,
    TransactionRetrievalFailure,
)
from barkd_py.wallet.exits.machine import (
    Advance,
    ChildView,
    ClaimTerms,
    ExitView,
    TxView,
    advance,
    origin_of,
)
from barkd_py.wallet.exits.observe import ChainMemory, KnownChild, Observation, Subject, observe
from barkd_py.wallet.exits.states import (
    AwaitingDelta,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitState,
    ExitTxOrigin,
    Processing,
    VtxoAlreadySpent,
    VtxoSwept,
    WalletOrigin,
)
from barkd_py.wallet.movements import MovementStatus, MovementUpdate
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.exits import ExitChildRow, ExitRow
from barkd_py.wallet.store.rows import from_json, to_json
from barkd_py.wallet.vtxos import StateKind

log = logging.getLogger(__name__)

MAX_AUTOMATIC_FEE_RATE = FeeRate.from_sat_per_vb(1_000)
"""No estimator makes us pay more. Upstream follows it wherever it goes."""

_ON_CHAIN = AwaitingDelta | Claimable | ClaimInProgress | Claimed
"""The VTXO's output is in a block: it is no VTXO any more."""


@dataclass(frozen=True, slots=True)
class LiveExit:
    """An exit as it is stored."""

    row: ExitRow
    state: ExitState

    @classmethod
    def of(cls, row: ExitRow) -> "LiveExit":
        return cls(row, payloads.decode_state(row.state))


def row_after(row: ExitRow, state: ExitState, passed: Sequence[ExitState]) -> ExitRow:
    """The row with a new state. passed: the states that were left on the way, oldest first."""
    history = (
        to_json([*from_json(row.history), *map(payloads.encode_state, passed)]) if passed else row.history
    )
    return replace(row, kind=state.type, state=payloads.encode_state(state), history=history)


@dataclass(slots=True)
class _Subject:
    """What of an exit never changes. terms: None until the wallet can sign a clause."""

    vtxo: Vtxo
    transactions: tuple[Tx, ...]
    terms: ClaimTerms | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look came to. exits: by id, those that were looked at, as they are now."""

    tip: BlockRef
    exits: Mapping[VtxoId, LiveExit]
    views: Mapping[VtxoId, ExitView]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An exit transaction at a frontier, and the exits that wait for it."""

    tx: Tx
    view: TxView
    waiting: tuple[VtxoId, ...]


class ExitDriver:
    """errors: by exit, what kept it from going on when it was last tried."""

    def __init__(
        self, store: Store, chain: ChainSource, onchain: OnchainWallet | None, paths: ClaimPaths
    ) -> None:
        self.memory = ChainMemory()
        self.errors: dict[VtxoId, ExitError] = {}
        self._store = store
        self._chain = chain
        self._onchain = onchain
        self._paths = paths
        self._subjects: dict[VtxoId, _Subject] = {}
        self._children: dict[Txid, KnownChild] = {}
        self._paid_at: dict[Txid, int] = {}
        self._complained: dict[VtxoId, str] = {}

    # --- a run

    async def run(self, fee_rate: FeeRate | None = None) -> Looked:
        """Bring every live exit as far as it gets now.

        fee_rate: of children; None: the fast one. Raises TipRetrievalFailure: nothing has changed then. What
        hinders a single exit is in `errors`.
        """
        looked = await self.look()
        if self._onchain is None or not (wanted := self._wanted(looked)):
            return looked
        if await self._pay_for(self._onchain, wanted, fee_rate, looked.tip):
            errors = dict(self.errors)
            again = await self.look()
            for vtxo_id, error in errors.items():
                if vtxo_id in again.exits and vtxo_id not in self.errors:
                    self.errors[vtxo_id] = error
            return replace(again, exits={**looked.exits, **again.exits})
        return looked

    async def look(self, only: Collection[VtxoId] | None = None) -> Looked:
        """Look at the live exits (or only at these), and store what they have become; nothing is paid."""
        exits = await self._load(only)
        subjects = await self._load_subjects(exits)
        observation = await observe(
            self._chain,
            self.memory,
            [
                Subject(vtxo_id, subject.vtxo.amount_sat, subject.transactions, subject.terms)
                for vtxo_id, subject in subjects.items()
            ],
            self._children,
            self._is_ours,
        )
        views: dict[VtxoId, ExitView] = {}
        for vtxo_id, seen in observation.views.items():
            if isinstance(seen, ExitError):
                self._fail(vtxo_id, seen)
            else:
                views[vtxo_id] = seen
        try:
            await self._revive_claims(exits, views)
            changed = await self._store_advances(exits, views, observation)
        except BaseException:
            self.memory.forget()  # what was not stored must be seen again
            raise
        await self._settle_children(observation)
        self._forget_finished(changed)
        return Looked(observation.tip, {**exits, **changed}, views)

    async def _load(self, only: Collection[VtxoId] | None) -> dict[VtxoId, LiveExit]:
        async with self._store.read() as tx:
            rows = await tx.exits.list(only_live=True)
        return {row.vtxo_id: LiveExit.of(row) for row in rows if only is None or row.vtxo_id in only}

    async def _load_subjects(self, exits: Mapping[VtxoId, LiveExit]) -> dict[VtxoId, _Subject]:
        """The transactions of the exits, and the stored children of those that may need them."""
        missing = [vtxo_id for vtxo_id in exits if vtxo_id not in self._subjects]
        async with self._store.read() as tx:
            known = await tx.vtxos.known(missing)
            bodies = await tx.vtxos.bodies([vtxo_id for vtxo_id in missing if vtxo_id in known])
        for vtxo in bodies:
            self._subjects[vtxo.id] = _Subject(vtxo, vtxo.exit_transactions())
        for vtxo_id in missing:
            if vtxo_id not in known:
                self._fail(vtxo_id, InternalExitError(f"the VTXO {vtxo_id} is not in the database"))
        subjects = {vtxo_id: self._subjects[vtxo_id] for vtxo_id in exits if vtxo_id in self._subjects}
        without_terms = [subject for subject in subjects.values() if subject.terms is None]
        paths = await self._paths.find([subject.vtxo for subject in without_terms])
        for subject, path in zip(without_terms, paths, strict=True):
            subject.terms = None if path is None else terms_of(path)
        txids = {tx.txid for subject in subjects.values() for tx in subject.transactions}
        unsettled = [txid for txid in txids if txid not in self.memory.children]
        async with self._store.read() as tx:
            rows = await tx.exits.find_children(unsettled)
        self._children = {row.exit_txid: _known_child(row) for row in rows}
        return subjects

    def _is_ours(self, tx: Tx) -> bool:
        """A child that somebody else made pays somebody else."""
        onchain = self._onchain
        return onchain is not None and any(onchain.is_mine(output.script_pubkey) for output in tx.outputs)

    def _fail(self, vtxo_id: VtxoId, error: ExitError) -> None:
        if self._complained.get(vtxo_id) != str(error):
            self._complained[vtxo_id] = str(error)
            log.warning("exit of %s: %s", vtxo_id, error)
        self.errors[vtxo_id] = error

    def _forget_finished(self, changed: Mapping[VtxoId, LiveExit]) -> None:
        for vtxo_id, exit_ in changed.items():
            if isinstance(exit_.state, Claimed | VtxoAlreadySpent | VtxoSwept | Canceled):
                self.forget(vtxo_id)

    def forget(self, vtxo_id: VtxoId) -> None:
        """Drop what is remembered of an exit that is over."""
        self._subjects.pop(vtxo_id, None)
        self.errors.pop(vtxo_id, None)
        self._complained.pop(vtxo_id, None)

    # --- storing what the machine says

    async def _store_advances(
        self,
        exits: Mapping[VtxoId, LiveExit],
        views: dict[VtxoId, ExitView],
        observation: Observation,
    ) -> dict[VtxoId, LiveExit]:
        """Let the machine judge, with the VTXOs' states as they are at this very moment, and store it.

        Returns the exits that have changed. views: is completed with what the wallet knows.
        """
        children = self._changed_children(views.values(), observation)
        async with self._store.read() as tx:
            advances = await self._judge(tx, exits, views)
        changed: dict[VtxoId, LiveExit] = {}
        if children or any(taken.state != exits[vtxo_id].state for vtxo_id, taken in advances.items()):
            async with self._store.transaction() as tx:
                advances = await self._judge(tx, exits, views)
                for vtxo_id, taken in advances.items():
                    exit_ = exits[vtxo_id]
                    if taken.state == exit_.state:
                        continue
                    row = row_after(exit_.row, taken.state, taken.passed)
                    await tx.exits.save(row)
                    await apply_consequences(tx, row, taken.state)
                    changed[vtxo_id] = LiveExit(row, taken.state)
                for child in children:
                    await tx.exits.save_child(child)
        for vtxo_id, taken in advances.items():
            error = taken.error or _trouble_of(views[vtxo_id], observation)
            if error is not None:
                self._fail(vtxo_id, error)
            else:
                self.errors.pop(vtxo_id, None)
        return changed

    async def _judge(
        self, tx: Transaction, exits: Mapping[VtxoId, LiveExit], views: dict[VtxoId, ExitView]
    ) -> dict[VtxoId, Advance]:
        states = await self._vtxo_states(tx, list(views))
        for vtxo_id, view in views.items():
            views[vtxo_id] = replace(view, is_spent_offchain=states.get(vtxo_id) is StateKind.SPENT)
        return {vtxo_id: advance(exits[vtxo_id].state, view) for vtxo_id, view in views.items()}

    async def _vtxo_states(self, tx: Transaction, ids: Sequence[VtxoId]) -> dict[VtxoId, StateKind]:
        known = await tx.vtxos.known(ids)
        vtxos = await tx.vtxos.get_many([vtxo_id for vtxo_id in ids if vtxo_id in known])
        return {vtxo.id: vtxo.state.kind for vtxo in vtxos}

    def _changed_children(self, views: Iterable[ExitView], observation: Observation) -> list[ExitChildRow]:
        """The children that were found, and the stored ones that are in another block than before."""
        seen: dict[Txid, ChildView] = {
            view.txid: view.child
            for exit_view in views
            for view in exit_view.transactions
            if view.child is not None
        }
        changed: list[ExitChildRow] = []
        for exit_txid, child in seen.items():
            found = observation.found.get(exit_txid)
            known = found or self._children.get(exit_txid)
            if known is None or known.tx.txid != child.txid:
                continue  # confirmed, and stored long ago
            if found is None and (known.origin == origin_of(child) or isinstance(child.status, NotFound)):
                continue
            changed.append(_child_row(exit_txid, known.tx, origin_of(child)))
        return changed

    async def _settle_children(self, observation: Observation) -> None:
        """A child of ours that another one has replaced does not count any more."""
        for exit_txid, found in observation.found.items():
            ours = self._children.get(exit_txid)
            self._children[exit_txid] = found
            if self._onchain is not None and ours is not None and ours.is_ours:
                log.info("the child of exit transaction %s was replaced by %s", exit_txid, found.tx.txid)
                await self._onchain.evict(ours.tx.txid)

    # --- claims that nobody sees

    async def _revive_claims(self, exits: Mapping[VtxoId, LiveExit], views: dict[VtxoId, ExitView]) -> None:
        """Broadcast again the claims of ours that are neither in a block nor in the mempool."""
        lost: dict[Txid, list[VtxoId]] = {}
        for vtxo_id, view in views.items():
            state = exits[vtxo_id].state
            if isinstance(state, ClaimInProgress) and view.matured_at is not None and view.spend is None:
                lost.setdefault(state.claim_txid, []).append(vtxo_id)
        for claim_txid, ids in lost.items():
            async with self._store.read() as tx:
                claim_tx = await tx.exits.find_claim(claim_txid)
            if claim_tx is None:
                continue  # not ours
            try:
                await self._chain.broadcast(claim_tx)
            except BroadcastError as error:
                log.warning("claim %s was refused when sent again: %s", claim_txid, error)
                continue
            except ChainError as error:
                for vtxo_id in ids:
                    self._fail(vtxo_id, TransactionRetrievalFailure(claim_txid, chain_text(error)))
                    del views[vtxo_id]
                continue
            for vtxo_id in ids:
                views[vtxo_id] = replace(views[vtxo_id], is_claim_alive=True)

    # --- paying

    def _wanted(self, looked: Looked) -> list[_Wanted]:
        """The frontiers that may need a child, each once, in the order of the exits."""
        waiting: dict[Txid, list[VtxoId]] = {}
        frontiers: dict[Txid, TxView] = {}
        for vtxo_id, view in looked.views.items():
            frontier = view.frontier
            if not isinstance(looked.exits[vtxo_id].state, Processing) or frontier is None:
                continue
            if frontier.unconfirmed_inputs or frontier.contested:
                continue
            frontiers[frontier.txid] = frontier
            waiting.setdefault(frontier.txid, []).append(vtxo_id)
        by_txid = {
            tx.txid: tx for vtxo_ids in waiting.values() for tx in self._subjects[vtxo_ids[0]].transactions
        }
        return [_Wanted(by_txid[txid], view, tuple(waiting[txid])) for txid, view in frontiers.items()]

    async def _pay_for(
        self, onchain: OnchainWallet, wanted: Sequence[_Wanted], fee_rate: FeeRate | None, tip: BlockRef
    ) -> bool:
        """One after the other, so that no coin is used twice. Returns whether anything was broadcast."""
        if fee_rate is None:
            wanted = [want for want in wanted if not self._is_paid_at(want.view, tip)]
        if not wanted:
            return False
        rate = fee_rate or min((await self._chain.update_fee_rates()).fast, MAX_AUTOMATIC_FEE_RATE)
        payer = ChildPayer(self._store, self._chain, onchain)
        if onchain.tip_height < tip.height:
            await self._sync(onchain)
        is_any_sent = False
        for want in wanted:
            try:
                sent = await payer.pay(want.tx, want.view, self._children.get(want.tx.txid), rate)
            except ExitError as error:
                for vtxo_id in want.waiting:
                    self._fail(vtxo_id, error)
                continue
            if sent is not None:
                is_any_sent = True
                self._paid_at[sent] = tip.height
        return is_any_sent

    def _is_paid_at(self, view: TxView, tip: BlockRef) -> bool:
        """Whether its child is ours, in the mempool, and no older than the last block."""
        child = view.child
        return (
            child is not None
            and isinstance(view.status, Mempool)
            and child.is_ours
            and self._paid_at.get(child.txid) == tip.height
        )

    async def _sync(self, onchain: OnchainWallet) -> None:
        try:
            await onchain.sync()
        except ChainError as error:
            log.warning("on-chain wallet: %s", chain_text(error))


class ChildPayer:
    """Makes, replaces and broadcasts the children of exit transactions."""

    def __init__(self, store: Store, chain: ChainSource, onchain: OnchainWallet) -> None:
        self._store = store
        self._chain = chain
        self._onchain = onchain

    async def pay(self, parent: Tx, view: TxView, stored: KnownChild | None, rate: FeeRate) -> Txid | None:
        """See to it that a child pays for the parent at this rate; the child that was broadcast, if any was.

        stored: the child that is known. Raises ExitError: the next run tries again.
        """
        try:
            if view.child is None or stored is None:
                return await self._pay_first(parent, rate)
            if isinstance(view.status, Mempool):
                return await self._replace(parent, view.child, stored, rate)
            return await self._send_again(parent, stored, rate)
        except InsufficientConfirmedFunds as error:
            raise InsufficientConfirmedFundsForExit(error.needed_sat, error.available_sat) from error
        except ChainError as error:
            raise ExitPackageBroadcastFailure(parent.txid, chain_text(error)) from error
        except StateConflict:
            raise
        except ExitError:
            raise
        except BarkdError as error:
            raise InternalExitError(chain_text(error)) from error

    async def _pay_first(self, parent: Tx, rate: FeeRate) -> Txid | None:
        child = self._unused_child(parent)
        if child is None:
            child = (await self._onchain.fund_child(parent, rate)).tx
        return await self._store_and_send(parent, child, previous=None)

    async def _replace(self, parent: Tx, view: ChildView, stored: KnownChild, rate: FeeRate) -> Txid | None:
        if view.fee is None or rate <= view.fee.fee_rate:
            return None
        child = self._unused_child(parent, besides=view.txid)
        if child is None:
            try:
                replaced = view.txid if view.is_ours else None
                signed = await self._onchain.fund_child(
                    parent, rate, replaced_txid=replaced, replaces=view.fee
                )
            except InsufficientConfirmedFunds as error:
                log.warning("the child of %s stays at %s: %s", parent.txid, view.fee.fee_rate, error)
                return None
            child = signed.tx
        elif view.is_ours:
            await self._onchain.evict(view.txid)
        return await self._store_and_send(parent, child, previous=stored)

    async def _send_again(self, parent: Tx, stored: KnownChild, rate: FeeRate) -> Txid | None:
        """Broadcast a package that the node does not have (any more), or give it up."""
        child = stored.tx
        anchor, output = fee_anchor_of(parent)
        if stored.is_ours:
            await self._onchain.record(child, foreign_outputs={anchor: output})
        try:
            await self._chain.broadcast_package([parent, child])
        except BroadcastError as error:
            if error.kind is BroadcastErrorKind.KNOWN:
                return child.txid
            log.info("child %s of exit transaction %s is given up: %s", child.txid, parent.txid, error)
            await self._give_up(parent, child, previous=None)
            return await self._pay_first(parent, rate)
        return child.txid

    def _unused_child(self, parent: Tx, besides: Txid | None = None) -> Tx | None:
        """A child that the on-chain wallet has made, and a crash kept from being used."""
        anchor, _ = fee_anchor_of(parent)
        spenders = self._onchain.unconfirmed_spenders(anchor)
        return next((tx for tx in spenders if tx.txid != besides), None)

    async def _store_and_send(self, parent: Tx, child: Tx, previous: KnownChild | None) -> Txid | None:
        """The child is in the on-chain wallet. previous: the child that it replaces."""
        await self._save(parent.txid, KnownChild(child, True, WalletOrigin()))
        try:
            await self._chain.broadcast_package([parent, child])
        except BroadcastError as error:
            if error.kind is BroadcastErrorKind.KNOWN:
                return child.txid
            await self._give_up(parent, child, previous)
            if error.kind is BroadcastErrorKind.OTHER:
                raise ExitPackageBroadcastFailure(parent.txid, str(error)) from error
            log.info("the child of exit transaction %s was refused: %s", parent.txid, error)
            return None
        log.info("exit transaction %s was broadcast with child %s", parent.txid, child.txid)
        return child.txid

    async def _give_up(self, parent: Tx, child: Tx, previous: KnownChild | None) -> None:
        """The child cannot be; what was before it is again."""
        if previous is None:
            async with self._store.transaction() as tx:
                await tx.exits.delete_child(parent.txid)
        else:
            await self._save(parent.txid, previous)
        await self._onchain.evict(child.txid)
        if previous is not None and previous.is_ours:
            await self._onchain.record(previous.tx)

    async def _save(self, exit_txid: Txid, child: KnownChild) -> None:
        async with self._store.transaction() as tx:
            await tx.exits.save_child(_child_row(exit_txid, child.tx, child.origin))


# --- consequences


async def apply_consequences(tx: Transaction, row: ExitRow, state: ExitState) -> None:
    """What an exit's new state means for its VTXO and its movement; safe to repeat."""
    if isinstance(state, _ON_CHAIN):
        vtxo = await tx.vtxos.find(row.vtxo_id)
        if vtxo is not None and vtxo.state.kind is not StateKind.SPENT:
            await tx.vtxos.mark_exited([row.vtxo_id])
    if row.movement_id is None:
        return
    match state:
        case Claimed():
            await tx.movements.finish(row.movement_id, MovementStatus.SUCCESSFUL)
        case VtxoAlreadySpent() | Canceled():
            update = MovementUpdate(effective_balance_sat=0)
            await tx.movements.finish_with_update(row.movement_id, MovementStatus.CANCELED, update)
        case VtxoSwept():
            # Upstream leaves it pending for ever.
            await tx.movements.finish(row.movement_id, MovementStatus.FAILED)
        case _:
            pass


def _trouble_of(view: ExitView, observation: Observation) -> ExitError | None:
    frontier = view.frontier
    return None if frontier is None else observation.troubles.get(frontier.txid)


def _known_child(row: ExitChildRow) -> KnownChild:
    origin = payloads.decode_origin(row.origin)
    return KnownChild(Tx.parse(row.child_tx), isinstance(origin, WalletOrigin), origin)


def _child_row(exit_txid: Txid, child: Tx, origin: ExitTxOrigin) -> ExitChildRow:
    return ExitChildRow(exit_txid, child.serialize(), payloads.encode_origin(origin))
