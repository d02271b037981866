"""The websocket and the long poll of the real barkd 0.8.0 and of ours, beside each other on one devnet.

What a client sends and hears is the same on both; where it is not, the test says what each does and why. What
can be told from a recording alone is in tests/api/test_live_notifications.py.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import websockets
from websockets.asyncio.client import ClientConnection, connect

from barkd_py.api.auth import AuthToken
from tests.interop.conftest import program
from tests.support import raw_http
from tests.support.processes import Daemon, Devnet, Process, esplora, eventually, free_port

pytestmark = pytest.mark.interop

TOKEN = AuthToken(b"\x2a" * 32).encode()
WEBSOCKET = "/api/v1/notifications/ws"
HANDSHAKE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
PATIENCE_SECS = 120.0


@dataclass(slots=True)
class Side:
    """One of the two."""

    port: int
    process: Process

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}/api/v1",
            timeout=PATIENCE_SECS,
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as http:
            return await http.request(method, path, **({} if body is None else {"json": body}))

    async def get(self, path: str) -> Any:
        answer = await self.call("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None) -> Any:
        answer = await self.call("POST", path, body)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else None

    async def create(self, devnet: Devnet) -> httpx.Response:
        body = {
            "network": "regtest",
            "ark_server": devnet.ark_server_url,
            "chain_source": esplora(devnet.esplora_url),
        }
        return await self.call("POST", "/wallet/create", body)

    async def delete(self) -> Any:
        body = {"dangerous": True, "fingerprint": (await self.get("/wallet"))["fingerprint"]}
        answer = await self.call("DELETE", "/wallet", body)
        assert answer.status_code == 200, answer.text
        return answer.json()["deleted"]

    async def socket(self) -> ClientConnection:
        ticket = await self.get("/notifications/ws/ticket")
        url = f"ws://127.0.0.1:{self.port}{WEBSOCKET}?ticket={ticket}"
        socket = await connect(url, ping_interval=None)
        await (await socket.ping(b"both answer a ping"))
        return socket

    async def raw(self, method: str, query: str, headers: raw_http.Headers, version: str) -> list[Any]:
        """Status, content type and text of a handshake; a fresh ticket is in the query where it says so."""
        ticket = await self.get("/notifications/ws/ticket")
        target = WEBSOCKET + query.replace("<ticket>", ticket)
        answer = await raw_http.request(self.port, method, target, headers, version=version)
        return [answer.status, answer.header("content-type"), answer.header("allow"), answer.text]


@pytest_asyncio.fixture
async def sides(tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    """The real daemon and ours, without wallets."""
    running = []
    for name in ("real", "ours"):
        datadir = tmp_path / name
        datadir.mkdir(mode=0o700)
        (datadir / "auth_token").write_text(TOKEN)
    port = free_port()
    real = Process(
        [program("BARKD_EXEC", "barkd"), "--datadir", str(tmp_path / "real"), "--port", str(port)],
        tmp_path / "real.log",
    )
    ours = Daemon(tmp_path / "ours", token=TOKEN)
    real.launch()
    try:
        await ours.start()
        running = [Side(port, real), Side(ours.port, ours.process)]
        await eventually(lambda: _is_up(port), bool)
        yield running[0], running[1]
    finally:
        await ours.close()
        real.kill()


async def _is_up(port: int) -> bool:
    with suppress(httpx.TransportError):
        async with httpx.AsyncClient() as http:
            return (await http.get(f"http://127.0.0.1:{port}/ping")).status_code == 200
    return False


def masked(value: Any) -> Any:
    """What is left of an event when times, ids and addresses are taken out of it; keys in their order."""
    if isinstance(value, dict):
        return [(key, "time" if key == "time" else masked(part)) for key, part in value.items()]
    if isinstance(value, list):
        return [masked(part) for part in value]
    if isinstance(value, str):
        return re.sub(r"[0-9a-f]{64}(:\d+)?|tark1[0-9a-z]+", "…", value)
    return value


async def received(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_SECS):
        event: dict[str, Any] = json.loads(await socket.recv())
        return event


async def ending(socket: ClientConnection) -> int | None:
    """The code of the Close frame that ends a connection; None if it ends without one."""
    async with asyncio.timeout(PATIENCE_SECS):
        try:
            await socket.recv()
        except websockets.ConnectionClosed as closed:
            return None if closed.rcvd is None else closed.rcvd.code
    raise AssertionError("something was received")


async def test_handshakes_are_answered_alike(sides: tuple[Side, Side]) -> None:
    queries = ("", "?ticket=00", "?ticket=<ticket>", "?ticket=", "?ticket=00&ticket=00", "?other=1")
    headers: list[raw_http.Headers] = [
        (),
        *[HANDSHAKE[:at] + HANDSHAKE[at + 1 :] for at in range(4)],
        HANDSHAKE,
    ]
    asked = 0
    for method in ("GET", "HEAD", "POST", "DELETE"):
        for version in ("HTTP/1.1", "HTTP/1.0"):
            for query in queries:
                for sent in headers:
                    if method != "GET" and (query != "?ticket=<ticket>" or version != "HTTP/1.1"):
                        continue
                    real, ours = [await side.raw(method, query, sent, version) for side in sides]
                    assert real == ours, (method, version, query, sent)
                    asked += 1
    assert asked > 80


async def test_without_a_wallet_the_connection_ends(sides: tuple[Side, Side]) -> None:
    endings = []
    for side in sides:
        ticket = await side.get("/notifications/ws/ticket")
        socket = await connect(f"ws://127.0.0.1:{side.port}{WEBSOCKET}?ticket={ticket}", ping_interval=None)
        endings.append(await ending(socket))
    assert endings == [None, 1001]  # barkd says nothing; clients are the better for a reason


async def test_a_payment_is_told_alike(sides: tuple[Side, Side], payer: Daemon, devnet: Devnet) -> None:
    told = []
    for side in sides:
        assert (await side.create(devnet)).status_code == 200
        async with await side.socket() as socket, await side.socket() as other:
            await socket.send("ignored")
            await socket.send(b"ignored")
            address = (await side.post("/wallet/addresses/next"))["address"]
            await payer.post("/wallet/send", {"destination": address, "amount_sat": 50_000})
            event = await received(socket)
            assert await received(other) == event
            polled = await side.get("/notifications/wait")
            assert polled["notifications"] == [event]
            await side.post(f"/history/{event['movement']['id']}/metadata", {"note": "x"})
            noted = await received(socket)
            since = await side.get(f"/notifications/wait?since={polled['last_pushed_at']}")
            assert since["notifications"] == [noted]
            told.append([masked(event), masked(noted), list(polled), list(event["movement"]["time"])])
    assert told[0] == told[1]


async def test_deletion_and_the_end(sides: tuple[Side, Side], devnet: Devnet) -> None:
    """Here barkd leaves clients in the dark and stands in its own way; ours does neither."""
    created, endings, polls = [], [], []
    for side in sides:
        assert (await side.create(devnet)).status_code == 200
        socket = await side.socket()
        poll = asyncio.create_task(side.call("GET", "/notifications/wait?since=2030-01-01T00:00:00Z"))
        await side.get("/wallet/balance")
        assert await side.delete() is True
        refused = await poll
        polls.append((refused.status_code, refused.json()))
        again = await side.create(devnet)
        created.append((again.status_code, again.json().get("message", "").partition(" datadir ")[0]))
        await socket.close()
        endings.append(socket.close_code)
        if again.status_code != 200:
            await eventually(lambda side=side: _creates(side, devnet), bool)  # type: ignore[misc]
        open_at_the_end = await side.socket()
        side.process.terminate()
        endings.append(await ending(open_at_the_end))
    assert polls == [(422, {"message": "No wallet set"})] * 2
    assert created == [
        (500, "Error while creating wallet: another process is already using"),
        (200, ""),
    ]
    real_closed, real_end, our_closed, our_end = endings
    assert (our_closed, our_end) == (1001, 1012)
    assert real_closed != 1001
    assert real_end is None


async def _creates(side: Side, devnet: Devnet) -> bool:
    return (await side.create(devnet)).status_code == 200
