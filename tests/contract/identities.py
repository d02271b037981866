"""Whether two wallets' answers speak of the same things, though no id of one is an id of the other.

An id (of a transaction, an output, a payment; an address, an invoice) is known by where it is found: in which
answers, at which places of them, beside which amount or number. Of each id of one wallet there must be one of
the other that is found at the same places: so a movement that names another VTXO than it should, or a VTXO
that names another movement, is a difference, though each answer by itself looks alike.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, Final

from tests.support import raw_http

_IDS: Final = re.compile(
    r"[0-9a-f]{64}:[0-9]+|\b[0-9a-f]{64}\b|\b(?:tark|bcrt|lnbcrt)[0-9]*[a-z]?1[0-9a-z]{20,}", re.I
)
_TOLD_OF: Final = re.compile(
    r"/(history|wallet/(history|movements|rounds|vtxos)|boards/pending|onchain/(utxos|transactions))$"
)
_BESIDE: Final = ("id", "name", "kind", "amount_sat", "confirmation_height")

Place = tuple[str, ...]


class Identities:
    """What was found in the answers of two wallets to the same requests."""

    def __init__(self) -> None:
        self._found: tuple[dict[str, list[Place]], ...] = (defaultdict(list), defaultdict(list))

    def add(self, name: str, path: str, theirs: raw_http.Response | None, ours: raw_http.Response) -> None:
        """name: of the request. Answers that are no lists of what happened, or refusals, are passed over."""
        if (
            theirs is None
            or (theirs.status, ours.status) != (200, 200)
            or not (ours.body and _TOLD_OF.search(path))
        ):
            return
        for found, answer in zip(self._found, (theirs, ours), strict=True):
            for id_, place in _ids(answer.json(), (name,)):
                found[id_].append(place)

    def __len__(self) -> int:
        return len(self._found[0])

    def unlike(self) -> list[str]:
        """The places of ids that only one of them has at just these."""
        theirs, ours = (Counter(_shown(places) for places in found.values()) for found in self._found)
        return [
            *(f"theirs alone: {places}" for places in (theirs - ours).elements()),
            *(f"ours alone: {places}" for places in (ours - theirs).elements()),
        ]


def _ids(value: Any, place: Place) -> Iterator[tuple[str, Place]]:
    match value:
        case dict():
            beside = ", ".join(
                f"{key} {value[key]}"
                for key in _BESIDE
                if isinstance(value.get(key), int | str) and not _IDS.search(str(value[key]))
            )
            for key, inner in value.items():
                yield from _ids(inner, (*place, f"({beside}).{key}"))
        case list():
            for inner in value:
                yield from _ids(inner, (*place, "[]"))
        case str():
            for match in _IDS.finditer(value):
                yield match[0], place
        case _:
            pass


def _shown(places: list[Place]) -> str:
    return "; ".join(sorted(" ".join(place) for place in places))
