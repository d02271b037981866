"""The states of an exit as a picture, drawn from the machine's table.

`python -m barkd_py.wallet.exits.picture` prints it as Mermaid, for the documentation. What each transition is
called is written here; a transition of the table without a name, or a name without a transition, is an error.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Final

from barkd_py.wallet.exits.machine import TABLE

_CAUSES: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("start", "processing"): "at once",
        ("processing", "awaiting-delta"): "all its transactions are in blocks",
        ("awaiting-delta", "claimable"): "the exit delta is over",
        ("claimable", "claim-in-progress"): "you claim it",
        ("claim-in-progress", "claimed"): "the claim is in a block",
        ("claimable", "claimed"): "it was claimed meanwhile",
        ("claim-in-progress", "claimable"): "the claim is gone",
        ("awaiting-delta", "processing"): "reorganisation",
        ("claimable", "processing"): "reorganisation",
        ("claim-in-progress", "processing"): "reorganisation",
        ("claimable", "awaiting-delta"): "reorganisation",
        ("claim-in-progress", "awaiting-delta"): "reorganisation",
        ("start", "canceled"): "you cancel it",
        ("processing", "canceled"): "you cancel it",
        ("start", "vtxo-already-spent"): "you paid with it",
        ("processing", "vtxo-already-spent"): "you paid with it",
        ("processing", "vtxo-swept"): "too late, the server took it",
    }
)


def transitions() -> Iterator[tuple[str, str]]:
    """Every change from one state to another, by name."""
    for state, row in TABLE.items():
        for successor in row.to:
            if successor is not state:
                yield _name(state), _name(successor)


def finished() -> frozenset[str]:
    """The states that nothing follows."""
    return frozenset(_name(state) for state, row in TABLE.items() if not row.to)


def _name(state: type) -> str:
    """The name that clients know the state by."""
    (tag,) = (field.default for field in fields(state) if field.name == "type")
    return str(tag)


def mermaid() -> str:
    """A Mermaid state diagram."""
    known, named = set(transitions()), set(_CAUSES)
    if known != named:
        raise ValueError(f"not in the table or without a name: {sorted(known ^ named)}")
    lines = ["stateDiagram-v2", "    [*] --> start"]
    lines += [f"    {state} --> {successor}: {cause}" for (state, successor), cause in _CAUSES.items()]
    lines += [f"    {state} --> [*]" for state in sorted(finished())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(mermaid(), end="")
