"""What all who ask over HTTP share: addresses, the SOCKS proxy, one client set-up, and bounded answers.

Proxies from the environment are never used: which way the wallet's questions travel is a setting.
"""

import ipaddress
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from barkd_py.errors import InvalidInput


class InvalidProxy(InvalidInput):
    """The proxy setting is not a ``socks5h://`` address."""


class AnswerTooLong(Exception):
    """It was not read to its end."""


async def read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """The body of an answer that is streamed. Raises AnswerTooLong, httpx.HTTPError."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > max_bytes:
            raise AnswerTooLong
    return bytes(body)


def parse_json(body: bytes, *, parse_float: Callable[[str], Any] = float) -> Any:
    """Raises ValueError, for what is nested too deeply too."""
    try:
        return json.loads(body, parse_float=parse_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def complete_url(address: str) -> str:
    """The address with ``https://`` if it names no scheme, and without one trailing slash.

    Source: sheet 06 §6.
    """
    if "://" not in address:
        address = f"https://{address}"
    return address.removesuffix("/")


def is_local(url: str) -> bool:
    """Whether the host is this machine; such hosts are never reached through a proxy."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_for(url: str, socks5_proxy: str | None) -> str | None:
    """The proxy to use for this address. Raises InvalidProxy.

    Only ``socks5h`` is allowed: with plain ``socks5`` this machine would look up the host name, and so tell
    the world whom it talks to.
    """
    if socks5_proxy is None:
        return None
    parts = urlsplit(socks5_proxy)
    if parts.scheme != "socks5h" or not parts.hostname:
        raise InvalidProxy("socks5_proxy must be a socks5h:// address")
    return None if is_local(url) else socks5_proxy


def open_client(
    *, timeout_s: float, proxy: str | None = None, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """A client that keeps its connections. transport: replaces the network (tests)."""
    return httpx.AsyncClient(
        timeout=timeout_s,
        proxy=proxy,
        transport=transport,
        trust_env=False,
        limits=httpx.Limits(max_connections=8, max_keepalive_connections=8),
    )
