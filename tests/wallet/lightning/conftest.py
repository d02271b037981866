"""A wallet that is to be paid, and the server it is paid through."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.lightning_server import ReceiveServer, StillChain
from tests.wallet.lightning.receiver import Receiver, open_receiver


@pytest.fixture
def server() -> ReceiveServer:
    return ReceiveServer(StillChain())


@pytest.fixture
async def receiver(sqlite_database: str, server: ReceiveServer) -> AsyncIterator[Receiver]:
    async with open_receiver(sqlite_database, server) as opened:
        yield opened
