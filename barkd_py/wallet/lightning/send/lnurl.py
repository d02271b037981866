"""Asking an LNURL-pay service for an invoice.

Two requests: the first tells what the service takes, the second brings the invoice. Whose address it is came
from the user, and where the second request goes came from the service; so neither may reach into the network
of this machine. Requests go over TLS (or to an onion service through the proxy) to public addresses, follow
few redirects, read so many bytes and take so long. On regtest services are wherever one likes, without TLS.

The invoice must be over exactly the amount, and if it commits to a description, to that of the service.

Source: LUD-06, LUD-12, LUD-16; protocol sheet 05 §4.1; sheet 07 (SSRF).
"""

import asyncio
import ipaddress
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard
from urllib.parse import quote, urlencode, urljoin, urlsplit

import httpx

from barkd_py.bitcoin.bolt11 import Bolt11Invoice, InvalidInvoice
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.units import Network, format_btc
from barkd_py.chain.http import AnswerTooLong, open_client, parse_json, proxy_for, read_body
from barkd_py.errors import BarkdError, printable

log = logging.getLogger(__name__)

TIMEOUT_SECS = 30.0
# A thumbnail of the payee, in base64, makes up to 136,536 characters of an answer; two are not allowed.
MAX_ANSWER_BYTES = 512 * 1024
MAX_REDIRECTS = 3
_U32_MAX = 2**32 - 1
_U64_MAX = 2**64 - 1

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The IP addresses of a host. Raises OSError."""


class LnurlFailed(BarkdError):
    """There is no invoice; the message or the cause says why. Nothing was paid."""


class ForbiddenUrl(LnurlFailed):
    """A URL that is not asked."""


class AmountOutOfBounds(LnurlFailed):
    """The payee takes more than that, or less. Amounts in msat."""

    def __init__(self, amount_msat: int, minimum_msat: int, maximum_msat: int) -> None:
        super().__init__(
            f"amount of {amount_msat} msat is not within what the payee takes: "
            f"{minimum_msat} to {maximum_msat} msat"
        )


class CommentTooLong(LnurlFailed):
    def __init__(self, allowed: int) -> None:
        super().__init__(f"comment is longer than the {allowed} bytes that the payee takes")


@dataclass(frozen=True, slots=True)
class PayRequest:
    """What a service takes. Amounts in msat. metadata: as sent; invoices commit to it."""

    callback: str
    min_sendable_msat: int
    max_sendable_msat: int
    metadata: str
    comment_allowed: int | None

    @classmethod
    def read(cls, answer: dict[str, Any]) -> "PayRequest":
        """Raises LnurlFailed."""
        match answer.get("tag"):
            case "payRequest":
                pass
            case "withdrawRequest":
                raise LnurlFailed("received lnurl withdraw")
            case "channelRequest":
                raise LnurlFailed("received lnurl channel")
            case _:
                raise _NoAnswer(_reason(answer))
        callback, metadata = answer.get("callback"), answer.get("metadata")
        minimum, maximum = answer.get("minSendable"), answer.get("maxSendable")
        allowed = answer.get("commentAllowed")
        if not isinstance(callback, str) or not isinstance(metadata, str):
            raise _NoAnswer("the answer has no callback or metadata")
        if not _is_number(minimum, _U64_MAX) or not _is_number(maximum, _U64_MAX):
            raise _NoAnswer("the answer has no bounds of the amount")
        if allowed is not None and not _is_number(allowed, _U32_MAX):
            raise _NoAnswer("the answer has a malformed length of comments")
        return cls(callback, minimum, maximum, metadata, allowed)

    def check(self, amount_msat: int, comment: str | None) -> None:
        """Raises AmountOutOfBounds, CommentTooLong."""
        if not self.min_sendable_msat <= amount_msat <= self.max_sendable_msat:
            raise AmountOutOfBounds(amount_msat, self.min_sendable_msat, self.max_sendable_msat)
        if (
            comment is not None
            and self.comment_allowed is not None
            and len(comment.encode()) > self.comment_allowed
        ):
            raise CommentTooLong(self.comment_allowed)

    def invoice_url(self, amount_msat: int, comment: str | None) -> str:
        parameters = {"amount": str(amount_msat)} | ({} if comment is None else {"comment": comment})
        whole, _, _ = self.callback.partition("#")
        return f"{whole}{'&' if '?' in whole else '?'}{urlencode(parameters, quote_via=quote)}"


class LnurlClient:
    """Asks services. transport, resolve: replace the network (tests)."""

    def __init__(
        self,
        network: Network,
        *,
        socks5_proxy: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        resolve: Resolve | None = None,
        timeout_secs: float = TIMEOUT_SECS,
    ) -> None:
        self._is_regtest = network is Network.REGTEST
        self._socks5_proxy = socks5_proxy
        self._transport = transport
        self._resolve = resolve or _resolve
        self._timeout_secs = timeout_secs

    async def request_invoice(self, url: str, amount_sat: int, comment: str | None) -> Bolt11Invoice:
        """An invoice of exactly this amount. Raises LnurlFailed."""
        try:
            async with asyncio.timeout(self._timeout_secs):
                return await self._request_invoice(url, amount_sat, comment)
        except TimeoutError:
            raise LnurlFailed("the payee's service does not answer in time") from None

    async def _request_invoice(self, url: str, amount_sat: int, comment: str | None) -> Bolt11Invoice:
        amount_msat = amount_sat * 1000
        try:
            request = PayRequest.read(await self._get(url))
        except (_NoAnswer, ForbiddenUrl) as error:
            raise LnurlFailed("failed to make lnurl request") from error
        request.check(amount_msat, comment)
        try:
            answer = await self._get(urljoin(url, request.invoice_url(amount_msat, comment)))
            text = answer.get("pr")
            if not isinstance(text, str):
                raise _NoAnswer(_reason(answer))
        except (_NoAnswer, ForbiddenUrl) as error:
            raise LnurlFailed("failed to fetch invoice from lnurlpay") from error
        try:
            invoice = Bolt11Invoice.parse(text)
        except InvalidInvoice as error:
            raise LnurlFailed("received invalid invoice") from error
        verify_invoice(invoice, amount_sat, request.metadata)
        return invoice

    async def _get(self, url: str) -> dict[str, Any]:
        """The JSON object at a URL. Raises _NoAnswer, ForbiddenUrl."""
        for _ in range(MAX_REDIRECTS + 1):
            redirect, body = await self._fetch(url, await self._address_for(url))
            if redirect is None:
                return _json_object(body)
            url = urljoin(url, redirect)
        raise _NoAnswer("too many redirects")

    async def _fetch(self, url: str, address: str | None) -> tuple[str | None, bytes]:
        """Where the answer sends us, or what it is. address: where to connect, whatever the name says now."""
        proxy = None if self._transport is not None else proxy_for(url, self._socks5_proxy)
        try:
            target = httpx.URL(url)
            host = target.netloc.decode("ascii")
            extensions = {} if address is None else {"sni_hostname": target.raw_host.decode("ascii")}
            if address is not None:
                target = target.copy_with(host=address)
            async with (
                open_client(timeout_s=self._timeout_secs, proxy=proxy, transport=self._transport) as client,
                client.stream(
                    "GET", target, headers={"accept": "application/json", "host": host}, extensions=extensions
                ) as response,
            ):
                if response.has_redirect_location:
                    return response.headers["location"], b""
                if not response.is_success:
                    raise _NoAnswer(f"status {response.status_code}")
                return None, await read_body(response, MAX_ANSWER_BYTES)
        except AnswerTooLong:
            raise _NoAnswer("the answer is too long") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise _NoAnswer(f"{type(error).__name__}: {error}") from None

    async def _address_for(self, url: str) -> str | None:
        """A public address of the URL's host; None if somebody else looks it up, or anything is allowed.

        Raises ForbiddenUrl, or _NoAnswer for a host that is not found.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ForbiddenUrl("not a URL") from None
        if not host or parts.username is not None or parts.password is not None:
            raise ForbiddenUrl("not a URL of a service")
        if self._is_regtest and parts.scheme in ("http", "https"):
            return None
        is_onion = host.rstrip(".").endswith(".onion")
        if parts.scheme != "https" and not (is_onion and parts.scheme == "http"):
            raise ForbiddenUrl("only https is allowed")
        if is_onion or (self._socks5_proxy is not None and not _is_ip(host)):
            return None
        try:
            addresses = await self._resolve(host, port or 443)
        except OSError as error:
            raise _NoAnswer(f"{host} is not found: {error}") from None
        if not addresses or not all(_is_public(address) for address in addresses):
            raise ForbiddenUrl("not a public address")
        return addresses[0]


class _NoAnswer(LnurlFailed):
    """No answer that could be used; the text says why."""


def verify_invoice(invoice: Bolt11Invoice, amount_sat: int, metadata: str) -> None:
    """Check that an invoice is over what was asked for. Raises LnurlFailed."""
    wanted = format_btc(amount_sat)
    if invoice.amount_msat is None:
        raise LnurlFailed(f"lnurl-pay endpoint returned an amountless invoice, but we requested {wanted}")
    if invoice.amount_msat != amount_sat * 1000:
        raise LnurlFailed(
            f"lnurl-pay endpoint returned an invoice for {invoice.amount_msat} msat, "
            f"but we requested {wanted} ({amount_sat * 1000} msat)"
        )
    if invoice.description_hash is None:
        log.info("an lnurl-pay service gave an invoice that does not commit to what it is for")
    elif invoice.description_hash != sha256(metadata.encode()):
        raise LnurlFailed("lnurl-pay endpoint returned an invoice that commits to another description")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        answer = parse_json(body)
        json.dumps(answer, ensure_ascii=False).encode()  # half a character in an escape is no text
    except (ValueError, RecursionError):
        raise _NoAnswer("the answer is no JSON") from None
    if not isinstance(answer, dict):
        raise _NoAnswer("the answer is no JSON object")
    return answer


def _reason(answer: dict[str, Any]) -> str:
    """Why a service refuses, in its own words, but few of them."""
    reason = answer.get("reason")
    if answer.get("status") == "ERROR" and isinstance(reason, str):
        return f"the service says: {printable(reason, 200)}"
    return "the answer is none of lnurl-pay"


def _is_number(value: object, maximum: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= maximum


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_global and not (mapped or ip).is_multicast


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
