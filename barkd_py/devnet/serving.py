"""HTTP servers inside devnet's event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

#: How long open requests get when devnet stops.
_GRACE_SECONDS = 1

_BACKLOG = 128

#: Longer than clients keep an idle connection (httpx: 5 s), so that none is closed as it is used again.
_IDLE_SECONDS = 75


class _HttpServer(uvicorn.Server):
    """uvicorn inside our event loop: signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an application while the context lasts. listener: bound, and closed by its owner."""
    # From here on clients may connect; whoever is early waits until the server looks.
    listener.listen(_BACKLOG)
    server = _HttpServer(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            timeout_keep_alive=_IDLE_SECONDS,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
