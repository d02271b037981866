"""Addresses and the proxy."""

import pytest

from barkd_py.chain.http import InvalidProxy, complete_url, is_local, proxy_for


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("mempool.example/api", "https://mempool.example/api"),
        ("http://127.0.0.1:3002/", "http://127.0.0.1:3002"),
        ("https://a.example//", "https://a.example/"),
    ],
)
def test_addresses_are_completed(address: str, url: str) -> None:
    assert complete_url(address) == url


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1", "http://127.9.9.9:80", "http://[::1]:2"]
)
def test_this_machine_is_reached_directly(url: str) -> None:
    assert is_local(url)
    assert proxy_for(url, "socks5h://127.0.0.1:9050") is None


def test_other_machines_are_reached_through_the_proxy() -> None:
    assert proxy_for("http://192.168.1.1", "socks5h://tor:9050") == "socks5h://tor:9050"
    assert proxy_for("http://example.com", None) is None


@pytest.mark.parametrize("proxy", ["socks5://tor:9050", "http://tor:8118", "tor:9050", "socks5h://"])
def test_proxy_that_would_leak_names_is_refused(proxy: str) -> None:
    with pytest.raises(InvalidProxy):
        proxy_for("http://example.com", proxy)
