"""Notices VTXOs that cannot stay VTXOs, because of what others have put on the chain: they are exited.

A sibling's owner publishes the transactions that both share, the server's watchman publishes what was
forfeited; and an attacker publishes what he can take himself. For each VTXO it counts how far its chain is
confirmed, and what the deepest output there is:

* Its own: it is no VTXO any more.
* One that somebody else can take alone after a delay (`rivals`): the next transaction has to be confirmed
  before that. An honest server sees to it itself, within a few blocks; so that is waited for a little.
* One that the server alone can take, at the expiry: nothing, until the expiry is near. A checkpoint on the
  chain costs nobody an exit.
* None: nothing either, until then. Refreshes have failed for long, or have not been wanted; from here on the
  server has nothing to do but to stay silent.

Only blocks count. What waits in a mempool may never get into one, and takes nothing before.

Once per new tip the chain source is asked for the ids of the new block's transactions: two calls, however
many VTXOs there are. Only what is new to the watch is asked for by itself: after a start and a reorganisation
everything, later the VTXOs that have come since. Few VTXOs are always asked for by themselves, as that is
less than a block's list. VTXOs share their first transactions, and where one is not confirmed nothing behind
it is, so that is one call per round, board or payment.

Upstream looks at a VTXO's own transaction only. Source: sheet 06 §2.7 (auto-start); sheet 01 §16.10.
"""

import asyncio
import enum
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import ChainSource, Confirmed
from barkd_py.errors import ChainError, chain_text
from barkd_py.wallet.exits.forced.rivals import Rival, arkoor_pubkeys, rivals_of
from barkd_py.wallet.exits.observe import ChainMemory, Look
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.unreadable import PassedOver

log = logging.getLogger(__name__)

_BATCH = 10
"""VTXOs that are decoded before others have their turn."""
MAX_PATIENCE_BLOCKS = 6
"""What an honest server may take: it waits for two blocks, looks every ten minutes, and needs one more."""
CALLS_PER_BLOCK = 20
"""So many questions about single transactions are no more work than one list of a block's."""


def patience_blocks(exit_delta: int) -> int:
    """How many blocks somebody else may keep his output before it is made sure that he does not take it."""
    return min(MAX_PATIENCE_BLOCKS, exit_delta // 4)


class Cause(enum.Enum):
    OWN_OUTPUT = "it is on the chain"
    RIVAL = "somebody else may take what it comes from"
    EXPIRY = "the server may soon take what it comes from"
    NOT_REFRESHED = "it expires soon, and the server has not refreshed it"
    ROUND = "the server holds back what it was given up for, and time runs out"


@dataclass(frozen=True, slots=True)
class Forced:
    """A VTXO that has to be exited. since_height: from when on that is so, as far as it is known."""

    vtxo_id: VtxoId
    cause: Cause
    since_height: int


@dataclass(frozen=True, slots=True)
class _Way:
    """What is watched of a VTXO.

    txids: its exit transactions, or that of its anchor if there are none. rivals: for the output that each of
    them spends.
    """

    txids: tuple[Txid, ...]
    rivals: tuple[Rival, ...]
    expiry_height: int
    exit_delta: int

    @classmethod
    def of(cls, vtxo: Vtxo, ours: Collection[PublicKey]) -> "_Way":
        txids = tuple([tx.txid for tx in vtxo.exit_transactions()])
        rivals = tuple(rivals_of(vtxo, ours))
        if not txids:
            txids, rivals = (vtxo.anchor_point.txid,), (Rival.NOBODY,)
        return cls(txids, rivals, vtxo.expiry_height, vtxo.exit_delta)

    def confirmed_count(self, confirmed: Mapping[Txid, BlockRef]) -> int:
        count = len(self.txids)
        while count and self.txids[count - 1] not in confirmed:
            count -= 1
        return count

    def frontier(self, confirmed: Mapping[Txid, BlockRef]) -> Txid | None:
        """The first transaction that is not confirmed."""
        count = self.confirmed_count(confirmed)
        return self.txids[count] if count < len(self.txids) else None


class OnChainWatch:
    """exit_margin: blocks before the expiry at which an exit starts, beside one for each transaction."""

    def __init__(
        self, store: Store, chain: ChainSource, *, exit_margin: int, calls_per_block: int = CALLS_PER_BLOCK
    ) -> None:
        self._store = store
        self._chain = chain
        self._exit_margin = exit_margin
        self._calls_per_block = calls_per_block
        self._ways: dict[VtxoId, _Way] = {}
        self._unasked: set[VtxoId] = set()
        self._memory = ChainMemory()
        self._passed_over = PassedOver("the watch over the chain")
        self._seen_at: BlockRef | None = None

    @property
    def confirmed(self) -> Mapping[Txid, BlockRef]:
        """The exit transactions that are confirmed, as of the last look."""
        return self._memory.confirmed

    async def find(self, vtxo_ids: Sequence[VtxoId], tip: BlockRef) -> tuple[Forced, ...]:
        """Those of the VTXOs that must be exited.

        One that cannot be read is named in the log, and is not watched. Raises ExitError or ChainError if the
        chain source does not answer; the next call makes up for it.
        """
        await self._learn(vtxo_ids)
        if not await self._memory.move_to(self._chain, tip):  # before what may fail half-way
            self._seen_at = None
        vtxo_ids = [vtxo_id for vtxo_id in vtxo_ids if vtxo_id in self._ways]
        if await self._read_new_blocks(tip):
            await self._ask(self._unasked, tip)
        else:
            await self._ask(vtxo_ids, tip)
        self._unasked.clear()
        self._seen_at = tip
        found = [self._judge(vtxo_id, self._ways[vtxo_id], tip) for vtxo_id in vtxo_ids]
        return tuple([forced for forced in found if forced is not None])

    def _judge(self, vtxo_id: VtxoId, way: _Way, tip: BlockRef) -> Forced | None:
        count = way.confirmed_count(self.confirmed)
        since_height = self.confirmed[way.txids[count - 1]].height if count else 0
        if count == len(way.txids):
            return Forced(vtxo_id, Cause.OWN_OUTPUT, since_height)
        if way.rivals[count] is Rival.SOMEBODY:
            patience = patience_blocks(way.exit_delta)
            is_over = tip.height >= since_height + patience
            return Forced(vtxo_id, Cause.RIVAL, since_height) if is_over else None
        exit_by = way.expiry_height - self._exit_margin - (len(way.txids) - count)
        if exit_by <= tip.height < way.expiry_height:
            return Forced(vtxo_id, Cause.EXPIRY if count else Cause.NOT_REFRESHED, exit_by)
        return None

    # --- the VTXOs

    async def _learn(self, vtxo_ids: Sequence[VtxoId]) -> None:
        wanted = set(vtxo_ids)
        if not wanted >= self._ways.keys():
            self._ways = {vtxo_id: way for vtxo_id, way in self._ways.items() if vtxo_id in wanted}
            self._unasked &= wanted
            self._memory.keep({txid for way in self._ways.values() for txid in way.txids})
        for batch in _batches([vtxo_id for vtxo_id in vtxo_ids if vtxo_id not in self._ways]):
            async with self._store.read() as tx:
                bodies, unreadable = await tx.vtxos.readable_bodies(batch)
                pubkeys = {pubkey for vtxo in bodies for pubkey in arkoor_pubkeys(vtxo)}
                ours = await tx.keys.find_many(list(pubkeys))
            for error in unreadable:
                self._passed_over.note(error.vtxo_id, error)
            for vtxo in bodies:
                self._ways[vtxo.id] = _Way.of(vtxo, ours)
                self._unasked.add(vtxo.id)
            await asyncio.sleep(0)  # let others have their turn

    # --- the chain

    async def _read_new_blocks(self, tip: BlockRef) -> bool:
        """Whether everything that is confirmed since the last look is known now."""
        since = self._seen_at
        if since is None:
            return False
        if since == tip:
            return True
        frontiers = {way.frontier(self.confirmed) for way in self._ways.values()}
        if len(frontiers) <= self._calls_per_block * (tip.height - since.height):
            return False
        watched = {txid for way in self._ways.values() for txid in way.txids}
        found: dict[Txid, BlockRef] = {}
        try:
            for height in range(since.height + 1, tip.height + 1):
                block_hash = tip.hash if height == tip.height else await self._chain.block_hash(height)
                txids = None if block_hash is None else await self._chain.block_txids(block_hash)
                if block_hash is None or txids is None:
                    return False
                found.update(dict.fromkeys(watched & txids, BlockRef(height, block_hash)))
        except ChainError as error:  # a source that has no such lists can still be asked for each
            log.warning("the transactions of new blocks cannot be listed: %s", chain_text(error))
            return False
        self._memory.confirmed.update(found)
        return True

    async def _ask(self, vtxo_ids: Collection[VtxoId], tip: BlockRef) -> None:
        """Follow each chain for as long as it is confirmed."""
        look = Look(self._chain, self._memory, tip, {}, lambda _: False)
        ways = [self._ways[vtxo_id] for vtxo_id in vtxo_ids]
        try:
            while ways:
                frontiers = {txid for way in ways if (txid := way.frontier(self.confirmed)) is not None}
                statuses = await asyncio.gather(*map(look.status, frontiers))
                if not any(isinstance(status, Confirmed) for status in statuses):
                    break
                ways = [way for way in ways if way.frontier(self.confirmed) not in frontiers]
        finally:
            await look.close()


def _batches(ids: Sequence[VtxoId]) -> Iterator[Sequence[VtxoId]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]
