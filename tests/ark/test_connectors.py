"""Connectors: upstream's fan-out transactions."""

import pytest

from barkd_py.ark.connectors import fan_out_tx
from barkd_py.bitcoin.tx import OutPoint
from tests.support.vectors import Case, params


@pytest.mark.parametrize("case", params("connectors", kind="fanout"))
def test_fan_outs_are_upstream_s(case: Case) -> None:
    tx = fan_out_tx(OutPoint.parse(case["prev"]), bytes.fromhex(case["script_pubkey"]), case["nb_outputs"])
    assert tx.serialize().hex() == case["tx"]["hex"]
    assert str(tx.txid) == case["tx"]["txid"]
