"""The hash functions of bitcoin.

Source: BIP-340 (tagged hashes); sheet 01 §4.
"""

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def sha256d(data: bytes) -> bytes:
    """SHA-256 twice: transaction ids and block hashes, in internal byte order."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def ripemd160(data: bytes) -> bytes:
    try:
        return hashlib.new("ripemd160", data).digest()
    except ValueError:
        # OpenSSL 3.0.0 to 3.0.6, and builds without the legacy algorithms, lack it.
        from bitcoin.core.contrib.ripemd160 import ripemd160 as ripemd160_in_python

        return bytes(ripemd160_in_python(data))


def hash160(data: bytes) -> bytes:
    """RIPEMD-160 of SHA-256."""
    return ripemd160(sha256(data))


@lru_cache(maxsize=64)
def _tag_midstate(tag: str) -> "_Hash":
    tag_hash = sha256(tag.encode())
    return hashlib.sha256(tag_hash + tag_hash)


def tagged_hash(tag: str, data: bytes) -> bytes:
    """``SHA256(SHA256(tag) ‖ SHA256(tag) ‖ data)``. Source: BIP-340."""
    state = _tag_midstate(tag).copy()
    state.update(data)
    return state.digest()
