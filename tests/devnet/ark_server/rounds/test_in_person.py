"""Rounds in person: windows, checks, attempts, what is booked, and what a kill leaves behind.

Source: sheet 10 §6.7, §8, §12; sheet 04 §10.
"""

from dataclasses import replace

import grpc.aio
import pytest

from barkd_py.ark.policy import ServerHtlcSendPolicy, encode_policy
from barkd_py.ark.rounds import RoundOutput, accept_proposal
from barkd_py.ark.tree import TreeSpec
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.tx import Tx
from barkd_py.devnet.ark_server.faults import Fault, Kind, Stage
from barkd_py.devnet.ark_server.rounds.events import AttemptStarted, RoundEvents, RoundFailed
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.errors import ChainError
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from barkd_py.server_rpc.protos.bark_server_pb2_grpc import RoundAdminServiceStub
from tests.devnet.ark_server.client import Refusal, bad, internal
from tests.devnet.ark_server.conftest import NOW, StartServer
from tests.devnet.ark_server.rounds.client import Events, InPerson, RoundClient
from tests.devnet.ark_server.rounds.conftest import COINS, ON_DEMAND, Connect
from tests.fakes.server_chain import FakeServerChain

SPENDABLE = pb.VTXO_SPEND_STATE_SPENDABLE
SPENT = pb.VTXO_SPEND_STATE_SPENT
UNCLAIMED = pb.VTXO_SPEND_STATE_UNCLAIMED

PADDING_KEY = PublicKey.from_hex("02dfa52f6690299d2d6a08323083e290597b56fee125063e5f4e2957731639c42c")


async def started(client: RoundClient) -> tuple[Events, pb.RoundAttempt]:
    """A round in its submit window."""
    events = await Events(client).opened()
    client.server.rounds.trigger()
    return events, await events.next("attempt")


async def proposed(events: Events, server: ArkServer) -> pb.VtxoProposal:
    server.rounds.go_on()
    proposal: pb.VtxoProposal = await events.next("vtxo_proposal")
    return proposal


# --- a whole round


async def test_swap_moves_all_money_but_the_fee(alice: RoundClient) -> None:
    first, second = await alice.board(), await alice.board(50_000)
    coins = await alice.hold_round(first, second)
    (locked,) = coins.vtxos
    assert [await alice.spend_state(vtxo.id) for vtxo in (first, second, locked)] == [SPENT, SPENT, UNCLAIMED]
    (new,) = await alice.swap(coins)
    fee_sat = await alice.refresh_fee_sat([first, second])
    assert new.amount_sat == first.amount_sat + second.amount_sat - fee_sat
    assert new.exit_depth == 2
    assert await alice.spend_state(new.id) == SPENDABLE
    (paid,) = await alice.pay([new], (new.amount_sat, alice.policy))
    assert await alice.spend_state(paid.id) == SPENDABLE


async def test_round_pays_to_its_tree_first(alice: RoundClient, chain: FakeServerChain) -> None:
    vtxo = await alice.board()
    before_sat = await alice.server.treasury.balance_sat()
    coins = await alice.hold_round(vtxo)
    (funding_tx,) = chain.broadcasts
    assert funding_tx == coins.funding_tx
    (new,) = coins.vtxos
    root, change = funding_tx.outputs
    assert root.value_sat == new.amount_sat + 330
    assert change.value_sat == await alice.server.treasury.balance_sat() - (before_sat - COINS[0])
    tip = await chain.tip()
    assert (funding_tx.version, funding_tx.locktime) == (2, tip.height)
    fee_sat = COINS[0] - root.value_sat - change.value_sat
    assert fee_sat == alice.server.fee_rates.fast.fee_wu(funding_tx.weight_wu)


async def test_lone_output_is_padded_to_two_leaves(alice: RoundClient) -> None:
    events, attempt = await started(alice)
    await alice.join(attempt, await alice.board())
    proposal = await proposed(events, alice.server)
    spec = TreeSpec.decode(proposal.vtxos_spec)
    assert len(spec.leaves) == 2
    padding = spec.leaves[1]
    assert (padding.amount_sat, padding.policy.user_pubkey, padding.cosign_pubkey) == (330, PADDING_KEY, None)
    assert padding.unlock_hash == bytes.fromhex("deadbeef" * 8)


async def test_books_say_what_spends_what(alice: RoundClient, chain: FakeServerChain) -> None:
    vtxo = await alice.board()
    coins = await alice.hold_round(vtxo)
    (new,) = coins.vtxos
    root_tx, leaf_tx = new.exit_transactions()
    row = await alice.server.vtxo_row(vtxo.id)
    assert (row.state, row.spent_in_round, row.spent_by) == (SpendState.SPENT, coins.funding_tx.txid, None)
    root = await alice.server.vtxo_row(VtxoId.of(coins.funding_tx.outpoint(0)))
    assert (root.state, root.spent_by, root.vtxo.policy.kind) == (SpendState.SPENT, root_tx.txid, "expiry")
    leaf = await alice.server.vtxo_row(VtxoId.of(root_tx.outpoint(0)))
    assert (leaf.state, leaf.spent_by) == (SpendState.SPENT, leaf_tx.txid)
    assert leaf.vtxo.policy.kind.startswith("hark-leaf")
    assert not root.has_exited
    chain.mine(coins.funding_tx)
    await alice.server.follower.catch_up()
    assert (await alice.server.vtxo_row(root.id)).confirmed_height == (await chain.tip()).height


async def test_several_users_share_a_tree(alice: RoundClient, bob: RoundClient) -> None:
    ours, theirs = await alice.board(), await bob.board(60_000)
    events, attempt = await started(alice)
    joined = [await alice.join(attempt, ours), await bob.join(attempt, theirs)]
    proposal = await proposed(events, alice.server)
    await bob.sign(joined[1], proposal)
    await alice.sign(joined[0], proposal)
    finished = await events.next("finished")
    for client, each in zip((alice, bob), joined, strict=True):
        (new,) = await client.swap(client.locked_coins(each, finished))
        assert await client.spend_state(new.id) == SPENDABLE


async def test_old_coin_is_not_needed_at_the_second_round(alice: RoundClient) -> None:
    (new,) = await alice.swap(await alice.hold_round(await alice.board()))
    (newer,) = await alice.swap(await alice.hold_round(new))
    assert newer.exit_depth == 2
    assert await alice.spend_state(new.id) == SPENT


# --- the clockwork


async def test_round_of_nobody_fails(alice: RoundClient) -> None:
    events, attempt = await started(alice)
    assert attempt.attempt_seq == 0
    assert len(attempt.round_attempt_challenge) == 32
    alice.server.rounds.go_on()
    failed = await events.next("failed")
    assert failed.round_seq == attempt.round_seq


@pytest.mark.parametrize("end", ["finished", "failed", "cut off"])
async def test_numbers_grow_over_restarts(
    alice: RoundClient, start_server: StartServer, connect: Connect, end: str
) -> None:
    """Also over one within the same second, whatever became of the last round."""
    if end == "finished":
        await alice.hold_round(await alice.board())
    else:
        events, _ = await started(alice)
        if end == "failed":
            alice.server.rounds.go_on()
            await events.next("failed")
    first = alice.server.rounds.events.last
    assert first is not None
    await alice.server.stop()
    again = await connect(await start_server(ON_DEMAND))
    refusal = await again.refusal(again.ark.LastRoundEvent, core_pb2.Empty())
    assert refusal == Refusal("NOT_FOUND", "not found: no round event yet", "")
    _, attempt = await started(again)
    assert attempt.round_seq > first.round_seq


async def test_next_round_time_moves_with_each_start(alice: RoundClient) -> None:
    answer = await alice.call(alice.ark.NextRoundTime, core_pb2.Empty())
    assert answer.timestamp == NOW + 3600
    alice.server.rounds._parts.clock.now += 100  # type: ignore[attr-defined]
    await started(alice)
    answer = await alice.call(alice.ark.NextRoundTime, core_pb2.Empty())
    assert answer.timestamp == NOW + 100 + 3600


async def test_rounds_come_by_themselves(start_server: StartServer, connect: Connect) -> None:
    settings = replace(ON_DEMAND, round_interval_secs=1, round_submit_secs=0.01)
    client = await connect(await start_server(settings))
    events = await Events(client).opened()
    for _ in range(2):
        attempt = await events.next("attempt")
        failed = await events.next("failed")
        assert failed.round_seq == attempt.round_seq


async def test_admin_listener_triggers_rounds(alice: RoundClient) -> None:
    events = await Events(alice).opened()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{alice.server.admin_port}") as channel:
        admin = RoundAdminServiceStub(channel)  # type: ignore[no-untyped-call]
        await admin.TriggerRound(core_pb2.Empty())
        first = await events.next("attempt")
        await admin.TriggerRound(core_pb2.Empty())
        await admin.TriggerRound(core_pb2.Empty())
    alice.server.rounds.go_on()
    await events.next("failed")
    second = await events.next("attempt")
    assert second.round_seq == first.round_seq + 1
    alice.server.rounds.go_on()
    await events.next("failed")
    # The third trigger found one waiting, and was dropped.
    assert not alice.server.rounds._triggered


async def test_wallets_cannot_trigger_rounds(alice: RoundClient) -> None:
    admin = RoundAdminServiceStub(alice.channel)  # type: ignore[no-untyped-call]
    refusal = await alice.refusal(admin.TriggerRound, core_pb2.Empty())
    assert refusal.code == "UNIMPLEMENTED"


async def test_new_subscriber_hears_the_last_event_first(alice: RoundClient, bob: RoundClient) -> None:
    _, attempt = await started(alice)
    late = await Events(bob).opened()
    assert await late.next("attempt") == attempt
    assert (await bob.call(bob.ark.LastRoundEvent, core_pb2.Empty())).attempt == attempt
    bob.server.rounds.go_on()
    await late.next("failed")
    # A stale failure is replayed too.
    stale = await Events(alice).opened()
    await stale.next("failed")


async def test_laggard_loses_the_oldest_events() -> None:
    events = RoundEvents()
    stream = events.subscribe()
    events.publish(RoundFailed(0))
    assert await anext(stream) == RoundFailed(0)
    for number in range(1, 11):
        events.publish(RoundFailed(number))
    heard = [(await anext(stream)).round_seq for _ in range(8)]
    assert heard == list(range(3, 11))
    await stream.aclose()  # type: ignore[attr-defined]
    assert events.nb_subscribers == 0


# --- asleep, late, early


async def test_sleeping_server_says_yes_and_forgets(alice: RoundClient) -> None:
    vtxo = await alice.board()
    attempt = pb.RoundAttempt(round_attempt_challenge=bytes(32))
    first = await alice.join(attempt, vtxo)
    again = await alice.submit(first)
    assert len(again.unlock_hash) == 32
    signatures = pb.VtxoSignaturesRequest(pubkey=alice.public_key.data, signatures=[bytes(32)])
    await alice.call(alice.ark.ProvideVtxoSignatures, signatures)
    events, _ = await started(alice)
    alice.server.rounds.go_on()
    await events.next("failed")


async def test_every_answer_has_another_hash(alice: RoundClient) -> None:
    attempt = pb.RoundAttempt(round_attempt_challenge=bytes(32))
    prepared = await alice.prepare_round(attempt, await alice.board())
    hashes = {(await alice.submit(prepared)).unlock_hash for _ in range(3)}
    assert len(hashes) == 3


async def test_registering_after_the_window_is_refused(alice: RoundClient, bob: RoundClient) -> None:
    theirs = await bob.board()
    events, attempt = await started(alice)
    await alice.join(attempt, await alice.board())
    await proposed(events, alice.server)
    late = await bob.prepare_round(attempt, theirs)
    assert await bob.refusal(bob.ark.SubmitPayment, late.request) == bad(
        "Round already started. Message arrived late or round was full."
    )


async def test_signatures_in_the_submit_window_are_refused(alice: RoundClient) -> None:
    await started(alice)
    request = pb.VtxoSignaturesRequest(pubkey=alice.public_key.data, signatures=[])
    assert await alice.refusal(alice.ark.ProvideVtxoSignatures, request) == bad(
        "unexpected message. current step is payment registration"
    )


@pytest.mark.parametrize(
    "rpc",
    [
        "SubmitPayment",
        "ProvideVtxoSignatures",
        "SubmitRoundParticipation",
        "RequestLeafVtxoCosign",
        "RequestForfeitNonces",
        "ForfeitVtxos",
    ],
)
async def test_old_clients_are_told_to_update(alice: RoundClient, rpc: str) -> None:
    requests = {
        "SubmitPayment": pb.SubmitPaymentRequest(),
        "ProvideVtxoSignatures": pb.VtxoSignaturesRequest(),
        "SubmitRoundParticipation": pb.RoundParticipationRequest(),
        "RequestLeafVtxoCosign": pb.LeafVtxoCosignRequest(),
        "RequestForfeitNonces": pb.ForfeitNoncesRequest(),
        "ForfeitVtxos": pb.ForfeitVtxosRequest(),
    }
    old = await alice.refusal(getattr(alice.ark, rpc), requests[rpc], metadata=(("pver", "4"),))
    assert old == bad(
        "Your client version is too old, you need to update in order to be able to participate in rounds."
    )
    unknown = await alice.refusal(getattr(alice.ark, rpc), requests[rpc], metadata=())
    assert unknown == Refusal("INVALID_ARGUMENT", "missing pver header", None)


# --- registrations that are refused


async def refused(alice: RoundClient, prepared: InPerson) -> Refusal:
    return await alice.refusal(alice.ark.SubmitPayment, prepared.request)


async def test_refused_registration_may_be_corrected(alice: RoundClient) -> None:
    vtxo = await alice.board()
    fee_sat = await alice.refresh_fee_sat([vtxo])
    events, attempt = await started(alice)
    cheap = await alice.prepare_round(attempt, vtxo, fee_sat=fee_sat - 1)
    assert await refused(alice, cheap) == Refusal(
        "INVALID_ARGUMENT",
        "amounts check failed: bad user input: insufficient refresh fee: "
        f"expected at least 0.{fee_sat:08} BTC, got 0.{fee_sat - 1:08} BTC",
        None,
    )
    assert not alice.server.locks.is_locked(vtxo.id)
    joined = await alice.join(attempt, vtxo)
    await alice.sign(joined, await proposed(events, alice.server))
    await events.next("finished")


async def test_overpaying_is_accepted(alice: RoundClient) -> None:
    vtxo = await alice.board()
    _, attempt = await started(alice)
    await alice.submit(await alice.prepare_round(attempt, vtxo, fee_sat=20_000))


async def test_requests_that_make_no_sense(alice: RoundClient) -> None:
    vtxo = await alice.board()
    _, attempt = await started(alice)

    nothing = await alice.prepare_round(attempt, vtxo)
    del nothing.request.vtxo_requests[:]
    assert await refused(alice, nothing) == bad("invalid request: no outputs")

    few = await alice.prepare_round(attempt, vtxo)
    few.request.vtxo_requests[0].public_nonces.pop()
    assert await refused(alice, few) == bad("need exactly 8 public nonces")

    broken = await alice.prepare_round(attempt, vtxo)
    broken.request.vtxo_requests[0].cosign_pubkey = b"\x02" + bytes(32)
    assert await refused(alice, broken) == bad("invalid signed vtxo request: invalid public key")

    short = await alice.prepare_round(attempt, vtxo)
    short.request.input_vtxos[0].attestation = bytes(63)
    assert await refused(alice, short) == Refusal(
        "INVALID_ARGUMENT", "invalid round attempt attestation", None
    )

    old = await alice.prepare_round(attempt, vtxo)
    old.request.offboard_requests.add()
    assert (await refused(alice, old)).code == "UNIMPLEMENTED"

    twice = await alice.prepare_round(attempt, vtxo)
    twice.request.input_vtxos.append(twice.request.input_vtxos[0])
    assert await refused(alice, twice) == internal("user provided duplicate inputs")

    differently = await alice.prepare_round(attempt, vtxo, vtxo)
    assert await refused(alice, differently) == bad(
        f"input VTXO already locked: VTXO is already locked by another process: {vtxo.id}"
    )

    two_outputs = await alice.prepare_round(attempt, vtxo)
    two_outputs.request.vtxo_requests.append(two_outputs.request.vtxo_requests[0])
    key = two_outputs.cosign_secret.public_key
    assert await refused(alice, two_outputs) == internal(f"duplicate cosign key {key}")


@pytest.mark.parametrize(
    ("amount_sat", "text"),
    [
        (329, "vtxo amount must be at least 0.00000330 BTC"),
        (99_671, "total output amount (0.00099671 BTC) exceeds total input amount (0.00099670 BTC)"),
    ],
)
async def test_impossible_amounts(alice: RoundClient, amount_sat: int, text: str) -> None:
    vtxo = await alice.board()
    _, attempt = await started(alice)
    prepared = await alice.prepare_round(attempt, vtxo, fee_sat=vtxo.amount_sat - amount_sat)
    assert await refused(alice, prepared) == Refusal(
        "INVALID_ARGUMENT", f"amounts check failed: bad user input: {text}", None
    )


async def test_outputs_are_plain_coins_of_limited_size(start_server: StartServer, connect: Connect) -> None:
    alice = await connect(await start_server(replace(ON_DEMAND, max_vtxo_amount_sat=50_000)))
    vtxo = await alice.board(50_000)
    small = await alice.pay([vtxo], (30_000, alice.policy), (vtxo.amount_sat - 30_000, alice.policy))
    _, attempt = await started(alice)
    big = await alice.prepare_round(attempt, *small, fee_sat=-1_000)
    assert await refused(alice, big) == bad("output exceeds maximum vtxo amount of 0.00050000 BTC")

    htlc = await alice.prepare_round(attempt, *small)
    policy = ServerHtlcSendPolicy(alice.public_key, bytes(32), 700)
    htlc.output = RoundOutput(htlc.output.amount_sat, policy)
    htlc.request.vtxo_requests[0].vtxo.policy = encode_policy(policy)
    alice.attest_round(attempt, htlc)
    assert await refused(alice, htlc) == Refusal(
        "INVALID_ARGUMENT",
        f"amounts check failed: bad user input: invalid vtxo policy: {policy.kind}",
        None,
    )


async def test_unusable_inputs_are_all_named(alice: RoundClient) -> None:
    good, spent, banned = [await alice.board() for _ in range(3)]
    await alice.pay([spent], (spent.amount_sat, alice.policy))
    await alice.server.ban_vtxo(banned.id, 10)
    _, attempt = await started(alice)
    prepared = await alice.prepare_round(attempt, good, spent, banned)
    names = f"{spent.id}, {banned.id}"
    assert await refused(alice, prepared) == Refusal(
        "INVALID_ARGUMENT",
        f"unusable inputs: [{names}]: bad user input: input vtxo(s) not spendable",
        f"{spent.id},{banned.id}",
    )


async def test_unknown_inputs_are_not_found(alice: RoundClient) -> None:
    vtxo, _ = await alice.signed_board()
    _, attempt = await started(alice)
    prepared = await alice.prepare_round(attempt, vtxo)
    assert await refused(alice, prepared) == Refusal(
        "NOT_FOUND", "tx body error: not found: vtxo does not exist", str(vtxo.id)
    )


@pytest.mark.parametrize("what", ["challenge", "amount", "owner"])
async def test_attestation_commits_to_everything(alice: RoundClient, bob: RoundClient, what: str) -> None:
    vtxo = await alice.board()
    _, attempt = await started(alice)
    if what == "challenge":
        prepared = await alice.prepare_round(pb.RoundAttempt(round_attempt_challenge=bytes(32)), vtxo)
    elif what == "owner":
        prepared = await bob.prepare_round(attempt, vtxo)
    else:
        prepared = await alice.prepare_round(attempt, vtxo)
        prepared.request.vtxo_requests[0].vtxo.amount -= 1
    refusal = await refused(alice, prepared)
    assert refusal.code == "INTERNAL"
    assert refusal.text.startswith(f"attestation is invalid: vtxo {vtxo.id}, proof: ")


async def test_input_takes_part_once(alice: RoundClient) -> None:
    vtxo = await alice.board()
    _, attempt = await started(alice)
    joined = await alice.join(attempt, vtxo)
    literally = await refused(alice, joined)
    assert literally == internal(f"duplicate cosign key {joined.cosign_secret.public_key}")
    again = await alice.prepare_round(attempt, vtxo)
    assert await refused(alice, again) == internal(f"vtxo {vtxo.id} already registered")


async def test_small_round_is_full(
    start_server: StartServer, connect: Connect, chain: FakeServerChain
) -> None:
    alice = await connect(await start_server(replace(ON_DEMAND, nb_round_nonces=1)))
    vtxos = [await alice.board() for _ in range(5)]
    events, attempt = await started(alice)
    for vtxo in vtxos[:3]:
        await alice.join(attempt, vtxo)
    crowd = await alice.prepare_round(attempt, *vtxos[3:])
    other = await alice.prepare_round(attempt, vtxos[4])
    crowd.request.vtxo_requests.extend(other.request.vtxo_requests)
    assert await refused(alice, crowd) == internal("not enough outputs left in this round, try next round")
    await alice.join(attempt, vtxos[3])
    # Nobody ended the window; this server has no money for the tree.
    await events.next("failed")


# --- locks


async def test_registered_input_cannot_be_paid_away(alice: RoundClient) -> None:
    vtxo = await alice.board()
    await alice.register(vtxo)
    events, attempt = await started(alice)
    await alice.join(attempt, vtxo)
    payment = alice.prepare_payment([vtxo], [(vtxo.amount_sat, alice.policy)])
    assert await alice.refusal(alice.ark.RequestArkoorCosign, payment.request) == bad(
        f"some VTXO is already locked by another process: {vtxo.id}"
    )
    await proposed(events, alice.server)
    alice.server.rounds.go_on()
    await events.next("failed")
    await alice.call(alice.ark.RequestArkoorCosign, payment.request)


# --- signatures and attempts


async def test_wrong_signatures_may_be_corrected(alice: RoundClient, bob: RoundClient) -> None:
    ours, theirs = await alice.board(), await bob.board()
    events, attempt = await started(alice)
    joined, other = await alice.join(attempt, ours), await bob.join(attempt, theirs)
    proposal = await proposed(events, alice.server)
    right = await alice.signatures(joined, proposal)

    def changed(signatures: list[bytes]) -> pb.VtxoSignaturesRequest:
        return pb.VtxoSignaturesRequest(pubkey=right.pubkey, signatures=signatures)

    wrong = await alice.refusal(alice.ark.ProvideVtxoSignatures, changed([bytes([1] * 32)]))
    assert wrong.code == "INVALID_ARGUMENT"
    assert wrong.text.startswith("bad user input: invalid partial signatures: ")
    none = await alice.refusal(alice.ark.ProvideVtxoSignatures, changed([]))
    assert none == bad("invalid partial signatures: expected 1 partial signatures, got 0")
    stranger = pb.VtxoSignaturesRequest(pubkey=SecretKey.generate().public_key.data, signatures=[])
    assert await alice.refusal(alice.ark.ProvideVtxoSignatures, stranger) == bad(
        "pubkey is not part of cosigner group"
    )
    await alice.call(alice.ark.ProvideVtxoSignatures, right)
    assert await alice.refusal(alice.ark.ProvideVtxoSignatures, right) == bad(
        "duplicate signatures for pubkey"
    )
    await bob.sign(other, proposal)
    await events.next("finished")


async def test_silent_cosigner_is_left_behind(alice: RoundClient, bob: RoundClient) -> None:
    ours, theirs = await alice.board(), await bob.board()
    events, attempt = await started(alice)
    joined, _ = await alice.join(attempt, ours), await bob.join(attempt, theirs)
    await alice.sign(joined, await proposed(events, alice.server))
    alice.server.rounds.go_on()

    second = await events.next("attempt")
    assert (second.round_seq, second.attempt_seq) == (attempt.round_seq, 1)
    assert second.round_attempt_challenge != attempt.round_attempt_challenge
    back = await bob.prepare_round(second, theirs)
    assert await bob.refusal(bob.ark.SubmitPayment, back.request) == internal(
        f"input vtxo {theirs.id} has been banned for this round"
    )
    rejoined = await alice.join(second, ours)
    await alice.sign(rejoined, await proposed(events, alice.server))
    finished = await events.next("finished")
    assert finished.attempt_seq == 1
    await alice.swap(alice.locked_coins(rejoined, finished))
    assert await bob.spend_state(theirs.id) == SPENDABLE


async def test_nobody_new_joins_a_later_attempt(alice: RoundClient, bob: RoundClient) -> None:
    ours, theirs, fresh = await alice.board(), await bob.board(), await alice.board()
    events, attempt = await started(alice)
    joined, _ = await alice.join(attempt, ours), await bob.join(attempt, theirs)
    await alice.sign(joined, await proposed(events, alice.server))
    alice.server.rounds.go_on()
    second = await events.next("attempt")
    newcomer = await alice.prepare_round(second, fresh)
    assert await alice.refusal(alice.ark.SubmitPayment, newcomer.request) == internal(
        f"input vtxo {fresh.id} has been banned for this round"
    )


async def test_round_of_silent_cosigners_fails(alice: RoundClient) -> None:
    vtxo = await alice.board()
    events, attempt = await started(alice)
    await alice.join(attempt, vtxo)
    await proposed(events, alice.server)
    alice.server.rounds.go_on()
    await events.next("failed")
    # The next round takes it again, and the server's coins are free.
    await alice.swap(await alice.hold_round(vtxo))


# --- what goes wrong at the server


async def test_poor_server_fails_its_rounds(start_server: StartServer, connect: Connect) -> None:
    alice = await connect(await start_server(ON_DEMAND))
    vtxo = await alice.board()
    events, attempt = await started(alice)
    await alice.join(attempt, vtxo)
    alice.server.rounds.go_on()
    await events.next("failed")
    assert await alice.spend_state(vtxo.id) == SPENDABLE


def fault(server: ArkServer, point: str, kind: Kind, **fields: object) -> None:
    server.faults.set(Fault(point, Stage.ENGINE, kind, **fields))  # type: ignore[arg-type]


async def struck(server: ArkServer) -> None:
    """Return when the fault has struck."""
    while not server.faults.list()[0]["hits"]:
        await server.participations()


async def signed(alice: RoundClient, vtxo: Vtxo) -> tuple[Events, InPerson]:
    """A round to which only the server's own work is missing."""
    events, attempt = await started(alice)
    joined = await alice.join(attempt, vtxo)
    await alice.sign(joined, await proposed(events, alice.server))
    return events, joined


async def test_round_that_cannot_be_booked_leaves_nothing(alice: RoundClient) -> None:
    vtxo = await alice.board()
    fault(alice.server, "round.book", Kind.ERROR)
    events, joined = await signed(alice, vtxo)
    await events.next("failed")
    refusal = await alice.refusal(
        alice.ark.RoundParticipationStatus,
        pb.RoundParticipationStatusRequest(unlock_hash=joined.unlock_hash),
    )
    assert refusal == Refusal(
        "NOT_FOUND", "tx body error: not found: round participation not found", joined.unlock_hash.hex()
    )
    assert await alice.spend_state(vtxo.id) == SPENDABLE


async def test_booked_round_survives_a_failed_end(alice: RoundClient, chain: FakeServerChain) -> None:
    vtxo = await alice.board()
    fault(alice.server, "round.sign", Kind.ERROR)
    events, joined = await signed(alice, vtxo)
    await events.next("failed")
    status = await alice.participation(joined.unlock_hash)
    assert status.status == pb.ROUND_PART_ISSUED
    assert not Tx.parse(status.round_funding_tx).has_witness
    assert await alice.spend_state(vtxo.id) == SPENT
    assert chain.broadcasts == []


@pytest.mark.parametrize("resume", [True, False])
async def test_killed_between_booking_and_signing(
    alice: RoundClient,
    start_server: StartServer,
    connect: Connect,
    chain: FakeServerChain,
    resume: bool,
) -> None:
    vtxo = await alice.board()
    fault(alice.server, "round.sign", Kind.DROP)
    _, joined = await signed(alice, vtxo)
    await struck(alice.server)
    await alice.server.stop()
    again = await connect(await start_server(replace(ON_DEMAND, resume_rounds=resume)))
    again.secret = alice.secret
    status = await again.participation(joined.unlock_hash)
    funding_tx = Tx.parse(status.round_funding_tx)
    assert status.status == pb.ROUND_PART_ISSUED
    assert funding_tx.has_witness is resume
    if resume:
        await again.server.treasury.broadcast_unconfirmed()
        assert chain.broadcasts[0] == funding_tx
        await again.swap(await again.delegated_coins(joined.unlock_hash, vtxo))


async def test_killed_before_anybody_is_told(
    alice: RoundClient, start_server: StartServer, connect: Connect, chain: FakeServerChain
) -> None:
    vtxo = await alice.board()
    fault(alice.server, "round.announce", Kind.DROP)
    _, joined = await signed(alice, vtxo)
    await struck(alice.server)
    assert len(chain.broadcasts) == 1
    await alice.server.stop()
    again = await connect(await start_server(ON_DEMAND))
    again.secret = alice.secret
    (new,) = await again.swap(await again.delegated_coins(joined.unlock_hash, vtxo))
    assert await again.spend_state(new.id) == SPENDABLE


async def test_refused_funding_tx_does_not_fail_the_round(alice: RoundClient, chain: FakeServerChain) -> None:
    vtxo = await alice.board()
    chain.refusal = ChainError("min relay fee not met")
    events, joined = await signed(alice, vtxo)
    coins = alice.locked_coins(joined, await events.next("finished"))
    assert chain.broadcasts == []
    chain.refusal = None
    await alice.server.treasury.broadcast_unconfirmed()
    assert chain.broadcasts == [coins.funding_tx]


async def test_funding_tx_can_be_withheld(alice: RoundClient, chain: FakeServerChain) -> None:
    vtxo = await alice.board()
    fault(alice.server, "round.broadcast", Kind.SWALLOW)
    events, joined = await signed(alice, vtxo)
    coins = alice.locked_coins(joined, await events.next("finished"))
    await alice.server.treasury.broadcast_unconfirmed()
    assert chain.broadcasts == []
    assert coins.funding_tx.has_witness


# --- lies


async def test_tampered_tree_is_proposed_as_a_whole(alice: RoundClient) -> None:
    vtxo = await alice.board()
    fault(alice.server, "round.spec", Kind.MUTATE, path="exit_delta", mutation="add", value=1)
    events, attempt = await started(alice)
    joined = await alice.join(attempt, vtxo)
    proposal = await proposed(events, alice.server)
    spec = TreeSpec.decode(proposal.vtxos_spec)
    assert spec.exit_delta == ON_DEMAND.vtxo_exit_delta + 1
    # All else fits: only who compares the terms notices.
    terms = replace(await alice.terms(), exit_delta=spec.exit_delta)
    accept_proposal(
        proposal.vtxos_spec,
        Tx.parse(proposal.unsigned_round_tx),
        list(proposal.vtxos_agg_nonces),
        outputs=[joined.output],
        unlock_hash=joined.unlock_hash,
        terms=terms,
        nb_nonces=8,
    )


async def test_leaf_with_another_hash_or_without_us(alice: RoundClient) -> None:
    vtxo = await alice.board()
    fault(
        alice.server, "round.spec", Kind.MUTATE,
        path="leaves.0.unlock_hash", mutation="set", value="11" * 32,
    )  # fmt: skip
    events, attempt = await started(alice)
    await alice.join(attempt, vtxo)
    spec = TreeSpec.decode((await proposed(events, alice.server)).vtxos_spec)
    assert spec.leaves[0].unlock_hash == bytes([0x11] * 32)
    alice.server.rounds.go_on()
    await events.next("failed")
    fault(alice.server, "round.spec", Kind.MUTATE, path="leaves.0", mutation="drop")
    alice.server.rounds.trigger()
    await alice.join(await events.next("attempt"), vtxo)
    spec = TreeSpec.decode((await proposed(events, alice.server)).vtxos_spec)
    assert [leaf.policy.user_pubkey for leaf in spec.leaves] == [PADDING_KEY]


async def test_swallowed_signatures_look_accepted(alice: RoundClient) -> None:
    vtxo = await alice.board()
    alice.server.faults.set(Fault("ProvideVtxoSignatures", Stage.BEFORE, Kind.SWALLOW))
    events, _ = await signed(alice, vtxo)
    alice.server.rounds.go_on()
    await events.next("failed")


async def test_lost_and_repeated_events(alice: RoundClient, bob: RoundClient) -> None:
    alice.server.faults.set(Fault("SubscribeRounds", Stage.STREAM, Kind.SWALLOW, message="attempt"))
    deaf = await Events(bob).opened()
    ours = alice.server.rounds.events.subscribe()
    alice.server.rounds.trigger()
    assert isinstance(await anext(ours), AttemptStarted)
    alice.server.rounds.go_on()
    await deaf.next("failed")
    alice.server.faults.set(Fault("SubscribeRounds", Stage.STREAM, Kind.REPEAT, message="failed"))
    again = await Events(alice).opened()
    await again.next("failed")
    await again.next("failed")
