"""The chain as the exit machine sees it: one look at one tip, shared by all exits.

Exits share transactions, so each transaction is looked at once per look, whoever asks. And what is
confirmed stays confirmed as long as its block is in the best chain: `ChainMemory` remembers it from one look
to the next, and forgets all of it when the tip that it was true at is not in the best chain any more. So a
look costs one or two calls per frontier, however long the chains behind it are.

Rules:

* A call without a usable answer raises; it never becomes "not found" or "unspent".
* What can be checked is checked: a block that is said to confirm something is in the best chain, and what is
  said to spend an output does spend it. A chain source can still hide things, and make up blocks.
* If the tip has changed when the look is over, all of it is thrown away and looked at anew.
* An output counts as spent by something else only if that is deep enough, on both kinds of chain source, and
  was seen at two tips with nothing else seen in between: it ends an exit, so one wrong answer must not do.
  Upstream never gets there with Esplora.

Source: sheet 06 §2.4, §2.5, §9.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import ChainSource, Confirmed, Mempool, NotFound, PackageFee, Spend, TxStatus
from barkd_py.errors import ChainError, chain_text
from barkd_py.onchain.cpfp import MissingAnchor, fee_anchor_of
from barkd_py.wallet.exits.errors import (
    AncestorRetrievalFailure,
    BlockRetrievalFailure,
    ExitError,
    MissingAnchorOutput,
    TipRetrievalFailure,
    TransactionRetrievalFailure,
)
from barkd_py.wallet.exits.machine import (
    SPEND_CONFIRMATIONS,
    ChildView,
    ClaimTerms,
    ExitView,
    TxView,
    origin_of,
)
from barkd_py.wallet.exits.states import ExitTxOrigin

T = TypeVar("T")

PARALLEL_CALLS = 4
"""As for the on-chain wallet. With more, httpx's requests fight for its connections: twice the CPU."""
MAX_LOOKS = 3
"""How often to look again because a block came in between."""


@dataclass(slots=True)
class ChainMemory:
    """What was found confirmed. tip: it holds as long as this block is in the best chain."""

    tip: BlockRef | None = None
    confirmed: dict[Txid, BlockRef] = field(default_factory=dict)
    children: dict[Txid, ChildView] = field(default_factory=dict)
    """Confirmed children of confirmed exit transactions, by the id of the latter."""
    fees: dict[Txid, PackageFee] = field(default_factory=dict)
    """Of unconfirmed packages, by child: they do not change as long as the child is the same."""
    spends: set[tuple[OutPoint, Txid]] = field(default_factory=set)
    """Outputs, and transactions that were seen to spend them; that is so in every chain."""
    conflicts: dict[OutPoint, int] = field(default_factory=dict)
    """Outputs that something else has spent, at every look since the tip had this height."""
    waiting: set[Txid] = field(default_factory=set)
    """Exit transactions that are in the mempool with a child, at this tip: what is still there waits too."""

    async def move_to(self, chain: ChainSource, tip: BlockRef) -> bool:
        """Forget everything if the chain went another way, which is then False. Raises ChainError."""
        still_there = True
        if self.tip is not None and self.tip != tip:
            still_there = (
                self.tip.height <= tip.height and await chain.block_hash(self.tip.height) == self.tip.hash
            )
            if not still_there:
                self.forget()
            self.waiting.clear()
        self.tip = tip
        return still_there

    def keep(self, txids: Collection[Txid]) -> None:
        """Forget all but these exit transactions."""
        self.confirmed = {txid: block for txid, block in self.confirmed.items() if txid in txids}

    def forget(self) -> None:
        self.confirmed.clear()
        self.children.clear()
        self.conflicts.clear()
        self.waiting.clear()

    def has_seen_conflict(self, outpoint: OutPoint, tip: BlockRef) -> bool:
        """Whether that is so since an earlier tip; this one is noted if not."""
        return self.conflicts.setdefault(outpoint, tip.height) < tip.height


@dataclass(frozen=True, slots=True)
class KnownChild:
    """A child that is stored, or was found. is_ours: our wallet made it. origin: as it is stored."""

    tx: Tx
    is_ours: bool
    origin: ExitTxOrigin


@dataclass(frozen=True, slots=True)
class Subject:
    """An exit to look at. transactions: from the anchor on. terms: None if it cannot be claimed."""

    vtxo_id: VtxoId
    amount_sat: int
    transactions: tuple[Tx, ...]
    terms: ClaimTerms | None

    @property
    def point(self) -> OutPoint:
        return self.vtxo_id.outpoint


class Look:
    """One look. Everything is asked for at most once; use it for one tip only.

    children: the stored ones, by exit transaction. is_ours: whether our on-chain wallet made a transaction.
    found: the children that were found on the chain and are not the stored ones.
    troubles: by exit transaction, what could not be found out and does not hinder the exit.
    """

    def __init__(
        self,
        chain: ChainSource,
        memory: ChainMemory,
        tip: BlockRef,
        children: Mapping[Txid, KnownChild],
        is_ours: Callable[[Tx], bool],
    ) -> None:
        self.tip = tip
        self.found: dict[Txid, KnownChild] = {}
        self.troubles: dict[Txid, ExitError] = {}
        self._chain = chain
        self._memory = memory
        self._children = children
        self._is_ours = is_ours
        self._slots = asyncio.Semaphore(PARALLEL_CALLS)
        self._tasks: dict[object, asyncio.Task[Any]] = {}

    async def close(self) -> None:
        """Stop asking for what nobody waits for any more: a chain source may never answer."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # --- exits

    async def exit(self, subject: Subject) -> ExitView:
        """Raises ExitError if something could not be found out."""
        views: list[TxView] = []
        for tx in subject.transactions:
            if views and not isinstance(views[-1].status, Confirmed):
                # behind the frontier nothing can be
                views.append(TxView(tx.txid, frozenset({views[-1].txid})))
            else:
                views.append(await self.transaction(tx))
        view = ExitView(
            vtxo_id=subject.vtxo_id,
            amount_sat=subject.amount_sat,
            tip=self.tip,
            transactions=tuple(views),
            terms=subject.terms,
        )
        return await self._with_claim(subject, view)

    async def _with_claim(self, subject: Subject, view: ExitView) -> ExitView:
        height, confirmed = view.claimable_height, view.confirmed_block
        if height is None or confirmed is None or self.tip.height < height:
            return view
        matured_at = await self._block_at(height)
        spend = await self._spender(subject.point, confirmed.height)
        if spend is not None:
            await self._verify_spend(subject.point, spend)
        is_taken = spend is not None and await self._is_taken(subject, spend)
        return replace(view, matured_at=matured_at, spend=spend, is_taken=is_taken)

    async def _is_taken(self, subject: Subject, spend: Spend) -> bool:
        """Whether it is spent for good, and not by the clause by which we claim."""
        script = None if subject.terms is None else subject.terms.script
        if script is None or not isinstance(spend.status, Confirmed):
            return False
        tx = await self._get_tx(spend.txid)
        return all(script not in tx_in.witness for tx_in in tx.inputs if tx_in.prevout == subject.point)

    # --- exit transactions

    async def transaction(self, tx: Tx) -> TxView:
        return await self._once(("tx", tx.txid), lambda: self._look_at(tx))

    async def _look_at(self, tx: Tx) -> TxView:
        view = await self._waiting(tx) or await self._look_closely_at(tx)
        if isinstance(view.status, Mempool) and view.child is not None:
            self._memory.waiting.add(tx.txid)
        return view

    async def _waiting(self, tx: Tx) -> TxView | None:
        """If nothing but its child can have changed since the last look, and that is there.

        A child in the mempool has its parent there or in a block, and no block has come.
        """
        if tx.txid not in self._memory.waiting:
            return None
        child = await self._child(tx, Mempool())
        if child is None or not isinstance(child.status, Mempool):
            self._memory.waiting.discard(tx.txid)
            return None
        return TxView(tx.txid, status=Mempool(), child=child)

    async def _look_closely_at(self, tx: Tx) -> TxView:
        if self._remembered(tx.txid) is None:
            unconfirmed = await self._unconfirmed_inputs(tx)
            if unconfirmed:
                return TxView(tx.txid, unconfirmed)
        status = await self.status(tx.txid)
        conflict: OutPoint | None = None
        contested = False
        if isinstance(status, NotFound):
            spend, prevout = await self._conflicting_spend(tx)
            if spend is not None and spend.txid == tx.txid:
                # the source has read the block, and not yet indexed the transaction
                status = await self._noted(tx.txid, spend.status)
            elif spend is not None:
                is_lasting = self._memory.has_seen_conflict(prevout, self.tip)
                conflict = prevout if is_lasting and self._is_settled(spend) else None
                contested = conflict is None
        if conflict is None and not contested:
            self._memory.conflicts.pop(tx.inputs[0].prevout, None)
        return TxView(
            txid=tx.txid,
            status=status,
            child=await self._child(tx, status),
            conflict=conflict,
            contested=contested,
        )

    async def _unconfirmed_inputs(self, tx: Tx) -> frozenset[Txid]:
        parents = {tx_in.prevout.txid for tx_in in tx.inputs}
        return frozenset(
            [parent for parent in parents if not isinstance(await self.status(parent), Confirmed)]
        )

    async def _conflicting_spend(self, tx: Tx) -> tuple[Spend | None, OutPoint]:
        """What has spent the input in a block, although the transaction itself is nowhere.

        A spend below the window is answered as one in the block under it, whoever made it: that is settled. A
        source that does not walk blocks names it wherever it is.
        """
        (tx_in,) = tx.inputs
        outpoint = tx_in.prevout
        window = max(0, self.tip.height - SPEND_CONFIRMATIONS)
        async with self._slots:
            with _asking_for(tx.txid):
                if not await self._chain.is_spent_confirmed(outpoint):
                    return None, outpoint
                spend = await self._chain.spender(outpoint, since_height=window)
        if spend is not None and isinstance(spend.status, Confirmed):
            await self._verify_spend(outpoint, spend)
            return spend, outpoint
        if spend is not None or not self._chain.reads_blocks:
            return None, outpoint  # the answers contradict each other: the chain has moved
        with _asking_for(tx.txid):
            now = await self._chain.tx_status(tx.txid)
        if not isinstance(now, NotFound):
            return None, outpoint
        somebody = Txid(bytes(32))
        below = await self._block_at(max(0, window - 1))
        return Spend(somebody, Confirmed(below)), outpoint

    def _is_settled(self, spend: Spend) -> bool:
        assert isinstance(spend.status, Confirmed)
        return spend.status.block.height < self.tip.height - SPEND_CONFIRMATIONS

    # --- children

    async def _child(self, tx: Tx, status: TxStatus) -> ChildView | None:
        stored = self._children.get(tx.txid)
        if isinstance(status, NotFound):
            return None if stored is None else ChildView(stored.tx.txid, stored.is_ours, NotFound())
        remembered = self._memory.children.get(tx.txid)
        if remembered is not None:
            return remembered
        try:
            anchor, _ = fee_anchor_of(tx)
        except MissingAnchor:
            raise MissingAnchorOutput(tx.txid) from None
        since = status.block.height if isinstance(status, Confirmed) else self.tip.height
        spend = await self._spender(anchor, since)
        if spend is None:
            return None
        child = stored
        if child is None or child.tx.txid != spend.txid:
            await self._verify_spend(anchor, spend)
            child_tx = await self._get_tx(spend.txid)
            is_ours = self._is_ours(child_tx)
            origin = origin_of(ChildView(spend.txid, is_ours, spend.status))
            child = self.found[tx.txid] = KnownChild(child_tx, is_ours, origin)
        if isinstance(spend.status, Mempool):
            fee = await self._fee(tx, child.tx) if isinstance(status, Mempool) else None
            return ChildView(spend.txid, child.is_ours, spend.status, fee)
        await self._verify(spend.status)
        view = ChildView(spend.txid, child.is_ours, spend.status)
        if isinstance(status, Confirmed):
            self._memory.children[tx.txid] = view
        return view

    async def _fee(self, tx: Tx, child: Tx) -> PackageFee | None:
        """None if it cannot be had now: the package is not replaced then.

        The two are the whole package, so their weight is known; a node tells it in rounded bytes, by which
        our own packages would seem to pay less than they do.
        """
        if (known := self._memory.fees.get(child.txid)) is not None:
            return known
        async with self._slots:
            try:
                told = await self._chain.package_fee(child.txid)
            except ChainError as error:
                self.troubles[tx.txid] = AncestorRetrievalFailure(child.txid, chain_text(error))
                return None
        if told is None:
            return None
        fee = self._memory.fees[child.txid] = PackageFee(told.fee_sat, tx.weight_wu + child.weight_wu)
        return fee

    # --- calls

    async def status(self, txid: Txid) -> TxStatus:
        remembered = self._remembered(txid)
        if remembered is not None:
            return remembered
        return await self._once(("status", txid), lambda: self._ask_status(txid))

    async def _ask_status(self, txid: Txid) -> TxStatus:
        async with self._slots:
            with _asking_for(txid):
                status = await self._chain.tx_status(txid)
        return await self._noted(txid, status)

    def _remembered(self, txid: Txid) -> Confirmed | None:
        block = self._memory.confirmed.get(txid)
        return None if block is None else Confirmed(block)

    async def _noted(self, txid: Txid, status: TxStatus) -> TxStatus:
        if isinstance(status, Confirmed):
            await self._verify(status)
            self._memory.confirmed[txid] = status.block
        return status

    async def _verify(self, status: Confirmed) -> None:
        """A block confirms something only if it is in the best chain. Raises BlockRetrievalFailure."""
        if status.block.height > self.tip.height or await self._block_at(status.block.height) != status.block:
            raise BlockRetrievalFailure(status.block.height, "the best chain is changing")

    async def _verify_spend(self, outpoint: OutPoint, spend: Spend) -> None:
        """What is said to spend an output must do so, and in a block of the best chain. Raises ExitError."""
        if isinstance(spend.status, Confirmed):
            await self._verify(spend.status)
        if (outpoint, spend.txid) in self._memory.spends:
            return
        tx = await self._get_tx(spend.txid)
        if all(tx_in.prevout != outpoint for tx_in in tx.inputs):
            raise TransactionRetrievalFailure(spend.txid, f"it is said to spend {outpoint}, and does not")
        self._memory.spends.add((outpoint, spend.txid))

    async def _spender(self, outpoint: OutPoint, since_height: int) -> Spend | None:
        async with self._slots:
            with _asking_for(outpoint.txid):
                return await self._chain.spender(outpoint, since_height=since_height)

    async def _get_tx(self, txid: Txid) -> Tx:
        return await self._once(("raw", txid), lambda: self._ask_tx(txid))

    async def _ask_tx(self, txid: Txid) -> Tx:
        async with self._slots:
            with _asking_for(txid):
                tx = await self._chain.get_tx(txid)
        if tx is None:
            raise TransactionRetrievalFailure(txid, "it has disappeared")
        return tx

    async def _block_at(self, height: int) -> BlockRef:
        if height == self.tip.height:
            return self.tip
        return await self._once(("block", height), lambda: self._ask_block(height))

    async def _ask_block(self, height: int) -> BlockRef:
        async with self._slots:
            try:
                block_hash = await self._chain.block_hash(height)
            except ChainError as error:
                raise BlockRetrievalFailure(height, chain_text(error)) from error
        if block_hash is None:
            raise BlockRetrievalFailure(height, "there is no such block")
        return BlockRef(height, block_hash)

    async def _once(self, key: object, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Those who ask for the same thing share one answer."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(ask())
        answer: T = await asyncio.shield(task)
        return answer


@contextmanager
def _asking_for(txid: Txid) -> Iterator[None]:
    """The chain source's failure to answer about a transaction, as an error of the exit."""
    try:
        yield
    except ChainError as error:
        raise TransactionRetrievalFailure(txid, chain_text(error)) from error


async def fetch_tip(chain: ChainSource) -> BlockRef:
    """Raises TipRetrievalFailure."""
    try:
        return await chain.fetch_tip()
    except ChainError as error:
        raise TipRetrievalFailure(chain_text(error)) from error


@dataclass(frozen=True, slots=True)
class Observation:
    """All exits at one tip. views: an ExitError where something could not be found out."""

    tip: BlockRef
    views: Mapping[VtxoId, ExitView | ExitError]
    found: Mapping[Txid, KnownChild]
    troubles: Mapping[Txid, ExitError]


async def observe(
    chain: ChainSource,
    memory: ChainMemory,
    subjects: Sequence[Subject],
    children: Mapping[Txid, KnownChild],
    is_ours: Callable[[Tx], bool],
) -> Observation:
    """Look at these exits. Raises TipRetrievalFailure: nothing is known then."""
    tip = await fetch_tip(chain)
    found: dict[Txid, KnownChild] = {}  # by any of the looks: the memory keeps the next one from asking again
    for _ in range(MAX_LOOKS):
        try:
            await memory.move_to(chain, tip)
        except ChainError as error:
            raise TipRetrievalFailure(chain_text(error)) from error
        look = Look(chain, memory, tip, children, is_ours)
        try:
            views = await asyncio.gather(*(_exit_or_error(look, subject) for subject in subjects))
            now = await fetch_tip(chain)
        except BaseException:
            memory.forget()  # whether all of it was seen at this tip is not known
            raise
        finally:
            await look.close()
        found |= look.found
        if now == tip:
            by_id = {subject.vtxo_id: view for subject, view in zip(subjects, views, strict=True)}
            return Observation(tip, by_id, found, look.troubles)
        tip = now
    raise TipRetrievalFailure("blocks come faster than the exits can be looked at")


async def _exit_or_error(look: Look, subject: Subject) -> ExitView | ExitError:
    try:
        return await look.exit(subject)
    except ExitError as error:
        return error
