"""Payments that were no money when they came, and that get to the chain before they are."""

import pytest

from barkd_py.ark.vtxo import Vtxo
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.errors import ServerUnavailable
from barkd_py.server_rpc.api import ArkoorDelivery
from barkd_py.wallet.movements import ARKOOR_RECEIVE, EXIT_START, MovementStatus
from barkd_py.wallet.vtxo_states import Locked, StateKind
from tests.wallet.flows.conftest import Net, Owner
from tests.wallet.flows.test_exits import RATE, exit_all
from tests.wallet.flows.test_mailbox import Chain, MailboxServer, delivered, mailbox, pay


async def receive_too_early(alice: Owner, bob: Owner, *, is_held: bool) -> tuple[Vtxo, str]:
    """A payment whose anchor is not confirmed yet, as far as the chain source knows, and its address.

    is_held: the server does not take it; else it has it, and it is not stored here.
    """
    (address,) = await pay(alice, bob, 10_000)
    vtxo = Vtxo.decode((await delivered(bob))[0])
    chain = Chain(bob.wallet.chain)
    chain.unconfirmed.add(vtxo.anchor_point.txid)
    server = MailboxServer(bob.wallet.server, (7, ArkoorDelivery((vtxo.encode(),))))
    if is_held:
        server.registration_trouble = ServerUnavailable("busy")
    await mailbox(bob.wallet, server, chain).sync()
    stored = await bob.wallet.list_vtxos(include_all=True)
    assert [each.state for each in stored] == ([Locked(None)] if is_held else [])
    assert await bob.wallet.list_movements() == ()
    return vtxo, address


async def assert_came_and_left(bob: Owner, vtxo: Vtxo, address: str) -> None:
    (came,) = await bob.movements(ARKOOR_RECEIVE)
    assert (came.status, came.effective_balance_sat) == (MovementStatus.SUCCESSFUL, 10_000)
    assert came.output_vtxos == (vtxo.id,)
    assert [(each.method.value, each.amount_sat) for each in came.received_on] == [(address, 10_000)]
    (left,) = await bob.movements(EXIT_START)
    assert (left.status, left.effective_balance_sat) == (MovementStatus.SUCCESSFUL, -10_000)
    assert (await bob.wallet.balance()).total_sat == 0
    assert (await bob.wallet.get_vtxo(vtxo.id)).state.kind is StateKind.EXITED


async def test_a_payment_that_is_kept_comes_with_its_exit(net: Net, alice: Owner, bob: Owner) -> None:
    vtxo, address = await receive_too_early(alice, bob, is_held=True)
    for _ in range(3):
        await bob.fund_onchain(30_000)
    assert await exit_all(net, bob) == (vtxo.id,)
    await assert_came_and_left(bob, vtxo, address)


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_payment_that_is_found_on_the_chain_has_come(
    net: Net, alice: Owner, bob: Owner, is_held: bool
) -> None:
    """The look at what is no money yet finds it there, and starts its exit."""
    vtxo, address = await receive_too_early(alice, bob, is_held=is_held)
    await net.devnet.node.mine_exactly(vtxo.exit_transactions())
    await bob.wallet.chain.fetch_tip()
    await bob.wallet.recovery.retry()
    assert await exit_all(net, bob) == (vtxo.id,)
    await assert_came_and_left(bob, vtxo, address)


async def test_a_server_that_calls_a_kept_payment_spent_stops_no_exit(
    net: Net, alice: Owner, bob: Owner
) -> None:
    """Nobody here has spent it: what the chain says counts."""
    vtxo, address = await receive_too_early(alice, bob, is_held=True)
    for _ in range(3):
        await bob.fund_onchain(30_000)
    await bob.wallet.exits.start_all()
    await bob.wallet.exits.progress(RATE)
    await net.devnet.ark_server.set_vtxo_state(vtxo.id, SpendState.SPENT)
    await bob.wallet.recovery.retry()
    assert (await bob.wallet.get_vtxo(vtxo.id)).state == Locked(None)
    assert await exit_all(net, bob) == (vtxo.id,)
    await assert_came_and_left(bob, vtxo, address)
