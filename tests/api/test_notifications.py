"""Tickets, the websocket and the long poll, over real connections."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from barkd_py.api.server import MESSAGE_BYTES_MAX
from barkd_py.api.tickets import LIFETIME_SECS, OUTSTANDING_MAX, Tickets
from barkd_py.wallet.notifications import WaitResult
from tests.support import raw_http
from tests.support.api_server import RunningApi, running_api

HANDSHAKE = [
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "WebSocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


@pytest.fixture
async def polled(tmp_path: Path) -> AsyncIterator[RunningApi]:
    """The API with polls that give up at once."""
    async with running_api(tmp_path / "d", with_wallet=True, wait_secs=0.05) as running:
        yield running


async def _ticket(api: RunningApi) -> str:
    answer = await api.http.get("/api/v1/notifications/ws/ticket")
    assert answer.headers["content-type"] == "application/json"
    ticket: str = answer.json()
    return ticket


def _url(api: RunningApi, ticket: str) -> str:
    return f"ws://127.0.0.1:{api.port}/api/v1/notifications/ws?ticket={ticket}"


async def _connect(api: RunningApi) -> ClientConnection:
    return await connect(_url(api, await _ticket(api)), ping_interval=None)


async def _receive(socket: ClientConnection) -> object:
    async with asyncio.timeout(60):
        return json.loads(await socket.recv())


# --- tickets


def test_a_ticket_works_once() -> None:
    tickets = Tickets()
    ticket = tickets.issue()
    assert len(ticket) == 64
    assert tickets.redeem(ticket)
    assert not tickets.redeem(ticket)


def test_a_ticket_lives_ten_minutes() -> None:
    now = 1000.0
    tickets = Tickets(lambda: now)
    young, old = tickets.issue(), tickets.issue()
    now += LIFETIME_SECS - 1
    assert tickets.redeem(young)
    now += 1
    assert not tickets.redeem(old)


def test_tickets_without_end_cost_the_oldest() -> None:
    tickets = Tickets()
    issued = [tickets.issue() for _ in range(OUTSTANDING_MAX + 1)]
    assert not tickets.redeem(issued[0])
    assert tickets.redeem(issued[1])
    assert tickets.redeem(issued[-1])


async def test_an_unknown_ticket_is_a_401(api: RunningApi) -> None:
    answer = await api.raw("GET", "/api/v1/notifications/ws?ticket=00", HANDSHAKE)
    assert (answer.status, answer.json()) == (401, {"message": "Invalid websocket ticket"})
    assert answer.header("vary") is not None


async def test_a_broken_handshake_does_not_use_the_ticket_up(api: RunningApi) -> None:
    ticket = await _ticket(api)
    target = f"/api/v1/notifications/ws?ticket={ticket}"
    for index in range(len(HANDSHAKE)):
        broken = HANDSHAKE[:index] + HANDSHAKE[index + 1 :]
        assert (await api.raw("GET", target, broken)).status == 400
    answer = await api.raw("GET", target, HANDSHAKE)
    assert answer.status == 101
    assert answer.header("vary") is not None
    assert (await api.raw("GET", target, HANDSHAKE)).status == 401


@pytest.mark.parametrize("query", ["", "?ticket=00", "?ticket=<ticket>"])
async def test_http_1_0_cannot_be_upgraded(api: RunningApi, query: str) -> None:
    """As barkd answers: before it looks at the query, so the ticket stays good."""
    ticket = await _ticket(api)
    target = f"/api/v1/notifications/ws{query.replace('<ticket>', ticket)}"
    answer = await raw_http.request(api.port, "GET", target, HANDSHAKE, version="HTTP/1.0")
    assert (answer.status, answer.header("content-type"), answer.text) == (
        426,
        "text/plain; charset=utf-8",
        "WebSocket request couldn't be upgraded since no upgrade state was present",
    )
    assert (await api.raw("GET", f"/api/v1/notifications/ws?ticket={ticket}", HANDSHAKE)).status == 101


@pytest.mark.parametrize("headers", [(), HANDSHAKE])
async def test_there_is_no_head_of_a_websocket(api: RunningApi, headers: raw_http.Headers) -> None:
    answer = await api.raw("HEAD", f"/api/v1/notifications/ws?ticket={await _ticket(api)}", headers)
    assert (answer.status, answer.header("content-length"), answer.header("allow")) == (405, "28", None)


async def test_the_end_of_the_daemon_closes_the_socket_with_another_code_than_deletion(
    api: RunningApi,
) -> None:
    async with await _connect(api) as socket:
        await (await socket.ping())
        api.runtime.begin_stop()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await _receive(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_the_handshake_looks_at_the_age_of_a_ticket(tmp_path: Path) -> None:
    now = 0.0
    async with running_api(tmp_path / "d", with_wallet=True) as api:
        api.state.tickets = Tickets(lambda: now)
        young, old = await _ticket(api), await _ticket(api)
        now = LIFETIME_SECS - 1
        async with await connect(_url(api, young), ping_interval=None):
            now = LIFETIME_SECS
        assert (await api.raw("GET", f"/api/v1/notifications/ws?ticket={old}", HANDSHAKE)).status == 401


async def test_an_upgrade_elsewhere_is_an_ordinary_request(api: RunningApi) -> None:
    answer = await api.raw("GET", "/api/v1/wallet", [api.bearer, *HANDSHAKE])
    assert answer.status == 200


# --- the websocket


async def test_a_long_message_of_a_client_ends_the_connection(api: RunningApi) -> None:
    async with await _connect(api) as socket:
        await socket.send("x" * MESSAGE_BYTES_MAX)
        await (await socket.ping())
        await socket.send("x" * (MESSAGE_BYTES_MAX + 1))
        async with asyncio.timeout(60):
            await socket.wait_closed()
        assert socket.close_code == 1009


async def test_events_come_as_they_happen(api: RunningApi) -> None:
    api.wallet.add_movement()  # before: not sent
    async with await _connect(api) as socket:
        await socket.send("ignored")
        await (await socket.ping())
        movement = api.wallet.add_movement()
        received = await _receive(socket)
        assert isinstance(received, dict)
        assert (received["type"], received["movement"]["id"]) == ("movement-created", movement.id)
        await api.wallet.patch_movement_metadata(movement.id, {"a": 1})
        updated = await _receive(socket)
        assert isinstance(updated, dict)
        assert (updated["type"], updated["movement"]["metadata"]) == ("movement-updated", {"a": 1})


async def test_a_slow_reader_is_told_once_and_goes_on_with_what_is_left(api: RunningApi) -> None:
    async with await _connect(api) as slow:
        await (await slow.ping())
        movements = [api.wallet.add_movement() for _ in range(100)]  # at once: nobody can keep up
        first, *others = [await _receive(slow) for _ in range(65)]
        assert first == {"type": "channel-lagging"}
        assert [_movement_id(event) for event in others] == [movement.id for movement in movements[-64:]]
        later = api.wallet.add_movement()
        assert _movement_id(await _receive(slow)) == later.id


async def test_each_socket_hears_everything(api: RunningApi) -> None:
    async with await _connect(api) as one, await _connect(api) as other:
        for socket in (one, other):
            await (await socket.ping())
        movement = api.wallet.add_movement()
        assert [_movement_id(await _receive(socket)) for socket in (one, other)] == [movement.id] * 2


async def test_sockets_that_nobody_closes_have_a_bound(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barkd_py.api.server.WEBSOCKETS_MAX", 3)
    async with contextlib.AsyncExitStack() as kept:
        sockets = [await kept.enter_async_context(await _connect(api)) for _ in range(3)]
        with pytest.raises(websockets.InvalidStatus) as refused:
            await _connect(api)
        assert refused.value.response.status_code == 503
        assert (await api.http.get("/ping")).text == "pong"
        await sockets[0].close()
        await kept.enter_async_context(await _connect(api))


def _movement_id(event: object) -> int:
    assert isinstance(event, dict)
    number: int = event["movement"]["id"]
    return number


async def test_a_ticket_outlives_the_wallet(api: RunningApi) -> None:
    ticket = await _ticket(api)
    delete = {"dangerous": True, "fingerprint": api.runtime.fingerprint}
    assert (await api.http.request("DELETE", "/api/v1/wallet", json=delete)).status_code == 200
    body = {
        "network": "regtest",
        "ark_server": "http://127.0.0.1:3535",
        "chain_source": {"esplora": {"url": "http://127.0.0.1:3000"}},
    }
    assert (await api.http.post("/api/v1/wallet/create", json=body)).status_code == 200
    async with await connect(_url(api, ticket), ping_interval=None) as socket:
        await (await socket.ping())
        movement = api.wallet.add_movement()
        assert _movement_id(await _receive(socket)) == movement.id


async def test_without_a_wallet_the_socket_closes(tmp_path: Path) -> None:
    async with running_api(tmp_path / "d") as api, await _connect(api) as socket:
        with pytest.raises(websockets.ConnectionClosed):
            await _receive(socket)


async def test_deletion_closes_the_socket_and_a_new_wallet_can_be_made(api: RunningApi) -> None:
    fingerprint = api.runtime.fingerprint
    async with await _connect(api) as socket:
        await (await socket.ping())  # now the server has subscribed
        delete = {"dangerous": True, "fingerprint": fingerprint}
        assert (await api.http.request("DELETE", "/api/v1/wallet", json=delete)).status_code == 200
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await _receive(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    body = {
        "network": "regtest",
        "ark_server": "http://127.0.0.1:3535",
        "chain_source": {"esplora": {"url": "http://127.0.0.1:3000"}},
    }
    assert (await api.http.post("/api/v1/wallet/create", json=body)).status_code == 200


async def test_a_client_that_leaves_is_forgotten(api: RunningApi) -> None:
    socket = await _connect(api)
    await socket.close()
    movement = api.wallet.add_movement()
    async with await _connect(api) as second:
        await (await second.ping())
        api.wallet.add_movement()
        received = await _receive(second)
        assert isinstance(received, dict)
        assert received["movement"]["id"] == movement.id + 1


# --- the long poll


async def _wait(api: RunningApi, since: str | None = None) -> dict[str, object]:
    params = {} if since is None else {"since": since}
    answer = await api.http.get("/api/v1/notifications/wait", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


async def test_nothing_happened(polled: RunningApi) -> None:
    assert await _wait(polled) == {"notifications": [], "last_pushed_at": None}
    assert await _wait(polled, "2030-01-01T02:00:00+02:00") == {
        "notifications": [],
        "last_pushed_at": "2030-01-01T00:00:00Z",
    }


async def test_each_event_is_delivered_once_to_a_client_that_goes_on(polled: RunningApi) -> None:
    seen: list[int] = []
    since: str | None = None
    for _ in range(3):
        for _ in range(3):
            polled.wallet.add_movement()
        answer = await _wait(polled, since)
        events = answer["notifications"]
        assert isinstance(events, list)
        seen += [event["movement"]["id"] for event in events]
        assert isinstance(answer["last_pushed_at"], str)
        since = answer["last_pushed_at"]
    assert seen == list(range(1, 10))
    assert (await _wait(polled, since))["notifications"] == []


async def test_an_event_ends_the_wait(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = _told_of_polls(api, monkeypatch)
    poll = asyncio.create_task(_wait(api, datetime.now(UTC).isoformat()))
    await asyncio.wait_for(begun.wait(), 60)
    assert not poll.done()
    api.wallet.add_movement()
    answer = await poll
    assert isinstance(answer["notifications"], list)
    assert answer["notifications"]


def _told_of_polls(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when the wallet is asked to wait; what is told to it from then on finds somebody waiting."""
    begun, wait = asyncio.Event(), api.wallet.notifications.wait

    async def noted(since: datetime | None, timeout_seconds: float) -> WaitResult:
        begun.set()
        return await wait(since, timeout_seconds)

    monkeypatch.setattr(api.wallet.notifications, "wait", noted)
    return begun


async def _hanging_poll(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> "asyncio.Task[object]":
    """A poll that the server is working on."""
    begun = _told_of_polls(api, monkeypatch)

    async def poll() -> object:
        answer = await api.http.get("/api/v1/notifications/wait", params={"since": "2030-01-01T00:00:00Z"})
        return answer.status_code, answer.json()

    task = asyncio.create_task(poll())
    await asyncio.wait_for(begun.wait(), 60)
    return task


async def test_deletion_ends_the_wait_with_a_422(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> None:
    poll = await _hanging_poll(api, monkeypatch)
    delete = {"dangerous": True, "fingerprint": api.runtime.fingerprint}
    await api.http.request("DELETE", "/api/v1/wallet", json=delete)
    assert await poll == (422, {"message": "No wallet set"})


async def test_the_end_of_the_daemon_ends_the_wait_with_a_500(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll = await _hanging_poll(api, monkeypatch)
    api.runtime.begin_stop()
    assert await poll == (500, {"message": "Notification manager stopped"})
