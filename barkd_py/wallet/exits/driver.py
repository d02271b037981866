"""Brings live exits forward: observe, decide, store; then pay for what waits to be broadcast.

One run is one look at the chain for all exits (`observe`), the machine's verdict on each (`machine`), and one
transaction that stores what has changed, together with its consequences: the VTXO's state and the movement.
If a transaction at a frontier has nobody who pays for it, a child is made, stored and broadcast, and a second
look tells what became of it.

Each exit transaction is paid for once, whoever needs it; how is in `children`.

A child is replaced if it pays less than the rate that is wanted now, whoever made it; without a rate given by
the user not more than once per block for our own, and never above `MAX_AUTOMATIC_FEE_RATE`. What only exits
that nobody asked for wait for is paid no more than they are worth (`costs.worth`).

Everything here runs under the exits' lock; see `service`. Source: sheet 06 §2.4-2.8, §4.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import BlockRef, FeeRate
from barkd_py.chain.source import (
    BroadcastError,
    ChainSource,
    Confirmed,
    Mempool,
    NotFound,
)
from barkd_py.errors import ChainError, chain_text
from barkd_py.onchain.cpfp import MIN_FEE_RATE
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits.children import ChildPayer, child_row, known_child
from barkd_py.wallet.exits.claim_tx import ClaimPaths, terms_of
from barkd_py.wallet.exits.costs.worth import MAX_AUTOMATIC_FEE_RATE, Bearer, bearable_rate
from barkd_py.wallet.exits.errors import (
    ExitError,
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
from barkd_py.wallet.exits.rows import ON_CHAIN, LiveExit, apply_consequences, read_exits, row_after
from barkd_py.wallet.exits.states import (
    Canceled,
    Claimed,
    ClaimInProgress,
    ExitState,
    Processing,
    VtxoAlreadySpent,
    VtxoSwept,
    WalletOrigin,
)
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.store.exits import ExitChildRow
from barkd_py.wallet.vtxo_states import StateKind

log = logging.getLogger(__name__)

LateIncome = Callable[[Sequence[VtxoId]], Awaitable[Callable[[Transaction], Awaitable[None]]]]
"""What the history must tell of VTXOs that get to the chain, before they leave: that some have come at last.
Returns what writes it.
"""


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
        self,
        store: Store,
        chain: ChainSource,
        onchain: OnchainWallet | None,
        paths: ClaimPaths,
        *,
        on_claimed: Callable[[Claimed], None],
        late_income: LateIncome,
    ) -> None:
        """on_claimed: is told of each exit that a look finds claimed, before anything is paid."""
        self.memory = ChainMemory()
        self.errors: dict[VtxoId, ExitError] = {}
        self._store = store
        self._chain = chain
        self._onchain = onchain
        self._paths = paths
        self._on_claimed = on_claimed
        self._late_income = late_income
        self._subjects: dict[VtxoId, _Subject] = {}
        self._children: dict[Txid, KnownChild] = {}
        self._paid_at: dict[Txid, int] = {}
        self._complained: dict[VtxoId, str] = {}

    @property
    def lacks_funds(self) -> bool:
        """Whether an exit waits for coins."""
        return any(isinstance(error, InsufficientConfirmedFundsForExit) for error in self.errors.values())

    # --- a run

    async def run(self, fee_rate: FeeRate | None = None) -> Looked:
        """Bring every live exit as far as it gets now.

        fee_rate: of children; None: the fast one. Raises TipRetrievalFailure: nothing has changed then. What
        hinders a single exit is in `errors`.
        """
        looked = await self.look()
        if self._onchain is None or not (wanted := self._wanted(looked)):
            return looked
        paid = await self._pay_for(self._onchain, wanted, fee_rate, looked)
        if not paid:
            return looked
        again = await self.look(paid)
        return replace(again, exits={**looked.exits, **again.exits}, views={**looked.views, **again.views})

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
        self._forget_finished(changed)
        await self._settle_children(observation)
        return Looked(observation.tip, {**exits, **changed}, views)

    async def _load(self, only: Collection[VtxoId] | None) -> dict[VtxoId, LiveExit]:
        async with self._store.read() as tx:
            rows = await tx.exits.list(only_live=True)
        exits, unreadable = read_exits(row for row in rows if only is None or row.vtxo_id in only)
        for vtxo_id, error in unreadable.items():
            self._fail(vtxo_id, InternalExitError(str(error)))
        return {exit_.row.vtxo_id: exit_ for exit_ in exits}

    async def _load_subjects(self, exits: Mapping[VtxoId, LiveExit]) -> dict[VtxoId, _Subject]:
        """The transactions of the exits, and the stored children of those that may need them."""
        missing = [vtxo_id for vtxo_id in exits if vtxo_id not in self._subjects]
        async with self._store.read() as tx:
            known = await tx.vtxos.known(missing)
            bodies, unreadable = await tx.vtxos.readable_bodies(
                [vtxo_id for vtxo_id in missing if vtxo_id in known]
            )
        for vtxo in bodies:
            self._subjects[vtxo.id] = _Subject(vtxo, vtxo.exit_transactions())
        for error in unreadable:
            self._fail(error.vtxo_id, InternalExitError(str(error)))
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
        self._children = {row.exit_txid: known_child(row) for row in rows}
        return subjects

    def _is_ours(self, tx: Tx) -> bool:
        """A child that somebody else made pays somebody else, if perhaps a little to us as well."""
        onchain = self._onchain
        return onchain is not None and all(onchain.is_mine(output.script_pubkey) for output in tx.outputs)

    def _fail(self, vtxo_id: VtxoId, error: ExitError) -> None:
        if self._complained.get(vtxo_id) != str(error):
            self._complained[vtxo_id] = str(error)
            log.warning("exit of %s: %s", vtxo_id, error)
        self.errors[vtxo_id] = error

    def _forget_finished(self, changed: Mapping[VtxoId, LiveExit]) -> None:
        for vtxo_id, exit_ in changed.items():
            if isinstance(exit_.state, Claimed):
                self._on_claimed(exit_.state)
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
            arriving = [vtxo_id for vtxo_id, taken in advances.items() if isinstance(taken.state, ON_CHAIN)]
            write_income = await self._late_income(arriving)
            async with self._store.transaction() as tx:
                await write_income(tx)
                advances = await self._judge(tx, exits, views)
                for vtxo_id, taken in advances.items():
                    exit_ = exits[vtxo_id]
                    if taken.state == exit_.state:
                        continue
                    row = row_after(exit_.row, taken.state, taken.passed)
                    await tx.exits.save(row)
                    await apply_consequences(tx, row, taken.state, is_taken=views[vtxo_id].is_taken)
                    changed[vtxo_id] = LiveExit(row, taken.state)
                for child in children:
                    await tx.exits.save_child(child)
        for vtxo_id, exit_ in changed.items():
            _tell_loss(exit_.state, views[vtxo_id])
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
            changed.append(child_row(exit_txid, known.tx, origin_of(child)))
        return changed

    async def _settle_children(self, observation: Observation) -> None:
        """A child of ours that another one has replaced does not count any more.

        If that other one is ours as well, a crash kept the replacement from being broadcast: it counts, and
        is what the payer takes if the rate still asks for one. (If not, the on-chain wallet drops it.)
        """
        for exit_txid, found in observation.found.items():
            ours = self._children.get(exit_txid)
            self._children[exit_txid] = found
            is_older = found.origin == WalletOrigin()  # ours, and in no block
            if self._onchain is not None and ours is not None and ours.is_ours and not is_older:
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
        self, onchain: OnchainWallet, wanted: Sequence[_Wanted], fee_rate: FeeRate | None, looked: Looked
    ) -> set[VtxoId]:
        """One after the other, so that no coin is used twice. Returns the exits that have a new child."""
        tip = looked.tip
        if fee_rate is None:
            wanted = [want for want in wanted if not self._is_paid_at(want.view, tip)]
        if not wanted:
            return set()
        rate = fee_rate or min((await self._chain.update_fee_rates()).fast, MAX_AUTOMATIC_FEE_RATE)
        payer = ChildPayer(self._store, self._chain, onchain, self.memory.fees)
        if onchain.tip_height < tip.height:
            await self._sync(onchain)
        bearers = self._bearers(looked) if fee_rate is None else {}
        paid: set[VtxoId] = set()
        for want in wanted:
            pays = rate
            if bearers.keys() >= {*want.waiting}:
                pays = min(rate, bearable_rate(want.tx.txid, list(bearers.values())))
            try:
                if pays < MIN_FEE_RATE:
                    raise InternalExitError("it would cost more than it holds")
                sent = await payer.pay(want.tx, want.view, self._children.get(want.tx.txid), pays)
            except ExitError as error:
                for vtxo_id in want.waiting:
                    self._fail(vtxo_id, error)
                continue
            if sent is not None:
                paid.update(want.waiting)
                self._paid_at[sent] = tip.height
        return paid

    def _bearers(self, looked: Looked) -> dict[VtxoId, Bearer]:
        """The exits that nobody asked for."""
        return {
            vtxo_id: Bearer(
                view.amount_sat,
                [
                    tx
                    for tx, seen in zip(self._subjects[vtxo_id].transactions, view.transactions, strict=True)
                    if not _is_paid_by_others(seen)
                ],
            )
            for vtxo_id, view in looked.views.items()
            if looked.exits[vtxo_id].is_automatic and vtxo_id in self._subjects  # else it has just ended
        }

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


def _is_paid_by_others(view: TxView) -> bool:
    is_ours = view.child is not None and view.child.is_ours
    return isinstance(view.status, Confirmed) and not is_ours


def _tell_loss(state: ExitState, view: ExitView) -> None:
    match state:
        case Claimed() if view.is_taken:
            log.error("exit of %s: somebody else has taken its output, in %s", view.vtxo_id, state.txid)
        case VtxoSwept():
            log.error("exit of %s: an output on the way to it was taken: it can never end", view.vtxo_id)
        case _:
            pass


def _trouble_of(view: ExitView, observation: Observation) -> ExitError | None:
    frontier = view.frontier
    return None if frontier is None else observation.troubles.get(frontier.txid)
