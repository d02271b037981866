"""The comparison of answers sees what it should, and nothing else."""

import json
from typing import Any

import pytest

from tests.contract.answers import differences
from tests.contract.description import Difference
from tests.support.raw_http import Response


def _answer(content: Any, status: int = 200, **headers: str) -> Response:
    lines = {"content-type": "application/json", **headers}
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Response(status, tuple(lines.items()), body)


def _seen(theirs: Any, ours: Any, path: str = "/api/v1/history") -> list[tuple[str, str, str]]:
    found = differences("x", path, _answer(theirs), _answer(ours))
    return [(difference.place.removeprefix("x "), difference.theirs, difference.ours) for difference in found]


def test_what_is_another_from_run_to_run_is_not_seen() -> None:
    theirs = {
        "txid": "ab" * 32,
        "at": "2026-01-01T00:00:00Z",
        "id": f"{'12' * 32}:0",
        "address": "bcrt1q" + "x" * 30,
    }
    ours = {
        "txid": "cd" * 32,
        "at": "2026-02-02T01:01:01.5+02:00",
        "id": f"{'34' * 32}:1",
        "address": "bcrt1p" + "z" * 40,
    }
    assert _seen(theirs, ours) == []


def test_capitals_are_seen_in_what_is_masked() -> None:
    small = {"address": "bcrt1q" + "x" * 30}
    found = _seen(small, {"address": small["address"].upper()})
    assert found == [(".address", '"<address>"', '"<ADDRESS>"')]


@pytest.mark.parametrize(
    ("theirs", "ours", "seen"),
    [
        ({"a": 1}, {"a": 2}, (".a", "1", "2")),
        ({"a": 1}, {"a": "1"}, (".a", "1", '"1"')),
        ({"a": 1}, {"a": 1.0}, (".a", "1", "1.0")),
        ({"a": 1}, {"a": True}, (".a", "1", "true")),
        ({"a": None}, {}, (".a", "null", "–")),
        ({}, {"a": None}, (".a", "–", "null")),
        ({"a": {"b": "ab" * 32}}, {"a": {"b": "no hex"}}, (".a.b", '"<hex>"', '"no hex"')),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, (" keys", "a, b", "b, a")),
        (
            {"metadata": {"n": {"x": 1, "y": 2}}},
            {"metadata": {"n": {"y": 2, "x": 1}}},
            (".metadata.n keys", "x, y", "y, x"),
        ),
        ([{"state": "locked"}], [{"state": "spent"}], ("[].state", '"locked"', '"spent"')),
        ([1, 2], [1], ("[] count", "2", "1")),
        ([1, 2, 3], [3, 2, 1], ("[] order", "one way", "the other way")),
        ([1, 2, 3], [2, 3, 1], ("[] order", "0 1 2", "2 0 1")),
    ],
)
def test_everything_else_is(theirs: Any, ours: Any, seen: tuple[str, str, str]) -> None:
    place, one, other = seen
    assert _seen(theirs, ours) == [(place, one, other)]


def test_an_item_that_differs_in_another_place_of_the_list_is_found() -> None:
    theirs = [{"n": 1, "m": 1, "a": 1}, {"n": 2, "m": 2, "a": 1}]
    ours = [{"n": 2, "m": 2, "a": 1}, {"n": 1, "m": 1, "a": 5}]
    assert _seen(theirs, ours) == [("[].a", "1", "5"), ("[] order", "one way", "the other way")]


def test_lists_of_another_length_are_still_of_one_kind() -> None:
    assert _seen([{"a": 1}, {"a": 2}], [{"a": 1, "b": 1}]) == [
        ("[] count", "2", "1"),
        ("[] kinds", "{a: number}", "{a: number, b: number}"),
    ]


def test_histories_of_another_length_are_told_by_their_states() -> None:
    start = {"type": "start", "tip_height": 1}
    checking = {"type": "processing", "transactions": [{"txid": "x", "status": {"type": "verify-inputs"}}]}
    assert _seen({"history": [start, checking]}, {"history": [start]}) == [
        (".history[] course", "start → processing[verify-inputs]", "start")
    ]


def test_an_order_that_the_contract_leaves_open_is_not_seen() -> None:
    assert _seen([1, 2, 3], [2, 3, 1], "/api/v1/onchain/utxos") == []
    early, late, other = (
        {"expiry_height": height, "amount_sat": 5, "id": name}
        for height, name in ((1, "a"), (2, "b"), (2, "c"))
    )
    assert _seen([early, late, other], [early, other, late], "/api/v1/wallet/vtxos") == []
    assert _seen([early, late, other], [late, early, other], "/api/v1/wallet/vtxos") == [
        ("[] order", "0 1 2", "1 0 2")
    ]


def test_another_status_is_the_one_difference() -> None:
    theirs, ours = (
        _answer({"message": f"no {'ab' * 32}"}, 500),
        _answer({"resources": ["x"], "message": "none"}, 404),
    )
    assert differences("x", "/", theirs, ours) == [Difference("x status", "500 no <hex>", "404 none")]
    assert differences("x", "/", None, ours) == [Difference("x status", "no answer", "404 none")]


def test_headers_and_bodies_are_compared() -> None:
    theirs = Response(308, (("location", "/a"),), b"")
    ours = Response(308, (("location", "/a?b"),), b"")
    assert differences("x", "/", theirs, ours) == [Difference("x location", "/a", "/a?b")]
    theirs, ours = Response(405, (("allow", "GET"),), b""), Response(405, (("allow", "POST"),), b"x")
    assert [found.place for found in differences("x", "/", theirs, ours)] == ["x allow", "x body"]
