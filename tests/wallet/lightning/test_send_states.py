"""What is decided about a Lightning payment: each answer of the server, at each height that matters."""

from dataclasses import dataclass, replace

import pytest

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.server_rpc.api import (
    LightningFailureReason,
    LightningPaymentStatus,
    PaymentFailed,
    PaymentPending,
    PaymentSucceeded,
)
from barkd_py.wallet.lightning.send.states import (
    MAX_LOST,
    Answer,
    Decision,
    Initiated,
    Payment,
    Stuck,
    after_poll,
    exit_by,
    is_late,
    must_exit,
    weigh,
)
from barkd_py.wallet.movements import PaymentMethod, PaymentMethodKind

PREIMAGE = b"\x51" * 32
KEY = SecretKey(b"\x52" * 32).public_key
EXPIRY = 1000
THRESHOLD = 144
MARGIN = 12

PAYMENT = Payment(
    payment_hash=sha256(PREIMAGE),
    invoice="lnbcrt1",
    method=PaymentMethod(PaymentMethodKind.INVOICE, "lnbcrt1"),
    amount_sat=1_000,
    fee_sat=10,
    input_ids=(VtxoId(bytes(36)),),
    change_sat=(),
    htlc_pubkey=KEY,
    revocation_pubkey=KEY,
    htlc_expiry_height=EXPIRY,
    exit_by_height=5_000,
    movement_id=1,
)
HTLCS = (VtxoId(b"\x01" * 36),)


@dataclass(frozen=True)
class Tree:
    """What HTLCs come out of, as far as it matters for their time."""

    expiry_height: int
    exit_depth: int
    exit_delta: int = 12


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (PaymentPending(), Answer.PENDING),
        (PaymentSucceeded(PREIMAGE), Answer.PAID),
        (PaymentSucceeded(bytes(32)), Answer.PENDING),
        (PaymentSucceeded(PREIMAGE + b"\x00"), Answer.PENDING),
        (PaymentSucceeded(b""), Answer.PENDING),
        *((PaymentFailed(reason), Answer.FAILED) for reason in LightningFailureReason),
    ],
)
def test_only_a_preimage_is_a_success(status: LightningPaymentStatus, answer: Answer) -> None:
    assert weigh(status, PAYMENT) is answer


@pytest.mark.parametrize(
    ("tip_height", "late"),
    [(0, False), (EXPIRY - THRESHOLD, False), (EXPIRY - THRESHOLD + 1, True), (EXPIRY + 1, True)],
)
def test_htlcs_are_late_before_they_expire(tip_height: int, late: bool) -> None:
    assert is_late(PAYMENT, tip_height, THRESHOLD) is late


def test_htlcs_are_late_when_a_tree_below_them_expires() -> None:
    payment = replace(PAYMENT, exit_by_height=500)
    assert not is_late(payment, 499, THRESHOLD)
    assert is_late(payment, 500, THRESHOLD)


@pytest.mark.parametrize("delta", [0, 10])
def test_no_threshold_is_below_zero(delta: int) -> None:
    payment = replace(PAYMENT, htlc_expiry_height=delta)
    assert not is_late(payment, 0, THRESHOLD)
    assert is_late(payment, 1, THRESHOLD)


@pytest.mark.parametrize(
    ("expiry_height", "depth", "expected"),
    [
        (1_000, 0, 988),
        (1_000, 5, 983),
        (213, 0, 203),
        (215, 0, 203),
        (216, 0, 204),
        (216, 1, 203),
        (100, 0, 203),
    ],
)
def test_htlcs_exit_in_time_but_trees_give_a_few_blocks_at_least(
    expiry_height: int, depth: int, expected: int
) -> None:
    late = Tree(5_000, 1)
    vtxo = Tree(expiry_height, depth)
    assert exit_by((late, vtxo), MARGIN, deeper_by=0, tip_height=200) == expected
    vtxo = replace(vtxo, expiry_height=expiry_height + 2)
    assert exit_by((late, vtxo), MARGIN, deeper_by=2, tip_height=200) == expected


EARLY, LATE = EXPIRY - THRESHOLD, EXPIRY - THRESHOLD + 1


@pytest.mark.parametrize(
    ("answer", "tip_height", "lost", "decision"),
    [
        (Answer.PAID, EARLY, 0, Decision.SETTLE),
        (Answer.PAID, EXPIRY + 1, MAX_LOST, Decision.SETTLE),
        (Answer.FAILED, EARLY, 0, Decision.REVOKE),
        (Answer.FAILED, LATE, 0, Decision.REVOKE),
        (Answer.PENDING, EARLY, 0, Decision.WAIT),
        (Answer.PENDING, LATE, 0, Decision.REVOKE),
        (Answer.SILENT, EARLY, 0, Decision.WAIT),
        (Answer.SILENT, LATE, 0, Decision.REVOKE),
        (Answer.UNKNOWN, EARLY, 0, Decision.TELL_AGAIN),
        (Answer.UNKNOWN, EARLY, MAX_LOST - 2, Decision.TELL_AGAIN),
        (Answer.UNKNOWN, EARLY, MAX_LOST - 1, Decision.REVOKE),
        (Answer.UNKNOWN, LATE, 0, Decision.REVOKE),
    ],
)
def test_what_follows_from_an_answer(answer: Answer, tip_height: int, lost: int, decision: Decision) -> None:
    state = Initiated(PAYMENT, HTLCS, lost)
    assert after_poll(state, answer, tip_height=tip_height, threshold=THRESHOLD) is decision


WINDOW = EXPIRY - MARGIN + 1
"""The first height at which HTLCs exit that their server has given up, or has been silent about."""


@pytest.mark.parametrize(
    ("answer", "tip_height", "silent_since", "exits"),
    [
        (Answer.FAILED, WINDOW - 1, None, False),
        (Answer.FAILED, WINDOW, None, True),
        (Answer.UNKNOWN, WINDOW - 1, None, False),
        (Answer.UNKNOWN, WINDOW, None, True),
        (Answer.PENDING, WINDOW, None, False),
        (Answer.PENDING, EXPIRY + 6, None, False),
        (Answer.PENDING, EXPIRY + 7, None, True),
        (Answer.SILENT, WINDOW, None, False),
        (Answer.SILENT, WINDOW, WINDOW - 2, False),
        (Answer.SILENT, WINDOW, WINDOW - 3, True),
        (Answer.SILENT, WINDOW - 1, 0, False),
        (Answer.SILENT, EXPIRY + 7, EXPIRY + 7, True),
    ],
)
def test_when_htlcs_exit(answer: Answer, tip_height: int, silent_since: int | None, exits: bool) -> None:
    state = Stuck(PAYMENT, HTLCS, silent_since)
    assert must_exit(state, answer, tip_height=tip_height, exit_margin=MARGIN) is exits


@pytest.mark.parametrize("answer", [Answer.PENDING, Answer.FAILED, Answer.SILENT, Answer.UNKNOWN])
def test_a_tree_that_expires_waits_for_no_server(answer: Answer) -> None:
    state = Stuck(replace(PAYMENT, exit_by_height=300), HTLCS)
    for tip_height, exits in ((299, False), (300, True)):
        assert must_exit(state, answer, tip_height=tip_height, exit_margin=MARGIN) is exits


def test_the_outputs_are_the_htlc_and_the_change() -> None:
    payment = replace(PAYMENT, change_sat=(7, 8))
    assert [output.amount_sat for output in payment.outputs] == [1_010, 7, 8]
    assert [output.policy.kind for output in payment.outputs] == ["server-htlc-send-v1", "pubkey", "pubkey"]
