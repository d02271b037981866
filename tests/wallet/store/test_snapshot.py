"""The database as one file, from either kind of database and into either."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from barkd_py.wallet.movements import BOARD
from barkd_py.wallet.store import Store, snapshot
from barkd_py.wallet.store.backups import BackupNumber
from barkd_py.wallet.store.properties import WalletProperties
from barkd_py.wallet.store.snapshot import DatabaseNotEmpty, NoDatabase
from barkd_py.wallet.store.tables import lease, metadata
from tests.wallet.conftest import create_database
from tests.wallet.samples import insert, make_vtxo

Rows = dict[str, list[tuple[object, ...]]]


async def rows(store: Store) -> Rows:
    async with store.read() as tx:
        return {
            table.name: sorted(map(tuple, await tx._connection.execute(sa.select(table))), key=repr)
            for table in metadata.sorted_tables
            if table is not lease
        }


async def fill(store: Store) -> int:
    """Something in most tables; the id of its last movement."""
    await insert(store, *(make_vtxo(number) for number in range(1, 8)))
    async with store.transaction() as tx:
        await tx.properties.create(WalletProperties("regtest", "1a2b3c4d"))
        await tx.mailbox.advance(2**60 + 1)
        for _ in range(3):
            movement = await tx.movements.create(BOARD)
    return movement.id


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Awaitable[str]]:
    async def make(kind: str) -> str:
        if kind == "sqlite":
            return str(tmp_path / "restored.sqlite")
        return await create_database(request.getfixturevalue("postgres"), f"restored_{id(tmp_path)}")

    return make


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
async def test_a_backup_goes_from_any_database_into_any(
    database: str, target: str, tmp_path: Path, new_database: Callable[[str], Awaitable[str]]
) -> None:
    store = await Store.open(database)
    last = await fill(store)
    before = await rows(store)

    file = tmp_path / "backup"
    await snapshot.take(database, file)  # the store is open, as in a daemon
    snapshot.describe(file, {"number": "7"})
    await insert(store, make_vtxo(99))  # comes too late
    await store.close()

    assert snapshot.read_description(file) == {"number": "7"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("backup")] == ["backup"]
    plain = tmp_path / "plain"
    await snapshot.to_database_file(file, plain)
    url = await new_database(target)
    await snapshot.to_database(plain, url)
    again = await Store.open(url)
    assert await rows(again) == before
    async with again.transaction() as tx:
        assert (await tx.movements.create(BOARD)).id > last  # ids go on behind the copied ones
    await again.close()
    with pytest.raises(DatabaseNotEmpty):
        await snapshot.to_database(plain, url)


async def test_what_is_put_back_recovers_first(sqlite_database: str, tmp_path: Path) -> None:
    store = await Store.open(sqlite_database)
    await fill(store)
    await store.close()
    await snapshot.let_it_recover(Path(sqlite_database), BackupNumber(7, "today"))
    assert await snapshot.last_number(sqlite_database, "1a2b3c4d") == BackupNumber(7, "today")
    store = await Store.open(sqlite_database)
    async with store.read() as tx:
        assert (await tx.properties.get()).recovery_pending
        assert await tx.recovery.run() is None
    await store.close()


async def test_there_must_be_something_to_back_up(empty_database: str, tmp_path: Path) -> None:
    with pytest.raises(NoDatabase):
        await snapshot.take(empty_database.removeprefix("sqlite:///"), tmp_path / "backup")
