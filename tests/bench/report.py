"""What is measured, as a table with one column per program, and the goals that we have set ourselves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

OURS = "barkd-py"
THEIRS = "barkd 0.8.0"


@dataclass(frozen=True, slots=True)
class Goal:
    """What our figure is to be at most, or at least; times that of the other program, if of_theirs."""

    value: float
    at_least: bool = False
    of_theirs: bool = False

    def is_met(self, row: Mapping[str, float]) -> bool | None:
        """None if that cannot be said of these figures."""
        if OURS not in row or (self.of_theirs and not row.get(THEIRS)):
            return None
        limit = self.value * row[THEIRS] if self.of_theirs else self.value
        return row[OURS] >= limit if self.at_least else row[OURS] <= limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.value:,g}{' × barkd' if self.of_theirs else ''}"


@dataclass
class Report:
    """Rows in the order in which they were first added."""

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
        columns = [who for who in (OURS, THEIRS) if any(who in row for row in self.rows.values())]
        table = Table(title="barkd-py bench", title_justify="left")
        table.add_column("what")
        for who in columns:
            table.add_column(who, justify="right")
        table.add_column("unit")
        if len(columns) == 2:
            table.add_column("ratio", justify="right")
        table.add_column("goal", justify="right")
        for what, row in self.rows.items():
            cells = [_number(row[who]) if who in row else "–" for who in columns]
            ratio = [_ratio(row)] if len(columns) == 2 else []
            table.add_row(what, *cells, self.units[what], *ratio, self._goal(what))
        Console().print(table)

    def _goal(self, what: str) -> str:
        goal = self.goals.get(what)
        if goal is None:
            return ""
        return f"[red]{goal} missed[/red]" if goal.is_met(self.rows[what]) is False else str(goal)

    def write(self, path: Path) -> None:
        rows = [
            {"what": what, "unit": self.units[what], **row, "goal": str(self.goals.get(what, ""))}
            for what, row in self.rows.items()
        ]
        path.write_text(json.dumps(rows, indent=2) + "\n")


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(row: Mapping[str, float]) -> str:
    return f"{row[OURS] / row[THEIRS]:.2f}" if OURS in row and row.get(THEIRS) else ""
