"""What was tried, run by run, and the tables of docs/reliability.md that say so.

Each run is a line of ``results.jsonl`` beside this file; the newest of a flow, fault and point counts. The
tables are made of nothing else:

    python -m tests.crash.report
"""

import json
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.crash.flows import FLOWS
from tests.crash.troubles import MIDWAY, TROUBLES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "tests" / "crash" / "results.jsonl"
SOAKS = RESULTS.with_name("soaks.json")
_SOAKS_KEPT = 3
_BEGIN, _END = "<!-- begin: {} -->", "<!-- end: {} -->"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a flow under a fault, at a point of it if the fault has one.

    struck: the fault was met. happened: how often the flow took place. failure: what was wrong afterwards, or
    empty. commit, day: of what, and when.
    """

    flow: str
    fault: str
    point: str
    struck: bool
    happened: int
    failure: str
    commit: str
    day: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.flow, self.fault, self.point


@dataclass(frozen=True, slots=True)
class Soaked:
    """One soak: its command, and what it said."""

    command: str
    commit: str
    day: str
    summary: str


def current_commit() -> str:
    """Of the code that runs; with a plus if files differ from it, but for those that the suites write."""
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "--short", "HEAD")
    written = [f":(exclude,top){file.relative_to(ROOT)}" for file in (DOCUMENT, RESULTS, SOAKS)]
    status = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ":/", *written)
    return commit + ("+" if status else "")


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def record(run: Run, results: Path = RESULTS) -> None:
    with results.open("a") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def recorded(results: Path = RESULTS, skipped: int = 0) -> list[Run]:
    """The newest run of each flow, fault and point. skipped: that many were noted earlier."""
    return list({run.key: run for run in every_run(results, skipped)}.values())


def every_run(results: Path = RESULTS, skipped: int = 0) -> list[Run]:
    """In their order, also those that were repeated later."""
    return [Run(**json.loads(line)) for line in _lines(results)[skipped:]]


def replaced_violations(runs: Iterable[Run]) -> int:
    """How many runs found a violation where a later run, of what may be other code, counts instead.

    runs: all of them, in their order.
    """
    found: Counter[tuple[str, str, str]] = Counter()
    last: dict[tuple[str, str, str], Run] = {}
    for run in runs:
        found[run.key] += _violated(run)
        last[run.key] = run
    return found.total() - _count(last.values(), _violated)


def noted(results: Path) -> int:
    return len(_lines(results))


def _lines(results: Path) -> list[str]:
    return results.read_text().splitlines() if results.exists() else []


def table(runs: Iterable[Run]) -> str:
    """A row for each flow and fault."""
    grouped: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        grouped[run.flow, run.fault].append(run)
    place = {flow.name: index for index, flow in enumerate(FLOWS)}
    lines = [
        "| flow | fault | tried | struck | completed by itself | not begun | violations |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for flow, fault in sorted(grouped, key=lambda key: (place.get(key[0], len(place)), key)):
        group = grouped[flow, fault]
        completed = _count(group, lambda run: run.happened > 0)
        failed = _count(group, _violated)
        lines.append(
            f"| {flow} | {fault} | {len(group)} | {_count(group, _struck)} | {completed}"
            f" | {len(group) - completed - failed} | {failed} |"
        )
    everything = [run for group in grouped.values() for run in group]
    lines.append(
        f"| **all** | | **{len(everything)}** | **{_count(everything, _struck)}** | | |"
        f" **{_count(everything, _violated)}** |"
    )
    return "\n".join(lines)


def look_ups(runs: Iterable[Run]) -> str:
    """How often a daemon died where it only reads the chain: perhaps not everywhere yet."""
    struck = Counter(run.flow for run in runs if " GET " in run.point and run.struck)
    by_flow = ", ".join(f"{flow.name} {struck[flow.name]}" for flow in FLOWS if flow.name in struck)
    return f"Of these deaths, {sum(struck.values())} were at look-ups ({by_flow or 'none'})."


def _replaced(ever: Sequence[Run]) -> str:
    return f"Runs with a violation that a later run of the same replaced: {replaced_violations(ever)}."


def matrix(runs: Iterable[Run]) -> str:
    """What came of each flow (a row) under each trouble (a column)."""
    found = {(run.flow, run.fault): run for run in runs}
    troubles = [trouble.name for trouble in TROUBLES]
    lines = [f"| | {' | '.join(troubles)} |", "|---|" + "---|" * len(troubles)]
    for flow in (each for each in FLOWS if each.under_troubles):
        cells = [_outcome(found.get((flow.name, trouble))) for trouble in troubles]
        lines.append(f"| {flow.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _outcome(run: Run | None) -> str:
    if run is None:
        return ""
    if run.failure:
        return "**violation**"
    if run.fault == MIDWAY and not run.struck:
        return "not met"
    return "done" if run.happened else "refused"


def _count(runs: Iterable[Run], accept: Callable[[Run], bool]) -> int:
    return sum(accept(run) for run in runs)


def _is_kill(run: Run) -> bool:
    return run.fault.startswith("killed")


def _struck(run: Run) -> bool:
    return run.struck


def _violated(run: Run) -> bool:
    return bool(run.failure)


def _provenance(runs: Sequence[Run]) -> str:
    """Which commits were tried, and when."""
    tried: defaultdict[tuple[str, str], int] = defaultdict(int)
    for run in runs:
        tried[run.day, run.commit] += 1
    return "; ".join(f"{day}, commit {commit}: {nb} runs" for (day, commit), nb in sorted(tried.items()))


def write_document(document: Path = DOCUMENT) -> None:
    """All tables, from the results."""
    runs, ever = recorded(), every_run()
    kills = [run for run in runs if _is_kill(run)]
    troubles = [run for run in runs if not _is_kill(run)]
    said = f"`python -m tests.crash --parts kills` ({_provenance(kills)}):\n\n{table(kills)}"
    said += f"\n\n{look_ups(kills)} {_replaced([run for run in ever if _is_kill(run)])}"
    _replace_section("kills", said, document)
    said = f"`python -m tests.crash --parts troubles` ({_provenance(troubles)}):\n\n{matrix(troubles)}"
    said += f"\n\n{_replaced([run for run in ever if not _is_kill(run)])}"
    _replace_section("troubles", said, document)
    soaks = [Soaked(**each) for each in json.loads(SOAKS.read_text())] if SOAKS.exists() else []
    parts = [f"`{each.command}` ({each.day}, commit {each.commit}):\n\n{each.summary}" for each in soaks]
    _replace_section("soak", "\n\n".join(parts), document)


def record_soak(soaked: Soaked, soaks: Path = SOAKS) -> None:
    """In place of an earlier one by the same command; the newest few are kept."""
    known = json.loads(soaks.read_text()) if soaks.exists() else []
    kept = [each for each in known if each["command"] != soaked.command]
    newest = [*kept, asdict(soaked)][-_SOAKS_KEPT:]
    soaks.write_text(json.dumps(newest, indent=1) + "\n")


def _replace_section(name: str, content: str, document: Path) -> None:
    """Put the content between the marks of a section."""
    text = document.read_text()
    begin, end = _BEGIN.format(name), _END.format(name)
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    if not tail and end not in rest:
        raise ValueError(f"{document} has no section {name}")
    document.write_text(f"{head}{begin}\n{content}\n{end}{tail}")


if __name__ == "__main__":
    write_document()
