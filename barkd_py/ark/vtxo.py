"""The VTXO: an output of a transaction that need never reach the chain.

A VTXO names its on-chain anchor, the steps from there (the genesis), and the policy of its own output. From
these alone the whole chain of exit transactions follows, and with it the VTXO's id, the outpoint `point`,
which is stored all the same and must agree (`barkd_py.ark.validation`).

    `Vtxo`        what users hold: all items, one of the users' policies
    `ServerVtxo`  the same with any policy: outputs inside an exit chain, and what the server keeps
    `BareVtxo`    a VTXO without its genesis: enough to list, select and pay with it

Amounts in an exit chain: what enters an exit transaction leaves it, to the last satoshi. The continuing
output gets what the siblings and the fee anchor do not.

Encodings are written in version 2 and read in versions 1 (no fee amounts) and 2.

Source: sheet 01 §2, §3, §8.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self, TypedDict

from barkd_py.ark.clause import Clause
from barkd_py.ark.genesis import (
    ArkoorTransition,
    GenesisItem,
    HashLockedTransition,
    encode_genesis,
    read_genesis,
)
from barkd_py.ark.policy import (
    MAX_DELTA,
    MAX_HEIGHT,
    Policy,
    ServerPolicy,
    encode_policy,
    read_delta,
    read_height,
    read_policy,
    read_server_policy,
)
from barkd_py.bitcoin.encode import DecodeError, Reader, decode_hex, u16, u32, u64
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.taproot import TaprootOutput
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut, fee_anchor
from barkd_py.errors import InvalidInput, ProtocolViolation

ENCODING_VERSION = 2
EXIT_TX_VERSION = 3
MAX_U64 = 0xFFFF_FFFF_FFFF_FFFF


class BadVtxoId(InvalidInput):
    """A text that is no VTXO id."""

    def __init__(self) -> None:
        super().__init__("failed to parse vtxo id, must be 36 bytes")


class VtxoInvalid(ProtocolViolation):
    """A VTXO that contradicts itself or its anchor. item: the genesis item to blame, if it is one."""

    def __init__(self, message: str, item: int | None = None) -> None:
        super().__init__(message)
        self.item = item


class NotAHarkLeaf(ProtocolViolation):
    """Something that only the locked leaf of a round has was asked of another VTXO."""

    def __init__(self, vtxo_id: "VtxoId") -> None:
        super().__init__(f"VTXO {vtxo_id} is not a hArk leaf VTXO")
        self.vtxo_id = vtxo_id


class VtxoId(bytes):
    """The id of a VTXO: its outpoint in 36 bytes, ordered by them; prints as ``txid:vout``."""

    def __new__(cls, data: bytes) -> "VtxoId":
        if len(data) != 36:
            raise ValueError(f"a VTXO id has 36 bytes, not {len(data)}")
        return super().__new__(cls, data)

    @classmethod
    def parse(cls, text: str) -> "VtxoId":
        """From ``txid:vout``. Raises BadVtxoId."""
        try:
            return cls(OutPoint.parse(text).to_bytes())
        except ValueError:
            raise BadVtxoId() from None

    @classmethod
    def from_bytes(cls, data: bytes) -> "VtxoId":
        """From exactly 36 bytes. Raises DecodeError."""
        reader = Reader(data)
        vtxo_id = cls.read(reader)
        reader.finish()
        return vtxo_id

    @classmethod
    def read(cls, reader: Reader) -> "VtxoId":
        """From the next 36 bytes. Raises DecodeError."""
        if reader.remaining < 36:
            raise DecodeError.invalid("invalid vtxo id. Expected 36 bytes")
        return cls(reader.take(36))

    @classmethod
    def of(cls, outpoint: OutPoint) -> "VtxoId":
        return cls(outpoint.to_bytes())

    @property
    def outpoint(self) -> OutPoint:
        return OutPoint(Txid(self[:32]), int.from_bytes(self[32:], "little"))

    def __str__(self) -> str:
        # As `outpoint` prints, without the objects: each row of a list is asked for it.
        return f"{self[31::-1].hex()}:{int.from_bytes(self[32:], 'little')}"

    def __repr__(self) -> str:
        return f"VtxoId({self})"


# The VTXO classes are not slotted: they remember what they have computed.
@dataclass(frozen=True, kw_only=True)
class VtxoData:
    """All of a VTXO but its genesis.

    amount_sat: value of the VTXO's own output. expiry_height: from here on the server may sweep.
    exit_delta: blocks that the user's exit waits. anchor_point: the on-chain output at the root. point: the
    VTXO's own output, which is its id.
    """

    amount_sat: int
    expiry_height: int
    server_pubkey: PublicKey
    exit_delta: int
    anchor_point: OutPoint
    policy: ServerPolicy
    point: OutPoint

    def __post_init__(self) -> None:
        if not 0 <= self.amount_sat <= MAX_U64:
            raise ValueError("amount_sat is out of range")
        if not 0 <= self.expiry_height <= MAX_HEIGHT:
            raise ValueError("expiry_height is out of range")
        if not 0 <= self.exit_delta <= MAX_DELTA:
            raise ValueError("exit_delta is out of range")

    @cached_property
    def id(self) -> VtxoId:
        return VtxoId.of(self.point)

    @property
    def is_on_chain(self) -> bool:
        """Whether this is a view of an on-chain output: it has no genesis, and needs none."""
        return self.point == self.anchor_point

    @property
    def user_pubkey(self) -> PublicKey | None:
        """The user's key, if the policy has one."""
        return self.policy.user_pubkey

    @cached_property
    def output_taproot(self) -> TaprootOutput:
        """What the policy locks the VTXO's own output to."""
        return self.policy.taproot(self.server_pubkey, self.exit_delta, self.expiry_height)

    @property
    def output(self) -> TxOut:
        """The VTXO's own output."""
        return TxOut(self.amount_sat, self.output_taproot.script_pubkey)

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """The script leaves of the VTXO's own output, in signing order; clause i is leaf i."""
        return self.policy.clauses(self.server_pubkey, self.exit_delta, self.expiry_height)

    def _encode(self, genesis: bytes) -> bytes:
        return b"".join(
            (
                u16(ENCODING_VERSION),
                u64(self.amount_sat),
                u32(self.expiry_height),
                self.server_pubkey.data,
                u16(self.exit_delta),
                self.anchor_point.to_bytes(),
                genesis,
                encode_policy(self.policy),
                self.point.to_bytes(),
            )
        )

    def encode_bare(self) -> bytes:
        """The encoding without genesis."""
        return self._encode(b"\x00")

    def __hash__(self) -> int:
        return hash(self.point)


@dataclass(frozen=True, kw_only=True)
class BareVtxo(VtxoData):
    """A user's VTXO without its genesis. It can be shown and chosen, but neither validated nor exited."""

    policy: Policy

    __hash__ = VtxoData.__hash__

    @property
    def user_pubkey(self) -> PublicKey:
        return self.policy.user_pubkey

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From a bare encoding, or from a full one, whose genesis is checked and dropped.

        Raises DecodeError.
        """
        reader = Reader(data)
        fields = _read_fields(reader)
        policy = read_policy(reader)
        point = reader.outpoint()
        reader.finish()
        return cls(**fields.header, policy=policy, point=point)


@dataclass(frozen=True, kw_only=True)
class ServerVtxo(VtxoData):
    """A VTXO with its genesis, and any policy.

    genesis: one item per exit transaction, the one that spends the anchor first. Two VTXOs are equal if all
    their fields are; for "the same coin" compare their ids.
    """

    genesis: tuple[GenesisItem, ...]

    __hash__ = VtxoData.__hash__

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From exactly a full encoding. Raises DecodeError."""
        reader = Reader(data)
        vtxo = cls._read(reader)
        reader.finish()
        return vtxo

    @classmethod
    def decode_hex(cls, text: str) -> Self:
        """From a full encoding in hex. Raises DecodeError."""
        return cls.decode(decode_hex(text))

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        fields = _read_fields(reader)
        policy = cls._read_policy(reader)
        point = reader.outpoint()
        if point == fields.anchor_point:
            message = f"decoded genesis item data when there shouldn't be any for VTXO {point}"
        else:
            message = f"VTXO {point} has no genesis item data"
        _check_has_genesis(point, fields.anchor_point, fields.genesis, message)
        return cls(**fields.header, genesis=fields.genesis, policy=policy, point=point)

    @staticmethod
    def _read_policy(reader: Reader) -> ServerPolicy:
        return read_server_policy(reader)

    def encode(self) -> bytes:
        """The full encoding, as it is sent, imported and exported."""
        return self._encode(self.encode_genesis())

    def encode_genesis(self) -> bytes:
        """The genesis alone, to be stored beside `encode_bare`."""
        return self._genesis_bytes

    @cached_property
    def _genesis_bytes(self) -> bytes:
        """A VTXO that is being paid is stored, registered, posted and stored again."""
        return encode_genesis(self.genesis)

    # -- the exit chain

    @cached_property
    def anchor_amount_sat(self) -> int:
        """What the on-chain anchor output must hold."""
        return self.amount_sat + sum(item.other_sum_sat for item in self.genesis)

    @property
    def anchor_output(self) -> TxOut:
        """What the on-chain anchor output must be."""
        if not self.genesis:
            return self.output
        return TxOut(self.anchor_amount_sat, self._spent_script(0))

    def _spent_script(self, index: int) -> bytes:
        return self.genesis[index].transition.spent_script(self.server_pubkey, self.expiry_height)

    def exit_steps(self, anchor: OutPoint | None = None) -> tuple["ExitStep", ...]:
        """The exit transactions with what they spend, the one that spends the anchor first.

        anchor: the output that the first one spends, unless it is the VTXO's own anchor point. Raises
        VtxoInvalid if the amounts cannot be.
        """
        if anchor is None or anchor == self.anchor_point:
            return self._exit_steps
        return tuple(self._walk(anchor))

    @cached_property
    def _exit_steps(self) -> tuple["ExitStep", ...]:
        return tuple(self._walk(self.anchor_point))

    def _walk(self, prevout: OutPoint) -> Iterator["ExitStep"]:
        amount_sat = self.anchor_amount_sat
        if amount_sat > MAX_U64:
            raise VtxoInvalid("the VTXO is invalid: onchain amount overflow")
        spent = self.anchor_output
        last = len(self.genesis) - 1
        for index, item in enumerate(self.genesis):
            amount_sat -= item.other_sum_sat
            script = self._spent_script(index + 1) if index < last else self.output_taproot.script_pubkey
            continuing = TxOut(amount_sat, script)
            witness = item.transition.witness(self.server_pubkey, self.expiry_height)
            tx = Tx(
                EXIT_TX_VERSION,
                (TxIn(prevout, sequence=0, witness=witness),),
                item.outputs(continuing, fee_anchor(item.fee_amount_sat)),
            )
            yield ExitStep(item, spent, tx)
            prevout = OutPoint(tx.txid, item.output_idx)
            spent = continuing

    def exit_transactions(self) -> tuple[Tx, ...]:
        """The exit transactions, the one that spends the anchor first.

        Each has its witness if the genesis holds it, and none otherwise. Raises VtxoInvalid if the amounts
        cannot be.
        """
        return tuple([step.tx for step in self._exit_steps])

    @property
    def computed_point(self) -> OutPoint:
        """The outpoint at the end of the exit chain; what `point` must be. Raises VtxoInvalid."""
        if not self.genesis:
            return self.anchor_point
        step = self._exit_steps[-1]
        return OutPoint(step.tx.txid, step.item.output_idx)

    def with_computed_point(self) -> Self:
        """With the point that follows from the other fields. Raises VtxoInvalid."""
        return replace(self, point=self.computed_point)

    def with_signatures(self, signatures: Sequence[bytes]) -> Self:
        """With signatures for the last items, in their order, **not verified**; ids do not change."""
        count = len(signatures)
        if count > len(self.genesis):
            raise ValueError("more signatures than genesis items")
        kept, changed = self.genesis[: len(self.genesis) - count], self.genesis[len(self.genesis) - count :]
        signed = [
            replace(item, transition=replace(item.transition, signature=signature))
            for item, signature in zip(changed, signatures, strict=True)
        ]
        return replace(self, genesis=(*kept, *signed))

    @property
    def exit_depth(self) -> int:
        """The number of exit transactions."""
        return len(self.genesis)

    @property
    def exit_tx_weight_wu(self) -> int:
        """The weight of all exit transactions together."""
        server_pubkey, expiry_height = self.server_pubkey, self.expiry_height
        return sum([item.exit_tx_weight_wu(server_pubkey, expiry_height) for item in self.genesis])

    @property
    def is_fully_signed(self) -> bool:
        """Whether every exit transaction has its witness."""
        return all(item.transition.missing is None for item in self.genesis)

    @property
    def ancestor_ids(self) -> tuple[VtxoId, ...]:
        """The outpoints between the anchor and this VTXO, the anchor's side first.

        They include outputs that never were anybody's VTXO, such as checkpoints.
        """
        pairs = zip(self.exit_transactions()[:-1], self.genesis[:-1], strict=True)
        return tuple(VtxoId.of(OutPoint(tx.txid, item.output_idx)) for tx, item in pairs)

    @property
    def past_arkoor_pubkeys(self) -> tuple[tuple[PublicKey, ...], ...]:
        """For each out-of-round payment in the history, the keys that signed it beside the server."""
        transitions = (item.transition for item in self.genesis)
        return tuple(t.client_pubkeys for t in transitions if isinstance(t, ArkoorTransition))

    # -- the leaf of a round

    @property
    def _leaf(self) -> HashLockedTransition | None:
        if not self.genesis:
            return None
        transition = self.genesis[-1].transition
        return transition if isinstance(transition, HashLockedTransition) else None

    @property
    def hark_leaf(self) -> HashLockedTransition:
        """The last transition of a round's leaf. Raises NotAHarkLeaf."""
        leaf = self._leaf
        if leaf is None:
            raise NotAHarkLeaf(self.id)
        return leaf

    @property
    def unlock_hash(self) -> bytes | None:
        """The hash, 32 bytes, that locks this VTXO if it is the leaf of a round."""
        leaf = self._leaf
        return None if leaf is None else leaf.unlock_hash

    def leaf_step(self) -> "ExitStep":
        """The last exit transaction of a round's leaf, and what it spends.

        Raises NotAHarkLeaf, or VtxoInvalid if the amounts cannot be.
        """
        if self._leaf is None:
            raise NotAHarkLeaf(self.id)
        return self.exit_steps()[-1]

    def with_leaf_signature(self, signature: bytes) -> Self:
        """The leaf with its signature, **not verified**. Raises NotAHarkLeaf."""
        return self._with_leaf(replace(self.hark_leaf, signature=signature))

    def with_preimage(self, preimage: bytes) -> Self:
        """The leaf unlocked. Raises NotAHarkLeaf, or WrongPreimage if it is not the unlock hash's."""
        return self._with_leaf(self.hark_leaf.unlocked(preimage))

    def _with_leaf(self, leaf: HashLockedTransition) -> Self:
        last = replace(self.genesis[-1], transition=leaf)
        return replace(self, genesis=(*self.genesis[:-1], last))


@dataclass(frozen=True, kw_only=True)
class Vtxo(ServerVtxo):
    """A user's VTXO with its genesis."""

    policy: Policy

    __hash__ = VtxoData.__hash__

    @property
    def user_pubkey(self) -> PublicKey:
        return self.policy.user_pubkey

    @staticmethod
    def _read_policy(reader: Reader) -> Policy:
        return read_policy(reader)

    @property
    def bare(self) -> BareVtxo:
        """This VTXO without its genesis."""
        return BareVtxo(
            amount_sat=self.amount_sat,
            expiry_height=self.expiry_height,
            server_pubkey=self.server_pubkey,
            exit_delta=self.exit_delta,
            anchor_point=self.anchor_point,
            policy=self.policy,
            point=self.point,
        )

    @classmethod
    def join(cls, bare: bytes, genesis: bytes) -> Self:
        """From `encode_bare` and `encode_genesis`, the inverse of splitting. Raises DecodeError.

        Both parts must be of one version, and there is no check for trailing bytes in either.
        """
        reader = Reader(bare)
        fields = _read_fields(reader)
        policy = read_policy(reader)
        point = reader.outpoint()
        items = read_genesis(Reader(genesis), fields.version)
        _check_has_genesis(point, fields.anchor_point, items, "unable to decode VTXO with genesis")
        return cls(**fields.header, genesis=items, policy=policy, point=point)


class ExitStep(NamedTuple):
    """An exit transaction (with its witness if there is one), its genesis item, and the output it spends."""

    item: GenesisItem
    spent: TxOut
    tx: Tx


class _Header(TypedDict):
    amount_sat: int
    expiry_height: int
    server_pubkey: PublicKey
    exit_delta: int
    anchor_point: OutPoint


class _Fields(NamedTuple):
    version: int
    header: _Header
    anchor_point: OutPoint
    genesis: tuple[GenesisItem, ...]


def _read_fields(reader: Reader) -> _Fields:
    """All up to the genesis, and it too."""
    version = reader.u16()
    if version not in (1, ENCODING_VERSION):
        raise DecodeError.invalid(f"invalid Vtxo encoding version byte: {version:#x}")
    header = _Header(
        amount_sat=reader.u64(),
        expiry_height=read_height(reader, "expiry_height"),
        server_pubkey=reader.public_key(),
        exit_delta=read_delta(reader, "exit_delta"),
        anchor_point=reader.outpoint(),
    )
    return _Fields(version, header, header["anchor_point"], read_genesis(reader, version))


def _check_has_genesis(
    point: OutPoint, anchor_point: OutPoint, items: tuple[GenesisItem, ...], message: str
) -> None:
    """An output of the chain itself has no genesis items; every other VTXO has some. Raises DecodeError."""
    if point == anchor_point and items:
        raise DecodeError.invalid(message, "Genesis items were found but none were expected")
    if point != anchor_point and not items:
        raise DecodeError.invalid(message, "Expected genesis items but found none")
