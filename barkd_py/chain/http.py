"""What both backends share about HTTP: addresses, the SOCKS proxy, and one client set-up.

Proxies from the environment are never used: which way the wallet's questions travel is a setting.
"""

import ipaddress
from urllib.parse import urlsplit

import httpx

from barkd_py.errors import InvalidInput


class InvalidProxy(InvalidInput):
    """The proxy setting is not a ``socks5h://`` address."""


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
