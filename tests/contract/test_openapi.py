"""openapi.json against upstream's: nothing that a client of a published version relies on is missing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from barkd_py.api import generate
from tests.contract.routes import NOT_SERVED_YET

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

NULL = {"type": "null"}
METHODS = ("get", "post", "delete", "put", "patch")


def _load(version: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((HERE / f"openapi-{version}.json").read_text())
    return document


def _operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    }


OURS = generate.document()
VERSIONS = ("0.1.4", "0.8.0")

# 0.8.0 gave the names of these two to the paths that replace them.
RENAMED = {
    ("0.1.4", "/api/v1/exits/status"): "get_all_exit_status_deprecated",
    ("0.1.4", "/api/v1/exits/status/{vtxo_id}"): "get_exit_status_by_vtxo_id_deprecated",
}


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _parts(document: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and everything that it combines: allOf, oneOf, anyOf."""
    schema = _resolve(document, schema)
    yield schema
    for key in ("allOf", "oneOf", "anyOf"):
        for part in schema.get(key, ()):
            yield from _parts(document, part)


def _properties(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for part in _parts(document, schema):
        for name, value in part.get("properties", {}).items():
            found.setdefault(name, []).append(value)
    return found


def _required(document: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """Names that are required whichever alternative is chosen."""
    schema = _resolve(document, schema)
    names = set(schema.get("required", ()))
    for part in schema.get("allOf", ()):
        names |= _required(document, part)
    alternatives = [part for part in (*schema.get("oneOf", ()), *schema.get("anyOf", ())) if part != NULL]
    if alternatives:
        names |= set.intersection(*(_required(document, part) for part in alternatives))
    return names


def _enums(document: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    values: set[str] = set()
    for part in _parts(document, schema):
        values |= {value for value in part.get("enum", ()) if value is not None}
        if "const" in part:
            values.add(part["const"])
    return values


def _compare(
    theirs: dict[str, Any], their: dict[str, Any], our: dict[str, Any], where: str, *, request: bool
) -> None:
    """Every field, required field and enum value of theirs is in ours, at every depth."""
    assert _enums(theirs, their) <= _enums(OURS, our), where
    their_properties, our_properties = _properties(theirs, their), _properties(OURS, our)
    assert their_properties.keys() <= our_properties.keys(), where
    if request:
        # Nothing may be asked for that a client of that version does not send.
        assert _required(OURS, our) <= _required(theirs, their), where
    else:
        assert _required(theirs, their) <= _required(OURS, our), where
    for name, alternatives in their_properties.items():
        for alternative in alternatives:
            merged = {"anyOf": our_properties[name]}
            _compare_one(theirs, alternative, merged, f"{where}.{name}", request=request)
    for part in _parts(theirs, their):
        if "items" in part:
            items = [mine["items"] for mine in _parts(OURS, our) if "items" in mine]
            assert items, where
            _compare(theirs, part["items"], {"anyOf": items} if len(items) > 1 else items[0], f"{where}[]",
                     request=request)  # fmt: skip


def _compare_one(
    theirs: dict[str, Any], their: dict[str, Any], our: dict[str, Any], where: str, *, request: bool
) -> None:
    only = our["anyOf"][0] if len(our["anyOf"]) == 1 else our
    _compare(theirs, their, only, where, request=request)


def _json_schema(content: dict[str, Any]) -> dict[str, Any] | None:
    for kind in ("application/json", "application/merge-patch+json"):
        if kind in content:
            schema: dict[str, Any] | None = content[kind].get("schema")
            return schema or None
    return None


def test_the_committed_document_is_the_generated_one() -> None:
    assert (ROOT / "openapi.json").read_text() == generate.text()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_operation_is_served_or_known_to_be_missing(version: str) -> None:
    assert _operations(_load(version)).keys() - _operations(OURS).keys() <= NOT_SERVED_YET


def test_operations_known_to_be_missing_are_missing() -> None:
    assert not NOT_SERVED_YET & _operations(OURS).keys()
    assert _operations(_load("0.8.0")).keys() >= NOT_SERVED_YET


def test_no_operation_is_invented() -> None:
    assert _operations(OURS).keys() <= _operations(_load("0.8.0")).keys()


def _served() -> list[tuple[str, str, str]]:
    return [
        (version, method, path)
        for version in VERSIONS
        for method, path in sorted(_operations(_load(version)).keys() - NOT_SERVED_YET)
    ]


@pytest.mark.parametrize(("version", "method", "path"), _served())
def test_an_operation_satisfies_the_published_one(version: str, method: str, path: str) -> None:
    theirs = _load(version)
    their, our = _operations(theirs)[method, path], _operations(OURS)[method, path]
    assert our["operationId"] == RENAMED.get((version, path), their["operationId"])
    assert set(their.get("tags", [])) <= set(our.get("tags", []))

    our_parameters = {(p["in"], p["name"]): p for p in our.get("parameters", [])}
    for parameter in their.get("parameters", []):
        mine = our_parameters[parameter["in"], parameter["name"]]
        assert mine.get("required", False) == parameter.get("required", False)

    if "requestBody" in their:
        assert their["requestBody"]["content"].keys() <= our["requestBody"]["content"].keys()
        schema = _json_schema(their["requestBody"]["content"])
        if schema is not None:
            mine = _json_schema(our["requestBody"]["content"])
            assert mine is not None
            _compare(theirs, schema, mine, f"{method} {path} request", request=True)

    schema = _json_schema(their["responses"].get("200", {}).get("content", {}))
    if schema is not None:
        mine = _json_schema(our["responses"]["200"]["content"])
        assert mine is not None
        _compare(theirs, schema, mine, f"{method} {path} answer", request=False)
    assert their["responses"].keys() - {"200"} <= our["responses"].keys()


def test_errors_of_the_framework_are_not_described() -> None:
    assert "HTTPValidationError" not in json.dumps(OURS)


def test_ping_needs_no_token_and_all_else_does() -> None:
    assert OURS["security"] == [{"bearer": []}]
    open_operations = [
        key for key, operation in _operations(OURS).items() if operation.get("security") == [{}]
    ]
    assert open_operations == [("get", "/ping")]
