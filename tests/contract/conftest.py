from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.api_server import RunningApi, running_api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningApi]:
    """That of barkd 0.8.0, with a wallet in memory."""
    directory = tmp_path_factory.mktemp("datadir") / "d"
    async with running_api(directory, with_wallet=True, rest_contract="0.8.0") as running:
        yield running
