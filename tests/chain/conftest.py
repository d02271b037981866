from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from barkd_py.chain.source import ChainSource
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.devnet.chain.node import Node
from tests.fakes.chains import Clock, bitcoind_source, esplora_source
from tests.fakes.node_rpc import NodeRpc


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A chain with mature coins in the faucet."""
    local = LocalNode(tmp_path)
    await local.mine(105)
    yield local
    await local.close()


@pytest.fixture
def rpc(node: Node) -> NodeRpc:
    return NodeRpc(node)


@pytest.fixture(params=["esplora", "bitcoind"])
async def source(
    request: pytest.FixtureRequest, node: Node, rpc: NodeRpc, clock: Clock
) -> AsyncIterator[ChainSource]:
    chain = esplora_source(node, clock) if request.param == "esplora" else bitcoind_source(rpc, clock)
    yield chain
    await chain.close()
