"""A SOCKS5 tunnel for gRPC, whose library knows HTTP proxies only.

The channel dials a Unix socket in a private directory; each connection made there is carried through the
proxy to the Ark server. The *host name* goes to the proxy (``socks5h``), so names are never resolved locally
and ``.onion`` works; TLS runs inside the tunnel, end to end.

Source: RFC 1928; protocol sheet 08 §2.3.
"""

import asyncio
import contextlib
import ipaddress
import logging
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from barkd_py.server_rpc.errors import InvalidServerAddress

log = logging.getLogger(__name__)

_VERSION = 5
_NO_AUTHENTICATION = 0
_CONNECT = 1
_IPV4, _DOMAIN, _IPV6 = 1, 3, 4
_ADDRESS_LENGTHS = {_IPV4: 4, _IPV6: 16}
_CHUNK = 64 * 1024


class ProxyRefused(OSError):
    """The proxy did not open the tunnel."""


def parse_proxy(uri: str) -> tuple[str, int]:
    """Host and port of ``socks5h://host:port``."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidServerAddress("invalid SOCKS5 proxy URI") from error
    if parts.scheme != "socks5h":
        raise InvalidServerAddress("socks5-proxy must use socks5h")
    if host is None or port is None:
        raise InvalidServerAddress("invalid SOCKS5 proxy URI")
    return host, port


def bypasses_proxy(host: str) -> bool:
    """True for this machine itself."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


class Tunnel:
    """Listens on a Unix socket and joins each connection to host:port through the proxy."""

    def __init__(self, proxy: tuple[str, int], host: str, port: int) -> None:
        self._proxy = proxy
        self._host = host
        self._port = port
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        """Start listening; returns the target for the channel."""
        self._directory = tempfile.TemporaryDirectory(prefix="barkd-")  # mode 0700
        path = Path(self._directory.name) / "ark"
        self._server = await asyncio.start_unix_server(self._accept, path)
        return f"unix:{path}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._directory is not None:
            self._directory.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.IncompleteReadError) as error:
            log.warning("SOCKS5 tunnel to the Ark server failed: %s", error)
        except asyncio.CancelledError:
            pass  # close() ends the connection; the server's callback has no one to tell
        finally:
            self._connections.discard(task)
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._proxy)
        try:
            await negotiate(far_reader, far_writer, self._host, self._port)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer))
                group.create_task(_pump(far_reader, writer))
        except ExceptionGroup as group_error:
            raise OSError(str(group_error.exceptions[0])) from group_error
        finally:
            far_writer.close()


async def negotiate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    """Ask the proxy for host:port by name. Raises ProxyRefused, or IncompleteReadError if it hangs up."""
    writer.write(bytes([_VERSION, 1, _NO_AUTHENTICATION]))
    if await reader.readexactly(2) != bytes([_VERSION, _NO_AUTHENTICATION]):
        raise ProxyRefused("the SOCKS5 proxy demands authentication")
    name = host.encode("idna") if not host.isascii() else host.encode()
    writer.write(bytes([_VERSION, _CONNECT, 0, _DOMAIN, len(name)]) + name + port.to_bytes(2, "big"))
    version, status, _, kind = await reader.readexactly(4)
    if version != _VERSION or status != 0:
        raise ProxyRefused(f"the SOCKS5 proxy refused the connection (reply {status})")
    length = _ADDRESS_LENGTHS.get(kind)
    if length is None:
        length = (await reader.readexactly(1))[0]
    await reader.readexactly(length + 2)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
