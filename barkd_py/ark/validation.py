"""Proofs about VTXOs: that one is what it says (`validate`), that its exit would relay (`verify_standard`).

Validation proves internal consistency: keys that the VTXO itself names signed a chain of transactions from
the anchor output to `point`. It does not prove that the real server or the user is among those keys, what
script tree hides behind an arkoor tweak, or that the anchor is confirmed and unspent. So besides validating:

- compare server key, exit delta and expiry with what is expected (`verify_terms`),
- compare amount, policy and user key with what was asked for,
- look at the anchor on chain.

Upstream takes the anchor transaction on trust; here its id must be the anchor point's.

Source: sheet 01 §10, §11, §16.
"""

from typing import Protocol

from barkd_py.ark.genesis import GenesisItem, HashLockedTransition
from barkd_py.ark.vtxo import MAX_U64, ExitStep, ServerVtxo, VtxoInvalid
from barkd_py.bitcoin.keys import PublicKey, verify_schnorr
from barkd_py.bitcoin.script import (
    ScriptType,
    dust_limit_sat,
    is_op_return,
    is_p2tr,
    is_push_only,
    script_type,
)
from barkd_py.bitcoin.tx import OutPoint, Tx, TxOut
from barkd_py.errors import BarkdError, ProtocolViolation

_TRUC_MAX_WEIGHT_WU = 4 * 10_000
_P2WPKH_DUST_SAT = 294
"""What nodes ask for; upstream's rule is 270."""


class AnchorMismatch(VtxoInvalid):
    """The anchor output is not the one that the VTXO needs."""

    def __init__(self, expected: TxOut, got: TxOut) -> None:
        super().__init__(
            "the chain anchor output doesn't match the VTXO; "
            f"expected: {_describe(expected)}, got: {_describe(got)}"
        )
        self.expected = expected
        self.got = got


class TransitionInvalid(VtxoInvalid):
    """An exit transaction is not signed, or not rightly. item: which one, from zero, of `count`."""

    def __init__(self, item: int, count: int, kind: str, reason: str) -> None:
        super().__init__(
            f"error verifying one of the genesis transitions (idx={item}/{count} type={kind}): {reason}",
            item,
        )
        self.count = count
        self.kind = kind
        self.reason = reason


class LeafNotLocked(ProtocolViolation):
    """What should be a locked leaf of a round is already spendable, so forfeiting for it buys nothing."""

    def __init__(self, vtxo: ServerVtxo) -> None:
        super().__init__(f"new un-unlocked VTXO should fail validation but doesn't: {vtxo.encode().hex()}")


class UnexpectedTerms(ProtocolViolation):
    """The server chose other terms than it announced."""


class NonStandardVtxo(BarkdError):
    """A VTXO that is valid, but whose exit transactions nodes would not relay."""


def validate(vtxo: ServerVtxo, anchor_tx: Tx, *, signed: bool = True) -> None:
    """Prove a VTXO against the transaction that holds its anchor.

    signed: False accepts missing and wrong signatures and preimages. Raises VtxoInvalid, of which
    TransitionInvalid is about signatures.
    """
    anchor = vtxo.anchor_point
    if anchor.vout >= len(anchor_tx.outputs):
        raise VtxoInvalid("the VTXO is invalid: chain anchor vout out of range")
    if vtxo.anchor_amount_sat > MAX_U64:
        raise VtxoInvalid("the VTXO is invalid: onchain amount overflow")
    anchor_output = anchor_tx.outputs[anchor.vout]
    if anchor_output != vtxo.anchor_output:
        raise AnchorMismatch(vtxo.anchor_output, anchor_output)
    if vtxo.genesis:
        _validate_chain(vtxo, anchor_tx.outpoint(anchor.vout), signed=signed)
    elif vtxo.point != anchor:
        raise VtxoInvalid("the VTXO is invalid: point of empty genesis vtxo doesn't match anchor point")
    # Last, so that a wrong transaction is first reported for what is wrong with it.
    if anchor_tx.txid != anchor.txid:
        raise VtxoInvalid(
            f"the VTXO is invalid: its anchor is {anchor}, but transaction {anchor_tx.txid} was given"
        )


def _validate_chain(vtxo: ServerVtxo, anchor: OutPoint, *, signed: bool) -> None:
    for index, step in enumerate(vtxo.exit_steps(anchor)):
        if signed:
            _verify_step(vtxo, index, step)
    if vtxo.point != OutPoint(step.tx.txid, step.item.output_idx):
        raise VtxoInvalid("the VTXO is invalid: point doesn't match computed exit outpoint")


def _verify_step(vtxo: ServerVtxo, index: int, step: ExitStep) -> None:
    transition = step.item.transition
    reason = transition.missing
    if reason is None and not is_signature_valid(vtxo, step):
        reason = "invalid signature"
    if reason is not None:
        raise TransitionInvalid(index, len(vtxo.genesis), transition.kind, reason)


def is_signature_valid(vtxo: ServerVtxo, step: ExitStep) -> bool:
    """Whether an exit transaction's signature is there and right, whatever of a preimage."""
    transition = step.item.transition
    if transition.signature is None:
        return False
    sighash = transition.sighash(step.tx, step.spent, vtxo.server_pubkey)
    key = transition.verify_key(vtxo.server_pubkey, vtxo.expiry_height)
    return verify_schnorr(key, sighash, transition.signature)


def verify_locked_leaf(vtxo: ServerVtxo, anchor_tx: Tx, *, leaf_signed: bool = True) -> None:
    """Prove that nothing but the unlock preimage stands between us and the leaf of a round.

    To be called before sending forfeits. leaf_signed: whether the leaf's own signature must be there, and
    right. Raises VtxoInvalid, or LeafNotLocked if the leaf is not locked at all.
    """
    validate(vtxo, anchor_tx, signed=False)
    if not vtxo.genesis:
        raise LeafNotLocked(vtxo)
    *nodes, leaf = vtxo.exit_steps()
    for index, step in enumerate(nodes):
        _verify_step(vtxo, index, step)
    transition = leaf.item.transition
    if not isinstance(transition, HashLockedTransition) or transition.preimage is not None:
        _verify_step(vtxo, len(nodes), leaf)
        raise LeafNotLocked(vtxo)
    if leaf_signed and not is_signature_valid(vtxo, leaf):
        reason = "missing signature" if transition.signature is None else "invalid signature"
        raise TransitionInvalid(len(nodes), len(vtxo.genesis), transition.kind, reason)


class _Terms(Protocol):
    @property
    def server_pubkey(self) -> PublicKey: ...
    @property
    def exit_delta(self) -> int: ...
    @property
    def expiry_height(self) -> int: ...


def verify_terms(given: _Terms, *, server_pubkey: PublicKey, exit_delta: int, min_expiry_height: int) -> None:
    """Check what the server chose for a VTXO or a tree of them. Raises UnexpectedTerms."""
    if given.server_pubkey != server_pubkey:
        raise UnexpectedTerms(
            "round VTXO tree uses an unexpected server pubkey: "
            f"got {given.server_pubkey}, expected {server_pubkey}"
        )
    if given.exit_delta != exit_delta:
        raise UnexpectedTerms(
            f"round VTXO tree uses an unexpected exit delta: got {given.exit_delta}, expected {exit_delta}"
        )
    if given.expiry_height < min_expiry_height:
        raise UnexpectedTerms(
            f"round VTXO tree expiry height {given.expiry_height} is below the required minimum "
            f"{min_expiry_height}; server may be trying to sweep before we can exit"
        )


def is_standard(vtxo: ServerVtxo) -> bool:
    """Whether the exit transactions relay."""
    return _standardness_problem(vtxo) is None


def verify_standard(vtxo: ServerVtxo) -> None:
    """Check that the exit transactions relay. Raises NonStandardVtxo with the first output that does not."""
    problem = _standardness_problem(vtxo)
    if problem is not None:
        raise NonStandardVtxo(problem)


def is_relayable(vtxo: ServerVtxo) -> bool:
    """Whether every node of today relays the exit transactions, each with a child that pays for it.

    Stricter than `is_standard`, which is upstream's: for what is taken in exchange for something, and may be
    worth nothing else. Source: BIP-431 (TRUC); the default policy of Bitcoin Core 28 and 29.
    """
    if not is_standard(vtxo):
        return False
    return all(_is_item_relayable(vtxo, item) for item in vtxo.genesis)


def _is_item_relayable(vtxo: ServerVtxo, item: GenesisItem) -> bool:
    if item.exit_tx_weight_wu(vtxo.server_pubkey, vtxo.expiry_height) > _TRUC_MAX_WEIGHT_WU:
        return False
    data = [each.script_pubkey for each in item.siblings if is_op_return(each.script_pubkey)]
    if len(data) > 1 or not all(is_push_only(script[1:]) for script in data):
        return False
    return not any(_is_dust_to_nodes(output) for output in item.siblings)


def _is_dust_to_nodes(output: TxOut) -> bool:
    is_key_hash = script_type(output.script_pubkey) is ScriptType.P2WPKH
    return is_key_hash and output.value_sat < _P2WPKH_DUST_SAT


def _standardness_problem(vtxo: ServerVtxo) -> str | None:
    if _is_dust(vtxo.output):
        return "the VTXO's own output is below the dust limit for its script type"
    count = len(vtxo.genesis)
    for index, item in enumerate(vtxo.genesis):
        for position, sibling in enumerate(item.siblings):
            place = f"sibling output at genesis item {index}/{count}, output {position}"
            if dust_limit_sat(sibling.script_pubkey) is None:
                return f"non-standard script in {place}"
            if _is_dust(sibling):
                return f"dust {place}"
    return None


def _is_dust(output: TxOut) -> bool:
    limit_sat = dust_limit_sat(output.script_pubkey)
    return limit_sat is not None and output.value_sat < limit_sat


def _describe(output: TxOut) -> str:
    """An output in upstream's words."""
    script = output.script_pubkey
    text = f"OP_PUSHNUM_1 OP_PUSHBYTES_32 {script[2:].hex()}" if is_p2tr(script) else script.hex()
    return f"TxOut {{ value: {output.value_sat} SAT, script_pubkey: Script({text}) }}"
