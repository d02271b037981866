"""openapi.json against upstream's: nothing that a client of a published version relies on is missing.

Every difference is in docs/contract.md with its reason; one that is not, or a line there that is not true
any more, fails here.
"""

import json
from pathlib import Path
from typing import Any

from barkd_py.api import generate
from tests.contract.description import Difference, Facts, Row, differences, facts_of, operations_of, table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGE = (ROOT / "docs" / "contract.md").read_text()


def _load(version: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((HERE / f"openapi-{version}.json").read_text())
    return document


def _facts(version: str) -> Facts:
    return facts_of(_load(version))


OURS = generate.document()
OUR_FACTS = facts_of(OURS)


def _unlisted(found: list[Difference], rows: list[Row]) -> list[str]:
    return [str(difference) for difference in found if not any(row.covers(difference) for row in rows)]


def _unneeded(found: list[Difference], rows: list[Row]) -> list[str]:
    return [row.place for row in rows if not any(row.covers(difference) for difference in found)]


def _rows(heading: str) -> list[Row]:
    rows = [Row(*cells) for cells in table(PAGE, heading)]
    assert all(row.reason for row in rows)
    return rows


def test_the_committed_document_is_the_generated_one() -> None:
    assert (ROOT / "openapi.json").read_text() == generate.text()


def test_every_difference_to_the_newest_description_is_listed() -> None:
    rows = _rows("The description of 0.8.0")
    found = differences(_facts("0.8.0"), OUR_FACTS, with_additions=True)
    assert _unlisted(found, rows) == []
    assert _unneeded(found, rows) == []


def test_every_difference_to_the_oldest_description_is_listed() -> None:
    """What it lacks was added by 0.8.0 or is listed there."""
    rows = _rows("The description of 0.1.4")
    found = differences(_facts("0.1.4"), OUR_FACTS, with_additions=False)
    assert _unlisted(found, rows) == []
    assert _unneeded(found, rows) == []


def test_nothing_is_asked_for_that_an_old_client_does_not_send() -> None:
    old = _facts("0.1.4")
    for place, fact in OUR_FACTS.items():
        is_input = " ?" in place or " <." in place
        operation = place.split(" <", 1)[0].split(" ?", 1)[0]
        if is_input and fact == "required" and operation in old:
            assert old.get(place) == "required", place


def test_no_list_of_differences_swallows_an_operation() -> None:
    for heading in ("The description of 0.8.0", "The description of 0.1.4"):
        for row in _rows(heading):
            for method, path in operations_of(_load("0.8.0")):
                name = f"{method.upper()} {path.removeprefix('/api/v1')}"
                assert not row.covers(Difference(name, "operation", "–")), row


def test_errors_of_the_framework_are_not_described() -> None:
    assert "HTTPValidationError" not in json.dumps(OURS)


def test_ping_needs_no_token_and_all_else_does() -> None:
    assert OURS["security"] == [{"bearer": []}]
    open_operations = [
        key for key, operation in operations_of(OURS).items() if operation.get("security") == [{}]
    ]
    assert open_operations == [("get", "/ping")]
