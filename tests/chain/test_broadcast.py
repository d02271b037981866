"""Reading package answers that no node on a laptop gives on demand."""

from typing import Any

import pytest

from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.chain.broadcast import check_package_result, classify
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind
from barkd_py.errors import ChainUnavailable

PARENT = Tx(3, (TxIn(OutPoint(Txid(bytes(32)), 0)),), (TxOut(1_000, b"\x51"),))
CHILD = Tx(3, (TxIn(PARENT.outpoint(0)),), (TxOut(900, b"\x51"),))


def answer(message: str, parent: str | None = None, child: str | None = None) -> dict[str, Any]:
    """A node's answer, with the child's result first."""
    return {
        "package_msg": message,
        "tx-results": {
            str(tx.wtxid): {"txid": str(tx.txid)} | ({} if error is None else {"error": error})
            for tx, error in ((CHILD, child), (PARENT, parent))
        },
    }


def refusal(result: object) -> BroadcastError:
    with pytest.raises(BroadcastError) as caught:
        check_package_result([PARENT, CHILD], result)
    return caught.value


def test_success_needs_no_results() -> None:
    check_package_result([PARENT, CHILD], {"package_msg": "success", "tx-results": {}})


def test_parent_decides_before_its_child() -> None:
    error = refusal(answer("transaction failed", "dust", "bad-txns-inputs-missingorspent"))
    assert error.kind is BroadcastErrorKind.OTHER
    assert str(error) == (
        f"msg: 'transaction failed', errors: [tx {PARENT.txid}: dust, "
        f"tx {CHILD.txid}: bad-txns-inputs-missingorspent]"
    )


def test_parent_without_error_is_listed_as_such() -> None:
    error = refusal(answer("transaction failed", None, "bad-witness-anchor-not-empty"))
    assert f"tx {PARENT.txid}: (no error)" in str(error)


def test_known_parent_is_passed_over() -> None:
    error = refusal(answer("transaction failed", "txn-already-known", "bad-txns-inputs-missingorspent"))
    assert error.kind is BroadcastErrorKind.MISSING_OR_SPENT


def test_known_parent_and_accepted_child_is_known() -> None:
    error = refusal(answer("transaction failed", "txn-already-known", None))
    assert error.kind is BroadcastErrorKind.KNOWN
    assert str(error) == "transaction already known to the mempool"


def test_no_result_at_all_is_other() -> None:
    error = refusal({"package_msg": "package-not-child-with-unconfirmed-parents", "tx-results": {}})
    assert str(error) == "msg: 'package-not-child-with-unconfirmed-parents', no tx errors"


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        [],
        {},
        {"package_msg": "transaction failed"},
        {"package_msg": 1, "tx-results": {}},
        {"package_msg": "transaction failed", "tx-results": []},
        {"package_msg": "transaction failed", "tx-results": {str(PARENT.wtxid): "dust"}},
        {"package_msg": "transaction failed", "tx-results": {str(PARENT.wtxid): {"error": 7}}},
    ],
)
def test_unreadable_answer_says_nothing(malformed: object) -> None:
    with pytest.raises(ChainUnavailable):
        check_package_result([PARENT, CHILD], malformed)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("bad-txns-inputs-missingorspent", BroadcastErrorKind.MISSING_OR_SPENT),
        ("insufficient fee, rejecting replacement ab; new feerate", BroadcastErrorKind.LOW_FEE),
        (
            "insufficient fee (including sibling eviction), rejecting replacement ab",
            BroadcastErrorKind.LOW_FEE,
        ),
        ("txn-already-in-mempool", BroadcastErrorKind.KNOWN),
        ("min relay fee not met, 0 < 13", BroadcastErrorKind.OTHER),
    ],
)
def test_reasons_are_classified(reason: str, kind: BroadcastErrorKind) -> None:
    assert classify(reason) is kind
