"""From a destination to an invoice that may be paid, and how much of what the payer said goes into it.

An invoice stands for itself. For an offer the Ark server fetches one, which is then proven to be for that
very offer and amount; for a Lightning address or LNURL the payee's service is asked. Whatever the way, the
network must be the wallet's. Whether an invoice that the payer names has expired is the payee's business:
their node refuses it. One that the server brings for an offer must be fresh: an old one may be paid already,
by somebody else, and the server may have its preimage.

Source: protocol sheet 05 §4.1, §4.2.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from barkd_py.bitcoin.bolt11 import Bolt11Invoice, Currency
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.bolt12_invoice import (
    GENESIS_HASHES,
    Bolt12Invoice,
    InvalidBolt12Invoice,
    UnexpectedBolt12Invoice,
    genesis_hash,
)
from barkd_py.bitcoin.units import Network, format_btc
from barkd_py.errors import BarkdError, ProtocolViolation
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.lightning.send.lnurl import LnurlClient, LnurlFailed
from barkd_py.wallet.movements import PaymentMethod, PaymentMethodKind
from barkd_py.wallet.payments.request import (
    InvoiceDestination,
    LightningAddressDestination,
    LnurlDestination,
    OfferDestination,
)

LightningDestination = InvoiceDestination | OfferDestination | LightningAddressDestination | LnurlDestination
Invoice = Bolt11Invoice | Bolt12Invoice


class WrongInvoiceNetwork(BarkdError):
    """An invoice of another network. Nothing was paid."""

    def __init__(self, network: str) -> None:
        super().__init__(f"Invoice is for wrong network: {network}")


class UserAmountRequired(BarkdError):
    def __init__(self) -> None:
        super().__init__("user amount required")


class InvalidUserAmount(BarkdError):
    """Less than the invoice asks for, or more than twice as much."""

    def __init__(self, invoice_sat: int, user_sat: int) -> None:
        super().__init__(
            f"invalid user amount: invoice={format_btc(invoice_sat)}, user={format_btc(user_sat)}"
        )


class ZeroPayment(BarkdError):
    def __init__(self) -> None:
        super().__init__("Cannot pay invoice for 0 sats (0 sat invoices are not any-amount invoices)")


class OfferCurrency(BarkdError):
    def __init__(self, currency: str) -> None:
        super().__init__(f"offer currency is not supported: {currency}")


class OfferAmountUnknown(BarkdError):
    """The cause says what is missing."""

    def __init__(self) -> None:
        super().__init__("cannot determine the amount to pay for this offer")


class BadOfferInvoice(ProtocolViolation):
    """What the server fetched for an offer is not to be paid; the cause says why."""

    def __init__(self) -> None:
        super().__init__("invalid BOLT12 invoice received from offer")


class ExpiredInvoice(BarkdError):
    def __init__(self) -> None:
        super().__init__("invoice has expired")


class LightningAddressFailed(BarkdError):
    """The cause says why there is no invoice."""

    def __init__(self) -> None:
        super().__init__("lightning address error")


class LnurlPayFailed(BarkdError):
    """The cause says why there is no invoice."""

    def __init__(self) -> None:
        super().__init__("lnurl-pay error")


class CommentNotSupported(BarkdError):
    def __init__(self, kind: str) -> None:
        super().__init__(f"comment is not supported for {kind}")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be paid. user_amount_sat: what the payer said besides. method: what they named."""

    invoice: Invoice
    user_amount_sat: int | None
    method: PaymentMethod

    @property
    def payment_hash(self) -> bytes:
        return self.invoice.payment_hash

    def payable_sat(self, network: Network) -> int:
        """The amount of the payment.

        Raises UserAmountRequired, InvalidUserAmount, WrongInvoiceNetwork, ZeroPayment.
        """
        amount_sat = payment_amount_sat(self.invoice.amount_sat, self.user_amount_sat)
        if not self.invoice.is_of(network):
            raise WrongInvoiceNetwork(_network_name(self.invoice))
        if amount_sat == 0:
            raise ZeroPayment
        return amount_sat


def payment_amount_sat(invoice_sat: int | None, user_sat: int | None) -> int:
    """Raises UserAmountRequired, InvalidUserAmount."""
    if user_sat is None:
        if invoice_sat is None:
            raise UserAmountRequired
        return invoice_sat
    if invoice_sat is not None and not invoice_sat <= user_sat <= 2 * invoice_sat:
        raise InvalidUserAmount(invoice_sat, user_sat)
    return user_sat


def offer_amount_sat(offer: Offer, user_sat: int | None) -> int:
    """What is asked for. Raises OfferAmountUnknown."""
    if user_sat is not None:
        return user_sat
    if offer.currency is not None:
        raise OfferAmountUnknown from OfferCurrency(offer.currency)
    if offer.amount_sat is None:
        raise OfferAmountUnknown from UserAmountRequired()
    return offer.amount_sat


class InvoiceSource:
    """Gets invoices for destinations. now: Unix seconds."""

    def __init__(
        self,
        server: ArkServerApi,
        lnurl: LnurlClient,
        network: Network,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._lnurl = lnurl
        self._network = network
        self._now = now

    async def order(
        self, destination: LightningDestination, amount_sat: int | None, comment: str | None
    ) -> Order:
        """What to pay; nothing is judged that only matters for a new payment.

        Raises CommentNotSupported, OfferAmountUnknown, BadOfferInvoice, WrongInvoiceNetwork,
        UserAmountRequired, LightningAddressFailed, LnurlPayFailed, ServerError.
        """
        match destination:
            case InvoiceDestination(invoice):
                if comment is not None:
                    raise CommentNotSupported("BOLT-11 invoices")
                method = PaymentMethod(PaymentMethodKind.INVOICE, invoice.text)
                return Order(invoice, amount_sat, method)
            case OfferDestination(offer):
                if comment is not None:
                    raise CommentNotSupported("BOLT-12 offers")
                return await self._order_of_offer(offer, amount_sat)
            case LightningAddressDestination(address):
                method = PaymentMethod(PaymentMethodKind.LIGHTNING_ADDRESS, address)
                try:
                    return await self._order_of_service(destination.url, amount_sat, comment, method)
                except LnurlFailed as error:
                    raise LightningAddressFailed from error
            case LnurlDestination(lnurl, url):
                method = PaymentMethod(PaymentMethodKind.LNURL, lnurl)
                try:
                    return await self._order_of_service(url, amount_sat, comment, method)
                except LnurlFailed as error:
                    raise LnurlPayFailed from error
            case _:
                assert_never(destination)

    async def _order_of_offer(self, offer: Offer, amount_sat: int | None) -> Order:
        mainnet = self._network is Network.MAINNET
        if not offer.is_of(genesis_hash(self._network), mainnet=mainnet):
            raise WrongInvoiceNetwork("bitcoin" if not offer.chains else "another one")
        requested_sat = offer_amount_sat(offer, amount_sat)
        if requested_sat == 0:
            raise ZeroPayment
        data = await self._server.fetch_bolt12_invoice(offer.data, amount_sat)
        try:
            invoice = Bolt12Invoice.decode(data)
            invoice.verify(offer, requested_sat * 1000)
        except (InvalidBolt12Invoice, UnexpectedBolt12Invoice) as error:
            raise BadOfferInvoice from error
        if invoice.expires_at <= self._now():
            raise BadOfferInvoice from ExpiredInvoice()
        return Order(invoice, requested_sat, PaymentMethod(PaymentMethodKind.OFFER, offer.text))

    async def _order_of_service(
        self, url: str, amount_sat: int | None, comment: str | None, method: PaymentMethod
    ) -> Order:
        if amount_sat is None:
            raise UserAmountRequired
        if amount_sat == 0:
            raise ZeroPayment
        invoice = await self._lnurl.request_invoice(url, amount_sat, comment)
        return Order(invoice, None, method)


_CURRENCY_NAMES = {
    Currency.BITCOIN: "bitcoin",
    Currency.TESTNET: "testnet",
    Currency.SIGNET: "signet",
    Currency.REGTEST: "regtest",
    Currency.SIMNET: "regtest",
}


def _network_name(invoice: Invoice) -> str:
    if isinstance(invoice, Bolt11Invoice):
        return _CURRENCY_NAMES[invoice.currency]
    for network, chain in GENESIS_HASHES.items():
        if chain == invoice.chain:
            return network.bitcoin_name
    return f"chain {invoice.chain[::-1].hex()}"
