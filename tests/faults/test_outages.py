"""The Ark server or the chain source goes away and comes back: what works meanwhile, and what comes after."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.conftest import BOARD_SAT, NET_SAT, Owner
from tests.faults.tcp import Wire, wire_to
from tests.support.processes import Daemon, Devnet, esplora, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

HASTY = {"BARK_DAEMON_SYNC_INTERVAL_SECS": "1"}
UNREACHABLE = (
    "You should be connected to Ark server to perform this action: "
    "Failed to connect to Ark server: handshake request failed"
)


@dataclass(frozen=True, slots=True)
class Remote:
    """Somebody who reaches server and chain over wires of the test."""

    owner: Owner
    to_server: Wire
    to_chain: Wire

    @property
    def daemon(self) -> Daemon:
        return self.owner.daemon


@pytest_asyncio.fixture(loop_scope="module")
async def remote(tmp_path: Path, devnet: Devnet) -> AsyncIterator[Remote]:
    """Has boarded."""
    daemon = Daemon(tmp_path / "datadir", env=HASTY)
    async with (
        wire_to(devnet.ark_server_target) as to_server,
        wire_to(devnet.esplora_url.removeprefix("http://")) as to_chain,
    ):
        try:
            await daemon.start()
            await daemon.create_wallet(to_server.url, esplora(to_chain.url))
            owner = Owner(daemon, devnet)
            await owner.board(BOARD_SAT)
            yield Remote(owner, to_server, to_chain)
        finally:
            await daemon.close()


WITHOUT_A_SERVER = [
    ("GET", "/wallet"),
    ("GET", "/wallet/balance"),
    ("GET", "/wallet/vtxos?all=true"),
    ("GET", "/wallet/addresses/index/0"),
    ("POST", "/wallet/addresses/next"),
    ("POST", "/wallet/sync"),
    ("GET", "/history"),
    ("GET", "/boards/pending"),
    ("GET", "/bitcoin/tip"),
    ("GET", "/fees/onchain"),
    ("GET", "/onchain/balance"),
    ("GET", "/onchain/utxos"),
    ("GET", "/onchain/transactions"),
    ("POST", "/onchain/addresses/next"),
    ("POST", "/onchain/sync"),
]


async def test_a_server_that_is_away_for_a_while(remote: Remote, bob: Owner) -> None:
    daemon = remote.daemon
    await remote.to_server.cut()

    mailbox = await remote.owner.refused("POST", "/wallet/sync/mailbox")
    assert mailbox.status == 500
    for method, path in WITHOUT_A_SERVER:
        served = await daemon.http.request(method, path)
        assert served.status_code == 200, (path, served.text)
    for method, path, body in (
        ("POST", "/wallet/send", {"destination": await bob.address(), "amount_sat": 1_000}),
        ("POST", "/boards/board-amount", {"amount_sat": 20_000}),
        ("GET", "/wallet/next-round", None),
    ):
        answer = await remote.owner.refused(method, path, body)
        assert (answer.status, answer.message[: len(UNREACHABLE)]) == (500, UNREACHABLE), path
    assert await remote.owner.total_sat() == NET_SAT
    assert len(await daemon.get("/history")) == 1

    await remote.to_server.mend()
    await remote.owner.send(await bob.address(), 1_000)
    before_sat = await remote.owner.spendable_sat()
    # And what comes in is noticed again, without anybody asking.
    await bob.board(50_000)
    await bob.send(await remote.owner.address(), 2_000)
    await eventually(remote.owner.spendable_sat, lambda sat: sat == before_sat + 2_000)


async def test_a_start_without_the_server(remote: Remote) -> None:
    daemon = remote.daemon
    assert daemon.process.terminate() == 0
    await remote.to_server.cut()
    await daemon.start()
    assert await daemon.get("/wallet/connected") == {"connected": False}
    info = await daemon.http.get("/wallet/ark-info")
    assert (info.status_code, info.json()["resources"]) == (404, ["ark server"])
    assert await remote.owner.total_sat() == NET_SAT

    await remote.to_server.mend()

    async def connected() -> bool:
        return bool((await daemon.get("/wallet/connected"))["connected"])

    await eventually(connected, bool)
    assert (await daemon.get("/wallet/ark-info"))["network"] == "regtest"


async def test_a_chain_source_that_is_away_for_a_while(remote: Remote, bob: Owner) -> None:
    daemon = remote.daemon
    await remote.to_chain.cut()
    for path in ("/wallet/balance", "/wallet/vtxos", "/history", "/onchain/balance", "/fees/onchain"):
        assert (await daemon.http.get(path)).status_code == 200, path
    await eventually(lambda: daemon.http.get("/bitcoin/tip"), lambda answer: answer.status_code == 500)
    assert (await daemon.http.post("/wallet/sync")).status_code == 200
    for path, body in (
        ("/onchain/sync", None),
        ("/boards/board-all", None),
        ("/wallet/send", {"destination": await bob.address(), "amount_sat": 1_000}),
    ):
        answer = await remote.owner.refused("POST", path, body)
        assert answer.status == 500
        assert "no answer from esplora" in answer.message
    assert await remote.owner.total_sat() == NET_SAT

    await remote.to_chain.mend()
    await remote.owner.send(await bob.address(), 1_000)
    await daemon.post("/onchain/sync")


async def test_no_start_without_the_chain_source(remote: Remote) -> None:
    daemon = remote.daemon
    assert daemon.process.terminate() == 0
    await remote.to_chain.cut()
    with pytest.raises(AssertionError, match="the daemon ended"):
        await daemon.start()
    assert "Error: failed to create a chain source client with the config" in daemon.process.tail()
    await remote.to_chain.mend()
    await daemon.start()
    assert await remote.owner.total_sat() == NET_SAT
