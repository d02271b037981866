"""Lightning: between two wallets of one server, to nodes outside and from them, and payments that fail."""

from collections.abc import Awaitable, Callable

from tests.crash.books import Json
from tests.crash.flows.flow import Act, Flow, ark_address, count_of, of_part
from tests.crash.world import World
from tests.support.processes import eventually

LIGHTNING_SAT = 10_000
OFFER = {"description": "coffee", "amount_sat": LIGHTNING_SAT}


def _pay(
    destination: Callable[[World], Awaitable[str]], amount_sat: int | None = None
) -> Callable[[World], Awaitable[Act]]:
    """amount_sat: what the payer says, where the payee does not."""

    async def prepare(world: World) -> Act:
        body: Json = {"destination": await destination(world)}
        if amount_sat is not None:
            body |= {"amount_sat": amount_sat}

        async def act() -> None:
            await world.victim.post("/lightning/pay", body)

            async def pending() -> list[Json]:
                await world.peer.post("/wallet/sync")
                await world.victim.post("/wallet/sync")
                history: list[Json] = await world.victim.get("/history")
                return [movement for movement in history if movement["status"] == "pending"]

            await eventually(pending, lambda left: left == [])

        return act

    return prepare


async def _invoice_of_peer(world: World) -> str:
    body = {"amount_sat": LIGHTNING_SAT}
    return str((await world.peer.post("/lightning/receives/invoice", body))["invoice"])


async def _outside_invoice(world: World) -> str:
    return str((await world.devnet.pull("/lightning/invoice", amount_sat=LIGHTNING_SAT))["invoice"])


async def _refused_invoice(world: World) -> str:
    """The payee will send the money back."""
    lever = {"amount_sat": LIGHTNING_SAT, "fail": "destination-rejected"}
    return str((await world.devnet.pull("/lightning/invoice", **lever))["invoice"])


async def _offer(world: World) -> str:
    return str((await world.devnet.pull("/lightning/offer", amount_sat=LIGHTNING_SAT))["offer"])


async def _lightning_address(world: World) -> str:
    return str((await world.devnet.pull("/lightning/address", name="satoshi"))["address"])


async def _receive(world: World) -> Act:
    """The invoice is out; the peer, of the same server, pays it."""
    invoice = await world.victim.post("/lightning/receives/invoice", {"amount_sat": LIGHTNING_SAT})

    async def act() -> None:
        await world.peer.post("/lightning/pay", {"destination": invoice["invoice"]})
        await _until_received(world)

    return act


async def _receive_from_outside(world: World) -> Act:
    invoice = await world.victim.post("/lightning/receives/invoice", {"amount_sat": LIGHTNING_SAT})

    async def act() -> None:
        await world.devnet.pull("/lightning/pay", invoice=invoice["invoice"], wait=False)
        await _until_received(world)

    return act


async def _receive_for_peer(world: World) -> Act:
    """What comes in for the peer's address is claimed, and delivered there."""
    body = {"amount_sat": LIGHTNING_SAT, "address": await ark_address(world.peer)}
    invoice = await world.victim.post("/lightning/receives/invoice/for-address", body)

    async def act() -> None:
        await world.devnet.pull("/lightning/pay", invoice=invoice["invoice"], wait=False)
        await _until_received(world)

    return act


async def _received_for_peer(world: World) -> int:
    """Whatever was claimed has arrived, and nothing twice."""
    received = of_part("lightning", await world.history("receive"))
    claimed = [
        each for each in received if each["effective_balance_sat"] == 0
    ]  # for others; else it is our own
    arrived = of_part("arkoor", await world.history("receive", of=world.peer))
    assert len(claimed) == len(arrived), (claimed, arrived)
    return len(claimed)


async def _until_received(world: World) -> None:
    async def pending() -> list[Json]:
        await world.victim.post("/wallet/sync")
        receives: list[Json] = await world.victim.get("/lightning/receives")
        return receives

    await eventually(pending, lambda receives: receives == [])


# What became of it, the server may tell by the mailbox before it is asked.
_SEND_CALLS = ("RequestLightningPayHtlcCosign", "InitiateLightningPayment")
_RECEIVE_CALLS = ("PrepareLightningReceiveClaim", "ClaimLightningReceive")
_sent = count_of("send", "lightning")

FLOWS = (
    Flow("Lightning send", _pay(_invoice_of_peer), _sent, _SEND_CALLS, fails_once=True),
    Flow("Lightning send to outside", _pay(_outside_invoice), _sent, _SEND_CALLS, fails_once=True),
    Flow("Lightning send to an offer", _pay(_offer), _sent, _SEND_CALLS, fails_once=True),
    Flow(
        "Lightning send to an address",
        _pay(_lightning_address, LIGHTNING_SAT),
        _sent,
        _SEND_CALLS,
        fails_once=True,
    ),
    Flow(
        "Lightning send that comes back",
        _pay(_refused_invoice),
        count_of("send", "lightning", "failed"),
        (*_SEND_CALLS, "RequestLightningPayHtlcRevocation"),
        always_fails=True,
    ),
    Flow(
        "Lightning receive", _receive, count_of("receive", "lightning"), _RECEIVE_CALLS, may_not_happen=False
    ),
    Flow(
        "Lightning receive from outside",
        _receive_from_outside,
        count_of("receive", "lightning"),
        _RECEIVE_CALLS,
        may_not_happen=False,
    ),
    Flow(
        "Lightning receive for another wallet",
        _receive_for_peer,
        _received_for_peer,
        (*_RECEIVE_CALLS, "PostArkoorMessage"),
        may_not_happen=False,
    ),
)
