"""Claims that nobody asked for."""

from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.wallet.exits.claims.homeward import HomewardClaims
from barkd_py.wallet.exits.costs.worth import MAX_AUTOMATIC_FEE_RATE
from tests.wallet.exits.conftest import World


async def test_a_chain_source_that_exaggerates_does_not_turn_a_claim_into_fees(world: World) -> None:
    await world.fund(50_000, 50_000)
    vtxo = await world.mint.board(2_000_000)
    await world.hold(vtxo)
    await world.exits.start([vtxo.id])
    await world.until_claimable(vtxo.id)
    await world.onchain.sync()
    before_sat = (await world.onchain.balance()).total_sat
    await world.set_rates(FeeRate.from_sat_per_vb(10_000))
    claims = HomewardClaims(world.exits.claim, world.chain, world.onchain, world.keychain, Network.REGTEST)
    await claims.claim([vtxo.id])
    await world.mine()
    await world.onchain.sync()
    received_sat = (await world.onchain.balance()).total_sat - before_sat
    assert 2_000_000 - received_sat <= MAX_AUTOMATIC_FEE_RATE.fee_wu(800)
