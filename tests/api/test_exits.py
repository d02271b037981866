"""Exits over HTTP: the words of both contracts, what is hidden from whom, and what is said about errors.

What the real barkd answered is compared in tests/contract/test_recorded_exits.py.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_json

from barkd_py.api import render
from barkd_py.api.contract import Contract
from barkd_py.api.schemas import exits as schemas
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.chain.source import PackageFee
from barkd_py.errors import ChainUnavailable
from barkd_py.wallet.exits import states
from barkd_py.wallet.exits.errors import (
    DustLimit,
    ExitError,
    NonStandardExit,
    OnchainSyncFailure,
    TipRetrievalFailure,
)
from barkd_py.wallet.exits.states import ExitStatus
from barkd_py.wallet.vtxo_states import WalletVtxo
from tests.fakes import exits as samples
from tests.fakes.wallet import some_vtxo
from tests.support.api_server import RunningApi, running_api

OLD_CLIENT = {"User-Agent": "OpenAPI-Generator/0.1.4/python"}
NEW_CLIENT = {"User-Agent": "OpenAPI-Generator/0.8.0/python"}
OTHER_CLIENT = {"User-Agent": "curl/8.5.0"}

ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"

FAST = FeeRate(3_000)


def _types(answer: Any) -> list[str]:
    return [exit_["state"]["type"] for exit_ in answer]


@pytest.fixture
def exits(api: RunningApi) -> dict[str, VtxoId]:
    """An exit in each state; ids by the state's type."""
    ids: dict[str, VtxoId] = {}
    for number, state in enumerate(samples.STATES, start=1):
        vtxo_id = samples.vtxo_id(number)
        ids[state.type] = vtxo_id
        api.wallet.exits.put(ExitStatus(vtxo_id, state))
    return ids


ALL_TYPES = [state.type for state in samples.STATES]
OLD_TYPES = ALL_TYPES[:7]
LIVE_TYPES = ALL_TYPES[:6]


# --- which words for whom


@pytest.mark.parametrize(
    ("path", "headers", "seen"),
    [
        ("/status/all", OTHER_CLIENT, ALL_TYPES),
        ("/status/all", NEW_CLIENT, ALL_TYPES),
        ("/status/all", OLD_CLIENT, OLD_TYPES),
        ("/status/live", OTHER_CLIENT, LIVE_TYPES),
        ("/status/finished", OTHER_CLIENT, ALL_TYPES[6:]),
        ("/status/finished", OLD_CLIENT, ["claimed"]),
        ("/status", OTHER_CLIENT, OLD_TYPES),
        ("/status", OLD_CLIENT, OLD_TYPES),
    ],
)
@pytest.mark.usefixtures("exits")
async def test_exits_in_states_that_a_client_has_no_word_for_are_left_out(
    api: RunningApi, path: str, headers: dict[str, str], seen: list[str]
) -> None:
    answer = await api.http.get(f"/api/v1/exits{path}", headers=headers)
    assert answer.status_code == 200
    assert _types(answer.json()) == seen


@pytest.mark.parametrize("new_state", ["vtxo-already-spent", "vtxo-swept", "canceled"])
async def test_a_single_exit_without_a_word_does_not_exist_for_old_clients(
    api: RunningApi, exits: dict[str, VtxoId], new_state: str
) -> None:
    vtxo_id = exits[new_state]
    missing = {"resources": [str(vtxo_id)], "message": "VTXO not found"}
    for headers in (OLD_CLIENT, OTHER_CLIENT):
        answer = await api.http.get(f"/api/v1/exits/status/{vtxo_id}", headers=headers)
        assert (answer.status_code, answer.json()) == (404, missing)
    answer = await api.http.get(f"/api/v1/exits/status/{vtxo_id}", headers=NEW_CLIENT)
    assert answer.json()["state"]["type"] == new_state
    answer = await api.http.get(f"/api/v1/exits/status/vtxo/{vtxo_id}", headers=OTHER_CLIENT)
    assert answer.json()["state"]["type"] == new_state


async def test_a_colon_in_the_path_may_be_escaped(api: RunningApi, exits: dict[str, VtxoId]) -> None:
    escaped = str(exits["start"]).replace(":", "%3A")
    answer = await api.http.get(f"/api/v1/exits/status/vtxo/{escaped}")
    assert answer.json() == {"vtxo_id": str(exits["start"]), "state": {"type": "start", "tip_height": 118}}


async def test_new_clients_are_sent_on_from_the_old_path_with_their_query(api: RunningApi) -> None:
    answer = await api.http.get("/api/v1/exits/status?history=true", headers=NEW_CLIENT)
    assert (answer.status_code, answer.content) == (308, b"")
    assert answer.headers["location"] == "/api/v1/exits/status/all?history=true"
    answer = await api.http.get("/api/v1/exits/status", headers=NEW_CLIENT)
    assert answer.headers["location"] == "/api/v1/exits/status/all"


async def test_the_old_path_reads_its_query_for_old_clients(api: RunningApi) -> None:
    exit_ = ExitStatus(samples.vtxo_id(1), samples.STATES[2], (states.Start(100),), samples.PACKAGES)
    api.wallet.exits.put(exit_)
    answer = await api.http.get("/api/v1/exits/status?history=true&transactions=true", headers=OLD_CLIENT)
    (listed,) = answer.json()
    assert listed["history"] == [{"type": "start", "tip_height": 100}]
    assert len(listed["transactions"]) == len(samples.PACKAGES)
    answer = await api.http.get("/api/v1/exits/status?history=garbage", headers=OLD_CLIENT)
    assert answer.status_code == 400
    assert answer.text == (
        "Failed to deserialize query string: history: provided string was not `true` or `false`"
    )


@pytest.mark.parametrize(("contract", "status"), [("0.1.4", 200), ("0.8.0", 308)])
async def test_the_setting_decides_for_every_client(tmp_path: Path, contract: str, status: int) -> None:
    async with running_api(tmp_path / "d", with_wallet=True, rest_contract=contract) as api:
        api.wallet.exits.put(ExitStatus(samples.vtxo_id(1), samples.processing(samples.UNPAID)))
        word = {"0.1.4": "needs-signed-package", "0.8.0": "awaiting-cpfp-broadcast"}[contract]
        for headers in (OLD_CLIENT, NEW_CLIENT, OTHER_CLIENT):
            answer = await api.http.get("/api/v1/exits/status", headers=headers)
            assert answer.status_code == status
            (listed,) = (await api.http.get("/api/v1/exits/status/all", headers=headers)).json()
            assert listed["state"]["transactions"][0]["status"] == {"type": word}


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        (OTHER_CLIENT, "needs-signed-package"),
        (OLD_CLIENT, "needs-signed-package"),
        (NEW_CLIENT, "awaiting-cpfp-broadcast"),
    ],
)
async def test_progress_is_a_path_that_both_versions_have(
    api: RunningApi, headers: dict[str, str], word: str
) -> None:
    api.wallet.exits.put(ExitStatus(samples.vtxo_id(1), samples.processing(samples.UNPAID)))
    answer = await api.http.post("/api/v1/exits/progress", json={}, headers=headers)
    (exit_,) = answer.json()["exits"]
    assert exit_["state"]["transactions"][0]["status"] == {"type": word}


# --- words for the status of a transaction

_WALLET_ORIGIN = {"type": "wallet", "confirmed_in": None}
_BLOCK = {"height": 120, "hash": "0b" * 32}
_MEMPOOL_ORIGIN = {
    "type": "mempool",
    "fee_rate_sat_per_kvb": 10_004,
    "fee_rate": 2_501,
    "total_fee": 2_763,
}
_CHILD = str(samples.CHILD.txid)


@pytest.mark.parametrize(
    ("status", "old", "new"),
    [
        (samples.VERIFY, {"type": "verify-inputs"}, {"type": "verify-inputs"}),
        (samples.UNPAID, {"type": "needs-signed-package"}, {"type": "awaiting-cpfp-broadcast"}),
        (
            samples.BROADCAST,
            {"type": "broadcast-with-cpfp", "child_txid": _CHILD, "origin": _WALLET_ORIGIN},
            {"type": "awaiting-confirmation", "child_txid": _CHILD, "origin": _WALLET_ORIGIN},
        ),
        (
            samples.EVICTED,
            {"type": "needs-broadcasting", "child_txid": _CHILD, "origin": _WALLET_ORIGIN},
            {"type": "awaiting-confirmation", "child_txid": _CHILD, "origin": _WALLET_ORIGIN},
        ),
        (
            samples.BROADCAST_BY_OTHERS,
            {
                "type": "needs-replacement-package",
                "min_fee_rate_sat_per_kvb": 10_004,
                "min_fee_rate_kwu": 2_501,
                "min_fee": 2_763,
            },
            {"type": "awaiting-confirmation", "child_txid": _CHILD, "origin": _MEMPOOL_ORIGIN},
        ),
        (
            replace(samples.BROADCAST_BY_OTHERS, fee=PackageFee(FAST.fee_wu(1_000), 1_000)),
            {
                "type": "broadcast-with-cpfp",
                "child_txid": _CHILD,
                "origin": {
                    "type": "mempool",
                    "fee_rate_sat_per_kvb": 12_000,
                    "fee_rate": 3_000,
                    "total_fee": 3_000,
                },
            },
            None,
        ),
        (
            samples.BROADCAST_AT_UNKNOWN_FEE,
            {
                "type": "broadcast-with-cpfp",
                "child_txid": _CHILD,
                "origin": {"type": "mempool", "fee_rate_sat_per_kvb": 0, "fee_rate": 0, "total_fee": 0},
            },
            None,
        ),
        (
            samples.CONFIRMED,
            {
                "type": "confirmed",
                "child_txid": _CHILD,
                "block": _BLOCK,
                "origin": {"type": "wallet", "confirmed_in": _BLOCK},
            },
            None,
        ),
        (
            samples.CONFIRMED_WITHOUT_CHILD,
            {
                "type": "confirmed",
                "child_txid": str(samples.PARENT.txid),
                "block": _BLOCK,
                "origin": {"type": "block", "confirmed_in": _BLOCK},
            },
            None,
        ),
    ],
)
def test_statuses_of_transactions(
    status: states.ExitTxStatus, old: dict[str, Any], new: dict[str, Any] | None
) -> None:
    state = samples.processing(status)

    def rendered(contract: Contract) -> Any:
        return render.exit_state(state, contract, FAST)["transactions"][0]["status"]

    assert rendered(Contract.V0_1_4) == old
    if new is None:
        new = {**old, "type": old["type"].replace("broadcast-with-cpfp", "awaiting-confirmation")}
    assert rendered(Contract.V0_8_0) == new


@pytest.mark.parametrize("contract", [Contract.V0_1_4, Contract.V0_8_0])
def test_what_is_rendered_is_what_openapi_describes(contract: Contract) -> None:
    shown = [state for state in samples.STATES if render.knows_exit_state(state, contract)]
    for state in shown:
        exit_ = ExitStatus(samples.vtxo_id(1), state, tuple(shown), samples.PACKAGES)
        json = render.exit_status(exit_, contract, FAST, with_history=True)
        text = to_json(json)
        schemas.ExitTransactionStatus.model_validate_json(text, strict=True, extra="forbid")
    for error in samples.ERRORS:
        progress = states.ExitProgress((ExitStatus(samples.vtxo_id(1), shown[0], error=error),), False, None)
        json = render.exit_progress(progress, contract, FAST)
        text = to_json(json)
        schemas.ExitProgressResponse.model_validate_json(text, strict=True, extra="forbid")


def test_packages_tell_the_fee_to_clients_of_both_versions() -> None:
    exit_ = ExitStatus(samples.vtxo_id(1), samples.STATES[1], packages=samples.PACKAGES)
    own, foreign, mined, without_child = render.exit_status(exit_, Contract.V0_8_0, FAST)["transactions"]
    fee_info = {"fee_rate_sat_per_kvb": 10_004, "total_fee_sat": 2_763}
    assert list(own["child"]) == ["info", "fee_info", "origin"]
    assert own["child"]["fee_info"] == foreign["child"]["fee_info"] == fee_info
    assert foreign["child"]["origin"] == _MEMPOOL_ORIGIN
    assert list(mined["child"]) == ["info", "origin"]
    assert mined["child"]["info"] == {"txid": _CHILD, "tx": samples.CHILD.serialize().hex()}
    assert without_child["child"] is None


# --- progress


async def test_progress_lists_what_goes_on_and_why_it_does_not(api: RunningApi) -> None:
    for number, error in enumerate(samples.ERRORS, start=1):
        api.wallet.exits.put(ExitStatus(samples.vtxo_id(number), states.Start(100), error=error))
    answer = (await api.http.post("/api/v1/exits/progress", json={}, headers=NEW_CLIENT)).json()
    assert (answer["done"], answer["claimable_height"]) == (False, None)
    assert [exit_["error"]["type"] for exit_ in answer["exits"]] == [error.tag for error in samples.ERRORS]


@pytest.mark.parametrize(
    ("contract", "error", "expected"),
    [
        (
            Contract.V0_8_0,
            DustLimit(samples.vtxo_id(1), 329),
            {"type": "dust-limit", "vtxo": "01" * 32 + ":0", "amount": 329, "dust": 330},
        ),
        (
            Contract.V0_1_4,
            DustLimit(samples.vtxo_id(1), 329),
            {"type": "dust-limit", "vtxo": 329, "dust": 330},
        ),
        (
            Contract.V0_8_0,
            NonStandardExit(samples.vtxo_id(1), "dust"),
            {"type": "non-standard-vtxo", "vtxo": "01" * 32 + ":0", "error": "dust"},
        ),
        (
            Contract.V0_1_4,
            NonStandardExit(samples.vtxo_id(1), "dust"),
            {
                "type": "internal-error",
                "error": f"Non-Standard VTXO {'01' * 32}:0: exit chain is not relayable: dust",
            },
        ),
        (
            Contract.V0_1_4,
            samples.ERRORS[10],
            {"type": "insufficient-confirmed-funds", "needed": 3_093, "available": 1_000},
        ),
    ],
)
def test_errors(contract: Contract, error: ExitError, expected: dict[str, Any]) -> None:
    assert render.exit_error(error, contract) == expected


@pytest.mark.parametrize(("headers", "height"), [(NEW_CLIENT, 132), (OLD_CLIENT, None), (OTHER_CLIENT, None)])
async def test_old_clients_hear_of_a_claimable_height_once_all_exits_have_one(
    api: RunningApi, headers: dict[str, str], height: int | None
) -> None:
    api.wallet.exits.put(ExitStatus(samples.vtxo_id(1), samples.STATES[2]))
    api.wallet.exits.put(ExitStatus(samples.vtxo_id(2), states.Start(100)))
    answer = await api.http.post("/api/v1/exits/progress", json={}, headers=headers)
    assert answer.json()["claimable_height"] == height
    del api.wallet.exits.statuses_by_id[samples.vtxo_id(2)]
    answer = await api.http.post("/api/v1/exits/progress", json={}, headers=headers)
    assert answer.json()["claimable_height"] == 132


@pytest.mark.parametrize(
    ("body", "rate"),
    [
        ({}, None),
        ({"fee_rate": None, "wait": True}, None),
        ({"fee_rate": 1_000}, FeeRate(250)),
        ({"fee_rate": 1_001}, FeeRate(251)),
    ],
)
async def test_the_fee_rate_of_children_is_per_kvb(
    api: RunningApi, body: dict[str, Any], rate: FeeRate | None
) -> None:
    assert (await api.http.post("/api/v1/exits/progress", json=body)).status_code == 200
    assert api.wallet.exits.progressed_with == [rate]


@pytest.mark.parametrize("fee_rate", [0, 1, 3])
async def test_a_fee_rate_does_not_matter_without_exits(api: RunningApi, fee_rate: int) -> None:
    answer = await api.http.post("/api/v1/exits/progress", json={"fee_rate": fee_rate})
    assert (answer.status_code, answer.json()) == (
        200,
        {"exits": [], "done": True, "claimable_height": None},
    )


async def test_children_that_nobody_would_relay_are_refused(api: RunningApi, a_vtxo: WalletVtxo) -> None:
    api.wallet.add_vtxo(a_vtxo)
    await api.http.post("/api/v1/exits/start/all")
    answer = await api.http.post("/api/v1/exits/progress", json={"fee_rate": 0})
    assert (answer.status_code, answer.json()) == (
        400,
        {"message": "bad request: Fee rate must be at least 1000 sat/kvB"},
    )
    assert api.wallet.exits.progressed_with == []


# --- start, cancel, claim


async def test_starting_all_exits(api: RunningApi, a_vtxo: WalletVtxo) -> None:
    api.wallet.add_vtxo(a_vtxo)
    answer = await api.http.post("/api/v1/exits/start/all")
    assert (answer.status_code, answer.json()) == (200, {"message": "Exit started successfully"})
    assert list(api.wallet.exits.statuses_by_id) == [a_vtxo.id]


async def test_one_unknown_id_starts_nothing(api: RunningApi, a_vtxo: WalletVtxo) -> None:
    api.wallet.add_vtxo(a_vtxo)
    unknown = samples.vtxo_id(9)
    answer = await api.http.post("/api/v1/exits/start/vtxos", json={"vtxos": [str(a_vtxo.id), str(unknown)]})
    assert answer.status_code == 404
    assert api.wallet.exits.statuses_by_id == {}


async def test_a_final_transaction_on_the_chain_forbids_canceling(
    api: RunningApi, a_vtxo: WalletVtxo
) -> None:
    api.wallet.add_vtxo(a_vtxo)
    await api.http.post("/api/v1/exits/start/all")
    api.wallet.exits.broadcast[a_vtxo.id] = samples.PARENT.txid
    answer = await api.http.post(f"/api/v1/exits/cancel/{a_vtxo.id}")
    assert answer.status_code == 400
    assert answer.json()["message"] == (
        f"Exit can no longer be canceled (final exit tx {samples.PARENT.txid} has already been broadcast)"
    )


@pytest.fixture
async def claimable(api: RunningApi, a_vtxo: WalletVtxo) -> WalletVtxo:
    api.wallet.add_vtxo(a_vtxo)
    api.wallet.exits.put(ExitStatus(a_vtxo.id, samples.STATES[4]))
    return a_vtxo


@pytest.mark.parametrize(("fee_rate", "sat_per_kwu"), [(1, 1), (3, 1), (4, 1), (5, 2), (None, None)])
async def test_claiming(
    api: RunningApi, claimable: WalletVtxo, fee_rate: int | None, sat_per_kwu: int | None
) -> None:
    body: dict[str, Any] = {"destination": ADDRESS, "vtxos": [str(claimable.id)] * 2}
    if fee_rate is not None:
        body["fee_rate"] = fee_rate
    answer = await api.http.post("/api/v1/exits/claim/vtxos", json=body)
    assert (answer.status_code, answer.json()) == (200, {"message": "Exit claimed successfully"})
    rate = None if sat_per_kwu is None else FeeRate(sat_per_kwu)
    # A repeated id is one input.
    assert api.wallet.exits.claims == [((claimable.id,), parse_address(ADDRESS, Network.REGTEST), rate)]


@pytest.mark.parametrize(
    "destination",
    [
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        ADDRESS[:-1] + ("q" if ADDRESS[-1] != "q" else "p"),
    ],
)
async def test_a_claim_goes_to_an_address_of_this_network_or_nowhere(
    api: RunningApi, claimable: WalletVtxo, destination: str
) -> None:
    for path, body in (("all", {}), ("vtxos", {"vtxos": [str(claimable.id)]})):
        answer = await api.http.post(f"/api/v1/exits/claim/{path}", json={"destination": destination, **body})
        assert answer.status_code == 400, answer.text
        assert "destination address" in (text := answer.json()["message"]) or "configured network" in text
    assert api.wallet.exits.claims == []


@pytest.mark.parametrize(
    ("method", "path", "body", "before"),
    [
        ("POST", "/start/all", None, "Failed to start exit for entire wallet"),
        ("POST", "/start/vtxos", {"vtxos": ["{id}"]}, "Failed to start exit for VTXOs"),
        ("POST", "/cancel/{id}", None, "Failed to cancel exit"),
        ("POST", "/progress", {}, "error making progress on exit process"),
        ("POST", "/claim/all", {"destination": ADDRESS}, "Failed to broadcast transaction"),
        ("GET", "/fee", None, "Failed to estimate emergency exit fee"),
    ],
)
async def test_a_chain_source_that_is_away(
    api: RunningApi, a_vtxo: WalletVtxo, method: str, path: str, body: Any, before: str
) -> None:
    api.wallet.add_vtxo(a_vtxo)
    state = samples.STATES[4] if "claim" in path else states.Start(100)
    api.wallet.exits.put(ExitStatus(a_vtxo.id, state))
    api.wallet.exits.failure = ChainUnavailable("connection refused")
    if body == {"vtxos": ["{id}"]}:
        body = {"vtxos": [str(a_vtxo.id)]}
    path = path.replace("{id}", str(a_vtxo.id))
    answer = await api.http.request(method, f"/api/v1/exits{path}", json=body)
    assert (answer.status_code, answer.json()) == (500, {"message": f"{before}: connection refused"})


async def test_an_onchain_wallet_that_cannot_be_synced(api: RunningApi) -> None:
    failure = OnchainSyncFailure()
    failure.__cause__ = ChainUnavailable("connection refused")
    api.wallet.exits.failure = failure
    answer = await api.http.post("/api/v1/exits/progress", json={})
    assert (answer.status_code, answer.json()) == (
        500,
        {"message": "error syncing on-chain wallet: connection refused"},
    )


async def test_a_failed_start_says_why(api: RunningApi, a_vtxo: WalletVtxo) -> None:
    api.wallet.add_vtxo(a_vtxo)
    api.wallet.exits.failure = TipRetrievalFailure("no answer")
    answer = await api.http.post("/api/v1/exits/start/all")
    assert answer.json()["message"] == (
        "Failed to start exit for entire wallet: Tip Retrieval Failure: Unable to retrieve the blockchain "
        "tip height: no answer"
    )


# --- fee


@pytest.mark.parametrize(("listed", "count"), [("{0},,{1},", 2), (" {0} ,{0}", 1), (",", 0), ("", 0)])
async def test_blank_parts_of_the_list_of_ids_mean_nothing(api: RunningApi, listed: str, count: int) -> None:
    vtxos = [some_vtxo(letter * 64 + ":0", 50_000) for letter in "ab"]
    for vtxo in vtxos:
        api.wallet.add_vtxo(vtxo)
    query = listed.format(*(vtxo.id for vtxo in vtxos))
    answer = await api.http.get("/api/v1/exits/fee", params={"vtxo_ids": query})
    assert (answer.status_code, answer.json()["txs_to_broadcast"]) == (200, count)


@pytest.mark.parametrize("rate", ["-1", "NaN", "inf"])
async def test_rates_that_are_no_rates(api: RunningApi, rate: str) -> None:
    answer = await api.http.get(f"/api/v1/exits/fee?fee_rate_sat_per_vb={rate}")
    message = "bad request: Fee rate must be finite and non-negative"
    assert (answer.status_code, answer.json()) == (400, {"message": message})


@pytest.mark.parametrize(
    ("margin", "text"),
    [("-1", "-1"), ("NaN", "NaN"), ("inf", "inf"), ("1e30", "1" + "0" * 30), ("-0.5", "-0.5")],
)
async def test_bad_margins_are_repeated_as_barkd_writes_them(api: RunningApi, margin: str, text: str) -> None:
    answer = await api.http.get(f"/api/v1/exits/fee?fee_margin={margin}")
    assert (answer.status_code, answer.json()) == (400, {"message": f"Invalid fee margin {text}"})


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (samples.STATES[6], "Provided VTXO {id} has already exited"),
        (samples.STATES[7], "Provided VTXO {id} has already been spent"),
        (
            samples.STATES[8],
            "An intermediate output of VTXO {id} has been swept and the exit cannot be completed. "
            "You can still attempt to do a refresh and get a fresh VTXO",
        ),
    ],
)
async def test_the_fee_of_an_exit_that_is_over(
    api: RunningApi, a_vtxo: WalletVtxo, state: states.ExitState, text: str
) -> None:
    api.wallet.add_vtxo(a_vtxo)
    api.wallet.exits.put(ExitStatus(a_vtxo.id, state))
    answer = await api.http.get(f"/api/v1/exits/fee?vtxo_ids={a_vtxo.id}")
    assert (answer.status_code, answer.json()) == (400, {"message": text.format(id=a_vtxo.id)})


async def test_one_vtxo_that_cannot_be_relayed_fails_the_estimate(
    api: RunningApi, a_vtxo: WalletVtxo
) -> None:
    api.wallet.exits.failure = NonStandardExit(a_vtxo.id, "dust sibling output at genesis item 0/1, output 0")
    answer = await api.http.get("/api/v1/exits/fee")
    assert answer.status_code == 500
    assert answer.json()["message"].startswith(
        f"Failed to estimate emergency exit fee: Non-Standard VTXO {a_vtxo.id}: "
    )
