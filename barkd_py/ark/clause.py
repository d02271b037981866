"""Clauses: the script leaves behind Ark's outputs, and the witnesses that satisfy them.

Each clause lets one key spend, after a relative delay (counted from the confirmation of the output), from an
absolute height on, or with a preimage, and combinations of these. A clause says what the spending input and
transaction must look like (`sequence`, `locktime`) and how its witness is stacked.

The hash locks come in two versions. The old one (V0) accepts a preimage of any length; the current one
(V1) insists on 32 bytes. V0 is read and spent, and never newly made.

Source: sheet 01 §5, §6.3; BIP-65, BIP-112, BIP-341.
"""

from dataclasses import dataclass
from enum import Enum

from barkd_py.bitcoin.encode import compact_size
from barkd_py.bitcoin.hashes import ripemd160
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.script import (
    CHECKSIG,
    CLTV,
    CSV,
    DROP,
    EQUALVERIFY,
    HASH160,
    SIZE,
    push_data,
    push_int,
)

PREIMAGE_BYTES = 32
SIGNATURE_BYTES = 64


class HashLock(Enum):
    """The two forms of a hash lock; V1 checks the size of the preimage."""

    V0 = 0
    V1 = 1


def _hash_lock(lock: HashLock, hash32: bytes) -> bytes:
    """HASH160 of the preimage equals RIPEMD-160 of its SHA-256, which is `hash32`."""
    size_check = SIZE + push_int(PREIMAGE_BYTES) + EQUALVERIFY if lock is HashLock.V1 else b""
    return size_check + HASH160 + push_data(ripemd160(hash32)) + EQUALVERIFY


def _check_sig(pubkey: PublicKey) -> bytes:
    return push_data(pubkey.x_only) + CHECKSIG


def _delay(delta: int) -> bytes:
    return push_int(delta) + CSV + DROP


def _height(height: int) -> bytes:
    return push_int(height) + CLTV + DROP


class _Clause:
    """What all clauses share."""

    __slots__ = ()

    @property
    def script(self) -> bytes:
        raise NotImplementedError

    @property
    def sequence(self) -> int | None:
        """What the spending input's sequence must be; None if any but the final one will do."""
        return None

    @property
    def locktime(self) -> int | None:
        """The least locktime of the spending transaction, if the clause demands one."""
        return None

    @property
    def hash(self) -> bytes | None:
        """The SHA-256, 32 bytes, whose preimage the witness needs, if it needs one."""
        return None

    def witness(
        self, signature: bytes, control_block: bytes, preimage: bytes | None = None
    ) -> tuple[bytes, ...]:
        """The witness stack. Raises ValueError unless there is a preimage just where one is needed."""
        if (preimage is None) != (self.hash is None):
            raise ValueError("a preimage belongs to a hash lock, and to nothing else")
        return (signature, *(() if preimage is None else (preimage,)), self.script, control_block)

    def witness_size(self, control_block: bytes) -> int:
        """The size of the whole witness, in bytes, which is also its weight."""
        items = [SIGNATURE_BYTES, len(self.script), len(control_block)]
        if self.hash is not None:
            items.append(PREIMAGE_BYTES)
        return len(compact_size(len(items))) + sum(len(compact_size(size)) + size for size in items)


@dataclass(frozen=True, slots=True)
class DelayedSign(_Clause):
    """The key, `delta` blocks after the output confirmed."""

    pubkey: PublicKey
    delta: int

    @property
    def script(self) -> bytes:
        return _delay(self.delta) + _check_sig(self.pubkey)

    @property
    def sequence(self) -> int:
        return self.delta


@dataclass(frozen=True, slots=True)
class TimelockSign(_Clause):
    """The key, from a height on."""

    pubkey: PublicKey
    height: int

    @property
    def script(self) -> bytes:
        return _height(self.height) + _check_sig(self.pubkey)

    @property
    def locktime(self) -> int:
        return self.height


@dataclass(frozen=True, slots=True)
class DelayedTimelockSign(_Clause):
    """The key, from a height on and `delta` blocks after the output confirmed."""

    pubkey: PublicKey
    height: int
    delta: int

    @property
    def script(self) -> bytes:
        return _height(self.height) + _delay(self.delta) + _check_sig(self.pubkey)

    @property
    def sequence(self) -> int:
        return self.delta

    @property
    def locktime(self) -> int:
        return self.height


@dataclass(frozen=True, slots=True)
class HashDelaySign(_Clause):
    """The key with the preimage of `payment_hash`, `delta` blocks after the output confirmed."""

    pubkey: PublicKey
    payment_hash: bytes
    delta: int
    lock: HashLock = HashLock.V1

    @property
    def script(self) -> bytes:
        return _delay(self.delta) + _hash_lock(self.lock, self.payment_hash) + _check_sig(self.pubkey)

    @property
    def sequence(self) -> int:
        return self.delta

    @property
    def hash(self) -> bytes:
        return self.payment_hash


@dataclass(frozen=True, slots=True)
class HashSign(_Clause):
    """The key with the preimage of `unlock_hash`. Wallets never sign it alone: the key is an aggregate."""

    pubkey: PublicKey
    unlock_hash: bytes
    lock: HashLock = HashLock.V1

    @property
    def script(self) -> bytes:
        return _hash_lock(self.lock, self.unlock_hash) + _check_sig(self.pubkey)

    @property
    def hash(self) -> bytes:
        return self.unlock_hash


Clause = DelayedSign | TimelockSign | DelayedTimelockSign | HashDelaySign | HashSign
