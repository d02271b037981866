"""Trees: upstream's shapes, transactions and signatures, cosigning by all parties, and hostile trees."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.clause import HashLock
from barkd_py.ark.cosign import BadCosignature
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.tree import (
    RADIX,
    LeafSpec,
    SignedTreeSpec,
    TreeInvalid,
    TreeSpec,
    VtxoTree,
    tree_shape,
)
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import MAX_U64, Vtxo, VtxoInvalid
from barkd_py.bitcoin.encode import DecodeError, Reader, compact_size
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.musig import SecNonce, generate_nonce
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn
from barkd_py.errors import chain_text
from tests.ark import strategies
from tests.ark.worked_examples import EXIT_DELTA, EXPIRY_HEIGHT, SERVER, UNLOCK_HASH
from tests.support.script_engine import is_spend_valid
from tests.support.vectors import Case, as_dict, cases, expected_outcome, params

TREES = params("tree")
BY_NAME = {case["name"]: case for case in cases("tree")}


def signed_spec(case: Case) -> SignedTreeSpec:
    return SignedTreeSpec.decode(bytes.fromhex(case["signed_tree_hex"]))


# -- shape


@pytest.mark.parametrize(
    ("nb_leaves", "internal_nodes"),
    [
        (2, {2: ([0, 1], 1)}),
        (4, {4: ([0, 1, 2, 3], 1)}),
        (5, {5: ([0, 1, 2, 3], 1), 6: ([4, 5], 2)}),
        (6, {6: ([0, 1, 2, 3], 1), 7: ([4, 5, 6], 2)}),
        (7, {7: ([0, 1, 2, 3], 1), 8: ([4, 5, 6, 7], 2)}),
        (8, {8: ([0, 1, 2, 3], 1), 9: ([4, 5, 6, 7], 1), 10: ([8, 9], 2)}),
        (9, {9: ([0, 1, 2, 3], 1), 10: ([4, 5, 6, 7], 1), 11: ([8, 9, 10], 2)}),
        (
            11,
            {
                11: ([0, 1, 2, 3], 1),
                12: ([4, 5, 6, 7], 1),
                13: ([8, 9, 10, 11], 2),
                14: ([12, 13], 3),
            },
        ),
        (
            27,
            {
                **{27 + k: ([4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3], 1) for k in range(6)},
                33: ([24, 25, 26, 27], 2),
                34: ([28, 29, 30, 31], 2),
                35: ([32, 33, 34], 3),
            },
        ),
    ],
)
def test_shapes(nb_leaves: int, internal_nodes: dict[int, tuple[list[int], int]]) -> None:
    """Source: sheet 04 §3."""
    found = {node.index: (list(node.children), node.level) for node in tree_shape(nb_leaves)[nb_leaves:]}
    assert found == internal_nodes


def test_leaf_lists_wrap() -> None:
    assert tree_shape(7)[-1].leaves == (4, 5, 6, 0, 1, 2, 3)


def test_a_tree_of_65535_leaves_has_nine_levels() -> None:
    assert tree_shape(65_535)[-1].level == 9


@given(st.integers(1, 300))
def test_every_shape_is_a_tree(nb_leaves: int) -> None:
    nodes = tree_shape(nb_leaves)
    root = nodes[-1]
    assert root.parent is None
    assert sorted(root.leaves) == list(range(nb_leaves))
    for node in nodes[:-1]:
        assert node.parent is not None
        parent = nodes[node.parent]
        assert parent.children[node.position] == node.index
        assert parent.level > node.level
        assert parent.index > node.index
    for node in nodes[nb_leaves:]:
        assert 2 <= len(node.children) <= RADIX
        assert node.leaves == sum((nodes[child].leaves for child in node.children), ())


def test_no_tree_is_empty() -> None:
    with pytest.raises(ValueError, match="at least one leaf"):
        tree_shape(0)


# -- against upstream


@pytest.mark.parametrize("case", TREES)
def test_specs_are_upstream_s_byte_for_byte(case: Case) -> None:
    spec = TreeSpec.decode(bytes.fromhex(case["spec_hex"]))
    expected = case["spec"]
    assert spec.encode().hex() == case["spec_hex"]
    assert [leaf.encode().hex() for leaf in spec.leaves] == [leaf["encoded"] for leaf in expected["leaves"]]
    assert [key.hex() for key in spec.global_cosign_pubkeys] == expected["global_cosign_pubkeys"]
    assert (spec.expiry_height, spec.exit_delta) == (expected["expiry_height"], expected["exit_delta"])
    assert spec.total_amount_sat == case["total_required_value"]
    assert as_dict(spec.funding_output) == case["funding_txout"]
    assert spec.funding_taproot.internal_key.hex() == case["funding_cosign_xonly"]


@pytest.mark.parametrize("case", TREES)
def test_nodes_are_upstream_s(case: Case) -> None:
    signed = signed_spec(case)
    assert signed.encode().hex() == case["signed_tree_hex"]
    assert str(signed.utxo) == case["utxo"]
    tree = signed.tree()
    assert tree.lock.value == case["detected_hashlock_version"]
    for node, expected in zip(tree.nodes, case["nodes"], strict=True):
        assert (node.index, node.level, node.parent) == (
            expected["idx"],
            expected["level"],
            expected["parent"],
        )
        assert list(node.children) == expected["children"]
        assert list(node.leaves) == expected["leaves"]
        assert as_dict(tree.spent_output(node)) == expected["prevout"]
        assert tree.tx(node).serialize().hex() == expected["unsigned_tx"]
        assert str(tree.tx(node).txid) == expected["txid"]
    for node, signature in zip(tree.internal_nodes, signed.signatures, strict=True):
        expected = case["nodes"][node.index]
        assert tree.internal_index(node) == expected["internal_idx"]
        assert [key.hex() for key in tree.spec.cosign_pubkeys(node)] == expected["cosign_pubkeys"]
        assert tree.taproot(node).tweak.hex() == expected["taproot"]["tap_tweak"]
        assert tree.sighash(node).hex() == expected["sighash"]
        assert signature.hex() == expected["final_sig"]
        (tx_in,) = tree.tx(node).inputs
        spend = replace(tree.tx(node), inputs=(replace(tx_in, witness=(signature,)),))
        assert spend.serialize().hex() == expected["signed_tx"]
        assert is_spend_valid(spend, (tree.spent_output(node),))
    tree.verify_signatures(signed.signatures)


@pytest.mark.parametrize("case", TREES)
def test_vtxos_are_upstream_s(case: Case) -> None:
    signed = signed_spec(case)
    tree, funding = signed.tree(), Tx.from_hex(case["funding_tx"])
    for leaf in case["leaves"]:
        index = leaf["leaf_idx"]
        locked = tree.vtxo(index, signed.signatures)
        assert locked.encode().hex() == leaf["locked_vtxo_hex"]
        assert str(locked.id) == leaf["vtxo_id"]
        final = locked.with_leaf_signature(bytes.fromhex(leaf["leaf_cosign"]["final_sig"])).with_preimage(
            bytes.fromhex(leaf["unlock_preimage"])
        )
        assert final.encode().hex() == leaf["final_vtxo_hex"]
        assert _outcome(locked, funding) == expected_outcome(leaf["validate_locked"])
        assert _outcome(locked, funding, signed=False) == expected_outcome(leaf["validate_locked_unsigned"])
        assert _outcome(final, funding) == expected_outcome(leaf["validate_final"])


def _outcome(vtxo: Vtxo, funding: Tx, *, signed: bool = True) -> str:
    try:
        validate(vtxo, funding, signed=signed)
    except VtxoInvalid as error:
        return str(error)
    return "ok"


@pytest.mark.parametrize("case", [param for param in TREES if "internal_vtxos" in param.values[0]])
def test_the_server_s_records_are_upstream_s(case: Case) -> None:
    signed = signed_spec(case)
    tree = signed.tree()
    ours = {tree.internal_vtxo(node, signed.signatures).encode().hex() for node in tree.nodes}
    assert ours == {vtxo["full_hex"] for vtxo in case["internal_vtxos"]}


def test_one_leaf_is_computed_without_the_others() -> None:
    """For who owns one leaf of a great tree, the work is in the branch."""
    signed = signed_spec(BY_NAME["interactive-17"])
    tree = signed.tree()
    vtxo = tree.vtxo(0, signed.signatures)
    assert str(vtxo.id) == BY_NAME["interactive-17"]["leaves"][0]["vtxo_id"]
    assert len(tree._txs) == 1 + len(tree.branch(0))


@pytest.mark.parametrize(("name", "weight_wu"), [("interactive-2", 668), ("interactive-4", 1012)])
def test_weights_of_signed_nodes(name: str, weight_wu: int) -> None:
    """Source: sheet 04 §4."""
    assert Tx.from_hex(BY_NAME[name]["nodes"][-1]["signed_tx"]).weight_wu == weight_wu


WORKED_SPEC = (
    "02928a01000365a81233741893bbe2461b8d479dadc5880594fe6f7479180d5843820af72b62e00701024482039ebf3624"
    "525061f88aa01d4a02b3f2224eee8b4060ae0cbf036b24274307000374a3ec37cc4ccd29717388e6dc24f2aa366632f1a3"
    "6a49e73cd7671b231792981027000000000000036e64c16a01e3d18908a15b55251a5db74ff2c1142c02abd048222893b2"
    "a18a16531f51576ab2591af807f4a82b184511d00ab9638b9c23aee8f075dd282e3954080256fda20ffb102f6cf8590d27"
    "433ce036d29927fb35324d15d9915df888f16ecd9ea50d885c3f66d40d27e779648ba8dc730629663f65a3e6f7749b4a35"
    "b6dfecc282010028001027000000000000024ac23c8d3f6e0b1116e34f68ee7c9e4c19eba30213e8fae0925d70faf8d1ec"
    "c4fe08795830001712d1cf77af39dab3a36689f1b97365bc53a164abeab5e72be00002210e5f63976a1df5f0168ba9a7a0"
    "89b68c0779fc433fabaa41bd23a70e66420d881300000000000003932b1b0224e375471c938ea84bd17df7d8295941b2db"
    "68a6623610dd959b2eb3d2b5a80f20411d04179edac0de075600523d9a430dab0e96f069d99c2eaeb051000352c05f38de"
    "aae36425c6d9ed12effcb0389bf3f7f9112b728c8a7220b50cc11a881300000000000003d215f5e88aefa7a2a979477187"
    "8f3d6caf20e884c1e0ce923cfa9dea261bb4e2e314bc7f00bab9532dde5c786600da05543db219fdd1e81345ebc1db78af"
    "8f0000030b35f3f259e8b3aff53f94c7c8f653a35e5311ebb86d13134d6bfcedf3b375248813000000000000039e8a040d"
    "9c1fba5a7b0db8485d8f167f8d2590afd8595f9eb9ba7a769347ba265f099e3415132e3b82eeeee19f34465094720c6ea3"
    "74a39bfb07cff5a22900e8000256a5efb04f9b0596d8f83dabad196bca0fda581a85ec49711e541465462c0b5388130000"
    "0000000002bd0ad185b18089d37d20dd784b99003914faadcc59f37bbf3273a3b5cd22ed501ae7beac77e4c3e5760715b4"
    "432b03456f9a3c9007076781d235e0c948d0ae3700039d2be22927ce084add1694dfebe2034003f2c0be72cf9f058f82b6"
    "ccd7ab0000881300000000000002568a3a6d25000fc942f0443dc76be4ef688e8c8dc055591de1f2cc1c847b1ed3d03c75"
    "cd96296b8dc11b57a13bf9d787a2f30248fc45df2b185b12a763cd350f"
)


def test_the_worked_tree_of_seven() -> None:
    """Source: sheet 04 §24."""
    spec = TreeSpec.decode(bytes.fromhex(WORKED_SPEC))
    assert len(WORKED_SPEC) == 2 * 862
    assert spec.encode().hex() == WORKED_SPEC
    assert as_dict(spec.funding_output) == {
        "value": 45_000,
        "script_pubkey": "5120649657f65947abfd83ff629ad8a851c795f419ed4d52a2748d3f868cc3e6c94d",
    }
    assert spec.funding_taproot.tweak.hex() == (
        "30058751dd20837714fbfc6d339218895a0db0c14af7a6d348eb37b2391d9754"
    )
    utxo = OutPoint.parse("abd5d39844c20383aa167cbcb6f8e8225a6d592150b9524c96594187493cc2a3:0")
    tree = VtxoTree(spec, utxo)
    root, node = tree.nodes[8], tree.nodes[7]
    assert str(tree.tx(root).txid) == "09f89b15d3438dc3324b504691653e32ee31c9bbd009db3a1690f3c4f0021825"
    assert tree.sighash(root).hex() == "051234f6b5e44b5d86be53369e580d61f146834bc9363282512193dbd4eb25aa"
    assert str(tree.tx(node).txid) == "c57eb051e65d308398b07694d4b67c16713cf470c3532e44d1cd02ccbd675b38"
    assert tree.sighash(node).hex() == "ed913cd54deebff806ccc4ec84cffe1e6db6f5b7ea19eb8f5c8810e50deac277"
    vtxo = tree.vtxo(0, (bytes(64), bytes(64)))
    assert str(vtxo.id) == "89040cdcdb061cd84deb503967ea736e386bda352a3c31ef49882ae3ee7f02d9:0"
    assert [item.output_idx for item in vtxo.genesis] == [3, 0, 0]


@pytest.mark.parametrize("position", [10, 100, 500, 861])
def test_every_byte_of_a_spec_counts(position: int) -> None:
    data = bytes.fromhex(WORKED_SPEC)
    changed = data[:position] + bytes((data[position] ^ 1,)) + data[position + 1 :]
    try:
        spec = TreeSpec.decode(changed)
    except DecodeError:
        return
    utxo = OutPoint(Txid(bytes(32)), 0)
    original = VtxoTree(TreeSpec.decode(data), utxo)
    other = VtxoTree(spec, utxo)
    leaves = [(a, b) for a, b in zip(original.nodes[:7], other.nodes[:7], strict=True)]
    assert original.spec.funding_output != spec.funding_output or any(
        original.tx(a).txid != other.tx(b).txid for a, b in leaves
    )


# -- encodings


DECODERS = {
    "vtxo-tree-spec": lambda data: TreeSpec.decode(data).encode(),
    "vtxo-leaf-spec": lambda data: _decode_leaf(data).encode(),
    "signed-vtxo-tree-spec": lambda data: SignedTreeSpec.decode(data).encode(),
}


def _decode_leaf(data: bytes) -> LeafSpec:
    reader = Reader(data)
    leaf = LeafSpec.read(reader)
    reader.finish()
    return leaf


@pytest.mark.parametrize(
    ("decoder", "case"),
    [
        pytest.param(decoder, param.values[0], id=f"{decoder}: {param.id}")
        for decoder in DECODERS
        for param in params("invalid", decoder=decoder)
        if "hex" in param.values[0]
    ],
)
def test_decoders_agree_with_upstream(decoder: str, case: Case) -> None:
    data, expected = bytes.fromhex(case["hex"]), case["result"]
    if expected["ok"]:
        assert DECODERS[decoder](data).hex() == expected["reencoded"]
        return
    with pytest.raises(DecodeError) as caught:
        DECODERS[decoder](data)
    assert str(caught.value) == expected["error"]
    assert chain_text(caught.value) == expected["error_chain"]
    assert caught.value.kind.value == expected["variant"]


def test_the_number_of_leaves_is_limited_before_any_is_read() -> None:
    (case,) = [case for case in cases("invalid", decoder="vtxo-tree-spec") if "max" in case]
    spec = TreeSpec.decode(bytes.fromhex(WORKED_SPEC))
    header = spec.encode()[: -sum(len(leaf.encode()) for leaf in spec.leaves) - 1]
    with pytest.raises(DecodeError, match="failed to fill whole buffer"):
        TreeSpec.decode(header + compact_size(case["max"]))
    with pytest.raises(DecodeError, match=f"requested={case['max'] + 1}, max={case['max']}"):
        TreeSpec.decode(header + compact_size(case["max"] + 1))


leaf_specs = st.builds(
    LeafSpec, strategies.policies, strategies.u64s, st.none() | strategies.public_keys, strategies.bytes32
)
tree_specs = st.builds(
    TreeSpec,
    strategies.heights,
    strategies.public_keys,
    strategies.deltas,
    strategies.key_lists,
    st.lists(leaf_specs, min_size=1, max_size=5).map(tuple),
)


@given(tree_specs, strategies.outpoints, st.lists(st.binary(min_size=64, max_size=64), max_size=3))
def test_every_tree_round_trips(spec: TreeSpec, utxo: OutPoint, signatures: list[bytes]) -> None:
    assert TreeSpec.decode(spec.encode()) == spec
    signed = SignedTreeSpec(spec, utxo, tuple(signatures))
    assert SignedTreeSpec.decode(signed.encode()) == signed


@given(tree_specs, st.data())
def test_a_changed_byte_gives_another_tree_or_none(spec: TreeSpec, data: st.DataObject) -> None:
    changed = strategies.change_a_byte(data, spec.encode())
    try:
        other = TreeSpec.decode(changed)
    except DecodeError:
        return
    assert other != spec
    assert other.encode() == changed


def test_the_older_signed_form_is_read_and_written_back_as_the_current_one() -> None:
    signed = signed_spec(BY_NAME["interactive-5"])
    old = b"".join(
        (
            b"\x01",
            signed.spec.encode(),
            signed.utxo.to_bytes(),
            len(signed.signatures).to_bytes(4, "little"),
            *signed.signatures,
        )
    )
    assert SignedTreeSpec.decode(old) == signed
    assert SignedTreeSpec.decode(old).encode()[:1] == b"\x02"
    too_many = old[: -4 - 64 * len(signed.signatures)] + (62_501).to_bytes(4, "little")
    with pytest.raises(DecodeError, match="requested=62501, max=62500"):
        SignedTreeSpec.decode(too_many)


# -- signatures


def test_the_hash_lock_is_told_by_the_first_signature() -> None:
    signed = signed_spec(BY_NAME["delegated-hashlock-v0-5"])
    assert signed.tree().lock is HashLock.V0
    first, *others = signed.signatures
    second_broken = replace(signed, signatures=(first, bytes(64), *others[1:]))
    assert second_broken.tree().lock is HashLock.V0
    with pytest.raises(TreeInvalid, match="invalid signature of internal node 1"):
        second_broken.tree().verify_signatures(second_broken.signatures)
    with pytest.raises(TreeInvalid, match="first signature"):
        replace(signed, signatures=(bytes(64), *others)).tree()


@pytest.mark.parametrize("change", ["missing", "one more", "none"])
def test_the_number_of_signatures_must_be_right(change: str) -> None:
    signed = signed_spec(BY_NAME["interactive-5"])
    signatures = {
        "missing": signed.signatures[:-1],
        "one more": (*signed.signatures, bytes(64)),
        "none": (),
    }[change]
    with pytest.raises(TreeInvalid, match="internal nodes"):
        signed.tree().verify_signatures(signatures)
    with pytest.raises(TreeInvalid, match="internal nodes"):
        signed.tree().vtxo(0, signatures)
    with pytest.raises(TreeInvalid):
        replace(signed, signatures=signatures).tree()


# -- cosigning


@pytest.mark.parametrize(
    "case", [param for param in TREES if param.values[0]["interactive"] and param.values[0]["cosign_sigs"]]
)
def test_upstream_s_cosigning_adds_up(case: Case) -> None:
    tree = signed_spec(case).tree()
    leaf_nonces = {
        leaf["leaf_idx"]: [bytes.fromhex(nonce) for nonce in leaf["cosign_pub_nonces"]]
        for leaf in case["leaves"]
    }
    global_nonces = [[bytes.fromhex(n) for n in signer["pub_nonces"]] for signer in case["global_signers"]]
    agg_nonces = tree.aggregate_nonces(leaf_nonces, global_nonces)
    assert [nonce.hex() for nonce in agg_nonces] == [
        case["nodes"][node.index]["agg_nonce"] for node in tree.internal_nodes
    ]
    partials = {
        leaf["leaf_idx"]: tuple(bytes.fromhex(partial) for partial in leaf["cosign_partial_sigs"])
        for leaf in case["leaves"]
    }
    for leaf in case["leaves"]:
        index = leaf["leaf_idx"]
        assert [index, *(node.index for node in tree.branch(index))] == leaf["branch"]
        tree.verify_leaf_partials(index, leaf_nonces[index], agg_nonces, partials[index])
    global_partials = [
        [bytes.fromhex(p) for p in signer["partial_sigs"]] for signer in case["global_signers"]
    ]
    signatures = tree.combine_partials(agg_nonces, partials, global_partials)
    assert [signature.hex() for signature in signatures] == case["cosign_sigs"]


NB_NONCES = 3


class Party:
    """Everybody in one round: owners who sign, owners who do not, and the server."""

    def __init__(self, signing: list[bool]) -> None:
        self.server = SecretKey(bytes([0xEE] * 32))
        self.owners = [SecretKey(bytes([number + 1] * 32)) for number in range(len(signing))]
        leaves = tuple(
            LeafSpec(
                PubkeyPolicy(owner.public_key),
                1000 + number,
                owner.public_key if signs else None,
                UNLOCK_HASH,
            )
            for number, (owner, signs) in enumerate(zip(self.owners, signing, strict=True))
        )
        spec = TreeSpec(EXPIRY_HEIGHT, SERVER, EXIT_DELTA, (self.server.public_key,), leaves)
        self.funding = Tx(2, (TxIn(OutPoint(Txid(bytes(32)), 3)),), (spec.funding_output,))
        self.tree = VtxoTree(spec, self.funding.outpoint(0))
        self.signing = [number for number, signs in enumerate(signing) if signs]
        pairs = {leaf: [generate_nonce(self.owners[leaf]) for _ in range(NB_NONCES)] for leaf in self.signing}
        self.sec_nonces = {leaf: [sec for sec, _ in nonces] for leaf, nonces in pairs.items()}
        self.pub_nonces = {leaf: [pub for _, pub in nonces] for leaf, nonces in pairs.items()}
        server_pairs = [generate_nonce(self.server) for _ in self.tree.internal_nodes]
        self.server_sec_nonces: list[SecNonce] = [sec for sec, _ in server_pairs]
        self.agg_nonces = self.tree.aggregate_nonces(self.pub_nonces, [[pub for _, pub in server_pairs]])

    def sign(self, leaf: int) -> tuple[bytes, ...]:
        return self.tree.cosign_leaf(leaf, self.owners[leaf], self.sec_nonces[leaf], self.agg_nonces)


@pytest.mark.parametrize(
    "signing",
    [
        [True, True],
        [True, False],
        [False, False],
        [True] * 7,
        [True, False, True, False, True, False, True],
        [False] * 4 + [True],
        [True] * 11,
    ],
)
def test_everybody_together_signs_a_tree(signing: list[bool]) -> None:
    party = Party(signing)
    partials = {leaf: party.sign(leaf) for leaf in party.signing}
    for leaf in party.signing:
        party.tree.verify_leaf_partials(leaf, party.pub_nonces[leaf], party.agg_nonces, partials[leaf])
    ours = party.tree.cosign_all(party.server, party.server_sec_nonces, party.agg_nonces)
    signatures = party.tree.combine_partials(party.agg_nonces, partials, [ours])
    for leaf in range(len(signing)):
        validate(party.tree.vtxo(leaf, signatures), party.funding, signed=False)


def test_levels_skip_and_signatures_do_not() -> None:
    """Leaf 4 of seven hangs on the root directly: one signature, made with its second nonce."""
    party = Party([True] * 7)
    assert len(party.sign(4)) == 1
    assert len(party.sign(0)) == 2
    other = Party([True] * 7)
    # Were the first nonce used, the partial signature would not verify with the second.
    other.tree.verify_leaf_partials(4, other.pub_nonces[4], other.agg_nonces, other.sign(4))


def test_a_missing_signature_does_not_add_up() -> None:
    party = Party([True, True])
    ours = party.tree.cosign_all(party.server, party.server_sec_nonces, party.agg_nonces)
    with pytest.raises(TreeInvalid, match="invalid signature"):
        party.tree.combine_partials(party.agg_nonces, {0: party.sign(0)}, [ours])


@pytest.mark.parametrize("fault", ["flipped", "too few", "too many", "of another leaf"])
def test_wrong_partial_signatures_are_blamed(fault: str) -> None:
    party = Party([True] * 7)
    good = party.sign(0)
    bad = {
        "flipped": (good[0], good[1][:-1] + bytes((good[1][-1] ^ 1,))),
        "too few": good[:1],
        "too many": (*good, good[0]),
        "of another leaf": party.sign(1),
    }[fault]
    with pytest.raises(BadCosignature):
        party.tree.verify_leaf_partials(0, party.pub_nonces[0], party.agg_nonces, bad)
    with pytest.raises(BadCosignature, match="no cosigner"):
        Party([False, True]).tree.verify_leaf_partials(0, [], party.agg_nonces, good)


def test_nonces_sign_one_tree_only() -> None:
    party = Party([True] * 5)
    party.sign(0)
    with pytest.raises(ValueError):
        party.sign(0)


@pytest.mark.parametrize("fault", ["too few nonces", "too high", "malformed", "wrong key"])
def test_hostile_proposals_spend_the_nonces_and_sign_nothing(fault: str) -> None:
    party = Party([True] * 7)
    key, nonces, agg_nonces = party.owners[0], party.sec_nonces[0], list(party.agg_nonces)
    match fault:
        case "too few nonces":
            agg_nonces = agg_nonces[:-1]
        case "too high":
            nonces = nonces[:1]
        case "malformed":
            agg_nonces[-1] = b"\x05" * 66
        case _:
            key = party.owners[1]
    with pytest.raises(ValueError if fault == "wrong key" else TreeInvalid):
        party.tree.cosign_leaf(0, key, nonces, agg_nonces)
    for nonce in nonces:
        with pytest.raises(ValueError):
            party.tree._session(party.tree.root, party.agg_nonces[-1]).sign(party.owners[0], nonce)


def test_a_tree_too_high_for_the_users_nonces_is_not_proposed() -> None:
    party = Party([True] * 7)
    short = {leaf: nonces[:1] for leaf, nonces in party.pub_nonces.items()}
    with pytest.raises(TreeInvalid, match="too high"):
        party.tree.aggregate_nonces(short, [[party.agg_nonces[0]] * 2])


# -- trees that cannot be


def test_amounts_that_overflow_make_no_tree() -> None:
    spec = signed_spec(BY_NAME["interactive-2"]).spec
    heavy = replace(spec, leaves=tuple(replace(leaf, amount_sat=MAX_U64) for leaf in spec.leaves))
    with pytest.raises(TreeInvalid, match="overflow"):
        VtxoTree(heavy, OutPoint(Txid(bytes(32)), 0))


def test_a_node_that_nobody_signs_makes_no_tree() -> None:
    spec = signed_spec(BY_NAME["delegated-2"]).spec
    with pytest.raises(TreeInvalid, match="without cosigners"):
        VtxoTree(replace(spec, global_cosign_pubkeys=()), OutPoint(Txid(bytes(32)), 0))


def test_no_spec_is_empty() -> None:
    spec = signed_spec(BY_NAME["delegated-2"]).spec
    with pytest.raises(ValueError, match="at least one leaf"):
        replace(spec, leaves=())
