"""Offboards: preparing, finishing, sessions, and the order of the checks.

Source: sheet 10 §6.8, §12; sheet 03 §3.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.script import op_return_script, p2tr_script
from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.bitcoin.units import FeeRate, format_btc
from barkd_py.devnet.ark_server.faults import Fault, Kind, Stage
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.errors import ChainError
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from tests.devnet.ark_server.client import Refusal, bad, internal
from tests.devnet.ark_server.conftest import SettableClock, StartServer
from tests.devnet.ark_server.rounds.client import PreparedOffboard, RoundClient
from tests.devnet.ark_server.rounds.conftest import COINS, ON_DEMAND, Connect
from tests.fakes.server_chain import FakeServerChain
from tests.support.script_engine import is_spend_valid

DESTINATION = p2tr_script(SecretKey(bytes([7] * 32)).public_key.x_only)
P2WPKH = b"\x00\x14" + bytes([5] * 20)


async def refused(client: RoundClient, request: pb.PrepareOffboardRequest) -> Refusal:
    return await client.refusal(client.ark.PrepareOffboard, request)


async def refused_finish(client: RoundClient, request: pb.FinishOffboardRequest) -> Refusal:
    return await client.refusal(client.ark.FinishOffboard, request)


async def prepared(client: RoundClient, *amounts_sat: int) -> PreparedOffboard:
    """An open session over new boards."""
    inputs = [await client.board(amount_sat) for amount_sat in amounts_sat or (100_000,)]
    return await client.prepare_offboard(inputs, await client.offboard_request(inputs, DESTINATION))


# --- the way out


@pytest.mark.parametrize("amounts_sat", [(100_000,), (100_000, 50_000), (30_000, 60_000, 90_000)])
async def test_leaving_with_whole_coins(
    alice: RoundClient, chain: FakeServerChain, amounts_sat: tuple[int, ...]
) -> None:
    offboard = await prepared(alice, *amounts_sat)
    gross_sat = sum(vtxo.amount_sat for vtxo in offboard.inputs)
    signed = await alice.finish_offboard(offboard)
    assert chain.broadcasts == [signed]
    net, connector, change = signed.outputs
    assert net == TxOut(offboard.request.offboard.net_amount_sat, DESTINATION)
    assert net.value_sat < gross_sat
    assert connector.value_sat == 330 * len(amounts_sat)
    fee_sat = COINS[0] - sum(output.value_sat for output in signed.outputs)
    assert fee_sat == alice.server.fee_rates.regular.fee_wu(signed.weight_wu)
    assert await alice.server.treasury.balance_sat() == sum(COINS[1:]) + change.value_sat
    for vtxo in offboard.inputs:
        assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENT
        row = await alice.server.vtxo_row(vtxo.id)
        assert (row.state, row.offboarded_in) == (SpendState.SPENT, signed.txid)


async def test_forfeits_and_connectors_are_kept_signed(alice: RoundClient) -> None:
    offboard = await prepared(alice, 100_000, 50_000)
    signed = await alice.finish_offboard(offboard)
    fan_out = offboard.forfeits.fan_out
    assert fan_out is not None
    kept = await alice.server.virtual_tx(fan_out.txid)
    assert kept is not None
    assert is_spend_valid(kept, (signed.outputs[1],))
    for index, vtxo in enumerate(offboard.inputs):
        row = await alice.server.vtxo_row(vtxo.id)
        assert row.spent_by == offboard.forfeits.txs[index].txid
        forfeit = await alice.server.virtual_tx(row.spent_by)
        assert forfeit is not None
        assert is_spend_valid(forfeit, offboard.forfeits.prevouts(index))


async def test_sending_an_amount_pays_the_fee_on_top(alice: RoundClient) -> None:
    vtxo = await alice.board()
    asked = await alice.offboard_request([vtxo], P2WPKH, send_sat=50_000)
    assert asked.offboard.net_amount_sat == 50_000
    offboard = await alice.prepare_offboard([vtxo], asked)
    signed = await alice.finish_offboard(offboard)
    assert signed.outputs[0] == TxOut(50_000, P2WPKH)


async def test_data_can_be_sent(alice: RoundClient) -> None:
    vtxo = await alice.board()
    script = op_return_script(bytes(80))
    assert len(script) == 83
    await alice.prepare_offboard([vtxo], await alice.offboard_request([vtxo], script, send_sat=0))
    long = await alice.offboard_request([vtxo], op_return_script(bytes(81)), send_sat=0)
    assert await refused(alice, long) == bad(
        "invalid offboard request: invalid offboard request: output uses a non-standard script type"
    )


async def test_signed_transaction_spends_the_servers_coins(alice: RoundClient) -> None:
    offboard = await prepared(alice)
    script = alice.server.treasury._keys.script(0)
    signed = await alice.finish_offboard(offboard)
    assert is_spend_valid(signed, [TxOut(COINS[0], script)])


# --- repeats and sessions


async def test_same_request_is_answered_alike_while_the_session_lasts(alice: RoundClient) -> None:
    first, second = await alice.board(), await alice.board()
    request = await alice.offboard_request([first, second], DESTINATION)
    offboard = await alice.prepare_offboard([first, second], request)
    alice.attest_offboard(request, [first, second])
    again = await alice.prepare_offboard([first, second], request)
    assert (again.tx, again.server_nonces) == (offboard.tx, offboard.server_nonces)

    locked = "some VTXO is already locked by another process: VTXO is already locked by another process: {}"
    turned = await alice.offboard_request([second, first], DESTINATION)
    assert await refused(alice, turned) == internal(locked.format(second.id))
    other = await alice.offboard_request([first, second], P2WPKH)
    assert await refused(alice, other) == internal(locked.format(first.id))
    request.attestation[1] = bytes(64)
    assert await refused(alice, request) == bad(
        f"invalid attestations for vtxo {second.id}: signature failed verification"
    )
    del request.attestation[1]
    assert await refused(alice, request) == bad("wrong number of attestations")


async def test_finishing_twice_gives_the_same(
    alice: RoundClient, clock: SettableClock, chain: FakeServerChain
) -> None:
    offboard = await prepared(alice)
    signed = await alice.finish_offboard(offboard)
    assert await alice.finish_offboard(offboard) == signed
    garbage = pb.FinishOffboardRequest(offboard_txid=offboard.tx.txid)
    answer = await alice.call(alice.ark.FinishOffboard, garbage)
    assert Tx.parse(answer.signed_offboard_tx) == signed
    clock.now += 30
    assert await refused_finish(alice, garbage) == bad("unknown offboard txid")
    assert chain.broadcasts == [signed]


async def test_session_ends_with_its_time(alice: RoundClient, clock: SettableClock) -> None:
    offboard = await prepared(alice)
    (vtxo,) = offboard.inputs
    clock.now += 29.5
    alice.server.offboards.sweep()
    assert alice.server.locks.is_locked(vtxo.id)
    clock.now += 0.5
    assert await refused_finish(alice, alice.finish_request(offboard)) == bad("unknown offboard txid")
    assert not alice.server.locks.is_locked(vtxo.id)
    again = await alice.prepare_offboard([vtxo], offboard.request)
    assert again.tx.txid != offboard.tx.txid
    await alice.finish_offboard(again)


async def test_input_of_a_session_cannot_be_paid_away_or_swapped(alice: RoundClient) -> None:
    offboard = await prepared(alice)
    (vtxo,) = offboard.inputs
    await alice.register(vtxo)
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    assert await alice.refusal(alice.ark.RequestArkoorCosign, payment.request) == bad(
        f"some VTXO is already locked by another process: {vtxo.id}"
    )
    events = alice.server.rounds.events.subscribe()
    alice.server.rounds.trigger()
    started = await anext(events)
    attempt = pb.RoundAttempt(round_attempt_challenge=started.challenge)  # type: ignore[union-attr]
    swap = await alice.prepare_round(attempt, vtxo)
    assert await alice.refusal(alice.ark.SubmitPayment, swap.request) == bad(
        f"input VTXO already locked: VTXO is already locked by another process: {vtxo.id}"
    )


async def test_sessions_do_not_share_coins(alice: RoundClient) -> None:
    first, second = await prepared(alice), await prepared(alice)
    assert not {i.prevout for i in first.tx.inputs} & {i.prevout for i in second.tx.inputs}
    await alice.finish_offboard(second)
    await alice.finish_offboard(first)


async def test_restart_ends_sessions_only(
    alice: RoundClient, start_server: StartServer, connect: Connect
) -> None:
    offboard = await prepared(alice)
    await alice.server.stop()
    again = await connect(await start_server(ON_DEMAND))
    again.secret = alice.secret
    request = again.finish_request(offboard)
    assert await refused_finish(again, request) == bad("unknown offboard txid")
    second = await again.prepare_offboard(offboard.inputs, offboard.request)
    await again.finish_offboard(second)


async def test_booked_offboard_gets_out_after_a_restart(
    alice: RoundClient, start_server: StartServer, connect: Connect, chain: FakeServerChain
) -> None:
    offboard = await prepared(alice)
    alice.server.faults.set(Fault("offboard.broadcast", Stage.ENGINE, Kind.SWALLOW, count=None))
    signed = await alice.finish_offboard(offboard)
    await alice.server.offboards.broadcast_pending()
    assert chain.broadcasts == []
    await alice.server.stop()
    again = await connect(await start_server(ON_DEMAND))
    await again.server.offboards.broadcast_pending()
    assert signed in chain.broadcasts
    assert await refused(again, offboard.request) == bad(
        f"vtxo {offboard.inputs[0].id} is not spendable (state: spent)"
    )


async def test_broadcast_is_tried_again(alice: RoundClient, chain: FakeServerChain) -> None:
    offboard = await prepared(alice)
    alice.server.faults.set(Fault("offboard.broadcast", Stage.ENGINE, Kind.ERROR))
    signed = await alice.finish_offboard(offboard)
    assert chain.broadcasts == []
    await alice.server.offboards.broadcast_pending()
    assert chain.broadcasts == [signed]


# --- one chance to finish


Spoil = Callable[[pb.FinishOffboardRequest], None]


def _drop_nonce(request: pb.FinishOffboardRequest) -> None:
    request.user_nonces.pop()


def _drop_signature(request: pb.FinishOffboardRequest) -> None:
    request.partial_signatures.pop()


def _swap_signatures(request: pb.FinishOffboardRequest) -> None:
    request.partial_signatures[:] = list(reversed(request.partial_signatures))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_drop_nonce, "incorrect number of public nonces"),
        (_drop_signature, "incorrect number of partial signatures"),
        (_swap_signatures, "invalid partial forfeit signatures: invalid partial signature for VTXO {}"),
    ],
)
async def test_wrong_forfeits_end_the_session(alice: RoundClient, spoil: Spoil, text: str) -> None:
    offboard = await prepared(alice, 100_000, 50_000)
    right = alice.finish_request(offboard)
    wrong = pb.FinishOffboardRequest()
    wrong.CopyFrom(right)
    spoil(wrong)
    assert await refused_finish(alice, wrong) == bad(text.format(offboard.inputs[0].id))
    assert await refused_finish(alice, right) == bad("unknown offboard txid")
    for vtxo in offboard.inputs:
        assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENDABLE
    await alice.finish_offboard(await alice.prepare_offboard(offboard.inputs, offboard.request))


async def test_transaction_that_the_node_refuses_ends_the_session(
    alice: RoundClient, chain: FakeServerChain
) -> None:
    vtxo = await alice.board()
    free = await alice.offboard_request([vtxo], DESTINATION, fee_rate=FeeRate(0))
    offboard = await alice.prepare_offboard([vtxo], free)
    chain.refusal = ChainError("min relay fee not met")
    request = alice.finish_request(offboard)
    assert await refused_finish(alice, request) == internal(
        "mempool rejected offboard tx: min relay fee not met"
    )
    assert await refused_finish(alice, request) == bad("unknown offboard txid")
    assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENDABLE


# --- refusals


async def test_requests_that_make_no_sense(alice: RoundClient) -> None:
    vtxo = await alice.board()
    assert await refused(alice, pb.PrepareOffboardRequest()) == bad("missing offboard field")

    nothing = await alice.offboard_request([vtxo], DESTINATION)
    del nothing.input_vtxo_ids[:]
    assert await refused(alice, nothing) == bad("no inputs")

    many = await alice.offboard_request([vtxo], DESTINATION)
    many.input_vtxo_ids.extend([vtxo.id] * 100)
    assert await refused(alice, many) == bad("too many inputs")

    twice = await alice.offboard_request([vtxo, vtxo], DESTINATION)
    assert (await refused(alice, twice)).code == "INTERNAL"

    dust = await alice.offboard_request([vtxo], DESTINATION, send_sat=329)
    assert await refused(alice, dust) == bad(
        "invalid offboard request: invalid offboard request: "
        "output value is below the dust limit for its script type"
    )

    short = await alice.offboard_request([vtxo], DESTINATION)
    short.attestation[0] = bytes(63)
    assert await refused(alice, short) == Refusal(
        "INVALID_ARGUMENT", "invalid offboard request attestation", None
    )


async def test_very_old_clients_cannot_offboard_several(alice: RoundClient) -> None:
    inputs = [await alice.board() for _ in range(2)]
    request = await alice.offboard_request(inputs, DESTINATION)
    refusal = await alice.refusal(alice.ark.PrepareOffboard, request, metadata=(("pver", "1"),))
    assert refusal == Refusal(
        "UNAVAILABLE", "YOU NEED TO UPDATE YOUR WALLET VERSION FOR THIS OPERATION", None
    )


async def test_amounts_are_exact(alice: RoundClient) -> None:
    vtxo = await alice.board()
    whole = await alice.offboard_request([vtxo], DESTINATION, add_sat=1)
    net_sat = whole.offboard.net_amount_sat
    assert await refused(alice, whole) == bad(
        "offboard net amount does not match expected amount: "
        f"provided = {format_btc(net_sat)}, expected = {format_btc(net_sat - 1)}"
    )
    fee_sat = vtxo.amount_sat - (net_sat - 1)
    most_sat = vtxo.amount_sat - fee_sat
    too_much = await alice.offboard_request([vtxo], DESTINATION, send_sat=most_sat + 400)
    refusal = await refused(alice, too_much)
    assert refusal.text.startswith(
        "bad user input: offboard gross amount does not match expected amount: "
        f"provided = {format_btc(vtxo.amount_sat)}, expected = "
    )
    # Less may be asked for; the rest is the server's.
    await alice.prepare_offboard([vtxo], await alice.offboard_request([vtxo], DESTINATION, add_sat=-500))


async def test_nothing_is_left_of_small_coins(alice: RoundClient) -> None:
    vtxo = await alice.board(20_000)
    small, _ = await alice.pay([vtxo], (2_000, alice.policy), (vtxo.amount_sat - 2_000, alice.policy))
    request = await alice.offboard_request([vtxo], DESTINATION, send_sat=1_000)
    request.input_vtxo_ids[0] = small.id
    request.offboard.deduct_fees_from_gross_amount = True
    alice.attest_offboard(request, [small])
    refusal = await refused(alice, request)
    assert refusal.code == "INTERNAL"
    assert refusal.text.startswith("Fee (")


async def test_fee_rates_of_the_window(alice: RoundClient, clock: SettableClock) -> None:
    first, second, third = [await alice.board() for _ in range(3)]
    old = alice.server.fee_rates.regular
    alice.server.fee_rates.set_regular(FeeRate(old.sat_per_kwu // 2))
    clock.now += 15 * 60
    await alice.prepare_offboard([first], await alice.offboard_request([first], DESTINATION, fee_rate=old))
    clock.now += 1
    expired = await alice.offboard_request([second], DESTINATION, fee_rate=old)
    assert await refused(alice, expired) == bad(
        f"fee rate is no longer valid: provided = {old.sat_per_kwu}, expected = {old.sat_per_kwu // 2}"
    )
    await alice.prepare_offboard([third], await alice.offboard_request([third], DESTINATION))
    answer = await alice.call(alice.ark.GetOffboardFeeRate, core_pb2.Empty())
    assert answer.sat_vkb == old.sat_per_kwu // 2 * 4


async def test_inputs_come_before_fee_rate_amount_and_signature(alice: RoundClient) -> None:
    """Wallets conclude from a refused fee rate or amount that their inputs are unspent."""
    vtxo = await alice.board()
    wrong = await alice.offboard_request([vtxo], DESTINATION, fee_rate=FeeRate(10**6), send_sat=90_000)
    wrong.attestation[0] = bytes(64)
    assert (await refused(alice, wrong)).text.startswith("bad user input: fee rate is no longer valid: ")
    wrong.offboard.fee_rate_kwu = 1_000
    wrong.offboard.net_amount_sat = vtxo.amount_sat
    assert (await refused(alice, wrong)).text.startswith("bad user input: offboard gross amount does not ")
    wrong.offboard.net_amount_sat = 50_000
    assert await refused(alice, wrong) == bad(
        f"invalid attestations for vtxo {vtxo.id}: signature failed verification"
    )
    await alice.pay([vtxo], (vtxo.amount_sat, alice.policy))
    wrong.offboard.fee_rate_kwu = 10**6
    assert await refused(alice, wrong) == bad(f"vtxo {vtxo.id} is not spendable (state: spent)")


async def test_unknown_input(alice: RoundClient) -> None:
    vtxo, _ = await alice.signed_board()
    assert await refused(alice, await alice.offboard_request([vtxo], DESTINATION)) == Refusal(
        "NOT_FOUND", "tx body error: not found: vtxo does not exist", str(vtxo.id)
    )


async def test_poor_server_cannot_offboard(start_server: StartServer, connect: Connect) -> None:
    alice = await connect(await start_server(ON_DEMAND))
    vtxo = await alice.board()
    refusal = await refused(alice, await alice.offboard_request([vtxo], DESTINATION))
    assert refusal.code == "INTERNAL"
    assert refusal.text.startswith("bdk failed to create offboard tx: ")
    assert not alice.server.locks.is_locked(vtxo.id)


# --- lies


async def test_tampered_transaction(alice: RoundClient) -> None:
    vtxo = await alice.board()
    request = await alice.offboard_request([vtxo], DESTINATION)
    lie = Fault(
        "offboard.tx", Stage.ENGINE, Kind.MUTATE, path="outputs.0.value_sat", mutation="add", value=-1
    )
    alice.server.faults.set(lie)
    answer = await alice.call(alice.ark.PrepareOffboard, request)
    tx = Tx.parse(answer.offboard_tx)
    assert tx.outputs[0].value_sat == request.offboard.net_amount_sat - 1


async def test_killed_before_booking(
    alice: RoundClient, start_server: StartServer, connect: Connect, chain: FakeServerChain
) -> None:
    offboard = await prepared(alice)
    alice.server.faults.set(Fault("offboard.book", Stage.ENGINE, Kind.ERROR, code="UNAVAILABLE"))
    refusal = await refused_finish(alice, alice.finish_request(offboard))
    assert refusal.code == "UNAVAILABLE"
    await alice.server.stop()
    again = await connect(await start_server(replace(ON_DEMAND, rich_errors=False)))
    again.secret = alice.secret
    assert chain.broadcasts == []
    assert await again.spend_state(offboard.inputs[0].id) == pb.VTXO_SPEND_STATE_SPENDABLE
