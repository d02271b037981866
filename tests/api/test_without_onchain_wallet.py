"""A wallet without an on-chain wallet: what is refused, in which words, and what works all the same.

The daemon always makes one; programs that use the library need not. Source: protocol sheet 07 §6.1 (column
"needs"), §6.2, §6.3, §6.10.
"""

from typing import Any

import pytest

from barkd_py.api import generate
from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.exits.states import Claimable, ExitStatus
from tests.contract.description import operations_of
from tests.contract.recorded import EXIT_VTXO, REGTEST_ADDRESS
from tests.fakes import exits as samples
from tests.fakes.wallet import some_vtxo
from tests.support.api_server import RunningApi

MISSING = {"message": "No onchain wallet configured"}
ASKING: dict[str, Any] = {
    "POST /onchain/addresses/next": None,
    "GET /onchain/balance": None,
    "POST /onchain/drain": {"destination": REGTEST_ADDRESS},
    "POST /onchain/send": {"destination": REGTEST_ADDRESS, "amount_sat": 1_000},
    "POST /onchain/send-many": {"destinations": [f"{REGTEST_ADDRESS}:1000 sat"]},
    "POST /onchain/sync": None,
    "GET /onchain/transactions": None,
    "GET /onchain/utxos": None,
    "POST /wallet/offboard/all": {"address": REGTEST_ADDRESS},
    "POST /wallet/offboard/vtxos": {"vtxos": [EXIT_VTXO], "address": REGTEST_ADDRESS},
}
"""The operations that need one whatever they are asked, with a body that could be served."""


@pytest.fixture
def api(api: RunningApi) -> RunningApi:
    api.wallet.onchain = None
    return api


async def _ask(api: RunningApi, operation: str, body: Any = None) -> tuple[int, Any]:
    method, path = operation.split(" ")
    answer = await api.http.request(method, f"/api/v1{path}", **({} if body is None else {"json": body}))
    return answer.status_code, answer.json() if answer.content else None


def test_every_operation_of_the_onchain_wallet_is_asked() -> None:
    described = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for method, path in operations_of(generate.document())
    }
    assert {name for name in described if " /onchain/" in name or " /wallet/offboard/" in name} == set(ASKING)


@pytest.mark.parametrize("operation", ASKING)
async def test_what_needs_one_is_a_422(api: RunningApi, operation: str) -> None:
    assert await _ask(api, operation, ASKING[operation]) == (422, MISSING)


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("POST /onchain/send", {"destination": "x", "amount_sat": 1}),
        ("POST /onchain/send-many", {"destinations": []}),
        ("POST /onchain/drain", {"destination": "x"}),
        ("POST /wallet/offboard/all", {"address": "x"}),
        ("POST /wallet/offboard/vtxos", {"vtxos": []}),
    ],
)
async def test_it_is_missed_before_the_request_is_looked_at(
    api: RunningApi, operation: str, body: dict[str, Any]
) -> None:
    assert await _ask(api, operation, body) == (422, MISSING)


@pytest.mark.parametrize("body", [{"onchain": True}, {"onchain": True, "amount_sat": 0}])
async def test_a_uri_with_an_onchain_address_is_a_422_and_takes_nothing(
    api: RunningApi, body: dict[str, Any]
) -> None:
    assert await _ask(api, "POST /wallet/bip321", body) == (422, MISSING)
    assert (await _ask(api, "GET /wallet/addresses/index/0"))[0] == 500, "an address was taken"


async def test_a_uri_without_an_onchain_address_is_built(api: RunningApi) -> None:
    status, uri = await _ask(api, "POST /wallet/bip321", {})
    assert (status, uri.keys()) == (200, {"ark", "bip321"})


@pytest.mark.parametrize(
    ("operation", "body"),
    [("POST /boards/board-amount", {"amount_sat": 50_000}), ("POST /boards/board-all", None)],
)
async def test_boards_are_a_500(api: RunningApi, operation: str, body: Any) -> None:
    expected = {"message": "no onchain wallet configured; cannot board"}
    assert await _ask(api, operation, body) == (500, expected)


async def test_exits_are_looked_at_and_claimed_all_the_same(api: RunningApi) -> None:
    """barkd answers 500 to the first; looking needs no coins, and a claim pays for itself."""
    api.wallet.add_vtxo(some_vtxo(EXIT_VTXO, 49_670))
    claimable = next(state for state in samples.STATES if isinstance(state, Claimable))
    api.wallet.exits.put(ExitStatus(VtxoId.parse(EXIT_VTXO), claimable))
    status, progress = await _ask(api, "POST /exits/progress", {})
    assert (status, [entry["vtxo_id"] for entry in progress["exits"]]) == (200, [EXIT_VTXO])
    claim = {"destination": REGTEST_ADDRESS}
    assert await _ask(api, "POST /exits/claim/all", claim) == (200, {"message": "Exit claimed successfully"})


@pytest.mark.parametrize(
    "operation",
    [
        "GET /wallet/balance",
        "GET /wallet/vtxos",
        "GET /history",
        "GET /boards/pending",
        "GET /wallet/rounds",
        "GET /exits/status/all",
        "GET /lightning/receives",
        "POST /wallet/sync",
        "POST /wallet/addresses/next",
        "GET /fees/board?amount_sat=50000",
        "GET /fees/onchain",
    ],
)
async def test_everything_else_works(api: RunningApi, operation: str) -> None:
    assert (await _ask(api, operation))[0] == 200
