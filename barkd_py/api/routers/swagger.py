"""The description of the API for people: Swagger UI, and the document that it shows.

The page's script and style come from files that a package brought (fastapi-offline ships the distribution of
Swagger UI that barkd 0.8.0 serves): nothing is fetched from elsewhere, and the page may not do so either.
Nothing here needs a token; the page asks for one before it calls the API. None of it is in openapi.json.

Source: protocol sheet 07 §5.2.
"""

import asyncio
import importlib.resources
from functools import cache
from typing import Final

from fastapi import Request

from barkd_py.api.reply import Reply, json_bytes_reply
from barkd_py.api.routing import Router

_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>barkd REST API</title>
<link rel="stylesheet" href="/swagger-ui/swagger-ui.css">
<link rel="icon" type="image/png" href="/swagger-ui/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/swagger-ui/swagger-ui-bundle.js"></script>
<script src="/swagger-ui/swagger-initializer.js"></script>
</body>
</html>
"""
_INITIALIZER: Final = b"""window.ui = SwaggerUIBundle({
  url: "/api-docs/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
_JAVASCRIPT: Final = b"text/javascript; charset=utf-8"
_SHIPPED: Final = {
    "swagger-ui-bundle.js": ("swagger-ui-bundle.js", _JAVASCRIPT),
    "swagger-ui.css": ("swagger-ui.css", b"text/css; charset=utf-8"),
    "favicon-32x32.png": ("favicon.png", b"image/png"),
    "favicon-16x16.png": ("favicon.png", b"image/png"),
}
"""Our names to the files of the package and what they are."""

PATHS: Final = frozenset(
    {
        "/swagger-ui",
        "/swagger-ui/",
        "/swagger-ui/swagger-initializer.js",
        *(f"/swagger-ui/{name}" for name in _SHIPPED),
        "/api-docs/openapi.json",
    }
)

router = Router(include_in_schema=False)


@router.get("/swagger-ui", response_model=None)
@router.get("/swagger-ui/", response_model=None)
async def page() -> Reply:
    headers = ((b"content-security-policy", _POLICY), (b"x-content-type-options", b"nosniff"))
    return Reply(200, _PAGE, b"text/html; charset=utf-8", headers)


@router.get("/swagger-ui/swagger-initializer.js", response_model=None)
async def initializer() -> Reply:
    return Reply(200, _INITIALIZER, _JAVASCRIPT)


@router.get("/swagger-ui/swagger-ui-bundle.js", response_model=None)
@router.get("/swagger-ui/swagger-ui.css", response_model=None)
@router.get("/swagger-ui/favicon-32x32.png", response_model=None)
@router.get("/swagger-ui/favicon-16x16.png", response_model=None)
async def shipped(request: Request) -> Reply:
    name, kind = _SHIPPED[request.scope["path"].rpartition("/")[2]]
    return Reply(200, await asyncio.to_thread(_read, name), kind)


@router.get("/api-docs/openapi.json", response_model=None)
async def document(request: Request) -> Reply:
    return json_bytes_reply(await asyncio.to_thread(request.app.openapi_bytes))


@cache
def _read(name: str) -> bytes:
    return (importlib.resources.files("fastapi_offline") / "static" / name).read_bytes()
