"""The rows of the on-chain wallet; their meaning is documented in `barkd_py.onchain.store`.

`OnchainTables` is the `OnchainStore` that the on-chain wallet is given.
"""

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.onchain.store import (
    Confirmation,
    OnchainChange,
    OnchainState,
    OutputRow,
    TransactionRow,
    WalletRow,
)
from barkd_py.wallet.store.rows import chunks
from barkd_py.wallet.store.tables import onchain_block, onchain_output, onchain_transaction, onchain_wallet


class OnchainRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def load(self) -> OnchainState | None:
        """All rows; None if no wallet row was ever stored."""
        wallet = (await self._connection.execute(sa.select(onchain_wallet))).one_or_none()
        if wallet is None:
            return None
        blocks = await self._connection.execute(sa.select(onchain_block).order_by(onchain_block.c.height))
        transactions = await self._connection.execute(sa.select(onchain_transaction))
        outputs = await self._connection.execute(sa.select(onchain_output))
        return OnchainState(
            wallet=WalletRow(wallet.network, wallet.descriptor, wallet.last_revealed),
            blocks={row.height: row.hash for row in blocks},
            transactions={row.txid: _transaction(row) for row in transactions},
            outputs={
                (row.txid, row.vout): OutputRow(row.txid, row.vout, row.value_sat, row.script_pubkey)
                for row in outputs
            },
        )

    async def append(self, change: OnchainChange) -> None:
        """Apply one change: every row replaces the row with its key."""
        if (wallet := change.wallet) is not None:
            await self._connection.execute(sa.delete(onchain_wallet))
            await self._connection.execute(
                sa.insert(onchain_wallet).values(
                    id=1,
                    network=wallet.network,
                    descriptor=wallet.descriptor,
                    last_revealed=wallet.last_revealed,
                )
            )
        blocks = {block.height: block.hash for block in change.blocks}
        await self._replace(
            onchain_block,
            (onchain_block.c.height,),
            [(height,) for height in blocks],
            [{"height": height, "hash": hash_} for height, hash_ in blocks.items() if hash_ is not None],
        )
        transactions = {row.txid: _transaction_columns(row) for row in change.transactions}
        await self._replace(
            onchain_transaction,
            (onchain_transaction.c.txid,),
            [(txid,) for txid in transactions],
            list(transactions.values()),
        )
        outputs = {
            (row.txid, row.vout): {
                "txid": row.txid,
                "vout": row.vout,
                "value_sat": row.value_sat,
                "script_pubkey": row.script_pubkey,
            }
            for row in change.outputs
        }
        await self._replace(
            onchain_output,
            (onchain_output.c.txid, onchain_output.c.vout),
            list(outputs),
            list(outputs.values()),
        )

    async def _replace(
        self,
        table: sa.Table,
        key: tuple[sa.Column[Any], ...],
        keys: list[tuple[Any, ...]],
        rows: list[dict[str, Any]],
    ) -> None:
        for chunk in chunks(keys):
            one_column = len(key) == 1
            where = (
                key[0].in_([values[0] for values in chunk])
                if one_column
                else sa.tuple_(*key).in_(list(chunk))
            )
            await self._connection.execute(sa.delete(table).where(where))
        if rows:
            await self._connection.execute(sa.insert(table), rows)


class _OnchainTransaction(Protocol):
    @property
    def onchain(self) -> OnchainRepository: ...


class _Transactions(Protocol):
    """What is needed of `Store`."""

    def transaction(self) -> AbstractAsyncContextManager[_OnchainTransaction]: ...

    def read(self) -> AbstractAsyncContextManager[_OnchainTransaction]: ...


class OnchainTables:
    """An `OnchainStore` in the wallet's database."""

    def __init__(self, store: _Transactions) -> None:
        self._store = store

    async def load(self) -> OnchainState | None:
        async with self._store.read() as tx:
            return await tx.onchain.load()

    async def append(self, change: OnchainChange) -> None:
        async with self._store.transaction() as tx:
            await tx.onchain.append(change)


def _transaction(row: Any) -> TransactionRow:
    confirmation = (
        None
        if row.confirmed_height is None
        else Confirmation(row.confirmed_height, row.confirmed_block_hash, row.confirmed_time)
    )
    return TransactionRow(row.txid, row.raw, confirmation, row.first_seen, row.last_seen)


def _transaction_columns(row: TransactionRow) -> dict[str, Any]:
    confirmation = row.confirmation
    return {
        "txid": row.txid,
        "raw": row.raw,
        "confirmed_height": confirmation and confirmation.height,
        "confirmed_block_hash": confirmation and confirmation.block_hash,
        "confirmed_time": confirmation and confirmation.time,
        "first_seen": row.first_seen,
        "last_seen": row.last_seen,
    }
