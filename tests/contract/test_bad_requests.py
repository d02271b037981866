"""The bad requests of the comparison with barkd are about every operation, field and parameter."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.contract.description import operations_of
from tests.interop import bad_requests

DOCUMENT = json.loads((Path(__file__).parent.parent.parent / "openapi.json").read_text())
ENTRIES = bad_requests.entries()
OURS = "/api/v1/wallet/recovery"
"""barkd has no such path."""


def _name(method: str, path: str) -> str:
    """As the tables have it."""
    with_ids = path.replace("{vtxo_id}", "<unknown_vtxo>")
    return f"{method.upper()} {with_ids.removeprefix('/api/v1')}"


def _operations() -> list[tuple[str, str, Any]]:
    return [
        (method, path, operation)
        for (method, path), operation in operations_of(DOCUMENT).items()
        if path != OURS
    ]


def _fields(operation: Any) -> set[str]:
    content = operation["requestBody"]["content"].get("application/json")
    if content is None:
        return set()
    schema = DOCUMENT["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    required = schema.get("required", ())
    return {name if name in required else f"{name}?" for name in schema["properties"]}


def test_no_two_have_one_name() -> None:
    names = [(entry["stage"], entry["name"]) for entry in ENTRIES]
    assert len(set(names)) == len(names)


def test_every_path_is_asked_wrongly() -> None:
    asked = {entry["path"] for entry in ENTRIES}
    for _, path, _ in _operations():
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
        assert path in ("/ping", "/api/v1/wallet") or any(map(pattern.fullmatch, asked)), path


@pytest.mark.parametrize(
    ("method", "path", "operation"), [case for case in _operations() if "requestBody" in case[2]]
)
def test_every_field_of_a_body_is_in_the_table(method: str, path: str, operation: Any) -> None:
    if fields := _fields(operation):
        assert set(bad_requests.BODIES[_name(method, path)]) == fields


@pytest.mark.parametrize(("method", "path", "operation"), _operations())
def test_every_parameter_of_a_query_is_in_the_table(method: str, path: str, operation: Any) -> None:
    named = {
        parameter["name"] if parameter["required"] else f"{parameter['name']}?"
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query"
    }
    if named and path != "/api/v1/exits/status":  # it sends its callers on, whatever they say
        assert set(bad_requests.QUERIES[_name(method, path)]) == named
