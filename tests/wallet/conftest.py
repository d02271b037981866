"""Every test of the store runs on both databases."""

import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from barkd_py.wallet.store import Store
from tests.support.postgres import Cluster, require_binaries, run_cluster
from tests.wallet.samples import Clock

_numbers = itertools.count()
_TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    with run_cluster(require_binaries()) as cluster:
        yield cluster


async def create_database(cluster: Cluster, name: str, template: str = "template1") -> str:
    connection = await asyncpg.connect(cluster.url("postgres"))
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    await connection.close()
    return cluster.url(name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def migrated_postgres(postgres: Cluster) -> str:
    """The name of a database with all tables and no rows."""
    await (await Store.open(await create_database(postgres, _TEMPLATE))).close()
    return _TEMPLATE


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables and no rows."""
    path = tmp_path_factory.mktemp("migrated") / "db.sqlite"
    await (await Store.open(str(path))).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/db.sqlite"
    return await create_database(request.getfixturevalue("postgres"), f"wallet_{next(_numbers)}")


@pytest.fixture
async def postgres_database(postgres: Cluster, migrated_postgres: str) -> str:
    """The URL of a database with all tables."""
    return await create_database(postgres, f"wallet_{next(_numbers)}", migrated_postgres)


@pytest.fixture
async def sqlite_database(migrated_sqlite: Path, tmp_path: Path) -> str:
    """The path of a database with all tables."""
    return str(shutil.copy(migrated_sqlite, tmp_path / "db.sqlite"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a database with all tables."""
    return str(request.getfixturevalue(f"{request.param}_database".replace("postgresql", "postgres")))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(database: str, clock: Clock) -> AsyncIterator[Store]:
    opened = await Store.open(database, clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite_store(sqlite_database: str, clock: Clock) -> AsyncIterator[Store]:
    """For tests of what stands on the store, which need no second database."""
    opened = await Store.open(sqlite_database, clock=clock)
    yield opened
    await opened.close()
