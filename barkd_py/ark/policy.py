"""Policies: who may spend a VTXO's output, and how that becomes a taproot output.

The key path of every two-party policy is the aggregate of user and server: together they may do anything at
any time. The script leaves (`clauses`) say what one of them may do alone, later. `U` is the user's key, `S`
the server's, `Δ` the exit delta, `E` the expiry height:

    pubkey               U after Δ
    server-htlc-send     S with the preimage after Δ          | U from the HTLC's expiry on, after 2Δ
    server-htlc-receive  U with the preimage after its delta+Δ | S from the HTLC's expiry on, after Δ
    checkpoint, expiry   S from E on
    hark-leaf            S from E on                           | U and S together, with the unlock preimage
    hark-forfeit         S with the unlock preimage            | U after Δ
    server-owned         no leaves; the key is S alone

Users hold VTXOs of the first three kinds (`Policy`); the others appear on outputs inside exit chains and in
the server's books (`ServerPolicy`).

Source: sheet 01 §6.
"""

from dataclasses import dataclass
from typing import ClassVar

from barkd_py.ark.clause import (
    Clause,
    DelayedSign,
    DelayedTimelockSign,
    HashDelaySign,
    HashLock,
    HashSign,
    TimelockSign,
)
from barkd_py.bitcoin.encode import DecodeError, Reader, u16, u32
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.musig import combine
from barkd_py.bitcoin.taproot import TaprootOutput

MAX_DELTA = 16_383
"""Four deltas add up to at most 65 535, the largest relative lock."""

MAX_HEIGHT = 499_934_467
"""A height and four deltas stay below 500 000 000, where locktimes become timestamps."""


class _Policy:
    """What all policies share."""

    __slots__ = ()
    TAG: ClassVar[int]
    KIND: ClassVar[str]

    @property
    def tag(self) -> int:
        """The first byte of the encoding."""
        return self.TAG

    @property
    def kind(self) -> str:
        """The name in JSON."""
        return self.KIND

    def clauses(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> tuple[Clause, ...]:
        """The script leaves, in the order in which signers try them; leaf i of the taproot is clause i."""
        raise NotImplementedError

    def internal_key(self, server_pubkey: PublicKey) -> bytes:
        """The taproot output's internal key, 32 bytes."""
        raise NotImplementedError

    def taproot(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> TaprootOutput:
        """The output that this policy locks to."""
        clauses = self.clauses(server_pubkey, exit_delta, expiry_height)
        return TaprootOutput(self.internal_key(server_pubkey), tuple(clause.script for clause in clauses))


@dataclass(frozen=True, slots=True)
class _UserKeyPolicy(_Policy):
    """A policy between one user and the server."""

    user_pubkey: PublicKey

    def internal_key(self, server_pubkey: PublicKey) -> bytes:
        return combine((self.user_pubkey, server_pubkey)).x_only

    def encode_body(self) -> bytes:
        return self.user_pubkey.data


@dataclass(frozen=True, slots=True)
class PubkeyPolicy(_UserKeyPolicy):
    """An ordinary coin."""

    TAG = 0x00
    KIND = "pubkey"

    def clauses(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> tuple[Clause, ...]:
        return (DelayedSign(self.user_pubkey, exit_delta),)


@dataclass(frozen=True, slots=True)
class _HtlcPolicy(_UserKeyPolicy):
    payment_hash: bytes
    htlc_expiry_height: int

    def __post_init__(self) -> None:
        _check_length("payment_hash", self.payment_hash)
        _check_range("htlc_expiry", self.htlc_expiry_height, MAX_HEIGHT)

    def encode_body(self) -> bytes:
        return self.user_pubkey.data + self.payment_hash + u32(self.htlc_expiry_height)


@dataclass(frozen=True, slots=True)
class ServerHtlcSendPolicy(_HtlcPolicy):
    """The user pays over Lightning: the server takes the coin with the preimage, or the user gets it back."""

    lock: HashLock = HashLock.V1

    @property
    def tag(self) -> int:
        return 0x09 if self.lock is HashLock.V1 else 0x01

    @property
    def kind(self) -> str:
        return "server-htlc-send-v1" if self.lock is HashLock.V1 else "server-htlc-send"

    def clauses(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> tuple[Clause, ...]:
        return (
            HashDelaySign(server_pubkey, self.payment_hash, exit_delta, self.lock),
            DelayedTimelockSign(self.user_pubkey, self.htlc_expiry_height, 2 * exit_delta),
        )


@dataclass(frozen=True, slots=True)
class ServerHtlcReceivePolicy(_HtlcPolicy):
    """The user is paid over Lightning: they take the coin with the preimage, or the server gets it back."""

    htlc_expiry_delta: int
    lock: HashLock = HashLock.V1

    def __post_init__(self) -> None:
        _HtlcPolicy.__post_init__(self)
        _check_range("htlc_expiry_delta", self.htlc_expiry_delta, MAX_DELTA)

    @property
    def tag(self) -> int:
        return 0x08 if self.lock is HashLock.V1 else 0x02

    @property
    def kind(self) -> str:
        return "server-htlc-receive-v1" if self.lock is HashLock.V1 else "server-htlc-receive"

    def clauses(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> tuple[Clause, ...]:
        claim_delta = self.htlc_expiry_delta + exit_delta
        return (
            HashDelaySign(self.user_pubkey, self.payment_hash, claim_delta, self.lock),
            DelayedTimelockSign(server_pubkey, self.htlc_expiry_height, exit_delta),
        )

    def encode_body(self) -> bytes:
        return _HtlcPolicy.encode_body(self) + u16(self.htlc_expiry_delta)


@dataclass(frozen=True, slots=True)
class CheckpointPolicy(_UserKeyPolicy):
    """The output between a spent VTXO and the new ones of an out-of-round payment."""

    TAG = 0x03
    KIND = "checkpoint"

    def clauses(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> tuple[Clause, ...]:
        return (TimelockSign(server_pubkey, expiry_height),)


@dataclass(frozen=True, slots=True)
class ExpiryPolicy(_Policy):
    """An output that any set of keys cosigned and that the server may sweep; key: its internal key."""

    TAG = 0x04
    KIND = "expiry"
    key: bytes

    @property
    def user_pubkey(self) -> None:
        return None

    def internal_key(self, server_pubkey: PublicKey) -> bytes:
        return self.key

    def clauses(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> tuple[Clause, ...]:
        return (TimelockSign(server_pubkey, expiry_height),)

    def encode_body(self) -> bytes:
        return self.key


@dataclass(frozen=True, slots=True)
class _UnlockHashPolicy(_UserKeyPolicy):
    unlock_hash: bytes
    lock: HashLock = HashLock.V1

    def __post_init__(self) -> None:
        _check_length("unlock_hash", self.unlock_hash)

    def encode_body(self) -> bytes:
        return self.user_pubkey.data + self.unlock_hash


@dataclass(frozen=True, slots=True)
class HarkLeafPolicy(_UnlockHashPolicy):
    """The output above a round's leaf, which the unlock preimage opens."""

    @property
    def tag(self) -> int:
        return 0x0A if self.lock is HashLock.V1 else 0x05

    @property
    def kind(self) -> str:
        return "hark-leaf-v1" if self.lock is HashLock.V1 else "hark-leaf"

    def unlock_clause(self, server_pubkey: PublicKey) -> HashSign:
        """The leaf through which the round's coin is reached."""
        return HashSign(combine((self.user_pubkey, server_pubkey)), self.unlock_hash, self.lock)

    def clauses(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> tuple[Clause, ...]:
        return (TimelockSign(server_pubkey, expiry_height), self.unlock_clause(server_pubkey))


@dataclass(frozen=True, slots=True)
class HarkForfeitPolicy(_UnlockHashPolicy):
    """A forfeited coin: the server's with the unlock preimage, which gives the user the new one."""

    @property
    def tag(self) -> int:
        return 0x0B if self.lock is HashLock.V1 else 0x06

    @property
    def kind(self) -> str:
        return "hark-forfeit-v1" if self.lock is HashLock.V1 else "hark-forfeit"

    def clauses(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> tuple[Clause, ...]:
        return (
            HashSign(server_pubkey, self.unlock_hash, self.lock),
            DelayedSign(self.user_pubkey, exit_delta),
        )


@dataclass(frozen=True, slots=True)
class ServerOwnedPolicy(_Policy):
    """The server's own coin."""

    TAG = 0x07
    KIND = "server-owned"

    @property
    def user_pubkey(self) -> None:
        return None

    def internal_key(self, server_pubkey: PublicKey) -> bytes:
        return server_pubkey.x_only

    def clauses(self, server_pubkey: PublicKey, exit_delta: int, expiry_height: int) -> tuple[Clause, ...]:
        return ()

    def encode_body(self) -> bytes:
        return b""


Policy = PubkeyPolicy | ServerHtlcSendPolicy | ServerHtlcReceivePolicy
"""What users hold."""

ServerPolicy = (
    Policy | CheckpointPolicy | ExpiryPolicy | HarkLeafPolicy | HarkForfeitPolicy | ServerOwnedPolicy
)
"""What any output in an exit chain, or in the server's books, can be."""


def encode_policy(policy: ServerPolicy) -> bytes:
    """The tag byte and the fields."""
    return bytes((policy.tag,)) + policy.encode_body()


def decode_policy(data: bytes) -> Policy:
    """A user's policy from exactly its bytes. Raises DecodeError."""
    reader = Reader(data)
    policy = read_policy(reader)
    reader.finish()
    return policy


def decode_server_policy(data: bytes) -> ServerPolicy:
    """Any policy from exactly its bytes. Raises DecodeError."""
    reader = Reader(data)
    policy = read_server_policy(reader)
    reader.finish()
    return policy


def read_policy(reader: Reader) -> Policy:
    """A user's policy at the reader's position. Raises DecodeError."""
    tag = reader.u8()
    policy = _read_user_policy(reader, tag)
    if policy is None:
        raise DecodeError.invalid(f"invalid VtxoPolicy type byte: {tag:#x}")
    return policy


def read_server_policy(reader: Reader) -> ServerPolicy:
    """Any policy at the reader's position. Raises DecodeError."""
    tag = reader.u8()
    match tag:
        case 0x03:
            return CheckpointPolicy(reader.public_key())
        case 0x04:
            return ExpiryPolicy(reader.x_only_public_key())
        case 0x05 | 0x0A:
            lock = HashLock.V1 if tag == 0x0A else HashLock.V0
            return HarkLeafPolicy(reader.public_key(), reader.hash32(), lock)
        case 0x06 | 0x0B:
            lock = HashLock.V1 if tag == 0x0B else HashLock.V0
            return HarkForfeitPolicy(reader.public_key(), reader.hash32(), lock)
        case 0x07:
            return ServerOwnedPolicy()
        case _:
            policy = _read_user_policy(reader, tag)
    if policy is None:
        raise DecodeError.invalid(f"invalid ServerVtxoPolicy type byte: {tag:#x}")
    return policy


def _read_user_policy(reader: Reader, tag: int) -> Policy | None:
    match tag:
        case 0x00:
            return PubkeyPolicy(reader.public_key())
        case 0x01 | 0x09:
            lock = HashLock.V1 if tag == 0x09 else HashLock.V0
            return ServerHtlcSendPolicy(
                reader.public_key(), reader.hash32(), read_height(reader, "htlc_expiry"), lock
            )
        case 0x02 | 0x08:
            lock = HashLock.V1 if tag == 0x08 else HashLock.V0
            return ServerHtlcReceivePolicy(
                reader.public_key(),
                reader.hash32(),
                read_height(reader, "htlc_expiry"),
                read_delta(reader, "htlc_expiry_delta"),
                lock,
            )
        case _:
            return None


def read_height(reader: Reader, field: str) -> int:
    """A block height. Raises DecodeError with the field's name if it is too high."""
    height = reader.u32()
    if height > MAX_HEIGHT:
        raise DecodeError.invalid(field, "invalid policy data: block height exceeds maximum value")
    return height


def read_delta(reader: Reader, field: str) -> int:
    """A number of blocks. Raises DecodeError with the field's name if it is too high."""
    delta = reader.u16()
    if delta > MAX_DELTA:
        raise DecodeError.invalid(field, "invalid policy data: block delta exceeds maximum value")
    return delta


def _check_range(field: str, value: int, maximum: int) -> None:
    if not 0 <= value <= maximum:
        raise ValueError(f"{field} is out of range: {value}")


def _check_length(field: str, value: bytes) -> None:
    if len(value) != 32:
        raise ValueError(f"{field} has 32 bytes, not {len(value)}")
