"""Named locks: who waits, who is turned away, and what order is a bug."""

import asyncio

import pytest

from barkd_py.wallet.locks import (
    EXITS,
    ONCHAIN,
    LockBusy,
    LockOrderError,
    LockTimeout,
    NamedLocks,
    round_lock_name,
)


async def test_waiters_are_let_in_one_after_the_other() -> None:
    locks = NamedLocks()
    order: list[str] = []

    async def work(name: str) -> None:
        async with locks.hold("mailbox.processing"):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            order.append(f"{name} out")

    await asyncio.gather(work("a"), work("b"), work("c"))

    assert order == ["a in", "a out", "b in", "b out", "c in", "c out"]


async def test_other_names_do_not_wait() -> None:
    locks = NamedLocks()
    async with locks.hold("ln_pay.1"), locks.hold("ln_pay.2"):
        assert locks.is_held("ln_pay.1")
        assert locks.is_held("ln_pay.2")
    assert not locks.is_held("ln_pay.1")


async def test_a_busy_lock_turns_away_who_does_not_wait() -> None:
    locks = NamedLocks()

    async def intrude() -> None:
        async with locks.try_hold(
            "ln_pay.1", busy_text="Payment operation already in progress for this invoice"
        ):
            pytest.fail("two tasks hold one lock")

    async with locks.try_hold("ln_pay.1"):
        with pytest.raises(LockBusy, match=r"^Payment operation already in progress for this invoice$"):
            await asyncio.create_task(intrude())
    async with locks.try_hold("ln_pay.1"):
        pass


async def test_a_lock_on_its_way_to_a_waiter_is_busy() -> None:
    locks = NamedLocks()
    entered = asyncio.Event()

    async def wait_for_it() -> None:
        async with locks.hold("round.1"):
            entered.set()

    async with locks.hold("round.1"):
        waiter = asyncio.create_task(wait_for_it())
        await asyncio.sleep(0)
    with pytest.raises(LockBusy):
        async with locks.try_hold("round.1"):
            pytest.fail("the waiter was first")
    await waiter
    assert entered.is_set()


async def test_waiting_ends_in_a_timeout_and_leaves_no_trace() -> None:
    locks = NamedLocks()

    async def wait_for_it() -> None:
        async with locks.hold(
            "x.create", timeout_seconds=0, timeout_text="wallet initialization already in progress"
        ):
            pytest.fail("two tasks hold one lock")

    async with locks.hold("x.create"):
        with pytest.raises(LockTimeout, match=r"^wallet initialization already in progress$"):
            await asyncio.create_task(wait_for_it())
    assert not locks.is_held("x.create")


async def test_an_error_inside_releases_the_lock() -> None:
    locks = NamedLocks()
    with pytest.raises(ZeroDivisionError):
        async with locks.hold("a"):
            raise ZeroDivisionError
    async with locks.try_hold("a"):
        pass


async def test_a_task_cannot_wait_for_itself() -> None:
    locks = NamedLocks()
    async with locks.hold("a"):
        with pytest.raises(LockOrderError):
            async with locks.hold("a"):
                pytest.fail("a lock is not re-entrant")
        with pytest.raises(LockBusy):
            async with locks.try_hold("a"):
                pytest.fail("a lock is not re-entrant")


@pytest.mark.parametrize("part", [ONCHAIN, EXITS])
async def test_operations_come_before_the_parts_they_use(part: str) -> None:
    locks = NamedLocks()
    async with locks.hold(round_lock_name("1a2b3c4d", 7)), locks.hold(part):
        pass
    async with locks.hold(part):
        with pytest.raises(LockOrderError, match="must be taken before"):
            async with locks.try_hold("board.00.1"):
                pytest.fail("the order is wrong")


async def test_what_another_task_holds_does_not_count_for_the_order() -> None:
    locks = NamedLocks()

    async def drive() -> str:
        async with locks.try_hold("board.00.1"):
            return "driven"

    async with locks.hold(ONCHAIN):
        assert await asyncio.create_task(drive()) == "driven"


@pytest.mark.parametrize("name", ["", ".a", "a.", "-", "a b", "a/b", "é", "a" * 201])
async def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="malformed lock name"):
        async with NamedLocks().hold(name):
            pytest.fail("the name is malformed")


@pytest.mark.parametrize("name", ["a", "ln_pay.00ff", "board.00.1", "a-b_c.d", "a" * 200])
async def test_names_of_actions_are_names_of_locks(name: str) -> None:
    async with NamedLocks().hold(name):
        pass
