"""The same tables against a real bitcoind, so that devnet's mempool says what nodes say."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from barkd_py.devnet.chain.bitcoind import BitcoindNode
from tests.devnet.chain.policy_suite import *  # noqa: F403
from tests.devnet.purse import Purse

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def purse(tmp_path_factory: pytest.TempPathFactory, bitcoind_exec: str) -> AsyncIterator[Purse]:
    node = await BitcoindNode.start(Path(bitcoind_exec), tmp_path_factory.mktemp("bitcoind"))
    try:
        await node.mine(110)
        purse = Purse(node)
        await purse.fill(250)
        yield purse
    finally:
        await node.close()
