"""The server has the preimage and does not pay: its HTLC VTXOs go on the chain, in time.

Here exits are what a test says. Whole ones, with blocks, are in tests/wallet/flows.
"""

import contextlib
import json

import pytest

from barkd_py.errors import BarkdError, ServerUnavailable
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.lightning.receive.errors import (
    ClaimBudgetExhausted,
    HtlcsLost,
    WindowClosed,
)
from barkd_py.wallet.lightning.receive.states import PreimageRevealed, revealed_preimage
from barkd_py.wallet.movements import EXIT_START, MovementStatus, MovementUpdate
from barkd_py.wallet.store.exits import ExitRow
from barkd_py.wallet.vtxos import StateKind, VtxoStateConflict
from tests.fakes.lightning_server import ReceiveServer
from tests.wallet.lightning.receiver import Receiver, open_receiver
from tests.wallet.lightning.test_receive import FEE_SAT, assert_paid, granted

NET_SAT = 10_000 - FEE_SAT
# The window of a grant is open for as many blocks.
SLACK = 18
# What is left then is this much less than what an exit needs at least: 12 blocks of margin and 18 to claim.
LAST_CHANCE = SLACK + 12 + 18


async def cheated(receiver: Receiver) -> bytes:
    """The preimage is out, and the server does not answer."""
    payment_hash = await receiver.paid_invoice()
    receiver.server.away = {"claim_lightning_receive"}
    with pytest.raises(ServerUnavailable):
        await receiver.drive(payment_hash)
    return payment_hash


async def put_exits(receiver: Receiver, kind: str, *, on_chain: bool) -> None:
    """All exits are at this state."""
    async with receiver.store.transaction() as tx:
        for vtxo in await tx.vtxos.list(None):
            if vtxo.policy_kind != "server-htlc-receive-v1":
                continue
            update = MovementUpdate(effective_balance_sat=-vtxo.amount_sat)
            row = await tx.exits.find(vtxo.id)
            movement_id = None if row is None else row.movement_id
            if movement_id is None:
                movement_id = (await tx.movements.create(EXIT_START, update)).id
            await tx.exits.save(ExitRow(vtxo.id, kind, json.dumps({}), "[]", movement_id))
            if on_chain:
                await tx.vtxos.mark_exited([vtxo.id])


async def drive(receiver: Receiver, payment_hash: bytes) -> None:
    """A drive that may end in trouble."""
    with contextlib.suppress(BarkdError):
        await receiver.drive(payment_hash)


async def test_nothing_exits_while_there_is_time(receiver: Receiver) -> None:
    payment_hash = await cheated(receiver)
    receiver.server.chain.height += SLACK
    await drive(receiver, payment_hash)
    assert receiver.exits.started == []
    receiver.server.chain.height += 1
    await drive(receiver, payment_hash)
    assert receiver.exits.started == [vtxo.id for vtxo in await receiver.vtxos(StateKind.LOCKED)]
    state = await receiver.state(payment_hash)
    assert isinstance(state, PreimageRevealed)
    assert state.is_exiting
    assert await receiver.balance() == Balance(claimable_lightning_receive_sat=NET_SAT)


async def test_a_refusal_does_not_keep_from_exiting(receiver: Receiver) -> None:
    """A server that says that it canceled the payment has the preimage all the same."""
    payment_hash = await cheated(receiver)
    receiver.server.away.clear()
    subscription = receiver.server.subscriptions[payment_hash]
    subscription.state = type(subscription.state).CANCELED
    receiver.server.chain.height += SLACK + 1
    await drive(receiver, payment_hash)
    assert len(receiver.exits.started) == 1


async def test_a_server_that_comes_back_pays_after_all(receiver: Receiver) -> None:
    """Until the HTLC VTXOs are on the chain, the claim costs less."""
    payment_hash = await cheated(receiver)
    receiver.server.chain.height += SLACK + 1
    await drive(receiver, payment_hash)
    await put_exits(receiver, "processing", on_chain=False)
    receiver.server.away.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_what_is_on_the_chain_is_claimed_there(receiver: Receiver) -> None:
    payment_hash = await cheated(receiver)
    receiver.server.chain.height += SLACK + 1
    await drive(receiver, payment_hash)
    await put_exits(receiver, "awaiting-delta", on_chain=True)
    receiver.server.away.clear()
    claims = receiver.liar.calls["claim_lightning_receive"]
    await receiver.drive(payment_hash)
    assert receiver.liar.calls["claim_lightning_receive"] == claims, "the server cannot cosign it any more"
    assert receiver.exits.claimed == []
    async with receiver.store.read() as tx:
        assert await revealed_preimage(tx, payment_hash) == await receiver.preimage(payment_hash)

    (htlc,) = await receiver.vtxos(StateKind.EXITED)
    await put_exits(receiver, "claimable", on_chain=True)
    await receiver.drive(payment_hash)
    assert receiver.exits.claimed == [htlc.id]
    await put_exits(receiver, "claim-in-progress", on_chain=True)
    await receiver.drive(payment_hash)
    assert receiver.exits.claimed == [htlc.id]

    await put_exits(receiver, "claimed", on_chain=True)
    await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is None
    movement = await receiver.movement()
    assert (movement.status, movement.exited_vtxos) == (MovementStatus.FAILED, (htlc.id,))
    assert movement.effective_balance_sat == NET_SAT, "which the movement of the exit takes away"
    assert await receiver.balance() == Balance()
    assert (await receiver.receives.find(payment_hash)).state == "settled"
    async with receiver.store.read() as tx:
        assert await tx.lightning.find_settled(payment_hash) is not None


async def test_an_exit_that_wins_over_a_claim_keeps_the_coin(receiver: Receiver) -> None:
    """The claim was answered while the block came: the money is counted once."""
    payment_hash = await cheated(receiver)
    receiver.server.away.clear()

    async def block_comes(payment_hash: bytes) -> None:
        await put_exits(receiver, "awaiting-delta", on_chain=True)

    receiver.server.before_claim = block_comes
    with pytest.raises(VtxoStateConflict):
        await receiver.drive(payment_hash)
    assert await receiver.vtxos(StateKind.SPENDABLE) == ()
    assert await receiver.balance() == Balance(pending_exit_sat=NET_SAT)
    await receiver.drive(payment_hash)
    state = await receiver.state(payment_hash)
    assert isinstance(state, PreimageRevealed)
    assert state.is_exiting


async def test_an_exit_is_only_started_if_it_may_win(receiver: Receiver) -> None:
    """12 blocks of the exit and 40 of the HTLC have to go by before its expiry."""
    payment_hash = await cheated(receiver)
    receiver.server.chain.height += LAST_CHANCE
    await drive(receiver, payment_hash)
    assert receiver.exits.started == []
    receiver.server.chain.height -= 1
    await drive(receiver, payment_hash)
    assert len(receiver.exits.started) == 1


async def test_a_late_claim_is_better_than_no_exit(receiver: Receiver) -> None:
    payment_hash = await cheated(receiver)
    receiver.server.chain.height += LAST_CHANCE + 50
    await drive(receiver, payment_hash)
    receiver.server.away.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_what_nobody_gives_back_is_lost_in_the_end(receiver: Receiver) -> None:
    """The tree below has expired, so its coin is the server's."""
    payment_hash = await cheated(receiver)
    receiver.server.chain.height = 999
    await drive(receiver, payment_hash)
    assert await receiver.state(payment_hash) is not None
    receiver.server.chain.height = 1_000
    with pytest.raises(HtlcsLost):
        await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is None
    movement = await receiver.movement()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert await receiver.balance() == Balance()
    assert await receiver.vtxos(StateKind.LOCKED, StateKind.SPENDABLE) == ()


async def test_an_exit_that_somebody_cut_off_is_a_loss(receiver: Receiver) -> None:
    payment_hash = await cheated(receiver)
    await put_exits(receiver, "vtxo-swept", on_chain=False)
    with pytest.raises(HtlcsLost):
        await receiver.drive(payment_hash)
    assert (await receiver.movement()).effective_balance_sat == 0


async def test_an_exit_that_was_canceled_starts_again(receiver: Receiver) -> None:
    payment_hash = await cheated(receiver)
    receiver.server.chain.height += SLACK + 1
    await drive(receiver, payment_hash)
    await put_exits(receiver, "canceled", on_chain=False)
    await drive(receiver, payment_hash)
    assert len(receiver.exits.started) == 2


async def test_without_the_chain_source_the_claim_goes_on(receiver: Receiver) -> None:
    payment_hash = await cheated(receiver)
    receiver.server.chain.is_away = True
    for _ in range(4):
        await drive(receiver, payment_hash)
    with pytest.raises(ClaimBudgetExhausted):
        await receiver.drive(payment_hash)
    receiver.server.chain.is_away = False
    receiver.server.away.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


# --- the HTLC VTXOs were put on the chain before the preimage was out


async def test_a_grant_on_the_chain_is_taken_there(receiver: Receiver) -> None:
    payment_hash = await granted(receiver)
    await put_exits(receiver, "awaiting-delta", on_chain=True)
    await receiver.drive(payment_hash)
    assert receiver.server.preimages == []
    async with receiver.store.read() as tx:
        assert await revealed_preimage(tx, payment_hash) is not None
    await put_exits(receiver, "claimed", on_chain=True)
    await receiver.drive(payment_hash)
    assert (await receiver.movement()).exited_vtxos != ()


async def test_a_grant_on_the_chain_too_late_is_left_there(receiver: Receiver) -> None:
    """To claim it would show the preimage to a server that may take the coin as well."""
    payment_hash = await granted(receiver)
    await put_exits(receiver, "awaiting-delta", on_chain=True)
    receiver.server.chain.height += LAST_CHANCE
    with pytest.raises(WindowClosed):
        await receiver.drive(payment_hash)
    async with receiver.store.read() as tx:
        assert await revealed_preimage(tx, payment_hash) is None
        assert await tx.lightning.find_settled(payment_hash) is None
    assert (await receiver.movement()).status is MovementStatus.CANCELED
    assert len(await receiver.vtxos(StateKind.EXITED)) == 1


async def test_part_of_it_on_the_chain_means_all_of_it(sqlite_database: str, server: ReceiveServer) -> None:
    server.pieces = 2
    async with open_receiver(sqlite_database, server) as receiver:
        payment_hash = await cheated(receiver)
        first, second = await receiver.vtxos(StateKind.LOCKED)
        async with receiver.store.transaction() as tx:
            movement = await tx.movements.create(EXIT_START)
            await tx.exits.save(ExitRow(first.id, "claimable", json.dumps({}), "[]", movement.id))
            await tx.vtxos.mark_exited([first.id])
        await receiver.drive(payment_hash)
        assert receiver.exits.started == [second.id]
        assert receiver.exits.claimed == [first.id]
        await put_exits(receiver, "claimed", on_chain=True)
        await receiver.drive(payment_hash)
        assert set((await receiver.movement()).exited_vtxos) == {first.id, second.id}
        assert await receiver.vtxos(StateKind.LOCKED, StateKind.SPENDABLE) == ()
