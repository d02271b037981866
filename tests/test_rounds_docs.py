"""docs/rounds.md: what it says is checked here."""

import json
import re
from pathlib import Path

from barkd_py.api.schemas.rounds import PendingRoundInfo
from barkd_py.bitcoin.units import DUST_SAT
from barkd_py.config import WalletConfig
from barkd_py.wallet.conflicts import FINAL_CONFIRMATIONS
from barkd_py.wallet.rounds.machine import MAX_FAILURES
from barkd_py.wallet.rounds.maintenance import QUIET_BLOCKS
from barkd_py.wallet.vtxos.selection import SOON_BLOCKS

ROOT = Path(__file__).parent.parent
PAGE = re.sub(r"\s+", " ", (ROOT / "docs" / "rounds.md").read_text())
OPENAPI = json.loads((ROOT / "openapi.json").read_text())


def test_every_operation_is_served() -> None:
    served = {path.removeprefix("/api/v1/") for path in OPENAPI["paths"]}
    served |= {path.removeprefix("wallet/") for path in served}
    named = re.findall(r"`(?:GET |POST )?((?:wallet|refresh|offboard|fees|history)[/a-z-]*)`", PAGE)
    assert len(named) > 10
    assert set(named) <= served, set(named) - served


def test_every_state_is_one_of_the_api() -> None:
    told = set(re.findall(r"\| `([a-z-]+)` \|", PAGE)) - {"state"}  # the heading
    schema = json.dumps(PendingRoundInfo.model_json_schema())
    assert told == {"pending", "ongoing", "delegated-pending", "awaiting-confirmations"}
    assert all(f'"{state}"' in schema for state in told)


def test_every_setting_exists() -> None:
    named = set(re.findall(r"`((?:vtxo|round|offboard)_\w+)`", PAGE)) - {"vtxos"}
    assert named == {
        "vtxo_refresh_expiry_threshold",
        "vtxo_refresh_max_fee_ppm",
        "round_tx_required_confirmations",
        "vtxo_exit_margin",
        "offboard_required_confirmations",
        "offboard_lost_tx_grace_period_secs",
    }
    assert named <= set(WalletConfig.model_fields)


def test_the_numbers_are_those_of_the_program() -> None:
    assert f"fewer than {SOON_BLOCKS} blocks more" in PAGE
    assert f"below {DUST_SAT} sat" in PAGE
    assert f"{QUIET_BLOCKS} blocks later" in PAGE
    assert PAGE.count(f"{FINAL_CONFIRMATIONS} blocks deep") == 2
    assert PAGE.count(f"in {MAX_FAILURES} rounds") == 2


def test_the_tests_that_it_names_are_there() -> None:
    named = re.findall(r"`(?:tests/wallet/flows/)?(test_[\w*]+\.py)`", PAGE)
    assert len(named) == 4
    for name in named:
        assert list((ROOT / "tests" / "wallet" / "flows").glob(name)), name
