"""Offboards that meet lost answers, lost sessions, kills of the server, and a chain that changes its mind."""

import pytest

from barkd_py.ark.offboard import OffboardRequestInvalid
from barkd_py.bitcoin.script import P2A_SCRIPT
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind, NotFound
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import ServerError, StateConflict
from barkd_py.wallet.conflicts import FINAL_CONFIRMATIONS
from barkd_py.wallet.movements import OFFBOARD, SEND_ONCHAIN, Movement, MovementStatus
from barkd_py.wallet.offboards.errors import (
    CannotLock,
    DuplicateOffboardInput,
    OffboardLeavesDust,
    OffboardPending,
    SendBelowDust,
    TooManyOffboardInputs,
)
from barkd_py.wallet.offboards.states import (
    FORMAT,
    Confirming,
    Prepared,
    Preparing,
    Splitting,
    State,
)
from barkd_py.wallet.offboards.terms import OffboardTarget
from barkd_py.wallet.vtxo_states import StateKind
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.liar import between_offboards
from tests.wallet.flows.offboards import (
    SESSION_SECS,
    assert_settled,
    onchain_sat,
    target_of,
    wealth_sat,
)


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(offboard_session_secs=SESSION_SECS)


async def state_of(owner: Owner) -> State:
    """Of the one offboard that is under way."""
    async with owner.wallet.store.read() as tx:
        (row,) = await tx.actions.list()
    return FORMAT.decode(row.payload)


async def locked_sat(owner: Owner) -> int:
    async with owner.wallet.store.read() as tx:
        return sum(vtxo.amount_sat for vtxo in await tx.vtxos.list([StateKind.LOCKED]))


async def the_movement(owner: Owner) -> Movement:
    (movement,) = await owner.movements(OFFBOARD)
    return movement


async def assert_left_once(net: Net, alice: Owner, bob: Owner) -> None:
    """Alice's one VTXO has left, and bob has it less the fee."""
    await net.mine()
    await alice.wallet.chain.fetch_tip()
    await alice.wallet.offboards.drive_all()
    await assert_settled(alice)
    movement = await the_movement(alice)
    assert movement.status is MovementStatus.SUCCESSFUL
    assert await onchain_sat(bob) == -movement.effective_balance_sat - movement.offchain_fee_sat
    assert (await alice.wallet.balance()).total_sat == 0


# --- lost answers and sessions


async def assert_goes_on_in_its_session(net: Net, alice: Owner, bob: Owner) -> None:
    (first,) = net.devnet.ark_server.offboards.open_sessions
    await alice.wallet.offboards.drive_all()
    state = await state_of(alice)
    assert isinstance(state, Confirming)
    assert state.txid == first
    await assert_left_once(net, alice, bob)


async def test_a_lost_answer_to_preparing_is_repeated(net: Net, alice: Owner, bob: Owner) -> None:
    net.fault("PrepareOffboard", stage="after-commit", kind="drop")
    with pytest.raises(ServerError):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    await assert_goes_on_in_its_session(net, alice, bob)


async def test_a_lost_answer_to_preparing_several_is_repeated(net: Net, alice: Owner, bob: Owner) -> None:
    """The server knows a session by its inputs in their order."""
    for amount_sat in (20_000, 30_000):
        await alice.wallet.send_arkoor(await alice.wallet.new_address(), amount_sat)
    await alice.wallet.sync_mailbox()
    inputs = [vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=False)]
    inputs.sort(reverse=True)  # whatever the order in which they are named
    net.fault("PrepareOffboard", stage="after-commit", kind="drop")
    with pytest.raises(ServerError):
        await alice.wallet.offboards.offboard(inputs, await target_of(bob))
    await assert_goes_on_in_its_session(net, alice, bob)


async def test_a_lost_answer_to_the_forfeits_is_repeated(net: Net, alice: Owner, bob: Owner) -> None:
    net.fault("FinishOffboard", stage="after-commit", kind="drop")
    with pytest.raises(ServerError):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    assert isinstance(await state_of(alice), Prepared)
    await alice.wallet.offboards.drive_all()
    await assert_left_once(net, alice, bob)


async def test_a_lost_answer_is_found_on_the_chain(net: Net, alice: Owner, bob: Owner) -> None:
    """The server took the forfeits, broadcast, lost its memory of the session, and we heard nothing."""
    net.fault("FinishOffboard", stage="after-commit", kind="drop")
    with pytest.raises(ServerError):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    state = await state_of(alice)
    assert isinstance(state, Prepared)
    await net.restart_ark_server()
    await alice.wallet.offboards.drive_all()
    assert (await the_movement(alice)).metadata["offboard_txid"] == str(state.tx.txid)
    await assert_left_once(net, alice, bob)


async def test_a_taken_forfeit_keeps_its_inputs_until_the_transaction_appears(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """As before, but the server has not broadcast yet: nothing tells that it took the forfeits."""
    net.fault("offboard.broadcast", stage="engine", kind="swallow", count=None)
    net.fault("FinishOffboard", stage="after-commit", kind="drop")
    before_sat = await alice.spendable_sat()
    with pytest.raises(ServerError):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    await net.restart_ark_server()
    for _ in range(3):
        await alice.wallet.offboards.drive_all()
        state = await state_of(alice)
        assert isinstance(state, Preparing)
        assert len(state.earlier) == 1
        assert await locked_sat(alice) == before_sat
        assert (await the_movement(alice)).status is MovementStatus.PENDING
    net.honest()
    await net.devnet.ark_server.offboards.broadcast_pending()
    await assert_left_once(net, alice, bob)


async def test_a_server_killed_before_it_books_is_asked_anew(net: Net, alice: Owner, bob: Owner) -> None:
    net.fault("offboard.book", stage="engine", kind="drop")
    with pytest.raises(ServerError):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    first = await state_of(alice)
    assert isinstance(first, Prepared)
    await net.restart_ark_server()
    await alice.wallet.offboards.drive_all()
    second = await state_of(alice)
    assert isinstance(second, Confirming)
    assert second.earlier == (first.tx,)
    await assert_left_once(net, alice, bob)


async def test_a_session_that_ran_out_is_opened_anew(net: Net, alice: Owner, bob: Owner) -> None:
    net.fault("FinishOffboard", kind="drop")
    with pytest.raises(ServerError):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    net.devnet.clock.offset_seconds += SESSION_SECS + 1
    await alice.wallet.offboards.drive_all()
    assert isinstance(await state_of(alice), Confirming)
    await assert_left_once(net, alice, bob)


@pytest.mark.parametrize(
    ("text", "is_proof"),
    [
        ("fee rate is no longer valid: provided = 2500, expected = 5000", True),
        ("offboard net amount does not match expected amount: …", True),
        ("requested output address is blocked: …", True),
        ("input vtxo is not spendable", False),
        ("the moon is full", False),
    ],
)
async def test_what_proves_that_the_server_never_took_the_forfeits(
    net: Net, alice: Owner, bob: Owner, text: str, is_proof: bool
) -> None:
    before_sat = await alice.spendable_sat()
    net.fault("FinishOffboard", kind="error", code="INVALID_ARGUMENT", text="unknown offboard txid")
    net.fault("PrepareOffboard", kind="error", code="INVALID_ARGUMENT", text=text, skip=1, count=None)
    with pytest.raises(ServerError, match=text[:20]):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    if is_proof:
        await assert_settled(alice)
        assert await alice.spendable_sat() == before_sat
        movement = await the_movement(alice)
        assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
        assert text[:20] in str(movement.metadata["error"])
    else:
        assert await locked_sat(alice) == before_sat
        assert (await the_movement(alice)).status is MovementStatus.PENDING
        net.honest()
        await alice.wallet.offboards.drive_all()
        await assert_left_once(net, alice, bob)


async def test_a_refusal_before_any_forfeit_undoes_everything(net: Net, alice: Owner, bob: Owner) -> None:
    before_sat = await alice.spendable_sat()
    net.fault("PrepareOffboard", kind="error", code="INVALID_ARGUMENT", text="not today")
    with pytest.raises(ServerError, match="not today"):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    await assert_settled(alice)
    assert await alice.spendable_sat() == before_sat
    assert (await the_movement(alice)).status is MovementStatus.FAILED


# --- the split of a send


async def test_a_lost_answer_to_the_split_is_repeated(net: Net, alice: Owner, bob: Owner) -> None:
    before_sat = await wealth_sat(alice)
    net.fault("RequestArkoorCosign", stage="after-commit", kind="drop")
    with pytest.raises(ServerError):
        await alice.wallet.offboards.send(50_000, await target_of(bob))
    assert isinstance(await state_of(alice), Splitting)
    await alice.wallet.offboards.drive_all()
    await net.mine()
    await alice.wallet.offboards.drive_all()
    await assert_settled(alice)
    assert await onchain_sat(bob) == 50_000
    assert await wealth_sat(alice) == before_sat - 50_000


async def test_a_refused_split_gives_the_inputs_back(net: Net, alice: Owner, bob: Owner) -> None:
    before = await alice.wallet.balance()
    net.fault("RequestArkoorCosign", kind="error", code="INVALID_ARGUMENT", text="no splits")
    with pytest.raises(ServerError, match="no splits"):
        await alice.wallet.offboards.send(50_000, await target_of(bob))
    await assert_settled(alice)
    assert await alice.wallet.balance() == before
    (movement,) = await alice.movements(SEND_ONCHAIN)
    assert (movement.status, movement.offchain_fee_sat) == (MovementStatus.FAILED, 0)


async def test_after_a_refused_offboard_the_split_is_money(net: Net, alice: Owner, bob: Owner) -> None:
    before_sat = await alice.spendable_sat()
    net.fault("PrepareOffboard", kind="error", code="INVALID_ARGUMENT", text="address is blocked")
    with pytest.raises(ServerError, match="address is blocked"):
        await alice.wallet.offboards.send(50_000, await target_of(bob))
    await assert_settled(alice)
    assert await alice.spendable_sat() == before_sat
    await alice.wallet.send_arkoor(await bob.wallet.new_address(), before_sat)
    await bob.wallet.sync_mailbox()
    assert await bob.spendable_sat() == before_sat


# --- the transaction and the chain


@pytest.fixture
async def careful(net: Net, alice: Owner) -> Owner:
    """Alice, who waits for two confirmations."""
    alice.changes = {"offboard_required_confirmations": 2}
    await alice.restart()
    return alice


async def look(net: Net, owner: Owner) -> State | None:
    """What the offboard is after a look at the chain; None if it is over."""
    await owner.wallet.chain.fetch_tip()
    await owner.wallet.offboards.drive_all()
    async with owner.wallet.store.read() as tx:
        rows = await tx.actions.list()
    return FORMAT.decode(rows[0].payload) if rows else None


async def test_it_is_done_when_it_is_deep_enough(net: Net, careful: Owner, bob: Owner) -> None:
    await careful.wallet.offboards.offboard_all(await target_of(bob))
    assert isinstance(await look(net, careful), Confirming)
    await net.mine()
    assert isinstance(await look(net, careful), Confirming)
    assert (await careful.wallet.balance()).total_sat == 0  # it has left, whatever the depth
    await net.mine()
    assert await look(net, careful) is None
    await assert_left_once(net, careful, bob)


async def test_a_reorg_starts_the_count_anew(net: Net, careful: Owner, bob: Owner) -> None:
    await careful.wallet.offboards.offboard_all(await target_of(bob))
    await net.mine()
    await net.devnet.node.reorg(1)
    for _ in range(2):
        assert isinstance(await look(net, careful), Confirming)
        await net.mine()
    assert await look(net, careful) is None
    await assert_left_once(net, careful, bob)


async def test_a_transaction_that_the_pool_forgot_is_offered_again(
    net: Net, careful: Owner, bob: Owner
) -> None:
    result = await careful.wallet.offboards.offboard_all(await target_of(bob))
    net.devnet.ark_server.treasury.withhold(result.offboard_txid)
    await net.devnet.node.evict(result.offboard_txid)
    assert isinstance(await look(net, careful), Confirming)
    assert net.devnet.node.pool.get(result.offboard_txid) is not None


async def test_a_transaction_that_is_lost_for_long_is_a_trouble_and_nothing_is_released(
    net: Net, careful: Owner, bob: Owner
) -> None:
    now = [1_000.0]
    liars = between_offboards(careful, now=lambda: now[0])
    await careful.wallet.offboards.offboard_all(await target_of(bob))

    def refused(_: object) -> None:
        raise BroadcastError(BroadcastErrorKind.LOW_FEE, "min relay fee not met")

    liars.chain.lies = {"tx_status": lambda _: NotFound(), "broadcast": refused}
    locked = await locked_sat(careful)
    for seconds, trouble in ((3_600, None), (1, "for a long time")):
        now[0] += seconds
        state = await look(net, careful)
        assert isinstance(state, Confirming)
        assert (state.trouble is None) if trouble is None else (trouble in str(state.trouble))
        assert await locked_sat(careful) == locked > 0
    liars.chain.lies.clear()
    await net.mine(2)
    assert await look(net, careful) is None
    await assert_left_once(net, careful, bob)


async def test_a_double_spent_offboard_is_noticed_and_undone_when_that_is_deep(
    net: Net, careful: Owner, bob: Owner
) -> None:
    before_sat = await careful.spendable_sat()
    result = await careful.wallet.offboards.offboard_all(await target_of(bob))
    conflict = await net.devnet.ark_server.double_spend(result.offboard_txid)
    await net.devnet.node.mine_exactly([conflict])
    for _ in range(FINAL_CONFIRMATIONS - 1):
        state = await look(net, careful)
        assert isinstance(state, Confirming)
        assert f"was double-spent by {conflict.txid}" in str(state.trouble)
        assert await locked_sat(careful) == before_sat
        await net.mine()
    assert await look(net, careful) is None
    await assert_settled(careful)
    movement = await the_movement(careful)
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert "was double-spent" in str(movement.metadata["error"])
    assert await careful.spendable_sat() == before_sat
    assert await onchain_sat(bob) == 0


async def test_a_double_spend_that_a_reorg_undoes_was_none(net: Net, careful: Owner, bob: Owner) -> None:
    result = await careful.wallet.offboards.offboard_all(await target_of(bob))
    tx = net.devnet.node.pool.get(result.offboard_txid)
    assert tx is not None
    conflict = await net.devnet.ark_server.double_spend(result.offboard_txid)
    await net.devnet.node.mine_exactly([conflict])
    state = await look(net, careful)
    assert isinstance(state, Confirming)
    assert state.trouble is not None
    await net.devnet.node.reorg(1, transactions=[tx.tx])
    assert await look(net, careful) is None  # two blocks replaced the one
    await assert_left_once(net, careful, bob)


async def test_an_earlier_transaction_of_the_same_offboard_pays_as_well(
    net: Net, careful: Owner, bob: Owner
) -> None:
    """A session was lost, another was opened with the same coins; then the first transaction is mined."""
    net.fault("offboard.broadcast", stage="engine", kind="swallow", count=None)
    net.fault("FinishOffboard", stage="after-commit", kind="drop")
    with pytest.raises(ServerError):
        await careful.wallet.offboards.offboard_all(await target_of(bob))
    await net.restart_ark_server()
    await careful.wallet.offboards.drive_all()
    state = await state_of(careful)
    assert isinstance(state, Preparing)
    net.honest()
    await net.devnet.ark_server.offboards.broadcast_pending()
    await net.mine(2)
    while await look(net, careful) is not None:
        await net.mine()
    await assert_left_once(net, careful, bob)


# --- what is refused at once


async def test_what_cannot_leave_is_refused_and_leaves_no_trace(net: Net, alice: Owner, bob: Owner) -> None:
    offboards = alice.wallet.offboards
    target = await target_of(bob)
    (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
    with pytest.raises(DuplicateOffboardInput):
        await offboards.offboard([vtxo.id, vtxo.id], target)
    with pytest.raises(OffboardLeavesDust):
        await offboards.offboard([], target)
    with pytest.raises(OffboardLeavesDust):
        await bob.wallet.offboards.offboard_all(target)
    for amount_sat in (0, 329):
        with pytest.raises(SendBelowDust):
            await offboards.send(amount_sat, target)
    await alice.wallet.send_arkoor(await alice.wallet.new_address(), 1_000)
    await alice.wallet.sync_mailbox()
    (small,) = [each for each in await alice.wallet.list_vtxos(include_all=False) if each.amount_sat == 1_000]
    with pytest.raises(OffboardLeavesDust):
        await offboards.offboard([small.id], target)
    assert await alice.movements(OFFBOARD) == await alice.movements(SEND_ONCHAIN) == []
    await assert_settled(alice)


@pytest.mark.parametrize("script", [P2A_SCRIPT, b"\x52\x20" + bytes(32), b"\x51"])
async def test_nothing_is_split_for_a_script_that_the_server_would_not_pay_to(
    alice: Owner, script: bytes
) -> None:
    target = OffboardTarget("there", script)
    liars = between_offboards(alice)
    before = [vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=True)]
    with pytest.raises(OffboardRequestInvalid, match="non-standard"):
        await alice.wallet.offboards.send(10_000, target)
    with pytest.raises(OffboardRequestInvalid, match="non-standard"):
        await alice.wallet.offboards.offboard_all(target)
    assert liars.server.calls["prepare_offboard"] == 0
    assert [vtxo.id for vtxo in await alice.wallet.list_vtxos(include_all=True)] == before
    assert await alice.movements(OFFBOARD) == await alice.movements(SEND_ONCHAIN) == []


async def test_a_split_into_more_than_may_leave_at_once_is_not_begun(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """Dust that is left over makes two VTXOs of what leaves, out of one input."""
    net.fault(
        "GetArkInfo",
        stage="reply",
        kind="mutate",
        path="max_offboard_inputs",
        mutation="set",
        value=1,
        count=None,
    )
    await alice.restart()
    offboards, target = alice.wallet.offboards, await target_of(bob)
    (vtxo,) = await alice.wallet.list_vtxos(include_all=False)
    amount_sat = vtxo.amount_sat - 5_000
    estimate = await offboards.estimate_send(amount_sat, target.script_pubkey)
    amount_sat += 5_000 - estimate.fee_sat - 100
    with pytest.raises(TooManyOffboardInputs):
        await offboards.send(amount_sat, target)
    await assert_settled(alice)
    assert await alice.movements(SEND_ONCHAIN) == []
    await offboards.send(amount_sat - 1_000, target)


async def test_a_locked_vtxo_does_not_leave_twice(net: Net, careful: Owner, bob: Owner) -> None:
    (vtxo,) = await careful.wallet.list_vtxos(include_all=False)
    await careful.wallet.offboards.offboard([vtxo.id], await target_of(bob))
    with pytest.raises(StateConflict) as refused:
        await careful.wallet.offboards.offboard([vtxo.id], await target_of(bob))
    assert isinstance(refused.value, CannotLock)
    assert len(await careful.movements(OFFBOARD)) == 1


async def test_a_call_that_cannot_end_says_where_it_is(net: Net, alice: Owner, bob: Owner) -> None:
    net.fault(
        "FinishOffboard", kind="error", code="INVALID_ARGUMENT", text="unknown offboard txid", count=None
    )
    with pytest.raises(OffboardPending, match=r"parked in ReadyForOffboard\); it remains pending"):
        await alice.wallet.offboards.offboard_all(await target_of(bob))
    net.honest()
    await alice.wallet.offboards.drive_all()
    await assert_left_once(net, alice, bob)
