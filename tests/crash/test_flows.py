"""The table is complete, and the document is what the results say."""

import json
from pathlib import Path

from tests.crash import report
from tests.crash.flows import FLOWS
from tests.crash.flows.operations import FLOW_OF, LIKE, MOVE_NOTHING, WITHOUT_A_REQUEST

OPENAPI = Path(__file__).parents[2] / "openapi.json"


def test_every_operation_is_a_flow_or_moves_nothing() -> None:
    paths = json.loads(OPENAPI.read_text())["paths"]
    operations = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, methods in paths.items()
        for method in methods
        if method != "get"
    }
    assert operations == FLOW_OF.keys() | LIKE.keys() | MOVE_NOTHING
    assert {*FLOW_OF.values(), *WITHOUT_A_REQUEST.values()} <= {flow.name for flow in FLOWS}
    assert set(LIKE.values()) <= FLOW_OF.keys()


def test_every_flow_was_killed_without_a_violation() -> None:
    runs = report.recorded()
    for fault in ("killed at a commit", "killed at a network call"):
        killed = {run.flow for run in runs if run.fault == fault and run.struck}
        assert {flow.name for flow in FLOWS} <= killed
    assert [run for run in runs if run.failure] == []


def test_the_document_is_what_the_results_say(tmp_path: Path) -> None:
    again = tmp_path / "reliability.md"
    again.write_text(report.DOCUMENT.read_text())
    report.write_document(again)
    assert again.read_text() == report.DOCUMENT.read_text()


def test_a_violation_that_a_later_run_replaced_is_counted() -> None:
    def run(point: str, failure: str) -> report.Run:
        return report.Run("board", "killed at a commit", point, True, 1, failure, "", "")

    bad, good, other = run("one", "missing"), run("one", ""), run("two", "missing")
    assert report.replaced_violations([good]) == 0
    assert report.replaced_violations([good, bad]) == 0
    assert report.replaced_violations([bad, other, good]) == 1
    assert report.replaced_violations([bad, bad, good, bad]) == 2
