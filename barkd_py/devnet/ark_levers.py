"""The levers of the Ark server, as routes of the control API. See `barkd_py.devnet.control`."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import FeeRate
from barkd_py.devnet.ark_server.failures import Failure
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.store.participation_rows import Participation
from barkd_py.devnet.ark_server.watch.watchman import Push, Reaction
from barkd_py.devnet.ark_server_slot import ArkServerSlot
from barkd_py.devnet.request_body import integer, json_body, number, text
from barkd_py.errors import InvalidInput, NotFound, chain_text

_MAX_BAN_BLOCKS = 100_000


def ark_server_routes(slot: ArkServerSlot, push: Push) -> Sequence[BaseRoute]:
    """push: see `ArkServer.watchman`."""
    levers = _Levers(slot, push)
    return (
        Route("/round", levers.round, methods=["POST"]),
        Route("/sweep", levers.sweep, methods=["POST"]),
        Route("/ark-server", levers.state, methods=["GET"]),
        Route("/ark-server/stop", levers.stop, methods=["POST"]),
        Route("/ark-server/start", levers.start, methods=["POST"]),
        Route("/ark-server/fee-rate", levers.fee_rate, methods=["POST"]),
        Route("/ark-server/ban", levers.ban, methods=["POST"]),
        Route("/ark-server/double-spend", levers.double_spend, methods=["POST"]),
    )


class _Levers:
    """The handlers."""

    def __init__(self, slot: ArkServerSlot, push: Push) -> None:
        self._slot = slot
        self._push = push

    @property
    def _server(self) -> ArkServer:
        return self._slot.server

    async def sweep(self, _request: Request) -> Response:
        if self._server.is_stopped:
            raise InvalidInput("the Ark server is stopped")
        await self._server.follower.catch_up()
        patrol = await self._server.watchman(self._push).patrol()
        return JSONResponse(
            {
                "transactions": [_reaction_json(each) for each in patrol.reactions],
                "problems": [{"output": str(each.output), "error": each.error} for each in patrol.problems],
            }
        )

    async def stop(self, _request: Request) -> Response:
        await self._slot.stop()
        return JSONResponse({})

    async def start(self, _request: Request) -> Response:
        await self._slot.restart()
        return JSONResponse({})

    async def round(self, request: Request) -> Response:
        body = await json_body(request, ("go_on",))
        if body.get("go_on"):
            self._server.rounds.go_on()
        else:
            self._server.rounds.trigger()
        return JSONResponse({"next_round_at": self._server.rounds.next_round_at})

    async def state(self, _request: Request) -> Response:
        server = self._server
        return JSONResponse(
            {
                "next_round_at": server.rounds.next_round_at,
                "round_subscribers": server.rounds.events.nb_subscribers,
                "balance_sat": await server.treasury.balance_sat(),
                "offboard_sessions": [str(txid) for txid in server.offboards.open_sessions],
                "participations": [_participation_json(each) for each in await server.participations()],
            }
        )

    async def fee_rate(self, request: Request) -> Response:
        rate = number(await json_body(request, ("sat_per_vb",)), "sat_per_vb")
        try:
            self._server.fee_rates.set_regular(FeeRate.from_sat_per_vb(rate))
        except ValueError as error:
            raise InvalidInput(str(error)) from None
        return JSONResponse({})

    async def ban(self, request: Request) -> Response:
        body = await json_body(request, ("vtxo_id", "blocks"))
        vtxo_id = VtxoId.parse(text(body, "vtxo_id"))
        try:
            if body.get("blocks") == 0:
                await self._server.unban_vtxo(vtxo_id)
                return JSONResponse({"banned_until_height": None})
            until = await self._server.ban_vtxo(vtxo_id, integer(body, "blocks", maximum=_MAX_BAN_BLOCKS))
        except Failure as error:
            raise NotFound(chain_text(error), [str(vtxo_id)]) from None
        return JSONResponse({"banned_until_height": until})

    async def double_spend(self, request: Request) -> Response:
        try:
            txid = Txid.from_hex(text(await json_body(request, ("txid",)), "txid"))
        except ValueError as error:
            raise InvalidInput("txid must be 64 hex digits") from error
        return JSONResponse({"transaction": (await self._server.double_spend(txid)).serialize().hex()})


def _reaction_json(each: Reaction) -> dict[str, Any]:
    return {
        "txid": str(each.txid),
        "kind": "progress" if each.progress else "claim",
        "outputs": [str(output) for output in each.outputs],
    }


def _participation_json(each: Participation) -> dict[str, Any]:
    return {
        "unlock_hash": each.swap.unlock_hash.hex(),
        "inputs": [str(vtxo_id) for vtxo_id in each.swap.inputs],
        "outputs_sat": [output.amount_sat for output in each.swap.outputs],
        "scheduled_height": each.swap.scheduled_height,
        "funding_txid": None if each.round is None else str(each.round),
        "is_forfeited": each.is_forfeited,
    }
