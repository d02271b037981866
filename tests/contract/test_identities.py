"""Ids are compared by where they are found."""

import json
from typing import Any

from tests.contract.identities import Identities
from tests.support.raw_http import Response

A, B, C, D = (f"{letter * 64}:0" for letter in "abcd")


def _unlike(path: str, *pairs: tuple[Any, Any]) -> list[str]:
    identities = Identities()
    for number, (theirs, ours) in enumerate(pairs):
        answers = [Response(200, (), json.dumps(side).encode()) for side in (theirs, ours)]
        identities.add(f"answer {number}", path, *answers)
    return identities.unlike()


def _history(first: str, second: str) -> Any:
    return [{"id": 1, "output_vtxos": [first]}, {"id": 2, "input_vtxos": [second]}]


def test_other_ids_at_the_same_places_are_alike() -> None:
    assert _unlike("/api/v1/history", (_history(A, A), _history(B, B))) == []
    assert _unlike("/api/v1/history", (_history(A, B), _history(C, D))) == []


def test_a_movement_that_names_another_vtxo_is_seen() -> None:
    assert _unlike("/api/v1/history", (_history(A, A), _history(B, C))) == [
        "theirs alone: answer 0 [] (id 1).output_vtxos []; answer 0 [] (id 2).input_vtxos []",
        "ours alone: answer 0 [] (id 1).output_vtxos []",
        "ours alone: answer 0 [] (id 2).input_vtxos []",
    ]


def test_ids_are_followed_from_answer_to_answer() -> None:
    def vtxos(large: str, small: str) -> Any:
        return [{"id": large, "amount_sat": 2}, {"id": small, "amount_sat": 1}]

    path = "/api/v1/wallet/vtxos"
    assert _unlike(path, (vtxos(A, B), vtxos(C, D)), (vtxos(A, B), vtxos(C, D))) == []
    assert len(_unlike(path, (vtxos(A, B), vtxos(C, D)), (vtxos(A, B), vtxos(D, C)))) == 4


def test_the_order_of_a_list_is_no_place() -> None:
    assert _unlike("/api/v1/onchain/utxos", ([{"outpoint": A}, {"outpoint": B}],) * 2) == []


def test_other_answers_and_refusals_are_passed_over() -> None:
    assert _unlike("/api/v1/wallet/vtxos/x/encoded", ({"id": A}, {"other": B})) == []
    identities = Identities()
    refused = Response(422, (), json.dumps({"id": A}).encode())
    identities.add("refused", "/api/v1/history", refused, refused)
    identities.add("no answer", "/api/v1/history", None, refused)
    assert len(identities) == 0
