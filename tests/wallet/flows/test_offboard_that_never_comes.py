"""An offboard whose transaction nobody has any more, while its inputs go to the chain by themselves."""

from collections.abc import AsyncIterator, Sequence

import pytest

from barkd_py.ark.deadlines import exit_start_height
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import Txid
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import BarkdError, ServerError
from barkd_py.wallet.conflicts import FINAL_CONFIRMATIONS
from barkd_py.wallet.movements import EXIT_START, OFFBOARD, SEND_ONCHAIN, MovementStatus, Subsystem
from barkd_py.wallet.offboards.states import FORMAT, Confirming, Prepared, Preparing, Registering, State
from barkd_py.wallet.vtxo_states import StateKind
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.liar import Lost, between_offboards
from tests.wallet.flows.offboards import assert_settled, onchain_sat, target_of
from tests.wallet.flows.test_exits import exit_ids


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(vtxo_lifetime=90)


@pytest.fixture
async def carol(net: Net) -> AsyncIterator[Owner]:
    """Has one VTXO, and coins that pay for an exit."""
    async with net.wallet("carol", offboard_required_confirmations=2) as owner:
        await owner.board(100_000)
        await owner.wallet.registration.catch_up()
        for _ in range(3):
            await owner.fund_onchain(30_000)
        yield owner


async def refuse(_: object) -> None:
    raise BroadcastError(BroadcastErrorKind.LOW_FEE, "min relay fee not met")


async def be_silent(*_: object) -> None:
    raise Lost


async def mine(net: Net, owner: Owner) -> None:
    """A block, and what the daemon does about exits with it."""
    await net.mine()
    await owner.wallet.chain.fetch_tip()
    await owner.wallet.exits.tick()


async def offboard_of(owner: Owner) -> State | None:
    """After a look at the chain; None if there is none any more."""
    await owner.wallet.chain.fetch_tip()
    await owner.wallet.offboards.drive_all()
    async with owner.wallet.store.read() as tx:
        rows = await tx.actions.list()
    return FORMAT.decode(rows[0].payload) if rows else None


async def left(owner: Owner) -> dict[Subsystem, tuple[MovementStatus, int]]:
    """What left by an offboard or an exit, as the history has it."""
    return {
        each.subsystem: (each.status, each.effective_balance_sat)
        for each in await owner.wallet.list_movements()
        if each.subsystem in (OFFBOARD, SEND_ONCHAIN, EXIT_START)
    }


async def told_sat(owner: Owner) -> int:
    return sum(each.effective_balance_sat for each in await owner.wallet.list_movements())


async def until_claimable(net: Net, owner: Owner, vtxo_ids: Sequence[VtxoId]) -> None:
    while {(await owner.wallet.exits.status(each)).state.type for each in vtxo_ids} != {"claimable"}:
        await mine(net, owner)


async def claim_all(owner: Owner, vtxo_ids: Sequence[VtxoId]) -> Txid:
    assert owner.wallet.onchain is not None
    script = parse_address(await owner.wallet.onchain.next_address(), owner.wallet.network)
    return await owner.wallet.exits.claim(vtxo_ids, script)


async def test_it_is_over_when_claims_of_ours_are_deep(net: Net, carol: Owner, bob: Owner) -> None:
    """No forfeit can take what it was to take; the money has left once, with the exit."""
    now = [1_000.0]
    liars = between_offboards(carol, now=lambda: now[0])
    (held,) = await carol.wallet.list_vtxos(include_all=False)
    result = await carol.wallet.offboards.offboard_all(await target_of(bob))
    net.devnet.ark_server.treasury.withhold(result.offboard_txid)
    await net.devnet.node.evict(result.offboard_txid)
    liars.chain.answers["broadcast"] = refuse
    now[0] += carol.wallet.config.offboard_lost_tx_grace_period_secs + 1
    await carol.wallet.exits.start([held.id])
    await until_claimable(net, carol, [held.id])
    claim_txid = await claim_all(carol, [held.id])
    lost: State | None = None
    for _ in range(FINAL_CONFIRMATIONS):
        lost = await offboard_of(carol)
        assert isinstance(lost, Confirming)
        assert "for a long time" in str(lost.trouble)
        await mine(net, carol)
    async with carol.wallet.store.transaction() as tx:  # as if another wallet had made it
        claim = await tx.exits.find_claim(claim_txid)
        assert claim is not None
        await tx.exits.delete_claim(claim_txid)
    assert await offboard_of(carol) is not None
    async with carol.wallet.store.transaction() as tx:
        await tx.exits.save_claim(claim)
    assert await offboard_of(carol) is None
    history = {
        OFFBOARD: (MovementStatus.FAILED, 0),
        EXIT_START: (MovementStatus.SUCCESSFUL, -held.amount_sat),
    }
    assert await left(carol) == history
    assert (await carol.wallet.balance()).total_sat == 0
    assert (await carol.wallet.get_vtxo(held.id)).state.kind is StateKind.EXITED
    assert isinstance(lost, Confirming)
    await net.devnet.node.mine_exactly([lost.tx])  # the server pays twice
    await mine(net, carol)
    assert await offboard_of(carol) is None
    assert await left(carol) == history
    assert (await carol.wallet.balance()).total_sat == 0


@pytest.mark.parametrize("lost", [Preparing, Prepared])
async def test_it_is_over_too_where_the_server_keeps_its_transaction(
    net: Net, carol: Owner, bob: Owner, lost: type[State]
) -> None:
    """It has the forfeits, and refuses, or is silent for ever. The transaction that we have is not signed."""
    liars = between_offboards(carol)
    (held,) = await carol.wallet.list_vtxos(include_all=False)
    if lost is Preparing:
        net.fault("FinishOffboard", kind="error", code="INVALID_ARGUMENT", text="unknown offboard txid")
        net.fault("PrepareOffboard", kind="error", code="INVALID_ARGUMENT", text="no", skip=1, count=None)
    else:
        liars.server.answers["finish_offboard"] = be_silent
    with pytest.raises(ServerError):
        await carol.wallet.offboards.offboard_all(await target_of(bob))
    height = exit_start_height(held, carol.wallet.config.vtxo_exit_margin)
    await net.mine(height - 2 - net.devnet.node.index.tip_height)
    await mine(net, carol)
    assert await exit_ids(carol.wallet) == []
    await mine(net, carol)
    assert await exit_ids(carol.wallet) == [held.id]  # nobody has asked for it
    await until_claimable(net, carol, [held.id])
    await claim_all(carol, [held.id])
    for _ in range(FINAL_CONFIRMATIONS):
        assert type(await offboard_of(carol)) is lost
        assert (await left(carol))[OFFBOARD][0] is MovementStatus.PENDING
        await mine(net, carol)
    assert await offboard_of(carol) is None
    assert await left(carol) == {
        OFFBOARD: (MovementStatus.FAILED, 0),
        EXIT_START: (MovementStatus.SUCCESSFUL, -held.amount_sat),
    }
    assert await told_sat(carol) == (await carol.wallet.balance()).total_sat == 0


async def test_a_transaction_that_is_in_a_block_has_paid_whatever_the_server_says(
    net: Net, carol: Owner, bob: Owner
) -> None:
    """The server took the forfeits, let the transaction out, and never answers again."""
    liars = between_offboards(carol)
    liars.server.lost["finish_offboard"] = 1_000
    (held,) = await carol.wallet.list_vtxos(include_all=False)
    with pytest.raises(ServerError):
        await carol.wallet.offboards.offboard_all(await target_of(bob))
    assert isinstance(await offboard_of(carol), Prepared)
    await net.mine()
    state = await offboard_of(carol)
    assert isinstance(state, Confirming)
    assert all(tx_in.witness for tx_in in state.tx.inputs), "so that it can be offered again"
    await net.mine()
    assert await offboard_of(carol) is None
    assert await left(carol) == {OFFBOARD: (MovementStatus.SUCCESSFUL, -held.amount_sat)}
    assert await told_sat(carol) == (await carol.wallet.balance()).total_sat == 0
    assert await onchain_sat(bob) > 0


async def test_a_split_that_the_server_does_not_take_is_over_once_it_has_left(
    net: Net, carol: Owner, bob: Owner
) -> None:
    """The server is gone before it has the chains of the split: nothing was forfeited."""
    liars = between_offboards(carol)

    async def take_nothing(vtxos: Sequence[Vtxo]) -> None:
        if vtxos:
            raise Lost

    liars.server.answers["register_vtxo_transactions"] = take_nothing
    before_sat = await carol.spendable_sat()
    with pytest.raises(BarkdError):
        await carol.wallet.offboards.send(30_000, await target_of(bob))
    state = await offboard_of(carol)
    assert isinstance(state, Registering)
    split = (*state.vtxo_ids, *state.change_ids)
    await carol.wallet.exits.start(split)
    while not all([(await carol.wallet.get_vtxo(each)).state.kind is StateKind.EXITED for each in split]):
        await mine(net, carol)
    assert await offboard_of(carol) is None
    await assert_settled(carol)
    assert (await left(carol))[SEND_ONCHAIN] == (MovementStatus.FAILED, 0)
    assert (await carol.wallet.balance()).pending_exit_sat == before_sat
    await until_claimable(net, carol, split)
    await claim_all(carol, split)
    await mine(net, carol)
    assert await told_sat(carol) == (await carol.wallet.balance()).total_sat == 0
