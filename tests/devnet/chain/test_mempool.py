"""The built-in node's mempool against the tables of a real node's answers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from barkd_py.devnet.chain.local import LocalNode
from tests.devnet.chain.policy_suite import *  # noqa: F403
from tests.devnet.purse import Purse

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def purse(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Purse]:
    """One chain for all rows: each takes fresh coins, so they do not meet."""
    directory: Path = tmp_path_factory.mktemp("chain")
    node = LocalNode(directory)
    await node.mine(110)
    purse = Purse(node)
    await purse.fill(250)
    yield purse
    await node.close()
