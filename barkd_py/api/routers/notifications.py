"""Tag `notifications`: tickets, the websocket, and the long poll.

The websocket is not in openapi.json (OpenAPI has no word for it). Its handshake needs no token but a ticket,
in the query. A handshake that is no proper one arrives here as an ordinary GET and gets its reason as text.

Source: protocol sheet 07 §4.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Query, Request
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from barkd_py.api import render
from barkd_py.api.contract import Contract
from barkd_py.api.deps import ApiState, ClientContract, State, Wallet, contract_for
from barkd_py.api.errors import error_reply
from barkd_py.api.params import ParameterRejected, read_query
from barkd_py.api.reply import Reply, text_reply
from barkd_py.api.responses import REFUSED
from barkd_py.api.routing import new_router
from barkd_py.api.schemas import notifications as schemas
from barkd_py.errors import AuthError, WalletNotLoaded
from barkd_py.wallet.notifications import NotificationsStopped, Subscription

router = new_router("/notifications", "notifications")

WEBSOCKET_PATH: Final = "/api/v1/notifications/ws"
_GOING_AWAY: Final = 1001
"""The wallet is gone; the daemon stays."""
_SERVICE_RESTART: Final = 1012
"""The daemon stops."""


@router.get(
    "/ws/ticket",
    response_model=str,
    responses={401: {"model": str, "description": "Unauthorized"}},
    summary="Get a ticket for the websocket",
)
async def websocket_ticket(state: State) -> object:
    return state.tickets.issue()


@router.get(
    "/wait",
    response_model=schemas.WaitNotificationResponse,
    responses=REFUSED,
    summary="Wait for notifications, for half a minute at most",
)
async def wait_notification(
    query: Annotated[schemas.WaitQuery, Query()], wallet: Wallet, state: State, contract: ClientContract
) -> object:
    try:
        result = await wallet.notifications.wait(query.since, state.wait_secs)
    except NotificationsStopped:
        if state.runtime.is_stopping:
            raise
        raise WalletNotLoaded from None
    return render.wait_result(result, contract)


@router.get("/ws", response_model=None, include_in_schema=False)
async def broken_handshake(request: Request) -> Reply:
    if request.method == "HEAD":
        return text_reply(405, "Request method must be `GET`")
    return refuse_handshake(request.scope["headers"])


def refuse_handshake(headers: Sequence[tuple[bytes, bytes]]) -> Reply:
    """Why a GET of the websocket's path is no handshake. If nothing is wrong with it, it is of HTTP/1.0."""
    values = {name: value.lower() for name, value in headers}
    if b"upgrade" not in [token.strip() for token in values.get(b"connection", b"").split(b",")]:
        return text_reply(400, "Connection header did not include 'upgrade'")
    if values.get(b"upgrade") != b"websocket":
        return text_reply(400, "`Upgrade` header did not include 'websocket'")
    if values.get(b"sec-websocket-version") != b"13":
        return text_reply(400, "`Sec-WebSocket-Version` header did not include '13'")
    if b"sec-websocket-key" not in values:
        return text_reply(400, "`Sec-WebSocket-Key` header missing")
    return text_reply(426, "WebSocket request couldn't be upgraded since no upgrade state was present")


async def serve_websocket(
    state: ApiState, scope: Scope, receive: Receive, send: Send, cors_headers: list[tuple[bytes, bytes]]
) -> None:
    """Answer a proper handshake, then send events until one side has enough."""
    refusal = _refusal(state, scope)
    if refusal is not None:
        await _refuse(send, refusal, cors_headers)
        return
    await send({"type": "websocket.accept", "headers": cors_headers})
    try:
        subscription = state.runtime.wallet.notifications.subscribe()
    except WalletNotLoaded:
        await send({"type": "websocket.close", "code": _GOING_AWAY})
        return
    contract = contract_for(state, scope["headers"])
    try:
        if not await _talk(subscription, contract, receive, send):
            code = _SERVICE_RESTART if state.runtime.is_stopping else _GOING_AWAY
            await send({"type": "websocket.close", "code": code})
    finally:
        subscription.close()


def _refusal(state: ApiState, scope: Scope) -> Reply | None:
    """Why the handshake is not accepted. If it is, the ticket has been used up."""
    try:
        query = read_query(schemas.TicketQuery, scope["query_string"])
        if not state.tickets.redeem(query.ticket):
            raise AuthError("Invalid websocket ticket")
    except ParameterRejected as refusal:
        return text_reply(400, refusal.text)
    except AuthError as error:
        return error_reply(error, "GET", scope["path"])
    return None


async def _refuse(send: Send, reply: Reply, cors_headers: list[tuple[bytes, bytes]]) -> None:
    assert reply.content_type is not None
    headers = [
        *cors_headers,
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
    ]
    await send({"type": "websocket.http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": reply.body})


async def _talk(subscription: Subscription, contract: Contract, receive: Receive, send: Send) -> bool:
    """Send what happens until the client leaves (True) or the wallet goes; what it says is ignored."""
    sender = asyncio.create_task(_send_events(subscription, contract, send))
    listener = asyncio.create_task(_await_disconnect(receive))
    try:
        done, _ = await asyncio.wait((sender, listener), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return listener in done
    finally:
        for task in (sender, listener):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _send_events(subscription: Subscription, contract: Contract, send: Send) -> None:
    async for event in subscription:
        text = to_json(render.notification(event, contract)).decode()
        await send({"type": "websocket.send", "text": text})


async def _await_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
