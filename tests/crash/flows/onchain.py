"""Off Ark and on the chain: offboards, exits, claims, on-chain payments."""

from tests.crash.books import EXIT_DELTA
from tests.crash.flows.flow import Act, Flow, count_of
from tests.crash.world import World
from tests.support.processes import eventually

ONCHAIN_SAT = 20_000


async def _offboard(world: World) -> Act:
    vtxo_id = await world.spare_vtxo()

    async def act() -> None:
        await world.victim.post("/wallet/offboard/vtxos", {"vtxos": [vtxo_id]})

    return act


async def _send_onchain(world: World) -> Act:
    address = (await world.peer.post("/onchain/addresses/next"))["address"]

    async def act() -> None:
        await world.victim.post("/wallet/send-onchain", {"destination": address, "amount_sat": ONCHAIN_SAT})

    return act


async def _exit(world: World) -> Act:
    vtxo_id = await world.board()

    async def act() -> None:
        await world.victim.post("/exits/start/vtxos", {"vtxos": [vtxo_id]})
        await world.victim.post("/exits/progress")
        await world.devnet.mine()
        await world.victim.post("/exits/progress")

    return act


async def _claim(world: World) -> Act:
    vtxo_id = await world.board()
    await world.victim.post("/exits/start/vtxos", {"vtxos": [vtxo_id]})

    async def progressed() -> str:
        await world.victim.post("/exits/progress")
        kind = str((await world.victim.get(f"/exits/status/{vtxo_id}"))["state"]["type"])
        if kind != "claimable":
            await world.devnet.mine(EXIT_DELTA if kind == "awaiting-delta" else 1)
        return kind

    await eventually(progressed, lambda kind: kind == "claimable")
    address = (await world.victim.post("/onchain/addresses/next"))["address"]

    async def act() -> None:
        await world.victim.post("/exits/claim/all", {"destination": address})

    return act


async def _exits(world: World) -> int:
    """Each exit was claimed by one transaction, and paid for by one child per exit transaction."""
    exits = await world.history("start")
    transactions = await world.victim.get("/onchain/transactions")
    for movement in exits:
        (vtxo_id,) = movement["exited_vtxos"] or movement["input_vtxos"]
        txid, vout = vtxo_id.split(":")
        outpoint = bytes.fromhex(txid)[::-1].hex() + int(vout).to_bytes(4, "little").hex()
        assert sum(outpoint in tx["tx"] for tx in transactions) == 1, vtxo_id
    return len(exits)


async def _onchain_send(world: World) -> Act:
    address = (await world.peer.post("/onchain/addresses/next"))["address"]

    async def act() -> None:
        await world.victim.post("/onchain/send", {"destination": address, "amount_sat": ONCHAIN_SAT + 1})

    return act


async def _onchain_sends(world: World) -> int:
    transactions = await world.peer.get("/onchain/transactions")
    return sum(tx["balance_change_sat"] == ONCHAIN_SAT + 1 for tx in transactions)


FLOWS = (
    Flow("offboard", _offboard, count_of("offboard"), ("PrepareOffboard", "FinishOffboard")),
    Flow(
        "send on-chain",
        _send_onchain,
        count_of("send_onchain"),
        ("RequestArkoorCosign", "PrepareOffboard", "FinishOffboard"),
    ),
    Flow("exit", _exit, _exits, ("POST /txs",)),
    Flow("claim", _claim, _exits, ("POST /tx",), may_not_happen=False),
    Flow("on-chain send", _onchain_send, _onchain_sends, ("POST /tx",)),
)
