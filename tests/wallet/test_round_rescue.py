"""When the inputs of a round that does not end have to leave."""

from dataclasses import replace

from barkd_py.wallet.round_rescue import exit_heights
from tests.wallet.rounds.test_machine import FORFEITED, HELD, LOCKED
from tests.wallet.rounds.test_maintenance import coin
from tests.wallet.samples import make_vtxo

MARGIN = 12


def test_inputs_exit_a_margin_and_a_block_for_each_transaction_before_they_expire() -> None:
    early = replace(coin(2, expiry_height=1_000), exit_depth=3)
    late = replace(coin(3, expiry_height=1_010), exit_depth=1)
    new = replace(make_vtxo(1), expiry_height=5_000)
    for state in (HELD, LOCKED, replace(FORFEITED, vtxos=(new,))):
        assert exit_heights(state, [early, late], MARGIN) == {early.id: 985, late.id: 997}


def test_what_is_forfeited_exits_while_a_preimage_that_is_shown_late_is_worth_something() -> None:
    """The exit and its delay, then the forfeit and that one's delay; and then the new VTXO's exit."""
    old = replace(coin(2, expiry_height=1_000), exit_depth=3, exit_delta=144)
    new = replace(make_vtxo(1), expiry_height=1_100)
    shown_height = (
        exit_heights(replace(FORFEITED, vtxos=(new,)), [old], MARGIN)[old.id] + MARGIN + 3 + 2 * 144
    )
    assert shown_height == 1_100 - MARGIN - new.exit_depth
    assert exit_heights(replace(LOCKED, vtxos=(new,)), [old], MARGIN) == {old.id: 985}
