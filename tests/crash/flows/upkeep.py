"""What nobody asks for: the daemon refreshes what expires soon.

In a world of its own, where VTXOs do not live long.
"""

from tests.crash.flows.flow import Act, Flow, count_of
from tests.crash.world import World, devnet_options
from tests.support.processes import eventually

# A daemon wants VTXOs to live for twice as long as it refreshes them before their end.
VTXO_LIFETIME = 600
THRESHOLD = VTXO_LIFETIME // 2 - 10
WELL_DUE = THRESHOLD - 5

_refreshes = count_of("refresh")


async def _refresh_unasked(world: World) -> Act:
    """All of the victim's VTXOs expire soon by its own standard, and a round begins. The peer's do not."""
    await world.refresh_peer()
    await world.start_with(vtxo_refresh_expiry_threshold=THRESHOLD, daemon_sync_interval_secs=1)
    expiry = min(each["expiry_height"] for each in await world.victim.get("/wallet/vtxos"))
    tip = (await world.victim.get("/bitcoin/tip"))["tip_height"]
    if expiry - tip > WELL_DUE:
        await world.devnet.mine(expiry - tip - WELL_DUE)
    await world.settle()
    done_before = await _refreshes(world)

    async def act() -> None:
        async def refreshed() -> int:
            await world.hold_round()
            await world.devnet.mine()
            await world.victim.post("/wallet/sync")
            return await _refreshes(world)

        await eventually(refreshed, lambda done: done > done_before)

    return act


FLOWS = (
    Flow(
        "automatic refresh",
        _refresh_unasked,
        _refreshes,
        ("SubmitPayment", "ProvideVtxoSignatures", "RequestLeafVtxoCosign", "ForfeitVtxos"),
        fails_once=True,
        devnet_options=devnet_options(VTXO_LIFETIME),
    ),
)
