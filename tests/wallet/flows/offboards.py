"""What tests of offboards share."""

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.units import Network
from barkd_py.wallet.offboards.terms import OffboardTarget
from barkd_py.wallet.vtxo_states import StateKind
from tests.wallet.flows.conftest import Owner

SESSION_SECS = 600.0
"""How long the server remembers what it has proposed, by its own clock; no machine is too slow for that."""


async def target_of(owner: Owner) -> OffboardTarget:
    """A new on-chain address of the owner."""
    assert owner.wallet.onchain is not None
    address = await owner.wallet.onchain.next_address()
    return OffboardTarget(address, parse_address(address, Network.REGTEST))


async def onchain_sat(owner: Owner) -> int:
    assert owner.wallet.onchain is not None
    await owner.wallet.onchain.sync()
    return (await owner.wallet.onchain.balance()).total_sat


async def wealth_sat(owner: Owner) -> int:
    """What the wallet has in Ark, and what it ever paid for anything there."""
    paid = sum(movement.offchain_fee_sat for movement in await owner.wallet.list_movements())
    return (await owner.wallet.balance()).total_sat + paid


async def assert_settled(owner: Owner) -> None:
    """No action is left, and nothing is locked."""
    async with owner.wallet.store.read() as tx:
        assert await tx.actions.list() == ()
        assert await tx.vtxos.list([StateKind.LOCKED]) == ()
