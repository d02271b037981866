"""A server that holds rounds when it is told to, with money, and users who take part in them."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from barkd_py.bitcoin.tx import TxOut
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.settings import ServerSettings
from tests.devnet.ark_server.conftest import StartServer
from tests.devnet.ark_server.rounds.client import RoundClient
from tests.fakes.server_chain import FakeServerChain

#: Windows stay open until the test ends them.
ON_DEMAND = ServerSettings(round_interval_secs=3600, round_submit_secs=600, round_sign_secs=600)

COINS = (5_000_000, 3_000_000, 1_000_000)

Connect = Callable[[ArkServer], Awaitable[RoundClient]]


async def fund(server: ArkServer, chain: FakeServerChain, *amounts_sat: int) -> None:
    """Give the server's wallet confirmed coins."""
    scripts = [await server.treasury.new_script() for _ in amounts_sat]
    outputs = [TxOut(amount_sat, script) for amount_sat, script in zip(amounts_sat, scripts, strict=True)]
    chain.mine(chain.funding_tx(*outputs))
    await server.follower.catch_up()


@pytest.fixture
def settings() -> ServerSettings:
    """Override it for another server."""
    return ON_DEMAND


@pytest.fixture
async def server(start_server: StartServer, chain: FakeServerChain, settings: ServerSettings) -> ArkServer:
    server = await start_server(settings)
    await fund(server, chain, *COINS)
    return server


@pytest.fixture
def connect(stack: AsyncExitStack, chain: FakeServerChain) -> Connect:
    async def connect(server: ArkServer) -> RoundClient:
        return await stack.enter_async_context(RoundClient(server, chain))

    return connect


@pytest.fixture
async def alice(server: ArkServer, connect: Connect) -> RoundClient:
    return await connect(server)


@pytest.fixture
async def bob(server: ArkServer, connect: Connect) -> RoundClient:
    return await connect(server)
