"""Faults that are set, with how often they struck: what all faces of devnet have in common.

In memory only: a restarted devnet is honest.
"""

import asyncio
import enum
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Generic, Protocol, TypeVar

from barkd_py.devnet.request_body import refuse_unknown
from barkd_py.errors import InvalidInput


class Describable(Protocol):
    """A description of a fault. skip: matching events that pass first. count: how many are hit; None: all."""

    @property
    def skip(self) -> int: ...

    @property
    def count(self) -> int | None: ...


F = TypeVar("F", bound=Describable)

_TYPES: Mapping[str, tuple[type, ...]] = {
    "skip": (int,),
    "count": (int, type(None)),
    "code": (int, str),
    "seconds": (int, float),
    "identifiers": (str, type(None)),
    "value": (str, int, type(None)),
}
"""Of the fields of a fault; others are texts."""


def read_fault(
    description: Mapping[str, Any], fault: type[Any], stage: type[enum.Enum], kind: type[enum.Enum]
) -> dict[str, Any]:
    """The arguments for a fault's class, from JSON with the names of its fields. Raises InvalidInput."""
    known = {each.name: each.default is MISSING for each in fields(fault)}
    refuse_unknown(description, known)
    for name, is_needed in known.items():
        if is_needed and name not in description and name != "stage":
            raise InvalidInput(f"{name} is missing")
    read: dict[str, Any] = {}
    for name, value in {"stage": "before", **description}.items():
        if name in ("stage", "kind"):
            read[name] = _one_of(stage if name == "stage" else kind, name, value)
            continue
        wanted = _TYPES.get(name, (str,))
        if not isinstance(value, wanted) or (isinstance(value, bool) and name != "value"):
            raise InvalidInput(f"{name} has the wrong type: {value!r}")
        read[name] = value
    return read


def describe(fault: Any) -> dict[str, Any]:
    """The description that `read_fault` reads."""
    return {
        name: value.value if isinstance(value, enum.Enum) else value for name, value in asdict(fault).items()
    }


def _one_of(choices: type[enum.Enum], name: str, value: object) -> enum.Enum:
    try:
        return choices(value)
    except ValueError:
        there = ", ".join(str(choice.value) for choice in choices)
        raise InvalidInput(f"unknown {name} {value!r}; there are: {there}") from None


@dataclass(slots=True)
class _Armed(Generic[F]):
    fault: F
    to_skip: int
    left: int | None
    hits: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class ArmedFaults(Generic[F]):
    """Whoever controls the test sets and removes; the face that misbehaves asks what is due."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._armed: dict[int, _Armed[F]] = {}

    def set(self, fault: F) -> int:
        """Arm a fault; its number."""
        number = next(self._ids)
        self._armed[number] = _Armed(fault, fault.skip, fault.count)
        return number

    def remove(self, number: int) -> bool:
        """Take a fault away; whether it was there."""
        armed = self._armed.pop(number, None)
        if armed is not None:
            armed.gone.set()
        return armed is not None

    def clear(self) -> None:
        """Be honest again."""
        for number in tuple(self._armed):
            self.remove(number)

    def list(self) -> Sequence[dict[str, Any]]:
        """All faults that are set, with their numbers and how often they struck."""
        return [
            {"id": number, "hits": armed.hits, "left": armed.left, **describe(armed.fault)}
            for number, armed in self._armed.items()
        ]

    def take_due(self, is_meant: Callable[[F], bool]) -> tuple[F, ...]:
        """The faults that strike an event now; counted as struck."""
        struck = []
        for armed in self._armed.values():
            if armed.left == 0 or not is_meant(armed.fault):
                continue
            if armed.to_skip:
                armed.to_skip -= 1
                continue
            if armed.left is not None:
                armed.left -= 1
            armed.hits += 1
            struck.append(armed.fault)
        return tuple(struck)

    async def pause(self, fault: F, seconds: float) -> None:
        """What a delay does; it ends early when the fault is taken away."""
        gone = next((armed.gone for armed in self._armed.values() if armed.fault is fault), None)
        if gone is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await gone.wait()
