"""A real bitcoind for a whole test module, and each test's own view of it; the fixtures are imported."""

import subprocess
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
import pytest

from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.bitcoind import BitcoindSource, CookieFile, RpcClient
from barkd_py.chain.source import ChainSource
from barkd_py.devnet.chain.bitcoind import BitcoindNode, BitcoindProcess, BitcoindRpc, free_port
from barkd_py.devnet.chain.index import ChainIndex
from barkd_py.devnet.chain.node import Node
from tests.fakes.chains import Clock, esplora_source

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RunningBitcoind:
    """url, cookie: how to reach it. zmq: where it publishes its blocks, if it was built with that."""

    url: str
    cookie: Path
    version: str
    zmq: str

    def source(self) -> BitcoindSource:
        return BitcoindSource(RpcClient(self.url, CookieFile(self.cookie)), fallback_fee_rate=FeeRate(250))

    @asynccontextmanager
    async def node(self) -> AsyncIterator[BitcoindNode]:
        rpc = BitcoindRpc(self.url, self.cookie)
        try:
            genesis = await rpc.call("getblock", await rpc.call("getblockhash", 0), 0)
            # the process is not ours to stop
            process = BitcoindProcess(cast(Process, None), rpc, self.version)
            node = BitcoindNode(process, ChainIndex(bytes.fromhex(genesis)))
            await node.refresh()
            yield node
        finally:
            await rpc.close()


def _answers(rpc_port: int, cookie: Path) -> bool:
    """Whether it is past loading its files; until then it refuses everything."""
    try:
        user, _, password = cookie.read_text().partition(":")
        question = {"method": "getblockcount", "params": [], "id": 1}
        answer = httpx.post(f"http://127.0.0.1:{rpc_port}/", json=question, auth=(user, password))
        return answer.status_code == 200
    except (OSError, httpx.TransportError):
        return False


@contextmanager
def running_bitcoind(executable: str, datadir: Path) -> Iterator[RunningBitcoind]:
    """Start a node on an empty directory, wait until it answers, and end it afterwards."""
    version = subprocess.run([executable, "--version"], capture_output=True, text=True, check=True).stdout
    rpc_port, zmq_port = free_port(), free_port()
    zmq = f"tcp://127.0.0.1:{zmq_port}"
    arguments = [
        *("-regtest", f"-datadir={datadir}", "-server=1", "-txindex=1", "-listen=0", "-connect=0"),
        *("-dnsseed=0", f"-rpcport={rpc_port}", "-printtoconsole=0", f"-zmqpubhashblock={zmq}"),
        *(("-corepolicy=1",) if "Knots" in version else ()),
    ]
    cookie = datadir / "regtest" / ".cookie"
    process = subprocess.Popen([executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(rpc_port, cookie):
            assert process.poll() is None, "bitcoind ended"
            assert time.monotonic() < deadline, "bitcoind does not start"
            time.sleep(0.05)
        yield RunningBitcoind(f"http://127.0.0.1:{rpc_port}", cookie, version.splitlines()[0], zmq)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def bitcoind(tmp_path_factory: pytest.TempPathFactory, bitcoind_exec: str) -> Iterator[RunningBitcoind]:
    with running_bitcoind(bitcoind_exec, tmp_path_factory.mktemp("bitcoind")) as running:
        yield running


@pytest.fixture
async def node(bitcoind: RunningBitcoind) -> AsyncIterator[Node]:
    """The shared node, with mature coins in the faucet."""
    async with bitcoind.node() as running:
        if running.index.tip_height < 105:
            await running.mine(105)
        yield running


@pytest.fixture(params=["esplora", "bitcoind"])
async def source(
    request: pytest.FixtureRequest, node: Node, bitcoind: RunningBitcoind
) -> AsyncIterator[ChainSource]:
    """Over RPC, and over Esplora's face of the node."""
    is_esplora = request.param == "esplora"
    chain: ChainSource = esplora_source(node, Clock()) if is_esplora else bitcoind.source()
    yield chain
    await chain.close()
