"""Bringing a database to the newest schema, and refusing one that is newer than this program.

The migrations are Alembic's, in ``alembic/`` at the root of the source tree; an installed wheel carries the
same files as ``barkd_py/wallet/store/migrations``. Alembic itself is only imported when there is something to
migrate: it would be a large part of the daemon's start otherwise.
"""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from barkd_py.errors import StoreError

HEAD = "0006"
"""The newest migration; a test holds it against the files."""


class SchemaTooNew(StoreError):
    """A newer program migrated this database. Nothing was changed."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database has schema version {found}, which is newer than this program's {HEAD}: "
            "use the version of barkd-py that made it, or a newer one"
        )
        self.found = found


class DatabaseEmpty(StoreError):
    """Nobody has made a wallet's tables in it. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("the database is empty")


def migrations_directory() -> Path:
    """Where the migrations are: in the package, if it was built into a wheel; else at the tree's root."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "alembic"


async def migrate(writer: AsyncEngine, *, make: bool) -> None:
    """Apply the missing migrations, all in one transaction. Raises SchemaTooNew.

    make: also in an empty database; else that is DatabaseEmpty.
    """
    async with writer.begin() as connection:
        await connection.run_sync(_migrate, make)


def _migrate(connection: Connection, make: bool) -> None:
    found = version(connection)
    if found == HEAD:
        return
    if found is None and not make:
        raise DatabaseEmpty
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaTooNew(found)
    command.upgrade(config, HEAD)


def version(connection: Connection) -> str | None:
    """The migration that the database is at; None if it is empty."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
