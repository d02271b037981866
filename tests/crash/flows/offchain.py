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
        await _through_the_round(world)

    return act


async def _refresh_delegated(world: World) -> Act:
    vtxo_id = await world.spare_vtxo()

    async def act() -> None:
        await world.victim.post("/wallet/refresh/delegated/vtxos", {"vtxos": [vtxo_id]})
        await _through_the_round(world)

    return act


async def _through_the_round(world: World) -> None:
    await world.hold_round()

    async def swapped() -> list[Json]:
        await world.devnet.mine()
        await world.victim.post("/wallet/sync")
        rounds: list[Json] = await world.victim.get("/wallet/rounds")
        return rounds

    await eventually(swapped, lambda rounds: rounds == [])


async def _board_all(world: World) -> Act:
    async def act() -> None:
        await world.victim.post("/boards/board-all")
        await world.devnet.mine()
        await world.victim.post("/wallet/sync")

    return act


_BOARD_CALLS = frozenset({"RequestBoardCosign", "RegisterBoardVtxo", "POST /txs"})

FLOWS = (
    Flow("board", _board, count_of("board"), _BOARD_CALLS),
    Flow("board all", _board_all, count_of("board"), _BOARD_CALLS),
    Flow(
        "arkoor send",
        _send,
        _sends,
        frozenset({"RequestArkoorCosign", "RegisterVtxoTransactions", "PostArkoorMessage"}),
    ),
    Flow(
        "arkoor receive",
        _receive,
        count_of("receive", "arkoor"),
        frozenset({"ReadMailbox"}),
        may_not_happen=False,
    ),
    Flow(
        "refresh",
        _refresh,
        count_of("refresh"),
        frozenset({"SubmitPayment", "ProvideVtxoSignatures", "RequestLeafVtxoCosign", "ForfeitVtxos"}),
        fails_once=True,
    ),
    Flow(
        "delegated refresh",
        _refresh_delegated,
        count_of("refresh"),
        frozenset({"SubmitRoundParticipation", "RequestLeafVtxoCosign", "ForfeitVtxos"}),
        fails_once=True,
    ),
)
