"""VTXOs: encodings, ids, exit transactions, and what hostile bytes do."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.ark.clause import HashLock
from barkd_py.ark.genesis import (
    ArkoorTransition,
    CosignedTransition,
    GenesisItem,
    HashLockedTransition,
    TooManyOutputs,
    WrongPreimage,
)
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import (
    MAX_U64,
    BadVtxoId,
    BareVtxo,
    NotAHarkLeaf,
    ServerVtxo,
    Vtxo,
    VtxoId,
    VtxoInvalid,
)
from barkd_py.bitcoin.encode import DecodeError, DecodeErrorKind
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import verify_schnorr
from barkd_py.bitcoin.tx import P2A_SCRIPT, OutPoint, Txid, TxOut
from barkd_py.errors import chain_text
from tests.ark import strategies
from tests.ark.worked_examples import (
    EXIT_DELTA,
    EXPIRY_HEIGHT,
    PAYMENT_HASH,
    SERVER,
    UNLOCK_HASH,
    UNLOCK_PREIMAGE,
    USER,
)
from tests.support.vectors import Case, as_dict, cases, params

WHOLE_KINDS = ("user", "server", "user-version1")
WHOLE = [param for kind in WHOLE_KINDS for param in params("vtxo", kind=kind)]
BY_NAME = {case["name"]: case for kind in WHOLE_KINDS for case in cases("vtxo", kind=kind)}


def decode(case: Case) -> ServerVtxo:
    """The VTXO of a vector, from the oldest encoding that there is of it."""
    data = bytes.fromhex(case["version1_hex"] if "version1_hex" in case else case["full_hex"])
    return ServerVtxo.decode(data) if case["kind"] == "server" else Vtxo.decode(data)


def user_vtxo(name: str) -> Vtxo:
    return Vtxo.decode_hex(BY_NAME[name]["full_hex"])


def changed(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


# -- encodings


@pytest.mark.parametrize("case", WHOLE)
def test_encodings_are_upstream_s_byte_for_byte(case: Case) -> None:
    vtxo = decode(case)
    assert vtxo.encode().hex() == case["full_hex"]
    assert vtxo.encode_bare().hex() == case["bare_hex"]
    assert vtxo.encode_genesis().hex() == case["genesis_hex"]
    assert type(vtxo).decode(vtxo.encode()) == vtxo


@pytest.mark.parametrize("case", WHOLE)
def test_fields_are_upstream_s(case: Case) -> None:
    vtxo = decode(case)
    assert str(vtxo.id) == case["id"]
    assert vtxo.id.hex() == case["id_bytes"]
    assert vtxo.amount_sat == case["amount"]
    assert vtxo.expiry_height == case["expiry_height"]
    assert vtxo.exit_delta == case["exit_delta"]
    assert vtxo.server_pubkey.hex() == case["server_pubkey"]
    assert str(vtxo.anchor_point) == case["anchor_point"]
    assert vtxo.anchor_amount_sat == case["anchor_amount"]
    assert as_dict(vtxo.anchor_output) == case["anchor_txout"]
    assert vtxo.policy.kind == case["policy_type"]
    assert as_dict(vtxo.output) == case["txout"]
    assert vtxo.output_taproot.tweak.hex() == case["output_taproot"]["tap_tweak"]
    assert vtxo.exit_depth == case["exit_depth"]
    assert vtxo.is_fully_signed is case["has_all_witnesses"]
    assert [[key.hex() for key in keys] for keys in vtxo.past_arkoor_pubkeys] == case["past_arkoor_pubkeys"]
    assert (vtxo.unlock_hash and vtxo.unlock_hash.hex()) == case["unlock_hash"]
    assert [str(ancestor) for ancestor in vtxo.ancestor_ids] == case["ancestor_ids"]
    assert vtxo.exit_tx_weight_wu == case["exit_tx_weight_total"]
    assert str(vtxo.computed_point) == case["id"]


@pytest.mark.parametrize("case", WHOLE)
def test_exit_transactions_are_upstream_s(case: Case) -> None:
    vtxo = decode(case)
    server, expiry_height = vtxo.server_pubkey, vtxo.expiry_height
    for step, expected in zip(vtxo.exit_steps(), case["items"], strict=True):
        transition = step.item.transition
        assert transition.kind == expected["kind"]
        assert (transition.signature and transition.signature.hex()) == expected["signature"]
        assert step.item.nb_outputs == expected["nb_outputs"]
        assert step.item.output_idx == expected["output_idx"]
        assert [as_dict(sibling) for sibling in step.item.siblings] == expected["siblings"]
        assert step.item.fee_amount_sat == expected["fee_amount"]
        assert as_dict(step.spent) == expected["spends"]["txout"]
        assert step.tx.serialize().hex() == expected["tx"]["hex"]
        assert str(step.tx.txid) == expected["tx"]["txid"]
        assert step.tx.weight_wu == expected["tx"]["weight"]

        sighash = transition.sighash(step.tx, step.spent, server)
        key = transition.verify_key(server, expiry_height)
        assert sighash.hex() == expected["spends"]["sighash"]
        assert key.hex() == expected["spends"]["verify_key"]
        valid = transition.signature is not None and verify_schnorr(key, sighash, transition.signature)
        # None: there is no signature.
        assert valid is bool(expected["spends"]["signature_valid"])
    assert vtxo.exit_transactions() == tuple(step.tx for step in vtxo.exit_steps())


@pytest.mark.parametrize("case", params("vtxo", kind="user-version1"))
def test_version_1_is_read_and_written_back_as_version_2(case: Case) -> None:
    old = bytes.fromhex(case["version1_hex"])
    vtxo = Vtxo.decode(old)
    assert len(vtxo.encode()) == len(old) + 8 * vtxo.exit_depth
    assert Vtxo.decode(vtxo.encode()) == vtxo
    assert all(item.fee_amount_sat == 0 for item in vtxo.genesis)


@pytest.mark.parametrize("case", params("vtxo", kind="user") + params("vtxo", kind="user-version1"))
def test_splitting_and_joining_gives_the_same_bytes(case: Case) -> None:
    vtxo = Vtxo.decode_hex(case["full_hex"])
    bare = BareVtxo.decode(vtxo.encode_bare())
    assert bare == vtxo.bare == BareVtxo.decode(vtxo.encode())
    assert bare.encode_bare() == vtxo.encode_bare()
    assert bare.output == vtxo.output
    assert bare.id == vtxo.id
    assert Vtxo.join(vtxo.encode_bare(), vtxo.encode_genesis()) == vtxo


@pytest.mark.parametrize("case", params("vtxo", kind="rejoin"))
def test_joining_as_upstream_does(case: Case) -> None:
    bare, genesis = bytes.fromhex(case["bare_hex"]), bytes.fromhex(case["genesis_hex"])
    expected = case["result"]
    if "full_hex" in expected:
        assert Vtxo.join(bare, genesis).encode().hex() == expected["full_hex"]
        return
    with pytest.raises(DecodeError) as caught:
        Vtxo.join(bare, genesis)
    assert str(caught.value) == expected["error"]
    assert chain_text(caught.value) == expected["error_chain"]


@pytest.mark.parametrize("case", params("vtxo", kind="bare-accepts-full"))
def test_a_bare_decoder_accepts_the_full_form_but_not_the_other_way_round(case: Case) -> None:
    full, bare = bytes.fromhex(case["full_hex"]), bytes.fromhex(case["bare_hex"])
    assert BareVtxo.decode(full).encode_bare() == bare
    with pytest.raises(DecodeError, match="has no genesis item data"):
        Vtxo.decode(bare)
    broken = changed(full, 86, b"\x05")  # the tag of the only transition
    with pytest.raises(DecodeError, match="GenesisTransistion"):
        BareVtxo.decode(broken)


DECODE_MUTATIONS = [
    param for param in params("vtxo", kind="mutation") if param.values[0]["result"]["stage"] == "decode"
]


@pytest.mark.parametrize("case", DECODE_MUTATIONS)
def test_bytes_that_upstream_refuses_are_refused_with_its_words(case: Case) -> None:
    with pytest.raises(DecodeError) as caught:
        Vtxo.decode(bytes.fromhex(case["hex"]))
    assert str(caught.value) == case["result"]["error"]
    assert chain_text(caught.value) == case["result"]["error_chain"]


@pytest.mark.parametrize("name", ["board-with-fee", "arkoor-dust-isolation-normal", "round-leaf-final"])
def test_every_truncation_and_every_trailing_byte_is_refused(name: str) -> None:
    encoded = user_vtxo(name).encode()
    for length in range(len(encoded)):
        with pytest.raises(DecodeError) as caught:
            Vtxo.decode(encoded[:length])
        assert caught.value.kind is DecodeErrorKind.IO
        cut_in_outpoint = length >= len(encoded) - 36 or 49 <= length < 85
        assert ("unexpected end of file" in str(caught.value)) is (
            cut_in_outpoint or _is_in_sibling(encoded, length)
        )
    with pytest.raises(DecodeError, match="trailing bytes"):
        Vtxo.decode(encoded + b"\x00")
    with pytest.raises(DecodeError, match="trailing bytes"):
        Vtxo.decode_hex(encoded.hex() + "00")


def _is_in_sibling(encoded: bytes, length: int) -> bool:
    """Whether a cut at this length falls into a transaction output."""
    for item in Vtxo.decode(encoded).genesis:
        for sibling in item.siblings:
            start = encoded.index(sibling.to_bytes())
            if start <= length < start + len(sibling.to_bytes()):
                return True
    return False


@pytest.mark.parametrize("text", ["0", "zz", "02 00", "0200g0", "０２"])
def test_only_hex_is_hex(text: str) -> None:
    with pytest.raises(DecodeError):
        Vtxo.decode_hex(text)


def test_hex_may_be_in_either_case() -> None:
    text = BY_NAME["board"]["full_hex"]
    assert Vtxo.decode_hex(text.upper()) == Vtxo.decode_hex(text)


@given(strategies.vtxos)
def test_every_vtxo_round_trips(vtxo: Vtxo) -> None:
    encoded = vtxo.encode()
    assert Vtxo.decode(encoded) == vtxo
    assert ServerVtxo.decode(encoded).encode() == encoded
    assert Vtxo.join(vtxo.encode_bare(), vtxo.encode_genesis()) == vtxo


@given(strategies.vtxos)
def test_the_weight_of_an_exit_is_that_of_its_transactions(vtxo: Vtxo) -> None:
    genesis = [
        replace(item, siblings=tuple(replace(out, value_sat=1) for out in item.siblings), fee_amount_sat=1)
        for item in vtxo.genesis
    ]
    possible = replace(vtxo, amount_sat=1, genesis=tuple(genesis))  # no more than there can be on the chain
    assert vtxo.exit_tx_weight_wu == sum(tx.weight_wu for tx in possible.exit_transactions())


@pytest.mark.parametrize("count", [0, 250, 251, 254])
def test_the_weight_of_an_exit_with_many_outputs(count: int) -> None:
    vtxo = Vtxo.decode_hex(BY_NAME["board"]["full_hex"])
    item = replace(vtxo.genesis[0], siblings=(TxOut(1, bytes(300)),) * count, output_idx=0)
    wide = replace(vtxo, genesis=(item, *vtxo.genesis[1:]))
    assert wide.exit_tx_weight_wu == sum(tx.weight_wu for tx in wide.exit_transactions())


@given(strategies.vtxos, st.data())
def test_a_changed_byte_gives_another_vtxo_or_none(vtxo: Vtxo, data: st.DataObject) -> None:
    encoded = strategies.change_a_byte(data, vtxo.encode())
    try:
        other = Vtxo.decode(encoded)
    except DecodeError:
        return
    assert other != vtxo
    if encoded[:2] == b"\x02\x00":
        assert other.encode() == encoded


@given(st.binary(max_size=400))
def test_noise_is_refused_and_nothing_else_is_raised(noise: bytes) -> None:
    with pytest.raises(DecodeError):
        Vtxo.decode(b"\x02\x00" + noise)


@pytest.mark.parametrize(
    "count", ["fd1e4b", "fe00000001", "ff0000000100000000", "ffffffffffffffffff", "fd1f4b"]
)
@pytest.mark.parametrize("at", ["genesis", "keys"])
def test_an_announced_multitude_takes_no_memory(count: str, at: str) -> None:
    encoded = user_vtxo("board").encode()
    offset = 85 if at == "genesis" else 87
    hostile = encoded[:offset] + bytes.fromhex(count) + encoded[offset + 1 :]
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            Vtxo.decode(hostile)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def test_a_genesis_of_257_items() -> None:
    board = user_vtxo("board")
    many = replace(board, genesis=board.genesis * 257)
    encoded = many.encode()
    assert encoded[85:88].hex() == "fd0101"
    assert Vtxo.decode(encoded) == many


def test_255_outputs_are_the_most() -> None:
    sibling = TxOut(330, bytes(34))
    board = user_vtxo("board")
    fits = replace(board, genesis=(replace(board.genesis[0], siblings=(sibling,) * 254),))
    assert Vtxo.decode(fits.encode()) == fits
    over = replace(board, genesis=(replace(board.genesis[0], siblings=(sibling,) * 255),))
    with pytest.raises(TooManyOutputs, match=r"^I/O error: too many outputs on genesis transaction$"):
        over.encode()


# -- ids


@pytest.mark.parametrize("case", params("vtxo", kind="vtxo-id-text"))
def test_id_texts(case: Case) -> None:
    expected = case["result"]
    if "id" in expected:
        vtxo_id = VtxoId.parse(case["input"])
        assert str(vtxo_id) == expected["id"]
        assert vtxo_id.hex() == expected["bytes"]
        return
    with pytest.raises(BadVtxoId) as caught:
        VtxoId.parse(case["input"])
    assert str(caught.value) == expected["error"]


@pytest.mark.parametrize("case", params("invalid", decoder="vtxo-id"))
def test_id_bytes(case: Case) -> None:
    data, expected = bytes.fromhex(case["hex"]), case["result"]
    if expected["ok"]:
        assert VtxoId.from_bytes(data) == data
        return
    with pytest.raises(DecodeError) as caught:
        VtxoId.from_bytes(data)
    assert chain_text(caught.value) == expected["error_chain"]


@given(strategies.outpoints)
def test_ids_round_trip(outpoint: OutPoint) -> None:
    vtxo_id = VtxoId.of(outpoint)
    assert vtxo_id.outpoint == outpoint
    assert VtxoId.parse(str(vtxo_id)) == vtxo_id == VtxoId.from_bytes(bytes(vtxo_id))


def test_ids_are_ordered_by_their_bytes() -> None:
    # In the text the txid is reversed and the position decimal, so texts would sort otherwise.
    low = VtxoId(bytes([1]) + bytes(31) + b"\x00\x00\x00\x00")
    high = VtxoId(bytes([2]) + bytes(31) + b"\x00\x00\x00\x00")
    far = VtxoId(bytes([2]) + bytes(31) + b"\x00\x01\x00\x00")
    near = VtxoId(bytes([2]) + bytes(31) + b"\x02\x00\x00\x00")
    assert sorted([near, far, high, low]) == [low, high, far, near]


# -- exit transactions


def test_the_worked_board_has_its_fields_at_the_stated_offsets() -> None:
    """Source: sheet 01 §17.1."""
    vtxo = user_vtxo("upstream-v2-board")
    encoded = vtxo.encode()
    assert len(encoded) == 298
    assert vtxo.amount_sat == 10_000
    assert (vtxo.server_pubkey, vtxo.exit_delta, vtxo.expiry_height) == (SERVER, EXIT_DELTA, EXPIRY_HEIGHT)
    assert encoded[85:228] == vtxo.encode_genesis()
    assert len(vtxo.encode_bare()) == 156
    assert encoded[220:228] == (330).to_bytes(8, "little")
    assert encoded[228:262] == b"\x00" + USER.data
    (step,) = vtxo.exit_steps()
    assert step.spent.value_sat == 10_330
    assert step.spent.script_pubkey.hex() == (
        "5120652675904a84ea02e24b57b3d547203d2ce71526113d35bf4d02e0b4efbe9a2d"
    )
    sighash = step.item.transition.sighash(step.tx, step.spent, SERVER)
    assert sighash.hex() == "85b9f526b6bb1150b51914c7f73075242d30c04c7ade7bf3523d649e8b0053d8"
    assert str(step.tx.txid) == "56315e0b35be9ae01700116df4a86ad359fee4e4119ba7ee908601d921a4e924"
    assert step.tx.serialize().hex() == (
        "030000000001015111d0df3738fe77c8f05b0f71292ae6ae5eddf911f8d2bb4dbde598fcbe768f0000000000000000000"
        "21027000000000000225120e2b1152658195dae2fb792bdf7adb276e1c21f06b33588b9bd8429591bb964ea4a01000000"
        "0000000451024e7301409c9c63d9c0f739011368e00c2441d85816c01d637da8d57ac343c95982dd3604d8bf847bcf8a2"
        "aac44483d7ea01ec9a99f7720d0694cb3cdd3cbcca97504adaf00000000"
    )


def test_the_worked_leaf() -> None:
    """Source: sheet 01 §17.3."""
    vtxo = user_vtxo("upstream-v2-round1")
    step = vtxo.leaf_step()
    leaf = vtxo.hark_leaf
    assert leaf.unlock_script(SERVER).hex() == (
        "82012088a9148827f796c6f8c55a2bf1c6a38f721d896b1a97a488"
        "20b9e7af67ddef019aefd8482c2eb54b91dad9ae205f9b5f6fb8ebcb6744c2a54fac"
    )
    assert step.tx.inputs[0].witness[-1].hex() == (
        "c1b9e7af67ddef019aefd8482c2eb54b91dad9ae205f9b5f6fb8ebcb6744c2a54f"
        "666734dc4c3982bbe1da618bc8e5356395151d2cf859d3e894081c864c1ef408"
    )
    sighash = leaf.sighash(step.tx, step.spent, SERVER)
    assert sighash.hex() == "3c0b19390ea7e49ed61b58f915b4eb7f429a2941305c96c86151cc28749551ac"
    assert [step.spent.value_sat for step in vtxo.exit_steps()] == [45_000, 30_000, 10_000]
    assert vtxo.unlock_hash == UNLOCK_HASH == sha256(UNLOCK_PREIMAGE)
    old_form = replace(leaf, lock=HashLock.V0)
    assert old_form.spent_script(SERVER, EXPIRY_HEIGHT).hex() == (
        "51202ec5640d3ba147e40c916e8fa9b0ee89557d10465db1d55a49c87edebe53104c"
    )


def test_the_worked_arkoor_chain_commits_to_the_spent_policies() -> None:
    """Source: sheet 01 §17.4."""
    board, htlc = user_vtxo("upstream-v2-board"), user_vtxo("upstream-v2-arkoor-htlc-out")
    items = user_vtxo("upstream-v2-arkoor2").genesis
    tweaks = [t.tap_tweak for t in (item.transition for item in items) if isinstance(t, ArkoorTransition)]
    assert tweaks[0] == board.output_taproot.tweak
    assert tweaks[2] == htlc.output_taproot.tweak
    assert tweaks[2].hex() == "b206d3bc9a6e1ff56164bd37434890280bcfe06613483d73fb2478038227a3da"
    assert htlc.policy.kind == "server-htlc-send-v1"
    assert getattr(htlc.policy, "payment_hash", None) == PAYMENT_HASH


@pytest.mark.parametrize("case", WHOLE)
def test_every_exit_transaction_has_the_stated_shape(case: Case) -> None:
    vtxo = decode(case)
    for step in vtxo.exit_steps():
        tx = step.tx
        assert (tx.version, tx.locktime, len(tx.inputs)) == (3, 0, 1)
        assert (tx.inputs[0].sequence, tx.inputs[0].script_sig) == (0, b"")
        assert tx.outputs[-1] == TxOut(step.item.fee_amount_sat, P2A_SCRIPT)
        assert sum(output.value_sat for output in tx.outputs) == step.spent.value_sat
        others = tx.outputs[: step.item.output_idx] + tx.outputs[step.item.output_idx + 1 : -1]
        assert others == step.item.siblings


def test_witnesses_do_not_change_ids() -> None:
    final = user_vtxo("round-leaf-final")
    locked = replace(
        final,
        genesis=(
            *final.genesis[:-1],
            replace(final.genesis[-1], transition=replace(final.hark_leaf, signature=None, preimage=None)),
        ),
    )
    assert [tx.txid for tx in locked.exit_transactions()] == [tx.txid for tx in final.exit_transactions()]
    assert locked.exit_transactions()[-1].inputs[0].witness == ()
    assert locked.exit_transactions()[-1].weight_wu == 4 * (107)
    assert final.exit_transactions()[-1].weight_wu == 657
    assert locked.computed_point == final.point


def test_a_leaf_is_unlocked_by_its_preimage_only() -> None:
    locked = user_vtxo("round-leaf-signed-no-preimage")
    final = user_vtxo("round-leaf-final")
    assert final.hark_leaf.preimage is not None
    unlocked = locked.with_preimage(final.hark_leaf.preimage)
    assert unlocked.is_fully_signed
    assert not locked.is_fully_signed
    assert unlocked.encode() != locked.encode()
    for wrong in (bytes(32), b"", final.hark_leaf.preimage + b"\x00"):
        with pytest.raises(WrongPreimage):
            locked.with_preimage(wrong)


def test_leaf_operations_are_for_leaves() -> None:
    board = user_vtxo("board")
    for operation in (
        lambda: board.with_leaf_signature(bytes(64)),
        lambda: board.with_preimage(bytes(32)),
        board.leaf_step,
    ):
        with pytest.raises(NotAHarkLeaf, match=rf"^VTXO {board.id} is not a hArk leaf VTXO$"):
            operation()
    assert board.unlock_hash is None
    with pytest.raises(NotAHarkLeaf):
        _ = user_vtxo("onchain-no-genesis").hark_leaf


def test_signatures_are_set_on_the_last_items() -> None:
    vtxo = user_vtxo("arkoor-checkpoint-out0")
    first, second = bytes([1] * 64), bytes([2] * 64)
    signed = vtxo.with_signatures((first, second))
    assert [item.transition.signature for item in signed.genesis] == [
        vtxo.genesis[0].transition.signature,
        first,
        second,
    ]
    assert signed.computed_point == vtxo.point
    with pytest.raises(ValueError, match="more signatures"):
        vtxo.with_signatures((first,) * 4)


def test_amounts_beyond_64_bits_build_nothing() -> None:
    vtxo = replace(user_vtxo("board"), amount_sat=MAX_U64)
    heavy = replace(vtxo, genesis=(replace(vtxo.genesis[0], fee_amount_sat=1),))
    with pytest.raises(VtxoInvalid, match="onchain amount overflow"):
        heavy.exit_transactions()
    with pytest.raises(VtxoInvalid, match="onchain amount overflow"):
        _ = heavy.computed_point


# -- in-memory objects that could not be decoded


def _impossible_objects() -> Iterator[tuple[str, object]]:
    board = user_vtxo("board")
    item = board.genesis[0]
    yield "points to the fee anchor", lambda: GenesisItem(item.transition, 1)
    yield "negative index", lambda: GenesisItem(item.transition, -1)
    yield "no cosigners", lambda: CosignedTransition((), None)
    yield "tweak of 33 bytes", lambda: ArkoorTransition((), bytes(33), None)
    yield "tweak too large", lambda: ArkoorTransition((), b"\xff" * 32, None)
    yield "short signature", lambda: CosignedTransition((USER,), bytes(63))
    yield "short hash", lambda: HashLockedTransition(USER, None, bytes(31))
    yield "negative amount", lambda: replace(board, amount_sat=-1)
    yield "amount too large", lambda: replace(board, amount_sat=MAX_U64 + 1)
    yield "expiry too high", lambda: replace(board, expiry_height=499_934_468)
    yield "delta too high", lambda: replace(board, exit_delta=16_384)
    yield "id of 35 bytes", lambda: VtxoId(bytes(35))


@pytest.mark.parametrize("build", [pytest.param(b, id=name) for name, b in _impossible_objects()])
def test_impossible_objects_are_not_built(build: strategies.Build) -> None:
    with pytest.raises(ValueError):
        build()


def test_a_preimage_must_fit_its_hash_in_memory_too() -> None:
    with pytest.raises(WrongPreimage):
        HashLockedTransition(USER, None, bytes(32), preimage=bytes(32))


# -- equality


def test_vtxos_are_equal_by_all_they_hold_and_hash_by_id() -> None:
    """Upstream compares ids alone; here a VTXO with another signature is another object with the same id."""
    vtxo = user_vtxo("board")
    resigned = vtxo.with_signatures((bytes([1] * 64),))
    assert vtxo == user_vtxo("board")
    assert resigned != vtxo
    assert resigned.id == vtxo.id
    assert hash(resigned) == hash(vtxo)


def test_an_on_chain_view_needs_no_genesis() -> None:
    vtxo = user_vtxo("onchain-no-genesis")
    assert vtxo.is_on_chain
    assert vtxo.exit_transactions() == ()
    assert vtxo.anchor_output == vtxo.output
    assert vtxo.is_fully_signed
    elsewhere = replace(vtxo, policy=PubkeyPolicy(USER), point=OutPoint(Txid(bytes(32)), 0))
    with pytest.raises(DecodeError, match="has no genesis item data"):
        Vtxo.decode(elsewhere.encode())
