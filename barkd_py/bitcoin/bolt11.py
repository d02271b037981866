"""Lightning invoices: reading them strictly, and writing them.

An invoice is a bech32 string: network and amount in the human readable part, then a timestamp, tagged fields
and a recoverable signature over all of that. Unknown fields and fields of an unexpected length are skipped,
as the specification demands. What an invoice must have to be payable is checked here too: one payment hash,
one payment secret, one description or description hash, and no feature that we would have to know. Whether it
has expired is the caller's question.

Source: BOLT-11; protocol sheet 05 §4.1.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from btclib_secp256k1 import dsa, recovery

from barkd_py.bitcoin.address import (
    bech32_encode,
    bech32_hrp_expand,
    bech32_polymod,
    bech32_split,
    to_5_bits,
    to_8_bits,
)
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import InvalidInput

MAX_INVOICE_CHARACTERS = 7089
DEFAULT_EXPIRY_SECS = 3600
DEFAULT_MIN_FINAL_CLTV_DELTA = 18

_BECH32 = 1
_CHECKSUM_SYMBOLS = 6
_SIGNATURE_SYMBOLS = 104
_TIMESTAMP_SYMBOLS = 7
_HASH_SYMBOLS = 52
_PUBKEY_SYMBOLS = 53
_MAX_U64 = 2**64 - 1

_HRP = re.compile(r"ln(bcrt|bc|tbs|tb|sb)(?:([0-9]+)([munp]?))?")
# In tenths of a millisatoshi.
_MULTIPLIERS = {"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}

_TAGS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

_VAR_ONION_BIT = 8
_PAYMENT_SECRET_BIT = 14
_BASIC_MPP_BIT = 16
# Each feature has an even bit (required) and the odd one after it (supported).
_KNOWN_REQUIRED_BITS = (_VAR_ONION_BIT, _PAYMENT_SECRET_BIT, _BASIC_MPP_BIT, 48, 56)


class InvalidInvoice(InvalidInput):
    """Text that is no invoice, or one that nobody could pay."""


class Currency(Enum):
    """The network in an invoice, by its prefix."""

    BITCOIN = "bc"
    TESTNET = "tb"
    SIGNET = "tbs"
    REGTEST = "bcrt"
    SIMNET = "sb"

    def is_of(self, network: Network) -> bool:
        """Whether a wallet on this network can pay it. Simulated networks count as regtest."""
        return network in _NETWORKS[self]

    @classmethod
    def of(cls, network: Network) -> "Currency":
        return next(currency for currency in cls if currency.is_of(network))


_NETWORKS = {
    Currency.BITCOIN: (Network.MAINNET,),
    Currency.TESTNET: (Network.TESTNET, Network.TESTNET4),
    Currency.SIGNET: (Network.SIGNET, Network.MUTINYNET),
    Currency.REGTEST: (Network.REGTEST,),
    Currency.SIMNET: (Network.REGTEST,),
}


@dataclass(frozen=True, slots=True)
class Bolt11Invoice:
    """A valid invoice.

    text: in lower case. amount_msat: None if the payer chooses. timestamp: Unix seconds. payment_hash,
    payment_secret: 32 bytes. Of description and description_hash (32 bytes) one is there. payee: the key that
    signed.
    """

    text: str
    currency: Currency
    amount_msat: int | None
    timestamp: int
    payment_hash: bytes
    payment_secret: bytes
    description: str | None
    description_hash: bytes | None
    expiry_secs: int
    min_final_cltv_delta: int
    payee: PublicKey

    @classmethod
    def parse(cls, text: str) -> "Bolt11Invoice":
        """Read an invoice, in upper or lower case. Raises InvalidInvoice."""
        hrp, symbols = _bech32(text)
        currency, amount_msat = _parse_hrp(hrp)
        if len(symbols) < _TIMESTAMP_SYMBOLS + _SIGNATURE_SYMBOLS:
            raise InvalidInvoice("invoice is too short")
        data, signature = symbols[:-_SIGNATURE_SYMBOLS], symbols[-_SIGNATURE_SYMBOLS:]
        fields = list(_tagged_fields(data[_TIMESTAMP_SYMBOLS:]))
        description, description_hash = _description(fields)
        _check_features(fields)
        return cls(
            text=text.lower(),
            currency=currency,
            amount_msat=amount_msat,
            timestamp=_number(data[:_TIMESTAMP_SYMBOLS]),
            payment_hash=_only_hash(fields, "p", "payment hash"),
            payment_secret=_only_hash(fields, "s", "payment secret"),
            description=description,
            description_hash=description_hash,
            expiry_secs=_first_number(fields, "x", DEFAULT_EXPIRY_SECS),
            min_final_cltv_delta=_first_number(fields, "c", DEFAULT_MIN_FINAL_CLTV_DELTA),
            payee=_verify_signature(signing_digest(hrp, data), signature, fields),
        )

    @property
    def expires_at(self) -> int:
        """Unix seconds."""
        return self.timestamp + self.expiry_secs

    @property
    def amount_sat(self) -> int | None:
        """The amount, rounded up."""
        return None if self.amount_msat is None else -(-self.amount_msat // 1000)

    def is_of(self, network: Network) -> bool:
        return self.currency.is_of(network)

    def __str__(self) -> str:
        return self.text


def signing_digest(hrp: str, data: Sequence[int]) -> bytes:
    """What the signature of an invoice is over: 32 bytes. data: 5-bit symbols, padded with zero bits."""
    padded = [*data, *([0] * (-len(data) % 8))]
    whole, _, _ = to_8_bits(padded)
    return sha256(hrp.encode() + whole[: -(-len(data) * 5 // 8)])


def _bech32(text: str) -> tuple[str, list[int]]:
    split = bech32_split(text) if len(text) <= MAX_INVOICE_CHARACTERS else None
    if split is None:
        raise InvalidInvoice("invoice is not bech32")
    hrp, symbols = split
    if len(symbols) < _CHECKSUM_SYMBOLS or bech32_polymod([*bech32_hrp_expand(hrp), *symbols]) != _BECH32:
        raise InvalidInvoice("invoice has a wrong checksum")
    return hrp, symbols[:-_CHECKSUM_SYMBOLS]


def _parse_hrp(hrp: str) -> tuple[Currency, int | None]:
    match = _HRP.fullmatch(hrp)
    if match is None:
        raise InvalidInvoice("invoice has an unknown prefix")
    currency, digits, multiplier = match.groups()
    if digits is None:
        return Currency(currency), None
    tenths = int(digits) * _MULTIPLIERS[multiplier]
    if tenths > _MAX_U64:
        raise InvalidInvoice("invoice amount overflows")
    if tenths % 10:
        raise InvalidInvoice("invoice amount is no whole number of millisatoshi")
    return Currency(currency), tenths // 10


_Field = tuple[str, list[int]]


def _tagged_fields(symbols: list[int]) -> Iterator[_Field]:
    position = 0
    while position < len(symbols):
        header = symbols[position : position + 3]
        if len(header) < 3:
            raise InvalidInvoice("invoice ends inside a field")
        position += 3
        length = header[1] * 32 + header[2]
        value = symbols[position : position + length]
        if len(value) < length:
            raise InvalidInvoice("invoice ends inside a field")
        position += length
        yield _TAGS[header[0]], value


def _values(fields: list[_Field], tag: str, length: int | None = None) -> list[list[int]]:
    """The values of all fields with a tag; those of another length are skipped. length: in symbols."""
    return [value for name, value in fields if name == tag and length in (None, len(value))]


def _only_hash(fields: list[_Field], tag: str, name: str) -> bytes:
    found = _values(fields, tag, _HASH_SYMBOLS)
    if len(found) != 1:
        raise InvalidInvoice(f"invoice needs exactly one {name}")
    return to_8_bits(found[0])[0]


def _description(fields: list[_Field]) -> tuple[str | None, bytes | None]:
    texts = _values(fields, "d")
    hashes = _values(fields, "h", _HASH_SYMBOLS)
    if len(texts) + len(hashes) != 1:
        raise InvalidInvoice("invoice needs exactly one description or description hash")
    if hashes:
        return None, to_8_bits(hashes[0])[0]
    try:
        return to_8_bits(texts[0])[0].decode(), None
    except UnicodeDecodeError:
        raise InvalidInvoice("invoice description is not UTF-8") from None


def _check_features(fields: list[_Field]) -> None:
    found = _values(fields, "9")
    if not found:
        raise InvalidInvoice("invoice has no features")
    features = _number(found[0])
    bits = [bit for bit in range(features.bit_length()) if features >> bit & 1]
    if any(bit % 2 == 0 and bit not in _KNOWN_REQUIRED_BITS for bit in bits):
        raise InvalidInvoice("invoice requires unknown features")
    if not {_PAYMENT_SECRET_BIT, _PAYMENT_SECRET_BIT + 1} & set(bits):
        raise InvalidInvoice("invoice does not support payment secrets")


def _first_number(fields: list[_Field], tag: str, default: int) -> int:
    values = [_number(value) for value in _values(fields, tag)]
    if any(value > _MAX_U64 for value in values):
        raise InvalidInvoice("invoice number overflows")
    return values[0] if values else default


def _number(symbols: Sequence[int]) -> int:
    """Big-endian."""
    number = 0
    for symbol in symbols:
        number = number << 5 | symbol
    return number


def _verify_signature(digest: bytes, symbols: list[int], fields: list[_Field]) -> PublicKey:
    """The key that signed. Raises InvalidInvoice."""
    data = to_8_bits(symbols)[0]
    compact, recovery_id = data[:64], data[64]
    named = _values(fields, "n", _PUBKEY_SYMBOLS)
    try:
        if not named:
            return PublicKey(recovery.recover(digest, compact, recovery_id))
        payee = PublicKey(to_8_bits(named[0])[0])
        recovery.parse_compact(compact, recovery_id)
        verified = dsa.verify(digest, payee.data, compact, compact=True)
    except (ValueError, RuntimeError):
        verified = False
    if not verified:
        raise InvalidInvoice("invoice has an invalid signature")
    return payee


def create_invoice(
    node_secret: SecretKey,
    *,
    network: Network,
    amount_msat: int | None,
    payment_hash: bytes,
    payment_secret: bytes,
    timestamp: int,
    description: str | None = "",
    description_hash: bytes | None = None,
    expiry_secs: int = DEFAULT_EXPIRY_SECS,
    min_final_cltv_delta: int = DEFAULT_MIN_FINAL_CLTV_DELTA,
) -> Bolt11Invoice:
    """Write and sign an invoice, for the nodes of tests and devnet. A description hash replaces the text."""
    described = (
        _field("d", to_5_bits((description or "").encode()))
        if description_hash is None
        else _field("h", to_5_bits(description_hash))
    )
    features = 1 << _VAR_ONION_BIT | 1 << _PAYMENT_SECRET_BIT | 1 << (_BASIC_MPP_BIT + 1)
    hrp = f"ln{Currency.of(network).value}{_amount_text(amount_msat)}"
    data = [
        *_symbols(timestamp, _TIMESTAMP_SYMBOLS),
        *_field("p", to_5_bits(payment_hash)),
        *_field("s", to_5_bits(payment_secret)),
        *described,
        *_field("x", _symbols(expiry_secs)),
        *_field("c", _symbols(min_final_cltv_delta)),
        *_field("9", _symbols(features)),
    ]
    compact, recovery_id = recovery.sign(signing_digest(hrp, data), node_secret.secret_bytes)
    return Bolt11Invoice.parse(
        bech32_encode(hrp, [*data, *to_5_bits(compact + bytes((recovery_id,)))], _BECH32)
    )


def _amount_text(amount_msat: int | None) -> str:
    """The shortest form of an amount."""
    if amount_msat is None:
        return ""
    tenths = amount_msat * 10
    for multiplier, value in _MULTIPLIERS.items():
        if tenths % value == 0:
            return f"{tenths // value}{multiplier}"
    raise AssertionError("the smallest multiplier divides everything")


def _field(tag: str, symbols: Sequence[int]) -> list[int]:
    return [_TAGS.index(tag), *_symbols(len(symbols), 2), *symbols]


def _symbols(value: int, count: int | None = None) -> list[int]:
    """A number in 5-bit symbols, big-endian. count: None for as few as needed."""
    needed = max(1, -(-value.bit_length() // 5)) if count is None else count
    return [value >> 5 * (needed - 1 - index) & 31 for index in range(needed)]
