"""The table of docs/reliability.md, from what was tried."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- begin: {} -->", "<!-- end: {} -->"


@dataclass(frozen=True, slots=True)
class Row:
    """How often a fault was tried on a flow, and what came of it."""

    flow: str
    fault: str
    tried: int
    struck: int
    happened: int
    failed: int


def rows(outcomes: Iterable["Recorded"]) -> list[Row]:
    grouped: defaultdict[tuple[str, str], list[Recorded]] = defaultdict(list)
    for outcome in outcomes:
        grouped[outcome.flow, outcome.fault].append(outcome)
    return [
        Row(
            flow,
            fault,
            tried=len(group),
            struck=sum(each.struck for each in group),
            happened=sum(each.happened for each in group),
            failed=sum(bool(each.failure) for each in group),
        )
        for (flow, fault), group in grouped.items()
    ]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One run. struck: the fault was met. failure: what was wrong afterwards, or empty."""

    flow: str
    fault: str
    struck: bool
    happened: int
    failure: str = ""

    def to_line(self) -> str:
        return json.dumps(
            {name: getattr(self, name) for name in ("flow", "fault", "struck", "happened", "failure")}
        )


def table(found: Sequence[Row]) -> str:
    lines = [
        "| flow | fault | tried | struck | completed by itself | not begun | violations |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.flow} | {row.fault} | {row.tried} | {row.struck} | {row.happened}"
        f" | {row.tried - row.happened - row.failed} | {row.failed} |"
        for row in found
    ]
    tried, struck, failed = (
        sum(getattr(row, name) for row in found) for name in ("tried", "struck", "failed")
    )
    lines.append(f"| **all** | | **{tried}** | **{struck}** | | | **{failed}** |")
    return "\n".join(lines)


def replace_section(name: str, content: str, document: Path = DOCUMENT) -> None:
    """Put the content between the marks of a section."""
    text = document.read_text()
    begin, end = _BEGIN.format(name), _END.format(name)
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    if not tail and end not in rest:
        raise ValueError(f"{document} has no section {name}")
    document.write_text(f"{head}{begin}\n{content}\n{end}{tail}")
