"""From what was seen on the chain to rows, without a chain; and how the engine meets a chain that moves."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from barkd_py.bitcoin.bip32 import Seed
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.bitcoin.units import BlockRef, Network
from barkd_py.chain.source import (
    BroadcastError,
    BroadcastErrorKind,
    ChainSource,
    FoundInBlock,
    WalletFindings,
    WalletQuery,
)
from barkd_py.errors import ChainUnavailable
from barkd_py.onchain.keychain import Keychain, wallet_descriptor
from barkd_py.onchain.store import (
    BlockRow,
    Confirmation,
    OnchainChange,
    OnchainState,
    TransactionRow,
    WalletRow,
)
from barkd_py.onchain.sync import (
    Observation,
    missing_transactions,
    observe,
    parents_first,
    plan_change,
    rebroadcast,
    unspent_outpoints,
)

NOW_S = 1_000_000


def block(height: int, fork: int = 0) -> BlockRef:
    return BlockRef(height, BlockHash(height.to_bytes(4, "big") + bytes([fork]) + bytes(27)))


def payment(number: int, script: bytes = b"\x51", *, spends: OutPoint | None = None) -> Tx:
    prevout = spends or OutPoint(Txid(bytes([number]) + bytes(31)), 0)
    return Tx(2, (TxIn(prevout),), (TxOut(1_000 + number, script),))


def row(tx: Tx, *, confirmed: BlockRef | None = None, last_seen: int | None = None) -> TransactionRow:
    confirmation = None if confirmed is None else Confirmation(confirmed.height, confirmed.hash, 7)
    return TransactionRow(tx.txid, tx.serialize(), confirmation, first_seen=last_seen, last_seen=last_seen)


def state(*rows: TransactionRow, tip: BlockRef, last_revealed: int | None = None) -> OnchainState:
    blocks = {0: bytes(block(0).hash), tip.height: bytes(tip.hash)}
    blocks |= {each.confirmation.height: each.confirmation.block_hash for each in rows if each.confirmation}
    return OnchainState(
        WalletRow("regtest", "tr()", last_revealed),
        MappingProxyType(blocks),
        MappingProxyType({each.txid: each for each in rows}),
    )


def observation(
    fork: BlockRef,
    tip: BlockRef,
    *,
    confirmed: tuple[FoundInBlock, ...] = (),
    mempool: tuple[Tx, ...] = (),
    until: BlockRef | None = None,
) -> Observation:
    return Observation(fork, tip, WalletFindings(until or tip, confirmed, mempool))


def plan(before: OnchainState, seen: Observation, **more: object) -> tuple[OnchainState, OnchainChange]:
    arguments = {"last_revealed": before.wallet.last_revealed, "now_s": NOW_S} | more
    change = plan_change(before, seen, **arguments)  # type: ignore[arg-type]
    return before.apply(change), change


# --- planning -----------------------------------------------------------------------------------------------


def test_nothing_new_is_no_change() -> None:
    before = state(row(payment(1), confirmed=block(5)), tip=block(9))
    _, change = plan(before, observation(block(9), block(9)))
    assert change.is_empty


def test_new_tip_alone_changes_blocks_alone() -> None:
    before = state(row(payment(1), confirmed=block(5)), tip=block(9))
    _, change = plan(before, observation(block(9), block(10)))
    assert change == OnchainChange(blocks=(BlockRow(10, block(10).hash),))


def test_confirmed_payment_brings_its_block_along() -> None:
    tx = payment(1)
    found = FoundInBlock(tx, block(8), block_time=88)
    after, _ = plan(state(tip=block(5)), observation(block(5), block(10), confirmed=(found,)))
    assert after.transactions[tx.txid].confirmation == Confirmation(8, block(8).hash, 88)
    assert after.blocks[8] == block(8).hash
    assert after.blocks[10] == block(10).hash


def test_reorg_takes_blocks_and_confirmations_back() -> None:
    tx = payment(1)
    before = state(row(tx, confirmed=block(8)), tip=block(9))
    before = replace(before, blocks={**before.blocks, 5: bytes(block(5).hash)})
    after, _ = plan(before, observation(block(5), block(9, fork=1), mempool=(tx,)))
    assert after.blocks == {
        0: block(0).hash,
        5: block(5).hash,
        9: block(9, fork=1).hash,
    }
    assert after.transactions[tx.txid] == row(tx, last_seen=NOW_S)


def test_payment_lost_in_a_reorg_counts_for_nothing() -> None:
    tx = payment(1)
    before = state(row(tx, confirmed=block(8)), tip=block(9))
    after, _ = plan(before, observation(block(0), block(9, fork=1)))
    assert after.transactions[tx.txid] == row(tx)


def test_search_that_is_not_over_evicts_nothing() -> None:
    tx = payment(1)
    before = state(row(tx, last_seen=5), tip=block(9))
    seen = observation(block(9), block(99), until=block(50))
    assert missing_transactions(before, seen) == ()
    after, change = plan(before, seen)
    assert change.transactions == ()
    assert after.blocks[50] == block(50).hash


@pytest.mark.parametrize(("age_s", "counts"), [(0, True), (29, True), (30, False), (31, False)])
def test_grace_lasts_thirty_seconds(age_s: int, counts: bool) -> None:
    tx = payment(1)
    before = state(row(tx, last_seen=NOW_S - age_s), tip=block(9))
    after, _ = plan(before, observation(block(9), block(9)))
    assert (after.transactions[tx.txid].last_seen is not None) is counts


def test_transaction_that_the_network_took_again_is_seen_now() -> None:
    tx = payment(1)
    before = state(row(tx, last_seen=5), tip=block(9))
    after, _ = plan(before, observation(block(9), block(9)), alive={tx.txid})
    assert after.transactions[tx.txid].last_seen == NOW_S
    assert after.transactions[tx.txid].first_seen == 5


def test_transaction_recorded_during_the_search_stays() -> None:
    """The plan is made on newer rows than the search."""
    tx = payment(1)
    newer = state(row(tx, last_seen=NOW_S), tip=block(9))
    after, change = plan(newer, observation(block(9), block(9)))
    assert change.is_empty
    assert after.transactions[tx.txid].last_seen == NOW_S


def test_stale_mempool_does_not_undo_a_confirmation() -> None:
    tx = payment(1)
    before = state(row(tx, confirmed=block(5)), tip=block(9))
    _, change = plan(before, observation(block(9), block(9), mempool=(tx,)))
    assert change.is_empty
    found = FoundInBlock(tx, block(8), block_time=88)
    after, _ = plan(state(tip=block(5)), observation(block(5), block(9), confirmed=(found,), mempool=(tx,)))
    assert after.transactions[tx.txid].confirmation is not None


def test_old_checkpoints_go_and_those_that_confirm_something_stay() -> None:
    tx = payment(1)
    before = state(row(tx, confirmed=block(5)), tip=block(6))
    recent = tuple(block(height) for height in range(7, 150))
    seen = Observation(block(6), block(150), WalletFindings(block(150), blocks=recent))
    after, _ = plan(before, seen)
    assert sorted(after.blocks) == [0, 5, *range(51, 151)]


def test_revealed_index_only_grows() -> None:
    before = state(tip=block(9), last_revealed=7)
    seen = observation(block(9), block(9))
    assert plan(before, seen, last_revealed=3)[1].is_empty
    assert plan(before, seen, last_revealed=8)[0].wallet.last_revealed == 8
    assert plan(state(tip=block(9)), seen, last_revealed=0)[0].wallet.last_revealed == 0


def test_planning_twice_is_as_good_as_once() -> None:
    tx, other = payment(1), payment(2)
    found = FoundInBlock(tx, block(8), block_time=88)
    before = state(row(other, last_seen=5), tip=block(5))
    seen = observation(block(5), block(9), confirmed=(found,))
    after, _ = plan(before, seen)
    assert plan(after, replace(seen, fork=block(9)))[1].is_empty


# --- order and outpoints ------------------------------------------------------------------------------------


def test_parents_come_before_children() -> None:
    grandparent = payment(1)
    parent = payment(2, spends=grandparent.outpoint(0))
    child = payment(3, spends=parent.outpoint(0))
    assert parents_first([child, parent, grandparent]) == [grandparent, parent, child]


@pytest.fixture
def keychain(seed: Seed) -> Keychain:
    return Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, last_revealed=0)


def test_spends_above_the_fork_are_looked_for_again(keychain: Keychain) -> None:
    ours = payment(1, keychain.script(0))
    spent_at_8 = payment(2, spends=ours.outpoint(0))
    before = state(row(ours, confirmed=block(5)), row(spent_at_8, confirmed=block(8)), tip=block(9))
    assert set(unspent_outpoints(before, keychain, 8)) == set()
    assert set(unspent_outpoints(before, keychain, 7)) == {ours.outpoint(0)}


# --- sending again ------------------------------------------------------------------------------------------


class Peers:
    """Only broadcasting: refuses what it is told to refuse."""

    def __init__(self, refused: dict[Txid, Exception]) -> None:
        self.refused = refused
        self.offered: list[Txid] = []

    async def broadcast(self, tx: Tx) -> None:
        self.offered.append(tx.txid)
        if tx.txid in self.refused:
            raise self.refused[tx.txid]


async def test_only_spends_of_ours_are_sent_again_and_parents_first(keychain: Keychain) -> None:
    ours = payment(1, keychain.script(0))
    spend = payment(2, keychain.script(1), spends=ours.outpoint(0))
    child = payment(3, spends=spend.outpoint(0))
    foreign = payment(4, keychain.script(0))
    rows = [row(tx, last_seen=5) for tx in (child, foreign, spend)]
    before = state(row(ours, confirmed=block(5)), *rows, tip=block(9))
    network = Peers({})
    alive = await rebroadcast(network, before, keychain, rows)  # type: ignore[arg-type]
    assert network.offered == [spend.txid, child.txid]
    assert alive == {spend.txid, child.txid}


async def test_refused_is_dead_and_unanswered_is_not(keychain: Keychain) -> None:
    ours = [payment(number, keychain.script(0)) for number in (1, 2)]
    spends = [payment(9 + index, spends=tx.outpoint(0)) for index, tx in enumerate(ours)]
    rows = [row(tx, last_seen=5) for tx in spends]
    before = state(*(row(tx, confirmed=block(5)) for tx in ours), *rows, tip=block(9))
    network = Peers(
        {
            spends[0].txid: BroadcastError(BroadcastErrorKind.MISSING_OR_SPENT, "spent"),
            spends[1].txid: ChainUnavailable("no answer"),
        }
    )
    alive = await rebroadcast(network, before, keychain, rows)  # type: ignore[arg-type]
    assert alive == {spends[1].txid}


# --- a chain that moves -------------------------------------------------------------------------------------


class MovingChain:
    """A chain source whose tip is another one at each look, until it comes to rest.

    findings: made from the query.
    """

    reads_blocks = False

    def __init__(self, tips: list[BlockRef], confirmed: tuple[FoundInBlock, ...] = ()) -> None:
        self.tips = tips
        self.confirmed = confirmed
        self.searches = 0

    async def fetch_tip(self) -> BlockRef:
        return self.tips.pop(0) if len(self.tips) > 1 else self.tips[0]

    async def block_hash(self, height: int) -> BlockHash | None:
        return block(height).hash if height <= self.tips[-1].height else None

    async def find_wallet_transactions(self, query: WalletQuery) -> WalletFindings:
        self.searches += 1
        return WalletFindings(query.tip, self.confirmed)


def moving(chain: MovingChain) -> ChainSource:
    return chain  # type: ignore[return-value]


async def test_search_is_repeated_when_a_block_comes_in_between(keychain: Keychain) -> None:
    chain = MovingChain([block(9), block(10), block(11), block(11)])
    seen = await observe(moving(chain), state(tip=block(5)), keychain)
    assert (seen.tip, seen.fork) == (block(11), block(5))
    assert chain.searches == 2


async def test_chain_that_never_rests_is_unavailable(keychain: Keychain) -> None:
    chain = MovingChain([block(height) for height in range(9, 40)])
    with pytest.raises(ChainUnavailable, match="keeps changing"):
        await observe(moving(chain), state(tip=block(5)), keychain)


async def test_confirmation_in_a_foreign_block_is_not_believed(keychain: Keychain) -> None:
    lie = FoundInBlock(payment(1, keychain.script(0)), block(8, fork=1), 88)
    with pytest.raises(ChainUnavailable):
        await observe(moving(MovingChain([block(9)], (lie,))), state(tip=block(5)), keychain)
    too_high = FoundInBlock(payment(1, keychain.script(0)), block(10), 88)
    with pytest.raises(ChainUnavailable):
        await observe(moving(MovingChain([block(9)], (too_high,))), state(tip=block(5)), keychain)


async def test_fork_is_the_newest_common_block(keychain: Keychain) -> None:
    stale = state(tip=block(9, fork=1))
    stale = replace(stale, blocks={**stale.blocks, 4: bytes(block(4).hash), 7: bytes(block(7, fork=1).hash)})
    seen = await observe(moving(MovingChain([block(8)])), stale, keychain)
    assert seen.fork == block(4)


async def test_chain_with_another_first_block_is_refused(keychain: Keychain) -> None:
    foreign = OnchainState(WalletRow("regtest", "tr()", None), {0: bytes(block(0, fork=1).hash)})
    with pytest.raises(ChainUnavailable, match="another chain"):
        await observe(moving(MovingChain([block(8)])), foreign, keychain)
