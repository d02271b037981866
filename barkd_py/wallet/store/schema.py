"""Prints the schema after the newest migration: ``python -m barkd_py.wallet.store.schema > schema.sql``."""

import asyncio
import tempfile
from pathlib import Path

import sqlalchemy as sa

from barkd_py.wallet.store import engine
from barkd_py.wallet.store.transaction import Store

HEADER = "-- The SQLite database after the newest migration. Generated; see `make generate`.\n"


async def schema_sql() -> str:
    """The statements that make an empty SQLite wallet, tables before their indexes, in alphabetical order."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "db.sqlite")
        await (await Store.open(path)).close()
        reader = engine.create_reader(engine.parse_url(path))
        async with reader.connect() as connection:
            rows = await connection.execute(
                sa.text(
                    "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
                    " ORDER BY tbl_name, type = 'index', name"
                )
            )
            statements = [row.sql for row in rows]
        await reader.dispose()
    lines = "\n\n".join(f"{statement};" for statement in statements).replace("\t", "    ").splitlines()
    return HEADER + "\n" + "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    print(asyncio.run(schema_sql()), end="")
