"""A server over a chain built by hand, and users with open connections."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.settings import ServerSettings
from tests.devnet.ark_server.client import Client
from tests.fakes.server_chain import FakeServerChain

NOW = 1_761_818_819

StartServer = Callable[[ServerSettings], Awaitable[ArkServer]]


class SettableClock:
    """Unix seconds that stand still."""

    def __init__(self) -> None:
        self.now: float = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
async def chain() -> FakeServerChain:
    return FakeServerChain()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start_server(
    stack: AsyncExitStack, chain: FakeServerChain, tmp_path: Path, clock: SettableClock
) -> StartServer:
    async def start(settings: ServerSettings) -> ArkServer:
        server = await ArkServer.start(tmp_path / "ark", chain, settings=settings, clock=clock)
        stack.push_async_callback(server.stop)
        return server

    return start


@pytest.fixture
async def server(start_server: StartServer) -> ArkServer:
    return await start_server(ServerSettings())


@pytest.fixture
async def alice(stack: AsyncExitStack, server: ArkServer, chain: FakeServerChain) -> Client:
    return await stack.enter_async_context(Client(server, chain))


@pytest.fixture
async def bob(stack: AsyncExitStack, server: ArkServer, chain: FakeServerChain) -> Client:
    return await stack.enter_async_context(Client(server, chain))
