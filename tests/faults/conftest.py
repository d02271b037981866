"""Daemons as processes on a devnet that a test may make lie, one of each per module."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet

BOARD_SAT = 500_000
NET_SAT = 499_400


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Somebody with a daemon and a wallet."""

    daemon: Daemon
    devnet: Devnet

    async def refused(self, method: str, path: str, body: Any = None) -> Refusal:
        """Ask for something that must not succeed."""
        return refusal(await self.daemon.http.request(method, path, json=body))

    async def spendable_sat(self) -> int:
        return int((await self.daemon.get("/wallet/balance"))["spendable_sat"])

    async def total_sat(self) -> int:
        balance: dict[str, int] = await self.daemon.get("/wallet/balance")
        return sum(balance.values())

    async def address(self) -> str:
        return str((await self.daemon.post("/wallet/addresses/next"))["address"])

    async def send(self, address: str, amount_sat: int) -> None:
        await self.daemon.post("/wallet/send", {"destination": address, "amount_sat": amount_sat})

    async def fund_onchain(self, amount_sat: int) -> None:
        await self.devnet.fund((await self.daemon.post("/onchain/addresses/next"))["address"], amount_sat)
        await self.daemon.post("/onchain/sync")

    async def board(self, amount_sat: int) -> None:
        """Board, and wait until it is spendable."""
        before_sat = await self.spendable_sat()
        await self.fund_onchain(amount_sat + 10_000)
        await self.daemon.post("/boards/board-amount", {"amount_sat": amount_sat})
        await eventually(self._mined_and_synced_sat, lambda now_sat: now_sat > before_sat)

    async def _mined_and_synced_sat(self) -> int:
        """Mines each time: the funding transaction may be a little late."""
        await self.devnet.mine()
        await self.daemon.post("/wallet/sync")
        return await self.spendable_sat()


def refusal(answer: httpx.Response) -> Refusal:
    assert answer.status_code >= 400, answer.text
    return Refusal(answer.status_code, answer.json()["message"])


@pytest.fixture(scope="module")
def running_devnet(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Devnet]:
    options = getattr(request.module, "DEVNET_OPTIONS", ())
    running = start_devnet(tmp_path_factory.mktemp("devnet"), *options)
    yield running
    running.process.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def devnet(running_devnet: Devnet) -> AsyncIterator[Devnet]:
    """Honest again after each test."""
    yield running_devnet
    await running_devnet.clear_faults()


async def _new_owner(directory: Any, devnet: Devnet) -> Owner:
    daemon = Daemon(directory)
    await daemon.start()
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    return Owner(daemon, devnet)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alice(tmp_path_factory: pytest.TempPathFactory, running_devnet: Devnet) -> AsyncIterator[Owner]:
    """Has boarded."""
    owner = await _new_owner(tmp_path_factory.mktemp("alice") / "datadir", running_devnet)
    await owner.board(BOARD_SAT)
    yield owner
    await owner.daemon.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def carol(tmp_path_factory: pytest.TempPathFactory, running_devnet: Devnet) -> AsyncIterator[Owner]:
    """Has boarded."""
    owner = await _new_owner(tmp_path_factory.mktemp("carol") / "datadir", running_devnet)
    await owner.board(BOARD_SAT)
    yield owner
    await owner.daemon.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bob(tmp_path_factory: pytest.TempPathFactory, running_devnet: Devnet) -> AsyncIterator[Owner]:
    """Has no money to begin with."""
    owner = await _new_owner(tmp_path_factory.mktemp("bob") / "datadir", running_devnet)
    yield owner
    await owner.daemon.close()
