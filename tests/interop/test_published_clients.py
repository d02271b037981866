"""Upstream's generated REST clients, 0.1.4 and 0.8.0 from PyPI, read every answer about exits.

They are strict: an unknown word or a missing field is an error. Each is run in a process of its own against
our API with a wallet that has an exit in every state there is, with every status and every error.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.exits.states import ExitStatus
from tests.fakes import exits as samples
from tests.fakes.wallet import some_vtxo
from tests.support.api_server import TOKEN, RunningApi, running_api

pytestmark = pytest.mark.interop

_DRIVER = Path(__file__).with_name("published_client.py")
_ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"

Call = tuple[str, dict[str, Any]]

_ALL = {"history": True, "transactions": True}
_PROGRESS: Call = ("exit_progress", {"exit_progress_request": {"model": "ExitProgressRequest", "fields": {}}})

NEW_WORDS = {"canceled", "vtxo-already-spent", "vtxo-swept"}


def _body(argument: str, model: str, **fields: Any) -> dict[str, Any]:
    return {argument: {"model": model, "fields": fields}}


async def _run(clients: Path, version: str, api: RunningApi, calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Let a client make the calls; what came of each."""
    job = {
        "host": f"http://127.0.0.1:{api.port}",
        "token": TOKEN.encode(),
        "calls": [("ExitsApi", method, arguments) for method, arguments in calls],
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(_DRIVER),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(clients / version)},
    )
    output, _ = await process.communicate(json.dumps(job).encode())
    assert process.returncode == 0
    results: list[dict[str, Any]] = json.loads(output)
    return results


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path / "datadir", with_wallet=True) as running:
        for number, state in enumerate(samples.STATES, start=1):
            running.wallet.exits.put(
                ExitStatus(samples.vtxo_id(number), state, samples.STATES, samples.PACKAGES)
            )
        yield running


def _states(result: list[dict[str, Any]]) -> list[str]:
    return [exit_["state"]["type"] for exit_ in result]


def _results(outcomes: Sequence[dict[str, Any]]) -> list[Any]:
    for outcome in outcomes:
        assert "result" in outcome, outcome
    return [outcome["result"] for outcome in outcomes]


async def test_the_old_client_reads_every_exit(api: RunningApi, barkd_clients: Path) -> None:
    one_by_one: list[Call] = [
        ("get_exit_status_by_vtxo_id", {"vtxo_id": str(samples.vtxo_id(number)), **_ALL})
        for number in range(1, len(samples.STATES) + 1)
    ]
    outcomes = await _run(
        barkd_clients, "0.1.4", api, [("get_all_exit_status", _ALL), _PROGRESS, *one_by_one]
    )
    everything, progress, *singles = outcomes
    (listed,) = _results([everything])
    known = [state.type for state in samples.STATES if state.type not in NEW_WORDS]
    assert _states(listed) == known
    for exit_ in listed:
        assert len(exit_["history"]) == len(known)
        assert len(exit_["transactions"]) == len(samples.PACKAGES)
    (progressed,) = _results([progress])
    assert _states(progressed["exits"]) == [word for word in known if word != "claimed"]
    for state, outcome in zip(samples.STATES, singles, strict=True):
        if state.type in NEW_WORDS:
            assert outcome["status"] == 404
        else:
            assert outcome["result"]["state"]["type"] == state.type


async def test_the_new_client_reads_every_exit(api: RunningApi, barkd_clients: Path) -> None:
    one_by_one: list[Call] = [
        (method, {"vtxo_id": str(samples.vtxo_id(number)), **_ALL})
        for number in range(1, len(samples.STATES) + 1)
        for method in ("get_exit_status_by_vtxo_id", "get_exit_status_by_vtxo_id_deprecated")
    ]
    lists: list[Call] = [
        ("get_all_exit_status", _ALL),
        ("get_live_exit_status", _ALL),
        ("get_finished_exits", _ALL),
    ]
    outcomes = await _run(barkd_clients, "0.8.0", api, [*lists, _PROGRESS, *one_by_one])
    everything, live, finished, progress, *singles = _results(outcomes)
    types = [state.type for state in samples.STATES]
    assert _states(everything) == types
    assert _states(live) == types[:6]
    assert _states(finished) == types[6:]
    assert _states(progress["exits"]) == [word for word in types if word != "claimed"]
    for index, state in enumerate(samples.STATES):
        new, old = singles[2 * index : 2 * index + 2]
        assert new == old
        assert new["state"]["type"] == state.type
        assert len(new["history"]) == len(types)


@pytest.mark.parametrize("version", ["0.1.4", "0.8.0"])
async def test_both_read_every_error(api: RunningApi, barkd_clients: Path, version: str) -> None:
    wallet_exits = api.wallet.exits
    wallet_exits.statuses_by_id.clear()
    for number, error in enumerate(samples.ERRORS, start=1):
        wallet_exits.put(ExitStatus(samples.vtxo_id(number), samples.STATES[0], error=error))
    (progress,) = _results(await _run(barkd_clients, version, api, [_PROGRESS]))
    tags = [exit_["error"]["type"] for exit_ in progress["exits"]]
    assert len(tags) == len(samples.ERRORS)
    if version == "0.8.0":
        assert tags == [error.tag for error in samples.ERRORS]
    else:
        for tag, error in zip(tags, samples.ERRORS, strict=True):
            assert tag in (error.tag, "internal-error")


@pytest.mark.parametrize("version", ["0.1.4", "0.8.0"])
async def test_both_start_and_claim(api: RunningApi, barkd_clients: Path, version: str) -> None:
    api.wallet.exits.statuses_by_id.clear()
    vtxo_id = "71" * 32 + ":0"
    api.wallet.add_vtxo(some_vtxo(vtxo_id, 50_000))
    started, again = _results(
        await _run(
            barkd_clients,
            version,
            api,
            [
                ("exit_start_vtxos", _body("exit_start_request", "ExitStartRequest", vtxos=[vtxo_id])),
                ("exit_start_all", {}),
            ],
        )
    )
    assert started == again == {"message": "Exit started successfully"}
    api.wallet.exits.put(ExitStatus(VtxoId.parse(vtxo_id), samples.STATES[4]))
    claims = _results(
        await _run(
            barkd_clients,
            version,
            api,
            [
                (
                    "exit_claim_vtxos",
                    _body(
                        "exit_claim_vtxos_request",
                        "ExitClaimVtxosRequest",
                        destination=_ADDRESS,
                        vtxos=[vtxo_id],
                        fee_rate=2_000,
                    ),
                ),
                (
                    "exit_claim_all",
                    _body("exit_claim_all_request", "ExitClaimAllRequest", destination=_ADDRESS),
                ),
            ],
        )
    )
    assert claims == [{"message": "Exit claimed successfully"}] * 2


async def test_the_new_client_cancels_and_asks_for_the_fee(api: RunningApi, barkd_clients: Path) -> None:
    vtxo_id = "71" * 32 + ":0"
    api.wallet.add_vtxo(some_vtxo(vtxo_id, 50_000))
    cancel: Call = ("exit_cancel", {"vtxo_id": str(samples.vtxo_id(1))})
    fee: Call = ("emergency_exit_fee", {"vtxo_ids": vtxo_id, "fee_rate_sat_per_vb": 2.5, "fee_margin": 1.0})
    canceled, estimate, moved = await _run(
        barkd_clients, "0.8.0", api, [cancel, fee, ("get_all_exit_status_deprecated", {})]
    )
    assert _results([canceled]) == [{"message": "Exit canceled successfully"}]
    (json_,) = _results([estimate])
    assert json_["fee_rate_sat_per_vb"] == 2.5
    assert json_["total_fee_sat"] == json_["exit_broadcast_fee_sat"] + json_["claim_fee_sat"] > 0
    # It follows the redirect, and drops the list, because 0.8.0 describes no answer on the old path.
    assert _results([moved]) == [None]
