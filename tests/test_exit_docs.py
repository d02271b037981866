"""docs/exits.md is what somebody reads whose server is gone: what it says is checked here."""

import json
import re
from pathlib import Path

import pytest

from barkd_py.api.schemas import exits as schemas
from barkd_py.ark.claim import claim_weight_wu, find_clause
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import FeeRate
from barkd_py.onchain.cpfp import CANONICAL_CHILD_WEIGHT_WU, package_fee_sat
from barkd_py.wallet.exits.picture import mermaid
from tests.support.vectors import cases

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "exits.md").read_text()
OPENAPI = json.loads((ROOT / "openapi.json").read_text())


def test_the_picture_is_that_of_the_machine() -> None:
    assert f"```mermaid\n{mermaid()}```" in PAGE


def test_every_operation_is_served() -> None:
    served = {re.sub(r"\{\w+\}", "{}", path).removeprefix("/api/v1/") for path in OPENAPI["paths"]}
    named = re.findall(r"(?:\$API/|(?:GET|POST) )((?:exits|wallet|onchain)/[\w/{}…-]*)", PAGE)
    assert len(named) > 10
    for path in named:
        if "…" not in path:
            assert re.sub(r"\{\w+\}", "{}", path) in served, path


def _rows(heading: str) -> list[list[str]]:
    """The cells of the table that starts with a heading."""
    lines = PAGE.split(heading, 1)[1].splitlines()[1:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows[1:] if set("".join(rows[0])) <= set("-") else rows


def test_statuses_and_errors_are_the_contract_s() -> None:
    words = set(
        re.findall(r'"([a-z]+(?:-[a-z]+)+)"', json.dumps(schemas.ExitProgressResponse.model_json_schema()))
    )
    for new, old, _ in _rows("| status | in the words of 0.1.4 | meaning |"):
        assert new.strip("`") == "confirmed" or new.strip("`") in words
        assert set(re.findall(r"`([^`]+)`", old)) <= words
    errors = [tag for row in _rows("| error | what to do |") for tag in re.findall(r"`([^`]+)`", row[0])]
    assert len(errors) > 5
    assert set(errors) <= words


def _weights(name: str) -> list[int]:
    """Of the exit transactions of the first vector that is such a VTXO."""
    wanted = {
        "board": [496],
        "received from a board's owner": [496, 668, 496],
        "from a round (tree of 3 levels)": [668, 1012, 428],
    }[name]
    assert any([tx.weight_wu for tx in vtxo.exit_transactions()] == wanted for vtxo in _vtxos())
    return wanted


def _vtxos() -> list[Vtxo]:
    return [Vtxo.decode_hex(case["full_hex"]) for case in cases("vtxo", kind="user")]


@pytest.mark.parametrize("row", _rows("| VTXO | transactions | at 2 sat/vB | at 10 sat/vB | at 50 sat/vB |"))
def test_the_costs_are_what_the_wallet_pays(row: list[str]) -> None:
    name, count, *costs = row
    for cost, sat_per_vb in zip(costs, (2, 10, 50), strict=True):
        rate = FeeRate.from_sat_per_vb(sat_per_vb)
        if name.startswith("claim"):
            expected = [rate.fee_wu(_claim_weight_wu(inputs)) for inputs in (1, 10)]
        else:
            weights = _weights(name)
            assert int(count) == len(weights)
            expected = [
                sum(package_fee_sat(rate, weight_wu, CANONICAL_CHILD_WEIGHT_WU) for weight_wu in weights)
            ]
        assert [int(part.replace(",", "")) for part in cost.split("·")] == expected


def _claim_weight_wu(inputs: int) -> int:
    claim = find_clause(_vtxos()[0], is_ours=lambda _: True, find_preimage=lambda _: None)
    assert claim is not None
    return claim_weight_wu([claim] * inputs, [TxOut(330, b"\x51\x20" + bytes(32))])
