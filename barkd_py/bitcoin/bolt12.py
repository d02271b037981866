"""Lightning offers: reading them strictly.

An offer is a bech32 string without checksum over a stream of TLV records. Records stand in ascending order of
their type; unknown even types make an offer unusable, unknown odd ones are skipped. An offer may ask for an
amount in another currency than bitcoin; then the payer must say how much.

Invoices for offers are in `bolt12_invoice`.

Source: BOLT-12; protocol sheet 05 §4.1.
"""

from dataclasses import dataclass

from barkd_py.bitcoin.address import bech32_split, to_8_bits
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tlv import MalformedTlv, TlvRecord, read_tlv_stream, read_truncated_u64
from barkd_py.bitcoin.units import MAX_MONEY_SAT
from barkd_py.errors import InvalidInput

MAX_VALUE_MSAT = MAX_MONEY_SAT * 1000

_OFFER_TYPES = range(1, 80)
_EXPERIMENTAL_TYPES = range(1_000_000_000, 2_000_000_000)

# The types of records.
CHAINS = 2
METADATA = 4
CURRENCY = 6
AMOUNT = 8
DESCRIPTION = 10
FEATURES = 12
ABSOLUTE_EXPIRY = 14
PATHS = 16
ISSUER = 18
QUANTITY_MAX = 20
ISSUER_ID = 22
_KNOWN = frozenset(range(CHAINS, ISSUER_ID + 1, 2))


class InvalidOffer(InvalidInput):
    """Text that is no offer, or one that nobody could pay."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A valid offer.

    data: the TLV stream, as the server gets it. chains: genesis block hashes in internal order; none is
    mainnet. amount: in millisatoshi, or in the smallest unit of currency (three letters) if there is one.
    issuer_id: the key that signs invoices; if there is none, one of path_ends signs, the last hops of the
    paths to the payee. records: the stream.
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
    path_ends: tuple[PublicKey, ...]
    records: tuple[TlvRecord, ...]

    @classmethod
    def parse(cls, text: str) -> "Offer":
        """Read an offer. Raises InvalidOffer."""
        data = bech32_data(text, "lno")
        stream = _stream(data)
        records = {record.type: record.value for record in stream if record.type in _KNOWN}
        currency = _currency(records.get(CURRENCY))
        amount = _amount(records.get(AMOUNT), currency)
        description = _text(records.get(DESCRIPTION))
        if amount is not None and description is None:
            raise InvalidOffer("offer has an amount but no description")
        path_ends = _path_ends(records)
        _check_features(records.get(FEATURES, b""))
        for kind in (ABSOLUTE_EXPIRY, QUANTITY_MAX):
            _truncated_u64(records.get(kind))
        return cls(
            text=_joined(text).lower(),
            data=data,
            chains=_chains(records.get(CHAINS)),
            currency=currency,
            amount=amount,
            description=description,
            absolute_expiry=_truncated_u64(records.get(ABSOLUTE_EXPIRY)),
            issuer=_text(records.get(ISSUER)),
            issuer_id=_point(records[ISSUER_ID]) if ISSUER_ID in records else None,
            path_ends=path_ends,
            records=stream,
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


def bech32_data(text: str, hrp: str) -> bytes:
    """The bytes of a text without checksum; `+` and white space after it may stand between characters.

    Raises InvalidOffer.
    """
    split = bech32_split(_joined(text))
    if split is None or split[0] != hrp:
        raise InvalidOffer("offer is not bech32")
    data, left_over, _ = to_8_bits(split[1])
    if left_over > 4:
        raise InvalidOffer("offer has a surplus character")
    return data


def _joined(text: str) -> str:
    first, *more = text.split("+")
    rest = [part.lstrip() for part in more]
    if any(not part or any(character.isspace() for character in part) for part in (first, *rest)):
        raise InvalidOffer("offer is not bech32")
    return "".join((first, *rest))


def _stream(data: bytes) -> tuple[TlvRecord, ...]:
    """Raises InvalidOffer for a stream that an offer cannot be."""
    try:
        records = tuple(read_tlv_stream(data))
    except MalformedTlv as error:
        raise InvalidOffer(f"offer is malformed: {error}") from None
    for record in records:
        if not is_offer_type(record.type):
            raise InvalidOffer(f"offer has a record of type {record.type}")
        if record.type not in _KNOWN and record.type % 2 == 0:
            raise InvalidOffer(f"offer has an unknown required record of type {record.type}")
    return records


def is_offer_type(kind: int) -> bool:
    return kind in _OFFER_TYPES or kind in _EXPERIMENTAL_TYPES


def _truncated_u64(value: bytes | None) -> int | None:
    """A number without leading zero bytes."""
    if value is None:
        return None
    try:
        return read_truncated_u64(value)
    except MalformedTlv:
        raise InvalidOffer("offer has a malformed number") from None


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


def _path_ends(records: dict[int, bytes]) -> tuple[PublicKey, ...]:
    """Somebody must be able to sign: a named issuer, or the end of a path."""
    paths = records.get(PATHS)
    if paths is None:
        if ISSUER_ID not in records:
            raise InvalidOffer("offer names nobody to pay")
        return ()
    ends = read_path_ends(paths)
    if not ends and ISSUER_ID not in records:
        raise InvalidOffer("offer has no paths")
    return ends


def read_path_ends(paths: bytes) -> tuple[PublicKey, ...]:
    """The last hops of blinded paths, in their order. Raises InvalidOffer.

    Source: BOLT-4, blinded paths; sheet 05 §4.1.
    """
    ends = []
    position = 0
    while position < len(paths):
        end, position = _read_path(paths, position)
        ends.append(end)
    return tuple(ends)


def _read_path(paths: bytes, start: int) -> tuple[PublicKey, int]:
    """The last hop of one blinded path, and the position after the path."""
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
        end = _point(paths[position : position + 33])
        length = int.from_bytes(paths[position + 33 : position + 35], "big")
        position += 35 + length
        if position > len(paths):
            raise InvalidOffer("offer ends inside a path")
    return end, position
