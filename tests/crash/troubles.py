"""What else can go wrong around a daemon, while it goes on running; each as a context."""

import asyncio
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

import httpx

from barkd_py.bitcoin.tx import Tx
from tests.crash.case import Outcome, failed_movements, prepared, rehearse
from tests.crash.doomed_daemon import FULL
from tests.crash.flows.flow import Flow
from tests.crash.world import World
from tests.support.proxies import Dropped, HttpAnswer, HttpLiar, NetworkCall, asked, honest

MIDWAY = "disk full in the middle"
HOURS_2 = 2 * 60 * 60

ACT_SECS = 12.0
"""Long enough for every flow on a good day."""
HANG_SECS = 30.0
"""So long a person waits for an answer after that."""


@dataclass(frozen=True)
class Trouble:
    """context: as long as it lasts. hides_payments: what was delivered meanwhile is found by a recovery.
    midway: it comes in the middle of a flow that was rehearsed.
    """

    name: str
    context: Callable[[World], AbstractAsyncContextManager[None]]
    hides_payments: bool = False
    midway: bool = False

    def __str__(self) -> str:
        return self.name


@asynccontextmanager
async def _full_disk(world: World) -> AsyncIterator[None]:
    """No file of the daemon's may grow, nor be written to: what it writes fails."""
    process = world.victim.process
    process.limit_files(0)
    try:
        yield
    finally:
        process.limit_files(None)


@asynccontextmanager
async def _disk_full_midway(world: World) -> AsyncIterator[None]:
    """The same, from before the middle one of the flow's commits on."""
    victim = world.victim
    victim.doom.write_text(f"full {world.commits_seen // 2}")
    try:
        yield
    finally:
        victim.doom.unlink()
        victim.process.limit_files(None)


def _has_come(trouble: Trouble, world: World) -> bool:
    """One that comes midway may have missed a flow that had fewer commits this time."""
    return not trouble.midway or world.victim.doom.read_text() == FULL


@asynccontextmanager
async def _locked_database(world: World) -> AsyncIterator[None]:
    """Somebody else is in the middle of writing to the file, if there is one yet."""
    file = world.victim.datadir / "db.sqlite"
    if not file.exists():
        yield
        return
    other = sqlite3.connect(file, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


def _clock(offset_secs: int) -> Callable[[World], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def jumped(world: World) -> AsyncIterator[None]:
        world.victim.clock.write_text(str(offset_secs))
        try:
            yield
        finally:
            world.victim.clock.unlink()

    return jumped


def _network(
    trouble: Callable[[NetworkCall], Awaitable[None]],
) -> Callable[[World], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def troubled(world: World) -> AsyncIterator[None]:
        world.gate.trouble = trouble
        try:
            yield
        finally:
            world.gate.trouble = None

    return troubled


def _is_of_chain(call: NetworkCall) -> bool:
    return " " in call.name  # an HTTP method and a path; what is asked of the server is one word


async def _no_server(call: NetworkCall) -> None:
    if not _is_of_chain(call):
        raise Dropped


async def _no_chain(call: NetworkCall) -> None:
    if _is_of_chain(call):
        raise Dropped


def _lossy() -> Callable[[NetworkCall], Awaitable[None]]:
    """Every second answer of the server is lost, its work done."""
    lost = 0

    async def lose(call: NetworkCall) -> None:
        nonlocal lost
        if call.phase == "after" and not _is_of_chain(call):
            lost += 1
            if lost % 2:
                raise Dropped

    return lose


async def _slow(call: NetworkCall) -> None:
    if call.phase == "after":
        await asyncio.sleep(0.3)


@asynccontextmanager
async def _garbled(world: World) -> AsyncIterator[None]:
    """One bit of each of the server's answers is another, but for those that say who it is."""
    chance = random.Random(0)

    def flip(name: str, answer: bytes) -> bytes:
        if not answer or name in ("Handshake", "GetArkInfo"):
            return answer
        garbled = bytearray(answer)
        garbled[chance.randrange(len(garbled))] ^= 1 << chance.randrange(8)
        return bytes(garbled)

    world.lies.server = flip
    try:
        yield
    finally:
        world.lies.server = honest


def _chain_lies(lie: HttpLiar) -> Callable[[World], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lying(world: World) -> AsyncIterator[None]:
        world.lies.chain = lie
        try:
            yield
        finally:
            world.lies.chain = asked

    return lying


def _deny(method: str, path: str, body: bytes) -> HttpAnswer | None:
    """There is no such transaction, and no script has any."""
    if method == "GET" and path.startswith("/tx/"):
        return HttpAnswer(404, b"Transaction not found")
    if method == "GET" and path.startswith(("/scripthash/", "/address/")):
        return HttpAnswer(200, b"[]")
    return None


def _swallow(method: str, path: str, body: bytes) -> HttpAnswer | None:
    """What is broadcast is thanked for and forgotten."""
    if method != "POST":
        return None
    if path == "/tx":
        return HttpAnswer(200, str(Tx.parse(bytes.fromhex(body.decode())).txid).encode())
    return HttpAnswer(200, json.dumps({"package_msg": "success", "tx-results": {}}).encode())


TROUBLES = (
    Trouble("disk full", _full_disk),
    Trouble(MIDWAY, _disk_full_midway, midway=True),
    Trouble("database locked", _locked_database),
    Trouble("clock 2 h ahead", _clock(HOURS_2)),
    Trouble("clock 2 h behind", _clock(-HOURS_2)),
    Trouble("server away", _network(_no_server)),
    Trouble("chain source away", _network(_no_chain)),
    Trouble("every second answer lost", _network(_lossy())),
    Trouble("slow network", _network(_slow)),
    Trouble("server lies: a bit of each answer", _garbled, hides_payments=True),
    Trouble("chain source lies: knows no transaction", _chain_lies(_deny)),
    Trouble("chain source lies: broadcasts swallowed", _chain_lies(_swallow)),
)


async def run_trouble(world: World, flow: Flow, trouble: Trouble, act_secs: float = ACT_SECS) -> Outcome:
    """The flow under a trouble; when that is over, everything comes to its end by itself.

    Raises AssertionError.
    """
    if trouble.midway and world.rehearsed != flow.name:
        await rehearse(world, flow)
    async with prepared(world, flow) as case:
        acting = asyncio.ensure_future(case.act())
        async with trouble.context(world):
            await asyncio.wait({acting}, timeout=act_secs)
            struck = not acting.done() or acting.exception() is not None
            has_come = _has_come(trouble, world)
        # Refused, hanging, or done: whatever the person was told, the books must balance.
        with suppress(AssertionError, httpx.TransportError, TimeoutError):
            await asyncio.wait_for(acting, HANG_SECS)
        if flow.starts_daemon and not world.victim.process.running:
            await world.victim.start()  # it refused before, and a person tries again
        assert world.victim.process.running, f"{flow.name}, {trouble.name}: it died"
        if trouble.hides_payments:
            world.books.brought_back.add("victim")
            await world.victim.post("/wallet/recovery")
            await world.let_server_do_its_part()
        happened = await case.settled(trouble.name)
        was_told = struck or await failed_movements(world) > case.failed_before
        assert happened == 1 or was_told or trouble.hides_payments, f"{flow.name}, {trouble.name}"
        return Outcome(flow.name, trouble.name, has_come if trouble.midway else struck, happened)
