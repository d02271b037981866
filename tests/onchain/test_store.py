"""Applying changes to rows."""

from barkd_py.onchain.store import BlockRow, OnchainChange, OnchainState, TransactionRow, WalletRow

WALLET = WalletRow("regtest", "tr()", None)


def test_empty_change_is_known_as_such() -> None:
    assert OnchainChange().is_empty
    assert not OnchainChange(wallet=WALLET).is_empty
    assert not OnchainChange(blocks=(BlockRow(1, None),)).is_empty


def test_rows_replace_rows_and_blocks_without_hash_disappear() -> None:
    unseen = TransactionRow(b"t", b"raw", None, None, None)
    seen = TransactionRow(b"t", b"raw", None, 5, 5)
    first = OnchainChange(blocks=(BlockRow(0, b"a"), BlockRow(1, b"b")), transactions=(unseen,))
    second = OnchainChange(blocks=(BlockRow(1, None), BlockRow(2, b"c")), transactions=(seen,))
    state = OnchainState(WALLET).apply(first).apply(second)
    assert state.blocks == {0: b"a", 2: b"c"}
    assert state.transactions == {b"t": seen}
    assert state.wallet == WALLET


def test_the_same_change_twice_is_as_good_as_once() -> None:
    change = OnchainChange(wallet=WALLET, blocks=(BlockRow(0, b"a"), BlockRow(1, None)))
    once = OnchainState(WalletRow("regtest", "tr()", 7), {1: b"b"}).apply(change)
    assert once.apply(change) == once
