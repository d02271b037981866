"""Mnemonics (BIP-39) and the keys derived from them (BIP-32).

A `Seed` and an `ExtendedKey` hold secrets: neither shows them in ``repr``. The paths that the wallet uses are
the business of the layers above.

Source: BIP-32, BIP-39; sheet 02 §1.
"""

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property
from typing import Never

from bitcoin.base58 import encode as base58_encode
from btclib_secp256k1 import keys

from barkd_py.bitcoin.hashes import hash160, sha256d
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.errors import InvalidInput

HARDENED = 0x8000_0000

_XPUB_VERSION = {True: bytes.fromhex("0488b21e"), False: bytes.fromhex("043587cf")}
_XPRV_VERSION = {True: bytes.fromhex("0488ade4"), False: bytes.fromhex("04358394")}


class InvalidMnemonic(InvalidInput):
    """Words that are not a BIP-39 mnemonic."""


class Seed:
    """A mnemonic and the 64 bytes that it stands for."""

    __slots__ = ("_seed", "_words")

    def __init__(self, words: str) -> None:
        self._words = words
        self._seed = hashlib.pbkdf2_hmac("sha512", words.encode(), b"mnemonic", 2048)

    @property
    def words(self) -> str:
        """The words, joined by single spaces. A secret."""
        return self._words

    @property
    def seed_bytes(self) -> bytes:
        """64 bytes. A secret."""
        return self._seed

    def master_key(self) -> "ExtendedKey":
        return ExtendedKey.from_seed(self._seed)

    def __repr__(self) -> str:
        return "Seed(redacted)"

    def __reduce__(self) -> Never:
        raise TypeError("a seed is not pickled")


def parse_mnemonic(text: str) -> Seed:
    """Read English words separated by any white space. Raises InvalidMnemonic with upstream's text."""
    import bdkpython  # loads a large native library, which most users of this module do not need

    try:
        return Seed(str(bdkpython.Mnemonic.from_string(text)))
    except bdkpython.Bip39Error.UnknownWord as error:
        raise InvalidMnemonic(f"mnemonic contains an unknown word (word {error.index})") from None
    except bdkpython.Bip39Error.BadWordCount as error:
        raise InvalidMnemonic(
            f"mnemonic has an invalid word count: {error.word_count}. "
            "Word count must be 12, 15, 18, 21, or 24"
        ) from None
    except bdkpython.Bip39Error.InvalidChecksum:
        raise InvalidMnemonic("the mnemonic has an invalid checksum") from None
    except bdkpython.Bip39Error:
        raise InvalidMnemonic("the mnemonic is invalid") from None


def generate_mnemonic(words: int = 12) -> Seed:
    """A new mnemonic from the operating system's randomness."""
    import bdkpython

    return Seed(str(bdkpython.Mnemonic(bdkpython.WordCount[f"WORDS{words}"])))


@dataclass(frozen=True, repr=False, eq=False)
class ExtendedKey:
    """A private key with its chain code, and its place in the tree. Not slotted: it remembers a hash."""

    secret_key: SecretKey
    chain_code: bytes
    depth: int = 0
    parent_fingerprint: bytes = bytes(4)
    child_number: int = 0

    @classmethod
    def from_seed(cls, seed: bytes) -> "ExtendedKey":
        digest = hmac.digest(b"Bitcoin seed", seed, "sha512")
        return cls(SecretKey(digest[:32]), digest[32:])

    @property
    def public_key(self) -> PublicKey:
        return self.secret_key.public_key

    @cached_property
    def fingerprint(self) -> bytes:
        """The first 4 bytes of HASH160 of the public key."""
        return hash160(self.public_key.data)[:4]

    def child(self, index: int) -> "ExtendedKey":
        """The child key; hardened from 2^31 on. Raises ValueError for an index without a key."""
        if not 0 <= index <= 0xFFFF_FFFF:
            raise ValueError("a child index has 32 bits")
        parent = b"\x00" + self.secret_key.secret_bytes if index >= HARDENED else self.public_key.data
        digest = hmac.digest(self.chain_code, parent + index.to_bytes(4, "big"), "sha512")
        secret = SecretKey(keys.prvkey_tweak_add(self.secret_key.secret_bytes, digest[:32]))
        return ExtendedKey(secret, digest[32:], self.depth + 1, self.fingerprint, index)

    def derive(self, path: str) -> "ExtendedKey":
        """The key at a path such as ``m/350'/0'/5``, seen from this key. Raises ValueError."""
        head, *steps = path.split("/")
        if head != "m":
            raise ValueError("a derivation path starts with m")
        key = self
        for step in steps:
            number = step.removesuffix("'").removesuffix("h")
            if not (number.isascii() and number.isdecimal()) or int(number) >= HARDENED:
                raise ValueError(f"invalid derivation step: {step}")
            key = key.child(int(number) + (HARDENED if step != number else 0))
        return key

    def xpub_bytes(self, *, mainnet: bool) -> bytes:
        """The public part, 78 bytes."""
        return self._serialize(_XPUB_VERSION[mainnet], self.public_key.data)

    def xpub(self, *, mainnet: bool) -> str:
        return _base58check(self.xpub_bytes(mainnet=mainnet))

    def xprv(self, *, mainnet: bool) -> str:
        """The whole key as text. A secret."""
        return _base58check(self._serialize(_XPRV_VERSION[mainnet], b"\x00" + self.secret_key.secret_bytes))

    def _serialize(self, version: bytes, key: bytes) -> bytes:
        position = bytes((self.depth,)) + self.parent_fingerprint + self.child_number.to_bytes(4, "big")
        return version + position + self.chain_code + key

    def __repr__(self) -> str:
        return f"ExtendedKey(depth={self.depth}, fingerprint={self.fingerprint.hex()}, redacted)"


@dataclass(frozen=True, slots=True)
class ExtendedPublicKey:
    """The public part of an extended key: it finds child keys, and signs nothing."""

    public_key: PublicKey
    chain_code: bytes

    @classmethod
    def parse(cls, data: bytes) -> "ExtendedPublicKey":
        """Read 78 bytes of either network. Raises ValueError."""
        if len(data) != 78 or data[:4] not in _XPUB_VERSION.values():
            raise ValueError("not an extended public key")
        return cls(PublicKey(data[45:]), data[13:45])

    def child(self, index: int) -> PublicKey:
        """The public key of a child. Raises ValueError for a hardened index, or one without a key."""
        if not 0 <= index < HARDENED:
            raise ValueError("only children that are not hardened have a public derivation")
        digest = hmac.digest(self.chain_code, self.public_key.data + index.to_bytes(4, "big"), "sha512")
        return PublicKey(keys.pubkey_tweak_add(self.public_key.data, digest[:32]))


def _base58check(payload: bytes) -> str:
    return str(base58_encode(payload + sha256d(payload)[:4]))
