"""Swagger UI: everything that the page needs comes from the daemon itself."""

import re

import pytest

from barkd_py.api import generate
from tests.support.api_server import RunningApi


@pytest.mark.parametrize("path", ["/swagger-ui", "/swagger-ui/"])
async def test_the_page_loads_nothing_from_elsewhere(api: RunningApi, path: str) -> None:
    page = await api.raw("GET", path)
    assert (page.status, page.header("content-type")) == (200, "text/html; charset=utf-8")
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 4
    for link in links:
        assert link.startswith("/swagger-ui/")
        answer = await api.raw("GET", link)
        assert answer.status == 200
        assert answer.body
    assert "'self'" in (page.header("content-security-policy") or "")


@pytest.mark.parametrize(
    ("name", "kind", "start"),
    [
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8", b"/*"),
        ("swagger-ui.css", "text/css; charset=utf-8", b".swagger-ui"),
        ("favicon-32x32.png", "image/png", b"\x89PNG"),
        ("favicon-16x16.png", "image/png", b"\x89PNG"),
    ],
)
async def test_the_files_of_the_page(api: RunningApi, name: str, kind: str, start: bytes) -> None:
    answer = await api.raw("GET", f"/swagger-ui/{name}")
    assert answer.header("content-type") == kind
    assert answer.body.startswith(start)


async def test_the_page_shows_the_description_of_this_version(api: RunningApi) -> None:
    initializer = await api.raw("GET", "/swagger-ui/swagger-initializer.js")
    (url,) = re.findall(r'url: "([^"]+)"', initializer.text)
    answer = await api.raw("GET", url)
    assert answer.header("content-type") == "application/json"
    assert answer.json() == generate.document()


async def test_other_names_are_unknown_and_other_methods_not_allowed(api: RunningApi) -> None:
    assert (await api.raw("GET", "/swagger-ui/nope")).status == 404
    refused = await api.raw("POST", "/swagger-ui/", body=b"")
    assert (refused.status, refused.header("allow")) == (405, "GET,HEAD")
