"""The wallet itself: creation, recovery from its words, VTXOs that are brought from elsewhere."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import httpx

from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.daemon import backup
from barkd_py.datadir import Datadir
from barkd_py.onchain.keychain import Keychain, wallet_descriptor
from tests.crash.flows.flow import Act, Flow, ark_address, count_of
from tests.crash.world import World
from tests.support.processes import eventually

BOARD_SAT = 30_000
COIN_SAT = 70_001


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
    world.books.brought_back.add("victim")

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


# --- a recovery that is asked for


async def _lose(world: World) -> Act:
    """The wallet lacks a VTXO and a coin, as after a backup was put back, or another wallet of the same words
    was at work.
    """
    world.books.brought_back.add("victim")
    vtxo_id = await world.spare_vtxo()
    address = await _address_of_another_life(world)
    await _forget(world, vtxo_id)
    txid = str((await world.devnet.pull("/fund", address=address, amount_sat=COIN_SAT))["txid"])
    world.lost = vtxo_id, txid
    world.books.foreign.add(txid)
    world.books.wealth_sat += COIN_SAT
    await world.victim.post("/onchain/sync")
    assert await _found(world) == 0

    async def act() -> None:
        await _ask_for_recovery(world)

    return act


async def _ask_for_recovery(world: World) -> None:
    await world.victim.post("/wallet/recovery")
    await _until_recovered(world)


async def _found(world: World) -> int:
    """1: both are there, once; 0: neither is."""
    vtxo_id, txid = world.lost
    vtxos = [each["id"] for each in await world.victim.get("/wallet/vtxos")].count(vtxo_id)
    txids = [each["txid"] for each in await world.victim.get("/onchain/transactions")]
    assert txids.count(txid) == vtxos
    return vtxos


async def _address_of_another_life(world: World) -> str:
    """Twenty behind the last one that the wallet knows it has handed out."""
    last = (await world.victim.post("/onchain/addresses/next"))["address"]
    seed = parse_mnemonic((world.victim.datadir / "mnemonic").read_text())
    keychain = Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)
    index = next(index for index in range(10_000) if keychain.address(index) == last)
    return keychain.address(index + 20)


async def _forget(world: World, vtxo_id: str) -> None:
    """A VTXO goes out of the database."""
    world.victim.process.kill()
    with closing(sqlite3.connect(world.victim.datadir / "db.sqlite")) as database, database:
        for table, column in (("vtxo_state", "vtxo_id"), ("vtxo_body", "vtxo_id"), ("vtxo", "id")):
            database.execute(f"DELETE FROM {table} WHERE {column} = ?", (vtxo_id,))
    await world.victim.start()


# --- import


async def _import(world: World) -> Act:
    """A VTXO that the database has lost, of which somebody has a copy."""
    world.books.brought_back.add("victim")
    world.imported = await world.spare_vtxo()
    world.encoded = str((await world.victim.get(f"/wallet/vtxos/{world.imported}/encoded"))["encoded"])
    await _forget(world, world.imported)
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
    world.books.brought_back.add("victim")
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

ASKED_RECOVERY = Flow(
    "recovery that is asked for",
    _lose,
    _found,
    ("ReadMailbox",),
    may_not_happen=False,
    again=_ask_for_recovery,
)

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
    ASKED_RECOVERY,
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
