"""The levers of devnet over HTTP: blocks, money, reorganisations, time and faults, as JSON.

| request | body | does |
|---|---|---|
| GET /status | | height, pool, addresses of all parts |
| POST /mine | ``blocks`` (1), ``address`` | mine; ``transactions`` (hex): exactly these, in one block |
| POST /fund | ``address``, ``amount_sat``, ``mine`` (true) | pay from the faucet and confirm |
| POST /reorg | ``depth``, ``transactions`` (hex) | replace the last blocks by one more, empty but for these |
| POST /cpfp | ``txid`` or ``transaction`` (hex), ``sat_per_vb`` (2) | a stranger's child that pays for it |
| POST /evict | ``txid`` | let the mempool forget it and what spends from it |
| GET, POST /time | ``offset_seconds`` or ``advance_seconds`` | move devnet's clock |
| GET, POST /auto-mine | ``interval_seconds``, ``on_transaction`` | mine without being asked |
| POST /round | ``go_on`` (false) | hold a round now; or end the window that is open in one |
| POST /sweep | | let the Ark server's watchman look at the chain once |
| POST /ark-server/stop | | the Ark server is gone |
| POST /ark-server/start | | it is back, with its books; or was restarted, if it ran |
| GET /ark-server | | its rounds, participations, offboards and money |
| POST /ark-server/fee-rate | ``sat_per_vb`` | what offboards cost from now on |
| POST /ark-server/ban | ``vtxo_id``, ``blocks`` | forbid spending a VTXO; 0 blocks: allow it again |
| POST /ark-server/double-spend | ``txid`` | a transaction (hex) that conflicts with one of the server's |
| GET, POST, DELETE /faults | ``target`` and the fault | list, set, clear all |
| DELETE /faults/{target}/{id} | | clear one |

A refused request changes nothing and answers 400 with ``{"error": "…"}``. There is no authentication: it
listens on the loopback interface, and the coins are worth nothing. The levers of the Ark server are in
`barkd_py.devnet.ark_levers`, those of Lightning in `barkd_py.devnet.lightning.levers`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.tx import Tx, TxDecodeError, Txid, TxOut
from barkd_py.bitcoin.units import MAX_MONEY_SAT, BlockRef, FeeRate, Network
from barkd_py.devnet.armed_faults import ArmedFaults, Describable
from barkd_py.devnet.auto_mine import AutoMiner
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node
from barkd_py.devnet.clock import DevnetClock
from barkd_py.devnet.request_body import integer, json_body, number, text
from barkd_py.errors import BarkdError, InvalidInput, NotFound, chain_text

F = TypeVar("F", bound=Describable)

#: More than anybody waits for.
_MAX_BLOCKS = 10_000


class FaultTarget(Protocol):
    """Something that misbehaves on demand."""

    def set(self, description: Mapping[str, Any]) -> int:
        """Arm a fault; its number. Raises InvalidInput."""

    def remove(self, number: int) -> bool:
        """Take a fault away; whether it was there."""

    def clear(self) -> None:
        """Be honest again."""

    def list(self) -> Sequence[dict[str, Any]]:
        """All faults that are set."""


class DescribedFaults(Generic[F]):
    """The faults of a face as a `FaultTarget`. read: a fault from its description; raises InvalidInput."""

    def __init__(self, faults: ArmedFaults[F], read: Callable[[Mapping[str, Any]], F]) -> None:
        self._faults = faults
        self._read = read

    def set(self, description: Mapping[str, Any]) -> int:
        return self._faults.set(self._read(description))

    def remove(self, number: int) -> bool:
        return self._faults.remove(number)

    def clear(self) -> None:
        self._faults.clear()

    def list(self) -> Sequence[dict[str, Any]]:
        return self._faults.list()


@dataclass(frozen=True, slots=True)
class ControlParts:
    """What the levers move. fault_targets: by name. describe: what GET /status adds to the chain's state."""

    node: Node
    clock: DevnetClock
    auto_miner: AutoMiner
    fault_targets: Mapping[str, FaultTarget]
    describe: Callable[[], dict[str, Any]]
    extra_routes: Sequence[BaseRoute] = field(default=())


def control_app(parts: ControlParts) -> Starlette:
    """The application."""
    levers = _Levers(parts)
    return Starlette(
        routes=[
            Route("/status", levers.status, methods=["GET"]),
            Route("/mine", levers.mine, methods=["POST"]),
            Route("/fund", levers.fund, methods=["POST"]),
            Route("/reorg", levers.reorg, methods=["POST"]),
            Route("/cpfp", levers.cpfp, methods=["POST"]),
            Route("/evict", levers.evict, methods=["POST"]),
            Route("/time", levers.time, methods=["GET"]),
            Route("/time", levers.set_time, methods=["POST"]),
            Route("/auto-mine", levers.auto_mine, methods=["GET"]),
            Route("/auto-mine", levers.set_auto_mine, methods=["POST"]),
            Route("/faults", levers.faults, methods=["GET"]),
            Route("/faults", levers.set_fault, methods=["POST"]),
            Route("/faults", levers.clear_faults, methods=["DELETE"]),
            Route("/faults/{target}/{number:int}", levers.clear_fault, methods=["DELETE"]),
            *parts.extra_routes,
        ],
        exception_handlers={NotFound: _answer(404), BarkdError: _answer(400)},
    )


def _answer(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, error: Exception) -> Response:
        return JSONResponse({"error": chain_text(error)}, status)

    return answer


class _Levers:
    """The handlers."""

    def __init__(self, parts: ControlParts) -> None:
        self._parts = parts
        self._node = parts.node

    async def status(self, _request: Request) -> Response:
        await self._node.refresh()
        return JSONResponse(
            {
                "node": self._node.name,
                **_tip_json(self._node.index.tip.ref),
                "mempool": [str(entry.txid) for entry in self._node.pool],
                **self._parts.describe(),
            }
        )

    async def mine(self, request: Request) -> Response:
        body = await json_body(request, ("blocks", "address", "transactions"))
        script = _script(body["address"]) if "address" in body else None
        if "transactions" in body:
            blocks: Sequence[BlockRef] = [
                await self._node.mine_exactly(_transactions(body), reward_script=script)
            ]
        else:
            count = integer(body, "blocks", default=1, maximum=_MAX_BLOCKS)
            blocks = await self._node.mine(count, reward_script=script)
        hashes = [str(block.hash) for block in blocks]
        return JSONResponse({**_tip_json(self._node.index.tip.ref), "blocks": hashes})

    async def fund(self, request: Request) -> Response:
        body = await json_body(request, ("address", "amount_sat", "mine"))
        amount_sat = integer(body, "amount_sat", maximum=MAX_MONEY_SAT)
        tx = await faucet.pay(self._node, [TxOut(amount_sat, _script(text(body, "address")))])
        if body.get("mine", True):
            await self._node.mine()
        return JSONResponse({"txid": str(tx.txid), "vout": 0, **_tip_json(self._node.index.tip.ref)})

    async def reorg(self, request: Request) -> Response:
        body = await json_body(request, ("depth", "transactions"))
        depth = integer(body, "depth", maximum=_MAX_BLOCKS)
        tip = await self._node.reorg(depth, transactions=_transactions(body))
        return JSONResponse(_tip_json(tip))

    async def cpfp(self, request: Request) -> Response:
        body = await json_body(request, ("txid", "transaction", "sat_per_vb"))
        rate = FeeRate.from_sat_per_vb(number(body, "sat_per_vb") if "sat_per_vb" in body else 2)
        child = await faucet.pay_for(self._node, await self._parent(body), rate)
        return JSONResponse({"txid": str(child.txid)})

    async def _parent(self, body: Mapping[str, Any]) -> Tx:
        if "transaction" in body:
            (parent,) = _transactions({"transactions": [body["transaction"]]})
            return parent
        txid = _txid(body)
        await self._node.refresh()
        known = self._node.pool.get(txid) or self._node.index.tx(txid)
        if known is None:
            raise NotFound(f"no transaction {txid}", [str(txid)])
        return known.tx

    async def evict(self, request: Request) -> Response:
        await self._node.evict(_txid(await json_body(request, ("txid",))))
        return JSONResponse({"mempool": [str(entry.txid) for entry in self._node.pool]})

    async def time(self, _request: Request) -> Response:
        clock = self._parts.clock
        return JSONResponse({"now": clock(), "offset_seconds": clock.offset_seconds})

    async def set_time(self, request: Request) -> Response:
        body = await json_body(request, ("offset_seconds", "advance_seconds"))
        clock = self._parts.clock
        if "advance_seconds" in body:
            clock.offset_seconds += number(body, "advance_seconds")
        else:
            clock.offset_seconds = number(body, "offset_seconds")
        return await self.time(request)

    async def auto_mine(self, _request: Request) -> Response:
        miner = self._parts.auto_miner
        return JSONResponse(
            {"interval_seconds": miner.interval_seconds, "on_transaction": miner.on_transaction}
        )

    async def set_auto_mine(self, request: Request) -> Response:
        body = await json_body(request, ("interval_seconds", "on_transaction"))
        interval = None if body.get("interval_seconds") is None else number(body, "interval_seconds")
        if interval is not None and not interval > 0:
            raise InvalidInput("interval_seconds must be above 0; leave it out to mine no more")
        self._parts.auto_miner.configure(
            interval_seconds=interval,
            on_transaction=bool(body.get("on_transaction", False)),
        )
        return await self.auto_mine(request)

    async def faults(self, _request: Request) -> Response:
        return JSONResponse({name: list(target.list()) for name, target in self._parts.fault_targets.items()})

    async def set_fault(self, request: Request) -> Response:
        body = dict(await json_body(request))
        name = text(body, "target")
        del body["target"]
        return JSONResponse({"target": name, "id": self._target(name).set(body)})

    async def clear_faults(self, _request: Request) -> Response:
        for target in self._parts.fault_targets.values():
            target.clear()
        return JSONResponse({})

    async def clear_fault(self, request: Request) -> Response:
        name, number = request.path_params["target"], request.path_params["number"]
        if not self._target(name).remove(number):
            raise NotFound(f"no fault {number} of {name}", [str(number)])
        return JSONResponse({})

    def _target(self, name: str) -> FaultTarget:
        target = self._parts.fault_targets.get(name)
        if target is None:
            names = ", ".join(self._parts.fault_targets)
            raise InvalidInput(f"no fault target {name!r}; there are: {names}")
        return target


def _tip_json(tip: BlockRef) -> dict[str, Any]:
    return {"height": tip.height, "tip_hash": str(tip.hash)}


def _script(address: object) -> bytes:
    if not isinstance(address, str):
        raise InvalidInput("address must be a text")
    return parse_address(address, Network.REGTEST)


def _txid(body: Mapping[str, Any]) -> Txid:
    try:
        return Txid.from_hex(text(body, "txid"))
    except ValueError as error:
        raise InvalidInput("txid must be 64 hex digits") from error


def _transactions(body: Mapping[str, Any]) -> list[Tx]:
    raw_hexes = body.get("transactions", [])
    if not isinstance(raw_hexes, list):
        raise InvalidInput("transactions must be an array of hex strings")
    try:
        return [Tx.from_hex(str(raw_hex)) for raw_hex in raw_hexes]
    except TxDecodeError as error:
        raise InvalidInput("transactions must be an array of hex strings") from error
