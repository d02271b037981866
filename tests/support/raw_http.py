"""A client that sends exactly the bytes it is told to, for requests that proper clients refuse to make."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DEADLINE_SECS = 60.0

Headers = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The header's values, joined; None if there is none."""
        values = [value for key, value in self.headers if key == name]
        return ", ".join(values) if values else None

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


async def request(
    port: int,
    method: str,
    target: str,
    headers: Headers = (),
    body: bytes | None = None,
    host: str = "127.0.0.1",
    version: str = "HTTP/1.1",
) -> Response:
    """One request on a connection of its own. Content-Length and Host are added."""
    async with asyncio.timeout(DEADLINE_SECS):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(_encode(method, target, headers, body, f"{host}:{port}", version))
            return await _read(reader, method)
        finally:
            writer.close()


async def begin(port: int, target: str, headers: Headers = ()) -> "asyncio.Task[Response]":
    """A GET that the server has got when this returns; the answer comes later."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_encode("GET", target, headers, None, f"127.0.0.1:{port}"))
    await writer.drain()
    # Whoever answers this, on a connection made later, has the other request before it.
    await request(port, "GET", "/ping")

    async def finish() -> Response:
        try:
            return await _read(reader, "GET")
        finally:
            writer.close()

    return asyncio.create_task(finish())


def _encode(
    method: str, target: str, headers: Headers, body: bytes | None, host: str, version: str = "HTTP/1.1"
) -> bytes:
    names = {name.lower() for name, _ in headers}
    lines = [f"{method} {target} {version}".encode()]
    if "host" not in names:
        lines.append(f"Host: {host}".encode())
    for name, value in headers:
        lines.append(f"{name}: ".encode() + (value if isinstance(value, bytes) else value.encode()))
    if body is not None:
        lines.append(f"Content-Length: {len(body)}".encode())
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


async def _read(reader: asyncio.StreamReader, method: str) -> Response:
    status_line = (await reader.readline()).decode()
    if not status_line:
        raise ConnectionError("closed without an answer")
    status = int(status_line.split()[1])
    headers: list[tuple[str, str]] = []
    while line := (await reader.readline()).decode().rstrip("\r\n"):
        name, _, value = line.partition(":")
        headers.append((name.lower(), value.strip()))
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    body = b"" if method == "HEAD" or status == 101 else await reader.readexactly(length)
    return Response(status, tuple(headers), body)
