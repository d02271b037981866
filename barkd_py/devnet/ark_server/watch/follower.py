"""Following the chain, to know which VTXOs have left the server's world.

The *frontier* is the set of outputs that are on chain, or are expected there, and were not spent there yet.
It starts with funding outputs. When a block's transaction spends one, the outputs that this transaction
makes take its place; a user's VTXO that enters the frontier this way has *exited*.

A reorg takes back what the lost blocks confirmed, and nothing else: a registered board stays registered. A
tip below the processed one is an ordinary reorg.

Source: sheet 10 §4, §10.1.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from barkd_py.bitcoin.tx import BlockHash, Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.devnet.ark_server.chain import ChainBlock, ServerChain
from barkd_py.devnet.ark_server.store.database import Store
from barkd_py.devnet.ark_server.store.tables import processed_block, virtual_tx, vtxo

log = logging.getLogger(__name__)

_RETRY_SECS = 1.0


class BlockObserver(Protocol):
    """Somebody else who keeps rows in step with the chain, in the same transactions."""

    def process(self, connection: Connection, block: ChainBlock) -> None:
        """Take the next block into account."""

    def roll_back(self, connection: Connection, height: int) -> None:
        """Take back everything above a height."""


class ChainFollower:
    """Keeps the database in step with the chain."""

    def __init__(self, chain: ServerChain, store: Store, observers: Sequence[BlockObserver] = ()) -> None:
        self._chain = chain
        self._store = store
        self._observers = observers
        self._busy = asyncio.Lock()

    async def run(self) -> None:
        """Follow the chain for ever. A failed pass is tried again after a while."""
        while True:
            try:
                processed = await self.catch_up()
                if processed == await self._chain.tip():
                    await self._chain.changed()
            except Exception:
                log.exception("following the chain failed")
                await asyncio.sleep(_RETRY_SECS)

    async def catch_up(self) -> BlockRef:
        """Process what is new; the last processed block. Safe to repeat, also at the same time."""
        async with self._busy:
            return await self._catch_up()

    async def _catch_up(self) -> BlockRef:
        processed = await self._fork()
        while (block := await self._chain.block(processed.height + 1)) is not None:
            if block.previous != processed.hash:
                # The chain changed under us.
                processed = await self._fork()
                continue
            await self._store.transact(partial(self._process, block=block))
            processed = block.ref
        return processed

    def _process(self, connection: Connection, block: ChainBlock) -> None:
        _process(connection, block)
        for observer in self._observers:
            observer.process(connection, block)

    def _roll_back(self, connection: Connection, height: int) -> None:
        _roll_back(connection, height)
        for observer in self._observers:
            observer.roll_back(connection, height)

    async def _fork(self) -> BlockRef:
        """Roll back to the last processed block that is still in the chain; that block.

        A server without history starts at the tip: whatever concerns it comes later.
        """
        stored = await self._store.transact(_last_processed)
        if stored is None:
            return await self._start()
        height: int | None = stored.height
        while height is not None:
            block_hash = await self._store.transact(partial(_processed_hash, height=height))
            if block_hash is not None and block_hash == await self._chain.block_hash(height):
                if height != stored.height:
                    log.info("reorg: back from %s to height %d", stored, height)
                    await self._store.transact(partial(self._roll_back, height=height))
                return BlockRef(height, block_hash)
            height = height - 1 if block_hash is not None else None
        log.warning("the chain is not the one that was followed before; starting at its tip")
        await self._store.transact(partial(self._roll_back, height=-1))
        return await self._start()

    async def _start(self) -> BlockRef:
        tip = await self._chain.tip()
        await self._store.transact(partial(_remember, block=tip))
        return tip


def _last_processed(connection: Connection) -> BlockRef | None:
    query = select(processed_block).order_by(processed_block.c.height.desc()).limit(1)
    found = connection.execute(query).one_or_none()
    return None if found is None else BlockRef(found.height, BlockHash(found.hash))


def _processed_hash(connection: Connection, height: int) -> BlockHash | None:
    query = select(processed_block.c.hash).where(processed_block.c.height == height)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else BlockHash(found)


def _remember(connection: Connection, block: BlockRef) -> None:
    connection.execute(insert(processed_block).values(height=block.height, hash=bytes(block.hash)))


def _process(connection: Connection, block: ChainBlock) -> None:
    _remember(connection, block.ref)
    if not connection.execute(select(func.count()).select_from(vtxo).where(vtxo.c.is_frontier)).scalar_one():
        return
    for tx in block.transactions:
        _confirm_expected(connection, tx.txid, block.ref.height)
        spent = [tx_in.prevout.to_bytes() for tx_in in tx.inputs]
        if _leave_frontier(connection, spent, tx.txid, block.ref.height):
            _enter_frontier(connection, tx.txid, block.ref.height)


def _confirm_expected(connection: Connection, txid: Txid, height: int) -> None:
    connection.execute(
        update(vtxo)
        .where(vtxo.c.is_frontier, vtxo.c.created_by == bytes(txid))
        .values(confirmed_height=height)
    )


def _leave_frontier(connection: Connection, spent: Iterable[bytes], txid: Txid, height: int) -> bool:
    changed = 0
    for vtxo_id in spent:
        result = connection.execute(
            update(vtxo)
            .where(vtxo.c.is_frontier, vtxo.c.id == vtxo_id)
            .values(is_frontier=False, onchain_spent_height=height, onchain_spent_by=bytes(txid))
        )
        changed += result.rowcount
    return changed > 0


def _enter_frontier(connection: Connection, txid: Txid, height: int) -> None:
    made = connection.execute(
        update(vtxo).where(vtxo.c.created_by == bytes(txid)).values(is_frontier=True, confirmed_height=height)
    )
    log.info("transaction %s took %d outputs on chain", txid, made.rowcount)


def _roll_back(connection: Connection, height: int) -> None:
    """Forget everything above a height."""
    is_funding = vtxo.c.created_by.in_(select(virtual_tx.c.txid).where(virtual_tx.c.is_funding))
    connection.execute(
        update(vtxo)
        .where(vtxo.c.onchain_spent_height > height)
        .values(is_frontier=True, onchain_spent_height=None, onchain_spent_by=None)
    )
    unconfirmed = vtxo.c.confirmed_height > height
    connection.execute(update(vtxo).where(unconfirmed, ~is_funding).values(is_frontier=False))
    connection.execute(update(vtxo).where(unconfirmed).values(confirmed_height=None))
    connection.execute(delete(processed_block).where(processed_block.c.height > height))
