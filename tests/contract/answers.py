"""Two answers to one request, compared field by field.

A difference is a place and what each of the two has there:

    vtxos: all .[].state.type                   "locked" | "spendable"
    history .[].metadata.payment_preimage       "<hex>" | null
    receives .[] order                          0 1 2 | 2 1 0
    lightning: unknown hash status              500 no such receive | 404 no such receive

What is another from wallet to wallet (keys, transactions, times) is masked; everything else counts: which
keys there are and in which order, types, the number of items, and the values of numbers and words. Items of a
list are compared with those most like them: so a list in another order is one difference, and none where the
contract fixes no order. Answers of different status differ in their status alone, which then stands for all.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from tests.contract.description import ABSENT, Difference
from tests.support import raw_http

_MASKS: Final = (
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9]{2}:[0-9]{2})"), "<time>"),
    (re.compile(r"\bt?ark1[0-9a-z]{20,}", re.I), "<ark address>"),
    (re.compile(r"\bln(?:bcrt|bc|tbs|tb)[0-9a-z]{40,}", re.I), "<invoice>"),
    (re.compile(r"\b(?:bcrt|bc|tb)1[0-9a-z]{20,}", re.I), "<address>"),
    (re.compile(r"[0-9a-f]{64}:[0-9]+", re.I), "<outpoint>"),
    (re.compile(r"[0-9a-f]{32,}", re.I), "<hex>"),
    (re.compile(r"[0-9.]+ BTC"), "<amount>"),
    (re.compile(r"https?://[^ )\"]+"), "<url>"),
    (re.compile(r"(/[\w.-]+){2,}"), "<path>"),
    (re.compile(r"\b[0-9]{3,}\b"), "<number>"),
)

_WRITTEN_EITHER_WAY: Final = ("<ark address>", "<invoice>", "<address>", "<outpoint>", "<hex>")

ORDERS: Final = (
    (re.compile(r"/onchain/utxos$"), "[]", ()),
    (re.compile(r"/exits/status(/all|/live|/finished)?$"), "[]", ()),
    (re.compile(r"/exits/progress$"), ".exits[]", ()),
    (re.compile(r"/wallet/vtxos$"), "[]", ("expiry_height", "amount_sat")),
)
"""Lists whose order the contract does not fix but for some fields: path, place, these fields."""

VOLATILE: Final = frozenset({"fingerprint", "mnemonic"})
"""Keys whose values are a wallet's own."""


Found = tuple[str, str, str]
"""Place, theirs, ours."""


def masked(text: str) -> str:
    """What is in capitals has a name in capitals."""
    for mask, name in _MASKS:
        if name in _WRITTEN_EITHER_WAY and (found := mask.search(text)) and found[0].isupper():
            name = name.upper()
        text = mask.sub(name, text)
    return text


def differences(
    name: str, path: str, theirs: raw_http.Response | None, ours: raw_http.Response
) -> list[Difference]:
    """name: of the request. theirs: None if there was no answer."""
    if theirs is None or theirs.status != ours.status:
        return [Difference(f"{name} status", _in_short(theirs), _in_short(ours))]
    found = _heads(theirs, ours)
    if _is_json(theirs) and _is_json(ours):
        found += _Comparison(path).values("", theirs.json(), ours.json())
    else:
        found += _leaf("body", masked(theirs.body.decode()), masked(ours.body.decode()))
    return [Difference(f"{name} {place}", one, other) for place, one, other in dict.fromkeys(found)]


def _heads(theirs: raw_http.Response, ours: raw_http.Response) -> list[Found]:
    return [
        entry
        for header in ("content-type", "allow", "location")
        for entry in _leaf(header, theirs.header(header) or ABSENT, ours.header(header) or ABSENT)
    ]


def _is_json(answer: raw_http.Response) -> bool:
    return answer.header("content-type") == "application/json" and bool(answer.body)


def _in_short(answer: raw_http.Response | None) -> str:
    if answer is None:
        return "no answer"
    if _is_json(answer):
        content = answer.json()
        text = content["message"] if isinstance(content, dict) and "message" in content else _kind(content)
    else:
        text = answer.body.decode()
    return f"{answer.status} {masked(text)}"


@dataclass(frozen=True, slots=True)
class _Comparison:
    """path: of the request; it says which lists have an order."""

    path: str

    def values(self, place: str, theirs: Any, ours: Any) -> list[Found]:
        match theirs, ours:
            case dict(), dict():
                return self._objects(place, theirs, ours)
            case list(), list():
                return self._lists(f"{place}[]", theirs, ours)
            case _:
                return _leaf(place or "body", _shown(place, theirs), _shown(place, ours))

    def _objects(self, place: str, theirs: dict[str, Any], ours: dict[str, Any]) -> list[Found]:
        found = []
        for key in dict.fromkeys([*theirs, *ours]):
            where = f"{place}.{key}"
            if key not in ours:
                found.append((where, _shown(where, theirs[key]), ABSENT))
            elif key not in theirs:
                found.append((where, ABSENT, _shown(where, ours[key])))
            else:
                found += self.values(where, theirs[key], ours[key])
        orders = [key for key in theirs if key in ours], [key for key in ours if key in theirs]
        return found + _leaf(f"{place} keys", *map(", ".join, orders))

    def _lists(self, place: str, theirs: list[Any], ours: list[Any]) -> list[Found]:
        if len(theirs) != len(ours) and all(
            isinstance(item, dict) and "type" in item for item in [*theirs, *ours]
        ):
            courses = [" → ".join(map(_state, side)) for side in (theirs, ours)]
            return [(f"{place} course", courses[0], courses[1])]
        if len(theirs) != len(ours):
            kinds = [" ".join(sorted({_kind(item) for item in side})) for side in (theirs, ours)]
            return [(f"{place} count", str(len(theirs)), str(len(ours))), *_leaf(f"{place} kinds", *kinds)]
        found, order = self._matched(place, theirs, ours)
        if order == sorted(order) or self._is_free(place, theirs, ours):
            return found
        reversed_found = [
            entry
            for one, other in zip(theirs, reversed(ours), strict=True)
            for entry in self.values(place, one, other)
        ]
        if len(reversed_found) <= len(found):
            return [*reversed_found, (f"{place} order", "one way", "the other way")]
        return [*found, (f"{place} order", " ".join(map(str, sorted(order))), " ".join(map(str, order)))]

    def _matched(self, place: str, theirs: list[Any], ours: list[Any]) -> tuple[list[Found], list[int]]:
        """What differs between each item of theirs and the one of ours most like it; and which that is."""
        found, order = [], []
        free = list(range(len(ours)))
        for index, item in enumerate(theirs):
            unlike = {other: self.values(place, item, ours[other]) for other in free}
            like = min(free, key=lambda other: (len(unlike[other]), other != index, other))
            free.remove(like)
            order.append(like)
            found += unlike[like]
        return found, order

    def _is_free(self, place: str, theirs: list[Any], ours: list[Any]) -> bool:
        """Whether the contract allows both orders."""
        for about, where, keys in ORDERS:
            if about.search(self.path) and place == where:
                return all(
                    [item[key] for key in keys] == [other[key] for key in keys]
                    for item, other in zip(theirs, ours, strict=True)
                )
        return False


def _state(item: dict[str, Any]) -> str:
    """A step of a history: `processing[verify-inputs]`."""
    within = [_state(inner["status"]) for inner in item.get("transactions", ())]
    return f"{item['type']}[{', '.join(within)}]" if within else str(item["type"])


def _leaf(place: str, theirs: str, ours: str) -> list[Found]:
    return [] if theirs == ours else [(place, theirs, ours)]


def _shown(place: str, value: Any) -> str:
    match value:
        case str() if place.rpartition(".")[2] in VOLATILE:
            return '"…"'
        case str():
            return f'"{masked(value)}"'
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int() | float():
            return str(value)
        case list():
            return f"{len(value)} items"
        case _:
            return _kind(value)


def _kind(value: Any) -> str:
    """Keys and types alone."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {_kind(inner)}" for key, inner in value.items()) + "}"
        case list():
            return f"[{' | '.join(sorted({_kind(item) for item in value}))}]"
        case str():
            return "text"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case _:
            return "null"
