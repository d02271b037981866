"""Start and stop of the listener."""

import asyncio
import contextlib
import ipaddress
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol as WebSocket

from barkd_py.api.app import BarkdApi
from barkd_py.api.deps import ApiState
from barkd_py.api.routers.notifications import WEBSOCKET_PATH
from barkd_py.api.server import ApiServer, BindFailed, _connections_max, bind, describe_address
from barkd_py.daemon.runtime import Runtime
from barkd_py.daemon.wallet_api import NewWallet
from barkd_py.datadir import Datadir
from barkd_py.errors import chain_text
from tests.fakes.wallet import FakeBackend
from tests.support.processes import until

LOOPBACK = ipaddress.ip_address("127.0.0.1")


def test_addresses_as_people_write_them() -> None:
    with bind(LOOPBACK, 0) as listener:
        assert describe_address(listener) == f"127.0.0.1:{listener.getsockname()[1]}"
    with bind(ipaddress.ip_address("::1"), 0) as listener:
        assert describe_address(listener) == f"[::1]:{listener.getsockname()[1]}"


def test_a_port_in_use_is_an_error_with_its_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BindFailed) as failed:
        bind(LOOPBACK, taken.getsockname()[1])
    assert chain_text(failed.value) == "Failed to bind to address: Address already in use (os error 98)"


async def test_a_request_that_hangs_does_not_hold_up_the_stop_for_ever(tmp_path: Path) -> None:
    runtime = Runtime(Datadir(tmp_path), FakeBackend(), environment={})
    listener = bind(LOOPBACK, 0)
    port = listener.getsockname()[1]
    server = ApiServer(BarkdApi(ApiState(runtime, token=None)), listener, drain_secs=1)
    serving = asyncio.create_task(server.run_until_stopped())
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /nope HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n1")
    await writer.drain()
    async with httpx.AsyncClient(timeout=60.0) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/ping")).text == "pong"
    server.stop()
    async with asyncio.timeout(60):
        await serving
    writer.close()


async def test_a_websocket_that_is_not_read_does_not_hold_up_the_stop() -> None:
    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": bytes(1 << 20)})

    listener = bind(LOOPBACK, 0)
    server = ApiServer(cast(BarkdApi, flood), listener, drain_secs=600)
    serving = asyncio.create_task(server.run_until_stopped())
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    writer.write(
        f"GET {WEBSOCKET_PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert b"101" in await reader.readline()

    async def is_stuck() -> bool:
        return any(isinstance(each, WebSocket) and not each.writable.is_set() for each in connections)

    connections = server.server_state.connections
    await until(is_stuck)
    server.stop()
    done, _ = await asyncio.wait({serving}, timeout=60)
    writer.close()
    await serving
    assert done


# --- clients without manners


@asynccontextmanager
async def _serving(tmp_path: Path) -> AsyncIterator[int]:
    async with _server(tmp_path) as server:
        yield int(server.servers[0].sockets[0].getsockname()[1])


@asynccontextmanager
async def _server(
    tmp_path: Path, backend: FakeBackend | None = None, *, drain_secs: int = 1
) -> AsyncIterator[ApiServer]:
    runtime = Runtime(Datadir(tmp_path), backend or FakeBackend(), environment={})
    listener = bind(LOOPBACK, 0)
    server = ApiServer(BarkdApi(ApiState(runtime, token=None)), listener, drain_secs=drain_secs)
    serving = asyncio.create_task(server.run_until_stopped())
    while not server.started:
        await asyncio.sleep(0.001)
    try:
        yield server
    finally:
        server.stop()
        await serving


async def _send_until_cut(port: int, start: bytes, more: bytes) -> tuple[int, bytes]:
    """How many bytes were taken before the connection ended, and what was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0
    with contextlib.suppress(ConnectionError):
        writer.write(start)
        while sent < 200_000_000:
            writer.write(more)
            await writer.drain()
            sent += len(more)
            await asyncio.sleep(0)
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await reader.read()
    writer.close()
    return sent, answer


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /", b"a" * 50_000),
        (b"GET /ping HTTP/1.1\r\nx: ", b"a" * 50_000),
        (b"GET /ping HTTP/1.1\r\n", b"x: " + b"a" * 50_000 + b"\r\n"),
        (b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\nGET /", b"a" * 50_000),
    ],
)
async def test_a_head_without_end_is_cut(tmp_path: Path, start: bytes, more: bytes) -> None:
    async with _serving(tmp_path) as port:
        sent, _ = await _send_until_cut(port, start, more)
        assert sent < 20_000_000  # what the kernel buffers is not ours to bound


async def test_trailers_without_end_are_cut(tmp_path: Path) -> None:
    start = b"POST /ping HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    async with _serving(tmp_path) as port:
        sent, _ = await _send_until_cut(port, start, b"x: " + b"a" * 50_000 + b"\r\n")
        assert sent < 60_000_000


async def test_a_head_of_ordinary_size_is_read(tmp_path: Path) -> None:
    async with _serving(tmp_path) as port, httpx.AsyncClient(timeout=60.0) as client:
        answers = [
            await client.get(f"http://127.0.0.1:{port}/ping", headers={"x": "a" * 30_000}) for _ in range(20)
        ]
        assert {answer.text for answer in answers} == {"pong"}


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET /ping HTT",
        b"POST /nope HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nhost: a\r\n\r\nGET /",
    ],
)
async def test_a_request_that_never_arrives_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr("barkd_py.api.server.REQUEST_SECS", 0.05)
    async with _serving(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        async with asyncio.timeout(60):  # an idle connection that was used lives longer
            await reader.read()
        writer.close()


# --- too many of them


async def _connect(port: int, start: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    await writer.drain()
    return reader, writer


def _port(server: ApiServer) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


@pytest.mark.parametrize("start", [b"", b"GET /ping HTT"])
async def test_idle_connections_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """Ten times as many as there may be. Those that wait for longest are closed."""
    monkeypatch.setattr("barkd_py.api.server.CONNECTIONS_MAX", 20)
    async with _server(tmp_path) as server, httpx.AsyncClient(timeout=60.0) as client:
        idle = [await _connect(_port(server), start) for _ in range(200)]
        assert (await client.get(f"http://127.0.0.1:{_port(server)}/ping")).text == "pong"
        assert len(server.server_state.connections) <= 20
        async with asyncio.timeout(60):
            await idle[0][0].read()
        for _, writer in idle:
            writer.close()


async def test_what_is_being_served_is_not_cut_for_a_new_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barkd_py.api.server.CONNECTIONS_MAX", 1)
    backend = _SlowBackend()
    async with _server(tmp_path, backend) as server:
        url = f"http://127.0.0.1:{_port(server)}"
        async with httpx.AsyncClient(timeout=60.0) as client, asyncio.timeout(60):
            body = {
                "network": "regtest",
                "ark_server": "http://127.0.0.1:1",
                "chain_source": {"esplora": {"url": "http://127.0.0.1:1"}},
            }
            creation = asyncio.create_task(client.post(f"{url}/api/v1/wallet/create", json=body))
            await backend.is_creating.wait()
            async with httpx.AsyncClient(timeout=60.0) as other:
                assert (await other.get(f"{url}/ping")).status_code == 503
            backend.may_create.set()
            assert (await creation).status_code == 200


class _SlowBackend(FakeBackend):
    """Wallets are created when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_creating = asyncio.Event()
        self.may_create = asyncio.Event()

    async def create(self, datadir: Path, new: NewWallet, keep_words: Callable[[], None]) -> None:
        self.is_creating.set()
        await self.may_create.wait()
        await super().create(datadir, new, keep_words)


def _connect_deaf(port: int, request: bytes) -> socket.socket:
    """A client that sends and never reads, with as little as possible between it and the server."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    return client


def _open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.mark.parametrize("count", [2, 5])
async def test_clients_that_do_not_read_keep_nobody_out_and_cost_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("barkd_py.api.server.CONNECTIONS_MAX", 20)
    request = b"GET /swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nhost: a\r\n\r\n" * count
    async with _server(tmp_path) as server, httpx.AsyncClient(timeout=60.0) as client:
        before = _open_files()
        deaf = []
        for _ in range(100):
            deaf.append(_connect_deaf(_port(server), request))
            await asyncio.sleep(0.01)
        assert (await client.get(f"http://127.0.0.1:{_port(server)}/ping")).text == "pong"
        assert _open_files() - before - len(deaf) <= 25
        for each in deaf:
            each.close()


async def test_idle_connections_are_not_waited_for(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(60),
        httpx.AsyncClient(timeout=60.0) as client,
        _server(tmp_path, drain_secs=3_600) as server,
    ):
        assert (await client.get(f"http://127.0.0.1:{_port(server)}/ping")).text == "pong"
        assert server.server_state.connections


async def test_what_nobody_reads_is_not_kept_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barkd_py.api.server.READ_SECS", 0.1)
    async with _server(tmp_path) as server:
        client = _connect_deaf(
            _port(server), b"GET /swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nhost: a\r\n\r\n" * 5
        )
        async with asyncio.timeout(60):
            while not server.server_state.connections:
                await asyncio.sleep(0.001)
            while server.server_state.connections:
                await asyncio.sleep(0.001)
        client.close()


def test_connections_leave_files_for_the_wallet(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, expected in ((1024, 512), (1_000_000, 2048), (resource.RLIM_INFINITY, 2048), (1, 1)):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, soft))
        assert _connections_max() == expected
