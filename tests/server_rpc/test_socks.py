"""The tunnel through a SOCKS5 proxy, with a proxy that notes what it is asked for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from barkd_py.errors import chain_text
from barkd_py.server_rpc import socks
from barkd_py.server_rpc.connection import Connection, ConnectionSettings
from barkd_py.server_rpc.errors import ConnectFailed, InvalidServerAddress
from tests.server_rpc.strict_server import StrictServer


class Proxy:
    """Sends every name to one loopback port. reply: 0 is success."""

    def __init__(self, port: int, reply: int = 0) -> None:
        self._port = port
        self._reply = reply
        self.asked: list[tuple[str, int]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"socks5h://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(3) == b"\x05\x01\x00"
        writer.write(b"\x05\x00")
        assert await reader.readexactly(4) == b"\x05\x01\x00\x03"
        name = await reader.readexactly((await reader.readexactly(1))[0])
        self.asked.append((name.decode(), int.from_bytes(await reader.readexactly(2), "big")))
        writer.write(bytes([5, self._reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if self._reply == 0:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
    writer.close()


def settings(proxy: str, address: str) -> ConnectionSettings:
    return ConnectionSettings(address=address, network="regtest", socks5_proxy=proxy)


async def test_the_host_name_goes_to_the_proxy_unresolved() -> None:
    server = StrictServer()
    async with server.listening() as port:
        proxy = Proxy(port)
        async with proxy.listening() as url:
            connection = Connection(settings(url, "http://ark.does-not-exist.onion:1234"))
            info = await connection.info()
            await connection.close()
    assert info.network == "regtest"
    assert proxy.asked == [("ark.does-not-exist.onion", 1234)]


async def test_a_proxy_that_refuses_is_a_failed_connection() -> None:
    proxy = Proxy(0, reply=5)
    async with proxy.listening() as url:
        connection = Connection(settings(url, "http://ark.example:1"))
        with pytest.raises(ConnectFailed):
            await connection.info()
        await connection.close()
    assert proxy.asked


async def test_this_machine_is_reached_without_the_proxy() -> None:
    server = StrictServer()
    async with server.listening() as port:
        connection = Connection(settings("socks5h://127.0.0.1:1", f"http://127.0.0.1:{port}"))
        await connection.info()
        await connection.close()


@pytest.mark.parametrize(
    ("host", "bypassed"),
    [
        ("localhost", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_hosts_that_bypass_the_proxy(host: str, bypassed: bool) -> None:
    assert socks.bypasses_proxy(host) == bypassed


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("socks5://h:1", "socks5-proxy must use socks5h"),
        ("http://h:1", "socks5-proxy must use socks5h"),
        ("socks5h://h", "invalid SOCKS5 proxy URI"),
        ("socks5h://h:port", "invalid SOCKS5 proxy URI"),
    ],
)
async def test_other_proxies_are_refused(uri: str, error: str) -> None:
    connection = Connection(settings(uri, "http://ark.example:1"))
    with pytest.raises(InvalidServerAddress) as failure:
        await connection.info()
    assert chain_text(failure.value).startswith(error)
