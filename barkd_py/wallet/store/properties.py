"""The wallet's own row: network, fingerprint, and the server it belongs to. Source: sheet 02 §1.8."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.bitcoin.keys import PublicKey
from barkd_py.errors import StateConflict, StoreError
from barkd_py.wallet.store.tables import properties as t


@dataclass(frozen=True, slots=True)
class WalletProperties:
    """network: as bitcoin software names it. fingerprint: 8 hex digits, of ``m/350'``.

    server_pubkey, server_mailbox_pubkey: pinned at the first connection, never changed afterwards.
    recovery_pending: recovery from the seed was begun and is not finished.
    """

    network: str
    fingerprint: str
    server_pubkey: PublicKey | None = None
    server_mailbox_pubkey: PublicKey | None = None
    recovery_pending: bool = False


class WalletExists(StateConflict):
    def __init__(self) -> None:
        super().__init__("the database holds a wallet already")


class ServerKeyPinned(StateConflict):
    """The database has a server key already, and it stays. Nothing was changed."""

    def __init__(self, which: str) -> None:
        super().__init__(f"failed to store {which}: it is already set")
        self.which = which


class PropertiesRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self) -> WalletProperties | None:
        """None: no wallet was created in this database."""
        row = (await self._connection.execute(sa.select(t))).one_or_none()
        if row is None:
            return None
        return WalletProperties(
            network=row.network,
            fingerprint=row.fingerprint,
            server_pubkey=_key(row.server_pubkey),
            server_mailbox_pubkey=_key(row.server_mailbox_pubkey),
            recovery_pending=row.recovery_pending,
        )

    async def get(self) -> WalletProperties:
        """Raises StoreError if no wallet was created."""
        if (found := await self.find()) is None:
            raise StoreError("the database holds no wallet")
        return found

    async def create(self, properties: WalletProperties) -> None:
        """Raises WalletExists."""
        if await self.find() is not None:
            raise WalletExists
        await self._connection.execute(
            sa.insert(t).values(
                id=1,
                network=properties.network,
                fingerprint=properties.fingerprint,
                server_pubkey=properties.server_pubkey and properties.server_pubkey.data,
                server_mailbox_pubkey=properties.server_mailbox_pubkey
                and properties.server_mailbox_pubkey.data,
                recovery_pending=properties.recovery_pending,
            )
        )

    async def pin_server_pubkey(self, key: PublicKey) -> None:
        """Raises ServerKeyPinned if one is stored, even the same."""
        await self._pin(t.c.server_pubkey, key, "server pubkey")

    async def pin_server_mailbox_pubkey(self, key: PublicKey) -> None:
        """Raises ServerKeyPinned if one is stored, even the same."""
        await self._pin(t.c.server_mailbox_pubkey, key, "server mailbox pubkey")

    async def set_recovery_pending(self, pending: bool) -> None:
        await self._connection.execute(sa.update(t).values(recovery_pending=pending))

    async def _pin(self, column: sa.Column[bytes | None], key: PublicKey, which: str) -> None:
        result = await self._connection.execute(
            sa.update(t).where(column.is_(None)).values({column: key.data}).returning(t.c.id)
        )
        if result.one_or_none() is None:
            raise ServerKeyPinned(which)


def _key(data: bytes | None) -> PublicKey | None:
    return None if data is None else PublicKey(data)
