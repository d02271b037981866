"""Finding our transactions in any order, and never missing a block that holds one."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.chain.matching import WalletMatcher


def script(index: int) -> bytes:
    return b"\x51\x20" + index.to_bytes(32, "big")


class Window:
    """Scripts 0, 1, 2, …: three more than the last one found are recognised."""

    def __init__(self) -> None:
        self.revealed_count = 0

    @property
    def window_count(self) -> int:
        return self.revealed_count + 3

    def script(self, index: int) -> bytes:
        return script(index)

    def index_of(self, script_pubkey: bytes) -> int | None:
        if len(script_pubkey) != 34 or script_pubkey[:2] != b"\x51\x20":
            return None
        index = int.from_bytes(script_pubkey[2:], "big")
        return index if index < self.window_count else None

    def found(self, index: int) -> None:
        self.revealed_count = max(self.revealed_count, index + 1)


def pay(number: int, script_pubkey: bytes, *spends: OutPoint) -> Tx:
    prevouts = spends or (OutPoint(Txid(bytes([number]) * 32), 0),)
    return Tx(2, tuple(TxIn(prevout) for prevout in prevouts), (TxOut(number, script_pubkey),))


FOREIGN = script(1 << 200)


def test_chain_of_dependent_transactions_is_found_in_any_order() -> None:
    first = pay(1, script(2))
    beyond_the_first_window = pay(2, script(4))
    spend = pay(3, FOREIGN, beyond_the_first_window.outpoint(0))
    foreign = pay(4, FOREIGN)
    for order in permutations([first, beyond_the_first_window, spend, foreign]):
        found = WalletMatcher(Window(), ()).select(order)
        assert {tx.txid for tx in found} == {first.txid, beyond_the_first_window.txid, spend.txid}


def test_spend_of_a_known_output_is_ours() -> None:
    outpoint = OutPoint(Txid(bytes(range(32))), 3)
    spend = pay(1, FOREIGN, OutPoint(Txid(bytes(32)), 0), outpoint)
    assert WalletMatcher(Window(), ()).select([spend]) == []
    assert WalletMatcher(Window(), [outpoint]).select([spend]) == [spend]


def test_raw_search_sees_payments_and_spends() -> None:
    outpoint = OutPoint(Txid(bytes(range(32))), 3)
    matcher = WalletMatcher(Window(), [outpoint])
    assert matcher.may_concern(b"\x00" * 7 + pay(1, script(1)).serialize())
    assert matcher.may_concern(pay(1, FOREIGN, outpoint).serialize())
    assert not matcher.may_concern(pay(1, FOREIGN).serialize() + pay(2, script(9)).serialize())


def test_many_outputs_are_not_searched_for_one_by_one() -> None:
    outpoints = [OutPoint(Txid(bytes(32)), vout) for vout in range(201)]
    assert WalletMatcher(Window(), outpoints).may_concern(b"")


@given(
    scripts=st.lists(st.sampled_from([script(0), script(1), script(2), script(7), FOREIGN, b"", b"\x51"])),
    noise=st.binary(max_size=40),
)
def test_raw_search_misses_nothing_that_matches(scripts: list[bytes], noise: bytes) -> None:
    tx = Tx(2, (TxIn(OutPoint(Txid(bytes(32)), 0)),), tuple(TxOut(1, each) for each in scripts))
    selected = WalletMatcher(Window(), ()).select([tx])
    if selected:
        assert WalletMatcher(Window(), ()).may_concern(noise + tx.serialize())
