"""The registers of what a client must verify, of the protocol's traps, and of what a server may do, name
tests that exist, and leave out no line."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.faults.knobs import KNOBS, KNOBS_PER_SECTION
from tests.faults.register import LINES_PER_SHEET, REGISTER
from tests.faults.traps import SHEETS, TRAPS, TRAPS_PER_LIST

TESTS = Path(__file__).parents[1]

MAY_BE_OPEN: frozenset[str] = frozenset()
"""Lines of which something is not shown yet; none may join them unnoticed."""

KNOBS_IN_PART: frozenset[str] = frozenset()
"""Knobs that no wallet was shown in full; the table says what is missing."""

EVERYTHING = {**REGISTER, **TRAPS, **KNOBS}


@cache
def functions_of(file: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^ *(?:async )?def (\w+)\(", file.read_text(), re.MULTILINE))


@pytest.mark.parametrize("key", EVERYTHING)
def test_every_test_of_the_register_exists(key: str) -> None:
    line = EVERYTHING[key]
    for test in line.tests:
        file, _, name = test.partition("::")
        assert name in functions_of(TESTS / file), test
    assert line.tests or line.open or line.not_ours, "a rule that nothing shows"


def test_every_line_of_every_list_is_there() -> None:
    expected = {
        f"{sheet}.{number}" for sheet, count in LINES_PER_SHEET.items() for number in range(1, count + 1)
    }
    assert set(REGISTER) == expected


def test_every_trap_is_there() -> None:
    expected = {
        f"{section}.{number}" for section, count in TRAPS_PER_LIST.items() for number in range(1, count + 1)
    }
    assert set(TRAPS) == expected
    assert sum(len(sheet.TRAPS) for sheet in SHEETS) == len(TRAPS), "a line that is there twice"


def test_every_knob_is_there() -> None:
    expected = {
        f"{section}.{number}"
        for section, count in KNOBS_PER_SECTION.items()
        for number in range(1, count + 1)
    }
    assert set(KNOBS) == expected


def test_what_is_open_is_known() -> None:
    assert {key for key, line in {**REGISTER, **TRAPS}.items() if line.open} <= MAY_BE_OPEN
    assert {key for key, knob in KNOBS.items() if knob.open} == KNOBS_IN_PART
