"""What is measured, as a table with one column per program, and the goals that we have set ourselves."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

OURS = "barkd-py"
THEIRS = "barkd 0.8.0"

PROGRAMS = (OURS, THEIRS)


@dataclass(frozen=True, slots=True)
class Goal:
    """What our figure is to be at most, or at least; times that of the other program, if of_theirs."""

    value: float
    at_least: bool = False
    of_theirs: bool = False

    def is_met(self, ours: float | None, theirs: float | None) -> bool | None:
        """None if that cannot be said of these figures."""
        if ours is None or (self.of_theirs and not theirs):
            return None
        limit = self.value * (theirs or 0) if self.of_theirs else self.value
        return ours >= limit if self.at_least else ours <= limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.value:,g}{' × barkd' if self.of_theirs else ''}"


@dataclass
class Report:
    """Rows in the order in which they were first added.

    columns: whose figures are compared. The goals are for the first; the ratio is that of the first to the
    second.
    """

    title: str = "barkd-py bench"
    columns: tuple[str, str] = PROGRAMS
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    goals: dict[str, Goal] = field(default_factory=dict)

    def add(self, what: str, who: str, value: float, unit: str, goal: Goal | None = None) -> None:
        self.rows.setdefault(what, {})[who] = value
        self.units[what] = unit
        if goal is not None:
            self.goals[what] = goal
        Console(stderr=True).print(f"[dim]{who}: {what}: {_number(value)} {unit}[/dim]", highlight=False)

    def show(self) -> None:
        if not self.rows:
            return
        columns = [who for who in self.columns if any(who in row for row in self.rows.values())]
        table = Table(title=self.title, title_justify="left")
        table.add_column("what")
        for who in columns:
            table.add_column(who, justify="right")
        table.add_column("unit")
        if len(columns) == 2:
            table.add_column("ratio", justify="right")
        table.add_column("goal", justify="right")
        for what, row in self.rows.items():
            cells = [_number(row[who]) if who in row else "–" for who in columns]
            ratio = [_ratio(*map(row.get, columns))] if len(columns) == 2 else []
            table.add_row(what, *cells, self.units[what], *ratio, self._goal(what))
        Console().print(table)

    def _goal(self, what: str) -> str:
        goal = self.goals.get(what)
        if goal is None:
            return ""
        is_met = goal.is_met(*map(self.rows[what].get, self.columns))
        return f"[red]{goal} missed[/red]" if is_met is False else str(goal)

    def as_json(self) -> list[dict[str, object]]:
        return [
            {"what": what, "unit": self.units[what], **row, "goal": str(self.goals.get(what, ""))}
            for what, row in self.rows.items()
        ]


def write_json(path: Path, *reports: Report) -> None:
    path.write_text(json.dumps([row for report in reports for row in report.as_json()], indent=2) + "\n")


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(first: float | None, second: float | None) -> str:
    return f"{first / second:.2f}" if first is not None and second else ""
