"""Faults on request: errors, lost replies, delays and lies at the places that ask for them.

A fault names a target (``esplora``, or an RPC or event of the Ark server), which requests of it are meant, at
which stage of the request it strikes, what happens then, and how often. The program at the target asks
`FaultPlan.take` and acts on the answer; a fault that was taken as often as it may is gone.

Source: sheet 10 §14.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from barkd_py.errors import InvalidInput, NotFound


class Stage(StrEnum):
    """When a fault strikes."""

    BEFORE = "before"  # nothing was done
    AFTER_COMMIT = "after-commit"  # all was done, only the reply is missing
    REPLY = "reply"  # the reply is changed
    STREAM = "stream"  # a message of a stream
    ENGINE = "engine"  # something that happens without a request


class Action(StrEnum):
    """What a fault does."""

    ERROR = "error"  # answer `code` and `text`, with `identifiers`
    DROP = "drop"  # close the connection
    DELAY = "delay"  # wait `delay_seconds`, then go on
    MUTATE = "mutate"  # change the reply as `mutation` says; the target knows the names
    SWALLOW = "swallow"  # answer well and do nothing


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. match: facts of the request that must agree, with shell patterns (``/tx/*``).

    skip: how many matching requests pass first. count: how many are hit; None for all that follow.
    """

    target: str
    stage: Stage
    action: Action
    match: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    text: str = ""
    identifiers: tuple[str, ...] = ()
    delay_seconds: float = 0.0
    mutation: str = ""
    skip: int = 0
    count: int | None = 1

    def matches(self, target: str, stage: Stage, facts: Mapping[str, str]) -> bool:
        """Whether a request is meant."""
        return (
            fnmatchcase(target, self.target)
            and self.stage is stage
            and all(fnmatchcase(facts.get(name, ""), pattern) for name, pattern in self.match.items())
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Fault":
        """From the control API's JSON. Raises InvalidInput for an unknown field or value."""
        known = {name: value[name] for name in value if name in _FIELDS}
        if unknown := value.keys() - known.keys():
            raise InvalidInput(f"a fault has no field {sorted(unknown)[0]!r}")
        try:
            return cls(
                **{
                    **known,
                    "target": str(value["target"]),
                    "stage": Stage(value.get("stage", Stage.BEFORE)),
                    "action": Action(value["action"]),
                    "match": {str(name): str(pattern) for name, pattern in value.get("match", {}).items()},
                    "code": str(value.get("code", "")),
                    "identifiers": tuple(str(identifier) for identifier in value.get("identifiers", ())),
                    "delay_seconds": float(value.get("delay_seconds", 0.0)),
                    "skip": int(value.get("skip", 0)),
                    "count": None if value.get("count", 1) is None else int(value.get("count", 1)),
                }
            )
        except KeyError as error:
            raise InvalidInput(f"a fault needs the field {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f"not a fault: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return {
            "target": self.target,
            "stage": self.stage.value,
            "action": self.action.value,
            "match": dict(self.match),
            "code": self.code,
            "text": self.text,
            "identifiers": list(self.identifiers),
            "delay_seconds": self.delay_seconds,
            "mutation": self.mutation,
            "skip": self.skip,
            "count": self.count,
        }


_FIELDS = frozenset(Fault.__slots__)


@dataclass(slots=True)
class _Armed:
    """A fault and what is left of its counters."""

    fault: Fault
    skip: int
    count: int | None


class FaultPlan:
    """The faults that are set at the moment. In memory only: a restarted devnet has none."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._armed: dict[int, _Armed] = {}

    def set(self, fault: Fault) -> int:
        """Arm a fault; the number to clear it with."""
        number = next(self._ids)
        self._armed[number] = _Armed(fault, fault.skip, fault.count)
        return number

    def clear(self, number: int | None = None) -> None:
        """Disarm one fault, or all. Raises NotFound."""
        if number is None:
            self._armed.clear()
        elif self._armed.pop(number, None) is None:
            raise NotFound(f"no fault {number}", [str(number)])

    def list(self) -> dict[int, Fault]:
        """The armed faults by number."""
        return {number: armed.fault for number, armed in self._armed.items()}

    def take(self, target: str, stage: Stage, facts: Mapping[str, str] | None = None) -> Fault | None:
        """The first fault that a request hits at a stage, which counts as used; None for no fault."""
        for number, armed in self._armed.items():
            if not armed.fault.matches(target, stage, facts or {}):
                continue
            if armed.skip > 0:
                armed.skip -= 1
                continue
            if armed.count is not None:
                armed.count -= 1
                if armed.count <= 0:
                    del self._armed[number]
            return armed.fault
        return None
