"""Runs the migrations: on the connection that the store hands over, or on a URL given by a developer."""

import asyncio

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine


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
        await connection.run_sync(run, metadata)
    await engine.dispose()


connection: Connection | None = context.config.attributes.get("connection")
if connection is not None:
    run(connection)
else:
    given = sa.make_url(context.get_x_argument(as_dictionary=True).get("url", "sqlite://"))
    driver = {"sqlite": "sqlite+aiosqlite"}.get(given.get_backend_name(), "postgresql+asyncpg")
    asyncio.run(run_on_url(given.set(drivername=driver).render_as_string(hide_password=False)))
