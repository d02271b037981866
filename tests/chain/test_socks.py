"""Esplora through a SOCKS proxy: the proxy is given the name of the host, not an address."""

import asyncio

from barkd_py.chain.esplora import EsploraSource
from tests.fakes.chains import FALLBACK

HASH = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"


async def test_host_name_is_resolved_by_the_proxy() -> None:
    asked: list[tuple[bytes, int]] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """SOCKS 5 without authentication; answers the request itself. Source: RFC 1928."""
        version, method_count = await reader.readexactly(2)
        await reader.readexactly(method_count)
        writer.write(b"\x05\x00")
        version, command, _, address_type = await reader.readexactly(4)
        assert (version, command, address_type) == (5, 1, 3), "a domain name was expected"
        (length,) = await reader.readexactly(1)
        name = await reader.readexactly(length)
        asked.append((name, int.from_bytes(await reader.readexactly(2), "big")))
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 64\r\n\r\n" + HASH.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        source = EsploraSource(
            "http://esplora.example:8080/api",
            fallback_fee_rate=FALLBACK,
            socks5_proxy=f"socks5h://127.0.0.1:{port}",
        )
        assert str(await source.block_hash(0)) == HASH
        await source.close()
    assert asked == [(b"esplora.example", 8080)]
