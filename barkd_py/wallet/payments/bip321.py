"""`bitcoin:` URIs that name several ways to pay one amount: reading and writing them. Pure.

A URI is an address, which may be missing, and parameters. Those that a wallet must understand begin with
`req-`. Here the address is of mainnet only; addresses of test networks are parameters (`tb`).

Source: BIP-321; protocol sheet 02 §7.5, §7.6.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from barkd_py.ark.address import AddressDefect, ArkAddress, InvalidArkAddress
from barkd_py.bitcoin.address import InvalidAddress, WrongNetworkAddress, parse_address
from barkd_py.bitcoin.bolt11 import Bolt11Invoice, InvalidInvoice
from barkd_py.bitcoin.bolt12 import InvalidOffer, Offer
from barkd_py.bitcoin.script import ScriptType, script_type
from barkd_py.bitcoin.units import MAX_MONEY_SAT, SAT_PER_BTC, Network
from barkd_py.errors import InvalidInput

SCHEME = "bitcoin:"
MAX_AMOUNT_CHARACTERS = 50

# Where a proof of payment must not be sent to: programs that would do something with it.
_UNSAFE_POP_SCHEMES = frozenset(
    {"javascript", "http", "https", "file", "mailto", "ftp", "wss", "ws", "ssh", "tel", "data", "blob"}
)
_AMOUNT = re.compile(r"(?=\.?[0-9])([0-9]*)(?:\.([0-9]{0,8}))?", re.ASCII)
_SEGWIT = (ScriptType.P2WPKH, ScriptType.P2WSH, ScriptType.P2TR)


class InvalidBip321(InvalidInput):
    """Text that is no such URI, or one that must not be used."""


class NotUpperCase(InvalidInput):
    """Written in capitals the URI would say something else."""

    def __init__(self) -> None:
        super().__init__("cannot upper-case the URI: it carries a label, message, or base58 address")


@dataclass(frozen=True, slots=True)
class Instruction:
    """A way to pay that is not understood here. required: whoever does not understand it must not pay."""

    value: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class ArkInstruction:
    """address: None for one of another Ark implementation, which cannot be paid."""

    text: str
    address: ArkAddress | None


@dataclass(frozen=True, slots=True)
class Bip321Uri:
    """address: the one in the body. amount_sat: more than 0. bitcoin, testnet: further addresses.

    custom: parameters of others by their lower-case keys, in order.
    """

    address: str | None = None
    amount_sat: int | None = None
    label: str | None = None
    message: str | None = None
    pop: str | None = None
    invoices: tuple[Bolt11Invoice, ...] = ()
    offers: tuple[Offer, ...] = ()
    silent: tuple[Instruction, ...] = ()
    private: tuple[Instruction, ...] = ()
    bitcoin: tuple[str, ...] = ()
    testnet: tuple[str, ...] = ()
    ark: tuple[ArkInstruction, ...] = ()
    custom: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Bip321Uri":
        """Raises InvalidBip321. White space around the text is passed over."""
        text = text.strip()
        if len(text) < len(SCHEME):
            raise InvalidBip321("uri is too short")
        if text[: len(SCHEME)].lower() != SCHEME:
            raise InvalidBip321("invalid scheme")
        body, _, query = text[len(SCHEME) :].partition("?")
        if body and not _is_address(body, (Network.MAINNET,)):
            raise InvalidBip321(f"invalid bitcoin address: {body}")
        reader = _Reader()
        for piece in filter(None, query.split("&")):
            reader.read(piece)
        uri = reader.uri(body or None)
        if not uri.has_destination:
            raise InvalidBip321("no payment destination: address or payment instruction required")
        return uri

    @property
    def has_destination(self) -> bool:
        return bool(
            self.address
            or self.invoices
            or self.offers
            or self.silent
            or self.private
            or self.bitcoin
            or self.testnet
            or self.ark
        )

    def __str__(self) -> str:
        pairs = "&".join(f"{key}={quote(value, safe='')}" for key, value in self._parameters())
        return f"{SCHEME}{self.address or ''}{'?' if pairs else ''}{pairs}"

    def _parameters(self) -> Iterator[tuple[str, str]]:
        if self.amount_sat is not None:
            yield "amount", amount_text(self.amount_sat)
        for key, value in (("label", self.label), ("message", self.message), ("pop", self.pop)):
            if value is not None:
                yield key, value
        lists: Sequence[tuple[str, Sequence[str]]] = (
            ("lightning", [invoice.text for invoice in self.invoices]),
            ("lno", [offer.text for offer in self.offers]),
            ("sp", [entry.value for entry in self.silent]),
            ("pay", [entry.value for entry in self.private]),
            ("bc", self.bitcoin),
            ("tb", self.testnet),
            ("ark", [entry.text for entry in self.ark]),
        )
        for key, values in lists:
            yield from ((key, value) for value in values)
        yield from sorted(self.custom)

    def upper_case(self) -> str:
        """The whole URI in capitals, for compact QR codes. Raises NotUpperCase."""
        texts = [self.label, self.message, *(value for _, value in self.custom)]
        addresses = [self.address, *self.bitcoin, *self.testnet]
        if (
            self.pop is not None
            or any(text is not None and any(character.islower() for character in text) for text in texts)
            or not all(_is_segwit(address) for address in addresses if address is not None)
        ):
            raise NotUpperCase
        return str(self).upper()


def amount_text(amount_sat: int) -> str:
    """An amount in bitcoin, without zeros at the end."""
    whole, fraction = divmod(amount_sat, SAT_PER_BTC)
    return f"{whole}.{fraction:08}".rstrip("0").rstrip(".")


def parse_amount(text: str) -> int:
    """Satoshis. Raises InvalidBip321."""
    match = _AMOUNT.fullmatch(text) if len(text) <= MAX_AMOUNT_CHARACTERS else None
    if match is None:
        raise InvalidBip321(f"payment instruction parse error on key amount: {text} is no amount")
    whole, fraction = match.groups()
    amount_sat = int(whole or "0") * SAT_PER_BTC + int((fraction or "").ljust(8, "0"))
    if amount_sat == 0:
        raise InvalidBip321("amount must not be zero")
    if amount_sat > MAX_MONEY_SAT:
        raise InvalidBip321("payment instruction parse error on key amount: more than there is")
    return amount_sat


class _Reader:
    """Collects the parameters of one URI."""

    def __init__(self) -> None:
        self._once: dict[str, str] = {}
        self._invoices: list[Bolt11Invoice] = []
        self._offers: list[Offer] = []
        self._instructions: dict[str, list[Instruction]] = {"sp": [], "pay": []}
        self._addresses: dict[str, list[str]] = {"bc": [], "tb": []}
        self._ark: list[ArkInstruction] = []
        self._custom: list[tuple[str, str]] = []

    def read(self, piece: str) -> None:
        name, separator, value = piece.partition("=")
        if not separator:
            raise InvalidBip321(f"malformed parameter: {piece}")
        key = name.lower()
        required = key.startswith("req-")
        key = key.removeprefix("req-")
        match key:
            case "amount" | "label" | "message" | "pop":
                self._read_once(key, value, required)
            case "lightning":
                self._invoices.append(_parsed(key, value))
            case "lno":
                self._offers.append(_parsed_offer(key, value))
            case "sp" | "pay":
                self._instructions[key].append(Instruction(value, required))
            case "bc" | "tb":
                self._addresses[key].append(_checked_address(key, value))
            case "ark":
                self._ark.append(_ark(_decoded(value)))
            case _ if required:
                raise InvalidBip321(f"unsupported required parameter: {key}")
            case _:
                self._custom.append((key, _decoded(value)))

    def _read_once(self, key: str, value: str, required: bool) -> None:
        if key in self._once:
            raise InvalidBip321(f"duplicate parameter: {key}")
        if key != "amount":
            value = _decoded(value)
        if key == "pop" and required and value.partition(":")[0].lower() in _UNSAFE_POP_SCHEMES:
            raise InvalidBip321(f"required scheme in pop URI is not safe: {value}")
        self._once[key] = value

    def uri(self, address: str | None) -> Bip321Uri:
        amount = self._once.get("amount")
        return Bip321Uri(
            address=address,
            amount_sat=None if amount is None else parse_amount(amount),
            label=self._once.get("label"),
            message=self._once.get("message"),
            pop=self._once.get("pop"),
            invoices=tuple(self._invoices),
            offers=tuple(self._offers),
            silent=tuple(self._instructions["sp"]),
            private=tuple(self._instructions["pay"]),
            bitcoin=tuple(self._addresses["bc"]),
            testnet=tuple(self._addresses["tb"]),
            ark=tuple(self._ark),
            custom=tuple(self._custom),
        )


def _decoded(value: str) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise InvalidBip321(f"UTF-8 decode error: {error.reason}") from None


def _parsed(key: str, value: str) -> Bolt11Invoice:
    try:
        return Bolt11Invoice.parse(value)
    except InvalidInvoice as error:
        raise InvalidBip321(f"payment instruction parse error on key {key}: {error}") from None


def _parsed_offer(key: str, value: str) -> Offer:
    try:
        return Offer.parse(value)
    except InvalidOffer as error:
        raise InvalidBip321(f"payment instruction parse error on key {key}: {error}") from None


def _checked_address(key: str, value: str) -> str:
    if not _is_address(value, tuple(Network)):
        raise InvalidBip321(f"payment instruction parse error on key {key}: {value} is no bitcoin address")
    if _is_address(value, (Network.MAINNET,)) != (key == "bc"):
        raise InvalidBip321(f"test address must be valid for the {'Main' if key == 'bc' else 'Test'} network")
    return value


def _is_address(text: str, networks: Sequence[Network]) -> bool:
    for network in networks:
        try:
            parse_address(text, network)
        except (InvalidAddress, WrongNetworkAddress):
            continue
        return True
    return False


def _is_segwit(address: str) -> bool:
    for network in Network:
        try:
            return script_type(parse_address(address, network)) in _SEGWIT
        except (InvalidAddress, WrongNetworkAddress):
            continue
    return False


def _ark(text: str) -> ArkInstruction:
    try:
        return ArkInstruction(text, ArkAddress.parse(text))
    except InvalidArkAddress as error:
        if error.defect is AddressDefect.ARKADE:
            return ArkInstruction(text, None)
        raise InvalidBip321(f"extension error: {error}") from None
