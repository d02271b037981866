"""Lists of any length are one plain JSON answer, and whoever reads one slowly costs next to nothing."""

import asyncio
import tracemalloc

from pydantic_core import to_json

from barkd_py.api import render
from barkd_py.api.contract import Contract
from tests.fakes.wallet import render_all
from tests.support.api_server import RunningApi

NB_MOVEMENTS = 20_000
PATH = "/api/v1/history"


async def fill(api: RunningApi) -> bytes:
    """A long history, rendered once, as wallets do; returns what it must be answered with."""
    movement = api.wallet.add_movement(metadata={"note": "x" * 300})
    texts = [to_json(render.movement(movement, Contract.UNSTATED))] * NB_MOVEMENTS
    api.wallet.rendered_history = render_all(texts)
    return b"[" + b",".join(texts) + b"]"


async def test_a_long_list_is_answered_like_a_short_one(api: RunningApi) -> None:
    expected = await fill(api)

    answer = await api.http.get(PATH)

    assert answer.content == expected
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(expected))
    assert "transfer-encoding" not in answer.headers


async def test_the_head_of_a_long_list(api: RunningApi) -> None:
    expected = await fill(api)
    answer = await api.http.head(PATH)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(expected))
    assert (await api.http.get("/ping")).text == "pong"  # the connection is still in step


async def test_clients_that_do_not_read_cost_no_memory_and_hold_nobody_up(api: RunningApi) -> None:
    size = len(await fill(api))
    request = f"GET {PATH} HTTP/1.1\r\nHost: a\r\n{': '.join(api.bearer)}\r\n\r\n".encode()
    await api.http.get(PATH)
    tracemalloc.start()
    try:
        idle = []
        for _ in range(8):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1024)
            writer.write(request)
            await reader.readline()
            idle.append(writer)
        for _ in range(5):
            assert (await api.http.get("/ping")).text == "pong"
        held, _ = tracemalloc.get_traced_memory()
        for writer in idle:
            writer.transport.abort()
    finally:
        tracemalloc.stop()
    assert held < size / 2
