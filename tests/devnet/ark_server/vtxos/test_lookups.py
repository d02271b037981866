"""Handshake, info, look-ups, health, and the time before the first round. Source: sheet 10 §0, §1, §6.1."""

import asyncio
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
import pytest

from barkd_py.ark.vtxo import ServerVtxo, VtxoId
from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.settings import CAPTAIND, Emulation, ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.server_rpc.convert import ark_info
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from barkd_py.server_rpc.protos import core_pb2
from tests.devnet.ark_server.client import INVALID, METADATA, Client, Refusal
from tests.devnet.ark_server.conftest import NOW, StartServer
from tests.fakes.server_chain import FakeServerChain


def test_keys_are_those_of_the_real_server() -> None:
    """Source: sheet 10 §1."""
    keys = ServerKeys.from_seed(parse_mnemonic("abandon " * 11 + "about"))
    assert keys.server_pubkey.hex() == "0387958c15580236b26df619f19ff2e00e0154bff6fe3f81a9836a71036f73ef25"
    assert keys.mailbox_pubkey.hex() == "037c99bba3259e3e0c62880f42ed54f4eedd43e0250cb822fba7f5343bbdec8558"


async def test_handshake_tells_the_versions(alice: Client) -> None:
    answer = await alice.ark.Handshake(pb.HandshakeRequest(bark_version="0.8.0"))
    assert (answer.min_protocol_version, answer.max_protocol_version) == (4, 5)
    assert not answer.HasField("psa")


async def test_info_is_what_the_client_can_read(alice: Client) -> None:
    info = ark_info(await alice.call(alice.ark.GetArkInfo, core_pb2.Empty()))
    settings = alice.server.settings
    assert (info.network, info.vtxo_exit_delta, info.vtxo_lifetime) == ("regtest", 12, 4320)
    assert info.server_pubkey == alice.server.keys.server_pubkey
    assert info.mailbox_pubkey == alice.server.keys.mailbox_pubkey
    assert info.fees == settings.fees
    assert info.max_vtxo_amount_sat is None
    rate = await alice.call(alice.ark.GetOffboardFeeRate, core_pb2.Empty())
    assert rate.sat_vkb == info.offboard_fee_rate_sat_per_kvb == 10_000


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("barkd/0.8.0", True),
        ("a" * 32 + "/1", True),
        ("a" * 33 + "/1", False),
        ("barkd", False),
        ("/1", False),
        ("barkd/", False),
        ("Barkd/1", False),
    ],
)
async def test_client_names_must_have_a_form(alice: Client, name: str, accepted: bool) -> None:
    call = alice.ark.Handshake(pb.HandshakeRequest(), metadata=(("x-user-agent", name),))
    if accepted:
        assert (await call).max_protocol_version == 5
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert Refusal.of(caught.value) == Refusal(INVALID, "x-user-agent must match `<name>/<version>`", None)


# --- one VTXO


async def test_any_output_in_the_books_can_be_fetched(alice: Client) -> None:
    vtxo = await alice.board()
    stored = await alice.call(alice.ark.GetVtxo, pb.GetVtxoRequest(vtxo_id=vtxo.id))
    assert stored.vtxo == vtxo.encode()
    anchor = await alice.call(alice.ark.GetVtxo, pb.GetVtxoRequest(vtxo_id=vtxo.anchor_point.to_bytes()))
    assert ServerVtxo.decode(anchor.vtxo).policy.kind == "expiry"


@pytest.mark.parametrize("method", ["GetVtxo", "GetVtxoStatus"])
async def test_malformed_and_unknown_ids_are_refused(alice: Client, method: str) -> None:
    request: Any = pb.GetVtxoRequest if method == "GetVtxo" else pb.GetVtxoStatusRequest
    refusal = await alice.refusal(getattr(alice.ark, method), request(vtxo_id=b"\x01" * 35))
    assert refusal == Refusal(INVALID, "invalid VTXO ID", None)
    unknown = VtxoId(b"\x01" * 36)
    wanted = request(vtxo_id=unknown)
    if method == "GetVtxoStatus":
        wanted.attestation = bytes(64)
    refusal = await alice.refusal(getattr(alice.ark, method), wanted)
    assert refusal == Refusal("NOT_FOUND", "tx body error: not found: VTXO not found", str(unknown))


async def test_status_needs_the_owners_signature(alice: Client, bob: Client) -> None:
    vtxo = await alice.board()
    refusal = await bob.refusal(bob.ark.GetVtxoStatus, bob.status_request(vtxo.id))
    text = "bad user input: invalid VTXO status attestation: signature failed verification"
    assert refusal == Refusal(INVALID, text, None)
    short = pb.GetVtxoStatusRequest(vtxo_id=vtxo.id, attestation=b"\x01")
    refusal = await alice.refusal(alice.ark.GetVtxoStatus, short)
    assert refusal == Refusal(INVALID, "invalid VTXO status attestation", None)


async def test_server_outputs_have_no_status(alice: Client) -> None:
    vtxo = await alice.board()
    anchor = VtxoId.of(vtxo.anchor_point)
    refusal = await alice.refusal(alice.ark.GetVtxoStatus, alice.status_request(anchor))
    assert refusal == Refusal("NOT_FOUND", "not found: VTXO not found", str(anchor))


async def test_hidden_states_do_not_exist_for_clients(alice: Client) -> None:
    vtxo = await alice.board()
    await alice.server.set_vtxo_state(vtxo.id, SpendState.POOL)
    refusal = await alice.refusal(alice.ark.GetVtxoStatus, alice.status_request(vtxo.id))
    assert refusal == Refusal("NOT_FOUND", "not found: VTXO not found", str(vtxo.id))


@pytest.mark.parametrize(
    ("state", "value"),
    [
        (SpendState.SPENDABLE, pb.VTXO_SPEND_STATE_SPENDABLE),
        (SpendState.SPENT, pb.VTXO_SPEND_STATE_SPENT),
        (SpendState.LN_SPENT, pb.VTXO_SPEND_STATE_SPENT),
        (SpendState.UNCLAIMED, pb.VTXO_SPEND_STATE_UNCLAIMED),
        (SpendState.UNREGISTERED, pb.VTXO_SPEND_STATE_UNREGISTERED),
        (SpendState.HTLC_RECV_UNCLAIMED, pb.VTXO_SPEND_STATE_HTLC_RECV_UNCLAIMED),
    ],
)
async def test_states_have_their_numbers(alice: Client, state: SpendState, value: int) -> None:
    vtxo = await alice.board()
    await alice.server.set_vtxo_state(vtxo.id, state)
    assert await alice.spend_state(vtxo.id) == value


# --- many VTXOs


async def test_many_vtxos_come_in_request_order(alice: Client) -> None:
    first, second = await alice.board(), await alice.board()
    unknown = VtxoId(b"\x01" * 36)
    ids = [second.id, unknown, first.id, unknown]
    answer = await alice.call(alice.ark.GetVtxosByIds, pb.GetVtxosByIdsRequest(vtxo_ids=ids))
    assert list(answer.vtxos) == [second.encode(), first.encode()]
    assert list(answer.missing_vtxo_ids) == [unknown]


async def test_many_states_come_in_request_order(alice: Client) -> None:
    first, second = await alice.board(), await alice.board()
    await alice.server.set_vtxo_state(first.id, SpendState.SPENT)
    hidden = VtxoId.of(first.anchor_point)
    queries = [
        pb.VtxoStatusQuery(vtxo_id=vtxo_id, attestation=alice.status_request(vtxo_id).attestation)
        for vtxo_id in (second.id, hidden, first.id)
    ]
    request = pb.GetVtxosStatusByIdsRequest(vtxos=queries)
    answer = await alice.call(alice.ark.GetVtxosStatusByIds, request)
    assert [(status.vtxo_id, status.spend_state) for status in answer.vtxos] == [
        (second.id, pb.VTXO_SPEND_STATE_SPENDABLE),
        (first.id, pb.VTXO_SPEND_STATE_SPENT),
    ]
    assert list(answer.missing_vtxo_ids) == [hidden]
    queries[0].attestation = bytes(64)
    refusal = await alice.refusal(alice.ark.GetVtxosStatusByIds, pb.GetVtxosStatusByIdsRequest(vtxos=queries))
    assert refusal.code == INVALID


async def test_many_has_a_limit(alice: Client) -> None:
    request = pb.GetVtxosByIdsRequest(vtxo_ids=[bytes(36)] * 1001)
    refusal = await alice.refusal(alice.ark.GetVtxosByIds, request)
    assert refusal == Refusal(INVALID, "bad user input: too many vtxo ids, max is 1000", None)


async def test_older_server_has_no_look_ups_of_many(
    start_server: StartServer, chain: FakeServerChain
) -> None:
    server = await start_server(ServerSettings(emulate=Emulation.V0_6))
    async with Client(server, chain) as alice:
        for method, request in (
            (alice.ark.GetVtxosByIds, pb.GetVtxosByIdsRequest()),
            (alice.ark.GetVtxosStatusByIds, pb.GetVtxosStatusByIdsRequest()),
            (alice.ark.RecoverVtxosByXpub, pb.RecoverVtxosByXpubRequest()),
        ):
            assert await alice.refusal(method, request) == Refusal("UNIMPLEMENTED", "", None)
    assert CAPTAIND.emulate is Emulation.V0_6


# --- before the first round, and health


async def test_there_was_no_round_event(alice: Client) -> None:
    refusal = await alice.refusal(alice.ark.LastRoundEvent, core_pb2.Empty())
    assert refusal == Refusal("NOT_FOUND", "not found: no round event yet", "")


async def test_next_round_is_less_than_an_interval_away(alice: Client) -> None:
    answer = await alice.call(alice.ark.NextRoundTime, core_pb2.Empty())
    interval = alice.server.settings.round_interval_secs
    assert (answer.timestamp - NOW) % interval == 0
    assert answer.timestamp > NOW


async def test_round_subscription_stays_open_and_ends_with_the_server(alice: Client) -> None:
    stream = alice.ark.SubscribeRounds(core_pb2.Empty(), metadata=METADATA)
    reading = asyncio.ensure_future(stream.read())
    await stream.wait_for_connection()
    done, _ = await asyncio.wait((reading,), timeout=0.05)
    assert not done
    await alice.server.stop()
    assert await reading is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_health_is_serving(alice: Client) -> None:
    check = alice.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert await check(b"") == b"\x08\x01"
    watch = alice.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    async with aclosing(aiter(watch)) as answers:
        assert await anext(answers) == b"\x08\x01"


async def test_internal_failures_may_be_kept_secret(
    start_server: StartServer, chain: FakeServerChain
) -> None:
    server = await start_server(ServerSettings(rich_errors=False))
    async with Client(server, chain) as alice:
        vtxo, _ = await alice.signed_board()
        request = pb.BoardVtxoRequest(board_vtxo=vtxo.encode())
        refusal = await alice.refusal(alice.ark.RegisterBoardVtxo, request)
        assert refusal == Refusal("INTERNAL", "internal error", None)
