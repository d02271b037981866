"""Without a token: what keeps web pages from calling the API. With one: what stays open."""

from pathlib import Path

import pytest

from tests.support.api_server import RunningApi, running_api


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),
        ([("Origin", "http://evil.example")], 401),
        ([("Origin", "null")], 401),
        ([("Origin", "http://good.example")], 200),
        ([("Host", "localhost:3000"), ("Origin", "http://localhost:3000")], 200),
        ([("Host", "evil.example")], 401),
        ([("Host", "127.0.0.2")], 200),
        ([("Host", "[::1]:3000")], 200),
        ([("Host", "192.168.0.1:3000")], 401),
    ],
)
async def test_who_may_change_something_without_authentication(
    tmp_path: Path, headers: list[tuple[str, str]], status: int
) -> None:
    origins = frozenset({b"http://good.example"})
    async with running_api(tmp_path / "d", token=None, allowed_origins=origins, with_wallet=True) as api:
        assert (await api.raw("POST", "/api/v1/wallet/sync", headers)).status == status
        assert api.wallet.syncs == (1 if status == 200 else 0)


async def test_a_rebound_name_may_not_even_read(tmp_path: Path) -> None:
    async with running_api(tmp_path / "d", token=None, with_wallet=True) as api:
        answer = await api.raw("GET", "/api/v1/wallet/balance", [("Host", "evil.example:3000")])
        assert answer.status == 401
        assert "message" in answer.json()


async def test_a_public_address_is_fine_if_the_operator_said_so(tmp_path: Path) -> None:
    async with running_api(tmp_path / "d", token=None, with_wallet=True) as api:
        api.state.loopback_only = False
        assert (await api.raw("GET", "/api/v1/wallet", [("Host", "wallet.example")])).status == 200


async def test_with_a_token_neither_host_nor_origin_matter(api: RunningApi) -> None:
    headers = [api.bearer, ("Host", "evil.example"), ("Origin", "http://evil.example")]
    assert (await api.raw("POST", "/api/v1/wallet/sync", headers)).status == 200


async def test_a_body_that_ends_early_is_dropped_and_the_next_request_served(api: RunningApi) -> None:
    import asyncio

    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    name, value = api.bearer
    writer.write(
        f"POST /api/v1/wallet/send HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
    )
    await writer.drain()
    writer.close()
    assert (await api.http.get("/ping")).text == "pong"
