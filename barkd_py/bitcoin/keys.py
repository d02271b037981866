"""Keys of secp256k1, and BIP-340 signatures.

All curve arithmetic is libsecp256k1's. Public keys are points in their 33-byte form, checked on construction;
what is checked once is remembered, because the same few keys appear in every VTXO.

A `SecretKey` never shows its bytes in ``repr`` or ``str``, compares in constant time, and cannot be pickled.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Never

from btclib_secp256k1 import ecdh, keys, ssa, xonly

SECP256K1_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


class InfinityPoint(ValueError):
    """A sum of points is the point at infinity, which is no public key."""


@lru_cache(maxsize=16_384)
def _is_point(data: bytes) -> bool:
    return len(data) == 33 and keys.pubkey_verify(data)


@lru_cache(maxsize=16_384)
def is_x_only(data: bytes) -> bool:
    """Whether 32 bytes are the x coordinate of a point."""
    return len(data) == 32 and xonly.pubkey_verify(data)


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """A point in its 33-byte compressed form; ordered by these bytes. Raises ValueError if it is none."""

    data: bytes

    def __post_init__(self) -> None:
        if not _is_point(self.data):
            raise ValueError("malformed public key")

    @classmethod
    def from_hex(cls, text: str) -> "PublicKey":
        """From 66 hex digits, or the 130 of the uncompressed form. Raises ValueError."""
        if len(text) not in (66, 130):
            raise ValueError("malformed public key")
        try:
            return cls.from_sec(bytes.fromhex(text))
        except ValueError:
            raise ValueError("malformed public key") from None

    @classmethod
    def from_sec(cls, data: bytes) -> "PublicKey":
        """From 33 bytes, or the 65 of the uncompressed form. Raises ValueError."""
        if len(data) == 65:
            return cls(keys.reserialize(data))
        return cls(data)

    @property
    def x_only(self) -> bytes:
        """The x coordinate, 32 bytes."""
        return self.data[1:]

    @property
    def parity(self) -> int:
        """0 if y is even, 1 if it is odd."""
        return self.data[0] & 1

    def add(self, other: "PublicKey") -> "PublicKey":
        """The sum of two points. Raises InfinityPoint."""
        total = keys.pubkey_sum([self.data, other.data])
        if total is None:
            raise InfinityPoint("the sum is the point at infinity")
        return PublicKey(total)

    def subtract(self, other: "PublicKey") -> "PublicKey":
        """The difference of two points. Raises InfinityPoint."""
        return self.add(PublicKey(keys.pubkey_negate(other.data)))

    def hex(self) -> str:
        return self.data.hex()

    def __str__(self) -> str:
        return self.data.hex()

    def __repr__(self) -> str:
        return f"PublicKey({self.data.hex()})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SecretKey:
    """A private key. Raises ValueError if the 32 bytes are not a scalar from 1 to n - 1."""

    secret_bytes: bytes
    _public_key: list[PublicKey] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if len(self.secret_bytes) != 32 or not keys.prvkey_verify(self.secret_bytes):
            raise ValueError("malformed secret key")

    @classmethod
    def generate(cls) -> "SecretKey":
        """A fresh key from the operating system's randomness."""
        while True:
            candidate = secrets.token_bytes(32)
            if keys.prvkey_verify(candidate):
                return cls(candidate)

    @property
    def public_key(self) -> PublicKey:
        if not self._public_key:
            self._public_key.append(PublicKey(keys.pubkey_from_prvkey(self.secret_bytes)))
        return self._public_key[0]

    def sign_schnorr(self, msg32: bytes, aux32: bytes | None = None) -> bytes:
        """A BIP-340 signature, 64 bytes. aux32: fresh randomness unless given, so signatures differ."""
        return ssa.sign(msg32, self.secret_bytes, secrets.token_bytes(32) if aux32 is None else aux32)

    def x_only_tweak_add(self, tweak32: bytes) -> "SecretKey":
        """The secret of the public key's `x_only_tweak_add`: it spends a taproot output by its key path."""
        return SecretKey(xonly.prvkey_tweak_add(self.secret_bytes, tweak32))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretKey) and hmac.compare_digest(self.secret_bytes, other.secret_bytes)

    def __hash__(self) -> int:
        return hash(self.public_key)

    def __repr__(self) -> str:
        return "SecretKey(redacted)"

    def __reduce__(self) -> Never:
        raise TypeError("a secret key is not pickled")


def verify_schnorr(x_only: bytes, msg: bytes, signature: bytes) -> bool:
    """Whether 64 bytes are a BIP-340 signature of the message by the key; False for any malformed part."""
    if len(signature) != 64 or not is_x_only(x_only):
        return False
    return ssa.verify(msg, x_only, signature)


@lru_cache(maxsize=16_384)
def x_only_tweak_add(x_only: bytes, tweak32: bytes) -> PublicKey:
    """``lift_x(x_only) + tweak·G``. Raises ValueError for a tweak ≥ n, or infinity. Source: BIP-341."""
    tweaked, parity = xonly.tweak_add(x_only, tweak32)
    return PublicKey(bytes((2 + parity,)) + tweaked)


def shared_point(secret: SecretKey, public_key: PublicKey) -> PublicKey:
    """The Diffie-Hellman point itself, not its hash: it blinds mailbox ids. Source: sheet 02 §2.3."""
    return PublicKey(ecdh.shared_point(public_key.data, secret.secret_bytes))
