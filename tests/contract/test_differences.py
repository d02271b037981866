"""What docs/api.md sums up is shown by something, and sums up all that the comparison with barkd sees.

The comparison itself (`tests/interop/test_side_by_side.py`) needs a real barkd; here its list of differences
is held against the page that people read, and each of its lines is made sure to be a narrow one.
"""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from tests.contract.description import Difference, Row, glob, table
from tests.interop import bad_requests

ROOT = Path(__file__).parent.parent.parent
CONTRACT = (ROOT / "docs" / "contract.md").read_text()
SEEN = [Row(*cells) for cells in table(CONTRACT, "Behaviour beside barkd 0.8.0")]
REQUESTS = [
    f"{entry['stage']}: {entry['name']}"
    for entry in [
        *json.loads((ROOT / "tests" / "interop" / "requests.json").read_text()),
        *bad_requests.entries(),
    ]
]
SUMMARY = table((ROOT / "docs" / "api.md").read_text(), "Where barkd-py differs from barkd 0.8.0")
FIELD = re.compile(
    r"(?:status|body|location|allow|content-type|(?:\.?[\w.\[\]]+ )?(?:order|course|keys)|[.\[][\w.\[\]]*)"
)
"""The end of a place: one field, by its name."""


def _shown_by(cells: list[str]) -> tuple[list[str], list[str]]:
    """The lines of the comparison and the tests that a row of the summary names."""
    proofs = cells[3].split("<br>")
    lines = [
        proof.removeprefix("[contract](contract.md): ") for proof in proofs if proof.startswith("[contract]")
    ]
    return lines, [proof for proof in proofs if not proof.startswith("[contract]")]


@cache
def _tests_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("cells", SUMMARY, ids=lambda cells: cells[0])
def test_a_difference_is_shown_by_something_that_exists(cells: list[str]) -> None:
    assert len(cells) == 4
    assert all(cells)
    lines, tests = _shown_by(cells)
    for line in lines:
        assert any(glob(line, row.place) or line == row.place for row in SEEN), line
    for test in tests:
        path, _, name = test.partition("::")
        assert name in _tests_of(path), test


def test_what_the_comparison_sees_is_summed_up() -> None:
    lines = [line for cells in SUMMARY for line in _shown_by(cells)[0]]
    assert [row.place for row in SEEN if not any(glob(line, row.place) for line in lines)] == []


@pytest.mark.parametrize("row", SEEN, ids=lambda row: row.place)
def test_a_line_of_the_comparison_is_about_one_field_of_few_answers(row: Row) -> None:
    assert row.reason
    name, _, field = _split(row.place)
    assert FIELD.fullmatch(field), "names one field"
    assert 1 <= sum(glob(name, request) for request in REQUESTS) <= 8, "of few answers"
    assert row.theirs != row.ours
    for other in ("1", '"x"', "null", "500 internal error", "–", "no answer"):
        assert not row.covers(Difference(row.place, other, row.ours)) or other == row.theirs
        assert not row.covers(Difference(row.place, row.theirs, other)) or other == row.ours


def _split(place: str) -> tuple[str, str, str]:
    """A place as the request's name and the field."""
    for end in (" order", " course", " keys"):
        if place.endswith(end):
            name, _, field = place.removesuffix(end).rpartition(" ")
            return name, " ", field + end
    return place.rpartition(" ")
