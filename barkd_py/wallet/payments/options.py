"""Everything that a text may ask for: the ways to pay it, and what is wrong with each. Pure.

This is for people who scan and paste: unlike `request.parse_destination`, which REST uses, it reads
`lightning:`, `lnurlp://` and `bitcoin:` URIs with several ways to pay, and it names a way that cannot be used
instead of passing it over.

Source: protocol sheet 02 §7.3, §7.4; LUD-17.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from barkd_py.ark.address import AddressDefect, ArkAddress, InvalidArkAddress
from barkd_py.bitcoin.address import (
    InvalidAddress,
    WrongNetworkAddress,
    bech32_encode,
    parse_address,
    to_5_bits,
)
from barkd_py.bitcoin.bolt11 import Bolt11Invoice
from barkd_py.bitcoin.bolt12 import Offer
from barkd_py.bitcoin.bolt12_invoice import genesis_hash
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.units import Network, format_btc
from barkd_py.errors import InvalidInput
from barkd_py.wallet.movements import PaymentMethod, PaymentMethodKind
from barkd_py.wallet.payments.bip321 import ArkInstruction, Bip321Uri, InvalidBip321
from barkd_py.wallet.payments.request import (
    MAX_LNURL_CHARACTERS,
    InvoiceDestination,
    LightningAddressDestination,
    LnurlDestination,
    OfferDestination,
    decode_lnurl,
    parse_lightning_destination,
)

_BECH32: Final = 1
_LIGHTNING: Final = "lightning:"
_LNURLP: Final = "lnurlp://"

FOREIGN_SERVER: Final = "Ark address is for different server"
NETWORK_MISMATCH: Final = "network mismatch"
UNSUPPORTED: Final = "unsupported payment option"

_LIGHTNING_KINDS: Final = (
    PaymentMethodKind.INVOICE,
    PaymentMethodKind.OFFER,
    PaymentMethodKind.LIGHTNING_ADDRESS,
    PaymentMethodKind.LNURL,
)
_ON_CHAIN_KINDS: Final = (PaymentMethodKind.BITCOIN, PaymentMethodKind.OUTPUT_SCRIPT)


class InvalidPaymentRequest(InvalidInput):
    """Text that nobody can pay; the cause says why."""

    def __init__(self) -> None:
        super().__init__("Invalid payment request")


@dataclass(frozen=True, slots=True)
class PaymentOption:
    """One way to pay. amount_sat: what it asks for itself. errors: why this wallet cannot use it."""

    method: PaymentMethod
    amount_sat: int | None = None
    errors: tuple[str, ...] = ()

    @property
    def needs_amount(self) -> bool:
        """Whether the payer must say how much."""
        return self.amount_sat is None

    @property
    def takes_comment(self) -> bool:
        return self.method.kind in (PaymentMethodKind.LIGHTNING_ADDRESS, PaymentMethodKind.LNURL)


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """What a text asks for. options: in the order in which they stand in it."""

    options: tuple[PaymentOption, ...]
    amount_sat: int | None = None
    label: str | None = None
    message: str | None = None

    @property
    def default_option(self) -> PaymentOption | None:
        """The best way that works: within Ark, else over Lightning, else on chain."""
        usable = [option for option in self.options if not option.errors]
        for kinds in ((PaymentMethodKind.ARK,), _LIGHTNING_KINDS, _ON_CHAIN_KINDS):
            for option in usable:
                if option.method.kind in kinds:
                    return option
        return None


def parse_payment_request(text: str, network: Network, server_pubkey: PublicKey) -> PaymentRequest:
    """network, server_pubkey: the wallet's own. Raises InvalidPaymentRequest."""
    try:
        return _Parser(network, server_pubkey).parse(text)
    except InvalidInput as error:
        raise InvalidPaymentRequest from error


class _Parser:
    def __init__(self, network: Network, server_pubkey: PublicKey) -> None:
        self._network = network
        self._server_pubkey = server_pubkey

    def parse(self, text: str) -> PaymentRequest:
        """The first reading that fits."""
        lowered = text.lower()
        if lowered.startswith(_LIGHTNING) and not lowered.startswith(f"{_LIGHTNING}//"):
            found = self._lightning(text[len(_LIGHTNING) :])
            if found is None:
                raise InvalidInput("The lightning: URI does not contain a lightning payment destination")
            return found
        try:
            uri = Bip321Uri.parse(text)
        except InvalidBip321:
            pass
        else:
            return self._of_uri(uri)
        for read in (self._lightning, self._lnurlp, self._ark_only, self._on_chain):
            found = read(text)
            if found is not None:
                return found
        raise InvalidInput("No valid payment option found")

    # --- one destination

    def _lightning(self, text: str) -> PaymentRequest | None:
        match parse_lightning_destination(text):
            case InvoiceDestination(invoice):
                described = invoice.description
                if described is None:
                    described = (invoice.description_hash or b"").hex()
                option = self._invoice(invoice)
                return PaymentRequest((option,), invoice.amount_sat, message=described)
            case OfferDestination(offer):
                return PaymentRequest((self._offer(offer),), offer.amount_sat, message=offer.description)
            case LightningAddressDestination(address):
                return _single(PaymentMethodKind.LIGHTNING_ADDRESS, address)
            case LnurlDestination(lnurl, _):
                return _single(PaymentMethodKind.LNURL, lnurl)
            case None:
                return None

    def _lnurlp(self, text: str) -> PaymentRequest | None:
        lnurl = _lnurl_of(text)
        return None if lnurl is None else _single(PaymentMethodKind.LNURL, lnurl)

    def _ark_only(self, text: str) -> PaymentRequest | None:
        try:
            return PaymentRequest((self._ark(ArkInstruction(text, ArkAddress.parse(text))),))
        except InvalidArkAddress as error:
            if error.defect is AddressDefect.ARKADE:
                return PaymentRequest((self._ark(ArkInstruction(text, None)),))
            return None

    def _on_chain(self, text: str) -> PaymentRequest | None:
        option = self._bitcoin(text)
        if option is not None:
            return PaymentRequest((option,))
        try:
            script = bytes.fromhex(text) if not any(map(str.isspace, text)) else None
        except ValueError:
            script = None
        if script is None:
            return None
        method = PaymentMethod(PaymentMethodKind.OUTPUT_SCRIPT, script.hex())
        return PaymentRequest((PaymentOption(method, errors=(UNSUPPORTED,)),))

    # --- several

    def _of_uri(self, uri: Bip321Uri) -> PaymentRequest:
        if any(entry.required for entry in uri.silent):
            raise InvalidInput("Silent payment is required in URI but unsupported on Bark")
        if any(entry.required for entry in uri.private):
            raise InvalidInput("Private payment is required in URI but unsupported on Bark")
        return PaymentRequest(tuple(self._options(uri)), uri.amount_sat, uri.label, uri.message)

    def _options(self, uri: Bip321Uri) -> Iterator[PaymentOption]:
        for address in (*uri.bitcoin, *uri.testnet):
            yield self._known_address(address)
        for invoice in uri.invoices:
            yield self._invoice(invoice, uri.amount_sat)
        for offer in uri.offers:
            yield self._offer(offer, uri.amount_sat)
        for entry in uri.ark:
            yield self._ark(entry)
        if uri.address is not None:
            yield self._known_address(uri.address)

    # --- options

    def _invoice(self, invoice: Bolt11Invoice, wanted_sat: int | None = None) -> PaymentOption:
        errors = () if invoice.is_of(self._network) else (NETWORK_MISMATCH,)
        method = PaymentMethod(PaymentMethodKind.INVOICE, invoice.text)
        return PaymentOption(
            method, invoice.amount_sat, (*errors, *_amount_errors(invoice.amount_sat, wanted_sat))
        )

    def _offer(self, offer: Offer, wanted_sat: int | None = None) -> PaymentOption:
        mainnet = self._network is Network.MAINNET
        is_ours = offer.is_of(genesis_hash(self._network), mainnet=mainnet)
        errors = () if is_ours else (NETWORK_MISMATCH,)
        method = PaymentMethod(PaymentMethodKind.OFFER, offer.text)
        return PaymentOption(
            method, offer.amount_sat, (*errors, *_amount_errors(offer.amount_sat, wanted_sat))
        )

    def _ark(self, entry: ArkInstruction) -> PaymentOption:
        if entry.address is None:
            method = PaymentMethod(PaymentMethodKind.CUSTOM, entry.text)
            return PaymentOption(method, errors=(f"invalid ark address: {FOREIGN_SERVER}",))
        errors: tuple[str, ...] = ()
        try:
            entry.address.validate_for(self._server_pubkey, self._network)
        except InvalidInput as error:
            errors = (f"invalid ark address: {error}",)
        return PaymentOption(PaymentMethod(PaymentMethodKind.ARK, str(entry.address)), errors=errors)

    def _bitcoin(self, address: str) -> PaymentOption | None:
        """None if it is no address at all."""
        errors: tuple[str, ...] = ()
        try:
            parse_address(address, self._network)
        except WrongNetworkAddress:
            errors = (NETWORK_MISMATCH,)
        except InvalidAddress:
            return None
        return PaymentOption(PaymentMethod(PaymentMethodKind.BITCOIN, address), errors=errors)

    def _known_address(self, address: str) -> PaymentOption:
        option = self._bitcoin(address)
        assert option is not None, "a URI holds addresses only"
        return option


def _single(kind: PaymentMethodKind, value: str) -> PaymentRequest:
    return PaymentRequest((PaymentOption(PaymentMethod(kind, value)),))


def _amount_errors(own_sat: int | None, wanted_sat: int | None) -> tuple[str, ...]:
    if own_sat is None or wanted_sat is None or own_sat == wanted_sat:
        return ()
    return (f"amount mismatch: expected {format_btc(own_sat)}, got {format_btc(wanted_sat)}",)


def _lnurl_of(text: str) -> str | None:
    """The bech32 form of a `lnurlp://` link; None for any other text. Source: LUD-17."""
    if not text.lower().startswith(_LNURLP):
        return None
    rest = text[len(_LNURLP) :]
    if rest[:1] in ("", "/", "\\"):
        return None
    try:
        parts = urlsplit(f"https://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or "\\" in host or parts.username is not None or parts.password is not None:
        return None
    scheme = "http" if host.rstrip(".").endswith(".onion") else "https"
    netloc = host if port is None else f"{host}:{port}"
    url = urlunsplit((scheme, netloc, parts.path or "/", parts.query, parts.fragment))
    lnurl = bech32_encode("lnurl", to_5_bits(url.encode()), _BECH32)
    if len(lnurl) > MAX_LNURL_CHARACTERS or decode_lnurl(lnurl) is None:
        return None
    return lnurl
