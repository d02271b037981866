"""`POST /wallet/recovery` in a wallet that lacks something: a VTXO and a coin; killed on the way to them.

As after a backup was put back, or another wallet of the same words was at work.
"""

import sqlite3
from contextlib import closing

import pytest

from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.onchain.keychain import Keychain, wallet_descriptor
from tests.crash.case import rehearse, run_case
from tests.crash.flows.flow import Act, Flow
from tests.crash.world import KillPoint, World
from tests.support.processes import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

COIN_SAT = 70_001
TRIED = 5


class Lost:
    """What the wallet lacks: the id of its VTXO, the transaction of its coin."""

    vtxo_id = ""
    txid = ""

    async def lose(self, world: World) -> Act:
        self.vtxo_id = await world.spare_vtxo()
        address = await _address_of_another_life(world)
        world.victim.process.kill()
        with closing(sqlite3.connect(world.victim.datadir / "db.sqlite")) as database, database:
            for table, column in (("vtxo_state", "vtxo_id"), ("vtxo_body", "vtxo_id"), ("vtxo", "id")):
                database.execute(f"DELETE FROM {table} WHERE {column} = ?", (self.vtxo_id,))
        await world.victim.start()
        self.txid = str((await world.devnet.pull("/fund", address=address, amount_sat=COIN_SAT))["txid"])
        world.books.foreign.add(self.txid)
        world.books.wealth_sat += COIN_SAT
        await world.victim.post("/onchain/sync")
        assert await self.found(world) == 0

        async def act() -> None:
            await _recover(world)

        return act

    async def found(self, world: World) -> int:
        """1: both are there, once; 0: neither is."""
        vtxos = [each["id"] for each in await world.victim.get("/wallet/vtxos")].count(self.vtxo_id)
        txids = [each["txid"] for each in await world.victim.get("/onchain/transactions")]
        assert txids.count(self.txid) == vtxos
        return vtxos


async def _address_of_another_life(world: World) -> str:
    """Twenty behind the last one that the wallet knows it has handed out."""
    last = (await world.victim.post("/onchain/addresses/next"))["address"]
    seed = parse_mnemonic((world.victim.datadir / "mnemonic").read_text())
    keychain = Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)
    index = next(index for index in range(10_000) if keychain.address(index) == last)
    return keychain.address(index + 20)


async def _recover(world: World) -> None:
    await world.victim.post("/wallet/recovery")

    async def state() -> str:
        return str((await world.victim.get("/wallet/recovery"))["state"])

    await eventually(state, lambda state: state == "finished")


async def test_what_a_wallet_lacks_is_found_whenever_the_search_is_killed(world: World) -> None:
    lost = Lost()
    flow = Flow(
        "a recovery that is asked for",
        lost.lose,
        lost.found,
        ("ReadMailbox",),
        may_not_happen=False,
        again=_recover,
    )
    commits = [point for point in await rehearse(world, flow) if point.what == "commit"]
    count = len(commits) // 2
    assert count >= TRIED
    killed = 0
    for nth in sorted({number * (count - 1) // (TRIED - 1) for number in range(TRIED)}):
        outcome = await run_case(world, flow, KillPoint("commit", "before" if nth % 2 else "after", nth))
        killed += outcome.was_killed
    assert killed >= TRIED // 2  # some of the commits were of what the daemon does beside it
