"""Faults for HTTP: a middleware that acts on what a `FaultPlan` says of each request.

Facts of a request: ``method`` and ``path``. Codes are HTTP statuses.
"""

import asyncio

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from barkd_py.devnet.faults import Action, Fault, FaultPlan, Stage


class ConnectionDropped(Exception):
    """Ends a request without an answer; the server closes the connection."""


class FaultMiddleware:
    """Lets requests fail before or after they were served."""

    def __init__(self, app: ASGIApp, plan: FaultPlan, target: str) -> None:
        self._app = app
        self._plan = plan
        self._target = target

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts = {"method": scope["method"], "path": scope["path"]}
        fault = self._plan.take(self._target, Stage.BEFORE, facts)
        if fault is not None and await _strike(fault, scope, receive, send):
            return
        fault = self._plan.take(self._target, Stage.AFTER_COMMIT, facts)
        if fault is None:
            await self._app(scope, receive, send)
            return
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        await self._app(scope, receive, keep)
        if not await _strike(fault, scope, receive, send):
            for message in kept:
                await send(message)


async def _strike(fault: Fault, scope: Scope, receive: Receive, send: Send) -> bool:
    """Do what a fault says; whether that was the answer."""
    match fault.action:
        case Action.DELAY:
            await asyncio.sleep(fault.delay_seconds)
            return False
        case Action.DROP:
            raise ConnectionDropped
        case Action.ERROR:
            response = PlainTextResponse(fault.text, int(fault.code or 500))
        case Action.MUTATE | Action.SWALLOW:
            response = PlainTextResponse(fault.text)
    await response(scope, receive, send)
    return True
