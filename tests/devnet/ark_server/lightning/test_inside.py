"""Payments between two users of the same server: no Lightning node takes part."""

import pytest

from barkd_py.ark.policy import ServerHtlcSendPolicy
from barkd_py.bitcoin.bolt11 import create_invoice
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.lightning.server_node import ServerNode
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from tests.devnet.ark_server.client import Refusal
from tests.devnet.ark_server.conftest import NOW, SettableClock
from tests.devnet.ark_server.lightning.client import LightningClient
from tests.fakes.server_chain import FakeServerChain

SPENDABLE, SPENT = 1, 2
PAID_SAT = 10_000


async def test_one_user_pays_another(alice: LightningClient, bob: LightningClient, server: ArkServer) -> None:
    receive = await bob.receive(PAID_SAT)
    htlcs = await alice.start_payment(receive.text, receive.payment_hash, PAID_SAT)
    (note,) = await bob.notes()
    assert note.incoming_lightning_payment.payment_hash == receive.payment_hash
    assert (await bob.receive_status(receive.payment_hash)).status == pb.ACCEPTED
    granted = await bob.grant(receive.payment_hash)
    assert (await alice.payment_status(receive.payment_hash)).HasField("pending")
    await bob.claim(receive, granted)
    status = await alice.payment_status(receive.payment_hash, wait=True)
    assert status.success.preimage == receive.preimage
    (finished,) = await alice.notes()
    assert finished.lightning_send_finished.preimage == receive.preimage
    assert [await alice.spend_state(vtxo.id) for vtxo in htlcs] == [SPENT]
    await server.lightning.advance(receive.payment_hash)
    assert (await bob.receive_status(receive.payment_hash)).status == pb.SETTLED


async def test_user_pays_an_invoice_of_their_own(alice: LightningClient) -> None:
    receive = await alice.receive(PAID_SAT)
    await alice.start_payment(receive.text, receive.payment_hash, PAID_SAT)
    await alice.claim(receive, await alice.grant(receive.payment_hash))
    assert (await alice.payment_status(receive.payment_hash, wait=True)).HasField("success")


async def test_no_node_is_needed_to_pay_inside(
    alice: LightningClient, bob: LightningClient, node: ServerNode
) -> None:
    """But without one, the hold invoice cannot be cancelled, and the payment fails."""
    receive = await bob.receive(PAID_SAT)
    node.is_online = False
    htlcs = await alice.start_payment(receive.text, receive.payment_hash, PAID_SAT)
    status = await alice.payment_status(receive.payment_hash, wait=True)
    assert status.failed.reason == core_pb2.LIGHTNING_FAILURE_OTHER
    assert (await bob.receive_status(receive.payment_hash)).status == pb.ACCEPTED
    await alice.revoke(htlcs)
    assert (await bob.receive_status(receive.payment_hash)).status == pb.CANCELED


@pytest.mark.parametrize("amount_sat", [PAID_SAT - 1])
async def test_less_than_the_invoice_asks_for(
    alice: LightningClient, bob: LightningClient, amount_sat: int
) -> None:
    receive = await bob.receive(PAID_SAT)
    htlcs = await alice.htlcs([await alice.board()], receive.payment_hash, amount_sat)
    request = alice.initiation(receive.text, htlcs, amount_sat)
    refusal = await alice.refusal(alice.ark.InitiateLightningPayment, request)
    assert refusal.text.endswith("requested payment amount too low for invoice")


async def test_forged_invoice_with_the_same_hash(alice: LightningClient, bob: LightningClient) -> None:
    receive = await bob.receive(PAID_SAT)
    forged = create_invoice(
        SecretKey.generate(),
        network=Network.REGTEST,
        amount_msat=PAID_SAT * 1000,
        payment_hash=receive.payment_hash,
        payment_secret=bytes(32),
        timestamp=NOW,
    )
    htlcs = await alice.htlcs([await alice.board()], receive.payment_hash, PAID_SAT)
    request = alice.initiation(forged.text, htlcs, PAID_SAT)
    assert await alice.refusal(alice.ark.InitiateLightningPayment, request) == Refusal(
        "INVALID_ARGUMENT",
        "tx body error: bad user input: invoice does not match the invoice we issued for payment hash "
        + receive.payment_hash.hex(),
        None,
    )


async def test_receiver_who_does_not_come_fails_the_payment(
    alice: LightningClient, bob: LightningClient, server: ArkServer, clock: SettableClock
) -> None:
    receive = await bob.receive(PAID_SAT)
    htlcs = await alice.start_payment(receive.text, receive.payment_hash, PAID_SAT)
    refusal = await alice.refused_revocation(htlcs)
    assert refusal.text.endswith("This lightning payment is not eligible for revocation yet")
    clock.now += server.settings.receive_htlc_forward_timeout_secs
    await server.lightning.sweep()
    status = await alice.payment_status(receive.payment_hash)
    assert status.failed.reason == core_pb2.LIGHTNING_FAILURE_SETUP_TIMEOUT
    (back,) = await alice.revoke(htlcs)
    assert await alice.spend_state(back.id) == SPENDABLE


async def test_payment_of_a_cancelled_receive_fails(alice: LightningClient, bob: LightningClient) -> None:
    receive = await bob.receive(PAID_SAT)
    await bob.call(
        bob.ark.CancelLightningReceive, pb.CancelLightningReceiveRequest(payment_hash=receive.payment_hash)
    )
    htlcs = await alice.start_payment(receive.text, receive.payment_hash, PAID_SAT)
    status = await alice.payment_status(receive.payment_hash)
    assert status.failed.reason == core_pb2.LIGHTNING_FAILURE_INVOICE_STATE
    await alice.revoke(htlcs)


async def test_receiver_who_cancels_leaves_the_payment_open(
    alice: LightningClient, bob: LightningClient, chain: FakeServerChain
) -> None:
    receive = await bob.receive(PAID_SAT)
    htlcs = await alice.start_payment(receive.text, receive.payment_hash, PAID_SAT)
    await bob.call(
        bob.ark.CancelLightningReceive, pb.CancelLightningReceiveRequest(payment_hash=receive.payment_hash)
    )
    assert (await alice.payment_status(receive.payment_hash)).HasField("pending")
    policy = htlcs[0].policy
    assert isinstance(policy, ServerHtlcSendPolicy)
    chain.mine(count=policy.htlc_expiry_height - (await chain.tip()).height + 1)
    await alice.revoke(htlcs)


async def test_receiver_who_was_granted_their_money_is_in_the_way_of_a_revocation(
    alice: LightningClient, bob: LightningClient, chain: FakeServerChain
) -> None:
    receive = await bob.receive(PAID_SAT)
    htlcs = await alice.start_payment(receive.text, receive.payment_hash, PAID_SAT)
    granted = await bob.grant(receive.payment_hash)
    chain.mine(count=300)
    assert (await alice.refused_revocation(htlcs)).text == (
        "tx body error: bad user input: invoice receive is already committed (status: htlcs-ready), "
        "cannot revoke: the payment can still be claimed"
    )
    # Among users of the same server no block is too late to claim.
    await bob.claim(receive, granted)
    assert (await alice.payment_status(receive.payment_hash, wait=True)).HasField("success")


async def test_revocation_cancels_the_receive_with_it(
    alice: LightningClient, bob: LightningClient, chain: FakeServerChain
) -> None:
    receive = await bob.receive(PAID_SAT)
    htlcs = await alice.start_payment(receive.text, receive.payment_hash, PAID_SAT)
    chain.mine(count=300)
    await alice.revoke(htlcs)
    assert (await bob.receive_status(receive.payment_hash)).status == pb.CANCELED
