"""What something holds, while the server is silent and the expiry comes near: it gets to the chain in time,
unless somebody else has got something for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from barkd_py.ark.deadlines import exit_start_height
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.tx import Txid
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.errors import BarkdError
from barkd_py.server_rpc.api import VtxoSpendState
from barkd_py.wallet.exits.states import ExitFilter
from barkd_py.wallet.movements import ARKOOR_SEND, EXIT_START, OFFBOARD, MovementStatus
from barkd_py.wallet.offboards.states import FORMAT, Confirming
from barkd_py.wallet.payments.request import InvoiceDestination
from barkd_py.wallet.rounds.states import Signed
from barkd_py.wallet.vtxo_states import Locked, StateKind
from tests.support.processes import until
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.liar import Liar
from tests.wallet.flows.offboards import target_of
from tests.wallet.flows.rounds import round_of, stored_rounds
from tests.wallet.flows.test_exits import exit_ids

MARGIN = 12
AMOUNT_SAT = 100_000


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(
        round_interval_secs=3600, round_submit_secs=60, round_sign_secs=60, vtxo_lifetime=90
    )


@pytest.fixture
async def carol(net: Net) -> AsyncIterator[Owner]:
    """Has one VTXO that expires soon, and coins that pay for an exit."""
    async with net.wallet("carol", offboard_required_confirmations=2, vtxo_exit_margin=MARGIN) as owner:
        await owner.board(AMOUNT_SAT)
        await owner.wallet.registration.catch_up()
        for _ in range(3):
            await owner.fund_onchain(30_000)
        yield owner


async def leave_off(owner: Owner, doing: Coroutine[Any, Any, object]) -> None:
    """The daemon is stopped once the inputs are locked."""
    task = asyncio.create_task(doing)

    async def is_locked() -> bool:
        is_over = task.done()
        locked = isinstance((await owner.only_vtxo()).state, Locked)
        assert locked or not is_over, task
        return locked

    await until(is_locked)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await owner.restart()


# --- how it comes to be held


async def by_an_arkoor_send(net: Net, carol: Owner, bob: Owner) -> None:
    net.fault("RequestArkoorCosign", stage="before", kind="error", code="UNAVAILABLE", count=None)
    address = await bob.wallet.new_address()
    await leave_off(carol, carol.wallet.send_arkoor(address, 10_000))


async def by_the_split_of_an_offboard(net: Net, carol: Owner, bob: Owner) -> None:
    net.fault("RequestArkoorCosign", stage="before", kind="error", code="UNAVAILABLE", count=None)
    target = await target_of(bob)
    await leave_off(carol, carol.wallet.offboards.send(10_000, target))


async def by_a_lightning_payment(net: Net, carol: Owner, bob: Owner) -> None:
    net.fault("RequestLightningPayHtlcCosign", stage="before", kind="error", code="UNAVAILABLE", count=None)
    invoice = await bob.wallet.lightning.create_invoice(10_000, description="x")
    with pytest.raises(BarkdError):
        await carol.wallet.lightning.pay(InvoiceDestination(Bolt11Invoice.parse(invoice)), None)


async def by_an_offboard_that_is_lost(net: Net, carol: Owner, bob: Owner) -> None:
    txid = await offboarded(carol, bob)
    net.devnet.ark_server.treasury.withhold(txid)
    await net.devnet.node.evict(txid)


async def by_a_signed_round(net: Net, carol: Owner, bob: Owner) -> None:
    await carol.wallet.rounds.refresh_all()
    async with round_of(net, carol) as held:
        await held.step()
    (state,) = await stored_rounds(carol)
    assert isinstance(state, Signed)


async def by_the_servers_word(net: Net, carol: Owner, bob: Owner) -> None:
    """It says that the VTXO is spent, which it is not."""
    evidence = carol.wallet.recovery._evidence
    liar = Liar(evidence._server)
    liar.lies["get_vtxo_statuses"] = lambda answer: dict.fromkeys(answer, VtxoSpendState.SPENT)
    evidence._server = liar  # type: ignore[assignment]  # it passes everything on
    await carol.wallet.recovery.look_at([(await carol.only_vtxo()).id])


async def offboarded(carol: Owner, bob: Owner) -> Txid:
    return (await carol.wallet.offboards.offboard_all(await target_of(bob))).offboard_txid


HOLDERS = (
    by_an_arkoor_send,
    by_the_split_of_an_offboard,
    by_a_lightning_payment,
    by_an_offboard_that_is_lost,
    by_a_signed_round,
    by_the_servers_word,
)
Hold = Callable[[Net, Owner, Owner], Awaitable[None]]


async def come_to(net: Net, owner: Owner, height: int) -> None:
    """What the daemon does with the blocks, once it has them."""
    await net.mine(height - net.devnet.node.index.tip_height)
    await owner.wallet.chain.fetch_tip()
    await owner.wallet.exits.tick()


async def live(owner: Owner) -> list[VtxoId]:
    return await exit_ids(owner.wallet, ExitFilter.LIVE)


@pytest.mark.parametrize("hold", HOLDERS)
async def test_what_nobody_has_got_anything_for_leaves_before_it_expires(
    net: Net, carol: Owner, bob: Owner, hold: Hold
) -> None:
    await hold(net, carol, bob)
    held = await carol.only_vtxo()
    assert isinstance(held.state, Locked)
    height = exit_start_height(held, MARGIN)
    await come_to(net, carol, height - 1)
    assert await live(carol) == []
    await come_to(net, carol, height)
    assert await live(carol) == [held.id]


@pytest.mark.parametrize("hold", [by_an_arkoor_send, by_an_offboard_that_is_lost])
async def test_whoever_asks_for_its_exit_gets_it(net: Net, carol: Owner, bob: Owner, hold: Hold) -> None:
    await hold(net, carol, bob)
    held = await carol.only_vtxo()
    await carol.wallet.exits.start([held.id])
    assert await live(carol) == [held.id]


async def test_what_was_paid_for_on_the_chain_does_not_leave(net: Net, carol: Owner, bob: Owner) -> None:
    """The offboard's transaction has one confirmation of two; nobody drives the offboard."""
    await offboarded(carol, bob)
    held = await carol.only_vtxo()
    await come_to(net, carol, exit_start_height(held, MARGIN))
    await carol.wallet.exits.start([held.id])
    assert await live(carol) == []


async def test_an_offboard_that_comes_after_the_exit_has_paid(net: Net, carol: Owner, bob: Owner) -> None:
    """Its transaction was lost, the input has exited, and then it is confirmed: the money left once."""
    await by_an_offboard_that_is_lost(net, carol, bob)
    held = await carol.only_vtxo()
    async with carol.wallet.store.read() as tx:
        (row,) = await tx.actions.list()
    state = FORMAT.decode(row.payload)
    assert isinstance(state, Confirming)
    await come_to(net, carol, exit_start_height(held, MARGIN))
    await come_to(net, carol, net.devnet.node.index.tip_height + 1)
    assert (await carol.wallet.get_vtxo(held.id)).state.kind is StateKind.EXITED
    await net.devnet.node.mine_exactly([state.tx])
    await net.mine()
    await carol.wallet.chain.fetch_tip()
    await carol.wallet.offboards.drive_all()
    left = {
        each.subsystem: (each.status, each.effective_balance_sat)
        for each in await carol.wallet.list_movements()
        if each.subsystem in (OFFBOARD, EXIT_START)
    }
    assert left == {
        OFFBOARD: (MovementStatus.SUCCESSFUL, -held.amount_sat),
        EXIT_START: (MovementStatus.FAILED, 0),
    }


async def test_what_is_on_the_chain_is_not_paid_with(net: Net, carol: Owner, bob: Owner) -> None:
    """The server is back when the input of a payment has just been exited."""
    await by_an_arkoor_send(net, carol, bob)
    held = await carol.only_vtxo()
    await come_to(net, carol, exit_start_height(held, MARGIN))
    await come_to(net, carol, net.devnet.node.index.tip_height + 1)
    assert (await carol.wallet.get_vtxo(held.id)).state.kind is StateKind.EXITED
    net.honest()
    await carol.wallet.arkoor.drive_all()
    await bob.wallet.sync()
    assert await bob.wallet.list_vtxos(include_all=False) == ()
    async with carol.wallet.store.read() as tx:
        assert await tx.actions.list() == ()
    assert (await carol.wallet.balance()).total_sat == held.amount_sat


async def test_the_change_of_a_payment_that_is_not_delivered_leaves(
    net: Net, carol: Owner, bob: Owner
) -> None:
    """The payment is the recipient's, who perhaps has it; so the input stays. Of the change nobody else has
    the signatures.
    """
    given = await carol.only_vtxo()
    net.fault("PostArkoorMessage", kind="error", code="UNAVAILABLE", count=None)
    await leave_off(carol, carol.wallet.send_arkoor(await bob.wallet.new_address(), 10_000))
    await carol.wallet.arkoor.drive_all()
    height = exit_start_height(given, MARGIN, deeper_by=2)
    await come_to(net, carol, height - 1)
    await carol.wallet.arkoor.drive_all()
    assert (await carol.wallet.get_vtxo(given.id)).state.kind is StateKind.LOCKED
    await come_to(net, carol, height)
    await carol.wallet.arkoor.drive_all()
    change = await carol.wallet.list_vtxos(include_all=False)
    assert {vtxo.state.kind for vtxo in change} == {StateKind.SPENDABLE}
    await come_to(net, carol, height + 1)
    assert set(await live(carol)) == {vtxo.id for vtxo in change}
    (movement,) = await carol.movements(ARKOOR_SEND)
    assert movement.status is MovementStatus.FAILED
    assert movement.effective_balance_sat == -10_000
    assert "undelivered_vtxos" in movement.metadata
