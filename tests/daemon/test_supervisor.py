"""One loop's failure is its own affair, and stopping waits for work in hand."""

import asyncio
import logging

import pytest

from barkd_py.daemon.supervisor import Loop, Shutdown, Supervisor


async def test_a_failing_loop_is_restarted_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    starts: list[str] = []
    restarted = asyncio.Event()

    async def failing(shutdown: Shutdown) -> None:
        starts.append("failing")
        if len(starts) < 3:
            raise ValueError("broken")
        restarted.set()
        await shutdown.wait()

    steady_runs = 0

    async def steady(shutdown: Shutdown) -> None:
        nonlocal steady_runs
        steady_runs += 1
        await shutdown.wait()

    supervisor = Supervisor([Loop("failing", failing), Loop("steady", steady)], restart_delay_secs=0.001)
    with caplog.at_level(logging.ERROR):
        supervisor.start()
        await asyncio.wait_for(restarted.wait(), 60)
        await supervisor.stop()
    assert steady_runs == 1
    assert "Daemon task 'failing' terminated unexpectedly, restarting" in caplog.text
    assert "ValueError: broken" in caplog.text


async def test_stopping_waits_for_the_work_in_hand() -> None:
    begun, finished = asyncio.Event(), False

    async def working(shutdown: Shutdown) -> None:
        nonlocal finished
        begun.set()
        await shutdown.wait()
        await asyncio.sleep(0)
        finished = True

    supervisor = Supervisor([Loop("working", working)])
    supervisor.start()
    await begun.wait()
    await supervisor.stop()
    assert finished


async def test_a_stream_is_cut_at_once() -> None:
    cut = asyncio.Event()

    async def stream(shutdown: Shutdown) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cut.set()
            raise

    supervisor = Supervisor([Loop("stream", stream, streams=True)])
    supervisor.start()
    await asyncio.sleep(0)
    await supervisor.stop()
    assert cut.is_set()


async def test_a_sleep_ends_with_the_wake_or_the_shutdown() -> None:
    shutdown, wake = Shutdown(), asyncio.Event()
    wake.set()
    await asyncio.wait_for(shutdown.sleep(3_600, wake=wake), 60)
    assert not wake.is_set()
    shutdown.request()
    await asyncio.wait_for(shutdown.sleep(3_600), 60)


async def test_a_loop_that_loses_a_cancellation_is_cut_off_all_the_same() -> None:
    deaf = asyncio.Event()

    async def stubborn(shutdown: Shutdown) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            deaf.set()
        await asyncio.Event().wait()

    supervisor = Supervisor([Loop("stubborn", stubborn)], stop_grace_secs=0.01)
    supervisor.start()
    await asyncio.wait_for(supervisor.stop(), 60)
    assert deaf.is_set()
