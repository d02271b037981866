"""The list of 500s is that of the recorded barkd, and says where it has the others from."""

import re
from functools import cache

from barkd_py.api import generate
from tests.contract.description import operations_of
from tests.contract.failures import FAILURES, RECORDED, is_documented
from tests.contract.recorded import cases

OPERATIONS = tuple(
    (method.upper(), path.removeprefix("/api/v1")) for method, path in operations_of(generate.document())
)


@cache
def _recorded() -> frozenset[tuple[str, str]]:
    """Operations and messages of the recorded 500s."""
    return frozenset(
        (_operation(case.method, case.path), case.response["message"])
        for case in cases()
        if case.status == 500
    )


def _operation(method: str, path: str) -> str:
    """The described operation that a request of the recording is."""
    path = path.removeprefix("/api/v1")
    if (method, path) == ("POST", "/wallet"):
        path = "/wallet/create"  # an alias
    for known_method, known in OPERATIONS:
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(known))
        if method == known_method and re.fullmatch(pattern, path):
            return f"{method} {known}"
    raise AssertionError(f"no operation is {method} {path}")


def test_every_recorded_500_is_in_the_list() -> None:
    assert [found for found in _recorded() if not is_documented(*found)] == []


def test_what_is_said_to_be_recorded_is() -> None:
    unfounded = [
        failure
        for failure in FAILURES
        if failure.source == RECORDED and not any(failure.covers(*found) for found in _recorded())
    ]
    assert unfounded == []


def test_no_text_stands_for_any_failure() -> None:
    for failure in FAILURES:
        assert not failure.covers(failure.operation, "internal error"), failure
        assert not failure.covers(failure.operation, "Failed: something went wrong"), failure
        assert failure.source


def test_the_operations_are_described_ones() -> None:
    assert {failure.operation for failure in FAILURES} <= {" ".join(operation) for operation in OPERATIONS}
