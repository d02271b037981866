"""A server with money, a Lightning node and a network around it; users who pay and are paid."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.lightning.outside import Outside
from barkd_py.devnet.lightning.server_node import ServerNode
from tests.devnet.ark_server.conftest import SettableClock
from tests.devnet.ark_server.lightning.client import LightningClient
from tests.devnet.ark_server.rounds.conftest import fund
from tests.fakes.server_chain import FakeServerChain

POOL_SAT = (20_000, 50_000, 200_000)
SETTINGS = ServerSettings(pool_amounts_sat=POOL_SAT)


@pytest.fixture
def settings() -> ServerSettings:
    """Override it for another server."""
    return SETTINGS


@pytest.fixture
async def node(tmp_path: Path, chain: FakeServerChain, clock: SettableClock) -> AsyncIterator[ServerNode]:
    (tmp_path / "lightning").mkdir()
    node = await ServerNode.open(tmp_path / "lightning", chain, clock)
    yield node
    await node.close()


@pytest.fixture
async def outside(node: ServerNode, chain: FakeServerChain, clock: SettableClock) -> Outside:
    return await Outside.open(node, chain, clock)


@pytest.fixture
async def server(
    tmp_path: Path,
    stack: AsyncExitStack,
    chain: FakeServerChain,
    clock: SettableClock,
    node: ServerNode,
    settings: ServerSettings,
) -> ArkServer:
    server = await ArkServer.start(
        tmp_path / "ark", chain, settings=settings, clock=clock, lightning_node=node
    )
    stack.push_async_callback(server.stop)
    await fund(server, chain, 5_000_000, 3_000_000)
    await server.pool.fill_up()
    chain.mine(*chain.mempool.values())
    await server.follower.catch_up()
    return server


@pytest.fixture
async def alice(stack: AsyncExitStack, server: ArkServer, chain: FakeServerChain) -> LightningClient:
    return await stack.enter_async_context(LightningClient(server, chain))


@pytest.fixture
async def bob(stack: AsyncExitStack, server: ArkServer, chain: FakeServerChain) -> LightningClient:
    return await stack.enter_async_context(LightningClient(server, chain))
