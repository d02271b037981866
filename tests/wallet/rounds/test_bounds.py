"""What a server may ask of a refresh; with whole rounds: `tests/wallet/flows/test_greedy_server.py`."""

import pytest

from barkd_py.wallet.rounds.bounds import highest_exit_delta


@pytest.mark.parametrize(
    ("agreed", "highest"), [(1, 144), (12, 144), (72, 144), (73, 146), (144, 288), (1_008, 2_016)]
)
def test_an_exit_delta_may_rise_to_a_day_or_double(agreed: int, highest: int) -> None:
    assert highest_exit_delta(agreed) == highest
