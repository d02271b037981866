"""The Esplora face: shapes, pages, refusals, and faults."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from barkd_py.bitcoin.address import address_from_script
from barkd_py.bitcoin.tx import Tx
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.armed_faults import describe
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.block import Block
from barkd_py.devnet.chain.index import script_hash
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.devnet.esplora import esplora_app
from barkd_py.devnet.http_faults import BadHttpFault, HttpFault, HttpFaults
from tests.devnet.purse import SCRIPT, Purse, anchor, exit_child, exit_parent, pay, spend

UNKNOWN = "77" * 32
GENESIS_HASH = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"

#: What bdkpython and bark cannot do without. Source: sheet 11 §2.1.
TX_FIELDS = {"txid", "version", "locktime", "size", "weight", "fee", "vin", "vout", "status"}
VIN_FIELDS = {"txid", "vout", "prevout", "scriptsig", "is_coinbase", "sequence"}
VOUT_FIELDS = {"scriptpubkey", "value"}
BLOCK_FIELDS = {
    "id",
    "height",
    "version",
    "timestamp",
    "tx_count",
    "size",
    "weight",
    "merkle_root",
    "previousblockhash",
    "mediantime",
    "nonce",
    "bits",
    "difficulty",
}


@pytest.fixture
def faults() -> HttpFaults:
    return HttpFaults()


@pytest.fixture
async def http(node: LocalNode, faults: HttpFaults) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(esplora_app(node, faults))
    async with httpx.AsyncClient(transport=transport, base_url="http://esplora") as client:
        yield client


@pytest.fixture
async def purse(node: LocalNode) -> Purse:
    purse = Purse(node)
    await purse.fill(10)
    return purse


async def get(http: httpx.AsyncClient, path: str) -> Any:
    response = await http.get(path)
    assert response.status_code == 200, (path, response.text)
    return response.json()


# -- blocks --------------------------------------------------------------------------------------------


async def test_tip_is_plain_text_without_a_newline(http: httpx.AsyncClient, node: LocalNode) -> None:
    height = await http.get("/blocks/tip/height")
    assert height.content == str(node.index.tip_height).encode()
    assert (await http.get("/blocks/tip/hash")).text == str(node.index.tip.hash)


async def test_block_hash_by_height(http: httpx.AsyncClient, node: LocalNode) -> None:
    assert (await http.get("/block-height/0")).text == GENESIS_HASH
    above = await http.get(f"/block-height/{node.index.tip_height + 1}")
    assert above.status_code == 404


async def test_ten_newest_blocks(http: httpx.AsyncClient, node: LocalNode) -> None:
    blocks = await get(http, "/blocks")
    height = node.index.tip_height
    assert [block["height"] for block in blocks] == list(range(height, height - 10, -1))
    assert all(block.keys() == BLOCK_FIELDS for block in blocks)
    for newer, older in itertools.pairwise(blocks):
        assert newer["previousblockhash"] == older["id"]


async def test_block_info_says_what_the_block_says(http: httpx.AsyncClient, node: LocalNode) -> None:
    tip = node.index.tip
    info = await get(http, f"/block/{tip.hash}")
    block = Block.parse(tip.raw)
    assert info["id"] == str(block.header.hash)
    assert info["timestamp"] == block.header.time
    assert info["bits"] == 0x207FFFFF
    assert info["difficulty"] == pytest.approx(4.656542373906925e-10)
    assert info["version"] == 0x20000000
    assert info["size"] == len(tip.raw)
    assert info["weight"] == 3 * _stripped_size(block) + len(tip.raw)
    assert info["tx_count"] == 1


def _stripped_size(block: Block) -> int:
    return 81 + sum(len(tx.serialize_without_witness()) for tx in block.transactions)


async def test_genesis_has_no_previous_block(http: httpx.AsyncClient) -> None:
    (genesis,) = await get(http, "/blocks/0")
    assert genesis["id"] == GENESIS_HASH
    assert genesis["previousblockhash"] is None


async def test_parts_of_a_block(http: httpx.AsyncClient, node: LocalNode) -> None:
    below = node.index.block_at(node.index.tip_height - 1)
    assert below is not None
    assert (await http.get(f"/block/{below.hash}/raw")).content == below.raw
    assert (await http.get(f"/block/{below.hash}/header")).text == below.raw[:80].hex()
    assert await get(http, f"/block/{below.hash}/txids") == [str(txid) for txid in below.txids]
    assert await get(http, f"/block/{below.hash}/status") == {
        "in_best_chain": True,
        "height": below.height,
        "next_best": str(node.index.tip.hash),
    }


async def test_block_that_was_reorganised_away_is_unknown(http: httpx.AsyncClient, node: LocalNode) -> None:
    lost = node.index.tip.hash
    await node.reorg(1)
    assert (await http.get(f"/block/{lost}")).status_code == 404
    assert await get(http, f"/block/{lost}/status") == {"in_best_chain": False}


@pytest.mark.parametrize(
    "path",
    [
        f"/block/{UNKNOWN}",
        f"/block/{UNKNOWN}/raw",
        f"/tx/{UNKNOWN}",
        f"/tx/{UNKNOWN}/raw",
        f"/tx/{UNKNOWN}/hex",
        f"/tx/{UNKNOWN}/status",
        f"/tx/{UNKNOWN}/outspend/0",
        f"/tx/{UNKNOWN}/outspends",
    ],
)
async def test_unknown_things_are_404(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/block/xyz",
        "/tx/xyz",
        "/tx/xyz/raw",
        "/block-height/-1",
        "/block-height/x",
        "/scripthash/12/txs",
        "/address/x/txs",
    ],
)
async def test_what_cannot_be_read_is_400(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 400


# -- transactions --------------------------------------------------------------------------------------


async def test_confirmed_transaction(http: httpx.AsyncClient, node: LocalNode, purse: Purse) -> None:
    coin = purse.coin()
    tx = spend([coin], [pay(60_000), anchor(1000)], version=3)
    await purse.broadcast(tx)
    (block,) = await node.mine()
    seen = await get(http, f"/tx/{tx.txid}")
    assert seen.keys() == TX_FIELDS
    assert seen["txid"] == str(tx.txid)
    assert (seen["version"], seen["locktime"], seen["fee"]) == (3, 0, 39_000)
    assert (seen["size"], seen["weight"]) == (len(tx.serialize()), tx.weight_wu)
    assert seen["status"] == {
        "confirmed": True,
        "block_height": block.height,
        "block_hash": str(block.hash),
        "block_time": node.index.tip.header.time,
    }
    (vin,) = seen["vin"]
    assert vin.keys() == VIN_FIELDS | {"witness"}
    assert vin["prevout"]["scriptpubkey"] == SCRIPT.hex()
    assert vin["prevout"]["value"] == coin.value_sat
    assert vin["witness"] == [tx.inputs[0].witness[0].hex()]
    assert [output["value"] for output in seen["vout"]] == [60_000, 1000]
    assert all(output.keys() >= VOUT_FIELDS for output in seen["vout"])
    assert seen["vout"][1]["scriptpubkey"] == "51024e73"


async def test_unconfirmed_transaction_and_empty_witness(http: httpx.AsyncClient, purse: Purse) -> None:
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    seen = await get(http, f"/tx/{child.txid}")
    assert seen["status"] == {"confirmed": False}
    assert seen["fee"] == 1000
    assert "witness" not in seen["vin"][0]
    assert seen["vin"][0]["prevout"]["value"] == 0
    assert await get(http, f"/tx/{child.txid}/status") == {"confirmed": False}


async def test_coinbase_pays_no_fee_and_has_no_prevout(http: httpx.AsyncClient, node: LocalNode) -> None:
    seen = await get(http, f"/tx/{node.index.tip.txids[0]}")
    (vin,) = seen["vin"]
    assert seen["fee"] == 0
    assert vin["is_coinbase"] is True
    assert vin["prevout"] is None
    assert vin["txid"] == "00" * 32


async def test_raw_transaction(http: httpx.AsyncClient, purse: Purse) -> None:
    tx = spend([purse.coin()], [pay(90_000)])
    await purse.broadcast(tx)
    raw = await http.get(f"/tx/{tx.txid}/raw")
    assert raw.content == tx.serialize()
    assert raw.headers["content-type"] == "application/octet-stream"
    assert (await http.get(f"/tx/{tx.txid}/hex")).text == tx.serialize().hex()


async def test_outspend_of_a_parent_and_child(http: httpx.AsyncClient, node: LocalNode, purse: Purse) -> None:
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    await purse.submit(parent, child)
    assert await get(http, f"/tx/{parent.txid}/outspend/0") == {"spent": False}
    spent = {"spent": True, "txid": str(child.txid), "vin": 0, "status": {"confirmed": False}}
    assert await get(http, f"/tx/{parent.txid}/outspend/1") == spent
    await node.mine()
    seen = await get(http, f"/tx/{parent.txid}/outspends")
    assert seen[0] == {"spent": False}
    assert seen[1]["status"]["block_height"] == node.index.tip_height


# -- scripts -------------------------------------------------------------------------------------------


async def history(node: LocalNode, confirmed: int, unconfirmed: int) -> tuple[bytes, list[Tx], list[Tx]]:
    """A script with so many transactions, each the child of the one before; oldest first."""
    script = b"\x51\x20" + b"\x03" * 32
    paid: list[Tx] = []
    for number in range(confirmed):
        paid.append(await faucet.pay(node, [pay(1000 + number, script)]))
        await node.mine()
    waiting = [await faucet.pay(node, [pay(9000 + number, script)]) for number in range(unconfirmed)]
    return script, paid, waiting


def txids(page: Any) -> list[str]:
    return [tx["txid"] for tx in page]


@pytest.mark.parametrize("count", [0, 1, 24, 25, 26, 51])
async def test_pages_of_a_script(http: httpx.AsyncClient, node: LocalNode, count: int) -> None:
    script, confirmed, _ = await history(node, count, 0)
    newest_first = [str(tx.txid) for tx in reversed(confirmed)]
    base = f"/scripthash/{script_hash(script)}/txs"
    page = txids(await get(http, base))
    assert page == newest_first[:25]
    seen = list(page)
    while page:
        page = txids(await get(http, f"{base}/chain/{page[-1]}"))
        seen.extend(page)
        assert len(page) <= 25
    assert seen == newest_first
    assert txids(await get(http, f"{base}/chain")) == newest_first[:25]


async def test_first_page_begins_with_the_mempool(http: httpx.AsyncClient, node: LocalNode) -> None:
    script, confirmed, waiting = await history(node, 26, 3)
    base = f"/scripthash/{script_hash(script)}/txs"
    page = await get(http, base)
    assert set(txids(page)[:3]) == {str(tx.txid) for tx in waiting}
    assert [tx["status"]["confirmed"] for tx in page] == [False] * 3 + [True] * 25
    assert txids(await get(http, f"{base}/chain/{page[-1]['txid']}")) == [str(confirmed[0].txid)]
    # What follows an unconfirmed one is not known.
    assert await get(http, f"{base}/chain/{page[0]['txid']}") == []
    assert len(await get(http, f"{base}/mempool")) == 3


async def test_unknown_script_has_no_transactions(http: httpx.AsyncClient) -> None:
    assert await get(http, f"/scripthash/{UNKNOWN}/txs") == []
    assert await get(http, f"/scripthash/{UNKNOWN}/utxo") == []


async def test_script_is_known_by_its_address_too(http: httpx.AsyncClient, node: LocalNode) -> None:
    script, _, _ = await history(node, 2, 1)
    address = address_from_script(script, Network.REGTEST)
    assert await get(http, f"/address/{address}/txs") == await get(
        http, f"/scripthash/{script_hash(script)}/txs"
    )


async def test_coins_of_a_script(http: httpx.AsyncClient, node: LocalNode, purse: Purse) -> None:
    spent = purse.coin()
    before = await get(http, f"/scripthash/{script_hash(SCRIPT)}/utxo")
    tx = spend([spent], [pay(40_000)])
    await purse.broadcast(tx)
    after = await get(http, f"/scripthash/{script_hash(SCRIPT)}/utxo")
    assert len(after) == len(before)
    assert {"txid": str(tx.txid), "vout": 0, "value": 40_000, "status": {"confirmed": False}} in after
    assert str(spent.outpoint.txid) + f":{spent.outpoint.vout}" not in {
        f"{coin['txid']}:{coin['vout']}" for coin in after
    }


async def test_spending_transaction_belongs_to_the_script_it_spends_from(
    http: httpx.AsyncClient, node: LocalNode, purse: Purse
) -> None:
    tx = spend([purse.coin()], [pay(40_000, b"\x51\x20" + b"\x04" * 32)])
    await purse.broadcast(tx)
    assert txids(await get(http, f"/scripthash/{script_hash(SCRIPT)}/txs"))[0] == str(tx.txid)
    await node.mine()
    assert txids(await get(http, f"/scripthash/{script_hash(SCRIPT)}/txs"))[0] == str(tx.txid)


async def test_history_follows_a_reorg(http: httpx.AsyncClient, node: LocalNode) -> None:
    script, (lost,), _ = await history(node, 1, 0)
    await node.reorg(1)
    (seen,) = await get(http, f"/scripthash/{script_hash(script)}/txs")
    assert seen["txid"] == str(lost.txid)
    assert seen["status"] == {"confirmed": False}


# -- sending -------------------------------------------------------------------------------------------


async def test_broadcast_without_content_type(http: httpx.AsyncClient, purse: Purse) -> None:
    tx = spend([purse.coin()], [pay(90_000)])
    request = httpx.Request("POST", "http://esplora/tx", content=tx.serialize().hex().encode())
    assert "content-type" not in request.headers
    answer = await http.send(request)
    assert (answer.status_code, answer.text) == (200, str(tx.txid))
    assert txids([await get(http, f"/tx/{tx.txid}")]) == [str(tx.txid)]


async def test_refused_broadcast_reads_like_the_nodes(http: httpx.AsyncClient, purse: Purse) -> None:
    tx = spend([purse.coin()], [pay(100_001)])
    answer = await http.post("/tx", content=tx.serialize().hex())
    assert answer.status_code == 400
    assert answer.text == (
        'sendrawtransaction RPC error: {"code":-26,"message":'
        '"bad-txns-in-belowout, value in (0.001) < value out (0.00100001)"}'
    )


async def test_mined_transaction_is_refused_like_the_nodes(http: httpx.AsyncClient, purse: Purse) -> None:
    tx = spend([purse.coin()], [pay(90_000)])
    await purse.broadcast(tx)
    await purse.node.mine()
    answer = await http.post("/tx", content=tx.serialize().hex())
    assert answer.status_code == 400
    assert '"code":-27' in answer.text


async def test_package(http: httpx.AsyncClient, purse: Purse) -> None:
    parent = exit_parent(purse.coin())
    child = exit_child(parent, purse.coin())
    answer = await http.post("/txs/package", json=[tx.serialize().hex() for tx in (parent, child)])
    assert answer.status_code == 200
    body = answer.json()
    assert body["package_msg"] == "success"
    assert body["tx-results"].keys() == {str(parent.wtxid), str(child.wtxid)}
    assert body["replaced-transactions"] == []


async def test_package_of_nonsense(http: httpx.AsyncClient) -> None:
    for body in ("", "x", "{}", "[1]", '"00"'):
        answer = await http.post("/txs/package", content=body)
        assert answer.status_code == 400
        assert answer.text.startswith("Invalid JSON")
    undecodable = await http.post("/txs/package", content='["00"]')
    assert undecodable.status_code == 400
    assert undecodable.text.startswith('submitpackage RPC error: {"code":-22')


async def test_fee_estimates_have_what_wallets_need(http: httpx.AsyncClient) -> None:
    estimates = await get(http, "/fee-estimates")
    assert estimates.keys() >= {"1", "3", "6"}
    assert estimates["1"] >= estimates["3"] >= estimates["6"] >= 1


async def test_mempool(http: httpx.AsyncClient, purse: Purse) -> None:
    assert (await get(http, "/mempool"))["count"] == 0
    tx = spend([purse.coin()], [pay(90_000)])
    await purse.broadcast(tx)
    mempool = await get(http, "/mempool")
    assert (mempool["count"], mempool["vsize"], mempool["total_fee"]) == (1, tx.vsize, 10_000)
    assert await get(http, "/mempool/txids") == [str(tx.txid)]


# -- faults --------------------------------------------------------------------------------------------


def fault(**description: Any) -> HttpFault:
    return HttpFault.from_json(description)


async def test_error_for_some_requests(http: httpx.AsyncClient, faults: HttpFaults) -> None:
    faults.set(fault(path="/blocks/*", kind="error", code=503, text="busy", skip=1, count=2))
    codes = [(await http.get("/blocks/tip/height")).status_code for _ in range(5)]
    assert codes == [200, 503, 503, 200, 200]
    assert (await http.get("/fee-estimates")).status_code == 200


async def test_reply_lost_after_the_work_was_done(
    http: httpx.AsyncClient, faults: HttpFaults, purse: Purse
) -> None:
    faults.set(fault(path="/tx", method="POST", stage="after-commit", kind="error", code=502))
    tx = spend([purse.coin()], [pay(90_000)])
    answer = await http.post("/tx", content=tx.serialize().hex())
    assert answer.status_code == 502
    assert tx.txid in purse.node.pool


async def test_delay_still_answers(http: httpx.AsyncClient, faults: HttpFaults) -> None:
    faults.set(fault(path="*", kind="delay", seconds=0.001))
    assert (await http.get("/blocks/tip/height")).status_code == 200
    (listed,) = faults.list()
    assert (listed["hits"], listed["left"]) == (1, 0)


async def test_cleared_faults_do_nothing(http: httpx.AsyncClient, faults: HttpFaults) -> None:
    first = faults.set(fault(path="*", kind="error", count=None))
    assert faults.remove(first)
    assert not faults.remove(first)
    faults.set(fault(path="*", kind="error", count=None))
    faults.clear()
    assert (await http.get("/blocks/tip/height")).status_code == 200


@pytest.mark.parametrize(
    "description",
    [{}, {"path": "*"}, {"path": "*", "kind": "explode"}, {"path": "*", "kind": "error", "x": 1}],
)
def test_senseless_faults_are_refused(description: dict[str, Any]) -> None:
    with pytest.raises(BadHttpFault):
        HttpFault.from_json(description)


def test_fault_survives_a_round_trip() -> None:
    one = fault(path="/tx", kind="drop", stage="after-commit", method="POST", skip=2, count=None)
    assert HttpFault.from_json(describe(one)) == one
