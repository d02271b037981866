"""Runs the migrations: on the connection that the store hands over, or on a URL given by a developer."""

import asyncio
from pathlib import Path

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

IN_MEMORY = "sqlite+aiosqlite://"


def run(connection: Connection, target_metadata: sa.MetaData | None = None) -> None:
    context.configure(
        connection=connection,
        target_metadata=target_metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_on_url(url: str) -> None:
    # For `alembic revision --autogenerate` alone: migrations never see the program's tables, which change.
    from barkd_py.wallet.store.tables import metadata

    engine = create_async_engine(url)
    async with engine.begin() as connection:
        if url == IN_MEMORY:
            await connection.run_sync(fill)
        await connection.run_sync(run, metadata)
    await engine.dispose()


def fill(connection: Connection) -> None:
    """Bring a throw-away database to where the migrations lead, which is what schema.sql says."""
    script = context.script
    for statement in (Path(script.dir).parent / "schema.sql").read_text().split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
    connection.execute(
        sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": script.get_current_head()}
    )


connection: Connection | None = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:
    given = sa.make_url(context.get_x_argument(as_dictionary=True).get("url", IN_MEMORY))
    driver = {"sqlite": "sqlite+aiosqlite"}.get(given.get_backend_name(), "postgresql+asyncpg")
    asyncio.run(run_on_url(given.set(drivername=driver).render_as_string(hide_password=False)))
