"""A wire that can be cut, or go silent: a port that passes everything on to another one, refuses connections,
or keeps them and carries nothing, as when a machine is frozen or a network fails without a word."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.processes import free_port


class Wire:
    """Made by `wire_to`. port: always the same, so who is behind it goes away and comes back."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._carries = asyncio.Event()
        self._carries.set()

    def hush(self) -> None:
        """Keep every connection, and carry neither data nor their ends; new ones are taken, and as silent."""
        self._carries.clear()

    def speak(self) -> None:
        """Carry what was held back, and everything else from now on."""
        self._carries.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Break all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in self._ends:
            end.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._ends.add(sink)
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    await self._carries.wait()
                    sink.write(data)
                    await sink.drain()
                await self._carries.wait()
        finally:
            sink.transport.abort()
            self._ends.discard(sink)


@asynccontextmanager
async def wire_to(target: str) -> AsyncIterator[Wire]:
    """target: ``host:port``."""
    wire = Wire(target)
    await wire.mend()
    try:
        yield wire
    finally:
        await wire.cut()
