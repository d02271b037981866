"""Start and stop of the listener."""

import asyncio
import ipaddress
import socket
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
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/ping")).text == "pong"
    server.stop()
    async with asyncio.timeout(8):
        await serving
    writer.close()
