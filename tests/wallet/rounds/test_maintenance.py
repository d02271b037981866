"""What is refreshed unasked, and in which portions."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from barkd_py.ark.info import ArkInfo
from barkd_py.bitcoin.units import FeeRate
from barkd_py.errors import BarkdError
from barkd_py.wallet.rounds.maintenance import QUIET_BLOCKS, select_inputs
from barkd_py.wallet.rounds.participation import (
    TooLittleToRefresh,
    TooMuchForOneVtxo,
    cut_to_size,
    output_amount_sat,
)
from barkd_py.wallet.vtxo_states import Spendable, WalletVtxo
from barkd_py.wallet.vtxos.selection import RefreshRules
from tests.fakes.wallet import ARK_INFO
from tests.wallet.samples import make_vtxo

TIP = 1_000
RULES = RefreshRules(TIP, 144, 100, FeeRate(250))


def coin(number: int, amount_sat: int = 100_000, expiry_height: int = TIP + 100) -> WalletVtxo:
    vtxo = make_vtxo(number)
    return WalletVtxo(
        id=vtxo.id,
        amount_sat=amount_sat,
        policy_kind=vtxo.policy.kind,
        user_pubkey=vtxo.user_pubkey,
        server_pubkey=vtxo.server_pubkey,
        expiry_height=expiry_height,
        exit_delta=vtxo.exit_delta,
        anchor_point=vtxo.anchor_point,
        exit_depth=1,
        exit_tx_weight_wu=1,
        registered=True,
        state=Spendable(),
        created_at=datetime(2026, 9, 1, tzinfo=UTC),
    )


DUE, FINE = coin(1), coin(2, expiry_height=5_000)
URGENT = coin(3, expiry_height=TIP + 71)


def _select(*spendable: WalletVtxo, **limits: Any) -> tuple[WalletVtxo, ...]:
    return select_inputs(spendable, RULES, **{"joining": (), "delegated": (), "refused": {}, **limits})


def test_what_others_have_is_left_to_them() -> None:
    both = {DUE.id, URGENT.id}
    assert _select(DUE, URGENT, FINE) == (DUE, URGENT)
    assert _select(DUE, URGENT, FINE, joining=both) == ()


def test_what_the_server_has_is_left_to_it_until_time_presses() -> None:
    assert _select(DUE, URGENT, FINE, delegated={DUE.id, URGENT.id}) == (URGENT,)


def test_what_was_refused_rests_for_some_blocks() -> None:
    for blocks, wanted in ((0, ()), (QUIET_BLOCKS - 1, ()), (QUIET_BLOCKS, (DUE,))):
        assert _select(DUE, FINE, refused={DUE.id: TIP - blocks}) == wanted


def test_inputs_are_cut_to_what_the_server_puts_into_one_vtxo() -> None:
    coins = [coin(n, amount) for n, amount in enumerate((60, 40, 50, 101, 50, 1))]
    groups = [[vtxo.amount_sat for vtxo in group] for group in cut_to_size(coins, 100)]
    assert groups == [[60, 40], [50, 50], [1]]  # the one that no round takes is left out
    assert cut_to_size(coins, None) == [coins]
    assert cut_to_size([], None) == cut_to_size([], 100) == []


@pytest.mark.parametrize(
    ("amounts_sat", "max_sat", "problem"),
    [
        ((100, 229), None, TooLittleToRefresh),
        ((60_000, 60_000), 100_000, TooMuchForOneVtxo),
    ],
)
def test_what_makes_no_refresh(
    amounts_sat: tuple[int, ...], max_sat: int | None, problem: type[BarkdError]
) -> None:
    info: ArkInfo = replace(ARK_INFO, max_vtxo_amount_sat=max_sat)
    with pytest.raises(problem):
        output_amount_sat([coin(n, amount) for n, amount in enumerate(amounts_sat)], info, TIP)
