"""An LNURL-pay service with Lightning addresses, served by the control API.

Every name has an address: ``NAME@host:port``. How one behaves is set with POST /lightning/address.

Source: LUD-06, LUD-12, LUD-16.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from barkd_py.bitcoin.address import bech32_encode, to_5_bits
from barkd_py.bitcoin.hashes import sha256
from barkd_py.devnet.lightning import rows
from barkd_py.devnet.lightning.behaviour import Behaviour
from barkd_py.devnet.lightning.outside import InvoiceTerms, Outside
from barkd_py.devnet.request_body import integer, json_body, text
from barkd_py.errors import InvalidInput

_BECH32 = 1
_MAX_MSAT = 10**14
_MAX_COMMENT = 2000


@dataclass(frozen=True, slots=True)
class AddressTerms:
    """How an address answers. error: instead of an invoice. answer_msat: what invoices ask for, whatever was
    wanted. tag: what it says that it is.
    """

    min_sendable_msat: int = 1_000
    max_sendable_msat: int = 10**11
    comment_allowed: int | None = 140
    error: str | None = None
    answer_msat: int | None = None
    tag: str = "payRequest"
    behaviour: Behaviour = field(default=Behaviour())

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "AddressTerms":
        """Raises InvalidInput."""
        default = cls()
        comment = (
            integer(body, "comment_allowed", maximum=_MAX_COMMENT) if body.get("comment_allowed") else None
        )
        return cls(
            min_sendable_msat=integer(
                body, "min_sendable_msat", maximum=_MAX_MSAT, default=default.min_sendable_msat
            ),
            max_sendable_msat=integer(
                body, "max_sendable_msat", maximum=_MAX_MSAT, default=default.max_sendable_msat
            ),
            comment_allowed=comment if "comment_allowed" in body else default.comment_allowed,
            error=text(body, "error") if "error" in body else None,
            answer_msat=integer(body, "answer_msat", maximum=_MAX_MSAT) if "answer_msat" in body else None,
            tag=text(body, "tag") if "tag" in body else default.tag,
            behaviour=Behaviour.from_json(body),
        )


_ADDRESS = ("name", *AddressTerms.__dataclass_fields__, *Behaviour.__dataclass_fields__)


def lnurl_routes(outside: Outside) -> Sequence[BaseRoute]:
    service = _Service(outside)
    return (
        Route("/lightning/address", service.configure, methods=["POST"]),
        Route("/.well-known/lnurlp/{name}", service.ask, methods=["GET"]),
        Route("/lnurlp/{name}", service.ask, methods=["GET"]),
        Route("/lnurlp/{name}/callback", service.invoice, methods=["GET"]),
    )


class _Service:
    """The handlers."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def configure(self, request: Request) -> Response:
        body = await json_body(request, _ADDRESS)
        name = text(body, "name")
        if not name.isidentifier() or not name.islower():
            raise InvalidInput("name must be one lower-case word")
        AddressTerms.from_json(body)
        config = json.dumps({**body, "name": name})
        store = self._outside.store
        await store.transact(partial(rows.put_address, name=name, config=config))
        return JSONResponse(_names(request, name))

    async def _terms(self, name: str) -> AddressTerms:
        config = await self._outside.store.transact(partial(rows.find_address, name=name))
        return AddressTerms() if config is None else AddressTerms.from_json(json.loads(config))

    async def ask(self, request: Request) -> Response:
        name = request.path_params["name"]
        terms = await self._terms(name)
        answer: dict[str, Any] = {
            "tag": terms.tag,
            "callback": f"{_base(request)}/lnurlp/{name}/callback",
            "minSendable": terms.min_sendable_msat,
            "maxSendable": terms.max_sendable_msat,
            "metadata": _metadata(request, name),
        }
        if terms.comment_allowed is not None:
            answer["commentAllowed"] = terms.comment_allowed
        return JSONResponse(answer)

    async def invoice(self, request: Request) -> Response:
        name = request.path_params["name"]
        terms = await self._terms(name)
        comment = request.query_params.get("comment")
        try:
            amount_msat = int(request.query_params.get("amount", ""))
        except ValueError:
            return _refusal("amount is missing")
        if terms.error is not None:
            return _refusal(terms.error)
        if not terms.min_sendable_msat <= amount_msat <= terms.max_sendable_msat:
            return _refusal("amount is out of bounds")
        if comment is not None and len(comment) > (terms.comment_allowed or 0):
            return _refusal("comment is too long")
        invoice = await self._outside.invoice(
            InvoiceTerms(
                amount_msat=terms.answer_msat or amount_msat,
                description_hash=sha256(_metadata(request, name).encode()),
                comment=comment,
            ),
            terms.behaviour,
        )
        return JSONResponse({"pr": invoice.text, "routes": []})


def _refusal(reason: str) -> Response:
    return JSONResponse({"status": "ERROR", "reason": reason})


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _metadata(request: Request, name: str) -> str:
    return json.dumps(
        [["text/plain", f"Pay {name}"], ["text/identifier", f"{name}@{request.base_url.netloc}"]]
    )


def _names(request: Request, name: str) -> dict[str, str]:
    """How the service is called: as an address, and as a text that holds its URL."""
    url = f"{_base(request)}/lnurlp/{name}"
    return {
        "address": f"{name}@{request.base_url.netloc}",
        "lnurl": bech32_encode("lnurl", to_5_bits(url.encode()), _BECH32),
    }
