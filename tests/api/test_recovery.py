"""Recovery over REST: the report, and looking again."""

from dataclasses import replace
from pathlib import Path

from barkd_py.errors import ServerUnavailable
from barkd_py.wallet.recovery.service import RecoveryInterrupted
from tests.fakes.wallet import RECOVERED
from tests.support.api_server import RunningApi, running_api

PATH = "/api/v1/wallet/recovery"


async def test_there_is_no_report_before_there_was_a_recovery(api: RunningApi) -> None:
    answer = await api.http.get(PATH)
    assert (answer.status_code, answer.json()) == (
        404,
        {"resources": [], "message": "no recovery was ever made"},
    )


async def test_without_a_wallet_there_is_nothing_to_recover(tmp_path: Path) -> None:
    async with running_api(tmp_path / "datadir") as api:
        assert (await api.http.get(PATH)).status_code == 422
        assert (await api.http.post(PATH)).status_code == 422


async def test_looking_again_answers_with_what_was_found(api: RunningApi) -> None:
    wallet = api.wallet
    answer = await api.http.post(PATH)
    assert answer.status_code == 200
    report = answer.json()
    assert wallet.recovery.starts == 1
    assert (report["state"], report["complete"], report["error"]) == ("finished", True, None)
    assert report["recovered_sat"] == 50_000
    assert report["counts"] == {
        "recovered": 1, "locked": 0, "exited": 0, "skipped": 1, "foreign": 0, "failed": 0, "not_found": 1,
    }  # fmt: skip
    assert [entry["vtxo_id"] for entry in report["vtxos"]] == [str(entry.vtxo_id) for entry in RECOVERED]
    assert (await api.http.get(PATH)).json() == report


async def test_a_recovery_that_was_interrupted_says_why(api: RunningApi) -> None:
    wallet = api.wallet
    await api.http.post(PATH)
    assert wallet.recovery.found is not None
    wallet.recovery.found = replace(wallet.recovery.found, finished_at=None, error="the server is away")
    wallet.recovery.trouble = RecoveryInterrupted()
    wallet.recovery.trouble.__cause__ = ServerUnavailable("the server is away")
    report = (await api.http.post(PATH)).json()
    assert (report["state"], report["complete"], report["finished_at"]) == ("interrupted", False, None)
    assert report["error"] == "the server is away"
