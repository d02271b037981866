"""The daemon is killed around every network call of an exit and of its claim, and started again.

As in `test_kill_at_each_call`, an undisturbed run tells which calls there are. After the restart the exit
goes on and ends as claimed, with one child and one claim. `tests/wallet/exits/test_crashes.py` does the same
for every commit, in one process.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.executioner import KillPoint, Victim, running_victim
from tests.support.processes import Daemon, Devnet, eventually, start_devnet

BOARD_SAT = 30_000
EXIT_DELTA = 12
MINED_AT_ONCE = EXIT_DELTA

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    running = start_devnet(tmp_path_factory.mktemp("devnet"))
    yield running
    running.process.kill()


@pytest_asyncio.fixture
async def victim(tmp_path: Path, devnet: Devnet) -> AsyncIterator[Victim]:
    async with running_victim(tmp_path / "victim", devnet) as running:
        yield running


async def board(victim: Victim) -> str:
    """A new VTXO, ready to be exited; its id."""
    await victim.daemon.post("/boards/board-amount", {"amount_sat": BOARD_SAT})
    await victim.devnet.mine()

    async def spendable() -> list[str]:
        await victim.daemon.post("/wallet/sync")
        vtxos = await victim.daemon.get("/wallet/vtxos")
        return [vtxo["id"] for vtxo in vtxos if vtxo["state"]["type"] == "spendable"]

    (vtxo_id,) = await eventually(spendable, lambda found: len(found) == 1)
    return str(vtxo_id)


async def status(daemon: Daemon, vtxo_id: str) -> str:
    return str((await daemon.get(f"/exits/status/{vtxo_id}"))["state"]["type"])


async def total_sat(daemon: Daemon) -> int:
    await daemon.post("/onchain/sync")
    return int((await daemon.get("/onchain/balance"))["total_sat"])


async def claim(daemon: Daemon) -> None:
    address = (await daemon.post("/onchain/addresses/next"))["address"]
    await daemon.post("/exits/claim/all", {"destination": address})


async def reach_claimable(victim: Victim, vtxo_id: str) -> None:
    """From wherever it is."""
    daemon = victim.daemon

    async def progressed() -> str:
        await daemon.post("/exits/progress")
        kind = await status(daemon, vtxo_id)
        await victim.devnet.mine(MINED_AT_ONCE if kind == "awaiting-delta" else 1)
        return kind

    await eventually(progressed, lambda kind: kind in ("claimable", "claim-in-progress", "claimed"))


async def finish_claim(victim: Victim, vtxo_id: str) -> None:
    """Claim it unless that is under way; and a block."""
    daemon = victim.daemon

    async def progressed() -> str:
        await daemon.post("/exits/progress")
        kind = await status(daemon, vtxo_id)
        if kind == "claimable":
            await claim(daemon)
        await victim.devnet.mine()
        return kind

    await eventually(progressed, lambda kind: kind == "claimed")


async def confirmed_children(daemon: Daemon) -> int:
    """How many children were ever paid; none is waiting, so none was made twice."""
    transactions = await daemon.get("/onchain/transactions")
    children = [tx for tx in transactions if tx["is_cpfp"]]
    assert all(tx["confirmation"] is not None for tx in children), "a second child is waiting"
    return len(children)


def distinct_points(victim: Victim) -> list[KillPoint]:
    """One for each kind of call that an exit makes; the look-ups of the on-chain wallet are not its own."""
    return [
        point for point in victim.gate.points() if point.nth == 0 and point.call.name != "GET /scripthash"
    ]


async def points_of_exit(victim: Victim) -> list[KillPoint]:
    vtxo_id = await board(victim)

    async def go() -> None:
        await victim.daemon.post("/exits/start/vtxos", {"vtxos": [vtxo_id]})
        await victim.daemon.post("/exits/progress")
        await victim.devnet.mine()
        await victim.daemon.post("/exits/progress")

    await victim.interrupted(None, go)
    points = distinct_points(victim)
    await reach_claimable(victim, vtxo_id)
    await finish_claim(victim, vtxo_id)
    return points


async def test_an_exit_survives_a_kill_around_each_call(victim: Victim) -> None:
    daemon, devnet = victim.daemon, victim.devnet
    points = await points_of_exit(victim)
    assert "POST /txs" in {point.call.name for point in points}, points
    for point in points:
        children = await confirmed_children(daemon)
        vtxo_id = await board(victim)

        async def go(vtxo_id: str = vtxo_id) -> None:
            await daemon.post("/exits/start/vtxos", {"vtxos": [vtxo_id]})
            await daemon.post("/exits/progress")
            await devnet.mine()
            await daemon.post("/exits/progress")

        await victim.interrupted(point, go)
        if not await is_exiting(daemon, vtxo_id):  # killed before the start was stored
            await daemon.post("/exits/start/vtxos", {"vtxos": [vtxo_id]})
        await reach_claimable(victim, vtxo_id)
        await finish_claim(victim, vtxo_id)
        await daemon.post("/onchain/sync")
        assert await confirmed_children(daemon) == children + 1, point
        assert await pending(daemon) == [], point


async def test_a_claim_survives_a_kill_around_each_call(victim: Victim) -> None:
    daemon = victim.daemon
    points: list[KillPoint | None] = [None]
    rehearsed = False
    while points:
        point = points.pop(0)
        vtxo_id = await board(victim)
        await daemon.post("/exits/start/vtxos", {"vtxos": [vtxo_id]})
        await reach_claimable(victim, vtxo_id)
        before_sat = await total_sat(daemon)
        await victim.interrupted(point, lambda: claim(daemon))
        if not rehearsed:
            rehearsed = True
            points += distinct_points(victim)
            assert "POST /tx" in {each.call.name for each in points if each is not None}
        await finish_claim(victim, vtxo_id)
        gained_sat = await total_sat(daemon) - before_sat
        assert await claims_of(daemon, vtxo_id) == 1, point
        assert 0 < gained_sat < BOARD_SAT, point


async def is_exiting(daemon: Daemon, vtxo_id: str) -> bool:
    exits = await daemon.get("/exits/status")
    return vtxo_id in [entry["vtxo_id"] for entry in exits]


async def pending(daemon: Daemon) -> list[Any]:
    history = await daemon.get("/history")
    return [movement for movement in history if movement["status"] == "pending"]


async def claims_of(daemon: Daemon, vtxo_id: str) -> int:
    """How many transactions of the on-chain wallet spend the VTXO's output."""
    txid, vout = vtxo_id.split(":")
    needle = bytes.fromhex(txid)[::-1].hex() + int(vout).to_bytes(4, "little").hex()
    transactions = await daemon.get("/onchain/transactions")
    return sum(needle in tx["tx"] for tx in transactions)
