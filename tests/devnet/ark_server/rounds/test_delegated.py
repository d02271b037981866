"""Delegated participations: submitting, waiting, being taken, being told of.

Source: sheet 10 §6.7, §8; sheet 04 §10.
"""

from dataclasses import replace

import pytest

from barkd_py.ark.policy import PubkeyPolicy, encode_policy
from barkd_py.ark.rounds import RoundRejected
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.tx import Tx
from barkd_py.devnet.ark_server.faults import Fault, Kind, Stage
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from tests.devnet.ark_server.client import Refusal, bad
from tests.devnet.ark_server.conftest import NOW, StartServer
from tests.devnet.ark_server.rounds.client import Events, RoundClient
from tests.devnet.ark_server.rounds.conftest import COINS, ON_DEMAND, Connect, fund
from tests.fakes.server_chain import FakeServerChain

PENDING = pb.ROUND_PART_PENDING
ISSUED = pb.ROUND_PART_ISSUED
RELEASED = pb.ROUND_PART_RELEASED


async def hold_round(client: RoundClient, end: str) -> None:
    """A round without anybody in person; end: how it ends."""
    events = client.server.rounds.events.subscribe()
    if client.server.rounds.events.last is not None:
        await anext(events)
    client.server.rounds.trigger()
    await anext(events)
    client.server.rounds.go_on()
    last = await anext(events)
    if end == "finished":
        last = await anext(events)
    assert type(last).__name__ == {"finished": "RoundFinished", "failed": "RoundFailed"}[end]


async def not_found(client: RoundClient, unlock_hash: bytes) -> bool:
    request = pb.RoundParticipationStatusRequest(unlock_hash=unlock_hash)
    try:
        await client.call(client.ark.RoundParticipationStatus, request)
    except Exception:
        refusal = await client.refusal(client.ark.RoundParticipationStatus, request)
        return refusal == Refusal(
            "NOT_FOUND", "tx body error: not found: round participation not found", unlock_hash.hex()
        )
    return False


# --- the way of a participation


async def test_delegated_swap(alice: RoundClient) -> None:
    first, second = await alice.board(), await alice.board(50_000)
    unlock_hash = await alice.delegate(first, second)
    status = await alice.participation(unlock_hash)
    assert (status.status, list(status.output_vtxos)) == (PENDING, [])
    assert not status.HasField("round_funding_tx")

    await hold_round(alice, "finished")
    coins = await alice.delegated_coins(unlock_hash, first, second)
    status = await alice.participation(unlock_hash)
    assert not status.HasField("unlock_preimage")
    assert list(status.input_vtxo_ids) == [first.id, second.id]

    (new,) = await alice.swap(coins)
    status = await alice.participation(unlock_hash)
    assert status.status == RELEASED
    assert new.with_preimage(status.unlock_preimage) == new
    # Whoever asks again gets the leaf as it was: locked and unsigned.
    assert Vtxo.decode(status.output_vtxos[0]) == coins.vtxos[0]
    assert await alice.spend_state(new.id) == pb.VTXO_SPEND_STATE_SPENDABLE


async def test_participation_in_person_can_be_asked_for_too(alice: RoundClient) -> None:
    vtxo = await alice.board()
    coins = await alice.hold_round(vtxo)
    again = await alice.delegated_coins(coins.unlock_hash, vtxo)
    assert again == coins


async def test_several_outputs_come_in_request_order(alice: RoundClient) -> None:
    vtxo = await alice.board()
    fee_sat = await alice.refresh_fee_sat([vtxo])
    amounts_sat = [10_000, 30_000, vtxo.amount_sat - 40_000 - fee_sat]
    request = await alice.delegated_request(vtxo, amounts_sat=amounts_sat)
    answer = await alice.call(alice.ark.SubmitRoundParticipation, request)
    await hold_round(alice, "finished")
    coins = await alice.delegated_coins(answer.unlock_hash, vtxo)
    assert [each.amount_sat for each in coins.vtxos] == amounts_sat
    assert len(await alice.swap(coins)) == 3


async def test_equal_outputs_are_told_apart(alice: RoundClient) -> None:
    """The real server finds outputs by amount and policy, and mixes these up."""
    first, second = await alice.board(), await alice.board()
    hashes = [await alice.delegate(vtxo) for vtxo in (first, second)]
    await hold_round(alice, "finished")
    for unlock_hash, vtxo in zip(hashes, (first, second), strict=True):
        (new,) = await alice.swap(await alice.delegated_coins(unlock_hash, vtxo))
        assert await alice.spend_state(new.id) == pb.VTXO_SPEND_STATE_SPENDABLE


async def test_in_person_and_delegated_share_a_tree(alice: RoundClient, bob: RoundClient) -> None:
    ours, theirs = await alice.board(), await bob.board()
    unlock_hash = await bob.delegate(theirs)
    coins = await alice.hold_round(ours)
    delegated = await bob.delegated_coins(unlock_hash, theirs)
    assert delegated.funding_tx.txid == coins.funding_tx.txid
    await alice.swap(coins)
    await bob.swap(delegated)


async def test_mailbox_tells_when_it_is_done(alice: RoundClient) -> None:
    unlock_hash = await alice.delegate(await alice.board())
    mailbox = alice.mailbox.SubscribeMailbox(alice.mailbox_request(expiry=NOW + 60))
    await mailbox.initial_metadata()
    await hold_round(alice, "finished")
    message = await mailbox.read()
    assert message.round_participation_completed.unlock_hash == unlock_hash
    assert list(message.round_participation_completed.payment_hashes) == [unlock_hash]
    assert message.checkpoint > 0
    page = await alice.call(alice.mailbox.ReadMailbox, alice.mailbox_request(expiry=NOW + 60))
    assert list(page.messages) == [message]


async def test_scheduled_swap_waits_for_its_height(alice: RoundClient, chain: FakeServerChain) -> None:
    vtxo = await alice.board()
    height = (await chain.tip()).height + 3
    unlock_hash = await alice.delegate(vtxo, height=height)
    chain.mine(count=2)
    await hold_round(alice, "failed")
    assert (await alice.participation(unlock_hash)).status == PENDING
    chain.mine()
    await hold_round(alice, "finished")
    assert (await alice.participation(unlock_hash)).status == ISSUED


async def test_waiting_participation_survives_a_restart(
    alice: RoundClient, start_server: StartServer, connect: Connect
) -> None:
    vtxo = await alice.board()
    unlock_hash = await alice.delegate(vtxo)
    await alice.server.stop()
    again = await connect(await start_server(ON_DEMAND))
    again.secret = alice.secret
    await hold_round(again, "finished")
    await again.swap(await again.delegated_coins(unlock_hash, vtxo))


# --- what ends it before


async def test_later_submission_counts(alice: RoundClient) -> None:
    shared, other = await alice.board(), await alice.board()
    first = await alice.delegate(shared)
    second = await alice.delegate(shared, other)
    assert first != second
    assert await not_found(alice, first)
    assert (await alice.participation(second)).status == PENDING


async def test_payment_of_an_input_ends_it(alice: RoundClient) -> None:
    vtxo = await alice.board()
    unlock_hash = await alice.delegate(vtxo)
    await alice.pay([vtxo], (vtxo.amount_sat, alice.policy))
    assert await not_found(alice, unlock_hash)


async def test_round_in_person_with_an_input_ends_it(alice: RoundClient) -> None:
    vtxo = await alice.board()
    unlock_hash = await alice.delegate(vtxo)
    await alice.hold_round(vtxo)
    assert await not_found(alice, unlock_hash)


async def test_offboard_of_an_input_ends_it(alice: RoundClient) -> None:
    vtxo = await alice.board()
    unlock_hash = await alice.delegate(vtxo)
    request = await alice.offboard_request([vtxo], p2tr_script(alice.public_key.x_only))
    await alice.finish_offboard(await alice.prepare_offboard([vtxo], request))
    assert await not_found(alice, unlock_hash)


async def test_input_that_is_busy_or_banned_when_its_round_comes_ends_it(alice: RoundClient) -> None:
    busy, banned = await alice.board(), await alice.board()
    hashes = [await alice.delegate(vtxo) for vtxo in (busy, banned)]
    request = await alice.offboard_request([busy], p2tr_script(alice.public_key.x_only))
    await alice.prepare_offboard([busy], request)
    await alice.server.ban_vtxo(banned.id, 5)
    await hold_round(alice, "failed")
    assert [await not_found(alice, each) for each in hashes] == [True, True]


async def test_output_above_the_limit_ends_it_at_its_round(
    start_server: StartServer, connect: Connect
) -> None:
    alice = await connect(await start_server(replace(ON_DEMAND, max_vtxo_amount_sat=50_000)))
    pieces = [await alice.board(50_000) for _ in range(2)]
    unlock_hash = await alice.delegate(*pieces)
    await hold_round(alice, "failed")
    assert await not_found(alice, unlock_hash)


async def test_participation_of_nothing_is_deleted_at_the_round(
    start_server: StartServer, connect: Connect
) -> None:
    """The real server takes it where refreshing costs nothing."""
    free = replace(ON_DEMAND.fees, refresh=replace(ON_DEMAND.fees.refresh, base_fee_sat=0))
    alice = await connect(await start_server(replace(ON_DEMAND, fees=free)))
    request = await alice.delegated_request(amounts_sat=[])
    answer = await alice.call(alice.ark.SubmitRoundParticipation, request)
    await hold_round(alice, "failed")
    assert await not_found(alice, answer.unlock_hash)


async def test_poor_server_keeps_it_waiting(
    start_server: StartServer, connect: Connect, chain: FakeServerChain
) -> None:
    server: ArkServer = await start_server(ON_DEMAND)
    alice = await connect(server)
    unlock_hash = await alice.delegate(await alice.board())
    await hold_round(alice, "failed")
    assert (await alice.participation(unlock_hash)).status == PENDING
    await fund(server, chain, *COINS)
    await hold_round(alice, "finished")
    assert (await alice.participation(unlock_hash)).status == ISSUED


async def test_full_tree_leaves_it_for_the_next_round(
    start_server: StartServer, connect: Connect, chain: FakeServerChain
) -> None:
    server = await start_server(replace(ON_DEMAND, nb_round_nonces=1))
    await fund(server, chain, *COINS)
    alice = await connect(server)
    hashes = [await alice.delegate(await alice.board()) for _ in range(5)]
    await hold_round(alice, "finished")
    statuses = [(await alice.participation(each)).status for each in hashes]
    assert statuses == [ISSUED] * 4 + [PENDING]


async def test_retry_of_a_round_takes_it_again_but_nobody_else(alice: RoundClient, bob: RoundClient) -> None:
    mine, theirs, late = await alice.board(), await bob.board(), await bob.board()
    first = await bob.delegate(theirs)
    events = await Events(alice).opened()
    alice.server.rounds.trigger()
    joined = await alice.join(await events.next("attempt"), mine)
    alice.server.rounds.go_on()
    await events.next("vtxo_proposal")
    assert joined.unlock_hash
    second = await bob.delegate(late)
    # Alice stays silent.
    alice.server.rounds.go_on()
    await events.next("attempt")
    alice.server.rounds.go_on()
    await events.next("vtxo_proposal")
    await events.next("finished")
    assert (await bob.participation(first)).status == ISSUED
    assert await not_found(bob, second)


# --- refusals


async def refused(client: RoundClient, request: pb.RoundParticipationRequest) -> Refusal:
    return await client.refusal(client.ark.SubmitRoundParticipation, request)


async def test_fee_is_exact_and_that_of_the_height(alice: RoundClient, chain: FakeServerChain) -> None:
    vtxo = await alice.board()
    tip = await chain.tip()
    later = tip.height + 850
    assert await alice.refresh_fee_sat([vtxo], later) < await alice.refresh_fee_sat([vtxo])
    for height in (None, later):
        fee_sat = await alice.refresh_fee_sat([vtxo], height)
        request = await alice.delegated_request(
            vtxo, height=height, amounts_sat=[vtxo.amount_sat - fee_sat + 1]
        )
        assert await refused(alice, request) == bad(
            "refresh fee check failed: bad user input: insufficient refresh fee: "
            f"expected at least 0.{fee_sat:08} BTC, got 0.{fee_sat - 1:08} BTC"
        )
        await alice.delegate(vtxo, height=height)


async def test_schedule_after_the_expiry(alice: RoundClient) -> None:
    vtxo = await alice.board()
    request = await alice.delegated_request(vtxo, height=vtxo.expiry_height)
    assert await refused(alice, request) == bad(
        f"input vtxo {vtxo.id} expires at height {vtxo.expiry_height}, "
        f"before the scheduled refresh height {vtxo.expiry_height}"
    )
    await alice.delegate(vtxo, height=vtxo.expiry_height - 1)


async def test_attestation_of_somebody_else_or_for_something_else(
    alice: RoundClient, bob: RoundClient
) -> None:
    vtxo = await alice.board()
    text = f"attestation for vtxo {vtxo.id} failed: signature failed verification"
    assert await refused(alice, await bob.delegated_request(vtxo)) == bad(text)
    request = await alice.delegated_request(vtxo)
    request.vtxo_requests[0].policy = encode_policy(PubkeyPolicy(SecretKey.generate().public_key))
    assert await refused(alice, request) == bad(text)


async def test_inputs_that_cannot_be_used_are_all_named(alice: RoundClient) -> None:
    good, spent, banned = [await alice.board() for _ in range(3)]
    await alice.pay([spent], (spent.amount_sat, alice.policy))
    await alice.server.ban_vtxo(banned.id, 10)
    assert await refused(alice, await alice.delegated_request(good, spent, banned)) == Refusal(
        "INVALID_ARGUMENT",
        f"unusable inputs: [{spent.id}, {banned.id}]: bad user input: input vtxo(s) unusable",
        f"{spent.id},{banned.id}",
    )


async def test_unknown_and_repeated_inputs(alice: RoundClient) -> None:
    known = await alice.board()
    unknown, _ = await alice.signed_board()
    text = "tx body error: not found: vtxo does not exist"
    request = await alice.delegated_request(known, unknown)
    assert await refused(alice, request) == Refusal("NOT_FOUND", text, str(unknown.id))
    assert await refused(alice, await alice.delegated_request(known, known)) == Refusal("NOT_FOUND", text, "")


@pytest.mark.parametrize("amount_sat", [0, 329])
async def test_dust(alice: RoundClient, amount_sat: int) -> None:
    request = await alice.delegated_request(await alice.board(), amounts_sat=[amount_sat])
    assert await refused(alice, request) == bad("vtxo amount must be at least 0.00000330 BTC")


async def test_malformed_fields(alice: RoundClient) -> None:
    vtxo = await alice.board()
    request = await alice.delegated_request(vtxo)
    request.input_vtxos[0].vtxo_id = bytes(35)
    assert await refused(alice, request) == Refusal("INVALID_ARGUMENT", "invalid VTXO ID", None)
    request = await alice.delegated_request(vtxo)
    request.unblinded_mailbox_id = bytes(33)
    assert (await refused(alice, request)).text.startswith("bad user input: invalid unblinded mailbox id")
    request = await alice.delegated_request(vtxo)
    request.vtxo_requests[0].policy = b"\xff"
    assert await refused(alice, request) == bad("invalid vtxo request: invalid policy")


# --- lies


async def test_leaf_locked_to_another_hash(alice: RoundClient) -> None:
    vtxo = await alice.board()
    unlock_hash = await alice.delegate(vtxo)
    lie = Fault(
        "round.spec", Stage.ENGINE, Kind.MUTATE,
        path="leaves.0.unlock_hash", mutation="set", value="22" * 32,
    )  # fmt: skip
    alice.server.faults.set(lie)
    await hold_round(alice, "finished")
    with pytest.raises(RoundRejected, match="locked to another hash"):
        await alice.delegated_coins(unlock_hash, vtxo)


async def test_round_tx_can_be_double_spent(alice: RoundClient, chain: FakeServerChain) -> None:
    unlock_hash = await alice.delegate(await alice.board())
    await hold_round(alice, "finished")
    funding_tx = Tx.parse((await alice.participation(unlock_hash)).round_funding_tx)
    conflicting = await alice.server.double_spend(funding_tx.txid)
    assert {tx_in.prevout for tx_in in conflicting.inputs} == {tx_in.prevout for tx_in in funding_tx.inputs}
    chain.mine(conflicting)
    chain.mempool.clear()
    await alice.server.follower.catch_up()
    assert await alice.server.treasury.balance_sat() == sum(COINS[1:]) + conflicting.outputs[0].value_sat
