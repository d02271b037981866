"""Lightning offers: reading them strictly.

An offer is a bech32 string without checksum over a stream of TLV records. Records stand in ascending order of
their type; unknown even types make an offer unusable, unknown odd ones are skipped. An offer may ask for an
amount in another currency than bitcoin; then the payer must say how much.

Invoices for offers, and their signatures, are not read here yet.

Source: BOLT-12; protocol sheet 05 §4.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from barkd_py.bitcoin.address import bech32_split, to_8_bits
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.errors import InvalidInput

MAX_VALUE_MSAT = 21_000_000 * 100_000_000 * 1000

_OFFER_TYPES = range(1, 80)
_EXPERIMENTAL_TYPES = range(1_000_000_000, 2_000_000_000)

_CHAINS = 2
_METADATA = 4
_CURRENCY = 6
_AMOUNT = 8
_DESCRIPTION = 10
_FEATURES = 12
_ABSOLUTE_EXPIRY = 14
_PATHS = 16
_ISSUER = 18
_QUANTITY_MAX = 20
_ISSUER_ID = 22
_KNOWN = frozenset(range(_CHAINS, _ISSUER_ID + 1, 2))


class InvalidOffer(InvalidInput):
    """Text that is no offer, or one that nobody could pay."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A valid offer.

    data: the TLV stream, as the server gets it. chains: genesis block hashes in internal order; none is
    mainnet. amount: in millisatoshi, or in the smallest unit of currency (three letters) if there is one.
    issuer_id: the key that signs invoices; if there is none, the last hop of a path signs.
    """

    text: str
    data: bytes
    chains: tuple[bytes, ...]
    currency: str | None
    amount: int | None
    description: str | None
    absolute_expiry: int | None
    issuer: str | None
    issuer_id: PublicKey | None

    @classmethod
    def parse(cls, text: str) -> "Offer":
        """Read an offer. Raises InvalidOffer."""
        data = _bech32_data(text)
        records = dict(_records(data))
        currency = _currency(records.get(_CURRENCY))
        amount = _amount(records.get(_AMOUNT), currency)
        description = _text(records.get(_DESCRIPTION))
        if amount is not None and description is None:
            raise InvalidOffer("offer has an amount but no description")
        _check_payee(records)
        _check_features(records.get(_FEATURES, b""))
        for kind in (_ABSOLUTE_EXPIRY, _QUANTITY_MAX):
            _truncated_u64(records.get(kind))
        return cls(
            text=text,
            data=data,
            chains=_chains(records.get(_CHAINS)),
            currency=currency,
            amount=amount,
            description=description,
            absolute_expiry=_truncated_u64(records.get(_ABSOLUTE_EXPIRY)),
            issuer=_text(records.get(_ISSUER)),
            issuer_id=_point(records[_ISSUER_ID]) if _ISSUER_ID in records else None,
        )

    @property
    def amount_msat(self) -> int | None:
        """The amount asked for, if it is in bitcoin."""
        return self.amount if self.currency is None else None

    @property
    def amount_sat(self) -> int | None:
        """The amount asked for, rounded up, if it is in bitcoin."""
        return None if self.amount_msat is None else -(-self.amount_msat // 1000)

    def is_of(self, genesis_hash: bytes, *, mainnet: bool) -> bool:
        """Whether it can be paid on a chain. genesis_hash: internal order."""
        return genesis_hash in self.chains if self.chains else mainnet

    def __str__(self) -> str:
        return self.text


def _bech32_data(text: str) -> bytes:
    """The bytes of the text; `+` and white space after it may stand between any two characters."""
    first, *more = text.split("+")
    rest = [part.lstrip() for part in more]
    if any(not part or any(character.isspace() for character in part) for part in (first, *rest)):
        raise InvalidOffer("offer is not bech32")
    split = bech32_split("".join((first, *rest)))
    if split is None or split[0] != "lno":
        raise InvalidOffer("offer is not bech32")
    data, left_over, _ = to_8_bits(split[1])
    if left_over > 4:
        raise InvalidOffer("offer has a surplus character")
    return data


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The known records. Raises InvalidOffer for a stream that an offer cannot be."""
    position, previous = 0, -1
    while position < len(data):
        kind, position = _big_size(data, position)
        length, position = _big_size(data, position)
        value = data[position : position + length]
        if len(value) < length:
            raise InvalidOffer("offer ends inside a record")
        position += length
        if kind <= previous:
            raise InvalidOffer("offer records are not in order")
        previous = kind
        if kind not in _OFFER_TYPES and kind not in _EXPERIMENTAL_TYPES:
            raise InvalidOffer(f"offer has a record of type {kind}")
        if kind in _KNOWN:
            yield kind, value
        elif kind % 2 == 0:
            raise InvalidOffer(f"offer has an unknown required record of type {kind}")


def _big_size(data: bytes, position: int) -> tuple[int, int]:
    """A BigSize and the position after it. Source: BOLT-1."""
    if position >= len(data):
        raise InvalidOffer("offer ends inside a record")
    first = data[position]
    if first < 0xFD:
        return first, position + 1
    length, smallest = {0xFD: (2, 0xFD), 0xFE: (4, 0x1_0000), 0xFF: (8, 0x1_0000_0000)}[first]
    encoded = data[position + 1 : position + 1 + length]
    value = int.from_bytes(encoded, "big")
    if len(encoded) < length or value < smallest:
        raise InvalidOffer("offer has a malformed size")
    return value, position + 1 + length


def _truncated_u64(value: bytes | None) -> int | None:
    """A number without leading zero bytes."""
    if value is None:
        return None
    if len(value) > 8 or value[:1] == b"\x00":
        raise InvalidOffer("offer has a malformed number")
    return int.from_bytes(value, "big")


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidOffer("offer has a text that is not UTF-8") from None


def _point(value: bytes) -> PublicKey:
    try:
        return PublicKey(value)
    except ValueError:
        raise InvalidOffer("offer has a malformed public key") from None


def _chains(value: bytes | None) -> tuple[bytes, ...]:
    if value is None:
        return ()
    if not value or len(value) % 32:
        raise InvalidOffer("offer has a malformed chain hash")
    return tuple(value[start : start + 32] for start in range(0, len(value), 32))


def _check_features(value: bytes) -> None:
    """No feature of offers is known; even bits demand one."""
    features = int.from_bytes(value, "big")
    if any(features >> bit & 1 for bit in range(0, features.bit_length(), 2)):
        raise InvalidOffer("offer requires unknown features")


def _currency(value: bytes | None) -> str | None:
    if value is None:
        return None
    if len(value) != 3 or not value.isalpha() or not value.isupper():
        raise InvalidOffer("offer has a malformed currency")
    return value.decode()


def _amount(value: bytes | None, currency: str | None) -> int | None:
    amount = _truncated_u64(value)
    if amount is None:
        if currency is not None:
            raise InvalidOffer("offer has a currency but no amount")
        return None
    if amount == 0 or (currency is None and amount > MAX_VALUE_MSAT):
        raise InvalidOffer("offer has an impossible amount")
    return amount


def _check_payee(records: dict[int, bytes]) -> None:
    """Somebody must be able to sign: a named issuer, or the end of a path."""
    paths = records.get(_PATHS)
    if paths is None:
        if _ISSUER_ID not in records:
            raise InvalidOffer("offer names nobody to pay")
        return
    position = 0
    while position < len(paths):
        position = _skip_path(paths, position)
    if not paths and _ISSUER_ID not in records:
        raise InvalidOffer("offer has no paths")


def _skip_path(paths: bytes, start: int) -> int:
    """Check one blinded path; the position after it. Source: BOLT-4, blinded paths; sheet 05 §4.1."""
    position = start
    if paths[position] in (0, 1):
        position += 9  # direction and short channel id
    else:
        _point(paths[position : position + 33])
        position += 33
    _point(paths[position : position + 33])
    position += 33
    hops = paths[position : position + 1]
    if not hops or hops[0] == 0:
        raise InvalidOffer("offer has a path without hops")
    position += 1
    for _ in range(hops[0]):
        _point(paths[position : position + 33])
        length = int.from_bytes(paths[position + 33 : position + 35], "big")
        position += 35 + length
        if position > len(paths):
            raise InvalidOffer("offer ends inside a path")
    return position
