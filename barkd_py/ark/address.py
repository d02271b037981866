"""Ark addresses: to whom an out-of-round payment goes, and where to leave it.

An address is a bech32m string with one 5-bit version symbol and a payload: a hint which server (4 bytes of a
hash of its key), the policy that the payment locks to, and any number of ways to deliver it. The only way in
use is the server's mailbox, addressed by a blinded identifier. Kinds of delivery that we do not know are kept
as they are. Version 0 belongs to another implementation (Arkade), and is recognised to be refused.

Several strings mean the same address: left-over bits of the last symbols are ignored. Compare decoded
addresses, never their text.

Source: protocol sheet 02 §2.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.ark.mailbox import BlindingFailed, blind
from barkd_py.ark.policy import Policy, PubkeyPolicy, decode_policy, encode_policy
from barkd_py.bitcoin.address import (
    BECH32M_CONST,
    bech32_encode,
    bech32_hrp_expand,
    bech32_polymod,
    bech32_split,
    to_5_bits,
    to_8_bits,
)
from barkd_py.bitcoin.encode import MAX_VECTOR_BYTES, DecodeError, Reader, compact_size
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.units import Network
from barkd_py.errors import BarkdError, InvalidInput

MAX_ADDRESS_CHARACTERS = 1023
MAX_HRP_CHARACTERS = 83

MAINNET_HRP = "ark"
TESTNET_HRP = "tark"

_VERSION_ARKADE = 0
_VERSION_POLICY = 1
_DELIVERY_MAILBOX = 0x01
_BLINDED_ID_BYTES = 33
_CHECKSUM_SYMBOLS = 6
_SYMBOL_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


class AddressDefect(enum.Enum):
    """What is wrong with the text."""

    BECH32 = "bech32"
    HRP = "hrp"
    ARKADE = "arkade"
    UNKNOWN_VERSION = "unknown-version"
    TOO_SHORT = "too-short"
    POLICY = "policy"
    INVALID = "invalid"


class InvalidArkAddress(InvalidInput):
    """Text that is no Ark address that we can use."""

    def __init__(self, defect: AddressDefect, message: str) -> None:
        super().__init__(message)
        self.defect = defect


class AddressNotPayable(InvalidInput):
    """A well-formed address that cannot be paid from this wallet."""


class AddressBuildError(BarkdError):
    """An address cannot be built from these parts."""

    def __init__(self, message: str) -> None:
        super().__init__(f"error building address: {message}")


@dataclass(frozen=True, slots=True)
class MailboxDelivery:
    """Leave it in the server's mailbox.

    blinded_id: 33 bytes, not checked to be a point (the server does that).
    """

    blinded_id: bytes

    def __post_init__(self) -> None:
        if len(self.blinded_id) != _BLINDED_ID_BYTES:
            raise InvalidArkAddress(AddressDefect.INVALID, "invalid address")

    def encode(self) -> bytes:
        return bytes((_DELIVERY_MAILBOX,)) + self.blinded_id


@dataclass(frozen=True, slots=True)
class UnknownDelivery:
    """A kind of delivery that we do not know, kept as it is. kind: one byte other than 1."""

    kind: int
    data: bytes

    def encode(self) -> bytes:
        return bytes((self.kind,)) + self.data


Delivery = MailboxDelivery | UnknownDelivery


@dataclass(frozen=True, slots=True)
class ArkAddress:
    """A decoded address; equal addresses are equal values, whatever their text was.

    ark_id: 4 bytes, a hint to the server. It is too short to prove anything: VTXOs are always built with the
    server key that we know ourselves. deliveries: in order of preference; none means that the payee fetches
    the payment by other means.
    """

    is_testnet: bool
    ark_id: bytes
    policy: Policy
    deliveries: tuple[Delivery, ...] = ()

    @classmethod
    def build(
        cls, *, server_pubkey: PublicKey, policy: Policy, deliveries: Sequence[Delivery], network: Network
    ) -> "ArkAddress":
        """An address of ours. Raises AddressBuildError without a delivery: nobody would find the payment."""
        if not deliveries:
            raise AddressBuildError("missing delivery mechanism")
        return cls(not network.is_mainnet, ark_id(server_pubkey), policy, tuple(deliveries))

    @classmethod
    def for_vtxo_key(
        cls,
        vtxo_secret: SecretKey,
        *,
        server_pubkey: PublicKey,
        server_mailbox_pubkey: PublicKey,
        mailbox_id: PublicKey,
        network: Network,
    ) -> "ArkAddress":
        """The address that receives to a key of ours, delivered to our mailbox.

        The two server keys differ, and a mix-up would go unnoticed until payments vanish. Raises
        AddressBuildError.
        """
        policy = PubkeyPolicy(vtxo_secret.public_key)
        delivery = mailbox_delivery(
            policy, vtxo_secret, server_mailbox_pubkey=server_mailbox_pubkey, mailbox_id=mailbox_id
        )
        return cls.build(server_pubkey=server_pubkey, policy=policy, deliveries=(delivery,), network=network)

    @classmethod
    def parse(cls, text: str) -> "ArkAddress":
        """Raises InvalidArkAddress; its defect tells Arkade addresses apart from nonsense."""
        hrp, symbols = _bech32m(text)
        if not symbols:
            raise InvalidArkAddress(AddressDefect.INVALID, "invalid address")
        match symbols[0]:
            case 1:
                payload, _, _ = to_8_bits(symbols[1:])
                return cls._decode_payload(payload, is_testnet=hrp == TESTNET_HRP)
            case 0:
                raise InvalidArkAddress(
                    AddressDefect.ARKADE, "address is an Arkade address and cannot be used here"
                )
            case version:
                raise InvalidArkAddress(
                    AddressDefect.UNKNOWN_VERSION, f"unknown version: '{_SYMBOL_CHARACTERS[version]}'"
                )

    @classmethod
    def _decode_payload(cls, payload: bytes, *, is_testnet: bool) -> "ArkAddress":
        if len(payload) < 4:
            raise _too_short()
        reader = Reader(payload)
        server_hint = reader.take(4)
        policy = _decode_policy(_take_record(reader, payload))
        deliveries = []
        while reader.remaining:
            deliveries.append(_decode_delivery(_take_record(reader, payload)))
        return cls(is_testnet, server_hint, policy, tuple(deliveries))

    def payload(self) -> bytes:
        """What the text carries after the version symbol."""
        records = (encode_policy(self.policy), *(delivery.encode() for delivery in self.deliveries))
        return self.ark_id + b"".join(compact_size(len(record)) + record for record in records)

    def encode(self) -> str:
        """The canonical text, in lower case."""
        hrp = TESTNET_HRP if self.is_testnet else MAINNET_HRP
        return bech32_encode(hrp, [_VERSION_POLICY, *to_5_bits(self.payload())], BECH32M_CONST)

    def __str__(self) -> str:
        return self.encode()

    @property
    def user_pubkey(self) -> PublicKey:
        """The payee's key."""
        return self.policy.user_pubkey

    def mailbox_ids(self) -> tuple[bytes, ...]:
        """Blinded ids of all mailboxes to post to, in order."""
        return tuple(
            delivery.blinded_id for delivery in self.deliveries if isinstance(delivery, MailboxDelivery)
        )

    def validate_for(self, server_pubkey: PublicKey, network: Network) -> None:
        """Check that a wallet of this server and network can pay it. Raises AddressNotPayable."""
        if self.is_testnet == network.is_mainnet:
            raise AddressNotPayable("Ark address is for different network")
        if self.ark_id != ark_id(server_pubkey):
            raise AddressNotPayable("Ark address is for different server")
        if not isinstance(self.policy, PubkeyPolicy):
            raise AddressNotPayable(
                f"VTXO policy in address cannot be used for arkoor payment: {self.policy.kind}"
            )
        if self.deliveries and not self.mailbox_ids():
            unknown = "; ".join(
                f"type=0x{delivery.kind:x}, data={delivery.data.hex()}"
                for delivery in self.deliveries
                if isinstance(delivery, UnknownDelivery)
            )
            raise AddressNotPayable(f"Unknown delivery mechanism: {unknown}")


def ark_id(server_pubkey: PublicKey) -> bytes:
    """4 bytes that hint at the server."""
    return sha256(server_pubkey.data)[:4]


def mailbox_delivery(
    policy: Policy, vtxo_secret: SecretKey, *, server_mailbox_pubkey: PublicKey, mailbox_id: PublicKey
) -> MailboxDelivery:
    """Delivery of payments under a policy to our mailbox, blinded with the policy's own key.

    Raises AddressBuildError if the key is not the policy's: the server could not unblind.
    """
    if policy.user_pubkey != vtxo_secret.public_key:
        raise AddressBuildError("VTXO key does not match policy")
    try:
        blinded = blind(mailbox_id, vtxo_secret=vtxo_secret, server_mailbox_pubkey=server_mailbox_pubkey)
    except BlindingFailed as error:
        raise AddressBuildError("mailbox blinding failed: point at infinity") from error
    return MailboxDelivery(blinded.data)


def _bech32m(text: str) -> tuple[str, list[int]]:
    """The human readable part and the data symbols, checked in upstream's order."""
    split = bech32_split(text)
    if split is None or len(split[0]) > MAX_HRP_CHARACTERS:
        raise _bech32_error("parsing failed")
    hrp, symbols = split
    if hrp not in (MAINNET_HRP, TESTNET_HRP):
        raise InvalidArkAddress(AddressDefect.HRP, f"invalid HRP: '{hrp}'")
    if (
        len(text) > MAX_ADDRESS_CHARACTERS
        or len(symbols) < _CHECKSUM_SYMBOLS
        or bech32_polymod([*bech32_hrp_expand(hrp), *symbols]) != BECH32M_CONST
    ):
        raise _bech32_error("no valid bech32 or bech32m checksum")
    return hrp, symbols[:-_CHECKSUM_SYMBOLS]


def _take_record(reader: Reader, payload: bytes) -> bytes:
    """A compact size and as many bytes."""
    size_bytes = {0xFD: 3, 0xFE: 5, 0xFF: 9}.get(payload[reader.position], 1) if reader.remaining else 1
    if reader.remaining < size_bytes:
        raise _too_short()
    try:
        length = reader.compact_size()
    except DecodeError as error:  # not in its shortest form
        raise InvalidArkAddress(AddressDefect.INVALID, "invalid address") from error
    if length > MAX_VECTOR_BYTES:
        raise InvalidArkAddress(AddressDefect.INVALID, "invalid address")
    if length > reader.remaining:
        raise _too_short()
    return reader.take(length)


def _decode_policy(data: bytes) -> Policy:
    try:
        return decode_policy(data)
    except DecodeError as error:
        raise InvalidArkAddress(AddressDefect.POLICY, "invalid or unknown VTXO policy") from error


def _decode_delivery(record: bytes) -> Delivery:
    if not record:
        raise _too_short()
    kind, data = record[0], record[1:]
    return MailboxDelivery(data) if kind == _DELIVERY_MAILBOX else UnknownDelivery(kind, data)


def _too_short() -> InvalidArkAddress:
    return InvalidArkAddress(AddressDefect.TOO_SHORT, "invalid encoding: unexpected end of bytes")


def _bech32_error(detail: str) -> InvalidArkAddress:
    return InvalidArkAddress(AddressDefect.BECH32, f"bech32m decoding error: {detail}")
