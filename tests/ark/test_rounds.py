"""Rounds: a whole swap between wallet and server, and every lie that a server could tell in one."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.cosign import BadCosignature
from barkd_py.ark.genesis import WrongPreimage
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.rounds import (
    MAX_LEAF_DEPTH,
    AcceptedProposal,
    ForfeitBundle,
    HarkForfeit,
    RefusedToForfeit,
    RoundOutput,
    RoundRejected,
    RoundTerms,
    accept_delegated,
    accept_finished,
    accept_proposal,
    bind_outputs,
    finish_leaf,
    leaf_task,
    unlock_vtxos,
    verify_exitable,
    verify_leaf_exits,
)
from barkd_py.ark.tree import LeafSpec, TreeInvalid, TreeSpec, VtxoTree
from barkd_py.ark.validation import UnexpectedTerms, validate
from barkd_py.ark.vtxo import NotAHarkLeaf, Vtxo, VtxoInvalid
from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.musig import generate_nonce
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.errors import ProtocolViolation, chain_text
from tests.ark import strategies
from tests.ark.test_vtxo import user_vtxo
from tests.ark.worked_examples import (
    EXIT_DELTA,
    EXPIRY_HEIGHT,
    SERVER,
    SERVER_SECRET,
    UNLOCK_HASH,
    UNLOCK_PREIMAGE,
    USER,
    USER_SECRET,
)
from tests.support.script_engine import is_spend_valid
from tests.support.vectors import Case, params

TREE_SIGNER = SecretKey(bytes([0xEE] * 32))
COSIGN = SecretKey(bytes([0xC0] * 32))
STRANGER = SecretKey(bytes([0x57] * 32))
NB_NONCES = 3
TERMS = RoundTerms(SERVER, EXIT_DELTA, EXPIRY_HEIGHT)
OUTPUT = RoundOutput(10_000, PubkeyPolicy(USER), COSIGN.public_key)


def leaf(output: RoundOutput) -> LeafSpec:
    return LeafSpec(output.policy, output.amount_sat, output.cosign_pubkey, UNLOCK_HASH)


OTHERS = tuple(
    LeafSpec(PubkeyPolicy(SecretKey(bytes([number] * 32)).public_key), 5_000, None, bytes([number] * 32))
    for number in range(1, 5)
)
SPEC = TreeSpec(EXPIRY_HEIGHT, SERVER, EXIT_DELTA, (TREE_SIGNER.public_key,), (*OTHERS, leaf(OUTPUT)))
OURS = len(OTHERS)


def funding_for(spec: TreeSpec) -> Tx:
    return Tx(2, (TxIn(OutPoint(Txid(bytes([8] * 32)), 1)),), (spec.funding_output, TxOut(777, b"\x51")))


@dataclass
class Proposal:
    """What a server sends, ready to be tampered with."""

    spec: TreeSpec
    funding: Tx
    agg_nonces: tuple[bytes, ...]

    def accept(
        self, outputs: tuple[RoundOutput, ...] = (OUTPUT,), nb_nonces: int = NB_NONCES
    ) -> AcceptedProposal:
        return accept_proposal(
            self.spec.encode(),
            self.funding,
            self.agg_nonces,
            outputs=outputs,
            unlock_hash=UNLOCK_HASH,
            terms=TERMS,
            nb_nonces=nb_nonces,
        )


class Server:
    """The honest server of one round in which only we cosign."""

    def __init__(self, spec: TreeSpec = SPEC) -> None:
        self.funding = funding_for(spec)
        self.tree = VtxoTree(spec, self.funding.outpoint(0))
        pairs = [generate_nonce(TREE_SIGNER) for _ in self.tree.internal_nodes]
        self._sec_nonces = [sec for sec, _ in pairs]
        self._pub_nonces = [pub for _, pub in pairs]

    def propose(self, user_nonces: list[bytes]) -> Proposal:
        self.agg_nonces = self.tree.aggregate_nonces({OURS: user_nonces}, [self._pub_nonces])
        return Proposal(self.tree.spec, self.funding, self.agg_nonces)

    def finish(self, partials: tuple[bytes, ...]) -> tuple[bytes, ...]:
        ours = self.tree.cosign_all(TREE_SIGNER, self._sec_nonces, self.agg_nonces)
        return self.tree.combine_partials(self.agg_nonces, {OURS: partials}, [ours])


@dataclass
class Finished:
    accepted: AcceptedProposal
    funding: Tx
    signatures: tuple[bytes, ...]


def run_round() -> Finished:
    server = Server()
    pairs = [generate_nonce(COSIGN) for _ in range(NB_NONCES)]
    proposal = server.propose([pub for _, pub in pairs])
    accepted = proposal.accept()
    assert accepted.leaves == (OURS,)
    partials = accepted.tree.cosign_leaf(OURS, COSIGN, [sec for sec, _ in pairs], proposal.agg_nonces)
    return Finished(accepted, proposal.funding, server.finish(partials))


FINISHED = run_round()
FINISHED_NONCE = generate_nonce(COSIGN)[1]
(LOCKED,) = accept_finished(FINISHED.accepted, FINISHED.funding, FINISHED.signatures)


def signed_leaf() -> Vtxo:
    return signed_by_both(LOCKED)


def signed_by_both(vtxo: Vtxo, user_secret: SecretKey = USER_SECRET) -> Vtxo:
    task = leaf_task(vtxo)
    sec_nonce, pub_nonce = task.generate_nonce(user_secret)
    return finish_leaf(vtxo, user_secret, sec_nonce, pub_nonce, task.cosign(SERVER_SECRET, pub_nonce))


def test_a_whole_swap() -> None:
    signed = signed_leaf()
    old = user_vtxo("upstream-v2-board")
    forfeit = HarkForfeit(old, UNLOCK_HASH)
    server_nonce, server_pub_nonce = forfeit.task.generate_nonce(SERVER_SECRET)
    bundle = ForfeitBundle.decode(forfeit.sign(USER_SECRET, server_pub_nonce).encode())
    forfeit_tx = forfeit.finish(bundle, SERVER_SECRET, server_nonce, server_pub_nonce)
    assert is_spend_valid(forfeit_tx, (old.output,))
    (unlocked,) = unlock_vtxos((signed,), UNLOCK_PREIMAGE, FINISHED.funding)
    validate(unlocked, FINISHED.funding)
    assert unlocked.is_fully_signed
    for step in unlocked.exit_steps():
        assert is_spend_valid(step.tx, (step.spent,))


# -- proposals


def tampered_proposals() -> dict[str, tuple[Callable[[Proposal], Proposal], str]]:
    def with_spec(**change: object) -> Callable[[Proposal], Proposal]:
        def tamper(proposal: Proposal) -> Proposal:
            spec = replace(proposal.spec, **change)  # type: ignore[arg-type]
            return Proposal(spec, funding_for(spec), proposal.agg_nonces[: spec.nb_internal_nodes])

        return tamper

    def with_our_leaf(**change: object) -> Callable[[Proposal], Proposal]:
        changed = replace(SPEC.leaves[OURS], **change)  # type: ignore[arg-type]
        return with_spec(leaves=(*OTHERS, changed))

    def with_funding(*outputs: TxOut) -> Callable[[Proposal], Proposal]:
        return lambda proposal: replace(proposal, funding=replace(proposal.funding, outputs=outputs))

    right = SPEC.funding_output
    missing, unpaid = "missing from the round's tree", "doesn't pay to its tree"
    return {
        "another server key": (with_spec(server_pubkey=STRANGER.public_key), "unexpected server pubkey"),
        "a longer exit delta": (with_spec(exit_delta=EXIT_DELTA + 1), "unexpected exit delta"),
        "a shorter exit delta": (with_spec(exit_delta=EXIT_DELTA - 1), "unexpected exit delta"),
        "expires a block early": (with_spec(expiry_height=EXPIRY_HEIGHT - 1), "below the required minimum"),
        "another unlock hash": (with_our_leaf(unlock_hash=bytes(32)), missing),
        "another cosign key": (with_our_leaf(cosign_pubkey=STRANGER.public_key), missing),
        "no cosign key": (with_our_leaf(cosign_pubkey=None), missing),
        "another amount": (with_our_leaf(amount_sat=9_999), missing),
        "another user key": (with_our_leaf(policy=PubkeyPolicy(STRANGER.public_key)), missing),
        "without our leaf": (with_spec(leaves=OTHERS), missing),
        "a single leaf": (with_spec(leaves=(leaf(OUTPUT),)), "at least 2 leaves"),
        "an aggregate nonce short": (
            lambda p: replace(p, agg_nonces=p.agg_nonces[:-1]),
            "expected 2 aggregate nonces, received 1",
        ),
        "an aggregate nonce more": (
            lambda p: replace(p, agg_nonces=(*p.agg_nonces, p.agg_nonces[0])),
            "expected 2 aggregate nonces, received 3",
        ),
        "no funding output": (with_funding(), unpaid),
        "funding of another amount": (with_funding(replace(right, value_sat=right.value_sat + 1)), unpaid),
        "funding of another script": (with_funding(replace(right, script_pubkey=b"\x51")), unpaid),
        "funding at another place": (with_funding(TxOut(777, b"\x51"), right), unpaid),
        "amounts that overflow": (
            lambda p: replace(
                p,
                spec=replace(
                    p.spec, leaves=(replace(p.spec.leaves[0], amount_sat=2**64 - 1), *p.spec.leaves[1:])
                ),
            ),
            "overflow",
        ),
    }


@pytest.mark.parametrize("lie", tampered_proposals())
def test_a_proposal_that_is_not_what_we_asked_for_is_refused(lie: str) -> None:
    """Each is sound but for its lie."""
    proposal = Server().propose([generate_nonce(COSIGN)[1] for _ in range(NB_NONCES)])
    proposal.accept()
    tamper, text = tampered_proposals()[lie]
    with pytest.raises((RoundRejected, UnexpectedTerms, TreeInvalid), match=text):
        tamper(proposal).accept()


def test_a_tree_too_high_for_our_nonces_is_refused() -> None:
    proposal = Server().propose([generate_nonce(COSIGN)[1] for _ in range(NB_NONCES)])
    with pytest.raises(RoundRejected, match="too high"):
        proposal.accept(nb_nonces=1)


def test_bytes_that_are_no_tree_are_refused() -> None:
    with pytest.raises(DecodeError):
        accept_proposal(
            b"\x02",
            FINISHED.funding,
            (),
            outputs=(OUTPUT,),
            unlock_hash=UNLOCK_HASH,
            terms=TERMS,
            nb_nonces=3,
        )


def test_every_output_has_a_leaf_of_its_own() -> None:
    twice = replace(SPEC, leaves=(leaf(OUTPUT), *OTHERS, leaf(OUTPUT)))
    assert bind_outputs(twice, (OUTPUT, OUTPUT), UNLOCK_HASH) == (0, 5)
    with pytest.raises(RoundRejected, match="missing"):
        bind_outputs(SPEC, (OUTPUT, OUTPUT), UNLOCK_HASH)


# -- finished rounds


def test_another_funding_transaction_is_refused() -> None:
    other = replace(FINISHED.funding, locktime=1)
    with pytest.raises(RoundRejected, match="doesn't match tx received before"):
        accept_finished(FINISHED.accepted, other, FINISHED.signatures)


def test_the_funding_transaction_may_get_its_witness() -> None:
    (tx_in,) = FINISHED.funding.inputs
    signed = replace(FINISHED.funding, inputs=(replace(tx_in, witness=(bytes(64),)),))
    assert accept_finished(FINISHED.accepted, signed, FINISHED.signatures) == (LOCKED,)


@pytest.mark.parametrize("index", range(2))
def test_a_bad_signature_anywhere_is_refused(index: int) -> None:
    signatures = list(FINISHED.signatures)
    signatures[index] = bytes([1] * 64)
    with pytest.raises(TreeInvalid):
        accept_finished(FINISHED.accepted, FINISHED.funding, signatures)


@pytest.mark.parametrize("signatures", [(), FINISHED.signatures[:1], (*FINISHED.signatures, bytes(64))])
def test_a_wrong_number_of_signatures_is_refused(signatures: tuple[bytes, ...]) -> None:
    with pytest.raises(TreeInvalid):
        accept_finished(FINISHED.accepted, FINISHED.funding, signatures)


def test_our_leaves_are_validated_however_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a forged point the VTXO's id would be another output's."""
    honest = VtxoTree.vtxo

    def forged(tree: VtxoTree, leaf: int, signatures: Any) -> Vtxo:
        vtxo = honest(tree, leaf, signatures)
        return replace(vtxo, point=OutPoint(vtxo.point.txid, 1))

    monkeypatch.setattr(VtxoTree, "vtxo", forged)
    with pytest.raises(VtxoInvalid, match="point doesn't match"):
        accept_finished(FINISHED.accepted, FINISHED.funding, FINISHED.signatures)


# -- delegated participations


def accept(
    *vtxos: Vtxo, outputs: tuple[RoundOutput, ...] = (OUTPUT,), unlock_hash: bytes = UNLOCK_HASH
) -> None:
    accept_delegated(vtxos, FINISHED.funding, outputs=outputs, unlock_hash=unlock_hash, terms=TERMS)


def test_the_leaves_of_a_delegated_participation_are_accepted() -> None:
    accept(LOCKED)


def with_leaf_key(vtxo: Vtxo) -> Vtxo:
    """A leaf that opens to a stranger. Everything above it is honest, so the tree must be another one."""
    item = vtxo.genesis[-1]
    foreign = replace(item, transition=replace(vtxo.hark_leaf, user_pubkey=STRANGER.public_key))
    return replace(vtxo, genesis=(*vtxo.genesis[:-1], foreign)).with_computed_point()


@pytest.mark.parametrize(
    "lie",
    [
        lambda vtxo: replace(vtxo, amount_sat=vtxo.amount_sat - 1),
        lambda vtxo: replace(vtxo, policy=PubkeyPolicy(STRANGER.public_key)),
        lambda vtxo: replace(vtxo, server_pubkey=STRANGER.public_key),
        lambda vtxo: replace(vtxo, exit_delta=vtxo.exit_delta + 1),
        lambda vtxo: replace(vtxo, expiry_height=vtxo.expiry_height - 1),
        lambda vtxo: replace(vtxo, anchor_point=OutPoint(vtxo.anchor_point.txid, 1)),
        lambda vtxo: replace(vtxo, anchor_point=OutPoint(Txid(bytes(32)), 0)),
        lambda vtxo: replace(vtxo, point=OutPoint(vtxo.point.txid, 1)),
        lambda vtxo: replace(vtxo, genesis=vtxo.genesis[:-1]).with_computed_point(),
        lambda vtxo: vtxo.with_preimage(UNLOCK_PREIMAGE).with_leaf_signature(bytes(64)),
        lambda vtxo: replace(vtxo, genesis=(replace(vtxo.genesis[0], output_idx=1), *vtxo.genesis[1:])),
        with_leaf_key,
    ],
)
def test_a_leaf_that_is_not_what_we_asked_for_is_refused(lie: Callable[[Vtxo], Vtxo]) -> None:
    with pytest.raises(ProtocolViolation):
        accept(lie(LOCKED))


def test_a_leaf_on_another_hash_than_we_forfeit_to_is_refused() -> None:
    """Or the server could take the forfeit with our preimage and keep the leaf's."""
    with pytest.raises(RoundRejected, match="another hash"):
        accept(LOCKED, unlock_hash=sha256(b"another"))


def honest_tree_with(spec: TreeSpec, vout: int = 0) -> tuple[Vtxo, Tx]:
    """Leaf `OURS` of a tree that only the server signs. vout: where in its funding transaction it is."""
    funding = funding_for(spec)
    funding = replace(funding, outputs=(TxOut(999, b"\x51"),) * vout + funding.outputs)
    tree = VtxoTree(spec, funding.outpoint(vout))
    pairs = [generate_nonce(TREE_SIGNER) for _ in tree.internal_nodes]
    agg_nonces = tree.aggregate_nonces({}, [[pub for _, pub in pairs]])
    partials = tree.cosign_all(TREE_SIGNER, [sec for sec, _ in pairs], agg_nonces)
    return tree.vtxo(OURS, tree.combine_partials(agg_nonces, {}, [partials])), funding


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"server_pubkey": STRANGER.public_key}, "unexpected server pubkey"),
        ({"exit_delta": EXIT_DELTA + 1}, "unexpected exit delta"),
        ({"exit_delta": EXIT_DELTA - 1}, "unexpected exit delta"),
        ({"expiry_height": EXPIRY_HEIGHT - 1}, "below the required minimum"),
    ],
)
def test_a_sound_tree_of_other_terms_is_refused(change: dict[str, Any], text: str) -> None:
    """Nothing else about it is wrong: without a look at its terms it would be forfeited for."""
    leaves = (*OTHERS, replace(leaf(OUTPUT), cosign_pubkey=None))
    vtxo, funding = honest_tree_with(replace(SPEC, leaves=leaves, **change))
    terms = replace(
        TERMS, **({"min_expiry_height": EXPIRY_HEIGHT - 1} if "expiry_height" in change else change)
    )
    accept_delegated((vtxo,), funding, outputs=(OUTPUT,), unlock_hash=UNLOCK_HASH, terms=terms)
    with pytest.raises(UnexpectedTerms, match=text):
        accept_delegated((vtxo,), funding, outputs=(OUTPUT,), unlock_hash=UNLOCK_HASH, terms=TERMS)


@pytest.mark.parametrize(
    "change", [{"amount_sat": OUTPUT.amount_sat - 1}, {"policy": PubkeyPolicy(STRANGER.public_key)}]
)
def test_a_sound_leaf_of_another_output_is_refused(change: dict[str, Any]) -> None:
    other = replace(leaf(OUTPUT), cosign_pubkey=None, **change)
    vtxo, funding = honest_tree_with(replace(SPEC, leaves=(*OTHERS, other)))
    with pytest.raises(RoundRejected, match="not the output"):
        accept_delegated((vtxo,), funding, outputs=(OUTPUT,), unlock_hash=UNLOCK_HASH, terms=TERMS)


def test_a_sound_leaf_of_another_funding_transaction_is_refused() -> None:
    other = replace(FINISHED.funding, locktime=1)
    with pytest.raises(RoundRejected, match="not anchored"):
        accept_delegated((LOCKED,), other, outputs=(OUTPUT,), unlock_hash=UNLOCK_HASH, terms=TERMS)


def test_a_leaf_whose_key_is_not_the_policy_s_is_refused() -> None:
    """A consistent tree in which the leaf opens to a stranger and pays to us."""
    foreign_leaf = replace(leaf(OUTPUT), policy=PubkeyPolicy(STRANGER.public_key), cosign_pubkey=None)
    vtxo, funding = honest_tree_with(replace(SPEC, leaves=(*OTHERS, foreign_leaf)))
    swapped = replace(vtxo, policy=OUTPUT.policy).with_computed_point()
    validate(swapped, funding, signed=False)
    with pytest.raises(RoundRejected, match="another key than its policy"):
        accept_delegated((swapped,), funding, outputs=(OUTPUT,), unlock_hash=UNLOCK_HASH, terms=TERMS)


def test_the_same_vtxo_twice_is_refused() -> None:
    with pytest.raises(RoundRejected, match=f"^server delivered duplicate VTXO {LOCKED.id}$"):
        accept(LOCKED, LOCKED, outputs=(OUTPUT, OUTPUT))


@pytest.mark.parametrize("vtxos", [(), (LOCKED, LOCKED)])
def test_the_number_of_vtxos_must_be_right(vtxos: tuple[Vtxo, ...]) -> None:
    with pytest.raises(RoundRejected, match="1 outputs"):
        accept(*vtxos)


def test_the_order_of_vtxos_must_be_ours() -> None:
    other = RoundOutput(5_000, OTHERS[0].policy)
    tree = FINISHED.accepted.tree
    second = tree.vtxo(0, FINISHED.signatures)
    with pytest.raises(RoundRejected, match="not the output"):
        accept(second, LOCKED, outputs=(OUTPUT, other))


# -- leaves


def test_a_leaf_signature_is_verified_before_it_is_kept() -> None:
    task = leaf_task(LOCKED)
    sec_nonce, pub_nonce = task.generate_nonce(USER_SECRET)
    answer = task.cosign(SERVER_SECRET, pub_nonce)
    with pytest.raises(BadCosignature):
        finish_leaf(LOCKED, USER_SECRET, sec_nonce, pub_nonce, answer._replace(partial_sig=bytes([1] * 32)))


def test_only_leaves_are_cosigned() -> None:
    with pytest.raises(NotAHarkLeaf):
        leaf_task(user_vtxo("board"))


@pytest.mark.parametrize("preimage", [bytes(32), UNLOCK_PREIMAGE[:31], UNLOCK_PREIMAGE + b"\x00", b""])
def test_a_wrong_preimage_unlocks_nothing(preimage: bytes) -> None:
    with pytest.raises(WrongPreimage):
        unlock_vtxos((signed_leaf(),), preimage, FINISHED.funding)


def test_a_leaf_that_is_not_signed_is_not_unlocked() -> None:
    with pytest.raises(VtxoInvalid, match="missing signature"):
        unlock_vtxos((LOCKED,), UNLOCK_PREIMAGE, FINISHED.funding)


# -- forfeits


def forfeit_of(case: Case) -> HarkForfeit:
    return HarkForfeit(Vtxo.decode_hex(case["vtxo_hex"]), bytes.fromhex(case["unlock_hash"]))


HARK_FORFEITS = params("forfeits", kind="hark-forfeit")


@pytest.mark.parametrize("case", HARK_FORFEITS)
def test_forfeits_are_upstream_s(case: Case) -> None:
    forfeit = forfeit_of(case)
    vtxo = forfeit.vtxo
    taproot = forfeit.policy.taproot(vtxo.server_pubkey, vtxo.exit_delta, vtxo.expiry_height)
    assert taproot.tweak.hex() == case["forfeit_taproot"]["tap_tweak"]
    assert forfeit.tx.serialize().hex() == case["unsigned_tx"]
    assert str(forfeit.tx.txid) == case["txid"]
    assert forfeit.task.sighash.hex() == case["sighash"]
    assert forfeit.task.tweak is not None
    assert forfeit.task.tweak.hex() == case["tap_tweak"]
    signature = bytes.fromhex(case["final_sig"])
    signed = forfeit.with_signature(signature)
    assert signed.serialize().hex() == case["signed_tx"]
    assert is_spend_valid(signed, (vtxo.output,))
    record = forfeit.server_vtxo(signature)
    assert record.encode().hex() == case["forfeit_vtxo"]["full_hex"]
    with pytest.raises(VtxoInvalid) as caught:
        validate(record, Tx.from_hex(case["anchor_tx"]))
    assert str(caught.value) == case["forfeit_vtxo_validate"]["error"]


@pytest.mark.parametrize("case", HARK_FORFEITS)
def test_upstream_s_bundles_are_verified(case: Case) -> None:
    forfeit = forfeit_of(case)
    bundle = ForfeitBundle.decode(bytes.fromhex(case["bundle_hex"]))
    assert bundle.encode().hex() == case["bundle_hex"]
    assert bundle.user_pub_nonce.hex() == case["bundle"]["user_pub_nonce"]
    assert bundle.partial_sig.hex() == case["bundle"]["user_partial_sig"]
    nonce = bytes.fromhex(case["server_pub_nonce"])
    forfeit.verify(bundle, nonce)

    _, other_nonce = forfeit.task.generate_nonce(SERVER_SECRET)
    with pytest.raises(BadCosignature) as caught:
        forfeit.verify(bundle, other_nonce)
    assert str(caught.value) == case["verify_with_other_server_nonce"]
    other = HarkForfeit(user_vtxo("upstream-v2-board"), forfeit.unlock_hash)
    with pytest.raises(BadCosignature) as caught:
        other.verify(bundle, nonce)
    assert str(caught.value) == case["verify_for_other_vtxo"]
    with pytest.raises(BadCosignature, match="unlock hash"):
        HarkForfeit(forfeit.vtxo, bytes(32)).verify(bundle, nonce)


def test_the_worked_forfeit() -> None:
    """Source: sheet 04 §24."""
    preimage = bytes.fromhex("c65f29e65dbc6cbad3e7f35c41986487c74ed513aeb37778354d42f3b0714645")
    forfeit = HarkForfeit(user_vtxo("upstream-v2-arkoor3"), sha256(preimage))
    assert forfeit.tx.serialize().hex() == (
        "030000000167754b5920d282ad276e8c80e1088f09238698bb674906fe47a0bfe2e98559120000000000ffffffff0210"
        "27000000000000225120d7466d0fd1930495ac5aff890fa192621ff888173a18ce7802a6601e364ddcd7000000000000"
        "00000451024e7300000000"
    )
    assert forfeit.task.sighash.hex() == "7b54890e2e0398466eee0a21ede5076727f4bca5d5516bd7bf5f5ae19bff2541"
    bundle = ForfeitBundle.decode(
        bytes.fromhex(
            "0167754b5920d282ad276e8c80e1088f09238698bb674906fe47a0bfe2e9855912000000003d5491373df6a016f78b3f"
            "46d65a4fc6948824c43a59620404e8719cfee05d1a02afcb2341f8ff179d12fe0bf586653dc1ae91f97df02ab25958ec"
            "c37675b611bd0225697fa9181018d4a8b2130d4464df40beb48b80534dec43662b0115ac5dad95a102613bd646bceb9a"
            "fbd895e8092ec504e5b4a419c027114445dff521569bf5"
        )
    )
    nonce = bytes.fromhex(
        "03b4d5711322b73c8c412d0d6a6bce0af1eb98662c6fac8faeab3d6979d77c7430"
        "034ff4c184887f764d00af812a1c155ca8be4d18a6c012fea0d6b4a819b451414e"
    )
    forfeit.verify(bundle, nonce)


def test_a_forfeit_is_signed_anew_each_time_and_by_its_owner_only() -> None:
    forfeit = HarkForfeit(user_vtxo("upstream-v2-board"), UNLOCK_HASH)
    _, nonce = forfeit.task.generate_nonce(SERVER_SECRET)
    first, second = forfeit.sign(USER_SECRET, nonce), forfeit.sign(USER_SECRET, nonce)
    assert first.user_pub_nonce != second.user_pub_nonce
    with pytest.raises(ValueError, match="incorrect signing key"):
        forfeit.sign(STRANGER, nonce)
    with pytest.raises(BadCosignature, match="malformed"):
        forfeit.sign(USER_SECRET, bytes(66))


def test_a_failed_finish_spends_the_server_s_nonce() -> None:
    forfeit = HarkForfeit(user_vtxo("upstream-v2-board"), UNLOCK_HASH)
    sec_nonce, nonce = forfeit.task.generate_nonce(SERVER_SECRET)
    bundle = forfeit.sign(USER_SECRET, nonce)
    with pytest.raises(BadCosignature):
        forfeit.finish(replace(bundle, partial_sig=bytes([1] * 32)), SERVER_SECRET, sec_nonce, nonce)
    with pytest.raises(ValueError):
        forfeit.finish(bundle, SERVER_SECRET, sec_nonce, nonce)


@pytest.mark.parametrize("case", params("invalid", decoder="forfeit-bundle"))
def test_bundles_are_refused_as_upstream_does(case: Case) -> None:
    data, expected = bytes.fromhex(case["hex"]), case["result"]
    if expected["ok"]:
        assert ForfeitBundle.decode(data).encode().hex() == expected["reencoded"]
        return
    with pytest.raises(DecodeError) as caught:
        ForfeitBundle.decode(data)
    assert chain_text(caught.value) == expected["error_chain"]
    assert caught.value.kind.value == expected["variant"]


@given(st.data())
def test_a_changed_byte_gives_another_bundle_or_none(data: st.DataObject) -> None:
    bundle = ForfeitBundle.decode(bytes.fromhex(HARK_FORFEITS[0].values[0]["bundle_hex"]))
    changed = strategies.change_a_byte(data, bundle.encode())
    try:
        other = ForfeitBundle.decode(changed)
    except DecodeError:
        return
    assert other != bundle
    assert other.encode() == changed


# -- is it safe to forfeit?


def test_what_hangs_beside_our_leaf_must_relay_as_well() -> None:
    """Nodes relay no transaction with dust: ours would be worth nothing. Source: sheet 06 §1."""
    dust = replace(OTHERS[3], amount_sat=1)
    beside, elsewhere = (*OTHERS[:2], leaf(OUTPUT), dust, OTHERS[2]), (*OTHERS[:3], dust, leaf(OUTPUT))
    for leaves, is_refused in ((elsewhere, False), (beside, True)):
        spec = replace(SPEC, leaves=leaves)
        nonces = SPEC.nb_internal_nodes * (FINISHED_NONCE,)
        proposal = Proposal(spec, funding_for(spec), nonces)
        if is_refused:
            with pytest.raises(RoundRejected, match="nodes would not relay the exit"):
                proposal.accept()
        else:
            proposal.accept()


def test_a_leaf_is_not_taken_at_any_depth() -> None:
    item = LOCKED.genesis[0]
    deepest = replace(LOCKED, genesis=(item,) * (MAX_LEAF_DEPTH - 1) + LOCKED.genesis[-1:])
    verify_leaf_exits(deepest)
    with pytest.raises(RoundRejected, match="too many"):
        verify_leaf_exits(replace(deepest, genesis=(item, *deepest.genesis)))


def test_a_delegated_leaf_must_be_one_that_can_exit() -> None:
    outputs = (replace(OUTPUT, cosign_pubkey=None),)
    item = LOCKED.genesis[0]
    dust = replace(item.siblings[0], value_sat=1)
    for genesis, text in (
        ((replace(item, siblings=(dust, *item.siblings[1:])), *LOCKED.genesis[1:]), "nodes would not relay"),
        ((item,) * MAX_LEAF_DEPTH + LOCKED.genesis[-1:], "too many"),
    ):
        with pytest.raises(RoundRejected, match=text):
            accept_delegated(
                (replace(LOCKED, genesis=genesis),),
                FINISHED.funding,
                outputs=outputs,
                unlock_hash=UNLOCK_HASH,
                terms=TERMS,
            )


_TWO_EXITS = 12 + 1 + 2 * 6 + 12 + LOCKED.exit_depth
"""A margin and a block for the input, twice its exit delta, a margin and blocks for the new one."""


@pytest.mark.parametrize(
    ("tip_height", "safe"), [(101_000 - _TWO_EXITS, True), (101_001 - _TWO_EXITS, False)]
)
def test_two_exits_must_fit_before_the_new_coin_expires(tip_height: int, safe: bool) -> None:
    """Source: sheet 04 §26, 9."""
    old = replace(user_vtxo("board"), exit_delta=6)
    new = replace(LOCKED, expiry_height=101_000)
    assert (old.exit_depth, new.exit_depth) == (1, 2)
    if safe:
        verify_exitable((new,), (old,), tip_height=tip_height, exit_margin=12)
        return
    with pytest.raises(RefusedToForfeit, match="refusing to forfeit our input VTXOs"):
        verify_exitable((new,), (old,), tip_height=tip_height, exit_margin=12)


def test_expired_coins_have_nothing_to_lose() -> None:
    new = replace(LOCKED, expiry_height=101_000)
    expired = replace(user_vtxo("board"), expiry_height=100_990, exit_delta=6)
    alive = replace(expired, expiry_height=100_991)
    verify_exitable((new,), (expired,), tip_height=100_990, exit_margin=12)
    with pytest.raises(RefusedToForfeit):
        verify_exitable((new,), (expired, alive), tip_height=100_990, exit_margin=12)
