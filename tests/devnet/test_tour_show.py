"""What the tour prints."""

import pytest

from barkd_py.devnet.tour.show import name_of


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("bark.board", "board", "board"),
        ("bark.arkoor", "receive", "arkoor receive"),
        ("bark.lightning_send", "send", "lightning send"),
        ("bark.round", "refresh", "round refresh"),
    ],
)
def test_no_word_of_a_movement_is_shown_twice(name: str, kind: str, shown: str) -> None:
    assert name_of(name, kind) == shown
