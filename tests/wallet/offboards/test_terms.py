"""What leaves, and at which price: the limits of one offboard."""

import pytest

from barkd_py.bitcoin.units import FeeRate
from barkd_py.errors import BarkdError
from barkd_py.wallet.offboards.errors import (
    DuplicateOffboardInput,
    OffboardLeavesDust,
    TooManyOffboardInputs,
)
from barkd_py.wallet.offboards.terms import OffboardTarget, OffboardTerms, min_output_sat, plan_whole
from barkd_py.wallet.vtxo_states import WalletVtxo
from barkd_py.wallet.vtxos.selection import CannotCoverPaymentAndFees
from tests.fakes.wallet import ARK_INFO
from tests.wallet.rounds.test_maintenance import coin

P2TR = b"\x51\x20" + b"\x02" * 32
P2WPKH = b"\x00\x14" + b"\x02" * 20
TARGET = OffboardTarget("somewhere", P2TR)
TERMS = OffboardTerms(ARK_INFO, FeeRate(1_750), 1_000, P2TR)
TX_FEE_SAT = 938  # 134 vbytes, by sheet 03 §3.2


def coins(count: int, amount_sat: int = 10_000) -> list[WalletVtxo]:
    return [coin(number, amount_sat, 5_000) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 100])
def test_the_fee_is_taken_from_what_leaves(count: int) -> None:
    payment = plan_whole(coins(count), TARGET, TERMS)
    fee_sat = TX_FEE_SAT + count * 10  # 1000 ppm
    assert (payment.net_amount_sat, payment.fee_sat) == (count * 10_000 - fee_sat, fee_sat)
    assert payment.deducts_fee
    assert payment.input_ids == tuple(vtxo.id for vtxo in coins(count))


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        (coins(101), TooManyOffboardInputs),
        (coins(1) * 2, DuplicateOffboardInput),
        ([], OffboardLeavesDust),
        (coins(1, TX_FEE_SAT), OffboardLeavesDust),
        (coins(1, TX_FEE_SAT + 1 + 329), OffboardLeavesDust),
    ],
)
def test_what_cannot_leave(inputs: list[WalletVtxo], problem: type[BarkdError]) -> None:
    with pytest.raises(problem):
        plan_whole(inputs, TARGET, TERMS)


def test_the_last_amount_that_can_leave() -> None:
    assert plan_whole(coins(1, TX_FEE_SAT + 2 + 330), TARGET, TERMS).net_amount_sat == 330


def test_least_outputs() -> None:
    assert [min_output_sat(script) for script in (P2TR, P2WPKH, b"\x6a\x01\x00")] == [330, 294, 0]


def test_a_send_takes_neither_expired_vtxos_nor_those_too_deep() -> None:
    """Newer servers refuse both as inputs of the split."""
    fine, expired = coin(1, 10_000, 5_000), coin(2, 10_000, 1_000)
    assert TERMS.select([expired, fine], 5_000).vtxos == (fine,)
    with pytest.raises(CannotCoverPaymentAndFees):
        TERMS.select([expired], 5_000)
