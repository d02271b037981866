"""The daemon's loops: what happens without anybody asking."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import TxOut
from barkd_py.daemon.loops import Daemon
from barkd_py.devnet.chain import faucet
from barkd_py.server_rpc.streams import Backoff
from tests.support.processes import until
from tests.wallet.flows.conftest import BOB, Net, Owner

INTERVAL_SECS = 1


def short_backoff() -> Backoff:
    async def sleep(_: float) -> None:
        await asyncio.sleep(0.02)

    return Backoff(sleep)


@asynccontextmanager
async def daemon_of(net: Net, name: str, **changes: Any) -> AsyncIterator[tuple[Owner, Daemon]]:
    settings = {"daemon_sync_interval_secs": INTERVAL_SECS, **changes}
    async with net.owner(name, BOB, **settings) as owner:
        daemon = Daemon(owner.wallet, backoff=short_backoff)
        owner.wallet.background = daemon
        await owner.wallet.start()
        yield owner, daemon


async def has(owner: Owner, amount_sat: int) -> bool:
    return await owner.spendable_sat() == amount_sat


async def test_a_payment_is_pushed(net: Net, alice: Owner) -> None:
    async with daemon_of(net, "bob", daemon_sync_interval_secs=3600) as (bob, daemon):
        await until(_true_when(lambda: daemon.connected))
        address = await bob.wallet.new_address()
        for number in range(1, 4):
            await alice.wallet.send_arkoor(address, 1_000)
            await until(lambda paid=number: has(bob, 1_000 * paid))  # type: ignore[misc]


async def test_a_board_completes_by_itself(net: Net, bob: Owner) -> None:
    await bob.fund_onchain(150_000)
    await bob.wallet.close()
    async with daemon_of(net, "bob") as (owner, _):
        pending = await owner.wallet.board_amount(100_000)
        await net.mine()
        await until(lambda: has(owner, pending.amount_sat))


async def test_money_on_chain_shows_up_by_itself(net: Net) -> None:
    async with daemon_of(net, "bob") as (owner, _):
        onchain = owner.wallet.onchain
        assert onchain is not None
        script = parse_address(await onchain.next_address(), owner.wallet.network)
        await faucet.pay(net.devnet.node, [TxOut(77_000, script)])
        await net.mine()

        async def arrived() -> bool:
            return (await onchain.balance()).confirmed_sat == 77_000

        await until(arrived)


async def test_a_stream_that_breaks_is_opened_again(net: Net, alice: Owner) -> None:
    net.fault("SubscribeMailbox", stage="stream", kind="drop", count=2)
    async with daemon_of(net, "bob", daemon_sync_interval_secs=3600) as (bob, _):
        address = await bob.wallet.new_address()
        for number in range(1, 5):
            await alice.wallet.send_arkoor(address, 1_000)
            await until(lambda paid=number: has(bob, 1_000 * paid))  # type: ignore[misc]


async def test_a_mailbox_that_cannot_be_read_for_a_while_is_read_later(
    net: Net, alice: Owner, bob: Owner
) -> None:
    address = await bob.wallet.new_address()
    await bob.wallet.close()
    net.fault("ReadMailbox", kind="error", code="INTERNAL", count=5)
    await alice.wallet.send_arkoor(address, 1_000)
    async with daemon_of(net, "bob", daemon_sync_interval_secs=3600) as (owner, daemon):
        await until(lambda: has(owner, 1_000))
        assert daemon.connected


async def test_a_server_that_was_away_at_the_start_is_found(net: Net) -> None:
    net.fault("Handshake", kind="error", code="UNAVAILABLE", count=3)
    async with daemon_of(net, "bob") as (owner, daemon):
        assert not daemon.connected
        await until(_true_when(lambda: daemon.connected))
        assert owner.wallet.is_connected


async def test_a_lost_stream_disconnects_and_the_heartbeat_reconnects(net: Net, alice: Owner) -> None:
    number = net.fault("SubscribeMailbox", kind="error", code="INTERNAL", count=None)
    async with daemon_of(net, "bob") as (bob, daemon):
        await until(_true_when(lambda: not daemon.connected))
        net.devnet.ark_server.faults.remove(number)
        await until(_true_when(lambda: daemon.connected))
        await alice.wallet.send_arkoor(await bob.wallet.new_address(), 1_000)
        await until(lambda: has(bob, 1_000))


async def test_manual_sync_opens_no_stream(net: Net, alice: Owner) -> None:
    async with daemon_of(net, "bob", daemon_manual_sync=True) as (bob, _):
        await alice.wallet.send_arkoor(await bob.wallet.new_address(), 1_000)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "server-connection" in names
        assert names.isdisjoint({"mailbox", "sync", "tip"})
        assert await bob.spendable_sat() == 0
        await bob.wallet.sync()
        assert await bob.spendable_sat() == 1_000


async def test_an_unfinished_payment_is_finished(net: Net, alice: Owner, bob: Owner) -> None:
    """Upstream leaves it to the next start."""
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), 50_000)
    await bob.wallet.sync_mailbox()
    address = await alice.wallet.new_address()
    net.fault("PostArkoorMessage", kind="error", code="UNAVAILABLE", count=1)
    sending = asyncio.create_task(bob.wallet.send_arkoor(address, 1_000))
    await until(_struck(net))
    await bob.wallet.close()
    with pytest.raises(Exception, match="continues in the background"):
        await sending
    async with daemon_of(net, "bob"):

        async def arrived() -> bool:
            await alice.wallet.sync_mailbox()
            return await has(alice, 499_400 - 50_000 + 1_000)

        await until(arrived)


async def test_a_wallet_closes_promptly(net: Net) -> None:
    async with daemon_of(net, "bob", daemon_sync_interval_secs=3600) as (owner, _):
        await asyncio.sleep(0.2)
        async with asyncio.timeout(60):
            await owner.wallet.close()
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert names.isdisjoint({"mailbox", "sync", "tip", "server-connection"})


def _true_when(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return condition()

    return check


def _struck(net: Net) -> Callable[[], Awaitable[bool]]:
    return _true_when(lambda: any(fault["hits"] for fault in net.devnet.ark_server.faults.list()))


async def test_the_mailbox_is_read_as_soon_as_the_server_is_back(net: Net, alice: Owner) -> None:
    net.fault("Handshake", kind="error", code="UNAVAILABLE", count=None)
    async with daemon_of(net, "bob", daemon_sync_interval_secs=3_600) as (bob, daemon):
        assert not daemon.connected
        net.honest()
        assert await daemon.heartbeat("still away")
        await alice.wallet.send_arkoor(await bob.wallet.new_address(), 1_000)
        await until(lambda: has(bob, 1_000))
