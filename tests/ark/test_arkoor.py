"""Out-of-round packages: upstream's transactions and VTXOs, amount rules, cosigning, change."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barkd_py.ark.arkoor import (
    MAX_FANOUT,
    ArkoorDestination,
    ArkoorPart,
    ArkoorRule,
    ChangeToDestination,
    InvalidArkoor,
    InvalidPartialSignature,
    UnbalancedArkoor,
    WrongCosignCount,
    WrongSigningKey,
    allocate,
    finish_package,
    finish_part,
    generate_part_nonces,
    isolate_dust,
    plan_outputs,
    server_cosign_part,
    split_package,
)
from barkd_py.ark.attestations import attestation_digest
from barkd_py.ark.board import BoardTemplate
from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcSendPolicy, decode_policy
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import PublicKey, SecretKey, verify_schnorr
from barkd_py.bitcoin.musig import Session, aggregate_nonces
from barkd_py.bitcoin.tx import OutPoint, Tx, TxIn
from tests.support.vectors import Case, params


def destinations(rows: Sequence[Case]) -> tuple[ArkoorDestination, ...]:
    return tuple(
        ArkoorDestination(row["amount"], decode_policy(bytes.fromhex(row["policy_hex"]))) for row in rows
    )


def vtxos_of(case: Case) -> list[Vtxo]:
    return [Vtxo.decode_hex(row["vtxo_hex"]) for row in case["inputs"]]


PACKAGES = params("arkoor", kind=None)


# --- packages against upstream


@pytest.mark.parametrize("case", PACKAGES)
def test_outputs_are_allocated_and_isolated_like_upstream(case: Case) -> None:
    parts = split_package(
        vtxos_of(case), destinations(case["requested_outputs"]), use_checkpoint=case["use_checkpoint"]
    )
    for part, expected in zip(parts, case["packages"], strict=True):
        assert str(part.input.id) == expected["input_id"]
        assert part.outputs == destinations(expected["outputs"])
        assert part.isolated == destinations(expected["isolated_outputs"])


def parts_of(case: Case) -> list[tuple[ArkoorPart, Case]]:
    parts = split_package(
        vtxos_of(case), destinations(case["requested_outputs"]), use_checkpoint=case["use_checkpoint"]
    )
    return list(zip(parts, case["packages"], strict=True))


@pytest.mark.parametrize("case", PACKAGES)
def test_transactions_match_upstream_in_signing_order(case: Case) -> None:
    for part, expected in parts_of(case):
        for step, wanted in zip(part.transactions, expected["txs"], strict=True):
            assert step.tx.serialize().hex() == wanted["unsigned_tx"]
            assert str(step.tx.txid) == wanted["txid"]
            assert step.spent.value_sat == wanted["prevout"]["value"]
            assert step.spent.script_pubkey.hex() == wanted["prevout"]["script_pubkey"]
            assert step.sighash.hex() == wanted["sighash"]
            assert step.tweak.hex() == wanted["tap_tweak"]
            signed = step.signed(bytes.fromhex(wanted["final_sig"]))
            assert signed.serialize().hex() == wanted["signed_tx"]
    spends = [
        {"vtxo_id": str(step.tx.inputs[0].prevout), "spending_txid": str(step.tx.txid)}
        for part, _ in parts_of(case)
        for step in part.transactions
    ]
    assert spends == case["spend_info"]


@pytest.mark.parametrize("case", PACKAGES)
def test_upstreams_signatures_verify(case: Case) -> None:
    server = PublicKey.from_hex(case["server"]["pubkey"])
    for part, expected in parts_of(case):
        for step, wanted in zip(part.transactions, expected["txs"], strict=True):
            server_nonce = bytes.fromhex(wanted["server_pub_nonce"])
            agg_nonce = aggregate_nonces((bytes.fromhex(wanted["user_pub_nonce"]), server_nonce))
            session = Session((part.input.user_pubkey, server), agg_nonce, step.sighash, step.tweak)
            assert session.verify_partial(bytes.fromhex(wanted["server_partial_sig"]), server_nonce, server)
            assert session.output_x_only.hex() == wanted["output_key"]
            assert verify_schnorr(session.output_x_only, step.sighash, bytes.fromhex(wanted["final_sig"]))


@pytest.mark.parametrize("case", PACKAGES)
def test_new_vtxos_match_upstream_and_validate(case: Case) -> None:
    unsigned = [vtxo for part, _ in parts_of(case) for vtxo in part.unsigned_vtxos]
    assert [vtxo.encode().hex() for vtxo in unsigned] == case["unsigned_vtxos"]
    for (part, expected), row in zip(parts_of(case), case["inputs"], strict=True):
        anchor_tx = Tx.parse(bytes.fromhex(row["anchor_tx"]))
        signatures = [bytes.fromhex(step["final_sig"]) for step in expected["txs"]]
        vtxos = part.build_vtxos(signatures)
        for vtxo, wanted in zip(vtxos, expected["output_vtxos"], strict=True):
            assert vtxo.encode().hex() == wanted["full_hex"]
            assert str(vtxo.id) == wanted["id"]
            assert vtxo.policy.kind == wanted["policy_type"]
            assert vtxo.exit_depth == wanted["exit_depth"]
            assert [str(tx.txid) for tx in vtxo.exit_transactions()] == wanted["txids"]
            validate(vtxo, anchor_tx)
        internal = part.internal_vtxos(signatures[0])
        for server_vtxo, wanted in zip(internal, expected["internal_vtxos"], strict=True):
            assert server_vtxo.encode().hex() == wanted["full_hex"]
            assert str(server_vtxo.id) == wanted["id"]


@pytest.mark.parametrize("case", PACKAGES)
def test_attestations_match_upstream(case: Case) -> None:
    for (part, expected), row in zip(parts_of(case), case["inputs"], strict=True):
        assert attestation_digest(part.attestation_message).hex() == expected["attestation_message"]
        assert part.verify_attestation(bytes.fromhex(expected["attestation"]))
        secret = SecretKey(bytes.fromhex(row["user_key"]["secret"]))
        assert part.verify_attestation(part.attest(secret))


@pytest.mark.parametrize("case", PACKAGES)
def test_both_sides_together_make_valid_vtxos(case: Case) -> None:
    server = SecretKey(bytes.fromhex(case["server"]["secret"]))
    parts = [part for part, _ in parts_of(case)]
    secrets = [SecretKey(bytes.fromhex(row["user_key"]["secret"])) for row in case["inputs"]]
    nonces = [generate_part_nonces(part, secret) for part, secret in zip(parts, secrets, strict=True)]
    answers = [
        server_cosign_part(part, server, [public for _, public in own])
        for part, own in zip(parts, nonces, strict=True)
    ]
    vtxos = finish_package(parts, secrets, nonces, answers)
    expected = [row for package in case["packages"] for row in package["output_vtxos"]]
    assert [str(vtxo.id) for vtxo in vtxos] == [row["id"] for row in expected]
    anchors = {
        str(tx.txid): tx for tx in (Tx.parse(bytes.fromhex(row["anchor_tx"])) for row in case["inputs"])
    }
    for vtxo in vtxos:
        validate(vtxo, anchors[str(vtxo.anchor_point.txid)])


@pytest.mark.parametrize("case", params("arkoor", kind="package-error"))
def test_impossible_packages_are_refused_with_upstreams_text(case: Case) -> None:
    with pytest.raises(InvalidArkoor) as refused:
        split_package(vtxos_of(case), destinations(case["requested_outputs"]))
    assert str(refused.value) == case["error"]


@pytest.mark.parametrize("case", params("arkoor", kind="explicit-isolation"))
def test_chosen_isolation_is_judged_like_upstream(case: Case) -> None:
    vtxo = Vtxo.decode_hex(case["input_hex"])
    outputs, isolated = destinations(case["outputs"]), destinations(case["isolated_outputs"])
    if "error" in case["result"]:
        with pytest.raises(InvalidArkoor) as refused:
            ArkoorPart(vtxo, outputs, isolated, case["use_checkpoint"])
        assert str(refused.value) == case["result"]["error"]
    else:
        part = ArkoorPart(vtxo, outputs, isolated, case["use_checkpoint"])
        assert [str(step.tx.txid) for step in part.transactions] == case["result"]["virtual_txids"]


# --- amounts: sheet 03 §2.2 - §2.4

USER, SERVER = SecretKey(bytes([1] * 32)), SecretKey(bytes([2] * 32))
PAYEE = PubkeyPolicy(SecretKey(bytes([3] * 32)).public_key)
CHANGE = PubkeyPolicy(SecretKey(bytes([4] * 32)).public_key)


def board(amount_sat: int, vout: int = 0) -> Vtxo:
    """A VTXO of USER; its board fee is one satoshi."""
    funding = OutPoint(Tx(2, (TxIn(OutPoint.from_bytes(bytes(36))),), ()).txid, vout)
    return BoardTemplate(
        USER.public_key, SERVER.public_key, amount_sat + 1, 1, 1000, 128, funding
    ).unsigned_vtxo


def pay(*amounts_sat: int) -> tuple[ArkoorDestination, ...]:
    return tuple(ArkoorDestination(amount_sat, PAYEE) for amount_sat in amounts_sat)


def amounts(outputs: Sequence[ArkoorDestination]) -> list[int]:
    return [output.amount_sat for output in outputs]


VERDICTS: list[tuple[list[int], list[int], ArkoorRule | None]] = [
    ([100], [], None),
    ([200, 400], [], None),
    ([200, 500], [], None),
    ([600, 200, 200], [], None),
    ([600], [200, 200], None),
    ([500], [200, 200], None),
    ([400], [659, 100], None),
    ([330], [], None),
    ([], [100, 200], ArkoorRule.NO_OUTPUTS),
    ([500], [100], ArkoorRule.DUST),
    ([10_000], [100, 100], ArkoorRule.DUST),
    ([400], [660], ArkoorRule.ISOLATION_NOT_NEEDED),
    ([400], [659], ArkoorRule.ISOLATION_NOT_NEEDED),
    ([10_000], [100_000], ArkoorRule.ISOLATION_NOT_NEEDED),
    ([10_000], [100, 10_000], ArkoorRule.ISOLATION_NOT_NEEDED),
    ([200], [400, 100], ArkoorRule.DUST),
    ([100, 10_000], [], ArkoorRule.DUST),
    ([1], [], None),
    ([500, 0], [], ArkoorRule.ZERO_VALUE),
    ([1] * 256, [], ArkoorRule.TOO_MANY_OUTPUTS),
]


@pytest.mark.parametrize(("outputs", "isolated", "rule"), VERDICTS)
def test_amount_rules(outputs: list[int], isolated: list[int], rule: ArkoorRule | None) -> None:
    vtxo = board(sum(outputs) + sum(isolated))
    if rule is None:
        assert ArkoorPart(vtxo, pay(*outputs), pay(*isolated)).outputs == pay(*outputs)
    else:
        with pytest.raises(InvalidArkoor) as refused:
            ArkoorPart(vtxo, pay(*outputs), pay(*isolated))
        assert refused.value.rule is rule


def test_a_part_must_balance() -> None:
    with pytest.raises(UnbalancedArkoor) as refused:
        ArkoorPart(board(1000), pay(999))
    assert str(refused.value) == (
        "Input amount of 0.00001000 BTC does not match output amount of 0.00000999 BTC"
    )


def test_amounts_that_overflow_are_refused() -> None:
    with pytest.raises(InvalidArkoor, match="overflowed"):
        ArkoorPart(board(1000), pay(2**64 - 1, 2**64 - 1))
    with pytest.raises(InvalidArkoor, match="overflowed"):
        allocate([1000], pay(2**64 - 1, 2**64 - 1))


ISOLATIONS: list[tuple[list[int], list[int], list[int]]] = [
    ([900, 100], [670], [230, 100]),
    ([160, 99_840], [99_670], [170, 160]),
    ([100, 500], [100, 500], []),
    ([329, 331], [329, 331], []),
    ([330, 1, 330], [330, 330, 1], []),
    ([329, 330], [329, 330], []),
    ([400, 100, 400, 100], [400, 400, 100, 100], []),
    ([400, 100, 560, 100], [400, 430], [130, 100, 100]),
    ([100, 200, 300], [100, 200, 300], []),
    ([1000, 330], [1000, 330], []),
    ([1000, 165, 165], [1000], [165, 165]),
]


@pytest.mark.parametrize(("outputs", "normal", "isolated"), ISOLATIONS)
def test_dust_is_isolated(outputs: list[int], normal: list[int], isolated: list[int]) -> None:
    got_normal, got_isolated = isolate_dust(pay(*outputs))
    assert (amounts(got_normal), amounts(got_isolated)) == (normal, isolated)


def test_a_piece_for_the_dust_keeps_its_owner_and_comes_first() -> None:
    outputs = (ArkoorDestination(160, PAYEE), ArkoorDestination(99_840, CHANGE))
    normal, isolated = isolate_dust(outputs)
    assert normal == (ArkoorDestination(99_670, CHANGE),)
    assert isolated == (ArkoorDestination(170, CHANGE), ArkoorDestination(160, PAYEE))


@given(st.lists(st.integers(1, 9999), min_size=1, max_size=4))
def test_automatic_isolation_always_satisfies_the_rules(outputs: list[int]) -> None:
    [part] = split_package([board(sum(outputs))], pay(*outputs))
    assert sum(amounts(part.all_outputs)) == sum(outputs)


ALLOCATIONS: list[tuple[list[int], list[int], list[list[int]]]] = [
    ([10_000, 5000, 2000], [16_000, 1000], [[10_000], [5000], [1000, 1000]]),
    ([5000, 1000], [5700, 300], [[5000], [700, 300]]),
    ([5000, 5000], [5000, 5000], [[5000], [5000]]),
    ([1000], [400, 600], [[400, 600]]),
]


@pytest.mark.parametrize(("inputs", "outputs", "parts"), ALLOCATIONS)
def test_outputs_are_walked_across_inputs(
    inputs: list[int], outputs: list[int], parts: list[list[int]]
) -> None:
    assert [amounts(part) for part in allocate(inputs, pay(*outputs))] == parts


def test_a_part_at_the_end_may_isolate() -> None:
    parts = split_package(
        [board(5000), board(1000, 1)], (ArkoorDestination(5700, PAYEE), ArkoorDestination(300, CHANGE))
    )
    vtxos = [vtxo for part in parts for vtxo in part.unsigned_vtxos]
    assert [vtxo.amount_sat for vtxo in vtxos] == [5000, 670, 30, 300]


@pytest.mark.parametrize("outputs", [[16_000], [18_000], [17_000, 1]])
def test_a_package_must_balance(outputs: list[int]) -> None:
    with pytest.raises(UnbalancedArkoor):
        allocate([10_000, 7000], pay(*outputs))


@given(st.data())
def test_allocation_keeps_every_satoshi_in_order(data: st.DataObject) -> None:
    outputs = data.draw(st.lists(st.integers(1, 5000), min_size=1, max_size=5))
    cuts = data.draw(st.sets(st.integers(1, max(1, sum(outputs) - 1)), max_size=4))
    edges = sorted({0, *cuts, sum(outputs)})
    inputs = [end - start for start, end in pairwise(edges)]
    destinations_ = [
        ArkoorDestination(amount, PAYEE if index % 2 else CHANGE) for index, amount in enumerate(outputs)
    ]
    parts = allocate(inputs, destinations_)
    assert [sum(amounts(part)) for part in parts] == inputs
    flat = [piece for part in parts for piece in part]
    for destination in destinations_:
        left = destination.amount_sat
        while left:
            piece = flat.pop(0)
            assert piece.policy == destination.policy
            left -= piece.amount_sat
        assert left == 0
    assert not flat


# --- structure


def test_checkpoint_outputs_belong_to_the_payer() -> None:
    [part] = split_package([board(1000)], pay(1000))
    assert part.checkpoint_policy.user_pubkey == USER.public_key
    [checkpoint, arkoor] = part.transactions
    assert checkpoint.tx.outputs[0].script_pubkey != arkoor.tx.outputs[0].script_pubkey
    assert arkoor.tweak != checkpoint.tweak


def test_the_checkpoint_commits_to_amounts_only() -> None:
    [to_payee] = split_package([board(1000)], pay(1000))
    [to_change] = split_package([board(1000)], [ArkoorDestination(1000, CHANGE)])
    assert to_payee.spending_tx == to_change.spending_tx
    assert to_payee.unsigned_vtxos[0].id != to_change.unsigned_vtxos[0].id


def test_a_hop_adds_two_to_the_depth_and_keeps_the_terms() -> None:
    vtxo = board(1000)
    [part] = split_package([vtxo], pay(600, 400))
    for new in part.unsigned_vtxos:
        assert new.exit_depth == vtxo.exit_depth + 2
        assert (new.server_pubkey, new.exit_delta, new.expiry_height, new.anchor_point) == (
            vtxo.server_pubkey,
            vtxo.exit_delta,
            vtxo.expiry_height,
            vtxo.anchor_point,
        )


def test_isolated_vtxos_hang_off_the_output_after_the_normal_ones() -> None:
    [part] = split_package([board(10_000)], pay(160, 4000, 5840))
    assert (len(part.outputs), len(part.isolated)) == (2, 2)
    first, second = part.unsigned_vtxos[2:]
    for vtxo, index in ((first, 0), (second, 1)):
        split, fanout = vtxo.genesis[-2:]
        assert (split.output_idx, len(split.siblings)) == (2, 2)
        assert (fanout.output_idx, len(fanout.siblings)) == (index, 1)
        assert vtxo.point.vout == index


# --- worked example: sheet 03 §2.10

WORKED_USER = SecretKey(bytes.fromhex("76f78cc00278817fe65fd81cb962782d2625834d08b66edbf2cd60f6c520db63"))
WORKED_SERVER = SecretKey(bytes.fromhex("f2a9eaeba1cdb8411dfda3c9ca391e4ad29938c4f0b9c0709376fc4a1cbf0e5d"))


def worked_board(utxo: OutPoint) -> BoardTemplate:
    return BoardTemplate(WORKED_USER.public_key, WORKED_SERVER.public_key, 100_330, 330, 1000, 128, utxo)


def worked_input() -> Vtxo:
    null = OutPoint.from_bytes(bytes(32) + b"\xff" * 4)
    funding = Tx(3, (TxIn(null, sequence=0),), (worked_board(null).funding_output,))
    assert str(funding.txid) == "823b1b0ed8fac5919855a1f0409161a768d8b8c297d7eb2bda6d0cb1147da7ba"
    return worked_board(funding.outpoint(0)).unsigned_vtxo


def key(number: int) -> PubkeyPolicy:
    return PubkeyPolicy(SecretKey(number.to_bytes(32, "big")).public_key)


def test_worked_example_without_dust() -> None:
    outputs = [
        ArkoorDestination(amount, key(owner)) for amount, owner in ((40_000, 1), (30_000, 2), (30_000, 2))
    ]
    [part] = split_package([worked_input()], outputs)
    assert [str(step.tx.txid) for step in part.transactions] == [
        "233e0378be6e7eb4f45758aaeddae10880e7f4ee0b642cc37dd06b2e1c75955f",
        "7e47e91e2e681740d29e8889d69481627b904669ac61ba8f15d78ff9a7e7e3fc",
        "b45772adb6cf48d9fe987b6300b4e3317dee92c1c2984620b494a7d12e3710de",
        "0e4e4635e4681bbfb65585c530a6175a0c8b7d203da790c36c1e3f3796081575",
    ]
    assert [step.sighash.hex() for step in part.transactions[:2]] == [
        "24c81e267629b92b296e36defd322b9ecfb54aa73d3428b6687f55ae62857452",
        "0e96e560566871b0b03aafa7cb1511f4c713032e514451aca9963ab5dfa60e6c",
    ]
    assert attestation_digest(part.attestation_message).hex() == (
        "056e01a70a46f34a8860c53fa0ce54a95908255c0083873a282c17f84765a5a6"
    )


def test_worked_example_with_dust() -> None:
    [part] = split_package(
        [worked_input()], [ArkoorDestination(160, key(1)), ArkoorDestination(99_840, key(2))]
    )
    assert amounts(part.outputs) == [99_670]
    assert amounts(part.isolated) == [170, 160]
    assert [str(step.tx.txid) for step in part.transactions] == [
        "d7bd91556035aeb7301832c1db608a97a1fe856e3a3747477b784c0ab5b6f2b5",
        "6ef7defa039e9e285e56a90edbdf70fdc75812c0bdb65abb39965e95b69476d6",
        "e099aa440678d57dc732f38bd0fc188e600f8fd0ab98ddebb03fbb1d7e0d7938",
    ]
    assert part.transactions[2].sighash.hex() == (
        "90f29b1ec95f41c67cf2f516449b84b72bc9be814ea49cc5249fa258c8f5f0a0"
    )
    assert attestation_digest(part.attestation_message).hex() == (
        "ec53eb9d4c611e384c69549e49551eaec360b7b67385f6fc8ba8c1817beb5b50"
    )


# --- change: sheet 03 §2.8, §10.9

PLANS: list[tuple[list[int], int, int, list[int]]] = [
    ([1000], 1000, 2, []),
    ([2000], 1000, 2, [1000]),
    ([2001], 1000, 2, [500, 501]),
    ([2001], 1000, 1, [1001]),
    ([2002], 1000, 3, [334, 334, 334]),
    ([9000], 1000, 3, [2666, 2666, 2668]),
    ([600, 1401], 1000, 2, [500, 501]),
]


@pytest.mark.parametrize(("inputs", "amount", "factor", "change"), PLANS)
def test_change_is_split_if_it_exceeds_the_payment(
    inputs: list[int], amount: int, factor: int, change: list[int]
) -> None:
    payment = ArkoorDestination(amount, PAYEE)
    outputs = plan_outputs(inputs, payment, CHANGE, split_factor=factor)
    assert outputs[0] == payment
    assert amounts(outputs[1:]) == change
    assert all(output.policy == CHANGE for output in outputs[1:])


def test_change_is_not_split_into_dust() -> None:
    assert amounts(plan_outputs([500], ArkoorDestination(100, PAYEE), CHANGE)) == [100, 400]


@pytest.mark.parametrize("inputs", [[100_000], [5000, 95_000]])
@pytest.mark.parametrize("amount", [100, 5100])
def test_change_has_fewer_pieces_where_isolation_adds_one(inputs: list[int], amount: int) -> None:
    outputs = plan_outputs(inputs, ArkoorDestination(amount, PAYEE), CHANGE, split_factor=3)
    vtxos = [board(input_sat, vout) for vout, input_sat in enumerate(inputs)]
    assert all(len(part.all_outputs) <= MAX_FANOUT for part in split_package(vtxos, outputs))


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=4), st.integers(1, 80_000), st.integers(1, 3))
def test_planned_outputs_always_make_a_package_that_servers_accept(
    inputs: list[int], amount: int, factor: int
) -> None:
    payment = ArkoorDestination(min(amount, sum(inputs)), PAYEE)
    outputs = plan_outputs(inputs, payment, CHANGE, split_factor=factor)
    vtxos = [board(input_sat, vout) for vout, input_sat in enumerate(inputs)]
    parts = split_package(vtxos, outputs)
    assert all(len(part.all_outputs) <= MAX_FANOUT for part in parts)


def test_nothing_is_not_paid() -> None:
    with pytest.raises(InvalidArkoor, match="zero value"):
        plan_outputs([1000], ArkoorDestination(0, PAYEE), CHANGE)


def test_more_than_there_is_is_not_paid() -> None:
    with pytest.raises(UnbalancedArkoor):
        plan_outputs([1000], ArkoorDestination(1001, PAYEE), CHANGE)


def test_change_has_another_key_than_the_payment() -> None:
    with pytest.raises(ChangeToDestination, match="same address as change"):
        plan_outputs([1000], ArkoorDestination(500, CHANGE), CHANGE)


# --- cosigning: what the client must verify


@pytest.mark.parametrize("index", range(3))
def test_a_changed_partial_signature_is_refused_before_we_sign(index: int) -> None:
    [part] = split_package([board(10_000)], pay(4000, 6000))
    nonces = generate_part_nonces(part, USER)
    pub_nonces, partials = server_cosign_part(part, SERVER, [public for _, public in nonces])
    bad = list(partials)
    bad[index] = bad[index][:-1] + bytes((bad[index][-1] ^ 1,))
    with pytest.raises(InvalidPartialSignature) as refused:
        finish_part(part, USER, nonces, pub_nonces, bad)
    assert str(refused.value) == f"Invalid partial signature at index {index}"
    # The nonces are unspent: nothing was signed, and the right answer still completes.
    assert len(finish_part(part, USER, nonces, pub_nonces, partials)) == 2


def test_a_bad_part_is_found_before_any_part_is_signed() -> None:
    parts = split_package([board(10_000), board(5000, 1)], pay(15_000))
    nonces = [generate_part_nonces(part, USER) for part in parts]
    answers = [
        server_cosign_part(part, SERVER, [public for _, public in own])
        for part, own in zip(parts, nonces, strict=True)
    ]
    swapped = (answers[1][0], (answers[1][1][1], answers[1][1][0]))
    with pytest.raises(InvalidPartialSignature):
        finish_package(parts, [USER, USER], nonces, [answers[0], swapped])
    assert len(finish_package(parts, [USER, USER], nonces, answers)) == 2


def test_a_missing_part_is_refused() -> None:
    parts = split_package([board(10_000), board(5000, 1)], pay(15_000))
    nonces = [generate_part_nonces(part, USER) for part in parts]
    answer = server_cosign_part(parts[0], SERVER, [public for _, public in nonces[0]])
    with pytest.raises(WrongCosignCount) as refused:
        finish_package(parts, [USER, USER], nonces, [answer])
    assert str(refused.value) == "Wrong number of packages. Expected 2, got 1"


def test_answers_of_another_length_are_refused() -> None:
    [part] = split_package([board(10_000)], pay(4000, 6000))
    nonces = generate_part_nonces(part, USER)
    pub_nonces, partials = server_cosign_part(part, SERVER, [public for _, public in nonces])
    with pytest.raises(WrongCosignCount) as refused:
        finish_part(part, USER, nonces, (*pub_nonces, pub_nonces[0]), partials)
    assert str(refused.value) == "Wrong number of server nonces provided. Expected 3, got 4"
    with pytest.raises(WrongCosignCount) as refused:
        finish_part(part, USER, nonces, pub_nonces, partials[:-1])
    assert str(refused.value) == "Wrong number of server partial sigs. Expected 3, got 2"
    with pytest.raises(WrongCosignCount) as refused:
        server_cosign_part(part, SERVER, [nonces[0][1]])
    assert str(refused.value) == "Wrong number of user nonces provided. Expected 3, got 1"


def test_an_answer_for_other_amounts_is_refused() -> None:
    [asked] = split_package([board(10_000)], pay(4000, 6000))
    [answered] = split_package([board(10_000)], pay(4001, 5999))
    nonces = generate_part_nonces(asked, USER)
    pub_nonces, partials = server_cosign_part(answered, SERVER, [public for _, public in nonces])
    with pytest.raises(InvalidPartialSignature):
        finish_part(asked, USER, nonces, pub_nonces, partials)


def test_malformed_nonces_of_the_server_are_refused() -> None:
    [part] = split_package([board(10_000)], pay(10_000))
    nonces = generate_part_nonces(part, USER)
    _, partials = server_cosign_part(part, SERVER, [public for _, public in nonces])
    with pytest.raises(InvalidPartialSignature):
        finish_part(part, USER, nonces, (bytes(66), bytes(66)), partials)


def test_each_side_signs_with_its_own_key_only() -> None:
    [part] = split_package([board(10_000)], pay(10_000))
    nonces = generate_part_nonces(part, USER)
    publics = [public for _, public in nonces]
    with pytest.raises(WrongSigningKey):
        part.attest(SERVER)
    with pytest.raises(WrongSigningKey):
        server_cosign_part(part, USER, publics)
    with pytest.raises(WrongSigningKey):
        finish_part(part, SERVER, nonces, *server_cosign_part(part, SERVER, publics))


def test_a_retry_with_new_nonces_makes_the_same_vtxos() -> None:
    [part] = split_package([board(10_000)], pay(4000, 6000))
    results = []
    for _ in range(2):
        nonces = generate_part_nonces(part, USER)
        answer = server_cosign_part(part, SERVER, [public for _, public in nonces])
        results.append([vtxo.id for vtxo in finish_part(part, USER, nonces, *answer)])
    assert results[0] == results[1]


def test_a_nonce_signs_once() -> None:
    [part] = split_package([board(10_000)], pay(10_000))
    nonces = generate_part_nonces(part, USER)
    answer = server_cosign_part(part, SERVER, [public for _, public in nonces])
    finish_part(part, USER, nonces, *answer)
    with pytest.raises(ValueError, match="nonce"):
        finish_part(part, USER, nonces, *answer)


def test_an_attestation_covers_the_split_outputs_and_their_order() -> None:
    vtxo = board(10_000)
    [part] = split_package([vtxo], pay(160, 9840))
    attestation = part.attest(USER)
    assert part.verify_attestation(attestation)
    [other] = split_package([vtxo], pay(9840, 160))
    assert (other.outputs, other.isolated) == (part.outputs, part.isolated)
    reordered = ArkoorPart(vtxo, part.outputs, part.isolated[::-1])
    assert not reordered.verify_attestation(attestation)


def test_htlc_inputs_can_be_spent_by_their_user_and_the_server() -> None:
    [paying] = split_package(
        [board(10_000)], [ArkoorDestination(10_000, ServerHtlcSendPolicy(USER.public_key, bytes(32), 900))]
    )
    [revocation] = split_package([paying.unsigned_vtxos[0]], [ArkoorDestination(10_000, CHANGE)])
    nonces = generate_part_nonces(revocation, USER)
    answer = server_cosign_part(revocation, SERVER, [public for _, public in nonces])
    [refund] = finish_part(revocation, USER, nonces, *answer)
    assert refund.policy == CHANGE
    assert refund.exit_depth == 5


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9999), min_size=1, max_size=4))
def test_new_vtxos_round_trip(outputs: list[int]) -> None:
    [part] = split_package([board(sum(outputs))], pay(*outputs))
    for vtxo in part.unsigned_vtxos:
        assert Vtxo.decode(vtxo.encode()) == vtxo
