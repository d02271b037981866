"""Rounds: what a wallet checks and signs to swap old VTXOs for new ones, and the server's side of it.

A round gives new VTXOs first and takes the old ones later. The new ones are locked to an *unlock hash* whose
preimage only the server knows; the wallet signs *forfeits* of its old ones which the server can only use by
revealing that preimage. So either both happen or neither.

    1. proposal   the server sends the tree; the wallet finds its outputs and cosigns (`accept_proposal`)
    2. finished   the tree is signed; the wallet takes its leaves, still locked (`accept_finished`)
    3. leaves     after confirmation: user and server sign the leaf transactions (`leaf_task`, `finish_leaf`)
    4. forfeits   the wallet signs a forfeit of every old VTXO (`HarkForfeit`), in one go
    5. unlock     the server answers with the preimage (`unlock_vtxos`)

A delegated participation has no steps 1 and 2; its leaves come from the server (`accept_delegated`).

Everything that the server says is compared with what was asked for: amounts, policies, the server's key, exit
delta, expiry, the funding transaction, and the unlock hash. That a leaf hangs on the hash that we forfeit to
matters most: with another one the server could take the forfeits and never unlock.

Source: sheet 04 §5-§7, §16-§19, §23.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from barkd_py.ark.cosign import BadCosignature, Cosignature, CosignTask
from barkd_py.ark.deadlines import late_preimage_blocks
from barkd_py.ark.genesis import ArkoorTransition, GenesisItem
from barkd_py.ark.policy import HarkForfeitPolicy, Policy
from barkd_py.ark.tree import TreeSpec, VtxoTree
from barkd_py.ark.validation import is_relayable, validate, verify_locked_leaf, verify_terms
from barkd_py.ark.vtxo import EXIT_TX_VERSION, ServerVtxo, Vtxo, VtxoId
from barkd_py.bitcoin.encode import DecodeError, Reader, u8
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.musig import SecNonce
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import MAX_SEQUENCE, OutPoint, Tx, Txid, TxIn, TxOut, fee_anchor
from barkd_py.errors import ProtocolViolation

FUNDING_VOUT = 0
"""Where in a round's funding transaction the tree is."""

FORFEIT_BUNDLE_VERSION = 1
MIN_LEAVES = 2
"""With one leaf the root would be a leaf, whose transaction does not fit the funding output."""
MAX_LEAF_DEPTH = 25
"""Transactions of a leaf's exit. A tree of 4^24 leaves is not deeper."""


class RoundRejected(ProtocolViolation):
    """The server's round is not what was agreed. Nothing was signed after the fault was seen."""


class RefusedToForfeit(ProtocolViolation):
    """The new VTXOs would leave too little time to exit if the server kept the preimage."""


@dataclass(frozen=True, slots=True)
class RoundTerms:
    """What a round's tree must have: the pinned server key, its exit delta, and time until it expires."""

    server_pubkey: PublicKey
    exit_delta: int
    min_expiry_height: int


@dataclass(frozen=True, slots=True)
class RoundOutput:
    """A coin that we asked for. cosign_pubkey: our one-time key, unless the participation is delegated."""

    amount_sat: int
    policy: Policy
    cosign_pubkey: PublicKey | None = None


# -- the tree


@dataclass(frozen=True)
class AcceptedProposal:
    """A tree that has all our outputs; leaves: theirs, in the outputs' order."""

    tree: VtxoTree
    leaves: tuple[int, ...]


@lru_cache(maxsize=1)
def round_tree(spec_bytes: bytes, funding_txid: Txid) -> VtxoTree:
    """The tree of a round. Raises DecodeError, TreeInvalid.

    The last one is kept: all participations of a wallet in a round are in the same tree, and most of what
    they need of it is common to them.
    """
    return VtxoTree(TreeSpec.decode(spec_bytes), OutPoint(funding_txid, FUNDING_VOUT))


def accept_proposal(
    spec_bytes: bytes,
    unsigned_funding_tx: Tx,
    agg_nonces: Sequence[bytes],
    *,
    outputs: Sequence[RoundOutput],
    unlock_hash: bytes,
    terms: RoundTerms,
    nb_nonces: int,
) -> AcceptedProposal:
    """Check a proposal before signing it.

    nb_nonces: how many nonces we made per output. Raises RoundRejected, UnexpectedTerms, TreeInvalid or
    DecodeError.
    """
    tree = round_tree(spec_bytes, unsigned_funding_tx.txid)
    spec = tree.spec
    _verify_round_terms(spec, terms)
    if len(spec.leaves) < MIN_LEAVES:
        raise RoundRejected(f"a round's tree has at least {MIN_LEAVES} leaves")
    _verify_funding_output(tree, unsigned_funding_tx)
    if len(agg_nonces) != spec.nb_internal_nodes:
        raise RoundRejected(f"expected {spec.nb_internal_nodes} aggregate nonces, received {len(agg_nonces)}")
    leaves = bind_outputs(spec, outputs, unlock_hash)
    for leaf in leaves:
        if tree.branch(leaf)[-1].level > nb_nonces:
            raise RoundRejected(f"the round's tree is too high for {nb_nonces} nonces")
        verify_leaf_exits(tree.vtxo(leaf, (bytes(64),) * spec.nb_internal_nodes))
    return AcceptedProposal(tree, leaves)


def _verify_round_terms(given: TreeSpec | Vtxo, terms: RoundTerms) -> None:
    verify_terms(
        given,
        server_pubkey=terms.server_pubkey,
        exit_delta=terms.exit_delta,
        min_expiry_height=terms.min_expiry_height,
    )


def _verify_funding_output(tree: VtxoTree, funding_tx: Tx) -> None:
    if not funding_tx.outputs or funding_tx.outputs[FUNDING_VOUT] != tree.spent_output(tree.root):
        raise RoundRejected("the round's funding transaction doesn't pay to its tree")


def bind_outputs(spec: TreeSpec, outputs: Sequence[RoundOutput], unlock_hash: bytes) -> tuple[int, ...]:
    """A leaf of its own for each output. Raises RoundRejected if one is missing."""
    free = dict(enumerate(spec.leaves))
    bound = []
    for output in outputs:
        found = next(
            (
                index
                for index, leaf in free.items()
                if leaf.unlock_hash == unlock_hash
                and leaf.amount_sat == output.amount_sat
                and leaf.policy == output.policy
                and leaf.cosign_pubkey == output.cosign_pubkey
            ),
            None,
        )
        if found is None:
            raise RoundRejected("one of our outputs is missing from the round's tree")
        del free[found]
        bound.append(found)
    return tuple(bound)


def accept_finished(
    accepted: AcceptedProposal, signed_funding_tx: Tx, signatures: Sequence[bytes]
) -> tuple[Vtxo, ...]:
    """Our new VTXOs, locked and with their leaves unsigned, in the outputs' order.

    signatures: of all internal nodes. Raises RoundRejected, TreeInvalid or VtxoInvalid.
    """
    tree = accepted.tree
    if signed_funding_tx.txid != tree.utxo.txid:
        raise RoundRejected(
            f"signed funding tx ({signed_funding_tx.txid}) "
            f"doesn't match tx received before ({tree.utxo.txid})"
        )
    tree.verify_signatures(signatures)
    vtxos = tuple(tree.vtxo(leaf, signatures) for leaf in accepted.leaves)
    for vtxo in vtxos:
        verify_locked_leaf(vtxo, signed_funding_tx, leaf_signed=False)
    return vtxos


def accept_delegated(
    vtxos: Sequence[Vtxo],
    funding_tx: Tx,
    *,
    outputs: Sequence[RoundOutput],
    unlock_hash: bytes,
    terms: RoundTerms,
) -> None:
    """Check the leaves that the server made for a delegated participation.

    vtxos: in the outputs' order, locked and with their leaves unsigned. Raises RoundRejected, UnexpectedTerms
    or VtxoInvalid.
    """
    if len(vtxos) != len(outputs):
        raise RoundRejected(f"server delivered {len(vtxos)} VTXOs for {len(outputs)} outputs")
    seen: set[VtxoId] = set()
    for vtxo, output in zip(vtxos, outputs, strict=True):
        if vtxo.id in seen:
            raise RoundRejected(f"server delivered duplicate VTXO {vtxo.id}")
        seen.add(vtxo.id)
        if vtxo.amount_sat != output.amount_sat or vtxo.policy != output.policy:
            raise RoundRejected(f"VTXO {vtxo.id} is not the output that we asked for")
        if vtxo.anchor_point != funding_tx.outpoint(FUNDING_VOUT):
            raise RoundRejected(f"VTXO {vtxo.id} is not anchored in the round's funding transaction")
        _verify_round_terms(vtxo, terms)
        verify_leaf_exits(vtxo)
        verify_locked_leaf(vtxo, funding_tx, leaf_signed=False)
        _verify_leaf_lock(vtxo, unlock_hash)


def _verify_leaf_lock(vtxo: Vtxo, unlock_hash: bytes) -> None:
    """That a leaf opens to its owner with the preimage of this hash. Raises RoundRejected, NotAHarkLeaf."""
    leaf = vtxo.hark_leaf
    if leaf.unlock_hash != unlock_hash:
        raise RoundRejected(f"VTXO {vtxo.id} is locked to another hash than we forfeit to")
    if leaf.user_pubkey != vtxo.user_pubkey:
        raise RoundRejected(f"the leaf of VTXO {vtxo.id} has another key than its policy")


# -- the leaves


def leaf_task(vtxo: Vtxo) -> CosignTask:
    """What user and server sign to open a leaf with the preimage. Raises NotAHarkLeaf."""
    leaf, step = vtxo.hark_leaf, vtxo.leaf_step()
    sighash = leaf.sighash(step.tx, step.spent, vtxo.server_pubkey)
    # The script path: the aggregate key itself signs.
    return CosignTask(leaf.user_pubkey, vtxo.server_pubkey, sighash, tweak=None)


def finish_leaf(
    vtxo: Vtxo, user_secret: SecretKey, sec_nonce: SecNonce, pub_nonce: bytes, answer: Cosignature
) -> Vtxo:
    """The leaf with its signature, verified.

    Raises BadCosignature; the nonce is spent whatever the outcome.
    """
    return vtxo.with_leaf_signature(leaf_task(vtxo).finish(user_secret, sec_nonce, pub_nonce, answer))


def unlock_vtxos(vtxos: Sequence[Vtxo], preimage: bytes, funding_tx: Tx) -> tuple[Vtxo, ...]:
    """The new VTXOs, unlocked and fully validated. Raises WrongPreimage, NotAHarkLeaf or VtxoInvalid."""
    unlocked = tuple(vtxo.with_preimage(preimage) for vtxo in vtxos)
    for vtxo in unlocked:
        validate(vtxo, funding_tx)
    return unlocked


# -- forfeits


@dataclass(frozen=True, slots=True)
class ForfeitBundle:
    """The user's part of one forfeit, as it is sent: 167 bytes."""

    vtxo_id: VtxoId
    unlock_hash: bytes
    user_pub_nonce: bytes
    partial_sig: bytes

    @property
    def cosignature(self) -> Cosignature:
        return Cosignature(self.user_pub_nonce, self.partial_sig)

    def encode(self) -> bytes:
        return b"".join(
            (
                u8(FORFEIT_BUNDLE_VERSION),
                self.vtxo_id,
                self.unlock_hash,
                self.user_pub_nonce,
                self.partial_sig,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> "ForfeitBundle":
        """From exactly its bytes. Raises DecodeError."""
        reader = Reader(data)
        if reader.u8() != FORFEIT_BUNDLE_VERSION:
            raise DecodeError.invalid("unknown encoding version")
        bundle = cls(VtxoId.read(reader), reader.hash32(), reader.public_nonce(), reader.partial_signature())
        reader.finish()
        return bundle


@dataclass(frozen=True)
class HarkForfeit:
    """Giving up an old VTXO for whatever the preimage of a hash unlocks.

    The transaction spends the VTXO to an output that the server can take with the preimage; without it, the
    user gets the coin back after the VTXO's own exit delta.
    """

    vtxo: Vtxo
    unlock_hash: bytes

    @cached_property
    def policy(self) -> HarkForfeitPolicy:
        return HarkForfeitPolicy(self.vtxo.user_pubkey, self.unlock_hash)

    @cached_property
    def tx(self) -> Tx:
        """The forfeit transaction, unsigned."""
        vtxo = self.vtxo
        taproot = self.policy.taproot(vtxo.server_pubkey, vtxo.exit_delta, vtxo.expiry_height)
        outputs = (TxOut(vtxo.amount_sat, taproot.script_pubkey), fee_anchor())
        return Tx(EXIT_TX_VERSION, (TxIn(vtxo.point, sequence=MAX_SEQUENCE),), outputs)

    @cached_property
    def task(self) -> CosignTask:
        """What user and server sign."""
        vtxo = self.vtxo
        sighash = taproot_key_spend_sighash(self.tx, 0, (vtxo.output,))
        return CosignTask(vtxo.user_pubkey, vtxo.server_pubkey, sighash, vtxo.output_taproot.tweak)

    def sign(self, user_secret: SecretKey, server_pub_nonce: bytes) -> ForfeitBundle:
        """The user's part, in answer to the server's nonce. Different every time.

        Raises BadCosignature for a malformed nonce; ValueError if the secret is not the VTXO's user's.
        """
        if user_secret.public_key != self.vtxo.user_pubkey:
            raise ValueError("incorrect signing key")
        answer = self.task.cosign(user_secret, server_pub_nonce)
        return ForfeitBundle(self.vtxo.id, self.unlock_hash, answer.pub_nonce, answer.partial_sig)

    def verify(self, bundle: ForfeitBundle, server_pub_nonce: bytes) -> None:
        """Check the user's part. Raises BadCosignature."""
        if bundle.vtxo_id != self.vtxo.id:
            raise BadCosignature("VTXO mismatch")
        if bundle.unlock_hash != self.unlock_hash:
            raise BadCosignature("unlock hash mismatch")
        if not self.task.is_cosigned(server_pub_nonce, bundle.cosignature, by=self.vtxo.user_pubkey):
            raise BadCosignature("invalid partial sig for forfeit tx")

    def finish(
        self, bundle: ForfeitBundle, server_secret: SecretKey, sec_nonce: SecNonce, server_pub_nonce: bytes
    ) -> Tx:
        """The signed forfeit transaction, which the server keeps. The nonce is spent whatever the outcome.

        Raises BadCosignature; ValueError if the secret is not the server's.
        """
        try:
            if server_secret.public_key != self.vtxo.server_pubkey:
                raise ValueError("incorrect signing key")
            self.verify(bundle, server_pub_nonce)
            signature = self.task.finish(server_secret, sec_nonce, server_pub_nonce, bundle.cosignature)
        finally:
            sec_nonce.wipe()
        return self.with_signature(signature)

    def with_signature(self, signature: bytes) -> Tx:
        (tx_in,) = self.tx.inputs
        signed = TxIn(tx_in.prevout, sequence=tx_in.sequence, witness=(signature,))
        return Tx(self.tx.version, (signed,), self.tx.outputs, self.tx.locktime)

    def server_vtxo(self, signature: bytes) -> ServerVtxo:
        """The forfeited coin in the server's books.

        It does not validate: exit chains spend with sequence 0, this transaction with the final one. Its
        point is the real one all the same.
        """
        vtxo = self.vtxo
        transition = ArkoorTransition((vtxo.user_pubkey,), vtxo.output_taproot.tweak, signature)
        return ServerVtxo(
            amount_sat=vtxo.amount_sat,
            expiry_height=vtxo.expiry_height,
            server_pubkey=vtxo.server_pubkey,
            exit_delta=vtxo.exit_delta,
            anchor_point=vtxo.anchor_point,
            genesis=(*vtxo.genesis, GenesisItem(transition)),
            policy=self.policy,
            point=OutPoint(self.tx.txid, 0),
        )


def verify_exitable(
    new_vtxos: Sequence[Vtxo], inputs: Sequence[Vtxo], *, tip_height: int, exit_margin: int
) -> None:
    """Check that there is time for two exits, should the server keep the preimage of what we forfeit to.

    Raises RefusedToForfeit.
    """
    for vtxo in new_vtxos:
        required = min_leaf_expiry(vtxo.exit_depth, inputs, tip_height=tip_height, exit_margin=exit_margin)
        if vtxo.expiry_height < required:
            raise RefusedToForfeit(
                f"refusing to forfeit our input VTXOs: new VTXO {vtxo.id} expires at height "
                f"{vtxo.expiry_height}, before the required minimum {required}"
            )


def min_leaf_expiry(leaf_depth: int, inputs: Sequence[Vtxo], *, tip_height: int, exit_margin: int) -> int:
    """The first height at which a leaf may expire that inputs are forfeited for.

    If the server keeps the preimage, the inputs exit; and if it shows it then, as late as it can, the leaf
    still has to. (Upstream asks for a margin for each of the exits and one exit delta, which is not enough.)
    Inputs that have all expired are lost without the round anyway.
    """
    if all(vtxo.expiry_height <= tip_height for vtxo in inputs):
        return 0
    shown_height = tip_height + max(late_preimage_blocks(vtxo, exit_margin) for vtxo in inputs)
    return shown_height + exit_margin + leaf_depth


def verify_leaf_exits(vtxo: Vtxo) -> None:
    """Check that a leaf can be exited, by the rules of nodes and in any time. Raises RoundRejected.

    To be asked before anything is given for it: the server chooses what hangs beside it in the tree, and how
    many transactions lead to it.
    """
    if vtxo.exit_depth > MAX_LEAF_DEPTH:
        raise RoundRejected(f"VTXO {vtxo.id} has {vtxo.exit_depth} exit transactions, which is too many")
    if not is_relayable(vtxo):
        raise RoundRejected(f"nodes would not relay the exit of VTXO {vtxo.id}")
