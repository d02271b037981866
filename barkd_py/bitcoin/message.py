"""Messages signed with a wallet's key.

Source: sheet 02 §4.
"""

from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey, verify_schnorr

_PREFIX = b"bark/message"


def message_digest(message: str) -> bytes:
    """The 32 bytes that are signed."""
    return sha256(_PREFIX + message.encode())


def sign_message(secret_key: SecretKey, message: str, aux32: bytes | None = None) -> bytes:
    """A BIP-340 signature, 64 bytes."""
    return secret_key.sign_schnorr(message_digest(message), aux32)


def verify_message(public_key: PublicKey, message: str, signature: bytes) -> bool:
    """Whether the signature is right. The parity of the key does not matter."""
    return verify_schnorr(public_key.x_only, message_digest(message), signature)
