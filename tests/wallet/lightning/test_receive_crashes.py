"""Whoever is to be paid dies: around every call of the server and the chain, and around every commit.

The one rule: what the server was told is in the database before, so whoever opens it again gets the money, to
the satoshi, or has told nobody.
"""

import pytest

from barkd_py.wallet.lightning.ids import receive_action_id
from barkd_py.wallet.lightning.receive.states import FORMAT, PreimageRevealed
from barkd_py.wallet.store import Store
from tests.fakes.lightning_server import ReceiveServer
from tests.wallet.flows.crashes import Crash, CrashingStore, Twice, When
from tests.wallet.flows.liar import Doom
from tests.wallet.lightning.receiver import Receiver, open_receiver
from tests.wallet.lightning.test_receive import FEE_SAT, assert_paid

# What is asked from the payment to the end, in order; the kills go through it one by one.
CALLS = (
    "check_lightning_receive",
    "info",
    "fetch_tip",
    "prepare_lightning_receive_claim",
    "get_tx",
    "tx_status",
    "is_spent_confirmed",
    "fetch_tip",
    "register_vtxo_transactions",
    "claim_lightning_receive",
    "register_vtxo_transactions",
)
COMMITS = ("granted", "revealed", "settled")


async def _stored_before_told(server: ReceiveServer, database: str) -> None:
    """From now on a claim is looked at with a connection of its own: it must be in the database."""

    async def look(payment_hash: bytes) -> None:
        store = await Store.open(database)
        try:
            async with store.read() as tx:
                row = await tx.actions.find(receive_action_id(payment_hash))
        finally:
            await store.close()
        assert row is not None
        assert isinstance(FORMAT.decode(row.payload), PreimageRevealed)

    server.before_claim = look


async def _drive_until_dead(receiver: Receiver, payment_hash: bytes) -> bool:
    """Whether it died."""
    try:
        await receiver.drive(payment_hash)
    except Crash:
        return True
    return False


async def test_what_is_asked(receiver: Receiver) -> None:
    """The list above is what happens."""
    payment_hash = await receiver.paid_invoice()
    doom = Doom()
    receiver.liar._doom = receiver.chain_liar._doom = doom
    assert isinstance(receiver.store, CrashingStore)
    receiver.store.arm(None)
    await receiver.drive(payment_hash)
    assert tuple(doom.calls) == CALLS
    assert receiver.store.commits == len(COMMITS)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(CALLS)))
async def test_killed_around_a_call(
    sqlite_database: str, server: ReceiveServer, number: int, when: When
) -> None:
    await _stored_before_told(server, sqlite_database)
    doom = Doom()
    async with open_receiver(sqlite_database, server, doom=doom) as receiver:
        payment_hash = await receiver.paid_invoice()
        doom.calls.clear()
        doom.at, doom.when = number, when
        assert await _drive_until_dead(receiver, payment_hash)
    await _paid_after_all(sqlite_database, server, payment_hash)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(len(COMMITS)))
async def test_killed_around_a_commit(
    sqlite_database: str, server: ReceiveServer, number: int, when: When
) -> None:
    await _stored_before_told(server, sqlite_database)
    async with open_receiver(sqlite_database, server) as receiver:
        payment_hash = await receiver.paid_invoice()
        assert isinstance(receiver.store, CrashingStore)
        receiver.store.arm(number, when)
        assert await _drive_until_dead(receiver, payment_hash)
    await _paid_after_all(sqlite_database, server, payment_hash)


async def _paid_after_all(database: str, server: ReceiveServer, payment_hash: bytes) -> None:
    async with open_receiver(database, server) as receiver:
        await receiver.receives.poller.drive_all()
        await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [0, 1])
async def test_killed_while_an_invoice_is_made(
    sqlite_database: str, server: ReceiveServer, number: int, when: When
) -> None:
    """Nobody got the invoice, so nobody can pay it; the next one has another preimage."""
    async with open_receiver(sqlite_database, server, doom=Doom(number, when)) as receiver:
        with pytest.raises(Crash):
            await receiver.receives.create(10_000)
    async with open_receiver(sqlite_database, server) as receiver:
        assert await receiver.receives.pending() == []
        payment_hash = await receiver.paid_invoice()
        await receiver.drive(payment_hash)
        await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
async def test_killed_while_an_invoice_is_stored(
    sqlite_database: str, server: ReceiveServer, when: When, kept: int
) -> None:
    async with open_receiver(sqlite_database, server) as receiver:
        assert isinstance(receiver.store, CrashingStore)
        receiver.store.arm(0, when)
        with pytest.raises(Crash):
            await receiver.receives.create(10_000)
    async with open_receiver(sqlite_database, server) as receiver:
        assert len(await receiver.receives.pending()) == kept
        first = await receiver.keychain.reserve()
        assert first.index == kept


async def test_every_step_may_be_repeated(receiver: Receiver) -> None:
    payment_hash = await receiver.paid_invoice()
    machine = Twice(receiver.machine)
    await receiver.executor.drive(machine, receive_action_id(payment_hash))
    assert machine.steps == ["AwaitingPayment", "HtlcsReady", "PreimageRevealed"]
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_the_server_was_told_and_blocks_went_by(sqlite_database: str, server: ReceiveServer) -> None:
    """Upstream looks at the window again, finds it closed and gives the money up."""
    doom = Doom()
    async with open_receiver(sqlite_database, server, doom=doom) as receiver:
        payment_hash = await receiver.paid_invoice()
        doom.calls.clear()
        doom.at, doom.when = CALLS.index("claim_lightning_receive"), "after"
        assert await _drive_until_dead(receiver, payment_hash)
    assert len(server.preimages) == 1
    server.chain.height += 100
    async with open_receiver(sqlite_database, server) as receiver:
        await receiver.drive(payment_hash)
        await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)
        assert receiver.exits.started == []


async def test_a_claim_that_was_only_decided_is_made(sqlite_database: str, server: ReceiveServer) -> None:
    """It cannot be known that it was not sent."""
    async with open_receiver(sqlite_database, server) as receiver:
        payment_hash = await receiver.paid_invoice()
        assert isinstance(receiver.store, CrashingStore)
        receiver.store.arm(1, "after")
        assert await _drive_until_dead(receiver, payment_hash)
    assert server.preimages == []
    server.chain.height += 100
    async with open_receiver(sqlite_database, server) as receiver:
        await receiver.drive(payment_hash)
        await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)
