"""One attempt of a round: who takes part, and the signatures of its tree.

    `Registrations`  who asked for what, until the window closes
    `TreeSigning`    the tree that came of it, until all cosigners have signed

Both are in memory only. If a cosigner stays silent, all of its inputs are out of this round, everybody else
has to register again, and the next attempt takes nobody new.

Source: sheet 10 §6.7, §8; sheet 04 §6, §10.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from secrets import token_bytes

from barkd_py.ark.attestations import is_attested, round_attempt_message
from barkd_py.ark.cosign import BadCosignature
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.rounds import FUNDING_VOUT, MIN_LEAVES
from barkd_py.ark.tree import RADIX, LeafSpec, TreeSpec, VtxoTree
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.musig import generate_nonce
from barkd_py.bitcoin.units import DUST_SAT, format_btc
from barkd_py.devnet.ark_server.failures import BadArgument, Failure
from barkd_py.devnet.ark_server.funds.treasury import Draft
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.store.participation_rows import Swap, WantedOutput

_PADDING_LEAF = LeafSpec(
    policy=PubkeyPolicy(
        PublicKey.from_hex("02dfa52f6690299d2d6a08323083e290597b56fee125063e5f4e2957731639c42c")
    ),
    amount_sat=DUST_SAT,
    cosign_pubkey=None,
    unlock_hash=bytes.fromhex("deadbeef" * 8),
)
"""What fills a tree that would have one leaf. Nobody knows the preimage."""


@dataclass(frozen=True, slots=True)
class AttestedInput:
    """A coin to swap, with the proof that it belongs to whoever asks."""

    vtxo_id: VtxoId
    attestation: bytes


@dataclass(frozen=True, slots=True)
class CosignedOutput:
    """A coin that a participant in person wants. pub_nonces: by level."""

    wanted: WantedOutput
    cosign_pubkey: PublicKey
    pub_nonces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """What a participant in person asks for."""

    inputs: tuple[AttestedInput, ...]
    outputs: tuple[CosignedOutput, ...]
    mailbox_id: PublicKey | None = None

    @property
    def input_ids(self) -> tuple[VtxoId, ...]:
        return tuple(each.vtxo_id for each in self.inputs)


@dataclass(frozen=True, slots=True)
class Registration:
    """A swap that takes part. outputs: empty for a delegated one; stored_id: of a delegated one."""

    swap: Swap
    outputs: tuple[CosignedOutput, ...] = ()
    stored_id: int | None = None

    def leaves(self) -> list[LeafSpec]:
        cosigners: Sequence[PublicKey | None] = [output.cosign_pubkey for output in self.outputs]
        if not cosigners:
            cosigners = [None] * len(self.swap.outputs)
        return [
            LeafSpec(wanted.policy, wanted.amount_sat, cosigner, self.swap.unlock_hash)
            for wanted, cosigner in zip(self.swap.outputs, cosigners, strict=True)
        ]


@dataclass
class Registrations:
    """Who takes part in an attempt. allowed: the only inputs that a later attempt takes."""

    settings: ServerSettings
    round_seq: int
    attempt_seq: int = 0
    allowed: frozenset[VtxoId] | None = None
    challenge: bytes = field(default_factory=lambda: token_bytes(32))
    in_person: list[Registration] = field(default_factory=list)
    delegated: list[Registration] = field(default_factory=list)

    @property
    def everybody(self) -> list[Registration]:
        """In the order of their leaves."""
        return [*self.in_person, *self.delegated]

    @property
    def input_ids(self) -> set[VtxoId]:
        return {vtxo_id for each in self.everybody for vtxo_id in each.swap.inputs}

    @property
    def free_leaves(self) -> int:
        used = sum(len(each.swap.outputs) for each in self.everybody)
        return int(RADIX**self.settings.nb_round_nonces) - used

    @property
    def is_full(self) -> bool:
        return self.free_leaves == 0

    def check_request(self, request: PaymentRequest) -> None:
        """The checks that need nothing but memory. Raises BadArgument, or Failure."""
        if not request.outputs:
            raise BadArgument("invalid request: no outputs")
        self._check_outputs(request.outputs)
        registered = self.input_ids
        if len(set(request.inputs)) != len(request.inputs):
            raise Failure("user provided duplicate inputs")
        for vtxo_id in request.input_ids:
            if vtxo_id in registered:
                raise Failure(f"vtxo {vtxo_id} already registered")
        for vtxo_id in request.input_ids:
            if not self.is_allowed(vtxo_id):
                raise Failure(f"input vtxo {vtxo_id} has been banned for this round")

    def _check_outputs(self, outputs: Sequence[CosignedOutput]) -> None:
        cosigners = {output.cosign_pubkey for each in self.in_person for output in each.outputs}
        most_sat = self.settings.max_vtxo_amount_sat
        for output in outputs:
            if len(output.pub_nonces) != self.settings.nb_round_nonces:
                raise Failure("incorrect number of cosign nonces per set")
            if output.cosign_pubkey in cosigners:
                raise Failure(f"duplicate cosign key {output.cosign_pubkey}")
            cosigners.add(output.cosign_pubkey)
            if most_sat is not None and output.wanted.amount_sat > most_sat:
                raise BadArgument(f"output exceeds maximum vtxo amount of {format_btc(most_sat)}")
        if len(outputs) > self.free_leaves:
            raise Failure("not enough outputs left in this round, try next round")

    def is_allowed(self, vtxo_id: VtxoId) -> bool:
        return self.allowed is None or vtxo_id in self.allowed

    def check_attestations(self, request: PaymentRequest, vtxos: Iterable[Vtxo]) -> None:
        """Raises Failure."""
        outputs = [(output.wanted, output.cosign_pubkey) for output in request.outputs]
        for each, vtxo in zip(request.inputs, vtxos, strict=True):
            message = round_attempt_message(self.challenge, vtxo.id, outputs)
            if not is_attested(message, vtxo.user_pubkey, each.attestation):
                raise Failure(f"attestation is invalid: vtxo {vtxo.id}, proof: {each.attestation.hex()}")

    def tree_spec(
        self, *, expiry_height: int, server_pubkey: PublicKey, cosign_pubkey: PublicKey
    ) -> TreeSpec:
        """The tree of everybody's outputs."""
        leaves = [leaf for each in self.everybody for leaf in each.leaves()]
        leaves += [_PADDING_LEAF] * (MIN_LEAVES - len(leaves))
        return TreeSpec(
            expiry_height=expiry_height,
            server_pubkey=server_pubkey,
            exit_delta=self.settings.vtxo_exit_delta,
            global_cosign_pubkeys=(cosign_pubkey,),
            leaves=tuple(leaves),
        )


class TreeSigning:
    """The signatures of a proposed tree.

    cosign_secret: the server's, of this attempt only; it signs every node. draft: the funding transaction.
    """

    def __init__(
        self, registrations: Registrations, spec: TreeSpec, draft: Draft, cosign_secret: SecretKey
    ) -> None:
        self.registrations = registrations
        self.draft = draft
        self.tree = VtxoTree(spec, draft.tx.outpoint(FUNDING_VOUT))
        self._cosign_secret = cosign_secret
        pairs = [generate_nonce(cosign_secret) for _ in self.tree.internal_nodes]
        self._sec_nonces = [sec_nonce for sec_nonce, _ in pairs]
        self._outputs = {
            output.cosign_pubkey: output for each in registrations.in_person for output in each.outputs
        }
        # Not by registration: what is proposed may have been tampered with on purpose.
        self._leaves = {
            leaf.cosign_pubkey: index
            for index, leaf in enumerate(spec.leaves)
            if leaf.cosign_pubkey in self._outputs
        }
        user_nonces = {
            index: self._outputs[key].pub_nonces for key, index in self._leaves.items() if key is not None
        }
        self.agg_nonces = self.tree.aggregate_nonces(user_nonces, [[pub_nonce for _, pub_nonce in pairs]])
        self._partials: dict[int, tuple[bytes, ...]] = {}

    @property
    def is_complete(self) -> bool:
        return len(self._partials) == len(self._leaves)

    def add(self, cosign_pubkey: PublicKey, partials: tuple[bytes, ...]) -> None:
        """Take one cosigner's signatures. A refused delivery may be corrected. Raises BadArgument."""
        leaf = self._leaves.get(cosign_pubkey)
        if leaf in self._partials:
            raise BadArgument("duplicate signatures for pubkey")
        if leaf is None:
            raise BadArgument("pubkey is not part of cosigner group")
        pub_nonces = self._outputs[cosign_pubkey].pub_nonces
        try:
            self.tree.verify_leaf_partials(leaf, pub_nonces, self.agg_nonces, partials)
        except BadCosignature as error:
            raise BadArgument(f"invalid partial signatures: {error}") from None
        self._partials[leaf] = partials

    def allowed_again(self) -> frozenset[VtxoId]:
        """The inputs of everybody who was not silent."""
        silent = {key for key, leaf in self._leaves.items() if leaf not in self._partials}
        banned = {
            vtxo_id
            for each in self.registrations.in_person
            if any(output.cosign_pubkey in silent for output in each.outputs)
            for vtxo_id in each.swap.inputs
        }
        return frozenset(self.registrations.input_ids - banned)

    def combine(self) -> tuple[bytes, ...]:
        """The signatures of all internal nodes. Once only."""
        ours = self.tree.cosign_all(self._cosign_secret, self._sec_nonces, self.agg_nonces)
        return self.tree.combine_partials(self.agg_nonces, self._partials, [ours])
