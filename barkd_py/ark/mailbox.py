"""Mailboxes: how a receiver is reached without telling the world which mailbox is theirs.

A mailbox is a key: its public key is the identifier, and reading needs a signature by it, the
`MailboxAuthorization`.
An Ark address carries the identifier *blinded* with the Diffie-Hellman point of the address's own key and the
server's mailbox key. Each address has another key, so outsiders cannot link addresses; the server takes the
blinding off and finds the mailbox.

    receiver:  blinded = mailbox + v·S          v: secret of the address's key, S: server's mailbox key
    server:    mailbox = blinded - s·V          V: the user key of the VTXOs that are posted

The points are added as they are; nothing is hashed.

Source: protocol sheet 02 §2.3, §5.1, §5.2, §6.4.
"""

import enum
from dataclasses import dataclass

from barkd_py.bitcoin import encode
from barkd_py.bitcoin.encode import DecodeError, Reader
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import InfinityPoint, PublicKey, SecretKey, shared_point, verify_schnorr
from barkd_py.errors import ProtocolViolation

# How far a server's clock may be ahead of ours.
AUTHORIZATION_LEEWAY_SECS = 5
MAX_XPUB_AUTHORIZATION_SECS = 600

# What upstream's calendar can represent (years -262143 to 262142); other timestamps do not decode.
MIN_TIMESTAMP = -8_334_601_228_800
MAX_TIMESTAMP = 8_210_266_876_799

_AUTHORIZATION_PREFIX = b"Ark VTXO mailbox authorization: "
_XPUB_AUTHORIZATION_PREFIX = b"Ark xpub recovery authorization:"


class BlindingFailed(ProtocolViolation):
    """The blinded or unblinded identifier would be the point at infinity. Nobody can use such an id."""

    def __init__(self) -> None:
        super().__init__("mailbox blinding produced the point at infinity")


class MailboxType(enum.IntEnum):
    """The kinds of mailbox messages, by the number that servers store."""

    ARKOOR_RECEIVE = 0
    ROUND_PARTICIPATION_COMPLETED = 1
    LN_RECV_PENDING = 2
    RECOVERY_VTXO_ID = 3
    LN_SEND_FINISHED = 4


def decode_mailbox_id(data: bytes) -> PublicKey:
    """33 bytes, a point. Raises DecodeError."""
    return _decode_id(data, "invalid mailbox identifier public key")


def decode_blinded_id(data: bytes) -> PublicKey:
    """33 bytes, a point. Raises DecodeError. Addresses may carry other bytes: check before unblinding."""
    return _decode_id(data, "invalid blinded mailbox identifier public key")


def _decode_id(data: bytes, error_text: str) -> PublicKey:
    reader = Reader(data)
    mailbox_id = _take_id(reader, error_text)
    reader.finish()
    return mailbox_id


def _take_id(reader: Reader, error_text: str) -> PublicKey:
    data = reader.take(33)
    try:
        return PublicKey(data)
    except ValueError as error:
        raise DecodeError.invalid(error_text) from error


# --- blinding


def blind(mailbox_id: PublicKey, *, vtxo_secret: SecretKey, server_mailbox_pubkey: PublicKey) -> PublicKey:
    """The identifier as an address carries it. Raises BlindingFailed."""
    try:
        return mailbox_id.add(shared_point(vtxo_secret, server_mailbox_pubkey))
    except InfinityPoint:
        raise BlindingFailed from None


def unblind(blinded_id: PublicKey, *, vtxo_pubkey: PublicKey, server_mailbox_secret: SecretKey) -> PublicKey:
    """The server's side of `blind`. vtxo_pubkey: the user key of the posted VTXOs. Raises BlindingFailed."""
    try:
        return blinded_id.subtract(shared_point(server_mailbox_secret, vtxo_pubkey))
    except InfinityPoint:
        raise BlindingFailed from None


# --- authorizations


@dataclass(frozen=True, slots=True)
class MailboxAuthorization:
    """Permission to read a mailbox until a time. A bearer token: never log it.

    expiry: Unix seconds. The signature covers only the time; the mailbox key itself binds the mailbox.
    """

    mailbox_id: PublicKey
    expiry: int
    signature: bytes

    @classmethod
    def sign(cls, mailbox_secret: SecretKey, *, expiry: int) -> "MailboxAuthorization":
        signature = mailbox_secret.sign_schnorr(mailbox_authorization_digest(expiry))
        return cls(mailbox_secret.public_key, expiry, signature)

    def encode(self) -> bytes:
        """105 bytes."""
        return self.mailbox_id.data + encode.i64(self.expiry) + self.signature

    @classmethod
    def decode(cls, data: bytes) -> "MailboxAuthorization":
        """Raises DecodeError. The signature is not verified."""
        reader = Reader(data)
        mailbox_id = _take_id(reader, "invalid mailbox identifier public key")
        expiry = _take_timestamp(reader)
        signature = reader.signature()
        reader.finish()
        return cls(mailbox_id, expiry, signature)

    def is_valid_signature(self) -> bool:
        digest = mailbox_authorization_digest(self.expiry)
        return verify_schnorr(self.mailbox_id.x_only, digest, self.signature)

    def is_expired(self, *, now: int) -> bool:
        """now: the server's clock in Unix seconds."""
        return self.expiry < now - AUTHORIZATION_LEEWAY_SECS

    def __repr__(self) -> str:
        return f"MailboxAuthorization(mailbox_id={self.mailbox_id}, expiry={self.expiry}, redacted)"


@dataclass(frozen=True, slots=True)
class XpubRecoveryAuthorization:
    """Permission to look up all VTXOs of an extended public key until a time. A bearer token: never log it.

    expiry: Unix seconds.
    """

    expiry: int
    signature: bytes

    @classmethod
    def sign(
        cls, account_secret: SecretKey, *, server_pubkey: PublicKey, xpub: bytes, expiry: int
    ) -> "XpubRecoveryAuthorization":
        """account_secret: the private key of the extended key. xpub: its 78 bytes."""
        digest = xpub_authorization_digest(server_pubkey=server_pubkey, xpub=xpub, expiry=expiry)
        return cls(expiry, account_secret.sign_schnorr(digest))

    def encode(self) -> bytes:
        """72 bytes."""
        return encode.i64(self.expiry) + self.signature

    @classmethod
    def decode(cls, data: bytes) -> "XpubRecoveryAuthorization":
        """Raises DecodeError. The signature is not verified."""
        reader = Reader(data)
        expiry = _take_timestamp(reader)
        signature = reader.signature()
        reader.finish()
        return cls(expiry, signature)

    def is_valid_signature(self, *, server_pubkey: PublicKey, xpub: bytes) -> bool:
        """xpub: 78 bytes; its last 33 are the key that must have signed."""
        digest = xpub_authorization_digest(server_pubkey=server_pubkey, xpub=xpub, expiry=self.expiry)
        return verify_schnorr(xpub[-32:], digest, self.signature)

    def is_current(self, *, now: int) -> bool:
        """Neither expired nor issued for longer than allowed. now: the server's clock in Unix seconds."""
        latest = now + MAX_XPUB_AUTHORIZATION_SECS + AUTHORIZATION_LEEWAY_SECS
        return now - AUTHORIZATION_LEEWAY_SECS <= self.expiry <= latest

    def __repr__(self) -> str:
        return f"XpubRecoveryAuthorization(expiry={self.expiry}, redacted)"


def mailbox_authorization_digest(expiry: int) -> bytes:
    return sha256(_AUTHORIZATION_PREFIX + encode.i64(expiry))


def xpub_authorization_digest(*, server_pubkey: PublicKey, xpub: bytes, expiry: int) -> bytes:
    return sha256(_XPUB_AUTHORIZATION_PREFIX + server_pubkey.data + xpub + encode.i64(expiry))


def _take_timestamp(reader: Reader) -> int:
    timestamp = reader.i64()
    if not MIN_TIMESTAMP <= timestamp <= MAX_TIMESTAMP:
        raise DecodeError.invalid("invalid timestamp")
    return timestamp
