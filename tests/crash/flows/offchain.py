"""Boards, payments between wallets, refreshes."""

from tests.crash.books import Json
from tests.crash.flows.flow import Act, Flow, ark_address, count_of, of_part
from tests.crash.world import World
from tests.support.processes import eventually

SEND_SAT = 1_234


async def _board(world: World) -> Act:
    async def act() -> None:
        await world.victim.post("/boards/board-amount", {"amount_sat": 30_000})
        await world.devnet.mine()
        await world.victim.post("/wallet/sync")

    return act


async def _send(world: World) -> Act:
    address = await ark_address(world.peer)

    async def act() -> None:
        await world.victim.post("/wallet/send", {"destination": address, "amount_sat": SEND_SAT})

    return act


async def _sends(world: World) -> int:
    """Whatever was sent has arrived, and nothing twice."""
    received = of_part("arkoor", await world.history("receive", of=world.peer))
    assert {each["effective_balance_sat"] for each in received} <= {SEND_SAT}
    sent = of_part("arkoor", await world.history("send"))
    assert len(sent) == len(received), (sent, received)
    return len(sent)


async def _receive(world: World) -> Act:
    address = await ark_address(world.victim)

    async def act() -> None:
        await world.peer.post("/wallet/send", {"destination": address, "amount_sat": SEND_SAT})
        await world.victim.post("/wallet/sync/mailbox")

    return act


async def _refresh(world: World) -> Act:
    vtxo_id = await world.spare_vtxo()

    async def act() -> None:
        await world.victim.post("/wallet/refresh/vtxos", {"vtxos": [vtxo_id]})
        await through_the_round(world)

    return act


async def _refresh_delegated(world: World) -> Act:
    vtxo_id = await world.spare_vtxo()

    async def act() -> None:
        await world.victim.post("/wallet/refresh/delegated/vtxos", {"vtxos": [vtxo_id]})
        await through_the_round(world)

    return act


async def through_the_round(world: World) -> None:
    await world.hold_round()

    async def swapped() -> list[Json]:
        await world.devnet.mine()
        await world.victim.post("/wallet/sync")
        rounds: list[Json] = await world.victim.get("/wallet/rounds")
        return rounds

    await eventually(swapped, lambda rounds: rounds == [])


async def _boards(world: World) -> int:
    """The history says what each cost on the chain."""
    boards = await world.history("board")
    for movement in boards:
        txid = movement["metadata"]["chain_anchor"].partition(":")[0]
        tx = (await world.books.chain.get(f"/tx/{txid}")).raise_for_status().json()
        assert movement["metadata"]["onchain_fee_sat"] == tx["fee"], movement
    return len(boards)


async def _board_all(world: World) -> Act:
    async def act() -> None:
        await world.victim.post("/boards/board-all")
        await world.devnet.mine()
        await world.victim.post("/wallet/sync")

    return act


_BOARD_CALLS = ("RequestBoardCosign", "POST /txs", "RegisterBoardVtxo")

FLOWS = (
    Flow("board", _board, _boards, _BOARD_CALLS),
    Flow("board all", _board_all, _boards, _BOARD_CALLS),
    Flow(
        "arkoor send",
        _send,
        _sends,
        ("RequestArkoorCosign", "RegisterVtxoTransactions", "PostArkoorMessage"),
    ),
    Flow(
        "arkoor receive",
        _receive,
        count_of("receive", "arkoor"),
        ("ReadMailbox",),
        may_not_happen=False,
    ),
    Flow(
        "refresh",
        _refresh,
        count_of("refresh"),
        ("SubmitPayment", "ProvideVtxoSignatures", "RequestLeafVtxoCosign", "ForfeitVtxos"),
        fails_once=True,
    ),
    Flow(
        "delegated refresh",
        _refresh_delegated,
        count_of("refresh"),
        ("SubmitRoundParticipation", "RequestLeafVtxoCosign", "ForfeitVtxos"),
        fails_once=True,
    ),
)
