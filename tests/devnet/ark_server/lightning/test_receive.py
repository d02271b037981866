"""Being paid by nodes outside Ark: the invoice, the grant, the claim, and all that can be in the way."""

import asyncio
from secrets import token_bytes
from typing import Any

import pytest

from barkd_py.ark.attestations import attest, lightning_receive_message
from barkd_py.ark.clause import HashLock
from barkd_py.ark.fees import lightning_receive_fee
from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcReceivePolicy
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.bolt11 import Bolt11Invoice, Currency
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.devnet.ark_server.faults import Fault, Kind, Stage
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.store.lightning_rows import FailureReason
from barkd_py.devnet.lightning.outside import Outside
from barkd_py.devnet.lightning.rows import Incoming
from barkd_py.devnet.lightning.server_node import ServerNode
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from tests.devnet.ark_server.client import Refusal
from tests.devnet.ark_server.conftest import SettableClock
from tests.devnet.ark_server.lightning.client import (
    CLTV_DELTA,
    OLD_METADATA,
    LightningClient,
    Receive,
)
from tests.devnet.ark_server.lightning.conftest import POOL_SAT
from tests.fakes.server_chain import FakeServerChain
from tests.support.processes import until

SPENDABLE, SPENT, UNREGISTERED, GRANTED = 1, 2, 4, 5
ASKED_SAT = 30_000


def rejected(text: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", text, None)


async def pay(alice: LightningClient, outside: Outside, receive: Receive) -> Incoming:
    """Pay from outside; the server has it when this returns."""
    payment = await outside.pay(receive.text)
    status = await alice.receive_status(receive.payment_hash, wait=True)
    assert status.status == pb.ACCEPTED
    return payment


# --- the whole way


async def test_payment_from_outside(
    alice: LightningClient, outside: Outside, server: ArkServer, chain: FakeServerChain
) -> None:
    receive = await alice.receive(ASKED_SAT, description="for tea")
    assert receive.invoice.amount_msat == ASKED_SAT * 1000
    assert receive.invoice.description == "for tea"
    assert receive.invoice.currency is Currency.REGTEST
    assert receive.invoice.min_final_cltv_delta == CLTV_DELTA + server.settings.htlc_expiry_delta
    assert receive.payment_hash == sha256(receive.preimage)
    payment = await pay(alice, outside, receive)
    (note,) = await alice.notes()
    assert note.incoming_lightning_payment.payment_hash == receive.payment_hash
    assert note.incoming_lightning_payment.amount_msat == ASKED_SAT * 1000

    granted = await alice.grant(receive.payment_hash)
    fee_sat = lightning_receive_fee(server.settings.fees, ASKED_SAT)
    assert sum(vtxo.amount_sat for vtxo in granted) == ASKED_SAT - fee_sat
    for vtxo in granted:
        anchor_tx = await chain.get_tx(vtxo.anchor_point.txid)
        assert anchor_tx is not None
        validate(vtxo, anchor_tx)
        assert vtxo.policy == ServerHtlcReceivePolicy(
            alice.public_key, receive.payment_hash, (await chain.tip()).height + CLTV_DELTA - 2, 6
        )
        assert await alice.spend_state(vtxo.id) == GRANTED
    assert [vtxo.id for vtxo in await alice.grant(receive.payment_hash)] == [vtxo.id for vtxo in granted]

    claimed = await alice.claim(receive, granted)
    assert sum(vtxo.amount_sat for vtxo in claimed) == ASKED_SAT - fee_sat
    assert {await alice.spend_state(vtxo.id) for vtxo in claimed} == {SPENDABLE}
    assert {await alice.spend_state(vtxo.id) for vtxo in granted} == {SPENT}
    outcome = await outside.outcome(payment)
    assert (outcome.state, outcome.preimage) == ("settled", receive.preimage)
    # The payer knows before the books say so.
    await server.lightning.advance(receive.payment_hash)
    assert (await alice.receive_status(receive.payment_hash)).status == pb.SETTLED
    again = await alice.claim(receive, granted)
    assert [vtxo.id for vtxo in again] == [vtxo.id for vtxo in claimed]
    # What was claimed is as good as any other coin.
    (paid_on,) = await alice.pay(
        claimed, (ASKED_SAT - fee_sat, PubkeyPolicy(SecretKey.generate().public_key))
    )
    assert paid_on.amount_sat == ASKED_SAT - fee_sat


async def test_payment_in_parts_and_too_much(alice: LightningClient, outside: Outside) -> None:
    receive = await alice.receive(ASKED_SAT)
    first = await outside.pay(receive.text, amount_msat=10_000_000)
    assert (await alice.receive_status(receive.payment_hash)).status == pb.CREATED
    second = await outside.pay(receive.text, amount_msat=40_000_000)
    await alice.receive_status(receive.payment_hash, wait=True)
    granted = await alice.grant(receive.payment_hash)
    await alice.claim(receive, granted)
    assert [(await outside.outcome(each)).state for each in (first, second)] == ["settled", "settled"]


async def test_part_that_stays_alone_goes_back(
    alice: LightningClient, outside: Outside, node: ServerNode, clock: SettableClock
) -> None:
    receive = await alice.receive(ASKED_SAT)
    part = await outside.pay(receive.text, amount_msat=10_000_000)
    clock.now += 61
    await node.let_go()
    assert (await outside.outcome(part)).state == "failed"
    await pay(alice, outside, receive)


@pytest.mark.parametrize("amount_sat", [102, 430, 20_000, 100_000, 250_000, 270_000])
async def test_amounts(alice: LightningClient, outside: Outside, server: ArkServer, amount_sat: int) -> None:
    """One coin of the pool, several, nearly all; dust too."""
    receive = await alice.receive(amount_sat)
    await pay(alice, outside, receive)
    granted = await alice.grant(receive.payment_hash)
    wanted_sat = amount_sat - lightning_receive_fee(server.settings.fees, amount_sat)
    assert sum(vtxo.amount_sat for vtxo in granted) == wanted_sat
    claimed = await alice.claim(receive, granted)
    assert sum(vtxo.amount_sat for vtxo in claimed) == wanted_sat


async def test_change_of_the_pool_is_granted_again(
    alice: LightningClient, outside: Outside, server: ArkServer
) -> None:
    assert await server.pool.balance_sat() == sum(POOL_SAT)
    for count in (1, 2):
        receive = await alice.receive(5_110)
        await pay(alice, outside, receive)
        (vtxo,) = await alice.grant(receive.payment_hash)
        assert vtxo.amount_sat == 5_000 - 1
        assert vtxo.exit_depth == 1 + count
        assert await server.pool.balance_sat() == sum(POOL_SAT) - count * 4_999


# --- invoices


async def test_asking_again_gives_the_same_invoice(alice: LightningClient) -> None:
    payment_hash = token_bytes(32)
    request = alice.start_request(payment_hash, ASKED_SAT)
    first = await alice.call(alice.ark.StartLightningReceive, request)
    request.amount_sat = 1_000
    assert await alice.call(alice.ark.StartLightningReceive, request) == first


async def test_invoices_that_are_refused(alice: LightningClient) -> None:
    async def refusal(amount_sat: int, **fields: object) -> Refusal:
        request = alice.start_request(token_bytes(32), amount_sat, **fields)
        return await alice.refusal(alice.ark.StartLightningReceive, request)

    assert (await refusal(0)).text.startswith("bad user input: Cannot create invoice for 0 sats (")
    assert await refusal(101) == Refusal(
        "INTERNAL", "Fee (0.00000101 BTC) exceeds amount (0.00000101 BTC)", None
    )
    assert await refusal(ASKED_SAT, min_cltv_delta=251) == Refusal(
        "INTERNAL",
        "Requested min HTLC CLTV delta is greater than max HTLC recv CLTV delta: requested: 251, max: 250",
        None,
    )
    assert (await refusal(ASKED_SAT, description="x" * 640)).code == "INVALID_ARGUMENT"
    old = await alice.refusal(
        alice.ark.StartLightningReceive, alice.start_request(token_bytes(32), 1_000), OLD_METADATA
    )
    assert old.text.endswith("you need to update in order to be able to receive Lightning payments.")


async def test_cltv_is_cut_to_16_bits(alice: LightningClient) -> None:
    receive = await alice.receive(ASKED_SAT, min_cltv_delta=65_636)
    assert receive.invoice.min_final_cltv_delta == 100 + 6


async def test_unknown_hashes(alice: LightningClient) -> None:
    payment_hash = token_bytes(32)
    check = pb.CheckLightningReceiveRequest(hash=payment_hash)
    assert (await alice.refusal(alice.ark.CheckLightningReceive, check)).text == (
        "not found: invoice not found"
    )
    grant = await alice.grant_request(payment_hash)
    cancel = pb.CancelLightningReceiveRequest(payment_hash=payment_hash)
    for method, request in (
        (alice.ark.PrepareLightningReceiveClaim, grant),
        (alice.ark.CancelLightningReceive, cancel),
    ):
        assert await alice.refusal(method, request) == Refusal(
            "NOT_FOUND", "not found: no pending payment with this payment hash", payment_hash.hex()
        )


class TestLimits:
    """A server with limits, and one that wants to know whom it pays."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(
            max_vtxo_amount_sat=50_000,
            max_ln_receive_amount_sat=40_000,
            ln_receive_anti_dos_required=True,
            pool_amounts_sat=POOL_SAT,
        )

    async def test_amounts(self, alice: LightningClient) -> None:
        for amount_sat, text in (
            (50_001, "Requested amount exceeds limit of 0.00050000 BTC"),
            (40_001, "Requested amount exceeds lightning receive limit of 0.00040000 BTC"),
        ):
            request = alice.start_request(token_bytes(32), amount_sat)
            refusal = await alice.refusal(alice.ark.StartLightningReceive, request)
            assert refusal == rejected(f"bad user input: {text}")

    async def test_strangers(self, alice: LightningClient, bob: LightningClient, outside: Outside) -> None:
        board, other = await alice.board(30_000), await alice.board(30_000)
        receive = await alice.receive(ASKED_SAT)
        await pay(alice, outside, receive)
        prepare = alice.ark.PrepareLightningReceiveClaim

        async def refusal(**fields: object) -> Refusal:
            return await alice.refusal(prepare, await alice.grant_request(receive.payment_hash, **fields))

        def proof(vtxo: Vtxo, secret: SecretKey, payment_hash: bytes = receive.payment_hash) -> pb.InputVtxo:
            message = lightning_receive_message(payment_hash, vtxo.id)
            return pb.InputVtxo(vtxo_id=vtxo.id, attestation=attest(message, secret))

        assert await refusal() == rejected(
            "bad user input: either a receive token or a challenge proof must be provided"
        )
        assert (await refusal(token="123")).text == "not found: token not found"
        assert await refusal(input_vtxo=proof(board, bob.secret)) == rejected(
            "bad user input: vtxo attestation invalid"
        )
        assert (await refusal(input_vtxo=proof(board, alice.secret, token_bytes(32)))).code == (
            "INVALID_ARGUMENT"
        )
        (gone,) = await alice.pay([board], (board.amount_sat, bob.policy))
        assert (await refusal(input_vtxo=proof(board, alice.secret))).text.startswith(
            "bad user input: anti-dos proof vtxo must be spendable: "
        )
        assert gone.amount_sat == board.amount_sat
        request = await alice.grant_request(receive.payment_hash, input_vtxo=proof(other, alice.secret))
        assert (await alice.call(prepare, request)).htlc_vtxos


# --- the grant


async def test_grants_that_are_refused(
    alice: LightningClient, outside: Outside, chain: FakeServerChain
) -> None:
    receive = await alice.receive(ASKED_SAT)
    prepare = alice.ark.PrepareLightningReceiveClaim

    async def refusal(**fields: object) -> Refusal:
        return await alice.refusal(prepare, await alice.grant_request(receive.payment_hash, **fields))

    assert await refusal() == rejected("bad user input: payment not yet initiated by sender")
    payment = await pay(alice, outside, receive)
    latest = payment.expiry_height - 6
    assert (await refusal(htlc_recv_expiry=latest + 1)).text.startswith(
        "bad user input: Requested HTLC recv expiry too close to inbound HTLC expiry: "
    )
    chain.mine(count=latest - (await chain.tip()).height + 1)
    assert (await refusal()).text.startswith("bad user input: Inbound HTLC too close to expiring: ")


async def test_two_grants_at_once(alice: LightningClient, outside: Outside, server: ArkServer) -> None:
    receive = await alice.receive(ASKED_SAT)
    await pay(alice, outside, receive)
    request = await alice.grant_request(receive.payment_hash)
    number = server.faults.set(Fault("lightning.grant", Stage.ENGINE, Kind.DELAY, seconds=3_600))
    granted = asyncio.create_task(alice.call(alice.ark.PrepareLightningReceiveClaim, request))

    async def is_being_granted() -> bool:
        return [fault["hits"] for fault in server.faults.list()] == [1]

    await until(is_being_granted)
    refused = await alice.refusal(alice.ark.PrepareLightningReceiveClaim, request)
    assert refused == Refusal("INTERNAL", "a claim for this payment hash is already in progress", None)
    server.faults.remove(number)
    assert (await granted).htlc_vtxos


async def test_empty_pool_is_filled_by_the_next_block(
    alice: LightningClient, outside: Outside, server: ArkServer, chain: FakeServerChain
) -> None:
    receive = await alice.receive(sum(POOL_SAT) * 2)
    await pay(alice, outside, receive)
    for _ in range(2):
        request = await alice.grant_request(receive.payment_hash)
        refusal = await alice.refusal(alice.ark.PrepareLightningReceiveClaim, request)
        assert refusal == Refusal("INTERNAL", "vtxopool error: vtxo pool is empty", None)
        assert (await alice.receive_status(receive.payment_hash)).status == pb.ACCEPTED
    (funding_tx,) = chain.mempool.values()
    chain.mine(funding_tx)
    await server.follower.catch_up()
    assert await alice.grant(receive.payment_hash)


async def test_pool_that_is_half_empty_is_filled(
    alice: LightningClient, outside: Outside, server: ArkServer, chain: FakeServerChain
) -> None:
    receive = await alice.receive(200_000)
    await pay(alice, outside, receive)
    await alice.grant(receive.payment_hash)
    await server.lightning.sweep()
    (funding_tx,) = chain.mempool.values()
    assert [output.value_sat for output in funding_tx.outputs[:-1]] == list(POOL_SAT)


async def test_pool_without_money(
    alice: LightningClient, outside: Outside, server: ArkServer, chain: FakeServerChain
) -> None:
    receive = await alice.receive(20_000_000)
    await pay(alice, outside, receive)
    request = await alice.grant_request(receive.payment_hash)
    refusal = await alice.refusal(alice.ark.PrepareLightningReceiveClaim, request)
    assert refusal == Refusal("INTERNAL", "vtxopool error: vtxo pool is empty", None)
    assert not chain.mempool


# --- the claim


async def test_claims_that_are_refused(
    alice: LightningClient, outside: Outside, chain: FakeServerChain
) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    granted = await alice.grant(receive.payment_hash)
    _, good = alice.prepare_claim(receive, granted)

    async def refusal(request: pb.ClaimLightningReceiveRequest) -> Refusal:
        return await alice.refusal(alice.ark.ClaimLightningReceive, request)

    wrong = pb.ClaimLightningReceiveRequest()
    wrong.CopyFrom(good)
    wrong.payment_preimage = token_bytes(32)
    assert await refusal(wrong) == rejected("bad user input: preimage doesn't match payment hash")
    wrong.CopyFrom(good)
    wrong.ClearField("cosign_request")
    assert await refusal(wrong) == rejected("bad user input: cosign request missing")
    wrong.CopyFrom(good)
    del wrong.cosign_request.parts[:]
    assert await refusal(wrong) == Refusal("INTERNAL", "no destination VTXO policy present", None)
    other = await alice.board()
    _, foreign = alice.prepare_claim(receive, [other])
    assert (await refusal(foreign)).text.startswith("bad user input: cosign inputs do not match htlcs: ")
    assert (await alice.receive_status(receive.payment_hash)).status == pb.HTLCS_READY
    chain.mine(count=payment.expiry_height - 3 - (await chain.tip()).height + 1)
    assert (await refusal(good)).text.endswith("to safely settle the hold invoice")


async def test_claim_at_the_last_moment(
    alice: LightningClient, outside: Outside, chain: FakeServerChain
) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    granted = await alice.grant(receive.payment_hash)
    chain.mine(count=payment.expiry_height - 3 - (await chain.tip()).height)
    await alice.claim(receive, granted)
    assert (await outside.outcome(payment)).state == "settled"


async def test_claim_to_another_destination_is_frozen(alice: LightningClient, outside: Outside) -> None:
    receive = await alice.receive(ASKED_SAT)
    await pay(alice, outside, receive)
    granted = await alice.grant(receive.payment_hash)
    await alice.claim(receive, granted)
    _, other = alice.prepare_claim(receive, granted, SecretKey.generate())
    refusal = await alice.refusal(alice.ark.ClaimLightningReceive, other)
    assert refusal.code == "INTERNAL"
    assert refusal.text.endswith("is already spent")


async def test_claim_whose_answer_is_lost_pays_the_server_and_can_be_repeated(
    alice: LightningClient, outside: Outside, server: ArkServer
) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    granted = await alice.grant(receive.payment_hash)
    server.faults.set(Fault("ClaimLightningReceive", Stage.AFTER_COMMIT, Kind.DROP))
    _, request = alice.prepare_claim(receive, granted)
    assert (await alice.refusal(alice.ark.ClaimLightningReceive, request)).code == "CANCELLED"
    assert (await outside.outcome(payment)).state == "settled"
    await alice.claim(receive, granted)


# --- giving up


async def test_cancelling(alice: LightningClient, outside: Outside) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    cancel = pb.CancelLightningReceiveRequest(payment_hash=receive.payment_hash)
    await alice.call(alice.ark.CancelLightningReceive, cancel)
    assert (await outside.outcome(payment)).reason is FailureReason.DESTINATION_REJECTED
    await alice.call(alice.ark.CancelLightningReceive, cancel)
    assert (await outside.pay(receive.text)).state == "failed", "nobody can pay it any more"
    refusal = await alice.refusal(
        alice.ark.PrepareLightningReceiveClaim, await alice.grant_request(receive.payment_hash)
    )
    assert refusal == rejected("bad user input: payment canceled")


async def test_cancelled_hash_again_is_the_first_invoice_without_notes(
    alice: LightningClient, outside: Outside
) -> None:
    receive = await alice.receive(ASKED_SAT)
    cancel = pb.CancelLightningReceiveRequest(payment_hash=receive.payment_hash)
    await alice.call(alice.ark.CancelLightningReceive, cancel)
    request = alice.start_request(receive.payment_hash, 1_000)
    assert (await alice.call(alice.ark.StartLightningReceive, request)).bolt11 == receive.text
    await pay(alice, outside, receive)
    assert await alice.notes() == []
    await alice.claim(receive, await alice.grant(receive.payment_hash))


async def test_too_late_to_cancel(alice: LightningClient, outside: Outside, server: ArkServer) -> None:
    receive = await alice.receive(ASKED_SAT)
    cancel = pb.CancelLightningReceiveRequest(payment_hash=receive.payment_hash)
    await pay(alice, outside, receive)
    start = alice.start_request(receive.payment_hash, ASKED_SAT)
    for status, text in (("accepted", ""), ("has htlcs ready", "HTLC-recv vtxos have already been granted")):
        refusal = await alice.refusal(alice.ark.StartLightningReceive, start)
        assert refusal == Refusal("INTERNAL", f"invoice already {status}", None)
        if text:
            refusal = await alice.refusal(alice.ark.CancelLightningReceive, cancel)
            assert refusal == rejected(f"bad user input: cannot cancel: {text}")
        granted = await alice.grant(receive.payment_hash)
    await alice.claim(receive, granted)
    await server.lightning.advance(receive.payment_hash)
    refusal = await alice.refusal(alice.ark.CancelLightningReceive, cancel)
    assert refusal == rejected("bad user input: cannot cancel: payment already settled")
    refusal = await alice.refusal(alice.ark.StartLightningReceive, start)
    assert refusal == Refusal("INTERNAL", "invoice already settled", None)


async def test_receiver_who_does_not_come(
    alice: LightningClient, outside: Outside, server: ArkServer, clock: SettableClock
) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    clock.now += server.settings.receive_htlc_forward_timeout_secs - 1
    await server.lightning.sweep()
    assert (await alice.receive_status(receive.payment_hash)).status == pb.ACCEPTED
    clock.now += 1
    await server.lightning.sweep()
    assert (await alice.receive_status(receive.payment_hash)).status == pb.CANCELED
    assert (await outside.outcome(payment)).state == "failed"


async def test_invoice_that_expires_takes_the_grant_with_it(
    alice: LightningClient, outside: Outside, server: ArkServer, clock: SettableClock
) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    granted = await alice.grant(receive.payment_hash)
    clock.now = receive.invoice.expires_at + 1
    await server.lightning.sweep()
    assert (await outside.outcome(payment)).state == "failed"
    _, request = alice.prepare_claim(receive, granted)
    assert await alice.refusal(alice.ark.ClaimLightningReceive, request) == rejected(
        "bad user input: payment status in incorrect state: canceled"
    )


async def test_payment_that_expires_too_early_is_not_taken(
    alice: LightningClient, outside: Outside, server: ArkServer, chain: FakeServerChain, node: ServerNode
) -> None:
    receive = await alice.receive(ASKED_SAT)
    node.listen(lambda payment_hash: None)
    payment = await outside.pay(receive.text)
    chain.mine(count=2)
    await server.lightning.advance(receive.payment_hash)
    assert (await outside.outcome(payment)).state == "failed"
    assert (await alice.receive_status(receive.payment_hash)).status == pb.CANCELED


async def test_payers_get_their_money_back_when_it_expires(
    alice: LightningClient, outside: Outside, chain: FakeServerChain, node: ServerNode
) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    chain.mine(count=payment.expiry_height - (await chain.tip()).height)
    await node.let_go()
    assert (await outside.outcome(payment)).state == "failed"


async def test_payer_is_settled_with_after_the_node_was_away(
    alice: LightningClient, outside: Outside, server: ArkServer, node: ServerNode
) -> None:
    receive = await alice.receive(ASKED_SAT)
    payment = await pay(alice, outside, receive)
    granted = await alice.grant(receive.payment_hash)
    node.is_online = False
    await alice.claim(receive, granted)
    await server.lightning.advance(receive.payment_hash)
    assert (await alice.receive_status(receive.payment_hash)).status == pb.HTLCS_READY
    refusal = await alice.refusal(
        alice.ark.StartLightningReceive, alice.start_request(token_bytes(32), ASKED_SAT)
    )
    assert refusal == Refusal("INTERNAL", "no active hold-compatible cln node", None)
    node.is_online = True
    await server.lightning.sweep()
    assert (await outside.outcome(payment)).state == "settled"


# --- lies


@pytest.mark.parametrize(
    ("fault", "flaw"),
    [
        ({"path": "amount_sat", "mutation": "add", "value": -1}, {"amount_sat": 29_839}),
        ({"path": "policy.htlc_expiry_height", "mutation": "add", "value": -1}, {"left": CLTV_DELTA - 3}),
        ({"path": "policy.payment_hash", "mutation": "flip"}, {"is_ours": False}),
        ({"path": "policy.lock", "mutation": "set", "value": 0}, {"lock": HashLock.V0}),
    ],
)
async def test_grants_with_a_flaw(
    alice: LightningClient,
    outside: Outside,
    server: ArkServer,
    fault: dict[str, Any],
    flaw: dict[str, object],
) -> None:
    receive = await alice.receive(ASKED_SAT)
    await pay(alice, outside, receive)
    server.faults.set(Fault("lightning.grant", Stage.ENGINE, Kind.MUTATE, **fault))
    (vtxo,) = await alice.grant(receive.payment_hash)
    policy = vtxo.policy
    assert isinstance(policy, ServerHtlcReceivePolicy)
    seen = {
        "amount_sat": vtxo.amount_sat,
        "left": policy.htlc_expiry_height - (await alice.chain.tip()).height,
        "is_ours": policy.payment_hash == receive.payment_hash,
        "lock": policy.lock,
    }
    honest = {"amount_sat": 29_840, "left": CLTV_DELTA - 2, "is_ours": True, "lock": HashLock.V1}
    assert seen == {**honest, **flaw}


async def test_invoices_with_a_flaw(alice: LightningClient, server: ArkServer) -> None:
    for path, mutation, value in (("amount_msat", "add", -1000), ("network", "set", "mainnet")):
        server.faults.set(
            Fault("lightning.invoice", Stage.ENGINE, Kind.MUTATE, path=path, mutation=mutation, value=value)
        )
        preimage = token_bytes(32)
        request = alice.start_request(sha256(preimage), ASKED_SAT)
        invoice = Bolt11Invoice.parse((await alice.call(alice.ark.StartLightningReceive, request)).bolt11)
        assert (invoice.amount_sat, invoice.currency) != (ASKED_SAT, Currency.REGTEST)


async def test_second_grant(alice: LightningClient, outside: Outside, server: ArkServer) -> None:
    receive = await alice.receive(ASKED_SAT)
    await pay(alice, outside, receive)
    first = await alice.grant(receive.payment_hash)
    server.faults.set(Fault("lightning.repeat-grant", Stage.ENGINE, Kind.SWALLOW))
    second = await alice.grant(receive.payment_hash)
    assert {vtxo.id for vtxo in first}.isdisjoint(vtxo.id for vtxo in second)
