"""The clock of the machine is set, by hours, while a wallet works."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from barkd_py.wallet.movements import Movement
from tests.wallet.flows.conftest import Owner


class SetClock:
    """Goes like the real one, and is set by so many hours."""

    hours = 0

    def __call__(self) -> float:
        return time.time() + self.hours * 3600


@pytest.mark.both_stores
@pytest.mark.parametrize("first", [-3, 3])
async def test_the_history_and_the_polls_of_a_wallet_whose_clock_is_set(
    alice: Owner, bob: Owner, first: int
) -> None:
    clock = SetClock()
    await alice.wallet.close()
    wallet = await alice.open(now=clock)
    address = await bob.wallet.new_address()
    polled: list[int] = []
    since: datetime | None = None
    sent: list[int] = []
    for hours in (0, first, first, -first, 0):
        clock.hours = hours
        before = {movement.id for movement in await wallet.list_movements()}
        await wallet.send_arkoor(address, 1_000)
        (new,) = [movement for movement in await wallet.list_movements() if movement.id not in before]
        sent.append(new.id)
        shown_ahead = new.created_at - datetime.now(UTC)
        assert abs(shown_ahead - timedelta(hours=hours)) < timedelta(minutes=30)
        assert new.completed_at is not None
        assert new.completed_at >= new.created_at
        if hours != -first:  # of those, nobody asks until later
            events = await wallet.notifications.wait(since, timeout_seconds=0)
            since = events.last_pushed_at
            polled += [event.movement.id for event in events.notifications]
    assert sorted(set(polled)) == sorted(sent)
    assert polled == sorted(polled)  # none twice, none left out, in their order
    assert _ids(await wallet.list_movements())[: len(sent)] == sorted(sent, reverse=True)
    balance = await wallet.balance()
    await alice.restart()  # with the right time
    assert _ids(await alice.wallet.list_movements())[: len(sent)] == sorted(sent, reverse=True)
    assert await alice.wallet.balance() == balance


def _ids(movements: Sequence[Movement]) -> list[int]:
    return [movement.id for movement in movements]
