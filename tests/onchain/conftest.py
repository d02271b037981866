from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from barkd_py.bitcoin.bip32 import Seed, parse_mnemonic
from barkd_py.chain.source import ChainSource
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.devnet.chain.node import Node
from tests.fakes.chains import Clock, bitcoind_source, esplora_source
from tests.fakes.node_rpc import NodeRpc
from tests.fakes.onchain_store import MemoryOnchainStore


@pytest.fixture(scope="session")
def seed() -> Seed:
    return parse_mnemonic("abandon " * 11 + "about")


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


@pytest.fixture(params=["esplora", "bitcoind"])
async def source(request: pytest.FixtureRequest, node: Node, clock: Clock) -> AsyncIterator[ChainSource]:
    is_esplora = request.param == "esplora"
    chain = esplora_source(node, clock) if is_esplora else bitcoind_source(NodeRpc(node), clock)
    yield chain
    await chain.close()


@pytest.fixture
def store() -> MemoryOnchainStore:
    return MemoryOnchainStore()
