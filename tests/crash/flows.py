"""The table: every way in which money moves, and how to tell whether it did.

A flow is prepared undisturbed; acted out, while the daemon may be killed at any point; and brought to its end
by `World.settle`, which is the same for all. `done` counts how often it ever succeeded: an interrupted flow
has happened once, or, if it was killed before anything was stored, not at all.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.crash.books import EXIT_DELTA, Json
from tests.crash.world import World
from tests.support.processes import Daemon, eventually

SEND_SAT = 1_234
ONCHAIN_SAT = 20_000

Act = Callable[[], Awaitable[None]]

# Streams and heartbeats that belong to no flow: they come whenever they come.
UNRELATED = frozenset({"Handshake", "GetArkInfo", "SubscribeRounds", "SubscribeMailbox", "NextRoundTime"})


@dataclass(frozen=True)
class Flow:
    """prepare: returns what is to be interrupted. calls: network calls that it cannot do without.

    may_not_happen: killed early, it never took place, and the person asks again. fails_once: what was lost by
    the kill stays in the history as failed.
    """

    name: str
    prepare: Callable[[World], Awaitable[Act]]
    done: Callable[[World], Awaitable[int]]
    calls: frozenset[str]
    may_not_happen: bool = True
    fails_once: bool = False


def _count(kind: str, part: str = "") -> Callable[[World], Awaitable[int]]:
    """part: of the wallet that made it, where several have the same kind."""

    async def count(world: World) -> int:
        return len(_of_part(part, await world.history(kind)))

    return count


def _of_part(part: str, movements: list[Json]) -> list[Json]:
    return [each for each in movements if part in each["subsystem"]["name"]]


# --- off-chain


async def _board(world: World) -> Act:
    async def act() -> None:
        await world.victim.post("/boards/board-amount", {"amount_sat": 30_000})
        await world.devnet.mine()
        await world.victim.post("/wallet/sync")

    return act


async def _send(world: World) -> Act:
    address = await _ark_address(world.peer)

    async def act() -> None:
        await world.victim.post("/wallet/send", {"destination": address, "amount_sat": SEND_SAT})

    return act


async def _sends(world: World) -> int:
    """Whatever was sent has arrived, and nothing twice."""
    received = _of_part("arkoor", await world.history("receive", of=world.peer))
    assert {each["effective_balance_sat"] for each in received} <= {SEND_SAT}
    sent = _of_part("arkoor", await world.history("send"))
    assert len(sent) == len(received), (sent, received)
    return len(sent)


async def _receive(world: World) -> Act:
    address = await _ark_address(world.victim)

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


# --- Lightning

LIGHTNING_SAT = 10_000


async def _lightning_send(world: World) -> Act:
    invoice = await world.peer.post("/lightning/receives/invoice", {"amount_sat": LIGHTNING_SAT})

    async def act() -> None:
        await world.victim.post("/lightning/pay", {"destination": invoice["invoice"]})

        async def arrived() -> list[Json]:
            await world.peer.post("/wallet/sync")
            await world.victim.post("/wallet/sync")
            history: list[Json] = await world.victim.get("/history")
            return [movement for movement in history if movement["status"] == "pending"]

        await eventually(arrived, lambda pending: pending == [])

    return act


async def _lightning_receive(world: World) -> Act:
    """The invoice is out; the peer, of the same server, pays it."""
    invoice = await world.victim.post("/lightning/receives/invoice", {"amount_sat": LIGHTNING_SAT})

    async def act() -> None:
        await world.peer.post("/lightning/pay", {"destination": invoice["invoice"]})

        async def pending() -> list[Json]:
            await world.victim.post("/wallet/sync")
            receives: list[Json] = await world.victim.get("/lightning/receives")
            return receives

        await eventually(pending, lambda receives: receives == [])

    return act


# --- between


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


# --- on chain


async def _onchain_send(world: World) -> Act:
    address = (await world.peer.post("/onchain/addresses/next"))["address"]

    async def act() -> None:
        await world.victim.post("/onchain/send", {"destination": address, "amount_sat": ONCHAIN_SAT + 1})

    return act


async def _onchain_sends(world: World) -> int:
    transactions = await world.peer.get("/onchain/transactions")
    return sum(tx["balance_change_sat"] == ONCHAIN_SAT + 1 for tx in transactions)


async def _ark_address(daemon: Daemon) -> str:
    return str((await daemon.post("/wallet/addresses/next"))["address"])


FLOWS = (
    Flow(
        "board", _board, _count("board"), frozenset({"RequestBoardCosign", "RegisterBoardVtxo", "POST /txs"})
    ),
    Flow(
        "arkoor send",
        _send,
        _sends,
        frozenset({"RequestArkoorCosign", "RegisterVtxoTransactions", "PostArkoorMessage"}),
    ),
    Flow(
        "arkoor receive",
        _receive,
        _count("receive", "arkoor"),
        frozenset({"ReadMailbox"}),
        may_not_happen=False,
    ),
    Flow(
        "Lightning send",
        _lightning_send,
        _count("send", "lightning"),
        frozenset({"RequestLightningPayHtlcCosign", "InitiateLightningPayment", "CheckLightningPayment"}),
    ),
    Flow(
        "Lightning receive",
        _lightning_receive,
        _count("receive", "lightning"),
        frozenset({"PrepareLightningReceiveClaim", "ClaimLightningReceive"}),
        may_not_happen=False,
    ),
    Flow(
        "refresh",
        _refresh,
        _count("refresh"),
        frozenset({"SubmitPayment", "ProvideVtxoSignatures", "RequestLeafVtxoCosign", "ForfeitVtxos"}),
        fails_once=True,
    ),
    Flow(
        "delegated refresh",
        _refresh_delegated,
        _count("refresh"),
        frozenset({"SubmitRoundParticipation", "RequestLeafVtxoCosign", "ForfeitVtxos"}),
        fails_once=True,
    ),
    Flow("offboard", _offboard, _count("offboard"), frozenset({"PrepareOffboard", "FinishOffboard"})),
    Flow(
        "send on-chain",
        _send_onchain,
        _count("send_onchain"),
        frozenset({"RequestArkoorCosign", "PrepareOffboard", "FinishOffboard"}),
    ),
    Flow("exit", _exit, _exits, frozenset({"POST /txs"})),
    Flow("claim", _claim, _exits, frozenset({"POST /tx"}), may_not_happen=False),
    Flow("on-chain send", _onchain_send, _onchain_sends, frozenset({"POST /tx"})),
)
