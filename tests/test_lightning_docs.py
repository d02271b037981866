"""docs/lightning-receive.md: what it says is checked here."""

import json
import re
from pathlib import Path
from typing import get_args

from barkd_py.ark.lightning_receive import SLACK_BLOCKS
from barkd_py.bitcoin.units import DUST_SAT
from barkd_py.wallet.lightning.receive.service import SETTLED
from barkd_py.wallet.lightning.receive.states import State

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "lightning-receive.md").read_text()
PROSE = re.sub(r"\s+", " ", PAGE)
OPENAPI = json.loads((ROOT / "openapi.json").read_text())


def test_every_operation_is_served() -> None:
    served = {re.sub(r"\{\w+\}", "HASH", path).removeprefix("/api/v1/") for path in OPENAPI["paths"]}
    named = re.findall(r"(?:\$API/|(?:GET|POST) )([a-z][\w/-]*)", PROSE)
    assert len(named) > 6
    assert {path.rstrip("/") for path in named} <= served


def test_every_state_is_told() -> None:
    _, *told = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)  # the heading first
    assert told == [*(kind.__dataclass_fields__["type"].default for kind in get_args(State)), SETTLED]


def test_the_numbers_are_those_of_the_program() -> None:
    assert f"about {SLACK_BLOCKS} blocks" in PROSE
    assert f"below {DUST_SAT}" in PROSE
