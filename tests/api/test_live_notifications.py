"""Notifications of a real daemon with a real wallet on devnet: the websocket, its tickets, and the long poll.

One story, in order: restarts without a wallet, a wallet that boards and is paid, a reader that does not keep
up, a wallet deleted under open sockets and made anew, the end. Where the real barkd was recorded doing the
same, its answer is the expectation.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio
import websockets
from websockets.asyncio.client import ClientConnection, connect

from barkd_py.api.auth import AuthToken
from barkd_py.api.server import DRAIN_SECS
from barkd_py.wallet.notifications import QUEUE_LENGTH
from tests.contract.recorded import Case, cases, frames, matches
from tests.support import raw_http
from tests.support.processes import Daemon, Devnet, esplora, eventually, start_devnet

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = AuthToken(b"\x2a" * 32).encode()
BEARER = ("Authorization", f"Bearer {TOKEN}")
RECORDED = {case.name: case for case in cases()}
REFUSED_HANDSHAKES = [
    case for case in RECORDED.values() if case.name.startswith("websocket: ") and case.status in (400, 405)
]
HANDSHAKE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
WEBSOCKET = "/api/v1/notifications/ws"
PATIENCE_SECS = 120.0
PAYMENT_SAT = 50_000
"""As in the recording."""

# More than the kernel keeps for a reader that does not read, so that the daemon notices.
NOTE = "x" * 400_000
NOTES = 160


@dataclass(slots=True)
class Story:
    """The daemon that is listened to, and one that pays it."""

    devnet: Devnet
    daemon: Daemon
    payer: Daemon
    last_pushed_at: str = ""
    old_ticket: str = ""
    quiet_poll: "asyncio.Task[dict[str, Any]] | None" = None
    left_open: list[asyncio.StreamWriter] = field(default_factory=list)

    async def ticket(self) -> str:
        ticket: str = await self.daemon.get("/notifications/ws/ticket")
        return ticket

    async def socket(self, ticket: str | None = None, **options: Any) -> ClientConnection:
        """A connection that the daemon listens to its wallet for."""
        url = f"ws://127.0.0.1:{self.daemon.port}{WEBSOCKET}?ticket={ticket or await self.ticket()}"
        socket = await connect(url, ping_interval=None, max_size=None, **options)
        await (await socket.ping())  # the server has seen something after the handshake
        return socket

    async def handshake(self, case: Case, ticket: str) -> raw_http.Response:
        """What a recorded handshake is answered here."""
        headers: list[tuple[str, str | bytes]] = [*case.headers.items()]
        if case.auth:
            headers.append(BEARER)
        target = case.path if case.query is None else f"{case.path}?ticket={ticket}"
        return await raw_http.request(self.daemon.port, case.method, target, headers)

    async def long_poll(self) -> "asyncio.Task[raw_http.Response]":
        """A poll that the daemon is working on; nothing that happens ends it."""
        target = "/api/v1/notifications/wait?since=2030-01-01T00:00:00Z"
        return await raw_http.begin(self.daemon.port, target, [BEARER])

    async def wait(self, since: str | None = None) -> dict[str, Any]:
        response = await self.daemon.http.get(
            "/notifications/wait", params={} if since is None else {"since": since}
        )
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def create(self) -> str:
        return await self.daemon.create_wallet(self.devnet.ark_server_url, esplora(self.devnet.esplora_url))

    async def delete(self) -> dict[str, Any]:
        body = {"dangerous": True, "fingerprint": (await self.daemon.get("/wallet"))["fingerprint"]}
        response = await self.daemon.http.request("DELETE", "/wallet", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def board(self, daemon: Daemon, amount_sat: int) -> None:
        await self.devnet.fund((await daemon.post("/onchain/addresses/next"))["address"], 2 * amount_sat)
        await daemon.post("/onchain/sync")
        await daemon.post("/boards/board-amount", {"amount_sat": amount_sat})

        async def pending_sat() -> int:
            await self.devnet.mine()  # each time: the funding transaction may be a little late
            await daemon.post("/wallet/sync")
            return int((await daemon.get("/wallet/balance"))["pending_board_sat"])

        await eventually(pending_sat, lambda amount: amount == 0, within_secs=PATIENCE_SECS)

    async def be_paid(self) -> str:
        """The address that was paid to."""
        address: str = (await self.daemon.post("/wallet/addresses/next"))["address"]
        await self.payer.post("/wallet/send", {"destination": address, "amount_sat": PAYMENT_SAT})
        return address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    directory = tmp_path_factory.mktemp("live")
    devnet = start_devnet(directory / "devnet")
    datadir = directory / "daemon"
    datadir.mkdir(mode=0o700)
    (datadir / "auth_token").write_text(TOKEN)
    told = Story(devnet, Daemon(datadir, token=TOKEN), Daemon(directory / "payer"))
    try:
        for daemon in (told.daemon, told.payer):
            await daemon.start()
        yield told
    finally:
        for writer in told.left_open:
            writer.close()
        for daemon in (told.daemon, told.payer):
            await daemon.close()
        devnet.process.kill()


async def received(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_SECS):
        event: dict[str, Any] = json.loads(await socket.recv())
        return event


async def close_code(socket: ClientConnection) -> int:
    """Read what is left; the code that the server closed it with."""
    async with asyncio.timeout(PATIENCE_SECS):
        with suppress(websockets.ConnectionClosed):
            while True:
                await socket.recv()
    assert socket.close_code is not None
    return socket.close_code


def as_recorded(case: Case, answer: raw_http.Response) -> None:
    assert (answer.status, answer.header("content-type")) == (case.status, case.content_type)
    for name, value in case.response_headers.items():
        if value is not None and "<" not in value:
            assert (answer.header(name) or "").lower() == value.lower(), name
    if case.content_type == "application/json":
        assert matches(case.response, answer.json())


def masked(event: dict[str, Any], address: str) -> dict[str, Any]:
    """An event with what is volatile as the recording has it, to be compared whole."""
    text = json.dumps(event).replace(address, "<own_ark_address2>")
    masked_event: dict[str, Any] = json.loads(text)
    movement = masked_event["movement"]
    for name in ("id", "intended_balance_sat", "effective_balance_sat"):
        assert isinstance(movement[name], int)
        movement[name] = "<int>"
    for name in movement["time"]:
        movement["time"][name] = "<time>"
    movement["output_vtxos"] = ["<vtxo_id>"] * len(movement["output_vtxos"])
    return masked_event


# --- tickets


async def test_a_ticket_does_not_survive_a_restart(story: Story) -> None:
    ticket = await story.ticket()
    assert story.daemon.process.terminate() == 0
    await story.daemon.start()
    case = RECORDED["ticket after restart"]
    as_recorded(case, await story.handshake(case, ticket))


async def test_without_a_wallet_a_ticket_is_used_up_and_the_socket_closed(story: Story) -> None:
    ticket = await story.ticket()
    url = f"ws://127.0.0.1:{story.daemon.port}{WEBSOCKET}?ticket={ticket}"
    async with connect(url, ping_interval=None) as socket:
        assert await close_code(socket) == 1001
    case = RECORDED["websocket: ticket used twice"]
    as_recorded(case, await story.handshake(case, ticket))
    story.old_ticket = await story.ticket()


@pytest.mark.parametrize(
    "name",
    [case.name for case in REFUSED_HANDSHAKES],
)
async def test_a_handshake_that_is_none_is_answered_as_recorded(story: Story, name: str) -> None:
    case = RECORDED[name]
    ticket = await story.ticket()
    answer = await story.handshake(case, ticket)
    as_recorded(case, answer)
    assert answer.text == (case.response or "")
    # It did not use the ticket up.
    assert (
        await raw_http.request(story.daemon.port, "GET", f"{WEBSOCKET}?ticket={ticket}", HANDSHAKE)
    ).status == 101


# --- events


async def test_every_event_of_a_board_comes_as_it_happens(story: Story) -> None:
    for daemon in (story.daemon, story.payer):
        await daemon.create_wallet(story.devnet.ark_server_url, esplora(story.devnet.esplora_url))
    story.quiet_poll = asyncio.create_task(story.wait("2030-01-01T02:00:00+02:00"))
    async with await story.socket(story.old_ticket) as socket:  # tickets are the daemon's, not the wallet's
        await story.board(story.daemon, 100_000)
        events = [await received(socket)]
        while events[-1]["movement"]["status"] == "pending":
            events.append(await received(socket))
        assert {event["movement"]["id"] for event in events} == {1}
        assert {event["type"] for event in events} == {"movement-created", "movement-updated"}
        assert events[-1]["movement"]["status"] == "successful"
        assert events[-1]["movement"] == (await story.daemon.get("/history"))[0]
        polled = await story.wait()
        assert polled["notifications"] == events
        story.last_pushed_at = polled["last_pushed_at"]
    await story.board(story.payer, 400_000)


async def test_an_ark_payment_arrives_as_recorded(story: Story) -> None:
    case = RECORDED["websocket: an Ark payment arrives"]
    as_recorded(case, await story.handshake(case, await story.ticket()))
    poll = asyncio.create_task(story.wait(story.last_pushed_at))
    async with await story.socket() as socket, await story.socket() as other:
        address = await story.be_paid()
        event = await received(socket)
        assert await received(other) == event
        assert [masked(event, address)] == frames("websocket: an Ark payment arrives")
        await socket.send("what a client says")
        await socket.send(b"is ignored")
        await (await socket.ping(b"and a ping is answered"))
        answered = await poll
        assert answered["notifications"] == [event]
        assert list(answered) == ["notifications", "last_pushed_at"]
        recorded: Any = RECORDED["wait: an Ark payment arrives"].response
        assert [masked(event, address)] == recorded["notifications"]
    buffered = await story.wait()
    assert buffered["notifications"][-1] == event
    assert buffered == await story.wait("2020-01-01T00:00:00Z")
    assert buffered["last_pushed_at"] == answered["last_pushed_at"]
    assert len(buffered["notifications"]) > 1


async def test_a_reader_that_does_not_keep_up_is_told_once(story: Story) -> None:
    movement_id = (await story.daemon.get("/history"))[0]["id"]
    slow = await story.socket(max_queue=1)  # without being read, it stops reading
    quick = await story.socket()
    heard: list[int] = []

    async def listen() -> None:
        while not heard or heard[-1] < NOTES - 1:
            event = await received(quick)
            assert event["type"] == "movement-updated"
            heard.append(event["movement"]["metadata"]["number"])

    listening = asyncio.create_task(listen())
    for number in range(NOTES):
        await story.daemon.post(f"/history/{movement_id}/metadata", {"number": number, "note": NOTE})
    await listening
    assert heard == list(range(NOTES))  # nobody else waits for the slow one

    seen: list[int | None] = []  # None: lagging
    while not seen or seen[-1] != NOTES - 1:
        event = await received(slow)
        lagging = event == {"type": "channel-lagging"}
        seen.append(None if lagging else event["movement"]["metadata"]["number"])
    numbers: list[int | None] = [-1, *seen]
    for before, after in pairwise(numbers):  # it is told of every gap, and of nothing else
        assert before is None or after is None or after == before + 1
    for index, gap in enumerate(numbers):
        if gap is None:
            assert _int(numbers[index + 1]) > _int(numbers[index - 1]) + 1
    assert None in seen
    assert seen[-QUEUE_LENGTH:] == list(range(NOTES - QUEUE_LENGTH, NOTES))
    await story.daemon.post(f"/history/{movement_id}/metadata", {"number": NOTES, "note": None})
    assert (await received(slow))["movement"]["metadata"]["number"] == NOTES
    for socket in (slow, quick):
        await socket.close()
        assert socket.close_code == 1000


async def test_a_poll_ends_after_half_a_minute(story: Story) -> None:
    """It was begun above, and all that has happened since was not after its `since`."""
    assert story.quiet_poll is not None
    assert await story.quiet_poll == RECORDED["wait: nothing within 30 s"].response


def _int(number: int | None) -> int:
    assert number is not None
    return number


# --- the wallet goes, another comes


async def _unanswering(story: Story) -> asyncio.StreamReader:
    """A connection of a client that says nothing more after its handshake, not even when it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", story.daemon.port)
    story.left_open.append(writer)
    target = f"{WEBSOCKET}?ticket={await story.ticket()}"
    lines = [f"GET {target} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in HANDSHAKE)]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader


async def test_deletion_ends_sockets_and_polls_and_the_next_wallet_is_made_while_they_are_open(
    story: Story,
) -> None:
    ticket = await story.ticket()
    unanswering = await _unanswering(story)
    async with await story.socket() as socket:
        poll = await story.long_poll()
        assert (await story.delete())["deleted"] is True
        assert await close_code(socket) == 1001
        as_recorded(RECORDED["wait: wallet deleted meanwhile"], await poll)
    # The real one refuses with a 500 while a socket of the deleted wallet is open ("create while an old
    # websocket is open"); here it is as if it were closed.
    case = RECORDED["create after delete"]
    body = {
        **case.body,
        "ark_server": story.devnet.ark_server_url,
        "chain_source": esplora(story.devnet.esplora_url),
    }
    created = await story.daemon.http.post("/wallet/create", json=body)
    assert (created.status_code, created.json()) == (case.status, case.response)
    async with asyncio.timeout(PATIENCE_SECS):
        assert await unanswering.readexactly(4) == b"\x88\x02" + struct.pack(">H", 1001)
        assert await unanswering.read() == b""  # and is hung up on in the end
    async with await story.socket(ticket) as socket:  # from before the deletion
        await story.be_paid()
        event = await received(socket)
        assert (event["type"], event["movement"]["id"]) == ("movement-created", 1)
        assert (await story.wait())["notifications"] == [event]  # nothing of the old wallet's


# --- the end


async def test_the_end_of_the_daemon_is_told(story: Story) -> None:
    tickets = [await story.ticket() for _ in range(2)]
    unanswering = await _unanswering(story)
    socket = await story.socket(tickets[0])
    poll = await story.long_poll()
    stopping = asyncio.create_task(asyncio.to_thread(story.daemon.process.terminate, DRAIN_SECS + 50.0))
    assert await close_code(socket) == 1012
    async with asyncio.timeout(PATIENCE_SECS):
        assert await unanswering.read() == b"\x88\x02" + struct.pack(">H", 1012)
    answer = await poll
    assert (answer.status, answer.json()) == (500, {"message": "Notification manager stopped"})
    assert await stopping == 0
    log = story.daemon.process.log.read_text()
    assert [ticket for ticket in tickets if ticket in log] == []
