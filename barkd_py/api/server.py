"""Serving the API: uvicorn, with barkd's manners at start and stop.

The socket is bound by us, so that failing to is an error with barkd's text, and connections queue until the
server runs. Signals are the caller's: uvicorn would die of them again after a clean stop. A handshake for a
websocket that is not a proper one is handed to the app as the plain GET that it is.

Source: protocol sheet 07 §1.1, §4.2, §9.5.
"""

import asyncio
import contextlib
import ipaddress
import logging
import resource
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from barkd_py.api.app import BarkdApi
from barkd_py.api.routers.notifications import WEBSOCKET_PATH
from barkd_py.datadir import FileFailure
from barkd_py.errors import BarkdError

log = logging.getLogger(__name__)

DRAIN_SECS: Final = 10
"""How long running requests may take to finish once the daemon is told to stop. Operations that move money
are checkpointed, so one that takes longer goes on after the next start."""

MESSAGE_BYTES_MAX: Final = 64 * 1024
"""Of a message that a client sends over the websocket. Nobody reads them; barkd takes 64 MiB of each."""


WEBSOCKET_CLOSE_SECS: Final = 1.0
"""How long a client may take to read the end of its websocket then. One that does not read never would."""


class BindFailed(BarkdError):
    def __init__(self) -> None:
        super().__init__("Failed to bind to address")


HEAD_BYTES_MAX: Final = 256 * 1024
REQUEST_BYTES_MAX: Final = 32 * 1024 * 1024
"""On the wire. The app is stricter with bodies, but never sees trailers nor how bodies are chunked."""
REQUEST_SECS: Final = 120.0
"""From the connection, or the first byte of a later request, to the last byte of the request."""
READ_SECS: Final = 120.0
"""How long a client may leave unread what it was sent; uvicorn would keep it for ever."""


def _connections_max() -> int:
    """Half of the files that the process may have open: the rest is for the database and the outside."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else max(1, min(CONNECTIONS_MAX, soft // 2))


CONNECTIONS_MAX: Final = 2048
WEBSOCKETS_MAX: Final = 256
"""Each is a queue of 64 events. A client needs one; one that forgets to close its sockets is told so."""
_BUSY: Final = b"HTTP/1.1 503 \r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _Protocol(HttpToolsProtocol):
    """Upgrades only what is a websocket handshake in every header, and only on the websocket's path.

    What a client that has not shown a token may cost is bounded: the bytes of a request, which uvicorn would
    keep without limit until its head is complete, and the time it may take to arrive; the time in which it
    reads nothing of an answer; and the connections. If there are too many, the one that has been waiting for
    its client for longest makes room for a new one, so that nobody keeps others out by opening connections;
    if all of them are being served, the new one is refused.
    """

    _in_head = True
    _request_bytes = 0
    _waits_since = 0.0
    _overdue: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._waits_since = self.loop.time()
        has_room = len(self.connections) < _connections_max() or self._make_room()
        super().connection_made(transport)
        if has_room:
            self._await_request()
        else:
            transport.write(_BUSY)
            transport.close()

    def _make_room(self) -> bool:
        waiting = [each for each in self.connections if isinstance(each, _Protocol) and each.waits_for_client]
        if not waiting:
            return False
        longest = min(waiting, key=lambda each: each._waits_since)
        longest.transport.abort()  # a client that does not read would keep a mere `close` waiting
        self.connections.discard(longest)
        return True

    @property
    def waits_for_client(self) -> bool:
        """Its request, or the rest of it, has not arrived, or it has not read what it was sent."""
        is_idle = self.cycle is None or self.cycle.response_complete
        return is_idle or self._overdue is not None or self._unread is not None

    def on_response_complete(self) -> None:
        self._waits_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._waits_since = self.loop.time()
        self._unread = self.loop.call_later(READ_SECS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting_for_reader()

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def data_received(self, data: bytes) -> None:
        self._request_bytes += len(data)
        super().data_received(data)
        if self._request_bytes > (HEAD_BYTES_MAX if self._in_head else REQUEST_BYTES_MAX):
            if self._in_head and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 431 \r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        if self._overdue is None:
            self._waits_since = self.loop.time()
            self._await_request()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False

    def on_message_complete(self) -> None:
        self._stop_waiting()
        self._request_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._stop_waiting()
        websockets = sum(not isinstance(each, _Protocol) for each in self.connections)
        if websockets >= WEBSOCKETS_MAX:
            self.transport.write(_BUSY)
            self.transport.close()
            return
        super().handle_websocket_upgrade()

    def _await_request(self) -> None:
        self._overdue = self.loop.call_later(REQUEST_SECS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _give_up(self) -> None:
        self._overdue = None
        self.transport.abort()

    def _should_upgrade_to_ws(self) -> bool:
        headers = dict(self.headers)
        return (
            self.scope.get("method") == "GET"
            and self.parser.get_http_version() == "1.1"
            and self.url.partition(b"?")[0] == WEBSOCKET_PATH.encode()
            and headers.get(b"sec-websocket-version") == b"13"
            and b"sec-websocket-key" in headers
        )

    def _unsupported_upgrade_warning(self) -> None:
        """The app answers; there is nothing to warn of."""


IDLE_SECS_MAX = 75
"""How long a connection may be idle. Longer than client libraries keep one (httpx: 5 s): who reuses a
connection at the moment of its end sees a request fail, and cannot know whether it was served."""


class ApiServer(uvicorn.Server):
    """One listener."""

    def __init__(self, app: BarkdApi, listener: socket.socket, *, drain_secs: int = DRAIN_SECS) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="websockets-sansio",
                ws_max_size=MESSAGE_BYTES_MAX,
                ws_ping_interval=None,
                ws_ping_timeout=None,
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=drain_secs,
                timeout_keep_alive=IDLE_SECS_MAX,
            )
        )
        self._listener = listener

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    def stop(self) -> None:
        """Accept nothing more and let running requests finish."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        aborting = asyncio.get_running_loop().call_later(WEBSOCKET_CLOSE_SECS, self._abort_websockets)
        try:
            await super().shutdown(sockets)
        finally:
            aborting.cancel()

    def _abort_websockets(self) -> None:
        for each in list(self.server_state.connections):
            if not isinstance(each, _Protocol):
                each.transport.abort()

    async def run_until_stopped(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self.serve(sockets=[self._listener])


def bind(host: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> socket.socket:
    """A listening socket. Raises BindFailed."""
    family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
    # Unless the protocol is named, asyncio leaves Nagle's algorithm on; uvloop does not.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(host), port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise BindFailed from FileFailure(error)
    listener.setblocking(False)
    return listener


def describe_address(listener: socket.socket) -> str:
    """`127.0.0.1:3000`, `[::1]:3000`."""
    name: Any = listener.getsockname()
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
