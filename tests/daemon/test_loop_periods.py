"""How often the daemon does what, over minutes that pass at once.

The loops are the real ones; the clock jumps to the next thing that anybody waits for, and the wallet only
notes when it was asked. Source: protocol sheet 09 §1.1-1.6; sheet 07 §10 (`SLOW_INTERVAL`, sixty seconds).
"""

import asyncio
import selectors
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from barkd_py.bitcoin.tx import BlockHash
from barkd_py.bitcoin.units import BlockRef, Network
from barkd_py.config import load_config
from barkd_py.daemon.loops import Daemon
from barkd_py.errors import ServerError
from barkd_py.wallet.wallet import Wallet

MINUTE = 60


class _Instant(selectors.DefaultSelector):
    """Nobody waits: the clock is put forward instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class _Clock(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.instant = _Instant()
        super().__init__(self.instant)

    def time(self) -> float:
        return self.instant.now


class Asked:
    """A wallet that notes the second in which a part of it was asked to do something."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.times: dict[str, list[float]] = defaultdict(list)
        self.tip = BlockRef(100, BlockHash(bytes(32)))
        self.is_server_there = True
        self.is_payment_pending = False
        self.has_mailbox_stream = True
        nothing = SimpleNamespace(drive_all=self._note("actions"), catch_up=self._note("actions"))
        self.boards = SimpleNamespace(drive_all=self._note("boards"))
        self.arkoor = self.offboards = self.registration = nothing
        self.recovery = SimpleNamespace(tick=self._note("recovery"), note_block=lambda: None)
        self.exits = SimpleNamespace(tick=self._note("exits"))
        self.onchain = SimpleNamespace(sync=self._note("on-chain"))
        self.rounds = SimpleNamespace(sync=self._note("rounds"), run_events=self._wait)
        self.lightning = SimpleNamespace(
            wakeup=asyncio.Event(), is_pending=self._pending, poll=self._note("lightning")
        )
        self.mailbox = SimpleNamespace(subscribe=self._subscribe, sync=self._note("mailbox"))
        self.chain = SimpleNamespace(
            update_fee_rates=self._note("fee rates"), fetch_tip=self._tip, reads_blocks=False
        )
        self.server = SimpleNamespace(refresh=self._refresh)
        self.note_tip = lambda tip: None
        self.sync = self._note("whole sync")

    def when(self, what: str) -> list[float]:
        """The seconds in which it was asked for; the first tip wakes who has just begun."""
        return list(dict.fromkeys(self.times[what]))

    def _note(self, what: str) -> Callable[[], Awaitable[None]]:
        async def noted() -> None:
            self.times[what].append(asyncio.get_running_loop().time())

        return noted

    async def _wait(self, _: object) -> None:
        await asyncio.Event().wait()

    async def _pending(self) -> bool:
        return self.is_payment_pending

    async def _tip(self) -> BlockRef:
        await self._note("tip")()
        return self.tip

    async def _refresh(self) -> None:
        await self._note("server")()
        if not self.is_server_there:
            raise ServerError("nobody is there")

    async def _subscribe(self) -> AsyncGenerator[Any, None]:
        await self._note("subscription")()
        if not self.has_mailbox_stream:
            raise ServerError("no stream")
        return _silence()


async def _silence() -> AsyncGenerator[Any, None]:
    await asyncio.Event().wait()
    yield None


def _run(story: Callable[[Asked], Coroutine[Any, Any, None]], **settings: str) -> Asked:
    """The daemon of a wallet with the default settings, but for these, while the story goes on."""

    async def run() -> Asked:
        environment = {f"BARK_{name.upper()}": value for name, value in settings.items()}
        asked = Asked(load_config(Path("none.toml"), Network.REGTEST, environment=environment))
        daemon = Daemon(cast(Wallet, asked))
        telling = asyncio.create_task(story(asked), name="story")
        await daemon.start()
        await telling
        await daemon.stop()
        return asked

    with asyncio.Runner(loop_factory=_Clock) as runner:
        return runner.run(run())


async def _five_minutes(_: Asked) -> None:
    await asyncio.sleep(5 * MINUTE + 1)


EACH_MINUTE = [0, 60, 120, 180, 240, 300]


@pytest.mark.parametrize("what", ["exits", "fee rates", "rounds", "on-chain", "recovery"])
def test_without_a_block_it_is_done_each_minute(what: str) -> None:
    assert _run(_five_minutes).when(what) == EACH_MINUTE


def test_boards_are_looked_at_each_minute_connected_or_not() -> None:
    """Documented as each half minute, at which no version has ever looked."""
    assert _run(_five_minutes).when("boards") == EACH_MINUTE

    async def away(asked: Asked) -> None:
        asked.is_server_there = False
        await _five_minutes(asked)

    assert _run(away).when("boards") == EACH_MINUTE


def test_the_interval_is_that_of_the_settings() -> None:
    asked = _run(_five_minutes, daemon_sync_interval_secs="100")
    assert (asked.when("exits"), asked.when("on-chain")) == ([0, 100, 200, 300], [0, 100, 200, 300])


def test_a_block_is_seen_within_fifteen_seconds_and_brings_exits_and_boards_forward() -> None:
    async def block(asked: Asked) -> None:
        await asyncio.sleep(80)
        asked.tip = BlockRef(101, BlockHash(b"\x01" * 32))
        await asyncio.sleep(30)

    asked = _run(block)
    assert asked.when("tip") == [0, 15, 30, 45, 60, 75, 90, 105]
    for what in ("exits", "boards", "on-chain", "recovery"):
        assert asked.when(what) == [0, 60, 90], what


def test_payments_under_way_are_looked_at_each_second_and_others_not() -> None:
    """Documented as each second, always; upstream waits for the mailbox."""

    async def pay(asked: Asked) -> None:
        await asyncio.sleep(10)
        asked.is_payment_pending = True
        asked.lightning.wakeup.set()
        await asyncio.sleep(3.5)
        asked.is_payment_pending = False
        await asyncio.sleep(30)

    assert _run(pay).when("lightning") == [10, 11, 12, 13]


def test_the_server_is_asked_for_only_while_it_is_away_and_each_minute_then() -> None:
    """Documented as each second."""
    assert _run(_five_minutes).when("server") == [0]

    async def away(asked: Asked) -> None:
        asked.is_server_there = False
        await asyncio.sleep(150)
        asked.is_server_there = True
        await asyncio.sleep(150)

    assert _run(away).when("server") == [0, 60, 120, 180]


def test_a_mailbox_without_a_stream_is_tried_again_each_minute() -> None:
    """Documented as read each half minute; it is a stream, and read when something comes."""
    assert _run(_five_minutes).when("mailbox") == [0]

    async def broken(asked: Asked) -> None:
        asked.has_mailbox_stream = False
        await asyncio.sleep(150)

    assert _run(broken).when("subscription") == [0, 60, 120]


def test_with_manual_sync_only_the_server_is_looked_for() -> None:
    async def away(asked: Asked) -> None:
        asked.is_server_there = False
        await asyncio.sleep(130)

    asked = _run(away, daemon_manual_sync="true")
    assert asked.times == {"server": [0, 60, 120]}
