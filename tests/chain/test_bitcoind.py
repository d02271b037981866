"""The node's own ways: credentials, start-up checks, warm-up, estimates."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.chain import bitcoind
from barkd_py.chain.bitcoind import BitcoindSource, CookieFile, RpcClient, RpcError, UserPass
from barkd_py.chain.source import BroadcastError, ChainMisconfigured, NodeTooOld
from barkd_py.devnet.chain.node import Node
from barkd_py.errors import ChainUnavailable
from tests.chain.test_esplora import TX, Server
from tests.fakes.chains import FALLBACK, Clock, bitcoind_source
from tests.fakes.node_rpc import PASSWORD, USER, NodeRpc


def client(server: Server, clock: Clock | None = None) -> RpcClient:
    sleep = (clock or Clock()).sleep
    return RpcClient("http://node", UserPass("u", "p"), transport=httpx.MockTransport(server), sleep=sleep)


def refusal(code: int, message: str, status: int = 500) -> httpx.Response:
    return httpx.Response(status, json={"result": None, "error": {"code": code, "message": message}, "id": 0})


def test_password_is_not_shown() -> None:
    assert "hunter2" not in repr(UserPass("u", "hunter2"))


async def test_cookie_is_read_again_after_a_restart_of_the_node(node: Node, tmp_path: Path) -> None:
    rpc = NodeRpc(node)
    cookie = tmp_path / "cookie"
    cookie.write_text(f"{USER}:{PASSWORD}\nrest")
    rpc_with_cookie = RpcClient("http://node", CookieFile(cookie), transport=rpc.transport())
    height = await rpc_with_cookie.call("getblockcount")
    rpc.password = "other"
    cookie.write_text(f"{USER}:other")
    assert await rpc_with_cookie.call("getblockcount") == height


async def test_wrong_password_is_reported(node: Node) -> None:
    rpc = NodeRpc(node)
    wrong = RpcClient("http://node", UserPass(USER, "wrong"), transport=rpc.transport())
    with pytest.raises(ChainUnavailable):
        await wrong.call("getblockcount")


@pytest.mark.parametrize("content", [None, "", "no colon"])
async def test_unusable_cookie_is_reported(content: str | None, tmp_path: Path) -> None:
    cookie = tmp_path / "cookie"
    if content is not None:
        cookie.write_text(content)
    rpc = RpcClient("http://node", CookieFile(cookie))
    with pytest.raises(ChainUnavailable, match="cookie"):
        await rpc.call("getblockcount")


async def test_connection_failures_are_tried_three_times() -> None:
    clock = Clock(0.0)
    server = Server(httpx.ConnectError("down"))
    with pytest.raises(ChainUnavailable):
        await client(server, clock).call("getblockcount")
    assert len(server.requests) == 3
    assert clock.now_s == 2.0


async def test_lost_answer_is_not_asked_for_again() -> None:
    server = Server(httpx.ReadTimeout("late"))
    with pytest.raises(ChainUnavailable):
        await client(server).call("sendrawtransaction", "00")
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"result":' * 100_000, b"\xff", b""])
async def test_an_answer_that_cannot_be_read_is_none(body: bytes) -> None:
    server = Server(httpx.Response(200, content=body))
    with pytest.raises(ChainUnavailable, match="HTTP status 200"):
        await client(server).call("getblockcount")


async def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitcoind, "MAX_ANSWER_BYTES", 10_000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1_000
            yield b" " * 1_000
            assert sent < 1_000_000

    with pytest.raises(ChainUnavailable, match="too long"):
        await client(Server(httpx.Response(200, content=endless()))).call("getblockcount")
    assert sent <= 12_000
    answer = httpx.Response(200, content=b'{"result": 7, "error": null}'.rjust(10_000))
    assert await client(Server(answer)).call("getblockcount") == 7


async def test_refusal_is_final_and_named() -> None:
    server = Server(refusal(-26, "dust"))
    with pytest.raises(RpcError) as error:
        await client(server).call("sendrawtransaction", "00")
    assert str(error.value) == "RPC server returned error 'dust' (code -26)"
    assert len(server.requests) == 1


async def test_the_words_of_a_refusal_can_be_shown() -> None:
    """Half a character is none, and would end the answer to whoever asked."""
    body = b'{"result": null, "error": {"code": -26, "message": "du\\ud800st\\n"}, "id": 0}'
    with pytest.raises(RpcError) as error:
        await client(Server(httpx.Response(500, content=body))).call("sendrawtransaction", "00")
    assert str(error.value) == "RPC server returned error 'du st ' (code -26)"


@pytest.mark.parametrize(
    "answer",
    [
        refusal(-28, "Loading block index…"),
        httpx.Response(503, text="Work queue depth exceeded"),
        httpx.Response(200, json={"result": 1}),
        httpx.Response(200, json=[]),
    ],
)
async def test_unready_node_says_nothing(answer: httpx.Response) -> None:
    with pytest.raises(ChainUnavailable):
        await client(Server(answer)).call("getblockcount")


async def test_unexpected_refusal_is_not_an_answer(node: Node) -> None:
    """A lookup that fails in the node must not read as "there is no such transaction"."""
    chain = BitcoindSource(client(Server(refusal(-1, "disk error"))), fallback_fee_rate=FALLBACK)
    with pytest.raises(ChainUnavailable):
        await chain.tx_status(TX.txid)
    with pytest.raises(ChainUnavailable):
        await chain.get_tx(TX.txid)
    with pytest.raises(ChainUnavailable):
        await chain.block_hash(3)


async def test_refused_broadcast_carries_the_words_of_the_node() -> None:
    chain = BitcoindSource(client(Server(refusal(-26, "min relay fee not met"))), fallback_fee_rate=FALLBACK)
    with pytest.raises(BroadcastError) as error:
        await chain.broadcast(TX)
    assert str(error.value) == "RPC server returned error 'min relay fee not met' (code -26)"


async def test_old_node_is_refused(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    rpc.version = 280000
    with pytest.raises(NodeTooOld, match=r"Please upgrade to 29\.0 or higher"):
        await bitcoind_source(rpc, clock).check_startup(Network.REGTEST)


async def test_node_without_transaction_index_is_refused(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    rpc.has_txindex = False
    with pytest.raises(ChainMisconfigured) as error:
        await bitcoind_source(rpc, clock).check_startup(Network.REGTEST)
    assert str(error.value) == "txindex is not enabled. Run bitcoind with txindex = 1"


async def test_mutinynet_is_a_signet(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    rpc.chain = "signet"
    await bitcoind_source(rpc, clock).check_startup(Network.MUTINYNET)


async def test_estimates_come_from_three_targets(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    rpc.smart_fees = {1: 0.00010001, 3: 0.00002, 6: 0.00001}
    rates = await bitcoind_source(rpc, clock).fee_rates()
    assert (rates.fast, rates.regular, rates.slow) == (FeeRate(2501), FeeRate(500), FeeRate(250))


async def test_missing_estimate_falls_back_for_all(node: Node, rpc: NodeRpc, clock: Clock) -> None:
    rpc.smart_fees = {1: 0.0001}
    rates = await bitcoind_source(rpc, clock).fee_rates()
    assert rates.fast == rates.regular == rates.slow == FALLBACK


async def test_batch_answers_are_put_in_order() -> None:
    answers = [{"result": 2, "error": None, "id": 1}, {"result": 1, "error": None, "id": 0}]
    rpc = client(Server(httpx.Response(200, json=answers)))
    assert await rpc.call_each("getblockhash", [(1,), (2,)]) == [1, 2]
