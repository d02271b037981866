"""An offboard whose transaction nobody has any more, while its inputs go to the chain by themselves."""

from collections.abc import AsyncIterator

import pytest

from barkd_py.bitcoin.address import parse_address
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.wallet.conflicts import FINAL_CONFIRMATIONS
from barkd_py.wallet.movements import EXIT_START, OFFBOARD, MovementStatus, Subsystem
from barkd_py.wallet.offboards.states import FORMAT, Confirming
from barkd_py.wallet.vtxo_states import StateKind
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.liar import between_offboards
from tests.wallet.flows.offboards import target_of


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


async def mine(net: Net, owner: Owner) -> None:
    """A block, and what the daemon does about exits with it."""
    await net.mine()
    await owner.wallet.chain.fetch_tip()
    await owner.wallet.exits.tick()


async def offboard_of(owner: Owner) -> Confirming | None:
    """After a look at the chain; None if there is none any more."""
    await owner.wallet.chain.fetch_tip()
    await owner.wallet.offboards.drive_all()
    async with owner.wallet.store.read() as tx:
        rows = await tx.actions.list()
    if not rows:
        return None
    state = FORMAT.decode(rows[0].payload)
    assert isinstance(state, Confirming)
    return state


async def left(owner: Owner) -> dict[Subsystem, tuple[MovementStatus, int]]:
    """What left by an offboard or an exit, as the history has it."""
    return {
        each.subsystem: (each.status, each.effective_balance_sat)
        for each in await owner.wallet.list_movements()
        if each.subsystem in (OFFBOARD, EXIT_START)
    }


async def test_it_is_over_when_claims_of_ours_are_deep(net: Net, carol: Owner, bob: Owner) -> None:
    """No forfeit can take what it was to take; the money has left once, with the exit."""
    now = [1_000.0]
    liars = between_offboards(carol, now=lambda: now[0])
    (held,) = await carol.wallet.list_vtxos(include_all=False)
    result = await carol.wallet.offboards.offboard_all(await target_of(bob))
    net.devnet.ark_server.treasury.withhold(result.offboard_txid)
    await net.devnet.node.evict(result.offboard_txid)

    async def refuse(_: object) -> None:
        raise BroadcastError(BroadcastErrorKind.LOW_FEE, "min relay fee not met")

    liars.chain.answers["broadcast"] = refuse
    now[0] += carol.wallet.config.offboard_lost_tx_grace_period_secs + 1
    await carol.wallet.exits.start([held.id])
    while (await carol.wallet.exits.status(held.id)).state.type != "claimable":
        await mine(net, carol)
        assert await offboard_of(carol) is not None
    assert carol.wallet.onchain is not None
    script = parse_address(await carol.wallet.onchain.next_address(), carol.wallet.network)
    claim_txid = await carol.wallet.exits.claim([held.id], script)
    lost: Confirming | None = None
    for _ in range(FINAL_CONFIRMATIONS):
        lost = await offboard_of(carol)
        assert lost is not None
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
    assert lost is not None
    await net.devnet.node.mine_exactly([lost.tx])  # the server pays twice
    await mine(net, carol)
    assert await offboard_of(carol) is None
    assert await left(carol) == history
    assert (await carol.wallet.balance()).total_sat == 0
