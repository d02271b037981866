"""Trees of VTXOs: how one on-chain output becomes the coins of everybody in a round.

The leaves are the new VTXOs; every inner node is a transaction that pays out to its up to four children. Each
node is signed in advance by all users below it and the server, so nobody can spend it differently; from the
expiry height on the server may sweep what is left.

    funding output ─▶ root ─▶ node … ─▶ hArk leaf output ─▶ leaf transaction ─▶ the VTXO
                                         └ locked to the unlock hash, see `barkd_py.ark.rounds`

Nodes are numbered: the leaves first, in request order, then the internal nodes in the order in which they
are made (`internal index`), the root last. Nothing is deducted inside a tree: a node's input is worth its
outputs.

Cosigning a node takes one nonce per signer. Users make their nonces before they know the tree, one per
*level*: the nonce for a node is the one at the node's level minus one. Levels rise along a branch, but may
skip. Signatures, in contrast, are listed by their position on the branch.

Everything is computed on demand: who owns one leaf never computes the others.

Source: sheet 04 §3-§6.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from barkd_py.ark.clause import HashLock
from barkd_py.ark.cosign import BadCosignature
from barkd_py.ark.genesis import (
    CosignedTransition,
    GenesisItem,
    HashLockedTransition,
    cosigned_taproot,
)
from barkd_py.ark.policy import (
    ExpiryPolicy,
    HarkLeafPolicy,
    Policy,
    encode_policy,
    read_delta,
    read_height,
    read_policy,
)
from barkd_py.ark.vtxo import EXIT_TX_VERSION, MAX_U64, ServerVtxo, Vtxo
from barkd_py.bitcoin import encode
from barkd_py.bitcoin.encode import MAX_SIGNATURES, MAX_TREE_LEAVES, DecodeError, Reader, u8, u16, u32, u64
from barkd_py.bitcoin.keys import PublicKey, SecretKey, verify_schnorr
from barkd_py.bitcoin.musig import SecNonce, Session, aggregate_nonces
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.taproot import TaprootOutput
from barkd_py.bitcoin.tx import OutPoint, Tx, TxIn, TxOut, fee_anchor
from barkd_py.errors import ProtocolViolation

RADIX = 4
"""How many children a node has at most."""

TREE_SPEC_VERSION = 2
SIGNED_TREE_SPEC_VERSION = 2


class TreeInvalid(ProtocolViolation):
    """A tree that cannot be, or that is not signed as it should be."""


# -- shape


@dataclass(frozen=True, slots=True)
class Node:
    """A node's place in a tree.

    level: 0 for leaves, else one more than the highest child's. leaves: all leaves below, in the children's
    order, which can wrap past the last leaf to the first. position: which child of its parent this is.
    """

    index: int
    level: int
    children: tuple[int, ...]
    leaves: tuple[int, ...]
    parent: int | None
    position: int


@lru_cache(maxsize=32)
def tree_shape(nb_leaves: int) -> tuple[Node, ...]:
    """The nodes of a tree with so many leaves. Raises ValueError if there are none."""
    if nb_leaves < 1:
        raise ValueError("a tree has at least one leaf")
    children: list[tuple[int, ...]] = [()] * nb_leaves
    levels = [0] * nb_leaves
    leaves: list[tuple[int, ...]] = [(index,) for index in range(nb_leaves)]
    parents: dict[int, tuple[int, int]] = {}
    orphans = deque(range(nb_leaves))
    while len(orphans) > 1:
        group = tuple(orphans.popleft() for _ in range(min(RADIX, len(orphans))))
        index = len(children)
        parents.update({child: (index, position) for position, child in enumerate(group)})
        children.append(group)
        levels.append(1 + max(levels[child] for child in group))
        leaves.append(tuple(leaf for child in group for leaf in leaves[child]))
        orphans.append(index)
    return tuple(
        Node(index, levels[index], children[index], leaves[index], *parents.get(index, (None, 0)))
        for index in range(len(children))
    )


# -- specification


@dataclass(frozen=True, slots=True)
class LeafSpec:
    """A coin that a round shall make.

    cosign_pubkey: the one-time key with which its owner signs the tree; None if the owner does not.
    """

    policy: Policy
    amount_sat: int
    cosign_pubkey: PublicKey | None
    unlock_hash: bytes

    def encode(self) -> bytes:
        return (
            encode_policy(self.policy)
            + u64(self.amount_sat)
            + encode.optional_public_key(self.cosign_pubkey)
            + self.unlock_hash
        )

    @classmethod
    def read(cls, reader: Reader) -> "LeafSpec":
        """Raises DecodeError."""
        return cls(read_policy(reader), reader.u64(), reader.optional_public_key(), reader.hash32())


@dataclass(frozen=True, slots=True)
class TreeSpec:
    """All that a tree follows from, but its place on the chain.

    global_cosign_pubkeys: the one-time keys that sign every node, normally one of the server's.
    """

    expiry_height: int
    server_pubkey: PublicKey
    exit_delta: int
    global_cosign_pubkeys: tuple[PublicKey, ...]
    leaves: tuple[LeafSpec, ...]

    def __post_init__(self) -> None:
        if not self.leaves:
            raise ValueError("a tree has at least one leaf")

    @property
    def total_amount_sat(self) -> int:
        return sum(leaf.amount_sat for leaf in self.leaves)

    @property
    def shape(self) -> tuple[Node, ...]:
        return tree_shape(len(self.leaves))

    @property
    def nb_internal_nodes(self) -> int:
        return len(self.shape) - len(self.leaves)

    def cosign_pubkeys(self, node: Node) -> tuple[PublicKey, ...]:
        """Who signs a node: the owners below it, in the order of its leaves, and the global signers."""
        keys = (self.leaves[leaf].cosign_pubkey for leaf in node.leaves)
        return (*(key for key in keys if key is not None), *self.global_cosign_pubkeys)

    def cosign_taproot(self, node: Node) -> TaprootOutput:
        """What an internal node spends. Raises TreeInvalid if nobody signs it."""
        keys = self.cosign_pubkeys(node)
        if not keys:
            raise TreeInvalid("the tree has a node without cosigners")
        return cosigned_taproot(keys, self.server_pubkey, self.expiry_height)

    @property
    def funding_taproot(self) -> TaprootOutput:
        return self.cosign_taproot(self.shape[-1])

    @property
    def funding_output(self) -> TxOut:
        """The on-chain output at the tree's root. Raises TreeInvalid."""
        total_sat = self.total_amount_sat
        if total_sat > MAX_U64:
            raise TreeInvalid("the tree's amounts overflow")
        return TxOut(total_sat, self.funding_taproot.script_pubkey)

    def encode(self) -> bytes:
        return b"".join(
            (
                u8(TREE_SPEC_VERSION),
                u32(self.expiry_height),
                self.server_pubkey.data,
                u16(self.exit_delta),
                encode.public_keys(self.global_cosign_pubkeys),
                encode.compact_size(len(self.leaves)),
                *(leaf.encode() for leaf in self.leaves),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "TreeSpec":
        """From exactly its bytes. Raises DecodeError."""
        reader = Reader(data)
        spec = cls.read(reader)
        reader.finish()
        return spec

    @classmethod
    def read(cls, reader: Reader) -> "TreeSpec":
        """Raises DecodeError."""
        version = reader.u8()
        if version != TREE_SPEC_VERSION:
            raise DecodeError.invalid(f"invalid VtxoTreeSpec encoding version byte: {version:#x}")
        expiry_height = read_height(reader, "expiry_height")
        server_pubkey = reader.public_key()
        exit_delta = read_delta(reader, "exit_delta")
        global_cosign_pubkeys = reader.public_keys()
        count = reader.vector_count(MAX_TREE_LEAVES)
        leaves = tuple([LeafSpec.read(reader) for _ in range(count)])
        if not leaves:
            raise DecodeError.invalid("vtxo tree spec must have at least one leaf")
        return cls(expiry_height, server_pubkey, exit_delta, global_cosign_pubkeys, leaves)


# -- transactions and signatures


class VtxoTree:
    """A tree on top of an output of a funding transaction, unsigned.

    utxo: the funding output, which must be `spec.funding_output`. lock: the form of the leaves' hash lock,
    which encodings do not tell (`SignedTreeSpec.tree` finds out). Raises TreeInvalid for amounts that
    overflow.
    """

    def __init__(self, spec: TreeSpec, utxo: OutPoint, lock: HashLock = HashLock.V1) -> None:
        self.spec = spec
        self.utxo = utxo
        self.lock = lock
        self.nodes = spec.shape
        self._outputs: dict[int, TxOut] = {self.root.index: spec.funding_output}
        self._txs: dict[int, Tx] = {}
        self._sessions: dict[tuple[int, bytes], Session] = {}
        self._verified: tuple[bytes, ...] | None = None

    @property
    def nb_leaves(self) -> int:
        return len(self.spec.leaves)

    @property
    def root(self) -> Node:
        return self.nodes[-1]

    @property
    def internal_nodes(self) -> tuple[Node, ...]:
        """In their order, by internal index."""
        return self.nodes[self.nb_leaves :]

    def branch(self, leaf: int) -> tuple[Node, ...]:
        """The internal nodes above a leaf, from its parent to the root."""
        nodes = []
        parent = self.nodes[leaf].parent
        while parent is not None:
            nodes.append(self.nodes[parent])
            parent = self.nodes[parent].parent
        return tuple(nodes)

    def internal_index(self, node: Node) -> int:
        return node.index - self.nb_leaves

    def leaf_policy(self, leaf: int) -> HarkLeafPolicy:
        """The policy of the output that a leaf transaction spends."""
        spec = self.spec.leaves[leaf]
        return HarkLeafPolicy(spec.policy.user_pubkey, spec.unlock_hash, self.lock)

    def taproot(self, node: Node) -> TaprootOutput:
        """What the output that a node spends is locked to."""
        if node.children or node.parent is None:
            return self.spec.cosign_taproot(node)
        spec = self.spec
        return self.leaf_policy(node.index).taproot(spec.server_pubkey, spec.exit_delta, spec.expiry_height)

    def spent_output(self, node: Node) -> TxOut:
        """The output that a node spends: its parent's, or the funding output."""
        output = self._outputs.get(node.index)
        if output is None:
            amount_sat = sum(self.spec.leaves[leaf].amount_sat for leaf in node.leaves)
            output = TxOut(amount_sat, self.taproot(node).script_pubkey)
            self._outputs[node.index] = output
        return output

    def tx(self, node: Node) -> Tx:
        """A node's transaction, unsigned."""
        tx = self._txs.get(node.index)
        if tx is None:
            outputs = (*self._child_outputs(node), fee_anchor())
            tx = Tx(EXIT_TX_VERSION, (TxIn(self.prevout(node), sequence=0),), outputs)
            self._txs[node.index] = tx
        return tx

    def _child_outputs(self, node: Node) -> tuple[TxOut, ...]:
        if node.children:
            return tuple([self.spent_output(self.nodes[child]) for child in node.children])
        leaf, spec = self.spec.leaves[node.index], self.spec
        taproot = leaf.policy.taproot(spec.server_pubkey, spec.exit_delta, spec.expiry_height)
        return (TxOut(leaf.amount_sat, taproot.script_pubkey),)

    def prevout(self, node: Node) -> OutPoint:
        """Where the output is that a node spends."""
        if node.parent is None:
            return self.utxo
        return self.tx(self.nodes[node.parent]).outpoint(node.position)

    def sighash(self, node: Node) -> bytes:
        """What the signers of an internal node sign, 32 bytes."""
        return taproot_key_spend_sighash(self.tx(node), 0, (self.spent_output(node),))

    def is_signature_valid(self, node: Node, signature: bytes) -> bool:
        """Whether an internal node is rightly signed."""
        return verify_schnorr(self.taproot(node).output_key, self.sighash(node), signature)

    def verify_signatures(self, signatures: Sequence[bytes]) -> None:
        """Check the signatures of all internal nodes, in their order. Raises TreeInvalid."""
        self._check_count("signatures", signatures)
        if self._verified == tuple(signatures):
            return
        for node, signature in zip(self.internal_nodes, signatures, strict=True):
            if not self.is_signature_valid(node, signature):
                raise TreeInvalid(f"invalid signature of internal node {self.internal_index(node)}")
        self._verified = tuple(signatures)

    def _check_count(self, what: str, items: Sequence[object]) -> None:
        expected = len(self.internal_nodes)
        if len(items) != expected:
            raise TreeInvalid(f"the tree has {expected} internal nodes, but {len(items)} {what} were given")

    # -- cosigning

    def _session(self, node: Node, agg_nonce: bytes) -> Session:
        """The signing of a node; kept, because aggregating many keys costs more than a signature does.

        Raises TreeInvalid for a malformed nonce.
        """
        session = self._sessions.get((node.index, agg_nonce))
        if session is None:
            keys, tweak = self.spec.cosign_pubkeys(node), self.taproot(node).tweak
            try:
                session = Session(keys, agg_nonce, self.sighash(node), tweak)
            except ValueError as error:
                raise TreeInvalid("malformed aggregate nonce") from error
            self._sessions[node.index, agg_nonce] = session
        return session

    def cosign_leaf(
        self, leaf: int, secret: SecretKey, sec_nonces: Sequence[SecNonce], agg_nonces: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        """An owner's partial signatures of the branch above their leaf, from the parent to the root.

        sec_nonces: by level, the lowest first. agg_nonces: one per internal node. All nonces are spent,
        whatever the outcome. Raises TreeInvalid; ValueError if the secret is not of the leaf's cosign key.
        """
        try:
            if secret.public_key != self.spec.leaves[leaf].cosign_pubkey:
                raise ValueError("this is not the leaf's cosign key")
            self._check_count("aggregate nonces", agg_nonces)
            branch = self.branch(leaf)
            if branch and branch[-1].level > len(sec_nonces):
                raise TreeInvalid(f"the tree is too high for {len(sec_nonces)} nonces")
            sessions = [self._session(node, agg_nonces[self.internal_index(node)]) for node in branch]
            return tuple(
                session.sign(secret, sec_nonces[node.level - 1])
                for node, session in zip(branch, sessions, strict=True)
            )
        finally:
            for nonce in sec_nonces:
                nonce.wipe()

    def cosign_all(
        self, secret: SecretKey, sec_nonces: Sequence[SecNonce], agg_nonces: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        """A global signer's partial signatures of all internal nodes; one nonce for each, in their order."""
        self._check_count("aggregate nonces", agg_nonces)
        self._check_count("secret nonces", sec_nonces)
        return tuple(
            self._session(node, agg_nonce).sign(secret, sec_nonce)
            for node, agg_nonce, sec_nonce in zip(self.internal_nodes, agg_nonces, sec_nonces, strict=True)
        )

    def aggregate_nonces(
        self, leaf_nonces: Mapping[int, Sequence[bytes]], global_nonces: Sequence[Sequence[bytes]]
    ) -> tuple[bytes, ...]:
        """The aggregate nonces of all internal nodes, in their order.

        leaf_nonces: by leaf, then by level; of all leaves with a cosign key. global_nonces: one list per
        global signer, by internal index. Raises TreeInvalid if the tree is too high for the nonces.
        """
        return tuple(self._aggregate_nonce(node, leaf_nonces, global_nonces) for node in self.internal_nodes)

    def _aggregate_nonce(
        self, node: Node, leaf_nonces: Mapping[int, Sequence[bytes]], global_nonces: Sequence[Sequence[bytes]]
    ) -> bytes:
        index = self.internal_index(node)
        try:
            signers = [leaf_nonces[leaf][node.level - 1] for leaf in self._signing_leaves(node)]
            signers += [nonces[index] for nonces in global_nonces]
        except IndexError as error:
            raise TreeInvalid("the tree is too high for the nonces") from error
        return aggregate_nonces(signers)

    def _signing_leaves(self, node: Node) -> list[int]:
        return [leaf for leaf in node.leaves if self.spec.leaves[leaf].cosign_pubkey is not None]

    def verify_leaf_partials(
        self,
        leaf: int,
        pub_nonces: Sequence[bytes],
        agg_nonces: Sequence[bytes],
        partials: Sequence[bytes],
    ) -> None:
        """Check what `cosign_leaf` gave. Raises BadCosignature."""
        pubkey = self.spec.leaves[leaf].cosign_pubkey
        if pubkey is None:
            raise BadCosignature("the leaf has no cosigner")
        branch = self.branch(leaf)
        if len(partials) != len(branch):
            raise BadCosignature(f"expected {len(branch)} partial signatures, got {len(partials)}")
        for node, partial in zip(branch, partials, strict=True):
            session = self._session(node, agg_nonces[self.internal_index(node)])
            if not session.verify_partial(partial, pub_nonces[node.level - 1], pubkey):
                raise BadCosignature(
                    f"invalid partial signature of internal node {self.internal_index(node)}"
                )

    def combine_partials(
        self,
        agg_nonces: Sequence[bytes],
        leaf_partials: Mapping[int, Sequence[bytes]],
        global_partials: Sequence[Sequence[bytes]],
    ) -> tuple[bytes, ...]:
        """The final signatures of all internal nodes, in their order, verified.

        leaf_partials: by leaf, as `cosign_leaf` gives them. global_partials: one list per global signer, as
        `cosign_all` gives them. Raises TreeInvalid if they do not add up.
        """
        self._check_count("aggregate nonces", agg_nonces)
        by_node: dict[int, list[bytes]] = {node.index: [] for node in self.internal_nodes}
        for leaf, partials in leaf_partials.items():
            for node, partial in zip(self.branch(leaf), partials, strict=True):
                by_node[node.index].append(partial)
        for signer in global_partials:
            for node, partial in zip(self.internal_nodes, signer, strict=True):
                by_node[node.index].append(partial)
        signatures = tuple(
            self._session(node, agg_nonce).aggregate(by_node[node.index])
            for node, agg_nonce in zip(self.internal_nodes, agg_nonces, strict=True)
        )
        self.verify_signatures(signatures)
        return signatures

    # -- VTXOs

    def vtxo(self, leaf: int, signatures: Sequence[bytes]) -> Vtxo:
        """A leaf's VTXO: its own signature and its preimage are still missing.

        signatures: of all internal nodes, in their order; they are not verified here. Raises TreeInvalid for
        a wrong number of them.
        """
        self._check_count("signatures", signatures)
        spec, leaf_spec = self.spec, self.spec.leaves[leaf]
        transition = HashLockedTransition(
            leaf_spec.policy.user_pubkey, None, leaf_spec.unlock_hash, lock=self.lock
        )
        return Vtxo(
            amount_sat=leaf_spec.amount_sat,
            expiry_height=spec.expiry_height,
            server_pubkey=spec.server_pubkey,
            exit_delta=spec.exit_delta,
            anchor_point=self.utxo,
            genesis=(*self._genesis(self.nodes[leaf], signatures), GenesisItem(transition)),
            policy=leaf_spec.policy,
            point=self.tx(self.nodes[leaf]).outpoint(0),
        )

    def _genesis(self, node: Node, signatures: Sequence[bytes]) -> tuple[GenesisItem, ...]:
        """The items from the root down to the output that a node spends."""
        items: list[GenesisItem] = []
        child = node
        while child.parent is not None:
            parent = self.nodes[child.parent]
            outputs = self._child_outputs(parent)
            transition = CosignedTransition(
                self.spec.cosign_pubkeys(parent), signatures[self.internal_index(parent)]
            )
            siblings = (*outputs[: child.position], *outputs[child.position + 1 :])
            items.append(GenesisItem(transition, child.position, siblings))
            child = parent
        return tuple(reversed(items))

    def internal_vtxo(self, node: Node, signatures: Sequence[bytes]) -> ServerVtxo:
        """What the server keeps of the output that a node spends."""
        policy = (
            self.leaf_policy(node.index)
            if not node.children
            else ExpiryPolicy(self.taproot(node).internal_key)
        )
        return ServerVtxo(
            amount_sat=self.spent_output(node).value_sat,
            expiry_height=self.spec.expiry_height,
            server_pubkey=self.spec.server_pubkey,
            exit_delta=self.spec.exit_delta,
            anchor_point=self.utxo,
            genesis=self._genesis(node, signatures),
            policy=policy,
            point=self.prevout(node),
        )


@dataclass(frozen=True, slots=True)
class SignedTreeSpec:
    """A tree with its place on the chain and the signatures of its internal nodes, in their order."""

    spec: TreeSpec
    utxo: OutPoint
    signatures: tuple[bytes, ...]

    def encode(self) -> bytes:
        return b"".join(
            (
                u8(SIGNED_TREE_SPEC_VERSION),
                self.spec.encode(),
                self.utxo.to_bytes(),
                encode.compact_size(len(self.signatures)),
                *self.signatures,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "SignedTreeSpec":
        """From exactly its bytes, in the current version or the one before. Raises DecodeError."""
        reader = Reader(data)
        version = reader.u8()
        if version not in (1, SIGNED_TREE_SPEC_VERSION):
            raise DecodeError.invalid(f"invalid SignedVtxoTreeSpec encoding version byte: {version:#x}")
        spec = TreeSpec.read(reader)
        utxo = reader.outpoint()
        if version == 1:
            count = reader.u32()
            if count > MAX_SIGNATURES:
                raise DecodeError.oversized_vector(count, MAX_SIGNATURES)
        else:
            count = reader.vector_count(MAX_SIGNATURES)
        signatures = tuple([reader.signature() for _ in range(count)])
        reader.finish()
        return cls(spec, utxo, signatures)

    def tree(self) -> VtxoTree:
        """The tree, with the form of hash lock for which its signatures hold. Raises TreeInvalid.

        Only the first signature is looked at; `VtxoTree.verify_signatures` looks at all.
        """
        for lock in (HashLock.V1, HashLock.V0):
            tree = VtxoTree(self.spec, self.utxo, lock)
            if not tree.internal_nodes:
                return tree
            tree._check_count("signatures", self.signatures)
            if tree.is_signature_valid(tree.internal_nodes[0], self.signatures[0]):
                return tree
        raise TreeInvalid("the tree's first signature is invalid")
