"""Off Ark and on the chain: offboards, exits, claims, on-chain payments."""

from barkd_py.ark.genesis import ArkoorTransition, GenesisItem
from barkd_py.ark.vtxo import Vtxo
from barkd_py.wallet.exits.forced.watch import patience_blocks
from tests.crash.books import EXIT_DELTA
from tests.crash.flows.flow import Act, Flow, ark_address, count_of
from tests.crash.world import World
from tests.support.processes import eventually

ONCHAIN_SAT = 20_000
PAID_SAT = 40_000
HURRIED_SAT_PER_KVB = 30_000


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


async def _replacement(world: World) -> Act:
    """The child that pays for an exit transaction waits in the mempool, and somebody is in a hurry."""
    vtxo_id = await world.board()
    await world.victim.post("/exits/start/vtxos", {"vtxos": [vtxo_id]})
    await world.victim.post("/exits/progress")

    async def act() -> None:
        await world.victim.post("/exits/progress", {"fee_rate": HURRIED_SAT_PER_KVB})
        await world.devnet.mine()
        await world.victim.post("/exits/progress")

    return act


async def _deep_exit(world: World) -> Act:
    """Out of a round's tree, then paid on: several transactions, one after the other."""
    vtxo_id = await _paid_by_peer(world)

    async def act() -> None:
        await world.victim.post("/exits/start/vtxos", {"vtxos": [vtxo_id]})
        await _until_awaiting_delta(world, vtxo_id)

    return act


async def _forced_exit(world: World) -> Act:
    """The peer publishes what it has paid with, and so could take it back an exit delta later."""
    vtxo_id = await _paid_by_peer(world)
    vtxo = Vtxo.decode_hex((await world.victim.get(f"/wallet/vtxos/{vtxo_id}/encoded"))["encoded"])
    spent = [
        tx for tx, item in zip(vtxo.exit_transactions(), vtxo.genesis, strict=True) if not _is_arkoor(item)
    ]
    await world.start_with(daemon_sync_interval_secs=1)
    world.forced = vtxo_id

    async def act() -> None:
        for tx in spent:
            await world.devnet.pull("/cpfp", transaction=tx.serialize().hex())
            await world.devnet.mine()
        await world.devnet.mine(patience_blocks(EXIT_DELTA))
        await _until_noticed(world)
        await _until_awaiting_delta(world, vtxo_id)

    return act


def _is_arkoor(item: GenesisItem) -> bool:
    return isinstance(item.transition, ArkoorTransition)


async def _until_noticed(world: World) -> None:
    async def status() -> int:
        return (await world.victim.http.get(f"/exits/status/{world.forced}")).status_code

    await eventually(status, lambda code: code == 200)


async def _noticed_with_a_block(world: World) -> None:
    """The chain is looked at once for each; who was lied to looks again at the next."""
    await world.devnet.mine()
    await _until_noticed(world)


async def _paid_by_peer(world: World) -> str:
    """A VTXO of the victim's, paid with one that the peer has out of a round."""
    await world.refresh_peer()
    known = {each["id"] for each in await world.victim.get("/wallet/vtxos")}
    address = await ark_address(world.victim)
    await world.peer.post("/wallet/send", {"destination": address, "amount_sat": PAID_SAT})

    async def new() -> list[str]:
        await world.victim.post("/wallet/sync/mailbox")
        return [each["id"] for each in await world.victim.get("/wallet/vtxos") if each["id"] not in known]

    (vtxo_id,) = await eventually(new, bool)
    return vtxo_id


async def _until_awaiting_delta(world: World, vtxo_id: str) -> None:
    async def progressed() -> str:
        await world.victim.post("/exits/progress")
        kind = str((await world.victim.get(f"/exits/status/{vtxo_id}"))["state"]["type"])
        if kind != "awaiting-delta":
            await world.devnet.mine()
        return kind

    await eventually(progressed, lambda kind: kind == "awaiting-delta")


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
    Flow("replacement of an exit's child", _replacement, _exits, ("POST /txs",), may_not_happen=False),
    Flow("exit of a deep VTXO", _deep_exit, _exits, ("POST /txs",), takes_long=True),
    Flow(
        "forced exit",
        _forced_exit,
        _exits,
        ("POST /txs",),
        may_not_happen=False,
        again=_noticed_with_a_block,
        takes_long=True,
    ),
    Flow("claim", _claim, _exits, ("POST /tx",), may_not_happen=False),
    Flow("on-chain send", _onchain_send, _onchain_sends, ("POST /tx",)),
)
