"""Cosigning the tree of a round: one key and a set of nonces per output, good for one attempt.

All of it is secret, and lives in memory only: whoever finds an attempt without its ticket knows that the
process that joined it is gone. Nonces are spent by signing, whatever comes of it.

Source: sheet 04 §6, §16, §17.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.ark.rounds import (
    AcceptedProposal,
    RoundOutput,
    RoundTerms,
    accept_finished,
    accept_proposal,
    bind_outputs,
    round_tree,
)
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.musig import SecNonce, generate_nonce
from barkd_py.server_rpc.api import RoundFinished, VtxoProposal
from barkd_py.wallet.rounds.states import Output, Signed


@dataclass(frozen=True, slots=True)
class Signer:
    """One output's cosign key and nonces, by level. Secret, and in memory only."""

    secret: SecretKey
    sec_nonces: tuple[SecNonce, ...]
    pub_nonces: tuple[bytes, ...]

    @classmethod
    def generate(cls, nb_nonces: int) -> "Signer":
        secret = SecretKey.generate()
        pairs = [generate_nonce(secret) for _ in range(nb_nonces)]
        return cls(secret, tuple(sec for sec, _ in pairs), tuple(pub for _, pub in pairs))

    def wipe(self) -> None:
        for nonce in self.sec_nonces:
            nonce.wipe()


Partials = Sequence[tuple[PublicKey, tuple[bytes, ...]]]


@dataclass(slots=True)
class Ticket:
    """What this process needs to go on with an attempt. partials: once the tree is signed."""

    signers: tuple[Signer, ...]
    partials: Partials = ()

    def wipe(self) -> None:
        for signer in self.signers:
            signer.wipe()


def sign_tree(
    proposal: VtxoProposal,
    outputs: Sequence[Output],
    signers: Sequence[Signer],
    unlock_hash: bytes,
    terms: RoundTerms,
) -> Partials:
    """Our signatures of the proposed tree, by cosign key.

    Raises RoundRejected, UnexpectedTerms, TreeInvalid, DecodeError: nothing was signed that could be used.
    """
    accepted = accept_proposal(
        proposal.vtxos_spec,
        proposal.unsigned_round_tx,
        proposal.agg_nonces,
        outputs=_cosigned(outputs, [signer.secret.public_key for signer in signers]),
        unlock_hash=unlock_hash,
        terms=terms,
        nb_nonces=min(len(signer.sec_nonces) for signer in signers),
    )
    return [
        (
            signer.secret.public_key,
            accepted.tree.cosign_leaf(leaf, signer.secret, signer.sec_nonces, proposal.agg_nonces),
        )
        for leaf, signer in zip(accepted.leaves, signers, strict=True)
    ]


def take_leaves(outputs: Sequence[Output], state: Signed, finished: RoundFinished) -> tuple[Vtxo, ...]:
    """Raises RoundRejected, TreeInvalid, VtxoInvalid."""
    tree = round_tree(state.spec, state.funding_tx.txid)
    leaves = bind_outputs(tree.spec, _cosigned(outputs, state.cosign_pubkeys), state.unlock_hash)
    return accept_finished(AcceptedProposal(tree, leaves), finished.signed_round_tx, finished.cosign_sigs)


def _cosigned(outputs: Sequence[Output], cosign_pubkeys: Sequence[PublicKey]) -> list[RoundOutput]:
    return [
        output.cosigned_by(cosign_pubkey)
        for output, cosign_pubkey in zip(outputs, cosign_pubkeys, strict=True)
    ]
