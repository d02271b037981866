"""From the chain to the wallet's rows: one engine for both kinds of chain source.

A sync is observe → rebroadcast → plan → store, repeated while the chain source has more blocks to search:

* `observe` (network) finds the fork point: the newest checkpoint of ours that is still in the best chain.
  Everything up to it stands. It then asks for our transactions above it and in the mempool, holds every
  confirmation against the best chain, and makes sure that the tip did not move meanwhile.
* `plan_change` (pure) turns what was seen into one `OnchainChange`.

What happens to an unconfirmed transaction that the chain source does not know:

    last seen less than 30 s ago            kept: the source may just not know it yet
    else, somebody else's payment to us     evicted
    else, it spends our coins               offered to the network once more; evicted only if that is refused

The last rule is ours: upstream evicts in all cases, so that a payment whose broadcast failed (the caller was
told its txid nevertheless) was often forgotten before it could be sent again.

Source: sheet 06 §7.3, §8.2.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import (
    BroadcastError,
    ChainMoved,
    ChainSource,
    FoundInBlock,
    WalletFindings,
    WalletQuery,
)
from barkd_py.errors import ChainError, ChainUnavailable
from barkd_py.onchain.keychain import Keychain
from barkd_py.onchain.store import (
    BlockRow,
    Confirmation,
    OnchainChange,
    OnchainState,
    TransactionRow,
    WalletRow,
)

log = logging.getLogger(__name__)

EVICTION_GRACE_S = 30
KEPT_CHECKPOINTS = 100
"""Recent blocks that are remembered; deeper, only those that confirm a payment can be the fork point."""
_MAX_OBSERVATIONS = 5
"""The chain may move during a search; so often in a row it does not."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look at the chain gave.

    fork: newest checkpoint of ours in the best chain. tip: of the best chain.
    """

    fork: BlockRef
    tip: BlockRef
    findings: WalletFindings

    @property
    def is_complete(self) -> bool:
        """Whether the search reached the tip, so that what was not found is not there."""
        return self.findings.until == self.tip


@dataclass(frozen=True, slots=True)
class Scan:
    """What `scan` gave, for the observation that takes it in.

    blocks: checkpoints of when it began; blocks after these are read again, with what was learnt.
    last_revealed: by it.
    """

    blocks: Mapping[int, bytes]
    found: tuple[FoundInBlock, ...]
    last_revealed: int | None

    def base(self, state: OnchainState) -> OnchainState:
        """The state as if it knew no block that was found since."""
        blocks = {
            height: hash_
            for height, hash_ in self.blocks.items()
            if state.blocks.get(height, hash_) == hash_  # else there was a reorg meanwhile
        }
        return replace(state, blocks=blocks)


# --- observing ----------------------------------------------------------------------------------------------


async def scan(chain: ChainSource, state: OnchainState, keychain: Keychain, *, stop_gap: int) -> Scan:
    """Look for payments from before, which may take a node an hour.

    Whatever happens on the chain meanwhile, this is not in vain: the observation that takes it in reads the
    blocks since, or looks at every address that was found to be handed out. keychain: one for this alone, it
    is changed. Raises ChainError.
    """
    height = max(state.blocks)
    tip = BlockRef(height, BlockHash(state.blocks[height]))
    query = WalletQuery(keychain, frozenset(), after=tip, tip=tip, stop_gap=stop_gap)
    findings = await chain.find_wallet_transactions(query)
    return Scan(state.blocks, findings.confirmed, keychain.last_revealed)


async def observe(
    chain: ChainSource,
    state: OnchainState,
    keychain: Keychain,
    *,
    stop_gap: int | None = None,
    scanned: Scan | None = None,
) -> Observation:
    """Look at the chain. Raises ChainError; a chain that keeps moving is ChainUnavailable.

    scanned: taken in.
    """
    if scanned is not None:
        state = scanned.base(state)
        if scanned.last_revealed is not None:
            keychain.found(scanned.last_revealed)
    for _ in range(_MAX_OBSERVATIONS):
        try:
            return await _observe_once(chain, state, keychain, stop_gap, scanned)
        except ChainMoved as error:
            log.info("%s; reading it again", error)
    raise ChainUnavailable("the best chain keeps changing")


async def _observe_once(
    chain: ChainSource,
    state: OnchainState,
    keychain: Keychain,
    stop_gap: int | None,
    scanned: Scan | None,
) -> Observation:
    tip = await chain.fetch_tip()
    fork = await _find_fork(chain, state.blocks, tip)
    # what is above the fork is found again in the blocks, if it is still there
    older = [] if scanned is None else [each for each in scanned.found if each.block.height <= fork.height]
    outpoints = {
        *unspent_outpoints(state, keychain, fork.height),
        *(outpoint for each in older for outpoint in _our_outputs(each.tx, keychain)),
    }
    query = WalletQuery(
        keychain,
        frozenset(outpoints),
        after=fork,
        tip=tip,
        stop_gap=stop_gap,
        rereads_mempool=scanned is not None,
    )
    findings = await chain.find_wallet_transactions(query)
    findings = replace(findings, confirmed=(*older, *findings.confirmed))
    await _verify_blocks(chain, state, findings)
    observation = Observation(fork, tip, findings)
    if observation.is_complete and await chain.fetch_tip() != tip:
        raise ChainMoved("a block was found during the search")
    return observation


async def _find_fork(chain: ChainSource, blocks: Mapping[int, bytes], tip: BlockRef) -> BlockRef:
    for height in sorted(blocks, reverse=True):
        if height > tip.height:
            continue
        known = BlockHash(blocks[height])
        current = tip.hash if height == tip.height else await chain.block_hash(height)
        if current == known:
            return BlockRef(height, known)
    raise ChainUnavailable("the chain source is on another chain than this wallet")


async def _verify_blocks(chain: ChainSource, state: OnchainState, findings: WalletFindings) -> None:
    """Hold every block that confirms something against the best chain."""
    verified = {block.height: bytes(block.hash) for block in (*findings.blocks, findings.until)}
    known = {**state.blocks, **verified}
    for block in sorted({found.block for found in findings.confirmed}):
        if known.get(block.height) == block.hash:
            continue
        if block.height > findings.until.height or await chain.block_hash(block.height) != block.hash:
            raise ChainMoved("a transaction is confirmed in a block that is not in the best chain")


def unspent_outpoints(state: OnchainState, keychain: Keychain, height: int) -> Iterator[OutPoint]:
    """Outputs of ours that no transaction confirmed up to this height spends."""
    spent = {
        tx_in.prevout
        for row in state.transactions.values()
        if row.confirmation is not None and row.confirmation.height <= height
        for tx_in in row.tx.inputs
    }
    for row in state.transactions.values():
        for outpoint in _our_outputs(row.tx, keychain):
            if outpoint not in spent:
                yield outpoint


def _our_outputs(tx: Tx, keychain: Keychain) -> Iterator[OutPoint]:
    for vout, output in enumerate(tx.outputs):
        if keychain.index_of(output.script_pubkey) is not None:
            yield tx.outpoint(vout)


# --- missing transactions -----------------------------------------------------------------------------------


def missing_transactions(state: OnchainState, observation: Observation) -> tuple[TransactionRow, ...]:
    """Rows that counted until now, are in no block, and were not seen; empty for an incomplete search."""
    if not observation.is_complete:
        return ()
    findings = observation.findings
    seen = {found.tx.txid for found in findings.confirmed} | {tx.txid for tx in findings.mempool}
    return tuple(
        row
        for row in state.transactions.values()
        if row.txid not in seen
        and not _stands(row, observation.fork)
        and (row.last_seen is not None or row.confirmation is not None)
    )


async def rebroadcast(
    chain: ChainSource,
    state: OnchainState,
    keychain: Keychain,
    missing: Iterable[TransactionRow],
) -> frozenset[Txid]:
    """Offer those that spend our coins to the network again; returns those that were not refused."""
    our_outputs = {
        outpoint for row in state.transactions.values() for outpoint in _our_outputs(row.tx, keychain)
    }
    ours = [
        tx for tx in (row.tx for row in missing) if any(tx_in.prevout in our_outputs for tx_in in tx.inputs)
    ]
    alive: set[Txid] = set()
    for tx in parents_first(ours):
        try:
            await chain.broadcast(tx)
        except BroadcastError as error:
            log.info("transaction %s was refused when sent again: %s", tx.txid, error)
            continue
        except ChainError as error:
            log.info("transaction %s could not be sent again: %s", tx.txid, error)
        alive.add(tx.txid)
    return frozenset(alive)


def parents_first(txs: Collection[Tx]) -> list[Tx]:
    """The same transactions, each after those whose outputs it spends; otherwise by txid."""
    waiting = {tx.txid: tx for tx in sorted(txs, key=lambda tx: tx.txid)}
    ordered: list[Tx] = []
    while waiting:
        ready = [
            tx for tx in waiting.values() if not any(tx_in.prevout.txid in waiting for tx_in in tx.inputs)
        ]
        assert ready, "transactions cannot spend each other in a circle"
        ordered += ready
        for tx in ready:
            del waiting[tx.txid]
    return ordered


# --- planning -----------------------------------------------------------------------------------------------


def plan_change(
    state: OnchainState,
    observation: Observation,
    *,
    last_revealed: int | None,
    alive: Collection[bytes] = frozenset(),
    now_s: int,
) -> OnchainChange:
    """The rows that change. Pure.

    state: as of now; it may have more rows than the one that was observed, but the same blocks (or, if a scan
    was taken in, more of the same chain).
    last_revealed: by the keychain, which learnt of payments during the search.
    alive: missing transactions that the network took again.
    """
    rows = _plan_transactions(state, observation, alive, now_s)
    changed = tuple(row for txid, row in rows.items() if state.transactions.get(txid) != row)
    confirmed_in = {
        row.confirmation.height: row.confirmation.block_hash
        for row in rows.values()
        if row.confirmation is not None
    }
    wallet: WalletRow | None = None
    if last_revealed is not None and last_revealed > _or(state.wallet.last_revealed, -1):
        wallet = replace(state.wallet, last_revealed=last_revealed)
    return OnchainChange(wallet, _plan_blocks(state, observation, confirmed_in), changed)


def _plan_transactions(
    state: OnchainState, observation: Observation, alive: Collection[bytes], now_s: int
) -> dict[bytes, TransactionRow]:
    rows = dict(state.transactions)
    seen: set[bytes] = set()
    for found in observation.findings.confirmed:
        txid = found.tx.txid
        seen.add(txid)
        rows[txid] = replace(
            rows.get(txid) or _new_row(found.tx),
            confirmation=Confirmation(found.block.height, found.block.hash, found.block_time),
        )
    for tx in observation.findings.mempool:
        row = rows.get(tx.txid) or _new_row(tx)
        if tx.txid in seen or _stands(row, observation.fork):
            continue
        seen.add(tx.txid)
        rows[tx.txid] = replace(
            row, confirmation=None, first_seen=_or(row.first_seen, now_s), last_seen=now_s
        )
    for key, row in rows.items():
        if key not in seen and not _stands(row, observation.fork):
            rows[key] = _missed(row, observation, is_alive=key in alive, now_s=now_s)
    return rows


def _missed(row: TransactionRow, observation: Observation, *, is_alive: bool, now_s: int) -> TransactionRow:
    """The row of a transaction that is in no known block and was not seen."""
    row = replace(row, confirmation=None)
    if is_alive:
        return replace(row, first_seen=_or(row.first_seen, now_s), last_seen=now_s)
    if not observation.is_complete or row.last_seen is None:
        return row
    return row if now_s - row.last_seen < EVICTION_GRACE_S else replace(row, last_seen=None)


def _plan_blocks(
    state: OnchainState, observation: Observation, confirmed_in: Mapping[int, bytes]
) -> tuple[BlockRow, ...]:
    blocks = {height: hash_ for height, hash_ in state.blocks.items() if height <= observation.fork.height}
    for block in (*observation.findings.blocks, observation.findings.until):
        blocks[block.height] = block.hash
    recent = sorted(blocks, reverse=True)[:KEPT_CHECKPOINTS]
    keep = {0, *recent}
    blocks = {height: hash_ for height, hash_ in blocks.items() if height in keep} | dict(confirmed_in)
    changed = [
        BlockRow(height, hash_) for height, hash_ in blocks.items() if state.blocks.get(height) != hash_
    ]
    gone = [BlockRow(height, None) for height in state.blocks if height not in blocks]
    return tuple(sorted(changed + gone, key=lambda row: row.height))


def _stands(row: TransactionRow, fork: BlockRef) -> bool:
    """Whether the row is confirmed in the part of the chain that both have."""
    return row.confirmation is not None and row.confirmation.height <= fork.height


def _new_row(tx: Tx) -> TransactionRow:
    return TransactionRow(tx.txid, tx.serialize(), confirmation=None, first_seen=None, last_seen=None)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
