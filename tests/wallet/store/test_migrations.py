"""From an empty database to the newest schema, never backwards, wherever the program is installed."""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from barkd_py.wallet.store import Store, engine, migrate
from barkd_py.wallet.store.migrate import HEAD, SchemaTooNew
from barkd_py.wallet.store.schema import schema_sql
from barkd_py.wallet.store.tables import metadata
from tests.wallet.samples import insert, make_vtxo, states

ROOT = Path(__file__).parents[3]


async def run(url: str, statement: str) -> None:
    writer = engine.create_writer(engine.parse_url(url))
    async with writer.begin() as connection:
        await connection.execute(sa.text(statement))
    await writer.dispose()


async def tables_and_version(url: str) -> tuple[list[str], str]:
    def look(connection: Connection) -> tuple[list[str], str]:
        names = sorted(sa.inspect(connection).get_table_names())
        return names, connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()

    writer = engine.create_writer(engine.parse_url(url))
    async with writer.begin() as connection:
        found = await connection.run_sync(look)
    await writer.dispose()
    return found


async def test_an_empty_database_gets_the_newest_schema(empty_database: str) -> None:
    await (await Store.open(empty_database)).close()
    names, version = await tables_and_version(empty_database)
    assert names == sorted([*metadata.tables, "alembic_version"])
    assert version == HEAD


async def test_the_migrations_lead_to_the_tables_of_the_program(empty_database: str) -> None:
    await (await Store.open(empty_database)).close()

    def compare(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    writer = engine.create_writer(engine.parse_url(empty_database))
    async with writer.begin() as connection:
        differences = await connection.run_sync(compare)
    await writer.dispose()
    assert differences == []


async def test_opening_again_migrates_nothing(empty_database: str) -> None:
    await (await Store.open(empty_database)).close()
    before = await tables_and_version(empty_database)
    await (await Store.open(empty_database)).close()
    assert await tables_and_version(empty_database) == before


async def test_a_newer_schema_is_refused_and_left_alone(empty_database: str) -> None:
    store = await Store.open(empty_database)
    await insert(store, make_vtxo(1))
    before = await states(store)
    await store.close()
    await run(empty_database, "UPDATE alembic_version SET version_num = '9999'")
    tables = await tables_and_version(empty_database)

    with pytest.raises(SchemaTooNew, match="schema version 9999, which is newer than this program's"):
        await Store.open(empty_database)

    assert await tables_and_version(empty_database) == tables
    await run(empty_database, f"UPDATE alembic_version SET version_num = '{HEAD}'")
    store = await Store.open(empty_database)
    assert await states(store) == before
    await store.close()


async def test_a_failing_migration_leaves_the_database_empty(empty_database: str) -> None:
    """The first migration makes tables in alphabetical order; one in the middle is in its way."""
    await run(empty_database, "CREATE TABLE onchain_block (other INTEGER)")
    with pytest.raises(Exception, match="onchain_block"):
        await Store.open(empty_database)

    await run(empty_database, "DROP TABLE onchain_block")
    store = await Store.open(empty_database)
    assert await states(store) == {}
    await store.close()


async def test_schema_sql_is_that_of_the_newest_migration() -> None:
    assert (ROOT / "schema.sql").read_text() == await schema_sql(), "run: make generate"


def test_the_program_knows_its_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.migrations_directory()))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD], (
        "name the newest migration in HEAD of barkd_py/wallet/store/migrate.py"
    )


def test_a_migration_is_written_by_the_command_in_alembic_ini(tmp_path: Path) -> None:
    """What it finds to do is nothing: the tables are those of the newest migration."""
    for name in ("alembic.ini", "alembic", "schema.sql"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    (words,) = re.findall(r"^#\s+\.venv/bin/alembic (.+)$", (ROOT / "alembic.ini").read_text(), re.M)
    arguments = shlex.split(words)
    next_number = f"{int(HEAD) + 1:04}"
    assert arguments[arguments.index("--rev-id") + 1] == next_number
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "alembic.config", *arguments]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=120, capture_output=True)
    (written,) = set((tmp_path / "alembic" / "versions").glob("*.py")) - {
        tmp_path / path.relative_to(ROOT) for path in (ROOT / "alembic" / "versions").glob("*.py")
    }
    text = written.read_text()
    assert f"revision = '{next_number}'" in text
    assert "    op." not in text


def test_developers_get_the_same_directory() -> None:
    config = Config(str(ROOT / "alembic.ini"))
    assert Path(ScriptDirectory.from_config(config).dir) == migrate.migrations_directory() == ROOT / "alembic"


def test_an_up_to_date_database_opens_without_alembic(tmp_path: Path) -> None:
    """Importing it would be a large part of the daemon's start."""
    path = str(tmp_path / "db.sqlite")
    asyncio.run(_open_and_close(path))
    program = (
        "import asyncio, sys; from barkd_py.wallet.store import Store\n"
        "async def main():\n    await (await Store.open(sys.argv[1])).close()\n"
        "asyncio.run(main()); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, path], check=True, cwd=ROOT, timeout=120)


async def _open_and_close(path: str) -> None:
    await (await Store.open(path)).close()


def test_a_wheel_carries_the_migrations(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("alembic", "barkd_py"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], check=True, cwd=source, capture_output=True, timeout=120)
    (wheel,) = (source / "dist").glob("*.whl")
    installed = tmp_path / "installed"
    shutil.unpack_archive(wheel, installed, "zip")

    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import asyncio, barkd_py; from barkd_py.wallet.store import Store, migrate\n"
        f"assert barkd_py.__file__.startswith({str(installed)!r})\n"
        "async def main():\n    await (await Store.open('db.sqlite')).close()\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=120)
