"""Finds the foreign programs; in CI a missing one is a failure, elsewhere a loud skip."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio

from tests.interop.captaind import captaind_on
from tests.support.processes import Bark, Daemon, Devnet, esplora, eventually, start_devnet


def program(variable: str, name: str) -> str:
    return os.environ.get(variable) or shutil.which(name) or _missing(variable, name)


def _missing(variable: str, name: str) -> NoReturn:
    text = f"{name} is missing: `make interop` installs it, or name it with {variable}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="session")
def bark_exec() -> str:
    return program("BARK_EXEC", "bark")


@pytest.fixture(scope="session")
def bitcoind_exec() -> str:
    return program("BITCOIND", "bitcoind")


@pytest.fixture(scope="session")
def barkd_clients() -> Path:
    """A directory with a directory per version of the published REST client."""
    found = os.environ.get("BARKD_CLIENTS")
    return Path(found) if found else _missing("BARKD_CLIENTS", "barkd-client")


@pytest.fixture(scope="module")
def devnet(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Devnet]:
    """Our devnet with its built-in node, or a real Ark server on a real bitcoind where one is named."""
    directory = tmp_path_factory.mktemp("devnet")
    captaind = os.environ.get("CAPTAIND_EXEC")
    if captaind is None:
        running = start_devnet(directory, *getattr(request.module, "DEVNET_OPTIONS", ()))
        yield running
        running.process.kill()
    else:
        on_bitcoind: Devnet = request.getfixturevalue("devnet_on_bitcoind")
        with captaind_on(on_bitcoind, captaind, os.environ["CAPTAIND_CONFIG"], directory) as running:
            yield running


@pytest.fixture(scope="module")
def devnet_on_bitcoind(tmp_path_factory: pytest.TempPathFactory, bitcoind_exec: str) -> Iterator[Devnet]:
    """Our devnet on a real bitcoind."""
    running = start_devnet(tmp_path_factory.mktemp("devnet-bitcoind"), "--bitcoind", bitcoind_exec)
    yield running
    running.process.terminate()


@pytest_asyncio.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """One of our daemons, running, without a wallet."""
    running = Daemon(tmp_path / "daemon")
    await running.start()
    yield running
    await running.close()


@pytest.fixture
def bark(tmp_path: Path, bark_exec: str) -> Bark:
    """The real wallet, not created yet."""
    return Bark(bark_exec, tmp_path / "bark")


@pytest.fixture
async def payer(tmp_path: Path, devnet: Devnet) -> AsyncIterator[Daemon]:
    """Somebody else, with VTXOs to pay with."""
    daemon = Daemon(tmp_path / "payer")
    await daemon.start()
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    await devnet.fund((await daemon.post("/onchain/addresses/next"))["address"], 500_000)
    await daemon.post("/onchain/sync")
    await daemon.post("/boards/board-amount", {"amount_sat": 400_000})
    await devnet.mine()

    async def spendable_sat() -> int:
        await daemon.post("/wallet/sync")
        return int((await daemon.get("/wallet/balance"))["spendable_sat"])

    await eventually(spendable_sat, lambda amount: amount > 0, within_secs=120.0)
    yield daemon
    await daemon.close()
