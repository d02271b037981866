"""Vectors selected by any of their fields, and as parameters of tests."""

from typing import Any

import pytest

from tests.vector_files import load

Case = dict[str, Any]


def cases(file: str, /, **wanted: object) -> list[Case]:
    """The cases of a file whose fields have the wanted values (None: the field is absent). Never none."""
    found = [case for case in load(file) if all(case.get(key) == value for key, value in wanted.items())]
    assert found, f"no case in {file}.json has {wanted}"
    return found


def params(file: str, /, **wanted: object) -> list[Any]:
    """`cases` as parameters of a test, named after themselves."""
    return [
        pytest.param(case, id=str(case.get("name", index)))
        for index, case in enumerate(cases(file, **wanted))
    ]
