"""Lightning payments that happened: permanent, and the first write wins. Source: sheet 09 §5.1."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.wallet.store.tables import paid_invoice, settled_receive


@dataclass(frozen=True, slots=True)
class PaidInvoice:
    """An invoice that must never be paid again. payment_hash, preimage: 32 bytes."""

    payment_hash: bytes
    preimage: bytes
    paid_at: datetime


@dataclass(frozen=True, slots=True)
class SettledReceive:
    """A payment that we received. payment_hash, preimage: 32 bytes."""

    payment_hash: bytes
    preimage: bytes
    invoice: str
    amount_sat: int
    settled_at: datetime


class LightningRepository:
    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self._connection = connection
        self._now = now

    async def record_paid(self, payment_hash: bytes, preimage: bytes) -> None:
        """Record a payment; an earlier record stays."""
        if await self.find_paid(payment_hash) is None:
            await self._connection.execute(
                sa.insert(paid_invoice).values(
                    payment_hash=payment_hash, preimage=preimage, paid_at=self._now
                )
            )

    async def find_paid(self, payment_hash: bytes) -> PaidInvoice | None:
        rows = await self._connection.execute(
            sa.select(paid_invoice).where(paid_invoice.c.payment_hash == payment_hash)
        )
        row = rows.one_or_none()
        return None if row is None else PaidInvoice(row.payment_hash, row.preimage, row.paid_at)

    async def record_settled(
        self, payment_hash: bytes, preimage: bytes, invoice: str, amount_sat: int
    ) -> None:
        """Record a received payment; an earlier record stays."""
        if await self.find_settled(payment_hash) is None:
            await self._connection.execute(
                sa.insert(settled_receive).values(
                    payment_hash=payment_hash,
                    preimage=preimage,
                    invoice=invoice,
                    amount_sat=amount_sat,
                    settled_at=self._now,
                )
            )

    async def find_settled(self, payment_hash: bytes) -> SettledReceive | None:
        rows = await self._connection.execute(
            sa.select(settled_receive).where(settled_receive.c.payment_hash == payment_hash)
        )
        row = rows.one_or_none()
        return None if row is None else SettledReceive(*row)
