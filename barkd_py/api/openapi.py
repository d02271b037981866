"""openapi.json: what FastAPI makes of the endpoints, with what it cannot know.

FastAPI documents its own validation error for each operation; here malformed input is answered in plain text,
so that is taken out. Source: protocol sheet 07 §5.2.
"""

from collections.abc import Sequence
from typing import Any, Final

from fastapi.openapi.utils import get_openapi

from barkd_py.api.routing import Router
from barkd_py.api.schemas.common import Schema

_DESCRIPTION: Final = (
    "A REST API for barkd, a wallet daemon for Ark: self-custodial Ark, Lightning and on-chain payments over "
    "HTTP.\n\nAnswers are JSON. Amounts are in satoshis."
)
_TAGS: Final = (
    ("boards", "Move on-chain bitcoin onto Ark."),
    ("exits", "Move bitcoin back on-chain without the server."),
    ("fees", "Estimate what operations cost."),
    ("history", "Read and annotate the wallet's history."),
    ("lightning", "Lightning invoices and payments."),
    ("message", "Sign and verify messages with the wallet's keys."),
    ("onchain", "The on-chain wallet."),
    ("wallet", "The wallet, its VTXOs and payments."),
    ("bitcoin", "The bitcoin network."),
    ("notifications", "Hear of changes as they happen."),
)
_FRAMEWORK_SCHEMAS: Final = ("HTTPValidationError", "ValidationError")


def describe(routers: Sequence[Router], version: str) -> dict[str, Any]:
    """The OpenAPI document of these routers' operations."""
    Schema.build_all()
    document = get_openapi(
        title="barkd REST API",
        version=version,
        description=_DESCRIPTION,
        routes=[route for router in routers for route in router.describe().routes],
        tags=[{"name": name, "description": description} for name, description in _TAGS],
    )
    for operations in document["paths"].values():
        for operation in operations.values():
            _drop_framework_error(operation)
            _drop_empty_content(operation)
    schemas = document["components"]["schemas"]
    for name in _FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "AuthToken",
            "description": "Base64url-encoded auth token",
        }
    }
    document["security"] = [{"bearer": []}]
    document["paths"] = dict(sorted(document["paths"].items()))
    return document


def _drop_framework_error(operation: dict[str, Any]) -> None:
    documented = operation["responses"].get("422", {})
    schema = documented.get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("HTTPValidationError"):
        del operation["responses"]["422"]


def _drop_empty_content(operation: dict[str, Any]) -> None:
    """Operations without a result have no content, not any content."""
    success = operation["responses"].get("200", {})
    if success.get("content") in (None, {}, {"application/json": {"schema": {}}}):
        success.pop("content", None)
