"""Leaves, forfeits, and the preimage for them. Source: sheet 10 §6.7, §12."""

import pytest

from barkd_py.ark.rounds import ForfeitBundle, leaf_task
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from tests.devnet.ark_server.client import Refusal, bad
from tests.devnet.ark_server.conftest import SettableClock, StartServer
from tests.devnet.ark_server.rounds.client import LockedCoins, RoundClient
from tests.devnet.ark_server.rounds.conftest import ON_DEMAND, Connect
from tests.support.script_engine import is_spend_valid


def bad_inside(text: str) -> Refusal:
    return Refusal("INVALID_ARGUMENT", f"tx body error: bad user input: {text}", None)


@pytest.fixture
async def coins(alice: RoundClient) -> LockedCoins:
    """A finished round with two inputs."""
    return await alice.hold_round(await alice.board(), await alice.board(50_000))


async def forfeit(client: RoundClient, request: pb.ForfeitVtxosRequest) -> bytes:
    answer = await client.call(client.ark.ForfeitVtxos, request)
    preimage: bytes = answer.unlock_preimage
    return preimage


async def refused(client: RoundClient, request: pb.ForfeitVtxosRequest) -> Refusal:
    return await client.refusal(client.ark.ForfeitVtxos, request)


def nonce_request(coins: LockedCoins, *vtxo_ids: bytes) -> pb.ForfeitNoncesRequest:
    return pb.ForfeitNoncesRequest(unlock_hash=coins.unlock_hash, vtxo_ids=vtxo_ids)


# --- leaves


async def test_leaf_is_cosigned_as_often_as_asked(alice: RoundClient, coins: LockedCoins) -> None:
    first, second = await alice.sign_leaves(coins), await alice.sign_leaves(coins)
    assert first != second
    await forfeit(alice, await alice.forfeit_request(coins))
    await alice.sign_leaves(coins)


async def test_leaf_of_no_round(alice: RoundClient, coins: LockedCoins) -> None:
    board = await alice.board()
    _, pub_nonce = leaf_task(coins.vtxos[0]).generate_nonce(alice.secret)

    async def ask(vtxo_id: VtxoId) -> Refusal:
        request = pb.LeafVtxoCosignRequest(vtxo_id=vtxo_id, public_nonce=pub_nonce)
        return await alice.refusal(alice.ark.RequestLeafVtxoCosign, request)

    assert await ask(board.id) == bad_inside("VTXO's chain anchor is not a known round")
    unknown, _ = await alice.signed_board()
    assert (await ask(unknown.id)).code == "NOT_FOUND"
    inner = VtxoId.of(coins.vtxos[0].exit_transactions()[0].outpoint(0))
    assert (await ask(inner)).code == "INTERNAL"
    (new,) = await alice.swap(coins)
    (paid,) = await alice.pay([new], (new.amount_sat, alice.policy))
    assert await ask(paid.id) == bad(f"VTXO {paid.id} is not a hArk leaf VTXO")


# --- nonces


async def test_nonces_stay_the_same_until_they_are_used(alice: RoundClient, coins: LockedCoins) -> None:
    first, second = (vtxo.id for vtxo in coins.inputs)
    both = await alice.call(alice.ark.RequestForfeitNonces, nonce_request(coins, first, second))
    turned = await alice.call(alice.ark.RequestForfeitNonces, nonce_request(coins, second, first))
    assert list(both.public_nonces) == list(reversed(turned.public_nonces))
    await forfeit(alice, await alice.forfeit_request(coins))
    others = await alice.call(alice.ark.RequestForfeitNonces, nonce_request(coins, first, second))
    assert not set(others.public_nonces) & set(both.public_nonces)


async def test_nonces_are_refused(alice: RoundClient, coins: LockedCoins) -> None:
    vtxo_id, stranger = coins.inputs[0].id, (await alice.board()).id

    async def ask(request: pb.ForfeitNoncesRequest) -> Refusal:
        return await alice.refusal(alice.ark.RequestForfeitNonces, request)

    not_part = "vtxo with id {} is not part of this round participation"
    assert await ask(nonce_request(coins, vtxo_id, vtxo_id)) == bad(not_part.format(vtxo_id))
    assert await ask(nonce_request(coins, stranger)) == bad(not_part.format(stranger))
    unknown = pb.ForfeitNoncesRequest(unlock_hash=bytes(32), vtxo_ids=[vtxo_id])
    assert await ask(unknown) == bad("unknown unlock hash")
    assert await ask(nonce_request(coins, *([vtxo_id] * 1001))) == bad("too many vtxo ids, max is 1000")
    short = pb.ForfeitNoncesRequest(unlock_hash=bytes(31))
    assert await ask(short) == Refusal("INVALID_ARGUMENT", "invalid SHA-256 hash", None)


async def test_old_nonces_are_forgotten_when_a_round_starts(
    alice: RoundClient, coins: LockedCoins, clock: SettableClock
) -> None:
    request = await alice.forfeit_request(coins)
    clock.now += 31
    events = alice.server.rounds.events.subscribe()
    await anext(events)
    alice.server.rounds.trigger()
    await anext(events)
    vtxo_id = coins.inputs[0].id
    assert await refused(alice, request) == bad(f"no forfeit nonces generated for vtxo {vtxo_id}")
    assert len(await forfeit(alice, await alice.forfeit_request(coins))) == 32


# --- forfeits


async def test_forfeits_are_traded_for_the_preimage(alice: RoundClient, coins: LockedCoins) -> None:
    request = await alice.forfeit_request(coins)
    preimage = await forfeit(alice, request)
    assert sha256(preimage) == coins.unlock_hash
    for vtxo in coins.inputs:
        row = await alice.server.vtxo_row(vtxo.id)
        assert row.spent_by is not None
        tx = await alice.server.virtual_tx(row.spent_by)
        assert tx is not None
        assert is_spend_valid(tx, (vtxo.output,))
        forfeited = await alice.server.vtxo_row(VtxoId.of(tx.outpoint(0)))
        assert forfeited.state is SpendState.ROUND_FORFEIT
        assert forfeited.vtxo.output == tx.outputs[0]
    assert await alice.spend_state(coins.vtxos[0].id) == pb.VTXO_SPEND_STATE_SPENDABLE


async def test_preimage_is_given_again_whatever_is_signed(alice: RoundClient, coins: LockedCoins) -> None:
    request = await alice.forfeit_request(coins)
    preimage = await forfeit(alice, request)
    assert await forfeit(alice, request) == preimage
    garbage = ForfeitBundle.decode(request.forfeit_bundles[0])
    garbage = ForfeitBundle(garbage.vtxo_id, garbage.unlock_hash, garbage.user_pub_nonce, bytes([1] * 32))
    assert await forfeit(alice, pb.ForfeitVtxosRequest(forfeit_bundles=[garbage.encode()])) == preimage


async def test_all_inputs_or_none(alice: RoundClient, coins: LockedCoins) -> None:
    request = await alice.forfeit_request(coins)
    first, second = request.forfeit_bundles
    missing = coins.inputs[1].id
    assert await refused(alice, pb.ForfeitVtxosRequest(forfeit_bundles=[first])) == bad(
        f"missing input vtxos: {{{missing}}}"
    )
    assert await refused(alice, pb.ForfeitVtxosRequest()) == bad("zero forfeit bundles provided")
    twice = pb.ForfeitVtxosRequest(forfeit_bundles=[first, first])
    assert await refused(alice, twice) == bad(f"duplicate vtxo with id {coins.inputs[0].id}")
    stranger = await alice.board()
    extra = ForfeitBundle.decode(first)
    extra = ForfeitBundle(stranger.id, extra.unlock_hash, extra.user_pub_nonce, extra.partial_sig)
    assert await refused(
        alice, pb.ForfeitVtxosRequest(forfeit_bundles=[first, second, extra.encode()])
    ) == bad(f"vtxo with id {stranger.id} is not part of this round participation")
    malformed = pb.ForfeitVtxosRequest(forfeit_bundles=[first[:-1]])
    assert await refused(alice, malformed) == Refusal("INVALID_ARGUMENT", "invalid hArk forfeit bundle", None)
    # Nothing of this used up a nonce.
    await forfeit(alice, request)


async def test_wrong_signature_uses_up_the_nonces_before_it(alice: RoundClient, coins: LockedCoins) -> None:
    request = await alice.forfeit_request(coins)
    first, second = (ForfeitBundle.decode(data) for data in request.forfeit_bundles)
    swapped = ForfeitBundle(second.vtxo_id, second.unlock_hash, second.user_pub_nonce, first.partial_sig)
    wrong = pb.ForfeitVtxosRequest(forfeit_bundles=[first.encode(), swapped.encode()])
    assert await refused(alice, wrong) == bad(
        f"forfeit validation failed for vtxo {second.vtxo_id}: invalid partial sig for forfeit tx"
    )
    assert await refused(alice, request) == bad(f"no forfeit nonces generated for vtxo {first.vtxo_id}")
    await forfeit(alice, await alice.forfeit_request(coins))


async def test_hashes_must_fit(alice: RoundClient) -> None:
    one = await alice.hold_round(await alice.board())
    other = await alice.hold_round(await alice.board())
    bundles = [(await alice.forfeit_request(each)).forfeit_bundles[0] for each in (one, other)]
    mixed = pb.ForfeitVtxosRequest(forfeit_bundles=bundles)
    assert await refused(alice, mixed) == bad("not all forfeit bundles have same unlock hash")
    bundle = ForfeitBundle.decode(bundles[0])
    unknown = ForfeitBundle(bundle.vtxo_id, bytes(32), bundle.user_pub_nonce, bundle.partial_sig)
    assert await refused(alice, pb.ForfeitVtxosRequest(forfeit_bundles=[unknown.encode()])) == bad_inside(
        "unknown unlock hash"
    )


async def test_nothing_is_forfeited_before_its_round(alice: RoundClient) -> None:
    vtxo = await alice.board()
    unlock_hash = await alice.delegate(vtxo)
    waiting = LockedCoins((vtxo,), (), None, unlock_hash)  # type: ignore[arg-type]
    request = await alice.forfeit_request(waiting)
    assert await refused(alice, request) == Refusal("INTERNAL", "round participation has no round_id", None)
    assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENDABLE


async def test_restart_forgets_nonces_and_nothing_else(
    alice: RoundClient, coins: LockedCoins, start_server: StartServer, connect: Connect
) -> None:
    request = await alice.forfeit_request(coins)
    await alice.server.stop()
    again = await connect(await start_server(ON_DEMAND))
    again.secret = alice.secret
    vtxo_id = coins.inputs[0].id
    assert await refused(again, request) == bad(f"no forfeit nonces generated for vtxo {vtxo_id}")
    (new,) = await again.swap(coins)
    await again.server.stop()
    third = await connect(await start_server(ON_DEMAND))
    assert sha256(await forfeit(third, request)) == coins.unlock_hash
    assert (await third.server.vtxo_row(new.id)).state is SpendState.SPENDABLE
