"""Registration and out-of-round payments: checks, double spends, repeats.

Source: sheet 10 §3.3, §6.3, §6.4.
"""

from dataclasses import replace

import pytest

from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from tests.devnet.ark_server.client import INVALID, Client, Refusal, bad, registration
from tests.devnet.ark_server.conftest import StartServer
from tests.fakes.server_chain import FakeServerChain

SPENDABLE = pb.VTXO_SPEND_STATE_SPENDABLE
SPENT = pb.VTXO_SPEND_STATE_SPENT
UNREGISTERED = pb.VTXO_SPEND_STATE_UNREGISTERED


def bad_request(text: str) -> Refusal:
    return bad(f"invalid cosign request: {text}")


def stranger() -> PubkeyPolicy:
    return PubkeyPolicy(SecretKey.generate().public_key)


# --- paying


async def test_payment_moves_the_money(alice: Client, bob: Client) -> None:
    vtxo = await alice.board()
    change_sat = vtxo.amount_sat - 60_000
    await alice.register(vtxo)
    payment = alice.prepare_payment([vtxo], [(60_000, bob.policy), (change_sat, alice.policy)])
    answer = await alice.call(alice.ark.RequestArkoorCosign, payment.request)
    paid, change = alice.finish_payment(payment, answer)

    assert await alice.spend_state(vtxo.id) == SPENT
    assert await bob.spend_state(paid.id) == UNREGISTERED
    await bob.register(paid)
    assert await bob.spend_state(paid.id) == SPENDABLE
    assert await alice.spend_state(change.id) == UNREGISTERED
    await alice.register(change)
    (paid_on,) = await bob.pay([paid], (60_000, alice.policy))
    assert await alice.spend_state(paid_on.id) == SPENDABLE
    assert paid_on.exit_depth == 5


async def test_books_say_what_spends_what(alice: Client) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(50_000, stranger()), (vtxo.amount_sat - 50_000, alice.policy)])
    await alice.call(alice.ark.RequestArkoorCosign, payment.request)
    (part,) = payment.parts
    checkpoint, first, second = (step.tx for step in part.transactions)
    assert (await alice.server.vtxo_row(vtxo.id)).spent_by == checkpoint.txid
    for index, spender in enumerate((first, second)):
        row = await alice.server.vtxo_row(VtxoId.of(checkpoint.outpoint(index)))
        assert (row.state, row.spent_by) == (SpendState.SPENT, spender.txid)
        assert row.vtxo.policy.kind == "checkpoint"


async def test_dust_is_paid_behind_an_isolation_output(alice: Client, bob: Client) -> None:
    vtxo = await alice.board()
    paid = await alice.pay([vtxo], (100, bob.policy), (vtxo.amount_sat - 100, alice.policy))
    assert sorted(each.amount_sat for each in paid) == [100, 230, vtxo.amount_sat - 330]
    assert await bob.spend_state(paid[-1].id) == SPENDABLE


async def test_several_inputs_are_spent_together(alice: Client, bob: Client) -> None:
    first, second = await alice.board(), await alice.board()
    total_sat = first.amount_sat + second.amount_sat
    paid = await alice.pay([first, second], (total_sat - 1_000, bob.policy), (1_000, alice.policy))
    assert sum(vtxo.amount_sat for vtxo in paid) == total_sat
    assert await alice.spend_state(first.id) == SPENT
    assert await alice.spend_state(second.id) == SPENT


async def test_repeated_request_is_answered_anew_with_the_same_outcome(alice: Client, bob: Client) -> None:
    vtxo = await alice.board()
    outputs = [(40_000, bob.policy), (vtxo.amount_sat - 40_000, alice.policy)]
    lost = alice.prepare_payment([vtxo], outputs)
    await alice.call(alice.ark.RequestArkoorCosign, lost.request)
    again = alice.prepare_payment([vtxo], outputs)
    answer = await alice.call(alice.ark.RequestArkoorCosign, again.request)
    vtxos = alice.finish_payment(again, answer)
    assert [vtxo.id for vtxo in vtxos] == [vtxo.id for vtxo in lost.parts[0].unsigned_vtxos]
    await alice.register(vtxo, *vtxos)
    third = alice.prepare_payment([vtxo], outputs)
    await alice.call(alice.ark.RequestArkoorCosign, third.request)
    assert await bob.spend_state(vtxos[0].id) == SPENDABLE


# --- refusals, in the order of the checks


async def test_malformed_request_is_internal(alice: Client) -> None:
    vtxo = await alice.board()
    good = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)]).request
    for field, value, text in (
        ("input_vtxo_id", b"\x01", "invalid VTXO ID"),
        ("attestation", b"\x01", "Failed to parse attestation"),
        ("user_pub_nonces", [b"\x01"], "invalid public musig nonce"),
        ("outputs", [pb.ArkoorDestination(total_amount=1, policy=b"\x03")], "invalid policy"),
    ):
        request = pb.ArkoorPackageCosignRequest()
        request.CopyFrom(good)
        if isinstance(value, list):
            del getattr(request.parts[0], field)[:]
            getattr(request.parts[0], field).extend(value)
        else:
            setattr(request.parts[0], field, value)
        refusal = await alice.refusal(alice.ark.RequestArkoorCosign, request)
        text = f"Failed to parse request: rpc conversion error: {text}"
        assert refusal == Refusal("INTERNAL", text, None)


async def test_unknown_inputs_are_named(alice: Client) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    payment.request.parts[0].input_vtxo_id = b"\x11" * 36
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    text = "tx body error: not found: vtxo does not exist"
    assert refusal == Refusal("NOT_FOUND", text, str(VtxoId(b"\x11" * 36)))


async def test_repeated_input_is_not_found_without_a_name(alice: Client) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    payment.request.parts.append(payment.request.parts[0])
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    assert refusal == Refusal("NOT_FOUND", "tx body error: not found: vtxo does not exist", "")


async def test_server_outputs_are_no_inputs(alice: Client) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    payment.request.parts[0].input_vtxo_id = vtxo.anchor_point.to_bytes()
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    assert refusal.code == "INTERNAL"
    assert refusal.text.startswith("tx body error: vtxo ")


async def test_htlc_inputs_are_refused(alice: Client) -> None:
    vtxo = await alice.board()
    htlc = ServerHtlcSendPolicy(alice.public_key, b"\x05" * 32, 1_000)
    (granted,) = await alice.pay([vtxo], (vtxo.amount_sat, htlc))
    payment = alice.prepare_payment([granted], [(granted.amount_sat, alice.policy)])
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    assert refusal == bad("server htlc send vtxo not supported")


async def test_empty_request_is_refused(alice: Client) -> None:
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, pb.ArkoorPackageCosignRequest())
    assert refusal == bad_request("empty request")


async def test_checkpoints_are_required(alice: Client) -> None:
    first, second = await alice.board(), await alice.board()
    total_sat = first.amount_sat + second.amount_sat
    direct = alice.prepare_payment([first], [(first.amount_sat, alice.policy)], use_checkpoint=False)
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, direct.request)
    assert refusal == bad_request("should use arkoor checkpoints")
    mixed = alice.prepare_payment([first, second], [(total_sat, alice.policy)])
    mixed.request.parts[1].use_checkpoint = False
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, mixed.request)
    assert refusal == bad_request("not all requests have the same use_checkpoints value")


async def test_attestation_must_cover_the_outputs(alice: Client, bob: Client) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    stolen = bob.prepare_payment([replace(vtxo, policy=bob.policy)], [(vtxo.amount_sat, bob.policy)])
    payment.request.parts[0].attestation = stolen.request.parts[0].attestation
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    where = "bad user input: invalid cosign request at index #0: "
    assert refusal == bad_request(where + "Invalid attestation")


async def test_amounts_must_balance(alice: Client) -> None:
    vtxo = await alice.board()
    other = replace(vtxo, amount_sat=vtxo.amount_sat - 1)
    payment = alice.prepare_payment([other], [(other.amount_sat, alice.policy)])
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    assert refusal.code == INVALID
    problem = "at index #0: An error occurred while building arkoor: Input amount of 0.00099670 BTC"
    assert problem in refusal.text


async def test_every_transaction_needs_a_nonce(alice: Client) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    del payment.request.parts[0].user_pub_nonces[-1]
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    assert refusal.code == INVALID
    assert refusal.text.endswith("Wrong number of user nonces provided. Expected 2, got 1")


async def test_deep_inputs_must_be_refreshed(start_server: StartServer, chain: FakeServerChain) -> None:
    server = await start_server(ServerSettings(max_vtxo_exit_depth=3))
    async with Client(server, chain) as alice:
        vtxo = await alice.board()
        (deep,) = await alice.pay([vtxo], (vtxo.amount_sat, alice.policy))
        payment = alice.prepare_payment([deep], [(deep.amount_sat, alice.policy)])
        refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
        assert refusal == bad_request(
            f"input VTXO {deep.id} (#0) exit depth 3 meets or exceeds the maximum of 3; "
            "refresh the VTXO in a round before making further OOR payments"
        )


async def test_fanout_is_limited(alice: Client) -> None:
    vtxo = await alice.board()
    outputs = [(1_000, stranger()) for _ in range(4)]
    five = alice.prepare_payment([vtxo], [*outputs, (vtxo.amount_sat - 4_000, alice.policy)])
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, five.request)
    assert refusal == bad_request(f"too many outputs for input {vtxo.id} (#0) (5 > 4)")
    four = alice.prepare_payment([vtxo], [*outputs[1:], (vtxo.amount_sat - 3_000, alice.policy)])
    await alice.call(alice.ark.RequestArkoorCosign, four.request)


async def test_unregistered_vtxos_cannot_be_spent(alice: Client) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    answer = await alice.call(alice.ark.RequestArkoorCosign, payment.request)
    (paid,) = alice.finish_payment(payment, answer)
    onward = alice.prepare_payment([paid], [(paid.amount_sat, alice.policy)])
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, onward.request)
    assert refusal == bad(f"vtxo {paid.id} is not spendable (state: unregistered)")


async def test_banned_vtxos_cannot_be_spent_until_the_ban_ends(alice: Client) -> None:
    vtxo = await alice.board()
    until = await alice.server.ban_vtxo(vtxo.id, 2)
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    assert refusal == bad(f"vtxo {vtxo.id} is banned until block {until}")
    alice.chain.mine(count=2)
    await alice.call(alice.ark.RequestArkoorCosign, payment.request)


async def test_input_in_use_elsewhere_is_refused(alice: Client) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    with alice.server.locks.holding([vtxo.id]):
        refusal = await alice.refusal(alice.ark.RequestArkoorCosign, payment.request)
    assert refusal == bad(f"some VTXO is already locked by another process: {vtxo.id}")
    await alice.call(alice.ark.RequestArkoorCosign, payment.request)


# --- double spends


async def test_other_amounts_for_a_spent_input_are_refused(alice: Client, bob: Client) -> None:
    vtxo = await alice.board()
    await alice.pay([vtxo], (50_000, bob.policy), (vtxo.amount_sat - 50_000, alice.policy))
    other = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, other.request)
    assert refusal == bad(f"vtxo {vtxo.id} is not spendable (state: spent)")


async def test_other_destination_for_the_same_amounts_is_refused_by_the_checkpoint(alice: Client) -> None:
    vtxo = await alice.board()
    first = alice.prepare_payment([vtxo], [(vtxo.amount_sat, stranger())])
    await alice.call(alice.ark.RequestArkoorCosign, first.request)
    second = alice.prepare_payment([vtxo], [(vtxo.amount_sat, stranger())])
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, second.request)
    checkpoint = VtxoId.of(first.parts[0].spending_tx.outpoint(0))
    assert refusal == Refusal("INTERNAL", f"tx body error: vtxo {checkpoint} is already spent", None)


async def test_refused_payment_leaves_the_other_inputs_alone(alice: Client) -> None:
    spent, untouched = await alice.board(), await alice.board()
    await alice.pay([spent], (spent.amount_sat, stranger()))
    total_sat = spent.amount_sat + untouched.amount_sat
    both = alice.prepare_payment([untouched, spent], [(total_sat, alice.policy)])
    refusal = await alice.refusal(alice.ark.RequestArkoorCosign, both.request)
    assert refusal.code in (INVALID, "INTERNAL")
    assert await alice.spend_state(untouched.id) == SPENDABLE


# --- registration


async def test_empty_registration_is_refused(alice: Client) -> None:
    for method in (alice.ark.RegisterVtxoTransactions, alice.ark.RegisterVtxos):
        refusal = await alice.refusal(method, pb.RegisterVtxoTransactionsRequest())
        assert refusal == bad("no vtxos provided")


async def test_undecodable_registration_says_why(alice: Client) -> None:
    refusal = await alice.refusal(
        alice.ark.RegisterVtxoTransactions, pb.RegisterVtxoTransactionsRequest(vtxos=[b""])
    )
    assert refusal == Refusal(INVALID, "invalid vtxo: I/O error: failed to fill whole buffer", None)


async def test_unknown_vtxo_cannot_be_registered(alice: Client) -> None:
    vtxo, _ = await alice.signed_board()
    refusal = await alice.refusal(alice.ark.RegisterVtxoTransactions, registration(vtxo))
    text = f"bad user input: vtxo not found in database: {vtxo.id}: tx body error: not found: VTXO not found"
    assert refusal == Refusal("NOT_FOUND", text, str(vtxo.id))


async def test_unsigned_vtxo_cannot_be_registered(alice: Client) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    await alice.call(alice.ark.RequestArkoorCosign, payment.request)
    (unsigned,) = payment.parts[0].unsigned_vtxos
    refusal = await alice.refusal(alice.ark.RegisterVtxoTransactions, registration(unsigned))
    assert refusal == bad(f"vtxo {unsigned.id} is not fully signed")


async def test_wrongly_signed_vtxo_is_refused_and_nothing_is_registered(alice: Client) -> None:
    vtxo = await alice.board()
    rest_sat = vtxo.amount_sat - 50_000
    payment = alice.prepare_payment([vtxo], [(50_000, alice.policy), (rest_sat, alice.policy)])
    answer = await alice.call(alice.ark.RequestArkoorCosign, payment.request)
    good, other = alice.finish_payment(payment, answer)
    signatures = [item.transition.signature or b"" for item in other.genesis]
    forged = other.with_signatures((*signatures[:-1], bytes(63) + b"\x01"))
    refusal = await alice.refusal(alice.ark.RegisterVtxoTransactions, registration(good, forged))
    assert refusal.code == INVALID
    assert refusal.text.startswith(f"bad user input: vtxo validation failed: {other.id}: ")
    assert await alice.spend_state(good.id) == UNREGISTERED


async def test_registration_is_idempotent_and_takes_duplicates(alice: Client) -> None:
    vtxo = await alice.board()
    (paid,) = await alice.pay([vtxo], (vtxo.amount_sat, alice.policy))
    await alice.call(alice.ark.RegisterVtxos, registration(paid, paid, vtxo))
    assert await alice.spend_state(paid.id) == SPENDABLE
    assert await alice.spend_state(vtxo.id) == SPENT


@pytest.mark.parametrize("registered", [False, True])
async def test_stored_vtxo_is_signed_once_it_is_registered(alice: Client, registered: bool) -> None:
    vtxo = await alice.board()
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    answer = await alice.call(alice.ark.RequestArkoorCosign, payment.request)
    (paid,) = alice.finish_payment(payment, answer)
    if registered:
        await alice.register(paid)
    stored = await alice.call(alice.ark.GetVtxo, pb.GetVtxoRequest(vtxo_id=paid.id))
    assert Vtxo.decode(stored.vtxo).is_fully_signed is registered
