"""Offboards whose process dies around each call and at each commit: paid once or never, and nothing stuck."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.wallet.actions.executor import Machine
from barkd_py.wallet.movements import OFFBOARD, SEND_ONCHAIN, MovementStatus
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.crashes import CrashingStore, Twice, When, died, opener
from tests.wallet.flows.liar import Doom, between_offboards
from tests.wallet.flows.offboards import (
    SESSION_SECS,
    assert_settled,
    onchain_sat,
    target_of,
    wealth_sat,
)

AMOUNT_SAT = 9_000

Flow = Callable[[Owner, Owner], Awaitable[None]]


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(offboard_session_secs=SESSION_SECS)


async def leave_whole(alice: Owner, bob: Owner) -> None:
    """Let the smallest VTXO leave."""
    vtxos = await alice.wallet.list_vtxos(include_all=False)
    smallest = min(vtxos, key=lambda vtxo: vtxo.amount_sat)
    await alice.wallet.offboards.offboard([smallest.id], await target_of(bob))


async def send(alice: Owner, bob: Owner) -> None:
    await alice.wallet.offboards.send(AMOUNT_SAT, await target_of(bob))


async def split(alice: Owner) -> None:
    """Make a small VTXO, unless there is one."""
    if len(await alice.wallet.list_vtxos(include_all=False)) == 1:
        await alice.wallet.send_arkoor(await alice.wallet.new_address(), AMOUNT_SAT)
        await alice.wallet.sync_mailbox()


async def finish(net: Net, alice: Owner) -> None:
    """Open the wallet again, and let it finish what it has begun."""
    wallet = await alice.restart()
    await wallet.offboards.drive_all()
    await net.mine()
    await wallet.chain.fetch_tip()
    await wallet.offboards.drive_all()
    await assert_settled(alice)


class Books:
    """What both have together; nothing may get lost between them."""

    def __init__(self, alice: Owner, bob: Owner) -> None:
        self._alice, self._bob = alice, bob
        self._total_sat = 0

    async def open(self) -> None:
        self._total_sat = await self._sum()

    async def _sum(self) -> int:
        return await wealth_sat(self._alice) + await onchain_sat(self._bob)

    async def check(self, what: object) -> None:
        assert await self._sum() == self._total_sat, what
        left = [*await self._alice.movements(OFFBOARD), *await self._alice.movements(SEND_ONCHAIN)]
        assert {movement.status for movement in left} <= {MovementStatus.SUCCESSFUL}, what

    async def nb_left(self) -> int:
        return len([*await self._alice.movements(OFFBOARD), *await self._alice.movements(SEND_ONCHAIN)])


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_around_each_call(net: Net, alice: Owner, bob: Owner, when: When) -> None:
    """Of a send, which goes through every state."""
    books = Books(alice, bob)
    await books.open()
    undisturbed = Doom()
    between_offboards(alice, undisturbed)
    await send(alice, bob)
    await finish(net, alice)
    await books.check("undisturbed")
    calls = undisturbed.calls
    assert {"prepare_offboard", "finish_offboard", "broadcast"} <= set(calls)
    for number, name in enumerate(calls):
        nb_left = await books.nb_left()
        between_offboards(alice, Doom(number, when))
        assert await died(send(alice, bob)), name
        await finish(net, alice)
        await books.check(f"{when} {name}")
        # What was stored is paid, whatever was lost; before that, nothing was asked for.
        begun = name not in ("info", "offboard_fee_rate", "tip")
        assert await books.nb_left() == nb_left + begun, f"{when} {name}"


@pytest.mark.both_stores
async def test_killed_at_each_commit(net: Net, alice: Owner, bob: Owner) -> None:
    """After each one. Before one is the same as after the call that led to it."""
    books = Books(alice, bob)
    await books.open()
    crashes = 0
    for number in range(12):
        stores: list[CrashingStore] = []
        await alice.wallet.close()
        wallet = await alice.open(opener(stores))
        await wallet.server.info()
        stores[0].arm(number, "after")
        crashed = await died(send(alice, bob))
        stores[0].arm(None)
        crashes += crashed
        await finish(net, alice)
        await books.check(number)
        if not crashed:
            break
    else:
        pytest.fail("an offboard has more commits than this test expects")
    assert crashes >= 6  # begun, split, registered, prepared, signed, out


@pytest.mark.parametrize("flow", [leave_whole, send])
async def test_every_step_may_run_twice(net: Net, alice: Owner, bob: Owner, flow: Flow) -> None:
    books = Books(alice, bob)
    await books.open()
    await split(alice)
    machines: list[Twice] = []

    def wrap(machine: Machine[Any]) -> Twice:
        machines.append(Twice(machine))
        return machines[0]

    between_offboards(alice, wrap=wrap)
    offboards = alice.wallet.offboards
    await flow(alice, bob)
    await net.mine()
    await offboards.drive_all()
    assert machines[0].steps[-4:] == ["Preparing", "Prepared", "Broadcasting", "Confirming"]
    await assert_settled(alice)
    await books.check("twice")
    assert await books.nb_left() == 1
