"""Paying invoices of nodes outside Ark: what the server demands, and what becomes of the payment."""

from dataclasses import replace
from secrets import token_bytes
from typing import Any

import pytest

from barkd_py.ark.clause import HashLock
from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.lightning.behaviour import Behaviour
from barkd_py.devnet.lightning.outside import InvoiceTerms, Outside
from barkd_py.devnet.lightning.server_node import ServerNode
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from tests.devnet.ark_server.client import Refusal
from tests.devnet.ark_server.conftest import SettableClock
from tests.devnet.ark_server.lightning.client import OLD_METADATA, LightningClient, htlc_request
from tests.fakes.server_chain import FakeServerChain

SPENDABLE, SPENT, UNREGISTERED = 1, 2, 4
PAID_SAT = 10_000


async def ask(outside: Outside, amount_sat: int | None = PAID_SAT, **behaviour: Any) -> Bolt11Invoice:
    """An invoice of a node outside Ark."""
    terms = InvoiceTerms(amount_msat=None if amount_sat is None else amount_sat * 1000)
    return await outside.invoice(terms, Behaviour.from_json(behaviour))


def rejected(text: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", text, None)


# --- payments


async def test_payment_that_arrives(alice: LightningClient, outside: Outside) -> None:
    invoice = await ask(outside)
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    status = await alice.payment_status(invoice.payment_hash, wait=True)
    assert sha256(status.success.preimage) == invoice.payment_hash
    assert [await alice.spend_state(vtxo.id) for vtxo in htlcs] == [SPENT]
    (note,) = await alice.notes()
    assert note.lightning_send_finished.payment_hash == invoice.payment_hash
    assert note.lightning_send_finished.preimage == status.success.preimage
    assert not note.lightning_send_finished.HasField("failure")


async def test_amount_of_an_open_invoice_is_the_payers(
    alice: LightningClient, outside: Outside, node: ServerNode
) -> None:
    invoice = await ask(outside, None)
    await alice.start_payment(invoice.text, invoice.payment_hash, 1_234)
    assert (await alice.payment_status(invoice.payment_hash, wait=True)).HasField("success")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"fail": "destination-rejected"}, core_pb2.LIGHTNING_FAILURE_DESTINATION_REJECTED),
        ({"fail": "no-route"}, core_pb2.LIGHTNING_FAILURE_NO_ROUTE),
        ({"route_cltv_delta": 500}, core_pb2.LIGHTNING_FAILURE_CLTV_TOO_LONG),
    ],
)
async def test_payment_that_fails_is_revoked(
    alice: LightningClient, outside: Outside, behaviour: dict[str, Any], reason: int
) -> None:
    invoice = await ask(outside, **behaviour)
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT, retry_for_secs=0)
    status = await alice.payment_status(invoice.payment_hash, wait=True)
    assert status.failed.reason == reason
    (note,) = await alice.notes()
    assert note.lightning_send_finished.failure.reason == reason
    assert not note.lightning_send_finished.HasField("preimage")
    (back,) = await alice.revoke(htlcs)
    assert back.amount_sat == sum(vtxo.amount_sat for vtxo in htlcs)
    assert await alice.spend_state(back.id) == SPENDABLE
    assert await alice.spend_state(htlcs[0].id) == SPENT
    (again,) = await alice.revoke(htlcs)
    assert again.id == back.id, "revoking again changes nothing"


async def test_routing_budget_is_the_fee_less_the_servers_part_and_the_surplus(
    alice: LightningClient, outside: Outside
) -> None:
    board = await alice.board()
    fee_sat = await alice.fee_sat(PAID_SAT, [board])
    budget_msat = (fee_sat * 900_000 // 1_000_000 + 7) * 1000
    dear = await ask(outside, route_fee_msat=budget_msat + 1)
    htlcs = await alice.htlcs([board], dear.payment_hash, PAID_SAT, fee_sat=fee_sat + 7)
    await alice.call(alice.ark.InitiateLightningPayment, alice.initiation(dear.text, htlcs, PAID_SAT))
    status = await alice.payment_status(dear.payment_hash, wait=True)
    assert status.failed.reason == core_pb2.LIGHTNING_FAILURE_FEE_TOO_LOW

    affordable = await ask(outside, route_fee_msat=budget_msat)
    htlcs = await alice.htlcs([await alice.board()], affordable.payment_hash, PAID_SAT, fee_sat=fee_sat + 7)
    await alice.call(alice.ark.InitiateLightningPayment, alice.initiation(affordable.text, htlcs, PAID_SAT))
    assert (await alice.payment_status(affordable.payment_hash, wait=True)).HasField("success")


async def test_failed_payment_can_be_tried_again(alice: LightningClient, outside: Outside) -> None:
    invoice = await ask(outside, fail="destination-rejected", fail_times=1)
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    assert (await alice.payment_status(invoice.payment_hash, wait=True)).HasField("failed")
    await alice.revoke(htlcs)
    await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    assert (await alice.payment_status(invoice.payment_hash, wait=True)).HasField("success")
    assert len(await alice.notes()) == 1, "one note per payment hash, ever"


async def test_payment_that_is_taken_although_it_was_called_failed(
    alice: LightningClient, outside: Outside
) -> None:
    invoice = await ask(outside, late=True)
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    assert (await alice.payment_status(invoice.payment_hash, wait=True)).HasField("failed")
    refusal = await alice.refused_revocation(htlcs)
    assert refusal.code == "INVALID_ARGUMENT"
    preimage = bytes.fromhex(refusal.text.rpartition("invoice has already been paid, preimage: ")[2])
    assert sha256(preimage) == invoice.payment_hash


async def test_held_payment_is_revoked_once_its_htlcs_are_over(
    alice: LightningClient, outside: Outside, chain: FakeServerChain
) -> None:
    invoice = await ask(outside, never=True)
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    policy = htlcs[0].policy
    assert isinstance(policy, ServerHtlcSendPolicy)
    missing = policy.htlc_expiry_height - (await chain.tip()).height
    chain.mine(count=missing)
    assert await alice.refused_revocation(htlcs) == rejected(
        "bad user input: This lightning payment is not eligible for revocation yet"
    )
    chain.mine()
    await alice.revoke(htlcs)
    status = await alice.payment_status(invoice.payment_hash)
    assert status.HasField("pending"), "the attempt stays open"


async def test_held_payment_that_is_taken_at_last_is_not_revoked(
    alice: LightningClient, outside: Outside, chain: FakeServerChain, server: ArkServer, node: ServerNode
) -> None:
    invoice = await ask(outside, never=True)
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    chain.mine(count=300)
    # The server does not hear of it before it is asked to revoke.
    node.listen(lambda payment_hash: None)
    await outside.settle(invoice.payment_hash)
    refusal = await alice.refused_revocation(htlcs)
    assert refusal.code == "INVALID_ARGUMENT"
    assert "preimage: " in refusal.text
    assert (await alice.payment_status(invoice.payment_hash)).HasField("success")


async def test_hold_invoice_settles_or_fails_on_demand(alice: LightningClient, outside: Outside) -> None:
    settled, failed = await ask(outside, hold=True), await ask(outside, hold=True)
    for invoice in (settled, failed):
        await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
        assert (await alice.payment_status(invoice.payment_hash)).HasField("pending")
    preimage = await outside.settle(settled.payment_hash)
    status = await alice.payment_status(settled.payment_hash, wait=True)
    assert status.success.preimage == preimage
    await outside.fail(failed.payment_hash, core_pb2.LIGHTNING_FAILURE_OTHER)  # type: ignore[arg-type]
    assert (await alice.payment_status(failed.payment_hash, wait=True)).HasField("failed")


async def test_held_payment_comes_back_when_it_expires(
    alice: LightningClient, outside: Outside, chain: FakeServerChain, node: ServerNode
) -> None:
    invoice = await ask(outside, hold=True)
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    chain.mine(count=invoice.min_final_cltv_delta)
    await node.let_go()
    assert (await alice.payment_status(invoice.payment_hash, wait=True)).HasField("failed")
    await alice.revoke(htlcs)


async def test_node_that_is_away_leaves_no_attempt(
    alice: LightningClient, outside: Outside, node: ServerNode, server: ArkServer, clock: SettableClock
) -> None:
    invoice = await ask(outside)
    node.is_online = False
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    clock.now += 60
    await server.lightning.sweep()
    status = await alice.payment_status(invoice.payment_hash, wait=True)
    assert status.failed.reason == core_pb2.LIGHTNING_FAILURE_OTHER
    await alice.revoke(htlcs)


# --- what is refused: HTLCs


async def test_old_clients_are_refused(alice: LightningClient) -> None:
    refusal = await alice.refusal(
        alice.ark.RequestLightningPayHtlcCosign, pb.LightningPayHtlcCosignRequest(), OLD_METADATA
    )
    assert refusal == rejected(
        "bad user input: Your client version is too old, you need to update in order to be able to send "
        "Lightning payments."
    )


async def test_htlcs_that_are_refused(alice: LightningClient, chain: FakeServerChain) -> None:
    board = await alice.board()
    payment_hash = token_bytes(32)
    policy = await alice.htlc_policy(payment_hash)

    async def refusal(*outputs: tuple[int, PubkeyPolicy | ServerHtlcSendPolicy]) -> Refusal:
        change_sat = board.amount_sat - sum(amount_sat for amount_sat, _ in outputs)
        payment = alice.prepare_payment([board], [*outputs, (change_sat, alice.policy)])
        return await alice.refusal(alice.ark.RequestLightningPayHtlcCosign, htlc_request(payment))

    assert await refusal((5_000, PubkeyPolicy(SecretKey.generate().public_key))) == rejected(
        "error making payment: bad user input: no HTLC outputs provided"
    )
    assert await refusal((5_000, replace(policy, lock=HashLock.V0))) == rejected(
        "error making payment: bad user input: no HTLC outputs provided"
    )
    other = replace(policy, payment_hash=token_bytes(32))
    assert await refusal((5_000, policy), (5_000, other)) == Refusal(
        "INTERNAL", "error making payment: not all HTLC outputs are identical", None
    )
    tip_height = (await chain.tip()).height
    early = replace(policy, htlc_expiry_height=tip_height + 256)
    assert await refusal((5_000, early)) == rejected(
        "error making payment: tx body error: bad user input: requested expiry is too low. "
        f"our tip is {tip_height}. sync your node and try again"
    )
    outputs = [(1_000, policy)] * 4
    assert (await refusal(*outputs)).text.endswith("(5 > 4)")


async def test_htlcs_for_a_payment_that_is_under_way_or_done(
    alice: LightningClient, outside: Outside
) -> None:
    for behaviour, text in (
        ({"hold": True}, "payment already in progress for this invoice"),
        ({}, "invoice has already been paid"),
    ):
        invoice = await ask(outside, **behaviour)
        await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
        if not behaviour:
            await alice.payment_status(invoice.payment_hash, wait=True)
        payment = alice.prepare_htlcs(
            [await alice.board()], 5_000, await alice.htlc_policy(invoice.payment_hash)
        )
        refusal = await alice.refusal(alice.ark.RequestLightningPayHtlcCosign, htlc_request(payment))
        assert refusal == rejected(f"error making payment: tx body error: bad user input: {text}")


async def test_cosign_of_the_same_htlcs_is_repeated(alice: LightningClient) -> None:
    board = await alice.board()
    policy = await alice.htlc_policy(token_bytes(32))
    made = []
    for _ in range(2):
        payment = alice.prepare_htlcs([board], 5_000, policy)
        answer = await alice.call(alice.ark.RequestLightningPayHtlcCosign, htlc_request(payment))
        made.append(alice.finish_payment(payment, answer))
    assert [vtxo.id for vtxo in made[0]] == [vtxo.id for vtxo in made[1]]
    assert [await alice.spend_state(vtxo.id) for vtxo in made[0]] == [UNREGISTERED, UNREGISTERED]
    other = alice.prepare_htlcs([board], 5_000, replace(policy, payment_hash=token_bytes(32)))
    refusal = await alice.refusal(alice.ark.RequestLightningPayHtlcCosign, htlc_request(other))
    assert refusal.code == "INTERNAL"
    assert refusal.text.startswith("error making payment: tx body error: vtxo ")
    assert refusal.text.endswith("is already spent")


async def test_cosign_without_the_owners_attestation(alice: LightningClient) -> None:
    payment = alice.prepare_htlcs([await alice.board()], 5_000, await alice.htlc_policy(token_bytes(32)))
    request = htlc_request(payment)
    request.parts[0].attestation = bytes(64)
    refusal = await alice.refusal(alice.ark.RequestLightningPayHtlcCosign, request)
    assert refusal.code == "INVALID_ARGUMENT"
    assert refusal.text.endswith("Invalid attestation")


# --- what is refused: starting


async def test_payments_that_are_not_started(
    alice: LightningClient, outside: Outside, server: ArkServer
) -> None:
    invoice = await ask(outside)
    board = await alice.board()
    (htlc,) = await alice.htlcs([board], invoice.payment_hash, PAID_SAT, register=False)

    async def refusal(request: pb.InitiateLightningPaymentRequest) -> Refusal:
        return await alice.refusal(alice.ark.InitiateLightningPayment, request)

    good = alice.initiation(invoice.text, [htlc], PAID_SAT)
    assert await refusal(good) == rejected(
        f"tx body error: bad user input: vtxo {htlc.id} is not spendable (state: unregistered)"
    )
    await alice.register(htlc)
    assert (await refusal(alice.initiation("lnbcrt1", [htlc], PAID_SAT))).text.startswith(
        "bad user input: invalid invoice: cannot parse invoice"
    )
    assert await refusal(alice.initiation(invoice.text, [board], PAID_SAT)) == rejected(
        f"tx body error: bad user input: vtxo {board.id} is not an htlc-send vtxo (policy: pubkey)"
    )
    twice = alice.initiation(invoice.text, [htlc, htlc], PAID_SAT)
    assert await refusal(twice) == Refusal("NOT_FOUND", "tx body error: not found: vtxo does not exist", "")
    unknown = alice.initiation(invoice.text, [], PAID_SAT)
    unknown.htlc_vtxo_ids.append(VtxoId.parse("11" * 32 + ":0"))
    assert (await refusal(unknown)).code == "NOT_FOUND"
    other = await ask(outside)
    assert (await refusal(alice.initiation(other.text, [htlc], PAID_SAT))).text.endswith(
        "htlc payment hash doesn't match invoice"
    )
    assert (await refusal(alice.initiation(invoice.text, [htlc], PAID_SAT - 1))).text.endswith(
        "requested payment amount too low for invoice"
    )
    assert (await refusal(alice.initiation(invoice.text, [htlc], 2 * PAID_SAT + 1))).text.endswith(
        "requested payment amount more than double invoice amount"
    )
    await server.ban_vtxo(htlc.id, 10)
    assert "is banned until block" in (await refusal(good)).text
    await server.unban_vtxo(htlc.id)
    await alice.call(alice.ark.InitiateLightningPayment, good)


async def test_one_sat_less_than_the_fee_is_refused(alice: LightningClient, outside: Outside) -> None:
    invoice = await ask(outside)
    board = await alice.board()
    fee_sat = await alice.fee_sat(PAID_SAT, [board])
    htlcs = await alice.htlcs([board], invoice.payment_hash, PAID_SAT, fee_sat=fee_sat - 1)
    refusal = await alice.refusal(
        alice.ark.InitiateLightningPayment, alice.initiation(invoice.text, htlcs, PAID_SAT)
    )
    assert refusal == rejected(
        "bad user input: HTLC VTXO sum of 0.00010114 BTC is less than the payment amount of 0.00010000 BTC "
        "plus fees of 0.00000115 BTC"
    )
    # What was not started can be taken back at once.
    await alice.revoke(htlcs)


async def test_starting_again(alice: LightningClient, outside: Outside) -> None:
    invoice = await ask(outside, hold=True)
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    again = alice.initiation(invoice.text, htlcs, PAID_SAT)
    await alice.call(alice.ark.InitiateLightningPayment, again)
    await outside.settle(invoice.payment_hash)
    await alice.payment_status(invoice.payment_hash, wait=True)
    assert (await alice.refusal(alice.ark.InitiateLightningPayment, again)).text.endswith(
        "is not spendable (state: ln-spent)"
    )


async def test_status_of_an_unknown_payment(alice: LightningClient) -> None:
    payment_hash = token_bytes(32)
    refusal = await alice.refusal(
        alice.ark.CheckLightningPayment, pb.CheckLightningPaymentRequest(hash=payment_hash)
    )
    assert refusal.code == "NOT_FOUND"
    assert refusal.text.endswith("not found: payment attempt not found")


# --- what is refused: revocations


async def test_revocations_that_are_refused(alice: LightningClient, outside: Outside) -> None:
    invoice = await ask(outside, hold=True)
    htlcs = await alice.start_payment(invoice.text, invoice.payment_hash, PAID_SAT)
    revoke = alice.ark.RequestLightningPayHtlcRevocation
    empty = await alice.refusal(revoke, pb.ArkoorPackageCosignRequest())
    assert empty == Refusal("INTERNAL", "all revocation vtxo requests must have the same policy", None)
    to_htlc = alice.prepare_revocation(htlcs, await alice.htlc_policy(invoice.payment_hash))
    assert await alice.refusal(revoke, to_htlc.request) == rejected(
        "bad user input: pay htlcs revocation policy must be pubkey"
    )
    of_coin = alice.prepare_revocation([await alice.board()])
    assert await alice.refusal(revoke, of_coin.request) == Refusal("INTERNAL", "vtxo is not htlc send", None)
    assert await alice.refused_revocation(htlcs) == rejected(
        "bad user input: This lightning payment is not eligible for revocation yet"
    )
    await outside.settle(invoice.payment_hash)
    status = await alice.payment_status(invoice.payment_hash, wait=True)
    assert await alice.refused_revocation(htlcs) == rejected(
        "tx body error: bad user input: invoice has already been paid, preimage: "
        + status.success.preimage.hex()
    )


async def test_unregistered_htlc_is_not_revoked(alice: LightningClient) -> None:
    (htlc,) = await alice.htlcs([await alice.board()], token_bytes(32), PAID_SAT, register=False)
    assert await alice.refused_revocation([htlc]) == rejected(
        f"tx body error: bad user input: vtxo doesn't exist or is unspendable: {htlc.id}"
    )
    await alice.register(htlc)
    await alice.revoke([htlc])
