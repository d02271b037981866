"""Where the wallets of the flows keep their rows: files of SQLite, or databases of a private PostgreSQL.

A test gets the kind that BARKD_TEST_STORE names (`sqlite` unless it is set); a test that is marked
`both_stores` runs once on each, unless the variable names one.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Protocol

import asyncpg

from tests.support.postgres import Cluster

KINDS = ("sqlite", "postgresql")
CHOSEN = os.environ.get("BARKD_TEST_STORE")


class Databases(Protocol):
    async def url(self, name: str) -> str:
        """The path or URL of a database that exists, or may be made by opening it."""
        ...

    async def copy(self, source: str, target: str) -> str:
        """A copy of a database that nobody has open; its path or URL."""
        ...


class SqliteFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def url(self, name: str) -> str:
        return str(self._path(name))

    async def copy(self, source: str, target: str) -> str:
        return str(shutil.copy(self._path(source), self._path(target)))

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.sqlite"


class PostgresDatabases:
    """prefix: of the databases of one test. templates: databases that exist, by the names of their copies."""

    def __init__(self, cluster: Cluster, prefix: str, templates: dict[str, str]) -> None:
        self._cluster = cluster
        self._prefix = prefix
        self._templates = templates
        self._made: set[str] = set()

    async def url(self, name: str) -> str:
        if name not in self._made:
            await self._create(name, self._templates.get(name, "template1"))
        return self._cluster.url(self._named(name))

    async def copy(self, source: str, target: str) -> str:
        await self.url(source)
        await self._create(target, self._named(source))
        return await self.url(target)

    async def drop(self) -> None:
        """Whatever is still connected is cut."""
        await self._execute(*(f"DROP DATABASE {self._named(name)} WITH (FORCE)" for name in self._made))
        self._made.clear()

    async def _create(self, name: str, template: str) -> None:
        await self._execute(f"CREATE DATABASE {self._named(name)} TEMPLATE {template}")
        self._made.add(name)

    async def _execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(self._cluster.url("postgres"))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    def _named(self, name: str) -> str:
        return re.sub(r"\W", "_", f"{self._prefix}_{name}").lower()
