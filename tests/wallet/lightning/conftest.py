"""Wallets that pay and are to be paid, and the servers that do it."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.lightning_server import ReceiveServer, StillChain
from tests.fakes.pay_server import PayServer
from tests.wallet.lightning.payer import Payer, open_payer
from tests.wallet.lightning.receiver import Receiver, open_receiver


@pytest.fixture
def server() -> ReceiveServer:
    return ReceiveServer(StillChain())


@pytest.fixture
async def receiver(sqlite_database: str, server: ReceiveServer) -> AsyncIterator[Receiver]:
    async with open_receiver(sqlite_database, server) as opened:
        yield opened


@pytest.fixture
def pay_server() -> PayServer:
    return PayServer(StillChain())


@pytest.fixture
async def payer(sqlite_database: str, pay_server: PayServer) -> AsyncIterator[Payer]:
    """Has one VTXO of 100 000 sat."""
    async with open_payer(sqlite_database, pay_server) as opened:
        await opened.add_coin()
        yield opened
