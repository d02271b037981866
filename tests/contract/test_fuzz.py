"""Any request gets an answer that is described: schemathesis asks a daemon with a live wallet, on devnet.

The requests come from openapi.json, half of them as described and half broken on purpose; what a wallet could
know (its VTXOs, its addresses, amounts that it has) is put into some of them, so that they get past the first
check. They are the same in every run. Each is asked twice, by a client of 0.1.4 and by one of 0.8.0, and each
answer is held against our description and against the one that upstream published for that version. A 500
must be one of those that barkd answers too (`failures`).

BARKD_PY_FUZZ_CASES sets how many requests an operation gets from each kind of client; see `_CASES`.
"""

import asyncio
import json
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from barkd_py.api import generate
from tests.contract.failures import is_documented
from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet

Operation = APIOperation[Any, Any, Any, Any]
Case = schemathesis.Case[Any]

HERE: Final = Path(__file__).parent
_CASES: Final = int(os.environ.get("BARKD_PY_FUZZ_CASES", "40"))
_CASES_OF_SLOW: Final = {"POST /api/v1/exits/progress": 8}
"""It syncs the on-chain wallet each time."""
_SEED: Final = 20_261_122
VERSIONS: Final = ("0.1.4", "0.8.0")

_REJECTIONS: Final = {
    400: (
        "Failed to parse the request body as JSON: ",
        "Failed to deserialize query string: ",
        "Invalid URL: ",
    ),
    413: ("Failed to buffer the request body: length limit exceeded",),
    415: ("Expected request with `Content-Type: application/json`",),
    422: ("Failed to deserialize the JSON body into the target type: ",),
}
"""Requests that cannot be read are refused in plain text, which descriptions do not mention."""

_FOREIGN_ADDRESS: Final = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


@dataclass(slots=True)
class Live:
    """The daemon, and what a client could know about its wallet."""

    url: str
    values: Mapping[str, list[Any]] = field(default_factory=dict)
    asked: int = 0
    operations: set[tuple[str, str]] = field(default_factory=set)
    statuses: dict[int, int] = field(default_factory=dict)


@cache
def _described(version: str) -> Mapping[str, Operation]:
    """The operations of a description by name; `ours` is our own."""
    document = (
        generate.document()
        if version == "ours"
        else json.loads((HERE / f"openapi-{version}.json").read_text())
    )
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    return {operation.label: operation for operation in operations}


def _labels() -> list[str]:
    """Reading first, while the wallet still has what it starts with."""
    return sorted(_described("ours"), key=lambda label: (not label.startswith("GET"), label))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    directory = tmp_path_factory.mktemp("fuzz")
    devnet = start_devnet(directory / "devnet")
    daemon = Daemon(directory / "daemon")
    try:
        values = asyncio.run(_make_wallet(devnet, daemon))
        yield Live(f"http://127.0.0.1:{daemon.port}", values)
    finally:
        daemon.process.kill()
        devnet.process.kill()


async def _make_wallet(devnet: Devnet, daemon: Daemon) -> Mapping[str, list[Any]]:
    """A wallet with coins, boards, a payment to itself and an exit; what it holds by name of field."""
    await daemon.start()
    await daemon.create_wallet(devnet.ark_server_url, esplora(devnet.esplora_url))
    for _ in range(3):
        await devnet.fund((await daemon.post("/onchain/addresses/next"))["address"], 1_000_000)
    await daemon.post("/onchain/sync")
    for amount_sat in (200_000, 300_000, 400_000):
        await daemon.post("/boards/board-amount", {"amount_sat": amount_sat})

    async def spendable() -> int:
        await devnet.mine()  # each time: a funding transaction may be a little late
        await daemon.post("/wallet/sync")
        return int((await daemon.get("/wallet/balance"))["spendable_sat"])

    await eventually(spendable, lambda amount_sat: amount_sat > 800_000)
    own = (await daemon.post("/wallet/addresses/next"))["address"]
    await daemon.post("/wallet/send", {"destination": own, "amount_sat": 20_000})
    await eventually(lambda: daemon.get("/history"), lambda history: len(history) >= 5)
    vtxos = await daemon.get("/wallet/vtxos?all=true")
    ids = [vtxo["id"] for vtxo in vtxos]
    spendable_ids = [vtxo["id"] for vtxo in vtxos if vtxo["state"]["type"] == "spendable"]
    await daemon.post("/exits/start/vtxos", {"vtxos": spendable_ids[-1:]})
    encoded = (await daemon.get(f"/wallet/vtxos/{ids[0]}/encoded"))["encoded"]
    onchain = (await daemon.post("/onchain/addresses/next"))["address"]
    await daemon.http.aclose()
    addresses = [own, onchain, _FOREIGN_ADDRESS, own[:-1] + "q", own.upper()]
    return {
        "id": [*ids, 1, 2],
        "vtxo_id": ids,
        "vtxo_ids": [ids[0], ",".join(ids), ","],
        "vtxos": [ids[:1], ids, [*ids[:1], *ids[:1]], [encoded], [encoded[:-2]]],
        "destination": addresses,
        "destinations": [[f"{onchain}:10000 sat"], [f"{onchain}:0.0001 BTC", f"{own}:1 sat"], [onchain]],
        "address": addresses,
        "value": addresses,
        "type": ["ark", "bitcoin", "invoice"],
        "amount_sat": [0, 1, 330, 1_000, 20_000, 100_000, 21_000_000 * 10**8, 2**63, 2**64 - 1],
        "index": [0, 1, 99],
        "identifier": ["00" * 32, own],
        "mnemonic": ["abandon " * 11 + "about"],
        "fee_rate": [1_000, 4_000],
        "fee_rate_sat_per_vb": [1, 2.5],
    }


def _enliven(case: Case, live: Live, dice: random.Random) -> None:
    """Put what the wallet knows into some of the fields that have the names of such things."""
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            for name in part:
                if name in live.values and dice.random() < 0.6:
                    part[name] = dice.choice(live.values[name])
    since = case.query.get("since") if isinstance(case.query, dict) else None
    if since is not None and str(since) >= f"{datetime.now(UTC):%Y}":
        del case.query["since"]  # nobody waits for half a minute here
    if isinstance(case.body, dict) and "dangerous" in case.body and "fingerprint" in case.body:
        case.body["fingerprint"] = "00000000"  # the wallet is still needed


def _check(case: Case, response: schemathesis.Response, version: str) -> None:
    (kind,) = response.headers.get("content-type", [""])
    answer = f"{response.status_code} {kind} {response.text[:500]}"
    if kind.startswith("text/plain") and case.operation.path != "/ping":
        phrases = _REJECTIONS.get(response.status_code, ())
        assert response.text.startswith(phrases) if phrases else False, answer
        return
    if response.status_code == 500:
        message = response.json()["message"]
        assert is_documented(case.operation.label.replace("/api/v1", ""), message), answer
        assert "internal error" not in message, answer
    case.validate_response(
        response,
        checks=[status_code_conformance, content_type_conformance, response_schema_conformance],
    )
    theirs = _described(version).get(case.operation.label)
    if theirs is not None and str(response.status_code) in theirs.definition.raw["responses"]:
        theirs.validate_response(response)


@pytest.mark.parametrize("label", _labels())
@pytest.mark.parametrize("version", VERSIONS)
def test_any_request_gets_a_described_answer(live: Live, label: str, version: str) -> None:
    operation = _described("ours")[label]
    if version == "0.1.4" and label not in _described(version):
        return  # its clients do not know it
    live.operations.add((version, label))
    session = requests.Session()
    session.trust_env = False
    headers = {"User-Agent": f"OpenAPI-Generator/{version}/python"}

    def ask(case: Case, dice: random.Random) -> None:
        _enliven(case, live, dice)
        response = case.call(
            base_url=live.url, session=session, headers=headers, timeout=120, allow_redirects=False
        )
        live.asked += 1
        live.statuses[response.status_code] = live.statuses.get(response.status_code, 0) + 1
        _check(case, response, version)

    raw = operation.definition.raw
    has_input = bool(raw.get("parameters") or raw.get("requestBody"))
    cases = min(_CASES, _CASES_OF_SLOW.get(label, _CASES)) if has_input else 2
    for mode in GenerationMode if has_input else (GenerationMode.POSITIVE,):
        run = given(operation.as_strategy(generation_mode=mode), st.randoms(use_true_random=False))(ask)
        run = settings(
            max_examples=max(1, cases // 2),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(run)
        seed(_SEED)(run)()


def test_the_wallet_is_still_alive(live: Live) -> None:
    """Last: all those requests were answered by one process, and reached more than the first check."""
    answer = requests.get(f"{live.url}/api/v1/wallet", timeout=60)
    assert answer.json()["fingerprint"] is not None
    if len(live.operations) == len(_labels()) + len(_described("0.1.4")):
        assert live.asked > 60 * _CASES, live.statuses
        assert live.statuses[200] > live.asked / 8, live.statuses
