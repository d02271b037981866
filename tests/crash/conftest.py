"""One world for each module: what a run leaves behind is what the next one begins with."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.crash.world import DEVNET_OPTIONS, World, running_world
from tests.support.processes import Devnet, start_devnet


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Devnet]:
    options = getattr(request.module, "DEVNET", DEVNET_OPTIONS)
    running = start_devnet(tmp_path_factory.mktemp("devnet"), *options)
    yield running
    running.process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, devnet: Devnet) -> AsyncIterator[World]:
    async with running_world(tmp_path_factory.mktemp("world"), devnet) as running:
        yield running
        assert running.nonces.seen, "no nonce was seen at all"
