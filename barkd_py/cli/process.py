"""The life of the daemon process: start, serve, stop.

Start: network flags, process lock, token, wallet, socket, serve. Stop, on SIGTERM or SIGINT: end the long
polls, let running requests finish for a while, close the wallet. A second signal changes nothing.

Source: protocol sheet 07 §9.3, §9.5.
"""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from barkd_py.cli.flags import (
    DEFAULT_PORT,
    Options,
    StartupError,
)
from barkd_py.version import VERSION

if TYPE_CHECKING:
    from barkd_py.api.auth import AuthToken
    from barkd_py.daemon.runtime import Runtime

log = logging.getLogger(__name__)

_NOT_IN_HEADERS: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
"""Control characters but tabs, and bytes that are no UTF-8."""


def run_daemon(options: Options) -> None:
    """Serve until a signal comes. Raises KnownError for everything that keeps the daemon from starting."""
    host = _check_host(options)
    _check_origins(options.allowed_origins)
    log.info("Starting barkd version %s () with datadir %s", VERSION, options.datadir.path)
    lock = options.datadir.lock_process().acquire()
    gc.disable()  # nothing of what is imported and set up from here on is garbage; see _serve
    # httpx imports its own command line if it can, and with it rich and pygments: 4 MB, and a twentieth of
    # the start. Without it, it does as it does where these are not installed.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options, host))
    finally:
        lock.release()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it does not exist for every platform
        return None
    return uvloop.new_event_loop


async def _serve(options: Options, host: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    from barkd_py.api.app import BarkdApi
    from barkd_py.api.deps import ApiState
    from barkd_py.api.server import ApiServer, bind, describe_address
    from barkd_py.daemon.backend import Backend, check_database, lock_database
    from barkd_py.daemon.runtime import Runtime

    stop = _stop_signal()
    token = _settle_auth(options, host)
    await check_database(database_url())
    database_lock = lock_database(database_url(), options.datadir)
    runtime = Runtime(options.datadir, Backend(database_url()))
    try:
        if not await _open_wallet(runtime, stop):
            return
        listener = bind(host, options.port)
        state = ApiState(
            runtime,
            token,
            allowed_origins=frozenset(origin.encode() for origin in options.allowed_origins),
            expose_mnemonic=options.expose_mnemonic,
            loopback_only=host.is_loopback and not options.remote_no_auth,
            rest_contract=_rest_contract(),
        )
        server = ApiServer(BarkdApi(state), listener)
        if token is None:
            log.warning("No auth token configured — all authentication is disabled")
        gc.freeze()
        gc.enable()
        log.info("Server starting on http://%s", describe_address(listener))
        log.info("Swagger UI is hosted on http://%s/swagger-ui", describe_address(listener))
        if options.ignored:
            log.info("There is no web UI in this program, ignoring %s", ", ".join(options.ignored))
        serving = asyncio.create_task(server.run_until_stopped())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        runtime.begin_stop()
        server.stop()
        await serving
    finally:
        await runtime.close()
        if database_lock is not None:
            database_lock.release()
    log.info("Server stopped running")


async def _open_wallet(runtime: "Runtime", stop: asyncio.Event) -> bool:
    """Load the wallet if there is one; False if the daemon was told to stop meanwhile."""
    opening = asyncio.create_task(runtime.open_existing())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not opening.done():
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
        return False
    if opening.result():
        log.info("Wallet loaded and daemon started")
    elif not runtime.is_standing_by:
        log.warning("No wallet found. Starting rest server without daemon")
    return True


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT."""
    stop = asyncio.Event()

    def receive(name: str) -> None:
        if not stop.is_set():
            log.info("%s received! Sending shutdown signal...", name)
            stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, receive, "SIGTERM")
    loop.add_signal_handler(signal.SIGINT, receive, "Ctrl+C")
    return stop


def _settle_auth(options: Options, host: ipaddress.IPv4Address | ipaddress.IPv6Address) -> "AuthToken | None":
    """The token that requests must carry; None if authentication is off."""
    from barkd_py.api.auth import load_or_create_token

    if not options.no_auth and not options.remote_no_auth:
        return load_or_create_token(options.datadir)
    if not options.remote_no_auth and not host.is_loopback:
        raise StartupError(
            f"refusing to start: --no-auth with bind host {host} would give full wallet access to every "
            "client that can reach the port. Bind a loopback address, or use "
            "--dangerously-allow-remote-no-auth instead if reachability is restricted by other means "
            "(and terminate TLS in front of barkd)"
        )
    if not options.allowed_origins:
        log.warning(
            "Auth is disabled and no CORS origins are configured — any client that can reach this port has "
            "full API access."
        )
    return None


def _check_host(options: Options) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if options.port == 0:
        raise StartupError(
            f"--port 0 is not supported; barkd listens on a fixed port (default {DEFAULT_PORT})"
        )
    try:
        if "%" in options.host:
            raise ValueError("a zone is no part of an address")
        return ipaddress.ip_address(options.host)
    except ValueError:
        raise StartupError(f"invalid bind host: {options.host}") from StartupError(
            "invalid IP address syntax"
        )


def _check_origins(origins: Sequence[str]) -> None:
    for origin in origins:
        if _NOT_IN_HEADERS.search(origin):
            raise StartupError(f"invalid CORS origin: {origin}")
        if not origin.startswith(("http://", "https://")) or origin.endswith("/") or origin.count("://") != 1:
            raise StartupError(
                f"invalid CORS origin: {origin} (expected format: http://host[:port] or https://host[:port])"
            )


def database_url() -> str | None:
    """Where the wallet's rows are; None is the data directory. It may hold a password: never shown."""
    url = os.environ.get("BARKD_DATABASE_URL")
    if url is not None and "://" not in url:
        raise StartupError("BARKD_DATABASE_URL must be a URL: postgresql://USER:PASSWORD@HOST/DATABASE")
    return url


def _rest_contract() -> str | None:
    setting = os.environ.get("BARKD_REST_CONTRACT")
    if setting not in (None, "auto", "0.1.4", "0.8.0"):
        raise StartupError(f"BARKD_REST_CONTRACT must be auto, 0.1.4 or 0.8.0, got {setting}")
    return setting
