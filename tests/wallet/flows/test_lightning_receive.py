"""Being paid over Lightning through a whole devnet: by nodes outside, by another wallet, and by force."""

import asyncio

import pytest

from barkd_py.ark.address import ArkAddress
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.units import FeeRate
from barkd_py.daemon.loops import Daemon
from barkd_py.wallet.balance import Balance
from barkd_py.wallet.exits.states import ExitFilter
from barkd_py.wallet.lightning.receive.errors import CannotCancelReceive, UnknownReceive
from barkd_py.wallet.movements import (
    EXIT_START,
    LIGHTNING_RECEIVE,
    LIGHTNING_SEND,
    MovementStatus,
)
from barkd_py.wallet.payments.request import InvoiceDestination
from tests.support.processes import until
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.lightning import Outside

FEE_SAT = 140
"""Of 20 000 sat: 100 sat and 2 000 ppm."""
NET_SAT = 20_000 - FEE_SAT


@pytest.fixture
def outside(net: Net) -> Outside:
    return Outside(net)


async def claimed(owner: Owner, text: str) -> bool:
    """Drive what is under way; whether this has settled."""
    await owner.wallet.lightning.resume()
    try:
        return (await owner.wallet.lightning.receive(hash_of(text))).state == "settled"
    except UnknownReceive:
        return False


def hash_of(text: str) -> bytes:
    return Bolt11Invoice.parse(text).payment_hash


async def test_a_node_outside_pays(bob: Owner, outside: Outside) -> None:
    text = await bob.wallet.lightning.create_invoice(20_000, description="a coffee")
    payment = await outside.pay(text)
    assert payment["status"] == "held"
    await until(lambda: claimed(bob, text))
    assert await bob.wallet.balance() == Balance(spendable_sat=NET_SAT)
    (movement,) = await bob.movements(LIGHTNING_RECEIVE)
    assert (movement.status, movement.effective_balance_sat) == (MovementStatus.SUCCESSFUL, NET_SAT)

    async def settled() -> bool:
        return await outside.incoming() == ["settled"]

    await until(settled)
    preimage = (await bob.wallet.lightning.receive(hash_of(text))).preimage
    assert (await outside.books())["incoming"][0]["preimage"] == preimage.data.hex()


async def test_it_can_be_spent_at_once(bob: Owner, alice: Owner, outside: Outside) -> None:
    text = await bob.wallet.lightning.create_invoice(20_000)
    await outside.pay(text)
    await until(lambda: claimed(bob, text))
    before_sat = await alice.spendable_sat()
    await bob.wallet.send_arkoor(await alice.wallet.new_address(), NET_SAT)
    await alice.wallet.sync_mailbox()
    assert await alice.spendable_sat() == before_sat + NET_SAT
    assert (await bob.wallet.balance()).total_sat == 0


async def test_one_wallet_pays_the_other(alice: Owner, bob: Owner) -> None:
    """Both have the same server, so nothing leaves it."""
    before_sat = await alice.spendable_sat()
    text = await bob.wallet.lightning.create_invoice(20_000)
    destination = InvoiceDestination(Bolt11Invoice.parse(text))
    estimate = await alice.wallet.lightning.estimate_pay(20_000)
    await alice.wallet.lightning.pay(destination, None)
    await until(lambda: claimed(bob, text))

    async def is_paid() -> bool:
        await alice.wallet.lightning.resume()
        return (await alice.wallet.lightning.send(hash_of(text))).state == "paid"

    await until(is_paid)
    assert await bob.wallet.balance() == Balance(spendable_sat=NET_SAT)
    assert await alice.wallet.balance() == Balance(spendable_sat=before_sat - 20_000 - estimate.fee_sat)
    (sent,) = await alice.movements(LIGHTNING_SEND)
    assert sent.status is MovementStatus.SUCCESSFUL


async def test_a_wallet_pays_itself(alice: Owner) -> None:
    before_sat = await alice.spendable_sat()
    text = await alice.wallet.lightning.create_invoice(20_000)
    estimate = await alice.wallet.lightning.estimate_pay(20_000)
    await alice.wallet.lightning.pay(InvoiceDestination(Bolt11Invoice.parse(text)), None)
    await until(lambda: claimed(alice, text))

    async def is_paid() -> bool:
        await alice.wallet.lightning.resume()
        return (await alice.wallet.lightning.send(hash_of(text))).state == "paid"

    await until(is_paid)
    assert await alice.wallet.balance() == Balance(spendable_sat=before_sat - FEE_SAT - estimate.fee_sat)


async def test_the_mailbox_brings_it(bob: Owner, outside: Outside) -> None:
    text = await bob.wallet.lightning.create_invoice(20_000)
    await outside.pay(text)

    async def arrived() -> bool:
        await bob.wallet.sync_mailbox()
        return await bob.spendable_sat() == NET_SAT

    await until(arrived)


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_daemon_left_alone_claims_it(net: Net, bob: Owner, outside: Outside, deaf: bool) -> None:
    """By its mailbox; and without that by looking once a second."""
    if deaf:
        for rpc in ("SubscribeMailbox", "ReadMailbox"):
            net.fault(rpc, stage="before", kind="error", code="UNAVAILABLE", count=None)
    wallet = bob.wallet
    wallet.background = Daemon(wallet)
    await wallet.start()
    text = await wallet.lightning.create_invoice(20_000)
    await outside.pay(text)

    async def arrived() -> bool:
        return await bob.spendable_sat() == NET_SAT

    await until(arrived)


async def test_several_at_once(bob: Owner, outside: Outside) -> None:
    texts = await asyncio.gather(*(bob.wallet.lightning.create_invoice(5_000 + n) for n in range(6)))
    await asyncio.gather(*(outside.pay(text) for text in texts))

    async def all_claimed() -> bool:
        await bob.wallet.lightning.resume()
        return not await bob.wallet.lightning.receives()

    await until(all_claimed)
    fees_sat = sum(each.offchain_fee_sat for each in await bob.movements(LIGHTNING_RECEIVE))
    assert await bob.wallet.balance() == Balance(spendable_sat=6 * 5_000 + 15 - fees_sat)


async def test_a_part_is_no_payment(bob: Owner, outside: Outside) -> None:
    text = await bob.wallet.lightning.create_invoice(20_000)
    await outside.pay(text, amount_sat=8_000)
    assert not await claimed(bob, text)
    assert (await bob.wallet.lightning.receive(hash_of(text))).state == "awaiting-payment"
    await outside.pay(text, amount_sat=12_000)
    await until(lambda: claimed(bob, text))
    assert await bob.spendable_sat() == NET_SAT


async def test_a_canceled_invoice_is_not_paid(bob: Owner, outside: Outside) -> None:
    text = await bob.wallet.lightning.create_invoice(20_000)
    await bob.wallet.lightning.cancel_receive(hash_of(text))
    assert (await outside.pay(text, wait=True))["status"] == "failed"
    assert await bob.wallet.lightning.receives() == []


async def test_a_payment_that_has_come_is_not_canceled(bob: Owner, outside: Outside) -> None:
    text = await bob.wallet.lightning.create_invoice(20_000)
    await outside.pay(text)

    async def has_come() -> bool:
        (receive,) = (await outside.books())["receives"]
        return bool(receive["status"] == "accepted")

    await until(has_come)
    with pytest.raises(CannotCancelReceive, match="the payment has arrived"):
        await bob.wallet.lightning.cancel_receive(hash_of(text))
    await until(lambda: claimed(bob, text))


async def test_another_wallet_is_paid(alice: Owner, bob: Owner, outside: Outside) -> None:
    """Alice makes an invoice whose money goes to Bob."""
    before_sat = await alice.spendable_sat()
    address = ArkAddress.parse(await bob.wallet.new_address())
    await alice.wallet.lightning.check_invoice_address(address)
    text = await alice.wallet.lightning.create_invoice_for(address, 20_000)
    await outside.pay(text)
    await until(lambda: claimed(alice, text))
    await bob.wallet.sync_mailbox()
    assert await bob.wallet.balance() == Balance(spendable_sat=NET_SAT)
    assert await alice.wallet.balance() == Balance(spendable_sat=before_sat)


@pytest.mark.both_stores
async def test_a_restart_at_any_time_is_no_harm(net: Net, bob: Owner, outside: Outside) -> None:
    """The daemon stops and starts while invoices are out, while they are paid, and while they are claimed."""
    texts = [await bob.wallet.lightning.create_invoice(20_000) for _ in range(3)]
    await bob.restart()
    for text in texts:
        await outside.pay(text)
        net.fault("ClaimLightningReceive", stage="after-commit", kind="error", code="UNAVAILABLE")
        await bob.wallet.lightning.resume()
        await bob.restart()

    async def all_claimed() -> bool:
        await bob.wallet.lightning.resume()
        return not await bob.wallet.lightning.receives()

    await until(all_claimed)
    assert await bob.wallet.balance() == Balance(spendable_sat=3 * NET_SAT)


# --- blocks


async def cheat(
    net: Net, owner: Owner, outside: Outside, *, amount_sat: int = 10_000, stage: str = "before"
) -> str:
    """The server takes the preimage, and does not answer."""
    text = await owner.wallet.lightning.create_invoice(amount_sat)
    await outside.pay(text)
    net.fault("ClaimLightningReceive", stage=stage, kind="error", code="INTERNAL", count=None)

    async def is_revealed() -> bool:
        await owner.wallet.lightning.resume()
        return (await owner.wallet.lightning.receive(hash_of(text))).state == "preimage-revealed"

    await until(is_revealed)
    return text


@pytest.mark.parametrize(
    ("stage", "amount_sat", "net_sat", "exited_sat"),
    [
        ("before", 10_000, 9_880, 9_880),
        # Of a grant that uses up a coin of the pool a piece is dust, which no node relays.
        ("after-commit", 20_000, 19_860, 19_670),
    ],
)
async def test_a_server_that_does_not_pay_is_forced_to(
    net: Net, bob: Owner, outside: Outside, stage: str, amount_sat: int, net_sat: int, exited_sat: int
) -> None:
    """The HTLC VTXO is put on the chain before it is too late, and taken there with the preimage.

    Nobody asks for any of that, and the daemon is restarted all the time.
    """
    await bob.fund_onchain(100_000)
    assert bob.wallet.onchain is not None
    text = await cheat(net, bob, outside, stage=stage, amount_sat=amount_sat)
    assert await bob.wallet.balance() == Balance(claimable_lightning_receive_sat=net_sat)
    assert await bob.wallet.exits.statuses(ExitFilter.ALL) == []

    for _ in range(30):
        await net.mine(4)
        await bob.restart()
        await bob.wallet.sync()
        await bob.wallet.exits.tick()
        if not await bob.wallet.lightning.receives():
            break
    (movement,) = await bob.movements(LIGHTNING_RECEIVE)
    assert movement.status is MovementStatus.FAILED
    (exited,) = movement.exited_vtxos
    (exit_,) = await bob.wallet.exits.statuses(ExitFilter.ALL)
    assert (exit_.vtxo_id, exit_.state.type) == (exited, "claimed")
    (out,) = await bob.movements(EXIT_START)
    assert (movement.effective_balance_sat, out.effective_balance_sat) == (exited_sat, -exited_sat)
    assert out.status is MovementStatus.SUCCESSFUL
    assert (await bob.wallet.balance()).total_sat == 0
    await bob.wallet.onchain.sync()
    onchain_sat = (await bob.wallet.onchain.balance()).total_sat
    assert onchain_sat > 100_000, "what the HTLC held came on top, less the fees of both transactions"
    assert (await bob.wallet.lightning.receive(hash_of(text))).state == "settled"


async def test_a_server_that_pays_late_saves_the_exit(net: Net, bob: Owner, outside: Outside) -> None:
    await bob.fund_onchain(100_000)
    text = await cheat(net, bob, outside)
    await net.mine(20)
    await bob.wallet.chain.fetch_tip()
    await bob.wallet.lightning.resume()
    (exit_,) = await bob.wallet.exits.statuses(ExitFilter.LIVE)
    net.honest()
    await until(lambda: claimed(bob, text))
    assert await bob.wallet.balance() == Balance(spendable_sat=9_880)
    await bob.wallet.exits.progress(FeeRate(1_000))
    (exit_,) = await bob.wallet.exits.statuses(ExitFilter.ALL)
    assert exit_.state.type == "vtxo-already-spent"
    assert await bob.wallet.balance() == Balance(spendable_sat=9_880)
