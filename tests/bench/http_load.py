"""A load of equal requests over a few connections, with as little of our own work as possible.

HTTP client libraries are slower than the servers they would measure, so this one only knows what it needs:
keep-alive, Content-Length, status 200.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

CONNECTIONS = 8
"""As many as the figures of the real daemon were taken with."""


@dataclass(frozen=True, slots=True)
class Load:
    """requests_per_second, and quantiles of the time from request to the last byte of the answer."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    body_bytes: int


class _Connection(asyncio.Protocol):
    """Sends a request, waits for the whole answer, sends it again."""

    def __init__(self, request: bytes, clock: Callable[[], float]) -> None:
        self.latencies: list[float] = []
        self.failure: Exception | None = None
        self.body_bytes = 0
        self.done = asyncio.Event()
        self._request = request
        self._clock = clock
        self._head = b""
        self._missing: int | None = None
        self._sent_at = 0.0
        self._stopping = False
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            self._head += data
            head, separator, body = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            try:
                self.body_bytes = self._missing = _content_length(head)
            except ValueError as error:
                self._fail(error)
                return
            data = body
        self._missing -= len(data)
        if self._missing == 0:
            self.latencies.append(self._clock() - self._sent_at)
            if self._stopping:
                self._close()
            else:
                self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.is_set():
            self._fail(error or ConnectionError("the server closed the connection"))

    def stop(self) -> None:
        """Take the answer that is under way and send nothing more."""
        self._stopping = True

    def _send(self) -> None:
        assert self._transport is not None
        self._head, self._missing = b"", None
        self._sent_at = self._clock()
        self._transport.write(self._request)

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error
        self._close()

    def _close(self) -> None:
        self.done.set()
        if self._transport is not None:
            self._transport.close()


def _content_length(head: bytes) -> int:
    status, *lines = head.split(b"\r\n")
    if b" 200 " not in status + b" ":
        raise ValueError(f"not a success: {head.decode(errors='replace')}")
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    raise ValueError("the answer does not say how long it is")


async def run_load(port: int, path: str, *, seconds: float) -> Load:
    """Ask for a path as often as possible. Raises ValueError for any answer but a success."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    running = [
        (await loop.create_connection(lambda: _Connection(request, time.perf_counter), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.wait([asyncio.ensure_future(one.done.wait()) for one in running], timeout=seconds)
    for one in running:
        one.stop()
    for one in running:
        await one.done.wait()
        if one.failure is not None:
            raise one.failure
    took = time.perf_counter() - began
    latencies = sorted(latency for one in running for latency in one.latencies)
    return Load(
        requests_per_second=len(latencies) / took,
        p50_ms=1000 * latencies[len(latencies) // 2],
        p99_ms=1000 * latencies[len(latencies) * 99 // 100],
        body_bytes=running[0].body_bytes,
    )
