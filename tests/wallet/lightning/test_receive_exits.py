"""The server has the preimage and does not pay: its HTLC VTXOs go on the chain, in time.

Here exits are what a test says. Whole ones, with blocks, are in tests/wallet/flows.
"""

import asyncio
import contextlib
import json
from dataclasses import replace

import pytest

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.errors import BarkdError, ServerUnavailable
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.exits.payloads import encode_state
from barkd_py.wallet.exits.states import Claimed, ClaimInProgress
from barkd_py.wallet.lightning import poller
from barkd_py.wallet.lightning.receive import machine
from barkd_py.wallet.lightning.receive.errors import (
    ClaimBudgetExhausted,
    ClaimTimeout,
    HtlcsLost,
    WindowClosed,
)
from barkd_py.wallet.lightning.receive.service import revealed_preimage
from barkd_py.wallet.lightning.receive.states import PreimageRevealed
from barkd_py.wallet.movements import EXIT_START, MovementStatus, MovementUpdate
from barkd_py.wallet.store.exits import ExitRow
from barkd_py.wallet.vtxo_states import StateKind, VtxoStateConflict
from tests.fakes.lightning_server import ReceiveServer
from tests.wallet.lightning.receiver import Receiver, open_receiver
from tests.wallet.lightning.test_receive import FEE_SAT, assert_paid, granted

NET_SAT = 10_000 - FEE_SAT
# The window of a grant is open for as many blocks.
SLACK = 18
# What is left then is this much less than what an exit needs at least: 12 blocks of margin and 18 to claim.
LAST_CHANCE = SLACK + 12 + 18
# On the chain, the 12 blocks of margin are gained, and the 18 to claim are not.
ON_CHAIN_SLACK = SLACK + 12
# When the deltas of 12 and 40 are over too, only the 18 are needed.
DISCLOSE_SLACK = ON_CHAIN_SLACK + 12 + 40


async def cheated(receiver: Receiver) -> bytes:
    """The preimage is out, and the server does not answer."""
    payment_hash = await receiver.paid_invoice()
    receiver.server.away = {"claim_lightning_receive"}
    with pytest.raises(ServerUnavailable):
        await receiver.drive(payment_hash)
    return payment_hash


OUR_CLAIM = Tx(2, (TxIn(OutPoint(Txid(bytes(32)), 0)),), (TxOut(1_000, b"\x51"),))


async def put_exits(
    receiver: Receiver, kind: str, *, on_chain: bool, claim_txid: Txid = OUR_CLAIM.txid
) -> None:
    """All exits are at this state. claim_txid: what has claimed them; by itself, we did."""
    block = BlockRef(300, BlockHash(bytes(32)))
    state = json.dumps({})
    if kind == "claimed":
        state = encode_state(Claimed(300, claim_txid, block))
    elif kind == "claim-in-progress":
        state = encode_state(ClaimInProgress(300, block, claim_txid))
    async with receiver.store.transaction() as tx:
        for vtxo in await tx.vtxos.list(None):
            if vtxo.policy_kind != "server-htlc-receive-v1":
                continue
            update = MovementUpdate(effective_balance_sat=-vtxo.amount_sat)
            row = await tx.exits.find(vtxo.id)
            movement_id = None if row is None else row.movement_id
            if movement_id is None:
                movement_id = (await tx.movements.create(EXIT_START, update)).id
            await tx.exits.save(ExitRow(vtxo.id, kind, state, "[]", movement_id))
            if kind in ("claimed", "claim-in-progress") and claim_txid == OUR_CLAIM.txid:
                await tx.exits.save_claim(OUR_CLAIM)
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
    for height in (1_000, 1_005):
        receiver.server.chain.height = height
        await drive(receiver, payment_hash)
        assert await receiver.state(payment_hash) is not None, "it must be certain"
    receiver.server.chain.height = 1_006
    with pytest.raises(HtlcsLost):
        await receiver.drive(payment_hash)
    assert await receiver.state(payment_hash) is None
    movement = await receiver.movement()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert await receiver.balance() == Balance()
    assert await receiver.vtxos(StateKind.LOCKED, StateKind.SPENDABLE) == ()


@pytest.mark.parametrize("heights", [[5_000], [5_000, 5_000], [5_000, 200 + SLACK, 5_006]])
async def test_a_tip_that_was_made_up_ends_nothing(receiver: Receiver, heights: list[int]) -> None:
    """A chain source that says once, or now and then, that the tree below has expired."""
    payment_hash = await cheated(receiver)
    for height in heights:
        receiver.server.chain.height = height
        await drive(receiver, payment_hash)
    receiver.server.chain.height = 200 + SLACK + 1
    await drive(receiver, payment_hash)
    assert len(receiver.exits.started) == 1
    receiver.server.away.clear()
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_a_tip_that_was_made_up_gives_up_no_part(sqlite_database: str, server: ReceiveServer) -> None:
    """One is claimed on the chain, the other one not there yet."""
    server.pieces = 2
    async with open_receiver(sqlite_database, server) as receiver:
        payment_hash = await cheated(receiver)
        first, second = await receiver.vtxos(StateKind.LOCKED)
        state = encode_state(Claimed(300, OUR_CLAIM.txid, BlockRef(300, BlockHash(bytes(32)))))
        async with receiver.store.transaction() as tx:
            movement = await tx.movements.create(EXIT_START)
            await tx.exits.save(ExitRow(first.id, "claimed", state, "[]", movement.id))
            await tx.exits.save_claim(OUR_CLAIM)
            await tx.vtxos.mark_exited([first.id])
        server.chain.height = 5_000
        await drive(receiver, payment_hash)
        assert isinstance(await receiver.state(payment_hash), PreimageRevealed)
        server.chain.height = 200 + SLACK + 1
        await drive(receiver, payment_hash)
        assert receiver.exits.started == [second.id]


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
    assert receiver.exits.claimed == []
    await put_exits(receiver, "claimable", on_chain=True)
    await receiver.drive(payment_hash)
    assert len(receiver.exits.claimed) == 1
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


async def seen_on_chain(receiver: Receiver, blocks: int = 0) -> bytes:
    """A grant that was put on the chain in time, and still is secret, after so many more blocks."""
    payment_hash = await granted(receiver)
    await put_exits(receiver, "awaiting-delta", on_chain=True)
    await receiver.drive(payment_hash)
    receiver.server.chain.height += blocks
    return payment_hash


async def test_a_grant_on_the_chain_needs_time_for_the_claim(receiver: Receiver) -> None:
    """It is not enough that an exit might win by a block."""
    payment_hash = await granted(receiver)
    await put_exits(receiver, "awaiting-delta", on_chain=True)
    receiver.server.chain.height += ON_CHAIN_SLACK + 1
    with pytest.raises(WindowClosed):
        await receiver.drive(payment_hash)


@pytest.mark.parametrize("blocks", [DISCLOSE_SLACK + 1, DISCLOSE_SLACK + 100])
async def test_a_secret_is_not_shown_after_a_long_sleep(receiver: Receiver, blocks: int) -> None:
    """The claim would tell the server the preimage when it may take the coin as well."""
    payment_hash = await seen_on_chain(receiver, blocks)
    await put_exits(receiver, "claimable", on_chain=True)
    with pytest.raises(WindowClosed):
        await receiver.drive(payment_hash)
    assert receiver.exits.claimed == []
    assert await receiver.state(payment_hash) is None
    async with receiver.store.read() as tx:
        assert await revealed_preimage(tx, payment_hash) is None
        assert await tx.lightning.find_settled(payment_hash) is None
    movement = await receiver.movement()
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.CANCELED, 0)
    assert movement.metadata["payment_preimage"] is None


async def test_a_secret_is_shown_while_there_is_time(receiver: Receiver) -> None:
    payment_hash = await seen_on_chain(receiver, DISCLOSE_SLACK)
    await put_exits(receiver, "claimable", on_chain=True)
    await receiver.drive(payment_hash)
    assert len(receiver.exits.claimed) == 1


async def test_what_was_shown_is_claimed_however_late(receiver: Receiver) -> None:
    """Then there is nothing to lose."""
    payment_hash = await seen_on_chain(receiver)
    await put_exits(receiver, "claimable", on_chain=True)
    await receiver.drive(payment_hash)
    receiver.server.chain.height += DISCLOSE_SLACK + 100
    await receiver.drive(payment_hash)
    assert len(receiver.exits.claimed) == 2


@pytest.mark.parametrize("kind", ["claim-in-progress", "claimed"])
async def test_a_user_who_claims_has_shown_it(receiver: Receiver, kind: str) -> None:
    """It is not abandoned after that, though the wallet itself would not have claimed it so late."""
    payment_hash = await seen_on_chain(receiver, DISCLOSE_SLACK + 1)
    await put_exits(receiver, kind, on_chain=True)
    await receiver.drive(payment_hash)
    await put_exits(receiver, "claimed", on_chain=True)
    await receiver.drive(payment_hash)
    assert (await receiver.movement()).exited_vtxos != ()
    assert (await receiver.receives.find(payment_hash)).state == "settled"


async def test_a_secret_is_not_shown_for_a_part(sqlite_database: str, server: ReceiveServer) -> None:
    server.pieces = 2
    async with open_receiver(sqlite_database, server) as receiver:
        payment_hash = await seen_on_chain(receiver)
        first, second = await receiver.vtxos(StateKind.EXITED)
        await put_exits(receiver, "claimable", on_chain=True)
        async with receiver.store.transaction() as tx:
            row = await tx.exits.find(second.id)
            assert row is not None
            await tx.exits.save(replace(row, kind="awaiting-delta"))
        await receiver.drive(payment_hash)
        assert receiver.exits.claimed == []
        await put_exits(receiver, "claimable", on_chain=True)
        await receiver.drive(payment_hash)
        assert set(receiver.exits.claimed) == {first.id, second.id}


# --- a server that hangs


async def test_a_claim_that_hangs_does_not_hold_up_the_exit(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CLAIM_SECS", 0.05)
    payment_hash = await cheated(receiver)
    receiver.server.away.clear()
    never = asyncio.Event()

    async def hang(_: bytes) -> None:
        await never.wait()

    receiver.server.before_claim = hang
    with pytest.raises(ClaimTimeout):
        await receiver.drive(payment_hash)
    assert receiver.exits.started == []
    receiver.server.chain.height += SLACK + 1
    with pytest.raises(ClaimTimeout):
        await receiver.drive(payment_hash)
    assert len(receiver.exits.started) == 1
    monkeypatch.undo()
    receiver.server.before_claim = None
    await receiver.drive(payment_hash)
    await assert_paid(receiver, payment_hash, 10_000, FEE_SAT)


async def test_checks_that_hang_do_not_hold_up_a_claim(receiver: Receiver) -> None:
    """Open invoices, more than are looked at at once, and a preimage that is out."""
    payment_hash = await cheated(receiver)
    receiver.server.away.clear()
    for _ in range(2 * poller.MAX_DRIVEN_AT_ONCE):
        await receiver.invoice()
    never = asyncio.Event()

    async def hang(_: bytes) -> None:
        await never.wait()

    receiver.liar.answers["check_lightning_receive"] = hang
    receiver.clock.seconds += 10
    await receiver.receives.poller.poll()
    at_most = 1 + poller.MAX_DRIVEN_AT_ONCE
    async with asyncio.timeout(60):
        while await receiver.state(payment_hash) is not None:
            await asyncio.sleep(0.001)
        while receiver.liar.calls["check_lightning_receive"] < at_most:
            await asyncio.sleep(0.001)
    assert receiver.liar.calls["check_lightning_receive"] == at_most


# --- what somebody else has taken


@pytest.mark.parametrize("is_known", [False, True])
async def test_what_the_server_took_is_not_ours(receiver: Receiver, is_known: bool) -> None:
    payment_hash = await cheated(receiver)
    (htlc,) = await receiver.vtxos(StateKind.LOCKED)
    theirs = Tx(2, (TxIn(htlc.id.outpoint, witness=(b"\x01" * 64, b"script")),), (TxOut(500, b"\x51"),))
    if is_known:
        receiver.server.chain.txs[theirs.txid] = theirs
    await put_exits(receiver, "claimed", on_chain=True, claim_txid=theirs.txid)
    with pytest.raises(HtlcsLost):
        await receiver.drive(payment_hash)
    movement = await receiver.movement()
    assert (movement.status, movement.exited_vtxos) == (MovementStatus.FAILED, ())
    assert movement.effective_balance_sat == 0
    async with receiver.store.read() as tx:
        (out,) = [each for each in await tx.movements.list() if each.subsystem == EXIT_START]
    assert (out.status, out.effective_balance_sat) == (MovementStatus.FAILED, 0)
    shown = await receiver.receives.find(payment_hash)
    assert (shown.state, shown.settled_at) == ("preimage-revealed", None)
    assert shown.finished_at is not None


async def test_a_claim_of_ours_is_known_by_its_preimage(receiver: Receiver) -> None:
    """A database from a backup may be older than the claim."""
    payment_hash = await cheated(receiver)
    (htlc,) = await receiver.vtxos(StateKind.LOCKED)
    preimage = await receiver.preimage(payment_hash)
    ours = Tx(2, (TxIn(htlc.id.outpoint, witness=(b"\x01" * 64, preimage)),), (TxOut(500, b"\x51"),))
    receiver.server.chain.txs[ours.txid] = ours
    await put_exits(receiver, "claimed", on_chain=True, claim_txid=ours.txid)
    await receiver.drive(payment_hash)
    assert (await receiver.movement()).exited_vtxos == (htlc.id,)
    assert (await receiver.receives.find(payment_hash)).state == "settled"


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
