"""The chain over HTTP, as Esplora servers show it: what wallets use as their chain source.

The paths and shapes are those that bdkpython and the barkd of others ask for, and some that people like. Two
of them matter more than they seem: ``/blocks/tip/height`` has no newline, and no request carries a content
type, so bodies are read as they come.

Every answer is made from one state of the node: nothing is awaited between its first and its last look.

Source: sheet 11 §2.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from barkd_py.bitcoin.address import InvalidAddress, WrongNetworkAddress, address_from_script, parse_address
from barkd_py.bitcoin.script import ScriptType, script_type
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.devnet.chain.index import IndexedBlock, Spend, script_hash
from barkd_py.devnet.chain.node import Node, NodeRefusal
from barkd_py.devnet.chain.pool import PoolEntry
from barkd_py.devnet.http_faults import FaultMiddleware, HttpFaults

#: Confirmed transactions of a page; wallets stop at a shorter one.
_PAGE = 25
#: Unconfirmed transactions in front of the first page.
_MAX_UNCONFIRMED = 50
#: Blocks of one ``/blocks`` answer.
_BLOCKS = 10

#: sat/vB by confirmation target. There is no market on regtest.
FEE_ESTIMATES = {"1": 5.0, "2": 4.0, "3": 3.0, "6": 1.0, "144": 1.0}

_Json = dict[str, Any]
_Handler = Callable[[Request], Awaitable[Response]]


class _NoSuchThing(Exception):
    """The path names something that is not there."""


class _BadRequest(Exception):
    """The path or body cannot be read."""


def esplora_app(node: Node, faults: HttpFaults | None = None) -> Starlette:
    """The application for a node. It may also be mounted under another path."""
    face = _EsploraFace(node)
    return Starlette(
        routes=face.routes(),
        exception_handlers={
            _NoSuchThing: _answer_text(404),
            _BadRequest: _answer_text(400),
            NodeRefusal: _answer_refusal,
        },
        middleware=[
            Middleware(CORSMiddleware, allow_origins=["*"]),
            Middleware(FaultMiddleware, faults=faults or HttpFaults()),
        ],
    )


def _answer_text(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), status)

    return answer


async def _answer_refusal(request: Request, error: Exception) -> Response:
    """What the node refuses is passed on in the words of the servers that ask it over RPC."""
    assert isinstance(error, NodeRefusal)
    method = "submitpackage" if request.url.path.endswith("/txs/package") else "sendrawtransaction"
    body = json.dumps({"code": error.code, "message": error.message}, separators=(",", ":"))
    return PlainTextResponse(f"{method} RPC error: {body}", 400)


class _EsploraFace:
    """The handlers. Each brings the node up to date first."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self) -> list[Route]:
        """All paths."""
        reads: dict[str, _Handler] = {
            "/blocks": self._blocks,
            "/blocks/tip/height": self._tip_height,
            "/blocks/tip/hash": self._tip_hash,
            "/blocks/{height}": self._blocks,
            "/block-height/{height}": self._block_hash,
            "/block/{hash}": self._block,
            "/block/{hash}/header": self._block_header,
            "/block/{hash}/raw": self._block_raw,
            "/block/{hash}/status": self._block_status,
            "/block/{hash}/txids": self._block_txids,
            "/tx/{txid}": self._tx,
            "/tx/{txid}/hex": self._tx_hex,
            "/tx/{txid}/raw": self._tx_raw,
            "/tx/{txid}/status": self._tx_status,
            "/tx/{txid}/outspends": self._outspends,
            "/tx/{txid}/outspend/{vout}": self._outspend,
            "/mempool": self._mempool,
            "/mempool/txids": self._mempool_txids,
            "/fee-estimates": self._fee_estimates,
        }
        for prefix in ("/scripthash/{script}", "/address/{address}"):
            reads[f"{prefix}/txs"] = self._script_txs
            reads[f"{prefix}/txs/chain"] = self._script_txs_chain
            reads[f"{prefix}/txs/chain/{{after}}"] = self._script_txs_chain
            reads[f"{prefix}/txs/mempool"] = self._script_txs_mempool
            reads[f"{prefix}/utxo"] = self._script_utxo
        return [
            *(Route(path, self._refreshed(handler), methods=["GET"]) for path, handler in reads.items()),
            Route("/tx", self._broadcast, methods=["POST"]),
            Route("/txs/package", self._submit_package, methods=["POST"]),
        ]

    def _refreshed(self, handler: _Handler) -> _Handler:
        async def handle(request: Request) -> Response:
            await self._node.refresh()
            return await handler(request)

        return handle

    # -- blocks ----------------------------------------------------------------------------------------

    async def _tip_height(self, _request: Request) -> Response:
        return PlainTextResponse(str(self._node.index.tip_height))

    async def _tip_hash(self, _request: Request) -> Response:
        return PlainTextResponse(str(self._node.index.tip.hash))

    async def _block_hash(self, request: Request) -> Response:
        return PlainTextResponse(str(self._block_at(_number(request, "height")).hash))

    async def _blocks(self, request: Request) -> Response:
        has_start = "height" in request.path_params
        start = _number(request, "height") if has_start else self._node.index.tip_height
        newest = min(start, self._node.index.tip_height)
        heights = range(newest, max(newest - _BLOCKS, -1), -1)
        return JSONResponse([self._block_json(self._block_at(height)) for height in heights])

    async def _block(self, request: Request) -> Response:
        return JSONResponse(self._block_json(self._asked_block(request)))

    async def _block_header(self, request: Request) -> Response:
        return PlainTextResponse(self._asked_block(request).header.serialize().hex())

    async def _block_raw(self, request: Request) -> Response:
        return _bytes(self._asked_block(request).raw)

    async def _block_txids(self, request: Request) -> Response:
        return JSONResponse([str(txid) for txid in self._asked_block(request).txids])

    async def _block_status(self, request: Request) -> Response:
        try:
            block = self._asked_block(request)
        except _NoSuchThing:
            return JSONResponse({"in_best_chain": False})
        following = self._node.index.block_at(block.height + 1)
        next_best = None if following is None else str(following.hash)
        return JSONResponse({"in_best_chain": True, "height": block.height, "next_best": next_best})

    def _block_at(self, height: int) -> IndexedBlock:
        block = self._node.index.block_at(height)
        if block is None:
            raise _NoSuchThing("Block not found")
        return block

    def _asked_block(self, request: Request) -> IndexedBlock:
        try:
            block = self._node.index.block(BlockHash.from_hex(request.path_params["hash"]))
        except ValueError:
            raise _BadRequest("Invalid hex string") from None
        if block is None:
            raise _NoSuchThing("Block not found")
        return block

    def _block_json(self, block: IndexedBlock) -> _Json:
        header = block.header
        return {
            "id": str(block.hash),
            "height": block.height,
            "version": header.version,
            "timestamp": header.time,
            "tx_count": len(block.txids),
            "size": len(block.raw),
            "weight": block.weight_wu,
            "merkle_root": header.merkle_root[::-1].hex(),
            "previousblockhash": str(header.previous) if block.height > 0 else None,
            "mediantime": self._node.index.median_time_past(block.height),
            "nonce": header.nonce,
            "bits": header.bits,
            "difficulty": _difficulty(header.bits),
        }

    # -- transactions ----------------------------------------------------------------------------------

    async def _tx(self, request: Request) -> Response:
        tx, _ = self._asked_tx(request)
        return JSONResponse(self._tx_json(tx))

    async def _tx_hex(self, request: Request) -> Response:
        tx, _ = self._asked_tx(request)
        return PlainTextResponse(tx.serialize().hex())

    async def _tx_raw(self, request: Request) -> Response:
        tx, _ = self._asked_tx(request)
        return _bytes(tx.serialize())

    async def _tx_status(self, request: Request) -> Response:
        tx, _ = self._asked_tx(request)
        return JSONResponse(self._status_json(tx.txid))

    async def _outspend(self, request: Request) -> Response:
        tx, _ = self._asked_tx(request)
        return JSONResponse(self._outspend_json(tx.outpoint(_number(request, "vout"))))

    async def _outspends(self, request: Request) -> Response:
        tx, _ = self._asked_tx(request)
        return JSONResponse([self._outspend_json(tx.outpoint(vout)) for vout in range(len(tx.outputs))])

    def _asked_tx(self, request: Request) -> tuple[Tx, bool]:
        """The transaction of the path, and whether it is confirmed."""
        txid = _txid(request.path_params["txid"])
        confirmed = self._node.index.tx(txid)
        if confirmed is not None:
            return confirmed.tx, True
        entry = self._node.pool.get(txid)
        if entry is None:
            raise _NoSuchThing("Transaction not found")
        return entry.tx, False

    def _known_tx(self, txid: Txid) -> Tx:
        confirmed = self._node.index.tx(txid)
        entry = self._node.pool.get(txid)
        tx = confirmed.tx if confirmed is not None else entry.tx if entry is not None else None
        assert tx is not None
        return tx

    def _status_json(self, txid: Txid) -> _Json:
        confirmed = self._node.index.tx(txid)
        if confirmed is None:
            return {"confirmed": False}
        block = self._block_at(confirmed.height)
        return {
            "confirmed": True,
            "block_height": block.height,
            "block_hash": str(block.hash),
            "block_time": block.header.time,
        }

    def _tx_json(self, tx: Tx) -> _Json:
        confirmed = self._node.index.tx(tx.txid)
        is_coinbase = confirmed is not None and confirmed.is_coinbase
        spent = [None if is_coinbase else self._output(tx_in.prevout) for tx_in in tx.inputs]
        value_in = sum(output.value_sat for output in spent if output is not None)
        value_out = sum(output.value_sat for output in tx.outputs)
        return {
            "txid": str(tx.txid),
            "version": tx.version,
            "locktime": tx.locktime,
            "vin": [
                _input_json(tx, vin, output, is_coinbase=is_coinbase) for vin, output in enumerate(spent)
            ],
            "vout": [_output_json(output) for output in tx.outputs],
            "size": len(tx.serialize()),
            "weight": tx.weight_wu,
            "fee": 0 if is_coinbase else value_in - value_out,
            "status": self._status_json(tx.txid),
        }

    def _output(self, outpoint: OutPoint) -> TxOut | None:
        return self._node.index.output(outpoint) or self._node.pool.output(outpoint)

    def _spend(self, outpoint: OutPoint) -> Spend | None:
        return self._node.index.spend(outpoint) or self._node.pool.spend(outpoint)

    def _outspend_json(self, outpoint: OutPoint) -> _Json:
        spend = self._spend(outpoint)
        if spend is None:
            return {"spent": False}
        status = self._status_json(spend.txid)
        return {"spent": True, "txid": str(spend.txid), "vin": spend.vin, "status": status}

    # -- scripts ---------------------------------------------------------------------------------------

    async def _script_txs(self, request: Request) -> Response:
        key = _script_key(request)
        unconfirmed = self._node.pool.script_txids(key)[:_MAX_UNCONFIRMED]
        return JSONResponse(self._txs_json([*unconfirmed, *self._confirmed(key)[:_PAGE]]))

    async def _script_txs_mempool(self, request: Request) -> Response:
        unconfirmed = self._node.pool.script_txids(_script_key(request))
        return JSONResponse(self._txs_json(unconfirmed[:_MAX_UNCONFIRMED]))

    async def _script_txs_chain(self, request: Request) -> Response:
        confirmed = self._confirmed(_script_key(request))
        if "after" in request.path_params:
            last = _txid(request.path_params["after"])
            start = confirmed.index(last) + 1 if last in confirmed else len(confirmed)
            confirmed = confirmed[start:]
        return JSONResponse(self._txs_json(confirmed[:_PAGE]))

    async def _script_utxo(self, request: Request) -> Response:
        key = _script_key(request)
        coins = [
            (tx.outpoint(vout), output)
            for tx in map(self._known_tx, (*self._node.pool.script_txids(key), *self._confirmed(key)))
            for vout, output in enumerate(tx.outputs)
            if script_hash(output.script_pubkey) == key and self._spend(tx.outpoint(vout)) is None
        ]
        return JSONResponse(
            [
                {
                    "txid": str(outpoint.txid),
                    "vout": outpoint.vout,
                    "status": self._status_json(outpoint.txid),
                    "value": output.value_sat,
                }
                for outpoint, output in coins
            ]
        )

    def _confirmed(self, key: str) -> Sequence[Txid]:
        """The confirmed transactions of a script, newest first."""
        return self._node.index.script_txids(key)[::-1]

    def _txs_json(self, txids: Sequence[Txid]) -> list[_Json]:
        return [self._tx_json(self._known_tx(txid)) for txid in txids]

    # -- mempool ---------------------------------------------------------------------------------------

    async def _mempool(self, _request: Request) -> Response:
        entries: list[PoolEntry] = list(self._node.pool)
        return JSONResponse(
            {
                "count": len(entries),
                "vsize": sum(entry.vsize for entry in entries),
                "total_fee": sum(entry.fee_sat for entry in entries),
                "fee_histogram": [],
            }
        )

    async def _mempool_txids(self, _request: Request) -> Response:
        return JSONResponse([str(entry.txid) for entry in self._node.pool])

    async def _fee_estimates(self, _request: Request) -> Response:
        return JSONResponse(FEE_ESTIMATES)

    async def _broadcast(self, request: Request) -> Response:
        body = await request.body()
        txid = await self._node.broadcast(body.decode("ascii", errors="replace").strip())
        return PlainTextResponse(str(txid))

    async def _submit_package(self, request: Request) -> Response:
        try:
            raw_hexes = json.loads(await request.body())
        except ValueError as error:
            raise _BadRequest(f"Invalid JSON: {error}") from error
        is_list = isinstance(raw_hexes, list) and all(isinstance(raw_hex, str) for raw_hex in raw_hexes)
        if not is_list:
            raise _BadRequest("Invalid JSON: an array of hex strings is needed")
        return JSONResponse(await self._node.submit_package(raw_hexes))


def _number(request: Request, name: str) -> int:
    text: str = request.path_params[name]
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        raise _BadRequest("Invalid number")
    return int(text)


def _txid(text: str) -> Txid:
    try:
        return Txid.from_hex(text)
    except ValueError:
        raise _BadRequest("Invalid hex string") from None


def _script_key(request: Request) -> str:
    """The hash under which the index has the script of the path."""
    if "address" in request.path_params:
        try:
            return script_hash(parse_address(request.path_params["address"], Network.REGTEST))
        except (InvalidAddress, WrongNetworkAddress) as error:
            raise _BadRequest(f"Invalid Bitcoin address: {error}") from error
    key: str = request.path_params["script"].lower()
    _txid(key)  # 64 hex digits as well
    return key


def _bytes(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream")


def _input_json(tx: Tx, vin: int, spent: TxOut | None, *, is_coinbase: bool) -> _Json:
    tx_in = tx.inputs[vin]
    value: _Json = {
        "txid": str(tx_in.prevout.txid),
        "vout": tx_in.prevout.vout,
        "prevout": None if spent is None else _output_json(spent),
        "scriptsig": tx_in.script_sig.hex(),
        "is_coinbase": is_coinbase,
        "sequence": tx_in.sequence,
    }
    if tx_in.witness:
        value["witness"] = [item.hex() for item in tx_in.witness]
    return value


_TYPE_NAMES = {
    ScriptType.P2PKH: "p2pkh",
    ScriptType.P2SH: "p2sh",
    ScriptType.P2WPKH: "v0_p2wpkh",
    ScriptType.P2WSH: "v0_p2wsh",
    ScriptType.P2TR: "v1_p2tr",
    ScriptType.P2A: "anchor",
    ScriptType.OP_RETURN: "op_return",
}


def _output_json(output: TxOut) -> _Json:
    script = output.script_pubkey
    value: _Json = {
        "scriptpubkey": script.hex(),
        "scriptpubkey_type": _TYPE_NAMES.get(script_type(script), "unknown"),
        "value": output.value_sat,
    }
    address = address_from_script(script, Network.REGTEST)
    if address is not None:
        value["scriptpubkey_address"] = address
    return value


def _difficulty(bits: int) -> float:
    """How much harder than the easiest target of mainnet; far below 1 on regtest."""
    exponent, mantissa = bits >> 24, bits & 0xFF_FFFF
    return float(0xFFFF / mantissa * 256.0 ** (29 - exponent))
