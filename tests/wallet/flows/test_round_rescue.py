"""A server that holds a round and never ends it: the inputs get to the chain, or the new VTXOs to us."""

import pytest

from barkd_py.ark.rounds import HarkForfeit
from barkd_py.bitcoin.tx import OutPoint
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.wallet.exits.states import AwaitingDelta, Claimable, Claimed, ExitFilter, VtxoAlreadySpent
from barkd_py.wallet.movements import EXIT_START, Movement, MovementStatus
from barkd_py.wallet.round_rescue import exit_heights
from barkd_py.wallet.rounds.states import Issued
from barkd_py.wallet.vtxo_states import StateKind
from barkd_py.wallet.wiring import make_claims
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.lightning import Outside
from tests.wallet.flows.rounds import assert_nothing_stuck, hold_round, refreshes, settle, stored_rounds
from tests.wallet.flows.test_exits import mined_fee_sat, own_children, own_fees_sat, total_sat

MARGIN = 12
EXIT_DELTA = 12


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(
        round_interval_secs=3600,
        round_submit_secs=60,
        round_sign_secs=60,
        vtxo_lifetime=70,
        vtxo_exit_delta=EXIT_DELTA,
    )


async def look(owner: Owner) -> None:
    """What the daemon does with a block."""
    await owner.wallet.chain.fetch_tip()
    await owner.wallet.rounds.sync()
    await owner.wallet.exits.tick()


async def pass_blocks(net: Net, owner: Owner, count: int) -> None:
    for _ in range(count):
        await net.mine()
        await look(owner)


async def forfeited(net: Net, owner: Owner, *, stage: str = "after-commit") -> Issued:
    """The only VTXO was forfeited, and the server says nothing more."""
    net.fault("ForfeitVtxos", stage=stage, kind="error", code="INTERNAL", count=None)
    await owner.wallet.rounds.refresh_all()
    await hold_round(net, owner)
    await settle(net, owner)
    (state,) = await stored_rounds(owner)
    assert isinstance(state, Issued)
    assert state.forfeits_sent
    return state


async def exit_height(owner: Owner, state: Issued) -> int:
    (old,) = await owner.wallet.list_vtxos(include_all=False)
    return exit_heights(state, [old], MARGIN)[old.id]


async def wait_for_exit(net: Net, owner: Owner, state: Issued, *, is_published: bool = True) -> None:
    """Until the block in which the exit starts by itself."""
    height = await exit_height(owner, state)
    await net.mine(height - 1 - net.devnet.node.index.tip_height)
    await look(owner)
    assert await owner.wallet.exits.statuses(ExitFilter.ALL) == []
    await net.mine()
    await owner.wallet.chain.fetch_tip()
    await owner.wallet.rounds.sync()
    assert len(await owner.wallet.exits.statuses(ExitFilter.LIVE)) == 1
    if is_published:
        await owner.wallet.exits.tick()


async def exit_movement(owner: Owner) -> Movement:
    (movement,) = await owner.movements(EXIT_START)
    return movement


async def told_sat(owner: Owner) -> int:
    """What the balance has to be, going by the history."""
    return sum(each.effective_balance_sat for each in await owner.wallet.list_movements())


async def parked_sat(owner: Owner) -> int:
    """What is in the anchors of all that the wallet has: it goes to whoever pays for the exits."""
    async with owner.wallet.store.read() as tx:
        vtxos = await tx.vtxos.bodies([vtxo.id for vtxo in await tx.vtxos.list()])
    return sum(tx.outputs[-1].value_sat for vtxo in vtxos for tx in vtxo.exit_transactions())


async def assert_came_back(net: Net, owner: Owner, before_sat: int, fees_sat: int) -> None:
    """To the chain: all but what it costs. before_sat: with what is parked."""
    await assert_nothing_stuck(owner)
    (refresh,) = await refreshes(owner)
    assert (refresh.status, refresh.effective_balance_sat) == (MovementStatus.FAILED, 0)
    assert "taken back on the chain" in str(refresh.metadata["error"])
    assert (await owner.wallet.balance()).total_sat == await told_sat(owner) == 0
    assert await total_sat(owner) == before_sat - fees_sat


async def assert_swapped(owner: Owner, before_sat: int) -> None:
    """The new VTXO is there, for the fee of the refresh."""
    (refresh,) = await refreshes(owner)
    assert refresh.status is MovementStatus.SUCCESSFUL
    (new,) = await owner.wallet.list_vtxos(include_all=False)
    assert new.state.kind is StateKind.SPENDABLE
    assert new.amount_sat == before_sat - refresh.offchain_fee_sat
    assert await stored_rounds(owner) == []


@pytest.mark.parametrize("stage", ["after-commit", "before"])
async def test_a_server_that_says_nothing_for_ever(net: Net, alice: Owner, stage: str) -> None:
    """Whether it has the forfeits or not. The daemon is restarted in between, and needs nobody's help."""
    await alice.fund_onchain(30_000)
    state = await forfeited(net, alice, stage=stage)
    before_sat = await total_sat(alice) + await parked_sat(alice)
    await wait_for_exit(net, alice, state)
    await pass_blocks(net, alice, 2)
    await alice.restart()
    await pass_blocks(net, alice, EXIT_DELTA + 1)
    (status,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
    assert isinstance(status.state, Claimed)
    assert len(await stored_rounds(alice)) == 1  # a reorganisation could still undo it
    await alice.restart()
    await pass_blocks(net, alice, 6)
    assert (await exit_movement(alice)).status is MovementStatus.SUCCESSFUL
    await assert_came_back(net, alice, before_sat, await own_fees_sat(net, alice.wallet, (status.vtxo_id,)))


@pytest.mark.parametrize("is_published", [False, True])
async def test_the_preimage_comes_before_the_input_is_on_the_chain(
    net: Net, alice: Owner, is_published: bool
) -> None:
    """The exit ends, and the history says that it took nothing; what was published of it does not matter."""
    before_sat = await alice.spendable_sat()
    state = await forfeited(net, alice)
    await wait_for_exit(net, alice, state, is_published=is_published)
    net.honest()
    await alice.restart()
    await look(alice)
    await assert_swapped(alice, before_sat)
    (status,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
    assert isinstance(status.state, VtxoAlreadySpent)
    assert len(net.devnet.node.pool) == (2 if is_published else 0)
    movement = await exit_movement(alice)
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.CANCELED, 0)
    assert await alice.spendable_sat() == (await alice.wallet.balance()).total_sat == await told_sat(alice)
    await assert_nothing_stuck(alice)


async def on_chain(net: Net, owner: Owner, state: Issued) -> None:
    """The input is."""
    await wait_for_exit(net, owner, state)
    await pass_blocks(net, owner, 1)
    (status,) = await owner.wallet.exits.statuses(ExitFilter.ALL)
    assert isinstance(status.state, AwaitingDelta)


@pytest.mark.parametrize(("where", "is_restarted"), [("mempool", True), ("block", False)])
async def test_the_server_takes_the_forfeit_and_so_shows_the_preimage(
    net: Net, alice: Owner, where: str, is_restarted: bool
) -> None:
    before_sat = await alice.spendable_sat()
    await alice.fund_onchain(30_000)
    state = await forfeited(net, alice)
    await on_chain(net, alice, state)
    outside = Outside(net)
    await pass_blocks(net, alice, 2)
    await outside.sweep()  # the forfeit
    await pass_blocks(net, alice, 1)
    assert len(await stored_rounds(alice)) == 1
    await outside.sweep()  # its output, with the preimage
    if where == "block":
        await net.mine()
    if is_restarted:
        await alice.restart()
    await look(alice)
    await assert_swapped(alice, before_sat)
    await pass_blocks(net, alice, EXIT_DELTA)
    (status,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
    assert isinstance(status.state, Claimed)
    movement = await exit_movement(alice)
    assert movement.status is MovementStatus.FAILED
    assert "somebody else" in str(movement.metadata["error"])
    assert await alice.spendable_sat() == (await alice.wallet.balance()).total_sat == await told_sat(alice)
    await assert_nothing_stuck(alice)


async def test_a_forfeit_that_the_server_leaves_lying_is_ours_again(net: Net, alice: Owner) -> None:
    """It keeps the preimage until the new VTXO has expired, or would like to."""
    await alice.fund_onchain(30_000)
    state = await forfeited(net, alice)
    before_sat = await total_sat(alice) + await parked_sat(alice)
    await on_chain(net, alice, state)
    await pass_blocks(net, alice, EXIT_DELTA - 3)
    await Outside(net).sweep()
    await pass_blocks(net, alice, EXIT_DELTA)
    await alice.restart()
    assert len(await stored_rounds(alice)) == 1
    assert alice.wallet.onchain is not None
    await alice.wallet.onchain.sync()
    await pass_blocks(net, alice, 8)
    (vtxo_id,) = [status.vtxo_id for status in await alice.wallet.exits.statuses(ExitFilter.ALL)]
    fees_sat = sum([mined_fee_sat(net, txid) for txid in await own_children(alice.wallet, (vtxo_id,))])
    async with alice.wallet.store.read() as tx:
        (old,) = await tx.vtxos.bodies([vtxo_id])
    forfeit = HarkForfeit(old, state.unlock_hash).tx
    claim = await alice.wallet.chain.spender(OutPoint(forfeit.txid, 0), since_height=1)
    assert claim is not None
    await assert_came_back(net, alice, before_sat, fees_sat + mined_fee_sat(net, claim.txid))
    assert net.devnet.node.index.tip_height < min(vtxo.expiry_height for vtxo in state.vtxos) - MARGIN


async def test_the_preimage_comes_when_the_input_is_on_the_chain(net: Net, alice: Owner) -> None:
    """The server has paid for the input; it takes it with the forfeit, whenever it looks."""
    before_sat = await alice.spendable_sat()
    await alice.fund_onchain(30_000)
    state = await forfeited(net, alice)
    await on_chain(net, alice, state)
    net.honest()
    await look(alice)
    await assert_swapped(alice, before_sat)
    outside = Outside(net)
    for _ in range(EXIT_DELTA + 2):
        await pass_blocks(net, alice, 1)
        await outside.sweep()
    (status,) = await alice.wallet.exits.statuses(ExitFilter.ALL)
    assert isinstance(status.state, Claimed)
    assert (await exit_movement(alice)).status is MovementStatus.FAILED
    assert (await alice.wallet.balance()).total_sat == await told_sat(alice)


async def test_an_exit_that_is_called_off_is_not_started_again(net: Net, alice: Owner) -> None:
    state = await forfeited(net, alice)
    await wait_for_exit(net, alice, state, is_published=False)
    (status,) = await alice.wallet.exits.statuses(ExitFilter.LIVE)
    await alice.wallet.exits.cancel(status.vtxo_id)
    await pass_blocks(net, alice, 3)
    assert await alice.wallet.exits.statuses(ExitFilter.LIVE) == []
    assert (await alice.wallet.balance()).pending_in_round_sat > 0


async def test_inputs_that_were_not_forfeited_leave_in_time_as_well(net: Net) -> None:
    """The server has them as spent, and never signs the leaves. They are claimed when somebody wants to, and
    from then on not forfeited any more.
    """
    async with net.wallet("carol") as carol:
        await carol.board(100_000)
        await carol.fund_onchain(30_000)
        before_sat = await total_sat(carol) + await parked_sat(carol)
        net.fault("RequestLeafVtxoCosign", kind="error", code="INTERNAL", count=None)
        await carol.wallet.rounds.refresh_all()
        await hold_round(net, carol)
        await settle(net, carol)
        (state,) = await stored_rounds(carol)
        assert isinstance(state, Issued)
        assert not state.forfeits_sent
        await wait_for_exit(net, carol, state)
        await pass_blocks(net, carol, EXIT_DELTA + 4)
        (status,) = await carol.wallet.exits.statuses(ExitFilter.ALL)
        assert isinstance(status.state, Claimable)
        await make_claims(carol.wallet._base, carol.wallet.exits).claim([status.vtxo_id])
        net.honest()
        await pass_blocks(net, carol, 7)
        await assert_came_back(
            net, carol, before_sat, await own_fees_sat(net, carol.wallet, (status.vtxo_id,))
        )
