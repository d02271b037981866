"""Which coins a payment may spend."""

from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.onchain.coin_selection import truc_coins, untrusted_coins
from barkd_py.onchain.types import OnchainUtxo

FOREIGN = OutPoint(Txid(b"\x01" * 32), 0)
CONFIRMED = OutPoint(Txid(b"\x02" * 32), 0)


def tx(*spends: OutPoint, version: int = 2) -> Tx:
    return Tx(version, tuple(TxIn(outpoint) for outpoint in spends), (TxOut(1_000, b"\x51"),))


def coin(outpoint: OutPoint, height: int | None = None) -> OnchainUtxo:
    return OnchainUtxo(outpoint, TxOut(1_000, b"\x51"), height)


def untrusted(*unconfirmed: Tx, ours: set[OutPoint]) -> set[OutPoint]:
    coins = [coin(CONFIRMED, 7), *(coin(each.outpoint(0)) for each in unconfirmed)]
    return set(untrusted_coins(coins, {each.txid: each for each in unconfirmed}, frozenset(ours)))


def test_payment_of_a_stranger_is_untrusted() -> None:
    foreign = tx(FOREIGN)
    assert untrusted(foreign, ours={CONFIRMED}) == {foreign.outpoint(0)}


def test_change_of_our_confirmed_coins_is_trusted() -> None:
    change = tx(CONFIRMED)
    chained = tx(change.outpoint(0))
    assert untrusted(change, chained, ours={CONFIRMED, change.outpoint(0)}) == set()


def test_change_is_as_trusted_as_the_worst_coin_behind_it() -> None:
    foreign = tx(FOREIGN)
    change = tx(CONFIRMED, foreign.outpoint(0))
    ours = {CONFIRMED, foreign.outpoint(0), change.outpoint(0)}
    assert untrusted(foreign, change, ours=ours) == {foreign.outpoint(0), change.outpoint(0)}


def test_input_of_a_stranger_makes_a_transaction_untrusted() -> None:
    shared = tx(CONFIRMED, FOREIGN)
    assert untrusted(shared, ours={CONFIRMED}) == {shared.outpoint(0)}


def test_only_unconfirmed_version_3_outputs_are_set_apart() -> None:
    truc, ordinary = tx(CONFIRMED, version=3), tx(CONFIRMED)
    coins = [coin(truc.outpoint(0)), coin(ordinary.outpoint(0)), coin(CONFIRMED, 7)]
    unconfirmed = {each.txid: each for each in (truc, ordinary)}
    assert truc_coins(coins, unconfirmed) == {truc.outpoint(0)}
    assert truc_coins(coins, {}) == frozenset()
