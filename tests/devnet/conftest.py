from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from barkd_py.devnet.chain.local import LocalNode


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[LocalNode]:
    """A chain whose faucet can pay."""
    local = LocalNode(tmp_path / "chain")
    await local.mine(110)
    yield local
    await local.close()
