"""Start and stop of the listener."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from barkd_py.api.app import BarkdApi
from barkd_py.api.deps import ApiState
from barkd_py.api.server import ApiServer, BindFailed, bind, describe_address
from barkd_py.daemon.runtime import Runtime
from barkd_py.datadir import Datadir
from barkd_py.errors import chain_text
from tests.fakes.wallet import FakeBackend

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


# --- clients without manners


@asynccontextmanager
async def _serving(tmp_path: Path) -> AsyncIterator[int]:
    runtime = Runtime(Datadir(tmp_path), FakeBackend(), environment={})
    listener = bind(LOOPBACK, 0)
    server = ApiServer(BarkdApi(ApiState(runtime, token=None)), listener, drain_secs=1)
    serving = asyncio.create_task(server.run_until_stopped())
    try:
        yield listener.getsockname()[1]
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
