"""The levers of Lightning, as routes of the control API.

| request | body | does |
|---|---|---|
| POST /lightning/invoice | see below | a node outside Ark asks for money |
| POST /lightning/offer | ``amount_sat``, ``description``, ``by_path``, a behaviour | a bolt12 offer |
| POST /lightning/address | ``name``, and how it answers | see `barkd_py.devnet.lightning.lnurl` |
| POST /lightning/pay | ``invoice``, ``amount_sat``, ``extra_cltv``, ``wait`` (true) | such a node pays |
| POST /lightning/settle | ``payment_hash`` | the payee takes what it holds |
| POST /lightning/fail | ``payment_hash``, ``reason`` | the payee sends it back |
| POST /lightning/node | ``online`` | the Ark server's node comes and goes |
| GET /lightning | | nodes, invoices, payments; the Ark server's attempts and receives |

An invoice is described by ``amount_sat`` or ``amount_msat``, ``description``, ``expiry_secs``,
``min_final_cltv_delta``, ``preimage``, and the payee's behaviour: any of ``delay_secs``, ``hold``, ``never``,
``fail`` (a reason), ``fail_times``, ``late``, ``route_fee_msat`` and ``route_cltv_delta``; see
`barkd_py.devnet.lightning.behaviour`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from barkd_py.bitcoin.bolt11 import DEFAULT_EXPIRY_SECS, DEFAULT_MIN_FINAL_CLTV_DELTA
from barkd_py.bitcoin.units import MAX_MONEY_SAT
from barkd_py.devnet.ark_server.store.lightning_rows import Attempt, FailureReason, Subscription
from barkd_py.devnet.ark_server_slot import ArkServerSlot
from barkd_py.devnet.lightning import rows
from barkd_py.devnet.lightning.behaviour import REASONS, Behaviour
from barkd_py.devnet.lightning.offers import OfferTerms
from barkd_py.devnet.lightning.outside import (
    InvoiceTerms,
    Outside,
)
from barkd_py.devnet.lightning.rows import Incoming, OutsideInvoice, Payment
from barkd_py.devnet.lightning.server_node import ServerNode
from barkd_py.devnet.request_body import integer, json_body, text
from barkd_py.errors import InvalidInput

_MAX_SECS = 10 * 365 * 24 * 3600
_MAX_BLOCKS = 100_000

_AMOUNT = ("amount_sat", "amount_msat")
_BEHAVIOUR = tuple(Behaviour.__dataclass_fields__)
_INVOICE = (*_AMOUNT, "description", "expiry_secs", "min_final_cltv_delta", "preimage", *_BEHAVIOUR)
_OFFER = (*_AMOUNT, "description", "by_path", *_BEHAVIOUR)


def lightning_routes(slot: ArkServerSlot, node: ServerNode, outside: Outside) -> Sequence[BaseRoute]:
    levers = _Levers(slot, node, outside)
    return (
        Route("/lightning", levers.state, methods=["GET"]),
        Route("/lightning/invoice", levers.invoice, methods=["POST"]),
        Route("/lightning/offer", levers.offer, methods=["POST"]),
        Route("/lightning/pay", levers.pay, methods=["POST"]),
        Route("/lightning/settle", levers.settle, methods=["POST"]),
        Route("/lightning/fail", levers.fail, methods=["POST"]),
        Route("/lightning/node", levers.node, methods=["POST"]),
    )


class _Levers:
    """The handlers."""

    def __init__(self, slot: ArkServerSlot, node: ServerNode, outside: Outside) -> None:
        self._slot = slot
        self._node = node
        self._outside = outside

    async def invoice(self, request: Request) -> Response:
        body = await json_body(request, _INVOICE)
        terms = InvoiceTerms(
            amount_msat=amount_msat(body),
            description=text(body, "description") if "description" in body else "",
            expiry_secs=integer(body, "expiry_secs", maximum=_MAX_SECS, default=DEFAULT_EXPIRY_SECS),
            min_final_cltv_delta=integer(
                body, "min_final_cltv_delta", maximum=_MAX_BLOCKS, default=DEFAULT_MIN_FINAL_CLTV_DELTA
            ),
            preimage=_hash32(body, "preimage") if "preimage" in body else None,
        )
        invoice = await self._outside.invoice(terms, Behaviour.from_json(body))
        return JSONResponse({"invoice": invoice.text, "payment_hash": invoice.payment_hash.hex()})

    async def offer(self, request: Request) -> Response:
        body = await json_body(request, _OFFER)
        terms = OfferTerms(
            amount_msat=amount_msat(body),
            description=text(body, "description") if "description" in body else "an offer",
            by_path=bool(body.get("by_path", False)),
        )
        offer = await self._outside.offer(terms, Behaviour.from_json(body))
        return JSONResponse({"offer": offer.text})

    async def pay(self, request: Request) -> Response:
        body = await json_body(request, (*_AMOUNT, "invoice", "extra_cltv", "wait"))
        extra_cltv = integer(body, "extra_cltv", maximum=_MAX_BLOCKS) if "extra_cltv" in body else 0
        payment = await self._outside.pay(
            text(body, "invoice"), amount_msat=amount_msat(body), extra_cltv=extra_cltv
        )
        if body.get("wait", True):
            payment = await self._outside.outcome(payment)
        return JSONResponse(_incoming_json(payment))

    async def settle(self, request: Request) -> Response:
        payment_hash = _hash32(await json_body(request, ("payment_hash",)), "payment_hash")
        preimage = await self._outside.settle(payment_hash)
        return JSONResponse({"preimage": preimage.hex()})

    async def fail(self, request: Request) -> Response:
        body = await json_body(request, ("payment_hash", "reason"))
        reason = text(body, "reason") if "reason" in body else "destination-rejected"
        if reason not in REASONS:
            raise InvalidInput(f"unknown reason {reason!r}; there are: {', '.join(REASONS)}")
        await self._outside.fail(_hash32(body, "payment_hash"), REASONS[reason])
        return JSONResponse({})

    async def node(self, request: Request) -> Response:
        body = await json_body(request, ("online",))
        self._node.is_online = bool(body.get("online", True))
        return JSONResponse({"online": self._node.is_online})

    async def state(self, _request: Request) -> Response:
        store = self._node.store
        invoices = await store.transact(rows.all_invoices)
        payments = await store.transact(rows.all_payments)
        incoming = await store.transact(rows.all_incoming)
        return JSONResponse(
            {
                "online": self._node.is_online,
                "node_id": self._node.node_id,
                "outside_node_id": self._outside.node_id,
                "invoices": [_invoice_json(each) for each in invoices],
                "payments": [_payment_json(each) for each in payments],
                "incoming": [_incoming_json(each) for each in incoming],
                **await self._server_books(),
            }
        )

    async def _server_books(self) -> dict[str, Any]:
        """What the Ark server has in its books; nothing while it is stopped."""
        server = self._slot.server
        if server.is_stopped:
            return {"pool_sat": None, "attempts": None, "receives": None}
        attempts, receives = await server.lightning_books()
        return {
            "pool_sat": await server.pool.balance_sat(),
            "attempts": [_attempt_json(each) for each in attempts],
            "receives": [_receive_json(each) for each in receives],
        }


def amount_msat(body: Mapping[str, Any]) -> int | None:
    """``amount_msat`` or ``amount_sat`` of a request; None if it has neither. Raises InvalidInput."""
    if "amount_msat" in body:
        return integer(body, "amount_msat", maximum=MAX_MONEY_SAT * 1000)
    if body.get("amount_sat") is not None:
        return integer(body, "amount_sat", maximum=MAX_MONEY_SAT) * 1000
    return None


def _hash32(body: Mapping[str, Any], name: str) -> bytes:
    try:
        data = bytes.fromhex(text(body, name))
    except ValueError:
        data = b""
    if len(data) != 32:
        raise InvalidInput(f"{name} must be 64 hex digits")
    return data


def _reason(reason: FailureReason) -> str | None:
    return None if reason is FailureReason.UNSPECIFIED else reason.name.lower().replace("_", "-")


def _invoice_json(each: OutsideInvoice) -> dict[str, Any]:
    return {
        "payment_hash": each.payment_hash.hex(),
        "invoice": each.text,
        "amount_msat": each.amount_msat,
        "state": each.state,
        "comment": each.comment,
    }


def _payment_json(each: Payment) -> dict[str, Any]:
    return {
        "payment_hash": each.order.payment_hash.hex(),
        "amount_msat": each.order.amount_msat,
        "max_fee_msat": each.order.max_fee_msat,
        "max_cltv_delta": each.order.max_cltv_delta,
        "retry_secs": each.order.retry_secs,
        "expiry_height": each.expiry_height,
        "status": each.state,
        "reason": _reason(each.reason),
    }


def _incoming_json(each: Incoming) -> dict[str, Any]:
    return {
        "payment_hash": each.payment_hash.hex(),
        "amount_msat": each.amount_msat,
        "expiry_height": each.expiry_height,
        "status": each.state,
        "reason": _reason(each.reason),
        "preimage": None if each.preimage is None else each.preimage.hex(),
    }


def _attempt_json(each: Attempt) -> dict[str, Any]:
    return {
        "payment_hash": each.payment_hash.hex(),
        "amount_sat": each.amount_sat,
        "inside": each.subscription is not None,
        "status": each.status.value,
        "reason": _reason(each.reason),
    }


def _receive_json(each: Subscription) -> dict[str, Any]:
    return {
        "payment_hash": each.payment_hash.hex(),
        "amount_sat": each.amount_sat,
        "status": each.status.value,
        "lowest_expiry_height": each.lowest_expiry_height,
    }
