"""Reading tests/vectors: each file is ``{"about", "notes", "cases": […]}``."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

_FOLDER = Path(__file__).parent.parent / "vectors"

Case = dict[str, Any]


@lru_cache(maxsize=32)
def _load(name: str) -> tuple[Case, ...]:
    return tuple(json.loads((_FOLDER / f"{name}.json").read_text())["cases"])


def cases(name: str, **wanted: object) -> list[Case]:
    """The cases of a file whose fields have the wanted values (None: the field is absent). Never none."""
    found = [case for case in _load(name) if all(case.get(key) == value for key, value in wanted.items())]
    assert found, f"no case in {name}.json has {wanted}"
    return found


def params(name: str, **wanted: object) -> list[Any]:
    """`cases` as parameters of a test, named after themselves."""
    return [
        pytest.param(case, id=str(case.get("name", index)))
        for index, case in enumerate(cases(name, **wanted))
    ]
