"""Invoices for offers: reading them strictly, and proving that they are what was asked for.

The Ark server fetches the invoice, so nothing in it can be taken on trust: it must repeat the offer that we
hold, be signed by the key that the offer names (or by the end of one of its paths), and ask for exactly the
amount that was agreed to (`Bolt12Invoice.verify`).

Source: BOLT-12, invoices; protocol sheet 05 §4.1.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from barkd_py.bitcoin.address import CHARSET, to_5_bits
from barkd_py.bitcoin.bolt12 import InvalidOffer, Offer, bech32_data, is_offer_type, read_path_ends
from barkd_py.bitcoin.bolt12_signature import merkle_root, signature_digest
from barkd_py.bitcoin.keys import PublicKey, verify_schnorr
from barkd_py.bitcoin.tlv import MalformedTlv, TlvRecord, read_tlv_stream, read_truncated_u64
from barkd_py.bitcoin.units import Network
from barkd_py.errors import InvalidInput, ProtocolViolation

DEFAULT_EXPIRY_SECS = 7200

CHAIN = 80
REQUESTED_AMOUNT = 82
PATHS = 160
BLINDED_PAY = 162
CREATED_AT = 164
RELATIVE_EXPIRY = 166
PAYMENT_HASH = 168
AMOUNT = 170
FALLBACKS = 172
FEATURES = 174
NODE_ID = 176
MESSAGE_PATHS = 236
SIGNATURE = 240

_KNOWN = frozenset(
    {0, *range(2, 23, 2), CHAIN, REQUESTED_AMOUNT, 84, 86, 88, 90}
    | {PATHS, BLINDED_PAY, CREATED_AT, RELATIVE_EXPIRY, PAYMENT_HASH, AMOUNT, FALLBACKS, FEATURES, NODE_ID}
    | {SIGNATURE}
)
_MULTI_PATH_BIT = 16
# Of one path: fees and limits of 28 bytes, the last two of them the length of the features behind them.
_PAY_INFO_BYTES = 28

GENESIS_HASHES = {
    Network.MAINNET: bytes.fromhex("6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"),
    Network.TESTNET: bytes.fromhex("43497fd7f826957108f4a30fd9cec3aeba79972084e90ead01ea330900000000"),
    Network.TESTNET4: bytes.fromhex("43f08bdab050e35b567c864b91f47f50ae725ae2de53bcfbbaf284da00000000"),
    Network.SIGNET: bytes.fromhex("f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000"),
    Network.REGTEST: bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"),
}
"""Hashes of the first blocks, in internal byte order."""


def genesis_hash(network: Network) -> bytes:
    """Internal byte order. Mutinynet's is that of signet."""
    return GENESIS_HASHES[Network.SIGNET if network is Network.MUTINYNET else network]


class InvalidBolt12Invoice(InvalidInput):
    """Bytes that are no invoice, or one that nobody could pay."""


class UnexpectedBolt12Invoice(ProtocolViolation):
    """An invoice that is not the one that was asked for: it must not be paid."""


@dataclass(frozen=True, slots=True)
class Bolt12Invoice:
    """A well-formed invoice; whether it is signed, and by whom, `verify` tells.

    data: the stream of records. chain: genesis block hash, internal order. payment_hash: 32 bytes.
    created_at: Unix seconds.
    """

    data: bytes
    records: tuple[TlvRecord, ...]
    chain: bytes
    amount_msat: int
    payment_hash: bytes
    created_at: int
    relative_expiry_secs: int
    node_id: PublicKey
    signature: bytes

    @classmethod
    def decode(cls, data: bytes) -> "Bolt12Invoice":
        """Raises InvalidBolt12Invoice."""
        records = _stream(data)
        fields = {record.type: record.value for record in records}
        _check_paths(_required(fields, PATHS), _required(fields, BLINDED_PAY))
        _check_features(fields.get(FEATURES, b""))
        amount_msat = _number(_required(fields, AMOUNT))
        requested = fields.get(REQUESTED_AMOUNT)
        if requested is not None and _number(requested) != amount_msat:
            raise InvalidBolt12Invoice("invoice has another amount than was requested")
        return cls(
            data=data,
            records=records,
            chain=_sized(fields.get(CHAIN, GENESIS_HASHES[Network.MAINNET]), 32, "chain"),
            amount_msat=amount_msat,
            payment_hash=_sized(_required(fields, PAYMENT_HASH), 32, "payment hash"),
            created_at=_number(_required(fields, CREATED_AT)),
            relative_expiry_secs=_expiry(fields.get(RELATIVE_EXPIRY)),
            node_id=_point(_required(fields, NODE_ID)),
            signature=_sized(_required(fields, SIGNATURE), 64, "signature"),
        )

    @classmethod
    def parse(cls, text: str) -> "Bolt12Invoice":
        """From the text form, `lni1…`. Raises InvalidBolt12Invoice."""
        try:
            data = bech32_data(text, "lni")
        except InvalidOffer:
            raise InvalidBolt12Invoice("invoice is not bech32") from None
        return cls.decode(data)

    def __str__(self) -> str:
        return "lni1" + "".join(CHARSET[symbol] for symbol in to_5_bits(self.data))

    @property
    def amount_sat(self) -> int:
        """Rounded up."""
        return -(-self.amount_msat // 1000)

    @property
    def expires_at(self) -> int:
        """Unix seconds."""
        return self.created_at + self.relative_expiry_secs

    def is_of(self, network: Network) -> bool:
        return self.chain == genesis_hash(network)

    def verify(self, offer: Offer, amount_msat: int) -> None:
        """Check that this is the invoice for an offer, over exactly this amount.

        Raises UnexpectedBolt12Invoice.
        """
        signers = (offer.issuer_id,) if offer.issuer_id is not None else offer.path_ends
        if self.node_id not in signers:
            raise UnexpectedBolt12Invoice("public keys mismatch")
        if not self.is_signed():
            raise UnexpectedBolt12Invoice("invalid signature")
        if tuple(record for record in self.records if is_offer_type(record.type)) != offer.records:
            raise UnexpectedBolt12Invoice("invoice is for another offer")
        if self.amount_msat != amount_msat:
            raise UnexpectedBolt12Invoice(
                f"invoice amount doesn't match the requested amount: invoice={self.amount_msat} msat, "
                f"requested={amount_msat} msat"
            )

    def is_signed(self) -> bool:
        """Whether `node_id` signed it."""
        digest = signature_digest("invoice", merkle_root(self.records))
        return verify_schnorr(self.node_id.x_only, digest, self.signature)


def _stream(data: bytes) -> tuple[TlvRecord, ...]:
    try:
        records = tuple(read_tlv_stream(data))
    except MalformedTlv as error:
        raise InvalidBolt12Invoice(f"invoice is malformed: {error}") from None
    for record in records:
        if record.type == MESSAGE_PATHS:
            raise InvalidBolt12Invoice("invoice has message paths")
        if record.type % 2 == 0 and record.type not in _KNOWN:
            raise InvalidBolt12Invoice(f"invoice has an unknown required record of type {record.type}")
    return records


def _required(fields: dict[int, bytes], kind: int) -> bytes:
    if kind not in fields:
        raise InvalidBolt12Invoice(f"invoice has no record of type {kind}")
    return fields[kind]


def _sized(value: bytes, size: int, name: str) -> bytes:
    if len(value) != size:
        raise InvalidBolt12Invoice(f"invoice has a malformed {name}")
    return value


def _number(value: bytes) -> int:
    try:
        return read_truncated_u64(value)
    except MalformedTlv:
        raise InvalidBolt12Invoice("invoice has a malformed number") from None


def _expiry(value: bytes | None) -> int:
    seconds = DEFAULT_EXPIRY_SECS if value is None else _number(value)
    if seconds >= 1 << 32:
        raise InvalidBolt12Invoice("invoice has a malformed number")
    return seconds


def _point(value: bytes) -> PublicKey:
    try:
        return PublicKey(value)
    except ValueError:
        raise InvalidBolt12Invoice("invoice has a malformed public key") from None


def _check_paths(paths: bytes, pay_infos: bytes) -> None:
    try:
        count = len(read_path_ends(paths))
    except InvalidOffer as error:
        raise InvalidBolt12Invoice("invoice has a malformed path") from error
    position = 0
    infos = 0
    while position < len(pay_infos):
        info = pay_infos[position : position + _PAY_INFO_BYTES]
        position += _PAY_INFO_BYTES + int.from_bytes(info[-2:], "big")
        infos += 1
    if position != len(pay_infos):
        raise InvalidBolt12Invoice("invoice ends inside the terms of a path")
    if count == 0 or infos != count:
        raise InvalidBolt12Invoice("invoice needs paths, and terms for each of them")


def _check_features(value: bytes) -> None:
    features = int.from_bytes(value, "big")
    bits: Iterable[int] = range(0, features.bit_length(), 2)
    if any(features >> bit & 1 and bit != _MULTI_PATH_BIT for bit in bits):
        raise InvalidBolt12Invoice("invoice requires unknown features")
