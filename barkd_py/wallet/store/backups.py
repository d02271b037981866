"""The number of the newest backup of a wallet, kept where the wallet is.

Several machines may share a PostgreSQL database, and any of them makes backups, so they count there. The
numbers are written beside a running daemon, which does not look at them: its lease is not asked for. They
outlive the wallet's deletion, and so tell that a backup is old when it is put back into the same database.

Three things are written. A number is taken before its backup is made, so that no two have the same. It is
announced when the backup is whole, just before it gets its name; and noted once it is where it belongs. What
comes to nothing takes its announcement back, for it must not take the earlier backup with it. Who is killed
in between leaves it: nobody can tell whether there is such a backup, and those before it may be old.
"""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from barkd_py.wallet.store.tables import last_backup as t

# Both databases know it; one statement, so that two who count at once get two numbers.
# The numbers that were taken have a row of their own.
_NEXT = sa.text(
    """
    INSERT INTO last_backup (fingerprint, number, made_at)
    SELECT fingerprint || ' taken', CAST(:above AS BIGINT) + 1, :made_at
    FROM properties WHERE fingerprint = :fingerprint
    ON CONFLICT (fingerprint) DO UPDATE SET
        number = CASE WHEN last_backup.number > :above THEN last_backup.number ELSE :above END + 1,
        made_at = excluded.made_at
    RETURNING number
    """
)
# So have those that were announced, each its own: several machines may be at it.
_ANNOUNCE = sa.text(
    """
    INSERT INTO last_backup (fingerprint, number, made_at) VALUES (:key, :number, :made_at)
    ON CONFLICT (fingerprint) DO UPDATE SET number = excluded.number, made_at = excluded.made_at
    """
)
_NOTE = sa.text(
    """
    INSERT INTO last_backup (fingerprint, number, made_at) VALUES (:fingerprint, :number, :made_at)
    ON CONFLICT (fingerprint) DO UPDATE SET number = excluded.number, made_at = excluded.made_at
    WHERE last_backup.number < excluded.number
    """
)


@dataclass(frozen=True, slots=True)
class BackupNumber:
    """made_at: for a person to read; of what was only announced it says that too."""

    number: int
    made_at: str


def announced(fingerprint: str, number: int | None = None) -> str:
    """The name under which an announcement is kept, or what all of a wallet's begin with."""
    return f"{fingerprint} announced {'' if number is None else number}"


class BackupRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def last(self, fingerprint: str) -> BackupNumber | None:
        """The highest that was noted or announced. None: no backup was ever made of it here."""
        query = (
            sa.select(t)
            .where((t.c.fingerprint == fingerprint) | t.c.fingerprint.startswith(announced(fingerprint)))
            .order_by(t.c.number.desc(), sa.func.length(t.c.fingerprint))
            .limit(1)
        )
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else BackupNumber(row.number, row.made_at)

    async def taken(self, fingerprint: str) -> int:
        """The last number that was taken; 0 if none was."""
        query = sa.select(t.c.number).where(t.c.fingerprint == f"{fingerprint} taken")
        return (await self._connection.execute(query)).scalar_one_or_none() or 0

    async def count(self, fingerprint: str, *, above: int, made_at: str) -> int | None:
        """Take the next number, above all that were taken here and another one. None: another wallet's."""
        values = {"fingerprint": fingerprint, "above": above, "made_at": made_at}
        number = (await self._connection.execute(_NEXT, values)).scalar_one_or_none()
        return None if number is None else int(number)

    async def announce(self, fingerprint: str, coming: BackupNumber) -> None:
        """That this one is about to be there."""
        key = announced(fingerprint, coming.number)
        values = {"key": key, "number": coming.number, "made_at": coming.made_at}
        await self._connection.execute(_ANNOUNCE, values)

    async def withdraw(self, fingerprint: str, number: int) -> None:
        """It is not there after all."""
        await self._connection.execute(sa.delete(t).where(t.c.fingerprint == announced(fingerprint, number)))

    async def note(self, fingerprint: str, noted: BackupNumber) -> None:
        """That this one was made, wherever that was."""
        values = {"fingerprint": fingerprint, "number": noted.number, "made_at": noted.made_at}
        await self._connection.execute(_NOTE, values)
        await self._connection.execute(
            sa.delete(t).where(
                t.c.fingerprint.startswith(announced(fingerprint)) & (t.c.number <= noted.number)
            )
        )
