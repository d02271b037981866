"""VTXO keys that were ever handed out: their indexes, stored before the key is used.

Source: sheet 02 §1.6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.bitcoin.keys import PublicKey
from barkd_py.errors import NotFound, StateConflict
from barkd_py.wallet.store.rows import chunks
from barkd_py.wallet.store.tables import vtxo_key as t

# Built once, as what a payment needs of `vtxos` is.
_HIGHEST = sa.select(sa.func.max(t.c.key_index))
_AT_INDEXES = sa.select(t).where(t.c.key_index.in_(sa.bindparam("indexes", expanding=True)))
_FIND_MANY = sa.select(t).where(t.c.public_key.in_(sa.bindparam("public_keys", expanding=True)))
_INSERT = sa.insert(t)


@dataclass(frozen=True, slots=True)
class VtxoKey:
    """One of our VTXO keys: ``m/350'/0'/index``."""

    index: int
    public_key: PublicKey


class KeyIndexTaken(StateConflict):
    def __init__(self, index: int) -> None:
        super().__init__(f"vtxo key index {index} already stored under a different public key")
        self.index = index


class UnknownKeyIndex(NotFound):
    def __init__(self, index: int) -> None:
        super().__init__(f"VTXO key {index} does not exist, please derive it first", (str(index),))
        self.index = index


class KeyRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def next_index(self) -> int:
        """The index behind the highest stored one."""
        highest = (await self._connection.execute(_HIGHEST)).scalar_one()
        return 0 if highest is None else int(highest) + 1

    async def store(self, keys: Sequence[VtxoKey]) -> None:
        """Store keys; the same pair again is a no-op.

        Raises KeyIndexTaken if an index is stored with another key. Nothing was written then.
        """
        fresh: list[VtxoKey] = []
        for chunk in chunks(keys):
            rows = await self._connection.execute(_AT_INDEXES, {"indexes": [key.index for key in chunk]})
            known = {row.key_index: row.public_key for row in rows}
            for key in chunk:
                if known.get(key.index, key.public_key.data) != key.public_key.data:
                    raise KeyIndexTaken(key.index)
            fresh.extend(key for key in chunk if key.index not in known)
        if fresh:
            await self._connection.execute(
                _INSERT, [{"key_index": key.index, "public_key": key.public_key.data} for key in fresh]
            )

    async def get(self, index: int) -> VtxoKey:
        """Raises UnknownKeyIndex."""
        rows = await self._connection.execute(sa.select(t).where(t.c.key_index == index))
        if (row := rows.one_or_none()) is None:
            raise UnknownKeyIndex(index)
        return VtxoKey(row.key_index, PublicKey(row.public_key))

    async def find(self, public_key: PublicKey) -> VtxoKey | None:
        """Our key with this public key; nothing is derived to find it."""
        return (await self.find_many([public_key])).get(public_key)

    async def find_many(self, public_keys: Sequence[PublicKey]) -> dict[PublicKey, VtxoKey]:
        """Those of the public keys that are ours."""
        found: dict[PublicKey, VtxoKey] = {}
        for chunk in chunks(public_keys):
            rows = await self._connection.execute(
                _FIND_MANY, {"public_keys": [public_key.data for public_key in chunk]}
            )
            for row in rows:
                key = VtxoKey(row.key_index, PublicKey(row.public_key))
                found[key.public_key] = key
        return found
