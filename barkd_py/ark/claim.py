"""Claims: spending a VTXO's output by its user alone, once the exit transactions are confirmed and matured.

A claim takes the first clause of the policy that the wallet can sign: it has the clause's key and, where the
clause asks for one, the preimage. One transaction can claim any number of VTXOs. Its locktime is the tip's
height, which satisfies every clause with a height that has been reached; each input waits as long as its
clause says.

Source: sheet 01 §5, §12, §13.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from barkd_py.ark.clause import Clause, HashSign
from barkd_py.ark.vtxo import VtxoData, VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.sighash import taproot_script_spend_sighash
from barkd_py.bitcoin.taproot import commits_to, leaf_hash
from barkd_py.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from barkd_py.errors import BarkdError

CLAIM_TX_VERSION = 2

FindSecret = Callable[[PublicKey], SecretKey | None]
FindPreimage = Callable[[bytes], bytes | None]


class NotClaimable(BarkdError):
    """The wallet can sign none of a VTXO's clauses."""

    def __init__(self, vtxo_id: VtxoId) -> None:
        super().__init__("the vtxo has no clause signable by the provided signer")
        self.vtxo_id = vtxo_id


@dataclass(frozen=True, slots=True)
class ClaimInput:
    """How one VTXO's output is to be spent."""

    outpoint: OutPoint
    output: TxOut
    clause: Clause
    control_block: bytes
    preimage: bytes | None

    @property
    def sequence(self) -> int:
        """The input's sequence, which is the delay that its clause demands."""
        return self.clause.sequence or 0

    @property
    def min_locktime(self) -> int:
        """The height that must be reached."""
        return self.clause.locktime or 0

    @property
    def witness_size(self) -> int:
        """The size of the witness in bytes, which is its weight."""
        return self.clause.witness_size(self.control_block)


def find_clause(
    vtxo: VtxoData, *, is_ours: Callable[[PublicKey], bool], find_preimage: FindPreimage
) -> ClaimInput | None:
    """The first clause that the wallet can sign, if there is one.

    is_ours: whether the wallet has the secret of a key. find_preimage: by its SHA-256.
    """
    for index, clause in enumerate(vtxo.clauses):
        # The key of such a clause is an aggregate, which no wallet has.
        if isinstance(clause, HashSign) or not is_ours(clause.pubkey):
            continue
        preimage = None
        if clause.hash is not None:
            preimage = find_preimage(clause.hash)
            if preimage is None:
                continue
        control_block = vtxo.output_taproot.control_block(index)
        return ClaimInput(vtxo.point, vtxo.output, clause, control_block, preimage)
    return None


def claim_input(
    vtxo: VtxoData, *, is_ours: Callable[[PublicKey], bool], find_preimage: FindPreimage
) -> ClaimInput:
    """As `find_clause`. Raises NotClaimable."""
    found = find_clause(vtxo, is_ours=is_ours, find_preimage=find_preimage)
    if found is None:
        raise NotClaimable(vtxo.id)
    return found


def build_claim_tx(inputs: Sequence[ClaimInput], outputs: Iterable[TxOut], *, locktime: int) -> Tx:
    """The unsigned claim. locktime: the tip's height. Raises ValueError if a clause needs a higher one."""
    if any(claim.min_locktime > locktime for claim in inputs):
        raise ValueError("a clause does not open before a greater height")
    tx_ins = tuple(TxIn(claim.outpoint, sequence=claim.sequence) for claim in inputs)
    return Tx(CLAIM_TX_VERSION, tx_ins, tuple(outputs), locktime)


def claim_weight_wu(inputs: Sequence[ClaimInput], outputs: Iterable[TxOut]) -> int:
    """The weight that the signed claim will have."""
    unsigned = build_claim_tx(
        inputs, outputs, locktime=max((claim.min_locktime for claim in inputs), default=0)
    )
    # Two bytes mark a transaction with witnesses.
    return unsigned.weight_wu + 2 + sum(claim.witness_size for claim in inputs)


def sign_claim_tx(
    tx: Tx, inputs: Sequence[ClaimInput], find_secret: FindSecret, *, aux32: bytes | None = None
) -> Tx:
    """The claim with its witnesses.

    aux32: randomness of the signatures; fresh unless given. Raises ValueError if a secret is missing, or an
    output is not open to its clause.
    """
    prevouts = tuple(claim.output for claim in inputs)
    signed = []
    for index, (tx_in, claim) in enumerate(zip(tx.inputs, inputs, strict=True)):
        secret = find_secret(claim.clause.pubkey)
        if secret is None:
            raise ValueError("the secret key of a clause is missing")
        if not commits_to(claim.output.script_pubkey, claim.clause.script, claim.control_block):
            raise ValueError("a clause is not one of its output")
        sighash = taproot_script_spend_sighash(tx, index, prevouts, leaf_hash(claim.clause.script))
        signature = secret.sign_schnorr(sighash, aux32)
        witness = claim.clause.witness(signature, claim.control_block, claim.preimage)
        signed.append(replace(tx_in, witness=witness))
    return Tx(tx.version, tuple(signed), tx.outputs, tx.locktime)


def extract_preimage(witness: Iterable[bytes], hash32: bytes) -> bytes | None:
    """The preimage of a hash, if a mined witness reveals it, wherever in the stack it is."""
    return next((item for item in witness if len(item) == 32 and sha256(item) == hash32), None)
