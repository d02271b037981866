"""What a text names that money can be sent to. Pure; nothing here looks anything up.

First match wins: Ark address, Arkade address (recognised to be refused), BOLT-11 invoice, BOLT-12 offer,
Lightning address, LNURL, bitcoin address. The text is taken as it is: not trimmed, no `lightning:` or
`bitcoin:` prefix. An invoice or offer must be valid throughout, signature included, or it is none; whether it
expired, and whether it is of the wallet's network, is judged when it is paid.

Lightning addresses are e-mail addresses, but only those whose parts mean the same in a URL: quoted local
parts, address literals and special characters in domains (which upstream lets through, to fail later) are no
destination here.

Source: protocol sheet 07 §6.2 (POST wallet/send); sheet 02 §7.1, §7.3.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from barkd_py.ark.address import AddressDefect, ArkAddress, InvalidArkAddress
from barkd_py.bitcoin.address import (
    BECH32M_CONST,
    InvalidAddress,
    WrongNetworkAddress,
    bech32_hrp_expand,
    bech32_polymod,
    bech32_split,
    parse_address,
    to_8_bits,
)
from barkd_py.bitcoin.bolt11 import Bolt11Invoice, InvalidInvoice
from barkd_py.bitcoin.bolt12 import InvalidOffer, Offer
from barkd_py.bitcoin.bolt12_invoice import Bolt12Invoice, InvalidBolt12Invoice
from barkd_py.bitcoin.units import Network

_BECH32_CONST: Final = 1
_CHECKSUM_SYMBOLS: Final = 6
MAX_LNURL_CHARACTERS: Final = 1023

MAX_LOCAL_PART_BYTES: Final = 64
MAX_DOMAIN_BYTES: Final = 254
MAX_LABEL_BYTES: Final = 63

# One or more atoms between dots. What is not ASCII is welcome, as in upstream: ₿, say.
_ATOM: Final = r"[\w!#$%&'*+\-/=?^`{|}~\u0080-\U0010ffff]+"
_LOCAL_PART: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# The services of a devnet have ports.
_LOOPBACK: Final = re.compile(r"(?:localhost|127\.0\.0\.1)(?::[0-9]{1,5})?")
_LABEL: Final = re.compile(r"[^\W_](?:[\w-]*[^\W_])?")


@dataclass(frozen=True, slots=True)
class ArkDestination:
    address: ArkAddress


@dataclass(frozen=True, slots=True)
class ArkadeDestination:
    """An address of another Ark implementation, which this wallet cannot pay."""


@dataclass(frozen=True, slots=True)
class InvoiceDestination:
    invoice: Bolt11Invoice


@dataclass(frozen=True, slots=True)
class OfferDestination:
    offer: Offer


@dataclass(frozen=True, slots=True)
class LightningAddressDestination:
    address: str

    @property
    def url(self) -> str:
        """Where to ask for an invoice; without TLS on this very machine. Source: LUD-16."""
        local_part, domain = self.address.rsplit("@", 1)
        scheme = "http" if _LOOPBACK.fullmatch(domain) else "https"
        return f"{scheme}://{domain}/.well-known/lnurlp/{quote(local_part, safe='')}"


@dataclass(frozen=True, slots=True)
class LnurlDestination:
    """A bech32 LNURL. url: what it stands for; not checked to be one."""

    lnurl: str
    url: str


@dataclass(frozen=True, slots=True)
class BitcoinDestination:
    """problem: why the wallet cannot pay it, if it is an address of another network."""

    address: str
    problem: str | None


Destination = (
    ArkDestination
    | ArkadeDestination
    | InvoiceDestination
    | OfferDestination
    | LightningAddressDestination
    | LnurlDestination
    | BitcoinDestination
)


def parse_destination(text: str, network: Network) -> Destination | None:
    """What the text names; None if nothing that could be paid. network: the wallet's own."""
    return _ark_destination(text) or parse_lightning_destination(text) or _bitcoin_destination(text, network)


def parse_lightning_destination(
    text: str,
) -> InvoiceDestination | OfferDestination | LightningAddressDestination | LnurlDestination | None:
    """What the text names that can be paid over Lightning; None for anything else."""
    try:
        return InvoiceDestination(Bolt11Invoice.parse(text))
    except InvalidInvoice:
        pass
    try:
        return OfferDestination(Offer.parse(text))
    except InvalidOffer:
        pass
    if is_lightning_address(text):
        return LightningAddressDestination(text)
    url = decode_lnurl(text)
    return None if url is None else LnurlDestination(text.lower(), url)


def _ark_destination(text: str) -> ArkDestination | ArkadeDestination | None:
    try:
        return ArkDestination(ArkAddress.parse(text))
    except InvalidArkAddress as error:
        return ArkadeDestination() if error.defect is AddressDefect.ARKADE else None


def _bitcoin_destination(text: str, network: Network) -> BitcoinDestination | None:
    try:
        parse_address(text, network)
    except WrongNetworkAddress as error:
        return BitcoinDestination(text, str(error))
    except InvalidAddress:
        return None
    return BitcoinDestination(text, None)


def is_invoice(text: str) -> bool:
    """Whether a text is a valid invoice, of BOLT-11 or (as fetched for an offer) of BOLT-12."""
    with suppress(InvalidInvoice):
        Bolt11Invoice.parse(text)
        return True
    with suppress(InvalidBolt12Invoice):
        Bolt12Invoice.parse(text)
        return True
    return False


def is_lightning_address(text: str) -> bool:
    """Whether a text is an e-mail address that can be a Lightning address."""
    local_part, separator, domain = text.rpartition("@")
    labels = [] if _LOOPBACK.fullmatch(domain) else domain.split(".")
    return (
        bool(separator)
        and len(local_part.encode(errors="replace")) <= MAX_LOCAL_PART_BYTES
        and _LOCAL_PART.fullmatch(local_part) is not None
        and len(domain.encode(errors="replace")) <= MAX_DOMAIN_BYTES
        and all(
            _LABEL.fullmatch(label) is not None and len(label.encode(errors="replace")) <= MAX_LABEL_BYTES
            for label in labels
        )
    )


def decode_lnurl(text: str) -> str | None:
    """The URL in a bech32 (or bech32m) LNURL; None for any other text.

    A URL for logging in is no destination. Source: LUD-01, LUD-04.
    """
    split = bech32_split(text) if len(text) <= MAX_LNURL_CHARACTERS else None
    if split is None:
        return None
    hrp, symbols = split
    if not hrp.startswith("lnurl") or len(symbols) < _CHECKSUM_SYMBOLS:
        return None
    if bech32_polymod([*bech32_hrp_expand(hrp), *symbols]) not in (_BECH32_CONST, BECH32M_CONST):
        return None
    try:
        url = to_8_bits(symbols[:-_CHECKSUM_SYMBOLS])[0].decode()
    except UnicodeDecodeError:
        return None
    return None if "tag=login" in url and "k1=" in url else url
