"""Subscriptions, their overflow, and the buffer for clients that poll."""

import asyncio
from datetime import UTC, datetime

import pytest

from barkd_py.wallet.movements import ARKOOR_RECEIVE, Movement, MovementStatus
from barkd_py.wallet.notifications import (
    QUEUE_LENGTH,
    ChannelLagging,
    MovementCreated,
    MovementUpdated,
    Notification,
    Notifications,
    NotificationsStopped,
    Subscription,
)
from barkd_py.wallet.store.transaction import system_clock
from tests.wallet.samples import Clock

T0 = datetime(2026, 9, 1, tzinfo=UTC)


def created(number: int) -> MovementCreated:
    return MovementCreated(Movement(number, MovementStatus.PENDING, ARKOOR_RECEIVE, T0, T0))


async def take(subscription: Subscription, count: int) -> list[Notification]:
    return [await anext(subscription) for _ in range(count)]


async def test_every_subscriber_gets_every_event_in_order() -> None:
    notifications = Notifications(system_clock)
    first, second = notifications.subscribe(), notifications.subscribe()
    updated = MovementUpdated(created(1).movement)

    notifications.publish([created(1), updated])

    assert await take(first, 2) == [created(1), updated]
    assert await take(second, 2) == [created(1), updated]


async def test_a_subscriber_waits_for_the_next_event() -> None:
    notifications = Notifications(system_clock)
    waiting = asyncio.create_task(take(notifications.subscribe(), 1))
    await asyncio.sleep(0)
    notifications.publish([created(1)])
    assert await waiting == [created(1)]


async def test_nothing_is_replayed_to_a_late_subscriber() -> None:
    notifications = Notifications(system_clock)
    notifications.publish([created(1)])
    late = notifications.subscribe()
    notifications.publish([created(2)])
    assert await take(late, 1) == [created(2)]


async def test_a_full_queue_loses_nothing() -> None:
    notifications = Notifications(system_clock)
    subscription = notifications.subscribe()
    notifications.publish(created(number) for number in range(QUEUE_LENGTH))
    assert await take(subscription, QUEUE_LENGTH) == [created(number) for number in range(QUEUE_LENGTH)]


async def test_a_slow_subscriber_is_told_once_and_goes_on_with_the_oldest_that_is_left() -> None:
    notifications = Notifications(system_clock)
    slow, quick = notifications.subscribe(), notifications.subscribe()
    for number in range(QUEUE_LENGTH + 10):
        notifications.publish([created(number)])
        assert await anext(quick) == created(number)

    assert await anext(slow) == ChannelLagging()
    assert await take(slow, QUEUE_LENGTH) == [created(number) for number in range(10, QUEUE_LENGTH + 10)]

    notifications.publish([created(1_000)])
    assert await anext(slow) == created(1_000)


async def test_a_closed_subscription_ends_and_takes_nothing_more() -> None:
    notifications = Notifications(system_clock)
    subscription = notifications.subscribe()
    notifications.publish([created(1)])
    subscription.close()
    notifications.publish([created(2)])
    assert [event async for event in subscription] == [created(1)]


async def test_stopping_ends_subscriptions_and_polls() -> None:
    notifications = Notifications(system_clock)
    before = notifications.subscribe()
    poll = asyncio.create_task(notifications.wait(None, timeout_seconds=60))
    await asyncio.sleep(0)

    notifications.stop()

    assert [event async for event in before] == []
    assert [event async for event in notifications.subscribe()] == []
    with pytest.raises(NotificationsStopped, match=r"^Notification manager stopped$"):
        await poll
    with pytest.raises(NotificationsStopped):
        await notifications.wait(None, timeout_seconds=60)


async def test_a_poll_without_since_gets_the_whole_buffer_at_once() -> None:
    clock = Clock()
    notifications = Notifications(clock)
    notifications.publish([created(1)])
    clock.advance(seconds=5)
    notifications.publish([created(2)])

    result = await notifications.wait(None, timeout_seconds=0)

    assert result.notifications == (created(1), created(2))
    assert result.last_pushed_at == clock.now


async def test_polls_that_continue_miss_nothing_of_the_same_instant() -> None:
    clock = Clock()
    notifications = Notifications(clock)
    notifications.publish([created(1)])
    first = await notifications.wait(None, timeout_seconds=0)

    notifications.publish([created(2), created(3)])
    second = await notifications.wait(first.last_pushed_at, timeout_seconds=0)

    assert second.notifications == (created(2), created(3))
    assert (await notifications.wait(second.last_pushed_at, timeout_seconds=0)).notifications == ()


async def test_a_poll_waits_for_the_next_event() -> None:
    notifications = Notifications(system_clock)
    notifications.publish([created(1)])
    since = (await notifications.wait(None, timeout_seconds=0)).last_pushed_at
    polls = [asyncio.create_task(notifications.wait(since, timeout_seconds=60)) for _ in range(2)]
    await asyncio.sleep(0)

    notifications.publish([created(2)])

    for poll in polls:
        assert (await poll).notifications == (created(2),)


@pytest.mark.parametrize("since", [None, T0])
async def test_a_poll_that_times_out_echoes_since(since: datetime | None) -> None:
    result = await Notifications(system_clock).wait(since, timeout_seconds=0)
    assert (result.notifications, result.last_pushed_at) == ((), since)


async def test_the_buffer_is_purged_by_the_next_event_only() -> None:
    secs = Seconds()
    notifications = Notifications(Clock(), secs)
    notifications.publish([created(1)])
    secs.now = 601
    assert (await notifications.wait(None, timeout_seconds=0)).notifications == (created(1),)

    notifications.publish([created(2)])

    assert (await notifications.wait(None, timeout_seconds=0)).notifications == (created(2),)


async def test_events_of_the_last_ten_minutes_stay_in_the_buffer() -> None:
    secs = Seconds()
    notifications = Notifications(Clock(), secs)
    notifications.publish([created(1)])
    secs.now = 600
    notifications.publish([created(2)])
    assert (await notifications.wait(None, timeout_seconds=0)).notifications == (created(1), created(2))


@pytest.mark.parametrize("hours", [-3, 3])
async def test_polls_miss_nothing_and_see_nothing_twice_when_the_clock_is_set(hours: int) -> None:
    clock = Clock()
    notifications = Notifications(clock, Seconds())
    notifications.publish([created(1)])
    first = await notifications.wait(None, timeout_seconds=0)
    notifications.publish([created(2)])  # nobody has asked for it yet
    for number in (3, 4):
        clock.advance(hours=hours)
        notifications.publish([created(number)])
    rest = await notifications.wait(first.last_pushed_at, timeout_seconds=0)
    assert rest.notifications == (created(2), created(3), created(4))
    clock.advance(hours=-2 * hours)  # it is right again
    assert (await notifications.wait(rest.last_pushed_at, timeout_seconds=0)).notifications == ()
    notifications.publish([created(5)])
    assert (await notifications.wait(rest.last_pushed_at, timeout_seconds=0)).notifications == (created(5),)


class Seconds:
    """A monotonic clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now
