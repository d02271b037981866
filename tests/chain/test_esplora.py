"""What a stranger's server may answer, and how patient we are with it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import httpx
import pytest

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import BlockRef, FeeRate
from barkd_py.chain.esplora import EsploraSource
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind, Confirmed, Mempool, NotFound, Spend
from barkd_py.errors import ChainUnavailable, chain_text
from tests.fakes.chains import FALLBACK, Clock

TXID = Txid(bytes(range(32)))
TX = Tx(2, (TxIn(OutPoint(TXID, 0)),), (TxOut(1_000, b"\x51"),))
HASH = BlockHash(b"\x09" * 32)

Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Gives its answers one after the other, the last one for ever."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def source(server: Handler, clock: Clock | None = None) -> EsploraSource:
    clock = clock or Clock()
    return EsploraSource(
        "http://esplora/",
        fallback_fee_rate=FALLBACK,
        clock=clock,
        sleep=clock.sleep,
        transport=httpx.MockTransport(server),
    )


def text(body: str, status: int = 200) -> httpx.Response:
    return httpx.Response(status, text=body)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_busy_server_is_asked_again(status: int) -> None:
    server, clock = Server(text("busy", status), text("busy", status), text(str(HASH))), Clock(0.0)
    assert await source(server, clock).block_hash(3) == HASH
    assert [request.url.path for request in server.requests] == ["/block-height/3"] * 3
    assert clock.now_s == pytest.approx(0.256 + 0.512)


async def test_patience_ends_after_six_retries() -> None:
    server, clock = Server(text("busy", 503)), Clock(0.0)
    with pytest.raises(ChainUnavailable):
        await source(server, clock).block_hash(3)
    assert len(server.requests) == 7
    assert clock.now_s == pytest.approx(0.256 * 63)


@pytest.mark.parametrize("error", [httpx.ReadError("reset"), httpx.RemoteProtocolError("disconnected")])
async def test_a_connection_that_was_dropped_is_made_anew_once(error: Exception) -> None:
    server = Server(error, text(str(HASH)))
    assert await source(server).block_hash(3) == HASH
    dead = Server(error)
    with pytest.raises(ChainUnavailable):
        await source(dead).block_hash(3)
    assert len(dead.requests) == 2


@pytest.mark.parametrize("answer", [text("bad gateway", 502), httpx.ConnectError("down"), text("no hash")])
async def test_other_failures_are_not_retried_and_mean_nothing(answer: httpx.Response | Exception) -> None:
    server = Server(answer)
    with pytest.raises(ChainUnavailable):
        await source(server).block_hash(3)
    assert len(server.requests) == 1


async def test_no_answer_says_who_gave_none_and_why_once() -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused") from OSError("refused")

    esplora = EsploraSource(
        "http://user:secret@esplora:3002/api",
        fallback_fee_rate=FALLBACK,
        transport=httpx.MockTransport(refuse),
    )
    with pytest.raises(ChainUnavailable) as failure:
        await esplora.block_hash(3)
    assert chain_text(failure.value) == "no answer from esplora at esplora:3002: ConnectError: refused"


@pytest.mark.parametrize("answer", [text("busy", 503), httpx.ReadError("reset")])
async def test_posts_are_never_repeated(answer: httpx.Response | Exception) -> None:
    server = Server(answer)
    with pytest.raises(ChainUnavailable):
        await source(server).broadcast(TX)
    assert len(server.requests) == 1


async def test_requests_have_no_content_type() -> None:
    server = Server(text(str(TX.txid)))
    await source(server).broadcast(TX)
    (request,) = server.requests
    assert request.content == TX.serialize().hex().encode()
    assert "content-type" not in request.headers


async def test_already_mined_is_a_success() -> None:
    body = 'sendrawtransaction RPC error: {"code":-27,"message":"Transaction outputs already in utxo set"}'
    await source(Server(text(body, 400))).broadcast(TX)


async def test_refused_package_request_is_a_refusal() -> None:
    with pytest.raises(BroadcastError) as refusal:
        await source(Server(text("package topology disallowed", 400))).broadcast_package([TX])
    assert refusal.value.kind is BroadcastErrorKind.OTHER


async def test_server_without_package_endpoint_is_no_refusal() -> None:
    with pytest.raises(ChainUnavailable):
        await source(Server(text("not found", 404))).broadcast_package([TX])


@pytest.mark.parametrize("height", ["", "12\n3", "-1", "0x1f", '"7"', "tip", "9" * 5_000, "٣", "500000000"])
async def test_tip_that_is_no_number_is_refused(height: str) -> None:
    with pytest.raises(ChainUnavailable):
        await source(Server(text(height))).fetch_tip()


async def test_tip_is_cached_for_a_second() -> None:
    server, clock = Server(text("7"), text(str(HASH)), text("8"), text(str(HASH))), Clock()
    chain = source(server, clock)
    assert (await chain.tip()).height == 7
    clock.now_s += 1.0
    assert (await chain.tip()).height == 7
    clock.now_s += 0.1
    assert (await chain.tip()).height == 8


async def test_another_transaction_than_asked_for_is_refused() -> None:
    with pytest.raises(ChainUnavailable):
        await source(Server(httpx.Response(200, content=TX.serialize()))).get_tx(TXID)
    with pytest.raises(ChainUnavailable):
        await source(Server(httpx.Response(200, content=b"\x00"))).get_tx(TXID)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"spent": "yes"},
        {"spent": True},
        {"spent": True, "txid": str(TXID)},
        {"spent": True, "txid": "ab", "status": {"confirmed": False}},
        {"spent": True, "txid": str(TXID), "status": {"confirmed": True}},
        {"spent": True, "txid": str(TXID), "status": {"confirmed": True, "block_height": 3}},
        *(
            {
                "spent": True,
                "txid": str(TXID),
                "status": {"confirmed": True, "block_height": height, "block_hash": str(HASH)},
            }
            for height in (-1, True, 500_000_000)
        ),
    ],
)
async def test_incomplete_spend_is_neither_spent_nor_unspent(answer: object) -> None:
    with pytest.raises(ChainUnavailable):
        await source(Server(httpx.Response(200, json=answer))).spender(OutPoint(TXID, 0), since_height=0)


@pytest.mark.parametrize("at_height", [str(BlockHash(b"\x08" * 32)), None], ids=["another", "none"])
async def test_a_block_that_is_not_in_the_best_chain_confirms_nothing(at_height: str | None) -> None:
    status = {"confirmed": True, "block_height": 7, "block_hash": str(HASH)}
    told: dict[str, object] = {
        f"/tx/{TXID}/status": status,
        f"/tx/{TXID}/outspend/0": {"spent": True, "txid": str(TX.txid), "status": status},
    }
    hashes = {"/block-height/7": at_height}

    def answer(request: httpx.Request) -> httpx.Response:
        if (path := request.url.path) in told:
            return httpx.Response(200, json=told[path])
        block_hash = hashes[path]
        return text("", 404) if block_hash is None else text(block_hash)

    chain = source(answer)
    with pytest.raises(ChainUnavailable, match="not in the best chain"):
        await chain.tx_status(TXID)
    with pytest.raises(ChainUnavailable, match="not in the best chain"):
        await chain.spender(OutPoint(TXID, 0), since_height=0)
    with pytest.raises(ChainUnavailable, match="not in the best chain"):
        await chain.is_spent_confirmed(OutPoint(TXID, 0))
    hashes["/block-height/7"] = str(HASH)
    confirmed = Confirmed(BlockRef(7, HASH))
    assert await chain.tx_status(TXID) == confirmed
    assert await chain.spender(OutPoint(TXID, 0), since_height=0) == Spend(TX.txid, confirmed)
    assert await chain.is_spent_confirmed(OutPoint(TXID, 0))


@pytest.mark.parametrize("knows_how_to_deny", [False, True])
async def test_where_a_transaction_is_takes_no_json_of_it(knows_how_to_deny: bool) -> None:
    """Blockstream's server has no 404 for the status of a transaction that it does not know; others do."""
    confirmed = {"confirmed": True, "block_height": 7, "block_hash": str(HASH), "block_time": 1_700_000_000}
    told: dict[str, httpx.Response] = {"/block-height/7": text(str(HASH))}
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return told.get(request.url.path, text("Transaction not found", 404))

    chain = source(answer)
    if not knows_how_to_deny:
        told[f"/tx/{TX.txid}/status"] = httpx.Response(200, json={"confirmed": False})
    assert await chain.tx_status(TX.txid) == NotFound()
    told[f"/tx/{TX.txid}/status"] = httpx.Response(200, json={"confirmed": False})
    told[f"/tx/{TX.txid}/raw"] = httpx.Response(200, content=TX.serialize())
    assert await chain.tx_status(TX.txid) == Mempool()
    asked.clear()
    told[f"/tx/{TX.txid}/status"] = httpx.Response(200, json=confirmed)
    assert await chain.tx_status(TX.txid) == Confirmed(BlockRef(7, HASH))
    assert asked == [f"/tx/{TX.txid}/status", "/block-height/7"]


async def test_unknown_transaction_has_no_spender() -> None:
    assert await source(Server(text("", 404))).spender(OutPoint(TXID, 0), since_height=0) is None


@pytest.mark.parametrize(
    "estimates",
    [
        {},
        {"3": 1.0, "6": 1.0},
        {"1": 1.0, "6": 1.0},
        {"1": 1.0, "3": 1.0},
        {"1": 1.0, "3": "2", "6": 1.0},
        {"1": -5.0, "3": 1.0, "6": 1.0},
        {"1": True, "3": 1.0, "6": 1.0},
        {"1": 10_000.1, "3": 1.0, "6": 1.0},
        [],
    ],
)
async def test_incomplete_estimates_fall_back(estimates: object) -> None:
    rates = await source(Server(httpx.Response(200, content=json.dumps(estimates)))).fee_rates()
    assert rates.fast == rates.regular == rates.slow == FALLBACK


async def test_estimates_are_rounded_up() -> None:
    body = {"1": 10.001, "3": 1.0, "6": 0.1}
    rates = await source(Server(httpx.Response(200, json=body))).fee_rates()
    assert (rates.fast, rates.regular, rates.slow) == (FeeRate(2501), FeeRate(250), FeeRate(25))


# --- lies


def entry(tx: Tx, **changes: object) -> dict[str, object]:
    """A transaction in a script's history."""
    (tx_in,), (tx_out,) = tx.inputs, tx.outputs
    spent = {"txid": str(tx_in.prevout.txid), "vout": 0, "scriptsig": "", "sequence": tx_in.sequence}
    return {
        "txid": str(tx.txid),
        "version": tx.version,
        "locktime": tx.locktime,
        "vin": [spent],
        "vout": [{"value": tx_out.value_sat, "scriptpubkey": tx_out.script_pubkey.hex()}],
        "status": {"confirmed": True, "block_height": 3, "block_hash": str(HASH), "block_time": 1},
        **changes,
    }


async def history(server: Handler) -> int:
    return len(await source(server)._script_history(b"\x51"))


async def test_a_history_is_read() -> None:
    assert await history(Server(httpx.Response(200, json=[entry(TX)]))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"txid": str(TXID)},
        {"version": True},
        {"vin": [{"txid": str(TXID), "vout": 0, "scriptsig": "", "sequence": 0, "witness": None}]},
        {"vin": [{"txid": str(TXID), "vout": 0, "scriptsig": "", "sequence": 0, "witness": [5]}]},
        {"vin": [{"txid": str(TXID), "vout": -1, "scriptsig": "", "sequence": 0}]},
        {"vout": [{"value": -1, "scriptpubkey": ""}]},
        {"vout": [{"value": 2**64, "scriptpubkey": ""}]},
        {"status": {"confirmed": True, "block_height": 3, "block_hash": str(HASH), "block_time": -1}},
        {"status": {"confirmed": True, "block_height": 3, "block_hash": str(HASH), "block_time": 2**40}},
    ],
)
async def test_a_history_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ChainUnavailable):
        await history(Server(httpx.Response(200, json=[entry(TX, **changes)])))


async def test_a_history_that_repeats_itself_is_refused() -> None:
    server = Server(httpx.Response(200, json=[entry(TX)] * 25))
    with pytest.raises(ChainUnavailable, match="endless"):
        await history(server)
    assert len(server.requests) == 2


async def test_a_history_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barkd_py.chain.esplora.MAX_HISTORY", 100)
    requests = 0

    def invent(request: httpx.Request) -> httpx.Response:
        nonlocal requests
        requests += 1
        txs = (replace(TX, locktime=25 * requests + index) for index in range(25))
        return httpx.Response(200, json=[entry(tx) for tx in txs])

    with pytest.raises(ChainUnavailable, match="endless"):
        await history(invent)
    assert requests == 5


async def test_ancestors_without_end_are_refused() -> None:
    def invent(request: httpx.Request) -> httpx.Response:
        parent = Txid(hashlib.sha256(request.url.path.encode()).digest())
        tx = {"fee": 1, "weight": 4, "vin": [{"txid": str(parent)}], "status": {"confirmed": False}}
        return httpx.Response(200, json=tx)

    with pytest.raises(ChainUnavailable, match="endless"):
        await source(invent).package_fee(TXID)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"<html>moved</html>", b"1" * 5_000, b"\xff", b""])
async def test_an_answer_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ChainUnavailable):
        await source(Server(httpx.Response(200, content=body))).tx_status(TXID)


class Drip(httpx.AsyncByteStream):
    """A body without end."""

    sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1
            await asyncio.sleep(0)
            yield bytes(1_000)


@pytest.mark.parametrize(
    ("ask", "max_bytes"),
    [
        (lambda chain: chain.fetch_tip(), 64 * 1024),
        (lambda chain: chain.spender(OutPoint(TXID, 0), since_height=1), 64 * 1024),
        (lambda chain: chain.get_tx(TXID), 4_000_000),
        (lambda chain: chain.block_txids(BlockHash(bytes(32))), 4 * 1024 * 1024),
    ],
    ids=["tip", "spend", "transaction", "block"],
)
async def test_an_answer_without_end_is_cut_by_its_length(
    ask: Callable[[EsploraSource], Awaitable[object]], max_bytes: int
) -> None:
    """As early as what was asked for allows."""
    drip = Drip()
    with pytest.raises(ChainUnavailable, match="too long"):
        await ask(source(Server(httpx.Response(200, stream=drip))))
    assert drip.sent == max_bytes // 1_000 + 1


async def test_an_answer_without_end_is_cut_by_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barkd_py.chain.esplora.ANSWER_TIMEOUT_S", 0.02)
    monkeypatch.setattr("barkd_py.chain.esplora.MAX_RAW_TX_BYTES", 10**12)
    with pytest.raises(ChainUnavailable, match="takes too long"):
        await source(Server(httpx.Response(200, stream=Drip()))).get_tx(TXID)


async def test_the_words_of_a_refusal_are_bounded() -> None:
    source = EsploraSource(
        "http://esplora",
        fallback_fee_rate=FeeRate(250),
        transport=httpx.MockTransport(lambda _: httpx.Response(400, content=b"A\n" * 10_000_000)),
    )
    tx = Tx(2, (TxIn(OutPoint(Txid(bytes(32)), 0)),), (TxOut(1, b"\x51"),))
    with pytest.raises(BroadcastError) as refused:
        await source.broadcast(tx)
    await source.close()
    assert len(str(refused.value)) < 10_000
    assert "\n" not in str(refused.value)
