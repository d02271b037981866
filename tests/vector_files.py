"""The vectors in tests/vectors, by file and kind. Their format is described in tests/vectors/README.md."""

import json
from functools import cache
from pathlib import Path
from typing import Any

_DIRECTORY = Path(__file__).parent / "vectors"


@cache
def load(name: str) -> tuple[dict[str, Any], ...]:
    """All cases of a file, such as ``musig``."""
    return tuple(json.loads((_DIRECTORY / f"{name}.json").read_text())["cases"])


def cases(name: str, kind: str) -> list[dict[str, Any]]:
    """The cases of one kind; at least one, so that no test passes for want of vectors."""
    found = [case for case in load(name) if case.get("kind") == kind]
    assert found, f"{name}.json has no case of kind {kind}"
    return found


def case_name(case: dict[str, Any]) -> str:
    """For ``ids=`` of a parametrized test."""
    return str(case.get("name", ""))
