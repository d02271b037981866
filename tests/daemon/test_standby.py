"""Which of the daemons on one database has the wallet: what each does when that changes."""

import asyncio
from collections.abc import Callable

import pytest

from barkd_py.daemon.standby import Standby
from barkd_py.errors import ChainUnavailable, KnownError, StoreError
from barkd_py.wallet.store.lease import DatabaseInUse
from tests.fakes.wallet import FakeWallet


class House:
    """What the runtime is to its stand-by. refusals: what keeps the next openings from being one."""

    def __init__(self) -> None:
        self.refusals: list[KnownError] = []
        self.wallet: FakeWallet | None = None
        self.unload_failure: KnownError | None = None
        self.elsewhere = False
        self.standby = Standby(
            asyncio.Lock(),
            holds=lambda wallet: wallet is self.wallet,
            open_wallet=self.open,
            unload=self.unload,
            retry_secs=0,
        )

    async def open(self) -> None:
        if self.elsewhere:
            raise DatabaseInUse
        if self.refusals:
            raise self.refusals.pop(0)
        self.wallet = FakeWallet()
        self.standby.watch(self.wallet)

    async def unload(self) -> None:
        if self.unload_failure is not None:
            raise self.unload_failure
        self.wallet = None
        await self.standby.end()

    async def until(self, accept: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not accept():
                await asyncio.sleep(0)

    @property
    def runs(self) -> bool:
        return self.wallet is not None and not self.standby.is_standing_by


async def test_who_stands_by_tries_until_the_wallet_opens() -> None:
    house = House()
    house.refusals = [DatabaseInUse(), ChainUnavailable("no chain"), DatabaseInUse()]
    house.standby.begin(DatabaseInUse())
    await house.until(lambda: house.standby.is_standing_by)
    await house.until(lambda: house.runs)
    assert house.refusals == []
    await house.standby.end()


async def test_what_keeps_it_from_opening_is_said_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    gone = [StoreError("no wallet") for _ in range(20)]
    house.refusals = [DatabaseInUse(), *gone, DatabaseInUse()]
    house.standby.begin(DatabaseInUse())
    assert house.standby.is_elsewhere
    await house.until(lambda: not house.standby.is_elsewhere)
    await house.until(lambda: house.runs)
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == [
        "Another daemon runs this wallet. Standing by",
        "Cannot take the wallet over: no wallet",
        "Another daemon runs this wallet. Standing by",
        "Wallet taken over",
    ]
    await house.standby.end()


async def test_who_loses_the_wallet_unloads_it_and_takes_it_back_when_it_is_free() -> None:
    house = House()
    await house.open()
    lost = house.wallet
    assert lost is not None
    house.elsewhere = True
    lost.taken_over.set()
    await house.until(lambda: house.standby.is_standing_by)
    await house.until(lambda: house.wallet is None)
    assert house.standby.is_standing_by
    house.elsewhere = False
    await house.until(lambda: house.runs)
    assert house.wallet is not lost
    await house.standby.end()


async def test_a_wallet_that_was_unloaded_meanwhile_is_no_loss() -> None:
    house = House()
    await house.open()
    lost, house.wallet = house.wallet, None
    assert lost is not None
    lost.taken_over.set()
    (watch,) = (task for task in asyncio.all_tasks() if task.get_name() == "shared database")
    await watch
    assert not house.standby.is_standing_by
    assert house.wallet is None


async def test_who_cannot_unload_the_lost_wallet_does_not_stand_by() -> None:
    house = House()
    await house.open()
    assert house.wallet is not None
    house.unload_failure = StoreError("cannot close")
    house.wallet.taken_over.set()
    (watch,) = (task for task in asyncio.all_tasks() if task.get_name() == "shared database")
    with pytest.raises(StoreError):
        await watch
    assert not house.standby.is_standing_by


async def test_at_the_end_nobody_takes_anything_over() -> None:
    house = House()
    house.elsewhere = True
    house.standby.begin(DatabaseInUse())
    await house.until(lambda: house.standby.is_standing_by)
    await house.standby.end()
    assert not house.standby.is_standing_by
    assert [task for task in asyncio.all_tasks() if task.get_name() == "shared database"] == []
