"""The wallet itself: creation, recovery from its words, VTXOs that are brought from elsewhere."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import httpx

from barkd_py.daemon import backup
from barkd_py.datadir import Datadir
from tests.crash.flows.flow import Act, Flow, ark_address, count_of
from tests.crash.world import World
from tests.support.processes import eventually

BOARD_SAT = 30_000


async def _has_wallet(world: World) -> bool:
    return (await world.victim.get("/wallet"))["fingerprint"] is not None


# --- creation


async def _create(world: World) -> Act:
    """Of a wallet in a daemon of its own, which stands in for the victim."""
    await world.stand_in()

    async def act() -> None:
        await world.create_wallet()

    return act


async def _create_again(world: World) -> None:
    if not await _has_wallet(world):
        await world.create_wallet()


async def _created(world: World) -> int:
    if not await _has_wallet(world):
        return 0
    assert (await ark_address(world.victim)).startswith("tark1")
    assert sum((await world.victim.get("/wallet/balance")).values()) == 0
    return 1


# --- recovery


async def _recover(world: World) -> Act:
    """The wallet is deleted, and created again from its words."""
    words = (world.victim.datadir / "mnemonic").read_text().strip()
    world.words, world.last_recovery = words, await _last_recovery(world)

    async def act() -> None:
        fingerprint = (await world.victim.get("/wallet"))["fingerprint"]
        body = {"dangerous": True, "fingerprint": fingerprint}
        answer = await world.victim.http.request("DELETE", "/wallet", json=body)
        assert answer.status_code == 200, answer.text
        await world.create_wallet(words)
        await _until_recovered(world)

    return act


async def _recover_again(world: World) -> None:
    if not await _has_wallet(world):
        await world.create_wallet(world.words)
    answer = await world.victim.http.get("/wallet/recovery")
    if answer.status_code == 200:
        await _until_recovered(world)


async def _until_recovered(world: World) -> None:
    """A daemon that has just been started may not have begun yet."""

    async def state() -> str | None:
        answer = await world.victim.http.get("/wallet/recovery")
        return str(answer.json()["state"]) if answer.status_code == 200 else None

    await eventually(state, lambda state: state == "finished")


async def _last_recovery(world: World) -> str | None:
    """When it began."""
    answer = await world.victim.http.get("/wallet/recovery")
    return str(answer.json()["started_at"]) if answer.status_code == 200 else None


async def _recovered(world: World) -> int:
    return int(await _last_recovery(world) != world.last_recovery)


# --- import


async def _import(world: World) -> Act:
    """A VTXO that the database has lost, of which somebody has a copy."""
    world.imported = await world.spare_vtxo()
    world.encoded = str((await world.victim.get(f"/wallet/vtxos/{world.imported}/encoded"))["encoded"])
    world.victim.process.kill()
    with closing(sqlite3.connect(world.victim.datadir / "db.sqlite")) as database, database:
        for table, column in (("vtxo_state", "vtxo_id"), ("vtxo_body", "vtxo_id"), ("vtxo", "id")):
            database.execute(f"DELETE FROM {table} WHERE {column} = ?", (world.imported,))
    await world.victim.start()
    assert await _imported(world) == 0

    async def act() -> None:
        await world.victim.post("/wallet/import-vtxo", {"vtxos": [world.encoded]})

    return act


async def _import_again(world: World) -> None:
    if not await _imported(world):
        await world.victim.post("/wallet/import-vtxo", {"vtxos": [world.encoded]})


async def _imported(world: World) -> int:
    return [each["id"] for each in await world.victim.get("/wallet/vtxos")].count(world.imported)


# --- a backup


async def _restore(world: World) -> Act:
    """It was made while a board was under way; then the machine was lost. Nothing has happened since."""
    await world.victim.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
    datadir, now = Datadir(world.victim.datadir), datetime.now(UTC)
    file = datadir.path.with_name("backup")
    file.unlink(missing_ok=True)
    await backup.make(datadir, None, file, now=now, with_mnemonic=True)
    world.victim.process.kill()
    shutil.rmtree(datadir.path)
    # One that was made in the middle of something must not be refused as an old one.
    await backup.restore(file, datadir, None, ask_mnemonic=str, accept_stale=False, now=now)

    async def act() -> None:
        await _start(world)
        await _until_recovered(world)
        await world.devnet.mine()
        await world.victim.post("/wallet/sync")

    return act


async def _start(world: World) -> None:
    """Raises TransportError if it dies before it answers."""
    try:
        await world.victim.start()
    except AssertionError as error:
        raise httpx.ConnectError(str(error)) from error


# Here the first words with the server belong to the flow.
_STREAMS = frozenset({"SubscribeRounds", "SubscribeMailbox", "NextRoundTime"})

FLOWS = (
    Flow(
        "wallet creation",
        _create,
        _created,
        ("Handshake", "GetArkInfo"),
        may_not_happen=False,
        again=_create_again,
        unrelated=_STREAMS,
    ),
    Flow(
        "recovery",
        _recover,
        _recovered,
        ("Handshake", "ReadMailbox"),
        again=_recover_again,
        unrelated=_STREAMS,
    ),
    Flow(
        "restore of a backup",
        _restore,
        count_of("board"),
        ("Handshake", "ReadMailbox", "RegisterBoardVtxo"),
        may_not_happen=False,
        again=_until_recovered,
        starts_daemon=True,
        unrelated=_STREAMS,
    ),
    Flow("import", _import, _imported, ("GET /tx",), may_not_happen=False, again=_import_again),
)
