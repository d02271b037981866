"""What a text names that money can be sent to. Pure; nothing here looks anything up.

First match wins: Ark address, Arkade address (recognised to be refused), BOLT-11 invoice, BOLT-12 offer,
Lightning address, LNURL, bitcoin address. The text is taken as it is: not trimmed, no `lightning:` or
`bitcoin:` prefix. Source: protocol sheet 07 §6.2 (POST wallet/send).
"""

import re
from dataclasses import dataclass
from typing import Final

from barkd_py.ark.address import AddressDefect, ArkAddress, InvalidArkAddress
from barkd_py.bitcoin.address import (
    InvalidAddress,
    WrongNetworkAddress,
    bech32_hrp_expand,
    bech32_polymod,
    bech32_split,
    parse_address,
    to_8_bits,
)
from barkd_py.bitcoin.units import Network

_INVOICE_HRP: Final = re.compile(r"ln(?:bcrt|bc|tbs|tb|sb)(?:[0-9]+[munp]?)?")
_LIGHTNING_ADDRESS: Final = re.compile(
    r"[a-z0-9._+-]+@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?::[0-9]{1,5})?",
    re.IGNORECASE,
)
_BECH32: Final = 1
_CHECKSUM_SYMBOLS: Final = 6
_INVOICE_SYMBOLS_MIN: Final = 7 + 104 + _CHECKSUM_SYMBOLS  # timestamp, signature, checksum


@dataclass(frozen=True, slots=True)
class ArkDestination:
    address: ArkAddress


@dataclass(frozen=True, slots=True)
class ArkadeDestination:
    """An address of another Ark implementation, which this wallet cannot pay."""


@dataclass(frozen=True, slots=True)
class InvoiceDestination:
    """A BOLT-11 invoice by its form; its signature and content are not judged."""

    invoice: str


@dataclass(frozen=True, slots=True)
class OfferDestination:
    offer: str


@dataclass(frozen=True, slots=True)
class LightningAddressDestination:
    address: str


@dataclass(frozen=True, slots=True)
class LnurlDestination:
    """A bech32 LNURL. url: what it stands for."""

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
    try:
        return ArkDestination(ArkAddress.parse(text))
    except InvalidArkAddress as error:
        if error.defect is AddressDefect.ARKADE:
            return ArkadeDestination()
    if is_invoice(text):
        return InvoiceDestination(text)
    if is_offer(text):
        return OfferDestination(text)
    if is_lightning_address(text):
        return LightningAddressDestination(text)
    url = decode_lnurl(text)
    if url is not None:
        return LnurlDestination(text, url)
    try:
        parse_address(text, network)
    except WrongNetworkAddress as error:
        return BitcoinDestination(text, str(error))
    except InvalidAddress:
        return None
    return BitcoinDestination(text, None)


def is_invoice(text: str) -> bool:
    """Whether a text has the form and the checksum of a BOLT-11 invoice."""
    split = bech32_split(text)
    return (
        split is not None
        and len(split[1]) >= _INVOICE_SYMBOLS_MIN
        and _INVOICE_HRP.fullmatch(split[0]) is not None
        and _checksum_fits(*split)
    )


def is_offer(text: str) -> bool:
    """Whether a text has the form of a BOLT-12 offer, which has no checksum. Source: BOLT-12, encoding."""
    joined = re.sub(r"\+\s*", "", text)
    split = bech32_split(joined)
    return split is not None and split[0] == "lno" and bool(split[1])


def is_lightning_address(text: str) -> bool:
    return _LIGHTNING_ADDRESS.fullmatch(text) is not None


def decode_lnurl(text: str) -> str | None:
    """The URL in a bech32 LNURL; None for any other text. Source: LUD-01."""
    split = bech32_split(text)
    if split is None or split[0] != "lnurl" or not _checksum_fits(*split):
        return None
    try:
        url = to_8_bits(split[1][:-_CHECKSUM_SYMBOLS])[0].decode()
    except UnicodeDecodeError:
        return None
    return url if re.match(r"https?://[^/]", url) else None


def _checksum_fits(hrp: str, symbols: list[int]) -> bool:
    return (
        len(symbols) >= _CHECKSUM_SYMBOLS and bech32_polymod([*bech32_hrp_expand(hrp), *symbols]) == _BECH32
    )
