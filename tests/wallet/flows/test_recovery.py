"""A wallet that has nothing left but its words finds its VTXOs again, and only those."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.ark_server.settings import Emulation, ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.errors import ChainUnavailable, InsufficientFunds
from barkd_py.server_rpc.api import VtxoLookup
from barkd_py.wallet.creation import create_wallet
from barkd_py.wallet.recovery.progress import FORMAT, Progress
from barkd_py.wallet.recovery.report import RecoveryOutcome, RecoveryReport
from barkd_py.wallet.recovery.service import RecoveryInterrupted
from barkd_py.wallet.store.tables import vtxo_body
from barkd_py.wallet.vtxo_states import Locked, Spendable, Spent
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.recoveries import recovery_with
from tests.wallet.flows.rounds import round_of

BOTH = pytest.mark.parametrize(
    "server_settings",
    [
        ServerSettings(emulate=Emulation.V0_8),
        ServerSettings(emulate=Emulation.V0_6, group_complete_pages=False),
    ],
    ids=["0.8", "0.6"],
)


async def pay(sender: Owner, receiver: Owner, amount_sat: int) -> None:
    await sender.wallet.send_arkoor(await receiver.wallet.new_address(), amount_sat)
    await receiver.wallet.mailbox.sync()
    await receiver.wallet.registration.catch_up()
    await sender.wallet.registration.catch_up()


async def spendable(owner: Owner) -> set[VtxoId]:
    vtxos = await owner.wallet.list_vtxos(include_all=True)
    return {vtxo.id for vtxo in vtxos if isinstance(vtxo.state, Spendable)}


@asynccontextmanager
async def reborn(net: Net, like: Owner, name: str = "reborn", **changes: object) -> AsyncIterator[Owner]:
    """A wallet from the words of another one, which has not recovered yet."""
    await create_wallet(
        await net.database(name),
        seed=like.seed,
        network=Network.REGTEST,
        config=net.config(**changes),
        recover=True,
    )
    async with net.owner(name, like.seed, **changes) as owner:
        yield owner


async def recover(owner: Owner) -> RecoveryReport:
    await owner.wallet.recovery.resume()
    return await owner.wallet.recovery.report()


def found(report: RecoveryReport, outcome: RecoveryOutcome) -> set[VtxoId]:
    return {entry.vtxo_id for entry in report.entries if entry.outcome is outcome}


@pytest.mark.both_stores
@BOTH
async def test_everything_spendable_before_is_spendable_after(net: Net, alice: Owner, bob: Owner) -> None:
    """A board's change, a refreshed VTXO, a payment that came in, dust; and what was spent stays spent."""
    await pay(alice, bob, 100_000)
    await pay(bob, alice, 30_000)
    await pay(alice, bob, 1_000)
    await pay(bob, alice, 200)
    largest = max(await alice.wallet.list_vtxos(include_all=False), key=lambda vtxo: vtxo.amount_sat)
    async with round_of(net, alice) as held:
        await alice.wallet.rounds.refresh([largest.id])
        await held.finish()
    await net.mine()
    await alice.wallet.rounds.sync()
    await alice.wallet.registration.catch_up()
    before = await spendable(alice)
    balance = await alice.spendable_sat()

    async with reborn(net, alice) as again:
        report = await recover(again)

        assert await spendable(again) == before
        assert await again.spendable_sat() == balance
        assert report.is_complete
        assert report.error is None
        assert {
            entry.vtxo_id for entry in report.entries if entry.outcome is RecoveryOutcome.RECOVERED
        } == before
        assert report.amount_sat(RecoveryOutcome.RECOVERED) == balance
        assert report.searched_by_key is (net.devnet.ark_server.settings.emulate is Emulation.V0_8)
        assert not await again.wallet.recovery.is_mailbox_blocked()
        # The money is good, and no old delivery comes back as money.
        await again.wallet.mailbox.sync()
        assert await again.spendable_sat() == balance
        await pay(again, bob, 50_000)
        assert await again.spendable_sat() == balance - 50_000


async def test_coins_on_addresses_of_another_life_are_found(net: Net, alice: Owner) -> None:
    """At the creation, and by a wallet that was in use: a twin has handed out more addresses."""
    async with reborn(net, alice, "twin") as twin:
        assert alice.wallet.onchain is not None
        assert twin.wallet.onchain is not None
        await alice.wallet.onchain.sync()
        assert await twin.wallet.onchain.balance() == await alice.wallet.onchain.balance()
        for _ in range(5):
            await twin.wallet.onchain.next_address()
        await twin.fund_onchain(77_000)
        before = (await alice.wallet.onchain.balance()).total_sat
        await alice.wallet.onchain.sync()
        assert (await alice.wallet.onchain.balance()).total_sat == before
        await alice.wallet.recovery.start()
        assert (await alice.wallet.onchain.balance()).total_sat == before + 77_000
        assert await alice.wallet.onchain.next_address() == await twin.wallet.onchain.next_address()


async def test_coins_are_looked_for_before_an_ark_address_was_ever_handed_out(net: Net) -> None:
    """As in a backup of a new wallet that was put back."""
    async with net.wallet("carol") as carol, reborn(net, carol) as later:
        for _ in range(2):
            await later.fund_onchain(300_000)
        assert carol.wallet.onchain is not None
        await carol.wallet.onchain.sync()
        assert await carol.wallet.keychain.next_index() == 0
        assert (await carol.wallet.onchain.balance()).total_sat == 0
        await carol.wallet.recovery.start()
        assert (await carol.wallet.onchain.balance()).total_sat == 600_000


async def test_without_the_server_coins_are_found_all_the_same(net: Net, alice: Owner) -> None:
    async with reborn(net, alice, "twin") as twin:
        await twin.fund_onchain(77_000)
        assert alice.wallet.onchain is not None
        before = (await alice.wallet.onchain.balance()).total_sat
        await net.devnet.ark_server.stop()
        with pytest.raises(RecoveryInterrupted):
            await alice.wallet.recovery.start()
        assert (await alice.wallet.onchain.balance()).total_sat == before + 77_000


async def test_a_recovery_is_not_over_before_coins_were_looked_for(net: Net, alice: Owner) -> None:
    tries: list[str] = []

    async def look() -> None:
        tries.append("look")
        if len(tries) < 3:
            raise ChainUnavailable("it is busy")

    recovery = recovery_with(alice.wallet, alice.wallet.server, rescan_onchain=look)
    with pytest.raises(RecoveryInterrupted):
        await recovery.start()
    report = await recovery.report()
    assert report.error is not None
    assert "the search for on-chain coins failed: it is busy" in report.error
    assert (report.finished_at, report.is_complete) == (None, False)
    assert len(report.entries) == 1  # VTXOs do not wait for it
    with pytest.raises(RecoveryInterrupted):
        await recovery.resume()
    await recovery.resume()
    report = await recovery.report()
    assert (report.error, report.is_complete) == (None, True)
    await recovery.start()
    assert len(tries) == 4  # again, each time that somebody asks


# --- spent elsewhere


async def test_a_vtxo_that_was_spent_elsewhere_does_not_block_payments(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """Two wallets of one seed: what the other one has spent is held back here, and others are used."""
    for amount_sat in (10_000, 20_000, 30_000):
        await pay(alice, bob, amount_sat)
    async with reborn(net, bob, "twin") as twin:
        await recover(twin)
        assert await spendable(twin) == await spendable(bob)
        await twin.wallet.send_arkoor(await alice.wallet.new_address(), 10_000)
        (gone,) = await spendable(bob) - await spendable(twin)

        await bob.wallet.send_arkoor(await alice.wallet.new_address(), 15_000)

        row = await bob.wallet.get_vtxo(gone)
        assert row.state == Locked(None)
        assert await bob.spendable_sat() == 60_000 - row.amount_sat - 15_000
        # The server may have lied: it is asked again, and the chain of the VTXO was kept.
        await net.devnet.ark_server.set_vtxo_state(gone, SpendState.SPENDABLE)
        await bob.wallet.recovery.retry()
        assert (await bob.wallet.get_vtxo(gone)).state == Spendable()
        # The twin's change descends from it: that is proof, whatever the server says.
        await twin.wallet.registration.catch_up()
        await bob.wallet.recovery.start()
        assert (await bob.wallet.get_vtxo(gone)).state == Spent()
        assert await bob.spendable_sat() == 60_000 - 10_000 - 15_000


async def test_a_banned_vtxo_does_not_block_payments(net: Net, alice: Owner, bob: Owner) -> None:
    for amount_sat in (10_000, 20_000):
        await pay(alice, bob, amount_sat)
    first = min(await bob.wallet.list_vtxos(include_all=False), key=lambda vtxo: vtxo.amount_sat)
    for vtxo in await bob.wallet.list_vtxos(include_all=False):
        if vtxo.id != first.id:
            await net.devnet.ark_server.ban_vtxo(vtxo.id, 10)

    await bob.wallet.send_arkoor(await alice.wallet.new_address(), 5_000)

    assert await bob.spendable_sat() == 30_000 - 5_000
    with pytest.raises(InsufficientFunds):
        await bob.wallet.send_arkoor(await alice.wallet.new_address(), 10_000)
    assert await bob.spendable_sat() == 30_000 - 5_000


# --- what cannot be read here any more


class Without:
    """A server that does not know one VTXO."""

    def __init__(self, server: Any, unknown: VtxoId) -> None:
        self._server = server
        self._unknown = unknown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def get_vtxos(self, ids: Sequence[VtxoId]) -> VtxoLookup:
        lookup = await self._server.get_vtxos([each for each in ids if each != self._unknown])
        return VtxoLookup(lookup.found, (*lookup.missing, self._unknown))


async def spoil(owner: Owner, vtxo_id: VtxoId) -> None:
    async with owner.wallet.store.transaction() as tx:
        cut_off = sa.func.substr(vtxo_body.c.bare, 1, 20)
        await tx.vtxos._connection.execute(
            sa.update(vtxo_body).where(vtxo_body.c.vtxo_id == str(vtxo_id)).values(bare=cut_off)
        )


@pytest.mark.both_stores
async def test_a_vtxo_that_cannot_be_read_here_any_more_comes_from_the_server(
    net: Net, alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 10_000)
    (vtxo_id,) = await spendable(bob)
    async with bob.wallet.store.read() as tx:
        body = await tx.vtxos.body(vtxo_id)
    await spoil(bob, vtxo_id)
    await pay(alice, bob, 20_000)

    await bob.wallet.recovery.start()

    assert (await bob.wallet.recovery.report()).is_complete
    async with bob.wallet.store.read() as tx:
        assert await tx.vtxos.body(vtxo_id) == body
    assert await bob.spendable_sat() == 30_000
    await pay(bob, alice, 25_000)


async def test_one_that_nobody_can_read_keeps_no_recovery_from_its_end(
    net: Net, alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 10_000)
    (lost,) = await spendable(bob)
    await spoil(bob, lost)
    await pay(alice, bob, 20_000)
    wallet = bob.wallet

    await recovery_with(wallet, Without(wallet.server, lost)).start()

    report = await wallet.recovery.report()
    assert report.is_complete
    assert found(report, RecoveryOutcome.NOT_FOUND) == {lost}
    assert (await wallet.get_vtxo(lost)).state == Spendable()  # nobody has spent it


async def test_whether_one_was_spent_can_be_found_out_without_its_body(
    net: Net, alice: Owner, bob: Owner
) -> None:
    await pay(alice, bob, 10_000)
    (vtxo_id,) = await spendable(bob)
    await spoil(bob, vtxo_id)
    assert not (await bob.wallet.look_for_staleness()).is_stale
    await net.devnet.ark_server.set_vtxo_state(vtxo_id, SpendState.SPENT)
    assert (await bob.wallet.look_for_staleness()).spent == (vtxo_id,)


async def test_neither_vtxos_nor_the_mailbox_wait_for_coins(net: Net, alice: Owner) -> None:
    """A node may look for them for an hour."""
    found: list[tuple[int, bool]] = []

    async with reborn(net, alice) as again:

        async def look() -> None:
            found.append((await again.spendable_sat(), await recovery.is_mailbox_blocked()))

        recovery = recovery_with(again.wallet, again.wallet.server, rescan_onchain=look)
        async with again.wallet.store.transaction() as tx:  # as with a node, which has not looked yet
            await tx.recovery.begin(FORMAT.encode(Progress()))
        assert await recovery.is_mailbox_blocked()
        await recovery.resume()
        assert found == [(await alice.spendable_sat(), False)]


async def test_vtxos_are_tried_again_while_somebody_still_looks_for_coins(net: Net, alice: Owner) -> None:
    """The server was away when the recovery began; the node takes an hour for the coins."""
    looks: list[str] = []
    is_over = asyncio.Event()

    async def look() -> None:
        looks.append("look")
        await is_over.wait()

    async with reborn(net, alice) as again:
        recovery = recovery_with(again.wallet, again.wallet.server, rescan_onchain=look)
        async with again.wallet.store.transaction() as tx:  # as with a node, which has not looked yet
            await tx.recovery.begin(FORMAT.encode(Progress()))
        net.fault("ReadMailbox", kind="error", code="UNAVAILABLE", count=None)
        async with asyncio.timeout(60):
            for _ in range(2):
                with pytest.raises(RecoveryInterrupted):
                    await recovery.tick()
        assert await recovery.is_mailbox_blocked()
        net.honest()
        async with asyncio.timeout(60):
            await recovery.tick()
        assert await spendable(again) == await spendable(alice)
        assert not await recovery.is_mailbox_blocked()
        report = await recovery.report()
        assert (report.finished_at, report.error) == (None, None)
        is_over.set()
        await recovery.resume()
        report = await recovery.report()
        assert report.is_complete
        assert looks == ["look"]
        await recovery.close()
