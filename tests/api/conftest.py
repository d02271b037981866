from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from barkd_py.ark.vtxo import Vtxo
from barkd_py.wallet.vtxo_states import Spendable, WalletVtxo
from tests.fakes.wallet import NOW
from tests.support.api_server import RunningApi, running_api
from tests.support.vectors import cases


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    """The API with a loaded wallet."""
    async with running_api(tmp_path / "datadir", with_wallet=True) as running:
        yield running


@pytest.fixture
def full_vtxo() -> Vtxo:
    return Vtxo.decode_hex(cases("vtxo", kind="user")[0]["full_hex"])


@pytest.fixture
def a_vtxo(full_vtxo: Vtxo) -> WalletVtxo:
    return WalletVtxo(
        id=full_vtxo.id,
        amount_sat=full_vtxo.amount_sat,
        policy_kind="pubkey",
        user_pubkey=full_vtxo.user_pubkey,
        server_pubkey=full_vtxo.server_pubkey,
        expiry_height=full_vtxo.expiry_height,
        exit_delta=full_vtxo.exit_delta,
        anchor_point=full_vtxo.anchor_point,
        exit_depth=full_vtxo.exit_depth,
        exit_tx_weight_wu=full_vtxo.exit_tx_weight_wu,
        registered=True,
        state=Spendable(),
        created_at=NOW,
    )
