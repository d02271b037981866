"""The vectors in tests/vectors, by file and fields. Their format is described in tests/vectors/README.md."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from barkd_py.bitcoin.tx import TxOut

_DIRECTORY = Path(__file__).parents[1] / "vectors"

Case = dict[str, Any]


@cache
def load(file: str) -> tuple[Case, ...]:
    """All cases of a file, such as ``musig``."""
    return tuple(json.loads((_DIRECTORY / f"{file}.json").read_text())["cases"])


def cases(file: str, /, **wanted: object) -> list[Case]:
    """The cases of a file whose fields have the wanted values (None: the field is absent).

    Never none, so that no test passes for want of vectors.
    """
    found = [case for case in load(file) if all(case.get(key) == value for key, value in wanted.items())]
    assert found, f"no case in {file}.json has {wanted}"
    return found


def params(file: str, /, **wanted: object) -> list[Any]:
    """`cases` as parameters of a test, named after themselves."""
    return [
        pytest.param(case, id=str(case.get("name", index)))
        for index, case in enumerate(cases(file, **wanted))
    ]


def case_name(case: Case) -> str:
    """For ``ids=`` of a parametrized test."""
    return str(case.get("name", ""))


def as_dict(output: TxOut) -> Case:
    """As the vectors write it."""
    return {"value": output.value_sat, "script_pubkey": output.script_pubkey.hex()}


def expected_outcome(result: object) -> object:
    """`ok`, or the text of the error."""
    return result["error"] if isinstance(result, dict) else result
