"""Genesis items: the steps from the on-chain anchor to a VTXO.

Item i describes one exit transaction. Its *transition* says which output the transaction spends and with
which witness; the rest says what else the transaction pays: siblings (the other outputs, without the fee
anchor) and the value of the fee anchor.

    anchor output ── item 0 ──▶ output ── item 1 ──▶ output … ── last item ──▶ the VTXO's output
                      │ siblings           │ siblings

There are three transitions. *Cosigned*: a set of keys signed in advance; after the expiry height the server
may sweep the output. *Arkoor*: user and server signed a payment; the tweak hides the script tree of the spent
output, so nothing but the signature can be checked. *Hash-locked*: the leaf of a round, open to whoever holds
the signature of user and server and the unlock preimage.

Source: sheet 01 §3.3, §3.4, §7, §9.2.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from barkd_py.ark.clause import PREIMAGE_BYTES, SIGNATURE_BYTES, HashLock, TimelockSign
from barkd_py.ark.policy import HarkLeafPolicy
from barkd_py.bitcoin import encode
from barkd_py.bitcoin.encode import MAX_GENESIS_ITEMS, DecodeError, Reader, compact_size, u8, u64
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SECP256K1_ORDER, PublicKey, x_only_tweak_add
from barkd_py.bitcoin.musig import combine
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash, taproot_script_spend_sighash
from barkd_py.bitcoin.taproot import TaprootOutput, leaf_hash
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut, fee_anchor
from barkd_py.errors import ProtocolViolation

MAX_SIBLINGS = 254
"""Their number and the continuing output are counted in one byte."""


# Lengths within an exit transaction: all but outputs and witness, with one byte that counts the outputs; an
# output that continues, which always is taproot; the fee anchor.
_FRAME_BYTES = len(Tx(3, (TxIn(OutPoint(Txid(bytes(32)), 0)),), ()).serialize_without_witness())
_CONTINUING_BYTES = len(TxOut(0, p2tr_script(bytes(32))).to_bytes())
_FEE_ANCHOR_BYTES = len(fee_anchor().to_bytes())


class WrongPreimage(ProtocolViolation):
    """A preimage that does not hash to the unlock hash. It was not used."""

    def __init__(self) -> None:
        super().__init__("the preimage doesn't match the unlock hash")


class TooManyOutputs(DecodeError):
    """A transaction has more siblings than a genesis item can count."""

    def __init__(self) -> None:
        super().__init__(encode.DecodeErrorKind.IO, "I/O error: too many outputs on genesis transaction")


@lru_cache(maxsize=8_192)
def cosigned_taproot(
    pubkeys: tuple[PublicKey, ...], server_pubkey: PublicKey, expiry_height: int
) -> TaprootOutput:
    """The output of keys that cosign, which the server may sweep from the expiry height on.

    server_pubkey: the server's long-term key, also where the keys hold another one of the server's.
    """
    sweep = TimelockSign(server_pubkey, expiry_height)
    return TaprootOutput(combine(pubkeys).x_only, (sweep.script,))


@lru_cache(maxsize=8_192)
def _hark_leaf(
    user_pubkey: PublicKey, unlock_hash: bytes, lock: HashLock, server_pubkey: PublicKey, expiry_height: int
) -> TaprootOutput:
    # The exit delta has no part in this policy.
    return HarkLeafPolicy(user_pubkey, unlock_hash, lock).taproot(server_pubkey, 0, expiry_height)


class _Transition:
    """What the transitions share, and what key spends do."""

    __slots__ = ()
    signature: bytes | None

    def spent_script(self, server_pubkey: PublicKey, expiry_height: int) -> bytes:
        """The script of the output that the exit transaction spends."""
        raise NotImplementedError

    def verify_key(self, server_pubkey: PublicKey, expiry_height: int) -> bytes:
        """The key, 32 bytes, that the signature verifies under."""
        raise NotImplementedError

    def sighash(self, tx: Tx, spent: TxOut, server_pubkey: PublicKey) -> bytes:
        """What the signature of the exit transaction signs, 32 bytes."""
        return taproot_key_spend_sighash(tx, 0, (spent,))

    def witness(self, server_pubkey: PublicKey, expiry_height: int) -> tuple[bytes, ...]:
        """The witness of the exit transaction; empty while something is missing."""
        return () if self.signature is None else (self.signature,)

    @property
    def missing(self) -> str | None:
        """What the witness still lacks, in the words of validation; None if it is complete."""
        return None if self.signature is not None else "missing signature"


@dataclass(frozen=True, slots=True)
class CosignedTransition(_Transition):
    """Keys that signed the exit transaction in advance: a board, or a node of a round's tree.

    pubkeys: at least one, in the order of the encoding, which changes neither keys nor ids.
    """

    pubkeys: tuple[PublicKey, ...]
    signature: bytes | None

    def __post_init__(self) -> None:
        if not self.pubkeys:
            raise ValueError("a cosigned transition needs at least one key")
        _check_signature(self.signature)

    @property
    def kind(self) -> str:
        return "cosigned"

    @property
    def missing(self) -> str | None:
        return None if self.signature is not None else "missing cosigned signature"

    def taproot(self, server_pubkey: PublicKey, expiry_height: int) -> TaprootOutput:
        return cosigned_taproot(self.pubkeys, server_pubkey, expiry_height)

    def spent_script(self, server_pubkey: PublicKey, expiry_height: int) -> bytes:
        return self.taproot(server_pubkey, expiry_height).script_pubkey

    def verify_key(self, server_pubkey: PublicKey, expiry_height: int) -> bytes:
        return self.taproot(server_pubkey, expiry_height).output_key

    def encode(self) -> bytes:
        return b"\x01" + encode.public_keys(self.pubkeys) + encode.optional_signature(self.signature)


@dataclass(frozen=True, slots=True)
class ArkoorTransition(_Transition):
    """A payment that a user and the server signed.

    client_pubkeys: the cosigners without the server; normally one, possibly none. tap_tweak: 32 bytes, the
    tap tweak of the spent output, taken as it is: what it commits to is not known to later holders.
    """

    client_pubkeys: tuple[PublicKey, ...]
    tap_tweak: bytes
    signature: bytes | None

    def __post_init__(self) -> None:
        if len(self.tap_tweak) != 32 or int.from_bytes(self.tap_tweak, "big") >= SECP256K1_ORDER:
            raise ValueError("a tap tweak is a scalar of 32 bytes")
        _check_signature(self.signature)

    @property
    def kind(self) -> str:
        return "arkoor"

    def spent_script(self, server_pubkey: PublicKey, expiry_height: int) -> bytes:
        return p2tr_script(self.verify_key(server_pubkey, expiry_height))

    def verify_key(self, server_pubkey: PublicKey, expiry_height: int) -> bytes:
        internal = combine((*self.client_pubkeys, server_pubkey)).x_only
        return x_only_tweak_add(internal, self.tap_tweak).x_only

    def encode(self) -> bytes:
        return (
            b"\x02"
            + encode.public_keys(self.client_pubkeys)
            + self.tap_tweak
            + encode.optional_signature(self.signature)
        )


@dataclass(frozen=True, slots=True)
class HashLockedTransition(_Transition):
    """The leaf of a round: signed by user and server, and locked to the unlock hash.

    unlock_hash: 32 bytes; preimage: what it is the SHA-256 of, once the round has been paid for.
    """

    user_pubkey: PublicKey
    signature: bytes | None
    unlock_hash: bytes
    preimage: bytes | None = None
    lock: HashLock = HashLock.V1

    def __post_init__(self) -> None:
        if len(self.unlock_hash) != 32:
            raise ValueError("an unlock hash has 32 bytes")
        if self.preimage is not None:
            _check_preimage(self.preimage, self.unlock_hash)
        _check_signature(self.signature)

    @property
    def kind(self) -> str:
        return "hash-locked-cosigned-v1" if self.lock is HashLock.V1 else "hash-locked-cosigned"

    @property
    def missing(self) -> str | None:
        # Callers tell a leaf that is only locked from a broken one by this order.
        if self.preimage is None:
            return "missing preimage"
        return None if self.signature is not None else "missing signature"

    @property
    def policy(self) -> HarkLeafPolicy:
        return HarkLeafPolicy(self.user_pubkey, self.unlock_hash, self.lock)

    def taproot(self, server_pubkey: PublicKey, expiry_height: int) -> TaprootOutput:
        return _hark_leaf(self.user_pubkey, self.unlock_hash, self.lock, server_pubkey, expiry_height)

    def spent_script(self, server_pubkey: PublicKey, expiry_height: int) -> bytes:
        return self.taproot(server_pubkey, expiry_height).script_pubkey

    def unlock_script(self, server_pubkey: PublicKey) -> bytes:
        return self.policy.unlock_clause(server_pubkey).script

    def verify_key(self, server_pubkey: PublicKey, expiry_height: int) -> bytes:
        # The script path: the aggregate key itself, untweaked.
        return combine((self.user_pubkey, server_pubkey)).x_only

    def sighash(self, tx: Tx, spent: TxOut, server_pubkey: PublicKey) -> bytes:
        leaf = leaf_hash(self.unlock_script(server_pubkey))
        return taproot_script_spend_sighash(tx, 0, (spent,), leaf)

    def witness(self, server_pubkey: PublicKey, expiry_height: int) -> tuple[bytes, ...]:
        if self.signature is None or self.preimage is None:
            return ()
        clause = self.policy.unlock_clause(server_pubkey)
        taproot = self.taproot(server_pubkey, expiry_height)
        control_block = taproot.control_block(taproot.leaves.index(clause.script))
        return clause.witness(self.signature, control_block, self.preimage)

    def unlocked(self, preimage: bytes) -> "HashLockedTransition":
        """With the preimage. Raises WrongPreimage."""
        _check_preimage(preimage, self.unlock_hash)
        return replace(self, preimage=preimage)

    def encode(self) -> bytes:
        unlock = b"\x01" + self.unlock_hash if self.preimage is None else b"\x00" + self.preimage
        return (
            (b"\x04" if self.lock is HashLock.V1 else b"\x03")
            + self.user_pubkey.data
            + encode.optional_signature(self.signature)
            + unlock
        )


Transition = CosignedTransition | ArkoorTransition | HashLockedTransition


@dataclass(frozen=True, slots=True)
class GenesisItem:
    """One exit transaction.

    siblings: its outputs without the fee anchor and without the continuing output, which is inserted at
    output_idx. fee_amount_sat: the value of its fee anchor.
    """

    transition: Transition
    output_idx: int = 0
    siblings: tuple[TxOut, ...] = ()
    fee_amount_sat: int = 0

    def __post_init__(self) -> None:
        # Beyond them is the fee anchor, which anybody may spend.
        if not 0 <= self.output_idx <= len(self.siblings):
            raise ValueError("the continuing output must be one of the outputs before the fee anchor")

    @property
    def nb_outputs(self) -> int:
        """How many outputs there are, without the fee anchor."""
        return len(self.siblings) + 1

    @property
    def other_sum_sat(self) -> int:
        """What does not continue: siblings and fee anchor."""
        total = self.fee_amount_sat
        for sibling in self.siblings:
            total += sibling.value_sat
        return total

    def outputs(self, continuing: TxOut, anchor: TxOut) -> tuple[TxOut, ...]:
        """All outputs of the exit transaction; the fee anchor is the last."""
        if not self.siblings:
            return (continuing, anchor)
        index = self.output_idx
        return (*self.siblings[:index], continuing, *self.siblings[index:], anchor)

    def exit_tx_weight_wu(self, server_pubkey: PublicKey, expiry_height: int) -> int:
        """The weight of the exit transaction, which is not built for it: lengths do not depend on keys."""
        length = (
            _FRAME_BYTES
            + len(compact_size(len(self.siblings) + 2))
            - 1
            + sum([len(sibling.to_bytes()) for sibling in self.siblings])
            + _CONTINUING_BYTES
            + _FEE_ANCHOR_BYTES
        )
        witness = self.transition.witness(server_pubkey, expiry_height)
        if not witness:
            return 4 * length
        stack = sum([len(compact_size(len(element))) + len(element) for element in witness])
        return 4 * length + len(b"\x00\x01") + len(compact_size(len(witness))) + stack

    def encode(self) -> bytes:
        """The encoding of version 2. Raises TooManyOutputs."""
        if len(self.siblings) > MAX_SIBLINGS:
            raise TooManyOutputs()
        return b"".join(
            (
                self.transition.encode(),
                u8(self.nb_outputs),
                u8(self.output_idx),
                *(sibling.to_bytes() for sibling in self.siblings),
                u64(self.fee_amount_sat),
            )
        )


def encode_genesis(items: tuple[GenesisItem, ...]) -> bytes:
    """The genesis section in version 2. Raises TooManyOutputs."""
    return compact_size(len(items)) + b"".join(item.encode() for item in items)


def read_genesis(reader: Reader, version: int) -> tuple[GenesisItem, ...]:
    """The genesis section of a VTXO of this encoding version. Raises DecodeError."""
    count = reader.vector_count(MAX_GENESIS_ITEMS)
    return tuple([_read_item(reader, version) for _ in range(count)])


def _read_item(reader: Reader, version: int) -> GenesisItem:
    transition = _read_transition(reader)
    nb_outputs = reader.u8()
    output_idx = reader.u8()
    if nb_outputs == 0:
        raise DecodeError.invalid("genesis item with 0 outputs")
    if output_idx >= nb_outputs:
        raise DecodeError.invalid("genesis item output_idx out of range (>= nb_outputs)")
    siblings = tuple([reader.tx_out() for _ in range(nb_outputs - 1)])
    fee_amount_sat = reader.u64() if version >= 2 else 0
    return GenesisItem(transition, output_idx, siblings, fee_amount_sat)


def _read_transition(reader: Reader) -> Transition:
    tag = reader.u8()
    match tag:
        case 0x01:
            pubkeys = reader.public_keys()
            if not pubkeys:
                raise DecodeError.invalid("cosigned genesis transition with empty pubkey list")
            return CosignedTransition(pubkeys, reader.optional_signature())
        case 0x02:
            client_pubkeys = reader.public_keys()
            tap_tweak = reader.scalar("arkoor genesis tap tweak is not a valid secp256k1 scalar")
            return ArkoorTransition(client_pubkeys, tap_tweak, reader.optional_signature())
        case 0x03 | 0x04:
            return _read_hash_locked(reader, HashLock.V1 if tag == 0x04 else HashLock.V0)
        case _:
            # The misspelling is upstream's.
            raise DecodeError.invalid(f"invalid GenesisTransistion type byte: {tag:#x}")


def _read_hash_locked(reader: Reader, lock: HashLock) -> HashLockedTransition:
    user_pubkey = reader.public_key()
    signature = reader.optional_signature()
    flag = reader.u8()
    match flag:
        case 0x00:
            preimage = reader.take(PREIMAGE_BYTES)
            return HashLockedTransition(user_pubkey, signature, sha256(preimage), preimage, lock)
        case 0x01:
            return HashLockedTransition(user_pubkey, signature, reader.hash32(), None, lock)
        case _:
            raise DecodeError.invalid(f"invalid MaybePreimage type byte: {flag:#x}")


def _check_signature(signature: bytes | None) -> None:
    if signature is not None and len(signature) != SIGNATURE_BYTES:
        raise ValueError("a signature has 64 bytes")


def _check_preimage(preimage: bytes, unlock_hash: bytes) -> None:
    if len(preimage) != PREIMAGE_BYTES or sha256(preimage) != unlock_hash:
        raise WrongPreimage()
