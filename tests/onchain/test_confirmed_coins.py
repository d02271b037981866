"""Which coins pay for the next child, without asking BDK for all of them each time."""

from collections.abc import Sequence
from dataclasses import replace

from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.onchain.confirmed_coins import ConfirmedCoins
from barkd_py.onchain.store import (
    Confirmation,
    OnchainChange,
    OnchainState,
    OutputRow,
    TransactionRow,
    WalletRow,
)
from barkd_py.onchain.types import OnchainUtxo

SCRIPT = b"\x51\x20" + bytes(32)
FUNDING = Tx(2, (TxIn(OutPoint(Txid(sha256(b"faucet")), 0)),), tuple([TxOut(10_000, SCRIPT)] * 4))
STATE = OnchainState(WalletRow("regtest", "tr(…)", 9)).apply(
    OnchainChange(
        transactions=(
            TransactionRow(FUNDING.txid, FUNDING.serialize(), Confirmation(5, bytes(32), 0), None, None),
        )
    )
)
COINS = [OnchainUtxo(FUNDING.outpoint(vout), FUNDING.outputs[vout], 5) for vout in range(4)]


class Bdk:
    """Counts how often it is asked."""

    def __init__(self, coins: Sequence[OnchainUtxo]) -> None:
        self.coins = coins
        self.asked = 0

    def __call__(self) -> Sequence[OnchainUtxo]:
        self.asked += 1
        return self.coins


def outpoints(coins: ConfirmedCoins, bdk: Bdk) -> list[OutPoint]:
    return [coin.outpoint for coin in coins.find(bdk)]


def child(name: str, *spent: OutPoint) -> tuple[OnchainChange, OutPoint]:
    """A change that records a child; the anchor that it spends beside these."""
    anchor = OutPoint(Txid(sha256(name.encode())), 1)
    tx = Tx(3, tuple(TxIn(outpoint) for outpoint in (anchor, *spent)), (TxOut(9_000, SCRIPT),))
    return (
        OnchainChange(
            transactions=(TransactionRow(tx.txid, tx.serialize(), None, 7, 7),),
            outputs=(OutputRow(anchor.txid, anchor.vout, 0, b"\x51\x02\x4e\x73"),),
        ),
        anchor,
    )


def test_only_confirmed_coins_are_found() -> None:
    bdk = Bdk([COINS[0], replace(COINS[1], confirmation_height=None)])
    assert outpoints(ConfirmedCoins(), bdk) == [COINS[0].outpoint]


def test_what_a_child_spends_is_gone_without_asking_again() -> None:
    coins, bdk, state = ConfirmedCoins(), Bdk(COINS), STATE
    assert len(outpoints(coins, bdk)) == 4
    for number in (2, 0):
        change, _ = child(f"parent {number}", COINS[number].outpoint)
        coins.follow(state, change)
        state = state.apply(change)
    assert outpoints(coins, bdk) == [COINS[1].outpoint, COINS[3].outpoint]
    assert bdk.asked == 1


def test_a_second_child_of_one_parent_frees_the_coins_of_the_first() -> None:
    coins, bdk = ConfirmedCoins(), Bdk(COINS)
    coins.find(bdk)
    first, anchor = child("parent", COINS[0].outpoint)
    coins.follow(STATE, first)
    second, same = child("parent", COINS[1].outpoint)
    assert same == anchor
    coins.follow(STATE.apply(first), second)
    coins.find(bdk)
    assert bdk.asked == 2


def test_whatever_else_touches_our_outputs_makes_us_ask_again() -> None:
    first, _ = child("parent", COINS[0].outpoint)
    (row,) = first.transactions
    of_change, _ = child("other parent", row.tx.outpoint(0))
    spent_twice, _ = child("third parent", COINS[0].outpoint)
    seen_again = OnchainChange(transactions=(replace(row, last_seen=9),))
    for change in (of_change, spent_twice, seen_again):
        coins, bdk = ConfirmedCoins(), Bdk(COINS)
        coins.find(bdk)
        coins.follow(STATE, first)
        coins.follow(STATE.apply(first), change)
        coins.find(bdk)
        assert bdk.asked == 2, change


def test_nothing_is_followed_before_the_first_question() -> None:
    coins, bdk = ConfirmedCoins(), Bdk(COINS[1:])
    coins.follow(STATE, child("parent", COINS[0].outpoint)[0])
    assert len(outpoints(coins, bdk)) == 3
    coins.forget()
    coins.find(bdk)
    assert bdk.asked == 2
