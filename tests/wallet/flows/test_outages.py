"""What a daemon goes on doing while its Ark server is away."""

from dataclasses import dataclass
from typing import Any

from barkd_py.chain.source import ChainSource, FeeRates
from barkd_py.daemon.loops import Daemon
from tests.wallet.flows.conftest import ALICE, Net, Owner

NOWHERE = "http://127.0.0.1:1"


@dataclass
class CountedChain:
    """The real chain source; counts how often it is asked for fee rates."""

    real: ChainSource
    asked: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def update_fee_rates(self, *, force: bool = False) -> FeeRates:
        self.asked += 1
        return await self.real.update_fee_rates(force=force)


async def test_fee_rates_are_followed_for_the_exits_that_may_be_needed(net: Net, alice: Owner) -> None:
    await alice.wallet.close()
    async with net.owner("alice", ALICE, server_address=NOWHERE) as offline:
        chain = CountedChain(offline.wallet.chain)
        offline.wallet.chain = chain
        daemon = Daemon(offline.wallet)
        assert not await daemon.heartbeat("as expected")
        await daemon.sync_once()
        assert (chain.asked, daemon.connected) == (1, False)
