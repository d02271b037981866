"""Mailboxes over real gRPC. Source: sheet 10 §7."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import grpc.aio
import pytest

from barkd_py.ark.mailbox import MailboxAuthorization
from barkd_py.ark.policy import ServerHtlcSendPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.devnet.ark_server.rpc.call_context import CallContext, open_stream
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.server_rpc.protos import mailbox_server_pb2 as mb
from tests.devnet.ark_server.client import INVALID, METADATA, Client, Refusal, bad
from tests.devnet.ark_server.conftest import NOW, SettableClock, StartServer
from tests.fakes.server_chain import FakeServerChain


async def paid(payer: Client, receiver: Client, *amounts_sat: int) -> tuple[Vtxo, ...]:
    """VTXOs of the receiver, not delivered yet."""
    vtxo = await payer.board()
    rest = (vtxo.amount_sat - sum(amounts_sat), payer.policy)
    outputs = [(amount_sat, receiver.policy) for amount_sat in amounts_sat]
    return (await payer.pay([vtxo], *outputs, rest))[: len(amounts_sat)]


def post(receiver: Client, vtxos: Sequence[Vtxo]) -> mb.PostArkoorMessageRequest:
    return mb.PostArkoorMessageRequest(
        blinded_id=receiver.blinded_id.data, vtxos=[vtxo.encode() for vtxo in vtxos]
    )


async def read(reader: Client, checkpoint: int = 0) -> Any:
    request = reader.mailbox_request(expiry=NOW + 60, checkpoint=checkpoint)
    return await reader.call(reader.mailbox.ReadMailbox, request)


# --- payments


async def test_payment_is_delivered_to_the_mailbox_of_the_address(alice: Client, bob: Client) -> None:
    vtxos = await paid(alice, bob, 10_000, 20_000)
    await alice.call(alice.mailbox.PostArkoorMessage, post(bob, vtxos))
    page = await read(bob)
    (message,) = page.messages
    assert list(message.arkoor.vtxos) == [vtxo.encode() for vtxo in vtxos]
    assert not page.have_more
    assert list((await read(bob, message.checkpoint)).messages) == []
    assert list((await read(alice)).messages) == []


async def test_checkpoints_follow_the_clock_and_never_go_back(
    alice: Client, bob: Client, clock: SettableClock
) -> None:
    first, second, third = await paid(alice, bob, 10_000, 20_000, 30_000)
    for vtxo, now in ((first, NOW), (second, NOW - 3_600), (third, NOW + 1)):
        clock.now = now
        await alice.call(alice.mailbox.PostArkoorMessage, post(bob, [vtxo]))
    checkpoints = [message.checkpoint for message in (await read(bob)).messages]
    start = (NOW * 1000) << 20
    assert checkpoints == [start, start + 1, ((NOW + 1) * 1000) << 20]


async def test_second_delivery_of_a_vtxo_is_ignored_wherever_it_goes(alice: Client, bob: Client) -> None:
    vtxos = await paid(alice, bob, 10_000)
    await alice.call(alice.mailbox.PostArkoorMessage, post(bob, vtxos))
    (message,) = (await read(bob)).messages
    await alice.call(alice.mailbox.PostArkoorMessage, post(bob, vtxos))
    elsewhere = post(bob, vtxos)
    elsewhere.blinded_id = SecretKey.generate().public_key.data
    await alice.call(alice.mailbox.PostArkoorMessage, elsewhere)
    assert [each.checkpoint for each in (await read(bob)).messages] == [message.checkpoint]


async def test_posts_are_checked(alice: Client, bob: Client) -> None:
    (vtxo,) = await paid(alice, bob, 10_000)
    good = post(bob, [vtxo])

    async def refused(**changes: Any) -> Refusal:
        request = mb.PostArkoorMessageRequest(blinded_id=good.blinded_id, vtxos=good.vtxos)
        for name, value in changes.items():
            request.ClearField(name)
            if isinstance(value, list):
                getattr(request, name).extend(value)
            else:
                setattr(request, name, value)
        return await alice.refusal(alice.mailbox.PostArkoorMessage, request)

    assert await refused(vtxos=[b""] * 101) == bad("too many vtxos, max is 100")
    assert await refused(vtxos=[b""]) == Refusal(INVALID, "invalid full VTXO (with genesis)", None)
    assert await refused(vtxos=[]) == bad("no vtxos provided")
    text = "invalid a blinded VTXO mailbox identifier"
    assert await refused(blinded_id=bytes(33)) == Refusal(INVALID, text, None)
    own = await alice.board()
    assert await refused(vtxos=[vtxo.encode(), own.encode()]) == bad(
        "all vtxos should share vtxo pubkey when mailbox is provided"
    )


async def test_only_coins_of_one_owner_are_delivered(alice: Client) -> None:
    vtxo = await alice.board()
    htlc = ServerHtlcSendPolicy(alice.public_key, b"\x05" * 32, 1_000)
    (granted,) = await alice.pay([vtxo], (vtxo.amount_sat, htlc))
    refusal = await alice.refusal(alice.mailbox.PostArkoorMessage, post(alice, [granted]))
    assert refusal == bad(
        f"vtxo {granted.id} is not a final payment vtxo (policy: server-htlc-send-v1); "
        "only pubkey vtxos may be delivered to an arkoor mailbox"
    )


async def test_only_vtxos_of_the_server_are_delivered(alice: Client, bob: Client) -> None:
    unknown, _ = await bob.signed_board()
    refusal = await alice.refusal(alice.mailbox.PostArkoorMessage, post(bob, [unknown]))
    text = "tx body error: not found: vtxo does not exist"
    assert refusal == Refusal("NOT_FOUND", text, str(unknown.id))
    (vtxo,) = await paid(alice, bob, 10_000)
    refusal = await alice.refusal(alice.mailbox.PostArkoorMessage, post(bob, [vtxo, vtxo]))
    assert refusal == Refusal("NOT_FOUND", text, "")


# --- recovery ids


def recovery(owner: Client, ids: Sequence[bytes]) -> mb.PostRecoveryVtxoIdsRequest:
    authorization = MailboxAuthorization.sign(owner.mailbox_secret, expiry=NOW + 60)
    return mb.PostRecoveryVtxoIdsRequest(
        mailbox_id=owner.mailbox_id.data, vtxo_ids=ids, authorization=authorization.encode()
    )


async def test_recovery_ids_are_kept_once(alice: Client) -> None:
    vtxo = await alice.board()
    for _ in range(2):
        await alice.call(alice.mailbox.PostRecoveryVtxoIds, recovery(alice, [vtxo.id]))
    (message,) = (await read(alice)).messages
    assert list(message.recovery_vtxo_ids.vtxo_ids) == [vtxo.id]


async def test_recovery_posts_are_checked(alice: Client, bob: Client) -> None:
    vtxo = await alice.board()
    method = alice.mailbox.PostRecoveryVtxoIds
    assert await alice.refusal(method, recovery(alice, [vtxo.id] * 21)) == bad("too many VTXOs, max is 20")
    assert await alice.refusal(method, recovery(alice, [b""])) == Refusal(INVALID, "invalid VTXO ID", None)
    assert await alice.refusal(method, recovery(alice, [])) == bad("no VTXO IDs provided")
    unauthorized = recovery(alice, [vtxo.id])
    unauthorized.authorization = recovery(bob, []).authorization
    assert await alice.refusal(method, unauthorized) == bad("authorization doesn't match mailbox id")
    unknown = await alice.refusal(method, recovery(alice, [vtxo.id, VtxoId(b"\x01" * 36)]))
    assert unknown.code == "INTERNAL"
    assert list((await read(alice)).messages) == []
    anonymous = recovery(alice, [vtxo.id])
    anonymous.ClearField("authorization")
    await alice.call(method, anonymous)
    assert len((await read(alice)).messages) == 1


# --- reading


@pytest.mark.parametrize("method", ["ReadMailbox", "SubscribeMailbox"])
async def test_reading_needs_an_authorization(
    alice: Client, bob: Client, clock: SettableClock, method: str
) -> None:
    async def refused(request: mb.MailboxRequest) -> Refusal:
        call = getattr(alice.mailbox, method)(request, metadata=METADATA)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call if method == "ReadMailbox" else call.read())
        return Refusal.of(caught.value)

    request = alice.mailbox_request(expiry=NOW)
    request.mailbox_id = b"\x02"
    assert (await refused(request)).text.startswith("bad user input: invalid mailbox id")
    request = alice.mailbox_request(expiry=NOW)
    request.ClearField("authorization")
    assert await refused(request) == bad("mailbox authorization required")
    request.authorization = b"\x01"
    assert (await refused(request)).text.startswith("bad user input: invalid mailbox authorization")
    request.authorization = bob.mailbox_request(expiry=NOW).authorization
    assert await refused(request) == bad("authorization doesn't match mailbox id")
    request = alice.mailbox_request(expiry=NOW - 6)
    assert await refused(request) == bad("mailbox authorization expired")
    request = alice.mailbox_request(expiry=NOW)
    request.authorization = request.authorization[:-1] + bytes((request.authorization[-1] ^ 1,))
    assert await refused(request) == bad("invalid mailbox authorization signature")


async def test_authorization_is_accepted_a_little_late(alice: Client) -> None:
    await alice.call(alice.mailbox.ReadMailbox, alice.mailbox_request(expiry=NOW - 5))


async def posted_in_pairs(alice: Client, bob: Client) -> list[list[bytes]]:
    """Three posts of two VTXOs each, as they should come out."""
    posts = []
    for _ in range(3):
        vtxos = await paid(alice, bob, 10_000, 20_000)
        await alice.call(alice.mailbox.PostArkoorMessage, post(bob, vtxos))
        posts.append([vtxo.encode() for vtxo in vtxos])
    return posts


async def test_pages_never_cut_a_post(start_server: StartServer, chain: FakeServerChain) -> None:
    server = await start_server(ServerSettings(max_mailbox_items=3))
    async with Client(server, chain) as alice, Client(server, chain) as bob:
        posts = await posted_in_pairs(alice, bob)
        first = await read(bob)
        assert [list(message.arkoor.vtxos) for message in first.messages] == posts[:2]
        assert first.have_more
        second = await read(bob, first.messages[-1].checkpoint)
        assert [list(message.arkoor.vtxos) for message in second.messages] == posts[2:]
        assert not second.have_more


async def test_pages_of_the_real_server_lose_the_tail_of_a_post(
    start_server: StartServer, chain: FakeServerChain
) -> None:
    server = await start_server(ServerSettings(max_mailbox_items=3, group_complete_pages=False))
    async with Client(server, chain) as alice, Client(server, chain) as bob:
        posts = await posted_in_pairs(alice, bob)
        first = await read(bob)
        assert [list(message.arkoor.vtxos) for message in first.messages] == [posts[0], posts[1][:1]]
        assert not first.have_more


# --- subscribing


async def test_subscription_brings_the_backlog_and_then_what_comes(alice: Client, bob: Client) -> None:
    old, new = await paid(alice, bob, 10_000, 20_000)
    await alice.call(alice.mailbox.PostArkoorMessage, post(bob, [old]))
    request = bob.mailbox_request(expiry=NOW)
    streams = [bob.mailbox.SubscribeMailbox(request, metadata=METADATA) for _ in range(2)]
    for stream in streams:
        assert list((await stream.read()).arkoor.vtxos) == [old.encode()]
    await alice.call(alice.mailbox.PostArkoorMessage, post(bob, [new]))
    for stream in streams:
        assert list((await stream.read()).arkoor.vtxos) == [new.encode()]
        stream.cancel()


async def test_subscription_loses_nothing_that_is_posted_while_it_catches_up(
    alice: Client, bob: Client
) -> None:
    vtxos = await paid(alice, bob, 10_000, 10_001, 10_002)
    stream = bob.mailbox.SubscribeMailbox(bob.mailbox_request(expiry=NOW), metadata=METADATA)

    async def receive() -> set[bytes]:
        return {encoded for _ in vtxos for encoded in (await stream.read()).arkoor.vtxos}

    posts = [alice.call(alice.mailbox.PostArkoorMessage, post(bob, [vtxo])) for vtxo in vtxos]
    received, *_ = await asyncio.gather(receive(), *posts)
    assert received == {vtxo.encode() for vtxo in vtxos}
    stream.cancel()


async def test_subscription_ends_without_an_error_when_the_server_stops(alice: Client) -> None:
    request = alice.mailbox_request(expiry=NOW)
    stream = alice.mailbox.SubscribeMailbox(request, metadata=METADATA)
    reading = asyncio.ensure_future(stream.read())
    await stream.wait_for_connection()
    await alice.server.stop()
    assert await reading is grpc.aio.EOF


async def test_opening_a_stream_is_never_left_half_done() -> None:
    sent = asyncio.Event()
    finished: list[str] = []

    class SlowContext:
        async def send_initial_metadata(self, _metadata: Sequence[tuple[str, str]]) -> None:
            await sent.wait()
            finished.append("sent")

    opening = asyncio.ensure_future(open_stream(cast(CallContext, SlowContext())))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.sleep(0)
    sent.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert finished == ["sent"]


async def test_messages_survive_a_restart(start_server: StartServer, chain: FakeServerChain) -> None:
    server = await start_server(ServerSettings())
    async with Client(server, chain) as alice:
        vtxo = await alice.board()
        await alice.call(alice.mailbox.PostArkoorMessage, post(alice, [vtxo]))
        (before,) = (await read(alice)).messages
        await server.stop()
        alice_again = Client(await start_server(ServerSettings()), chain)
        alice_again.mailbox_secret = alice.mailbox_secret
        async with alice_again:
            assert list((await read(alice_again)).messages) == [before]
