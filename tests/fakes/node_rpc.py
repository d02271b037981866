"""The JSON-RPC face of a bitcoin node over devnet's built-in node, without sockets.

It knows the calls that the wallet makes and refuses every other; shapes and error codes are those of Bitcoin
Core 29, and the same tests run against a real one (tests/interop).
"""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx

from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid
from barkd_py.devnet.chain.index import IndexedBlock, script_hash
from barkd_py.devnet.chain.node import Node, NodeRefusal

USER, PASSWORD = "__cookie__", "secret"


class NodeRpc:
    """Answers requests. The public fields change what it answers.

    smart_fees: target -> BTC/kvB; a target that is absent has no estimate, as on a new chain.
    before: called with each method name first; may raise or change the chain (a race).
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.chain = "regtest"
        self.version = 290000
        self.has_txindex = True
        self.smart_fees: dict[int, float] = {}
        self.password = PASSWORD
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda _method: None

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        expected = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {expected}":
            return httpx.Response(401)
        body = json.loads(request.content)
        if isinstance(body, list):
            return httpx.Response(200, json=[await self._answer(call) for call in body])
        answer = await self._answer(body)
        return httpx.Response(200 if answer["error"] is None else 500, json=answer)

    async def _answer(self, call: dict[str, Any]) -> dict[str, Any]:
        method = call["method"]
        self.calls.append(method)
        self.before(method)
        handler = getattr(self, f"_rpc_{method}", None)
        try:
            if handler is None:
                raise NodeRefusal(-32601, "Method not found")
            result = await handler(*call["params"])
        except NodeRefusal as error:
            refusal = {"code": error.code, "message": error.message}
            return {"result": None, "error": refusal, "id": call["id"]}
        return {"result": result, "error": None, "id": call["id"]}

    # --- the node itself ---

    async def _rpc_getblockchaininfo(self) -> Any:
        return {"chain": self.chain, "blocks": self.node.index.tip_height}

    async def _rpc_getindexinfo(self) -> Any:
        return {"txindex": {"synced": True, "best_block_height": 0}} if self.has_txindex else {}

    async def _rpc_getnetworkinfo(self) -> Any:
        return {"version": self.version, "subversion": "/Satoshi:29.0.0/"}

    async def _rpc_estimatesmartfee(self, target: int, _mode: str) -> Any:
        if target not in self.smart_fees:
            return {"errors": ["Insufficient data or no feerate found"], "blocks": target}
        return {"feerate": self.smart_fees[target], "blocks": target}

    # --- blocks ---

    async def _rpc_getblockcount(self) -> int:
        return self.node.index.tip_height

    async def _rpc_getblockhash(self, height: int) -> str:
        block = self.node.index.block_at(height)
        if block is None:
            raise NodeRefusal(-8, "Block height out of range")
        return str(block.hash)

    def _block(self, block_hash: str) -> IndexedBlock:
        block = self.node.index.block(BlockHash.from_hex(block_hash))
        if block is None:
            raise NodeRefusal(-5, "Block not found")
        return block

    async def _rpc_getblock(self, block_hash: str, verbosity: int) -> Any:
        block = self._block(block_hash)
        if verbosity == 0:
            return block.raw.hex()
        assert verbosity == 1
        return {"hash": block_hash, "height": block.height, "tx": [str(txid) for txid in block.txids]}

    async def _rpc_getblockheader(self, block_hash: str, verbose: bool) -> Any:
        assert verbose is True
        block = self._block(block_hash)
        confirmations = self.node.index.tip_height - block.height + 1
        return {"hash": block_hash, "height": block.height, "confirmations": confirmations}

    # --- transactions ---

    async def _rpc_getrawtransaction(self, txid_hex: str, verbose: bool | int) -> Any:
        txid = Txid.from_hex(txid_hex)
        confirmed, entry = self.node.index.tx(txid), self.node.pool.get(txid)
        if confirmed is None and entry is None:
            raise NodeRefusal(
                -5,
                "No such mempool or blockchain transaction. Use gettransaction for wallet transactions.",
            )
        tx = confirmed.tx if confirmed is not None else entry.tx if entry is not None else None
        assert tx is not None
        if not verbose:
            return tx.serialize().hex()
        info: dict[str, Any] = {"txid": txid_hex, "hex": tx.serialize().hex()}
        if confirmed is not None:
            block = self.node.index.block_at(confirmed.height)
            assert block is not None
            info["blockhash"] = str(block.hash)
            info["blocktime"] = block.header.time
        return info

    async def _rpc_getrawmempool(self) -> list[str]:
        return [str(entry.txid) for entry in self.node.pool]

    async def _rpc_getmempoolentry(self, txid_hex: str) -> Any:
        entry = self.node.pool.get(Txid.from_hex(txid_hex))
        if entry is None:
            raise NodeRefusal(-5, "Transaction not in mempool")
        entries = [entry]
        for txid in self.node.pool.ancestors(entry.tx):
            ancestor = self.node.pool.get(txid)
            assert ancestor is not None
            entries.append(ancestor)
        return {
            "vsize": entry.vsize,
            "weight": entry.weight_wu,
            "ancestorsize": sum(each.vsize for each in entries),
            "fees": {
                "base": entry.fee_sat / 1e8,
                "ancestor": sum(each.fee_sat for each in entries) / 1e8,
            },
        }

    async def _rpc_gettxspendingprevout(self, outpoints: list[dict[str, Any]]) -> Any:
        answers = []
        for asked in outpoints:
            spend = self.node.pool.spend(OutPoint(Txid.from_hex(asked["txid"]), asked["vout"]))
            answers.append(asked if spend is None else {**asked, "spendingtxid": str(spend.txid)})
        return answers

    async def _rpc_gettxout(self, txid_hex: str, vout: int, include_mempool: bool) -> Any:
        assert include_mempool is False
        coin = self.node.index.coin(OutPoint(Txid.from_hex(txid_hex), vout))
        return None if coin is None else {"value": coin.output.value_sat / 1e8}

    async def _rpc_scantxoutset(self, action: str, descriptors: list[str]) -> Any:
        assert action == "start"
        unspents = []
        for descriptor in descriptors:
            script = bytes.fromhex(descriptor.removeprefix("raw(").removesuffix(")"))
            for txid in self.node.index.script_txids(script_hash(script)):
                confirmed = self.node.index.tx(txid)
                assert confirmed is not None
                for vout, output in enumerate(confirmed.tx.outputs):
                    is_unspent = self.node.index.coin(confirmed.tx.outpoint(vout)) is not None
                    if is_unspent and output.script_pubkey == script:
                        unspents.append(
                            {
                                "txid": str(txid),
                                "vout": vout,
                                "scriptPubKey": script.hex(),
                                "amount": output.value_sat / 1e8,
                                "height": confirmed.height,
                            }
                        )
        return {"success": True, "height": self.node.index.tip_height, "unspents": unspents}

    async def _rpc_sendrawtransaction(self, raw_hex: str) -> str:
        return str(await self.node.broadcast(raw_hex))

    async def _rpc_submitpackage(self, raw_hexes: list[str]) -> Any:
        for raw_hex in raw_hexes:
            Tx.from_hex(raw_hex)
        return await self.node.submit_package(raw_hexes)
