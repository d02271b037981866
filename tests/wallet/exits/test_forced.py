"""Exits that the wallet starts by itself, because of what others have put on the chain."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from barkd_py.ark.claim import build_claim_tx, claim_input, sign_claim_tx
from barkd_py.ark.policy import PubkeyPolicy, ServerHtlcReceivePolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import generate_mnemonic
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind
from barkd_py.errors import ChainUnavailable
from barkd_py.onchain.cpfp import CANONICAL_CHILD_WEIGHT_WU, MIN_FEE_RATE
from barkd_py.wallet.exits.costs.worth import Bearer, bearable_rate, worth_exiting
from barkd_py.wallet.exits.errors import TransactionRetrievalFailure
from barkd_py.wallet.exits.forced.rivals import Rival, arkoor_pubkeys, rivals_of
from barkd_py.wallet.exits.forced.watch import OnChainWatch, patience_blocks
from barkd_py.wallet.exits.states import Canceled, Claimed, ExitFilter, VtxoSwept
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.movements import EXIT_START
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.tables import vtxo_body
from barkd_py.wallet.vtxo_states import Locked
from tests.wallet.exits.coins import EXIT_DELTA, EXPIRY_HEIGHT, SERVER, Mint
from tests.wallet.exits.conftest import World

PATIENCE = patience_blocks(EXIT_DELTA)
LOOT = p2tr_script(SERVER.public_key.x_only)
"""Where an attacker pays what he gets."""


@dataclass
class Stranger:
    """Somebody who pays us, and is not to be trusted."""

    world: World
    mint: Mint

    async def board(self, amount_sat: int = 100_000) -> Vtxo:
        return await self.mint.board(amount_sat)

    async def pay(self, spent: Vtxo, *amounts_sat: int) -> tuple[Vtxo, ...]:
        """Into our wallet."""
        keys = [await self.world.keychain.reserve() for _ in amounts_sat]
        policies = [PubkeyPolicy(key.public_key) for key in keys]
        vtxos = await self.mint.pay_to(spent, list(zip(amounts_sat, policies, strict=True)))
        await self.world.hold(*vtxos)
        return vtxos

    async def take(self, spent: Vtxo) -> Tx:
        """Claim what was paid with already. Raises BroadcastError."""
        (secret,) = await self.mint.keychain.secrets_for([user_key_of(spent)])
        return await self._take(spent, secret, None)

    async def take_as_server(self, htlc: Vtxo, preimage: bytes | None = None) -> Tx:
        return await self._take(htlc, SERVER, preimage)

    async def _take(self, spent: Vtxo, secret: SecretKey, preimage: bytes | None) -> Tx:
        claim = claim_input(
            spent, is_ours=lambda key: key == secret.public_key, find_preimage=lambda _: preimage
        )
        height = self.world.node.index.tip_height
        unsigned = build_claim_tx([claim], [TxOut(spent.amount_sat - 1_000, LOOT)], locktime=height)
        tx = sign_claim_tx(unsigned, [claim], lambda _: secret)
        await self.world.chain.broadcast(tx)
        return tx


def user_key_of(vtxo: Vtxo) -> PublicKey:
    assert vtxo.user_pubkey is not None
    return vtxo.user_pubkey


@pytest.fixture
async def foreign_store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(str(tmp_path / "stranger.sqlite"))
    yield opened
    await opened.close()


def stranger_of(world: World, store: Store) -> Stranger:
    return Stranger(world, Mint(world.node, Keychain(WalletKeys(generate_mnemonic()), store)))


@pytest.fixture
def stranger(world: World, foreign_store: Store) -> Stranger:
    return stranger_of(world, foreign_store)


async def publish(world: World, *txs: Tx) -> None:
    for tx in txs:
        await world.node.mine_exactly([tx])


async def exiting(world: World) -> list[VtxoId]:
    return [status.vtxo_id for status in await world.exits.statuses(ExitFilter.LIVE)]


async def tick_and_mine(world: World, blocks: int) -> None:
    for _ in range(blocks):
        await world.exits.tick()
        await world.mine()
    await world.exits.tick()


# --- attacks


@pytest.mark.parametrize("calls_per_block", [0, 20], ids=["reads blocks", "asks for transactions"])
async def test_a_payer_who_publishes_his_coin_does_not_get_it_back(
    either_world: World, foreign_store: Store, calls_per_block: int
) -> None:
    world, stranger = either_world, stranger_of(either_world, foreign_store)
    use(world, calls_per_block)
    await world.fund(50_000, 50_000)
    spent = await stranger.board()
    (ours,) = await stranger.pay(spent, 100_000)
    await world.exits.tick()
    assert await exiting(world) == []

    await publish(world, *spent.exit_transactions())
    await tick_and_mine(world, EXIT_DELTA - 1)
    with pytest.raises(BroadcastError) as refusal:
        await stranger.take(spent)
    assert refusal.value.kind is BroadcastErrorKind.MISSING_OR_SPENT
    await world.until_claimable(ours.id)
    await world.exits.claim(None, LOOT)
    await world.mine()
    await world.exits.tick()
    assert isinstance(await world.state(ours.id), Claimed)


async def test_the_attack_succeeds_where_nobody_watches(world: World, stranger: Stranger) -> None:
    """So that the other tests prove something."""
    spent = await stranger.board()
    await stranger.pay(spent, 100_000)
    await publish(world, *spent.exit_transactions())
    await world.mine(EXIT_DELTA - 1)
    await stranger.take(spent)


async def test_any_former_owner_may_attack(world: World, stranger: Stranger) -> None:
    """The coin went from hand to hand; the one before the last publishes it up to his own."""
    first = await stranger.board()
    (second,) = await stranger.mint.pay(first, [100_000])
    (ours,) = await stranger.pay(second, 100_000)
    await world.fund(50_000, 50_000)
    await world.exits.tick()
    txs = second.exit_transactions()
    await publish(world, *txs[:2])  # his first coin and its checkpoint
    await tick_and_mine(world, PATIENCE + 2)
    assert await exiting(world) == []
    await publish(world, txs[2])
    await tick_and_mine(world, EXIT_DELTA - 1)
    with pytest.raises(BroadcastError):
        await stranger.take(second)
    await world.until_claimable(ours.id)


@pytest.mark.parametrize("state", [None, Locked(None)])
async def test_a_server_that_publishes_a_claimed_htlc_does_not_get_it(
    world: World, stranger: Stranger, state: Locked | None
) -> None:
    """Once its time is over, it could take what it has paid out; also where the new coin is not free."""
    key = await world.keychain.reserve()
    height = world.node.index.tip_height
    policy = ServerHtlcReceivePolicy(key.public_key, sha256(bytes(32)), height + 20, 10)
    (htlc,) = await stranger.mint.pay_to(await stranger.board(), [(100_000, policy)])
    new = await world.keychain.reserve()
    (ours,) = await world.mint.pay_to(htlc, [(100_000, PubkeyPolicy(new.public_key))])
    await world.hold(ours, state=state)
    await world.fund(50_000, 50_000)
    await publish(world, *htlc.exit_transactions())
    for _ in range(20 + EXIT_DELTA):
        await world.exits.tick()
        await world.mine()
    with pytest.raises(BroadcastError) as refusal:
        await stranger.take_as_server(htlc)
    assert refusal.value.kind is BroadcastErrorKind.MISSING_OR_SPENT
    await world.until_claimable(ours.id)


async def test_an_output_that_was_taken_before_the_wallet_came_is_reported(
    world: World, stranger: Stranger
) -> None:
    """It is too late. The exit says so, once, and the movement that nothing came of it."""
    await world.fund(50_000)
    spent = await stranger.board()
    (ours,) = await stranger.pay(spent, 100_000)
    await publish(world, *spent.exit_transactions())
    await world.mine(EXIT_DELTA - 1)
    await stranger.take(spent)
    await tick_and_mine(world, 12)
    assert isinstance(await world.state(ours.id), VtxoSwept)
    assert [each.subsystem for each in await world.movements()] == [EXIT_START]


# --- what is no attack


async def test_a_checkpoint_on_the_chain_is_no_reason_to_exit(world: World, stranger: Stranger) -> None:
    """Somebody exits what he has paid with, and an honest server answers with the checkpoint."""
    await world.fund(50_000)
    spent = await stranger.board()
    vtxos = await stranger.pay(spent, 60_000, 40_000)
    await world.exits.tick()
    txs = vtxos[0].exit_transactions()
    await publish(world, txs[0])
    await tick_and_mine(world, PATIENCE - 1)
    await publish(world, txs[1])
    await tick_and_mine(world, 2 * EXIT_DELTA)
    assert await world.exits.statuses(ExitFilter.ALL) == []
    assert await world.onchain_sat() == 50_000


async def test_our_own_former_coin_is_no_danger(world: World) -> None:
    """Nobody but us could take it."""
    await world.fund(50_000)
    spent = await world.mint.board(100_000)
    await world.hold(*(await world.mint.pay(spent, [100_000])))
    await publish(world, *spent.exit_transactions())
    await tick_and_mine(world, 2 * EXIT_DELTA)
    assert await world.exits.statuses(ExitFilter.ALL) == []


async def test_the_root_of_a_tree_is_no_reason_to_exit_its_leaves(world: World) -> None:
    await world.fund(50_000)
    leaves = await world.mint.round([50_000] * 5)
    await world.hold(*leaves)
    await world.exits.tick()
    (root,) = {leaf.exit_transactions()[0] for leaf in leaves}
    await publish(world, root)
    await tick_and_mine(world, EXIT_DELTA)
    assert await world.exits.statuses(ExitFilter.ALL) == []


async def test_below_the_expiry_what_is_half_on_the_chain_leaves_in_time(
    world: World, stranger: Stranger
) -> None:
    """The server may sweep a checkpoint from the expiry on, even if it never refreshes what is above it."""
    expiry_height = world.node.index.tip_height + 40
    stranger.mint.expiry_height = expiry_height
    await world.fund(50_000, 50_000)
    spent = await stranger.board()
    (ours,) = await stranger.pay(spent, 100_000)
    untouched = await world.mint.board(100_000)
    await world.hold(untouched)
    await publish(world, *ours.exit_transactions()[:2])
    while not await exiting(world):
        await tick_and_mine(world, 1)
    assert await exiting(world) == [ours.id]
    height = world.node.index.tip_height
    assert height == expiry_height - 12 - 1, "twelve blocks, and one for its transaction"
    await world.until_claimable(ours.id)


async def test_tiny_payments_are_not_exited_at_a_loss(world: World, stranger: Stranger) -> None:
    """Else one cheap transaction of an attacker would cost us hundreds. If rates fall, they are."""
    await world.fund(50_000, 50_000)
    spent = await stranger.board()
    _tiny, large = await stranger.pay(spent, 1_000, 99_000)
    await world.set_rates(FeeRate.from_sat_per_vb(4))
    await publish(world, *spent.exit_transactions())
    await tick_and_mine(world, PATIENCE)
    assert await exiting(world) == [large.id]


@pytest.mark.parametrize("is_asked_for", [False, True])
async def test_fees_that_rise_do_not_eat_up_an_exit_that_nobody_asked_for(
    world: World, stranger: Stranger, is_asked_for: bool
) -> None:
    """A chain source that exaggerates, or a busy week. Who asks for an exit knows why."""
    amount_sat = 30_000
    funds_sat = 400_000
    await world.fund(funds_sat // 2, funds_sat // 2)
    spent = await stranger.board(amount_sat)
    (ours,) = await stranger.pay(spent, amount_sat)
    await publish(world, *spent.exit_transactions())
    if is_asked_for:
        await world.exits.start([ours.id])
    for _ in range(PATIENCE):
        await world.exits.tick()
        await world.node.mine_exactly([])
    await world.exits.tick()
    assert await exiting(world) == [ours.id]
    await world.set_rates(FeeRate.from_sat_per_vb(200))
    for _ in range(3):
        await world.node.mine_exactly([])
        await world.exits.tick()
        await world.restart()
    await tick_and_mine(world, 2 * EXIT_DELTA)
    assert (await world.state(ours.id)).type == "claimable"
    paid_sat = funds_sat - await world.onchain_sat()
    assert (paid_sat > amount_sat) is is_asked_for
    assert paid_sat > amount_sat // 3, "it does follow the market, as far as that helps"


# --- reorganisations, restarts, cancellations, outages


async def test_a_parent_that_a_reorganisation_takes_back_is_no_danger(
    world: World, stranger: Stranger
) -> None:
    await world.fund(50_000)
    spent = await stranger.board()
    (ours,) = await stranger.pay(spent, 100_000)
    await world.exits.tick()
    await publish(world, *spent.exit_transactions())
    await world.exits.tick()
    await world.node.reorg(1)
    world.evict(*world.mempool)
    await tick_and_mine(world, PATIENCE + 2)
    assert await world.exits.statuses(ExitFilter.ALL) == []
    assert ours.id not in await exiting(world)


@pytest.mark.parametrize("has_looked_before", [True, False])
async def test_what_was_seen_before_an_answer_failed_to_come_is_not_kept_through_a_reorganisation(
    world: World, stranger: Stranger, has_looked_before: bool
) -> None:
    await world.fund(50_000)
    spent = await stranger.board()
    await stranger.pay(spent, 100_000)
    if has_looked_before:
        await world.exits.tick()
    await publish(world, *spent.exit_transactions())
    asked = 0

    def away_after_one(name: str, when: str) -> None:
        nonlocal asked
        asked += (name, when) == ("tx_status", "before")
        if asked > 1:
            raise ChainUnavailable("the answer never came")

    world.chain.gate = away_after_one
    with pytest.raises(TransactionRetrievalFailure):
        await world.exits.tick()
    world.chain.gate = None
    assert len(world.exits._watch.confirmed) == 1
    await world.node.reorg(1)
    world.evict(*world.mempool)
    await tick_and_mine(world, PATIENCE + 2)
    assert await world.exits.statuses(ExitFilter.ALL) == []


async def test_what_is_watched_no_more_is_forgotten(world: World) -> None:
    """A wallet lives for years."""
    leaves = await world.mint.round([50_000] * 2)
    await world.hold(*leaves, await world.mint.board(50_000))
    await publish(world, leaves[0].exit_transactions()[0])
    await world.exits.tick()
    assert world.exits._watch.confirmed != {}
    async with world.store.transaction() as tx:
        await tx.vtxos.mark_spent([leaf.id for leaf in leaves])
    await world.mine()
    await world.exits.tick()
    assert world.exits._watch.confirmed == {}


# --- a row that nobody can read


async def spoil(world: World, vtxo: Vtxo, *, is_other: bool) -> None:
    """Its stored bytes are cut off, or those of another VTXO."""
    query = sa.select(vtxo_body).where(vtxo_body.c.vtxo_id == str(vtxo.id))
    async with world.store.transaction() as tx:
        row = (await tx.vtxos._connection.execute(query)).one()
        bare = bytes([*row.bare[:-1], row.bare[-1] ^ 1]) if is_other else row.bare[:20]
        change = sa.update(vtxo_body).where(vtxo_body.c.vtxo_id == str(vtxo.id)).values(bare=bare)
        await tx.vtxos._connection.execute(change)


@pytest.mark.parametrize("is_other", [False, True])
async def test_one_rotten_row_does_not_blind_the_watch(
    world: World, stranger: Stranger, caplog: pytest.LogCaptureFixture, is_other: bool
) -> None:
    await world.fund(50_000, 50_000)
    rotten = await world.mint.board(40_000)
    await world.hold(rotten)
    spent = await stranger.board()
    (ours,) = await stranger.pay(spent, 100_000)
    await spoil(world, rotten, is_other=is_other)
    await publish(world, *spent.exit_transactions())
    await tick_and_mine(world, PATIENCE)
    assert await exiting(world) == [ours.id]
    named = [record.message for record in caplog.records if f"{rotten.id} is passed over" in record.message]
    assert len(named) == 1
    await world.until_claimable(ours.id)


async def test_one_rotten_row_does_not_stop_the_exits_of_others(world: World, stranger: Stranger) -> None:
    """Of the VTXO, or of the exit itself."""
    await world.fund(50_000, 50_000)
    first, second, ours = [await world.mint.board(amount_sat) for amount_sat in (40_000, 50_000, 60_000)]
    await world.hold(first, second, ours)
    await world.exits.start([first.id, second.id, ours.id])
    await spoil(world, first, is_other=False)
    async with world.store.transaction() as tx:
        row = await tx.exits.find(second.id)
        assert row is not None
        await tx.exits.save(replace(row, state='{"version": 1, "state": {}}'))
    await world.until_claimable(ours.id)
    shown = {
        status.vtxo_id: status for status in await world.exits.statuses(ExitFilter.LIVE, with_packages=True)
    }
    assert shown.keys() == {first.id, ours.id}
    assert "cannot be read" in str(shown[first.id].error)


async def test_an_exit_that_has_begun_goes_on_when_its_reason_is_gone(
    world: World, stranger: Stranger
) -> None:
    await world.fund(50_000, 50_000)
    spent = await stranger.board()
    (ours,) = await stranger.pay(spent, 100_000)
    await publish(world, *spent.exit_transactions())
    await tick_and_mine(world, PATIENCE)
    assert await exiting(world) == [ours.id]
    await world.node.reorg(PATIENCE + 1)
    world.evict(*world.mempool)
    await world.until_claimable(ours.id)
    assert [each.subsystem for each in await world.movements()] == [EXIT_START]


async def test_a_restart_finds_what_happened_meanwhile(world: World, stranger: Stranger) -> None:
    await world.fund(50_000, 50_000)
    spent = await stranger.board()
    (ours,) = await stranger.pay(spent, 100_000)
    await world.exits.tick()
    await publish(world, *spent.exit_transactions())
    await world.mine(PATIENCE)
    await world.restart()
    await world.exits.tick()
    assert await exiting(world) == [ours.id]
    await world.restart()
    await world.exits.tick()
    assert len(await world.movements()) == 1


async def test_who_calls_a_forced_exit_off_is_believed(world: World, stranger: Stranger) -> None:
    await world.fund(50_000)
    spent = await stranger.board()
    (ours,) = await stranger.pay(spent, 100_000)
    await world.exits.start([ours.id])
    await world.exits.cancel(ours.id)  # before there was any danger
    await publish(world, *spent.exit_transactions())
    await world.mine(PATIENCE)
    await world.exits.notice_forced()
    assert await exiting(world) == [ours.id]
    await world.exits.cancel(ours.id)
    await tick_and_mine(world, 2)
    assert isinstance(await world.state(ours.id), Canceled)


async def test_a_block_that_could_not_be_read_is_read_later(world: World, stranger: Stranger) -> None:
    use(world, 0)
    spent = await stranger.board()
    await stranger.pay(spent, 100_000)
    await world.exits.tick()

    def closed(name: str, when: str) -> None:
        if name in {"block_txids", "tx_status"}:
            raise ChainUnavailable("no answer")

    world.chain.gate = closed
    other = await stranger.board()
    await publish(world, *spent.exit_transactions(), *other.exit_transactions())
    await stranger.pay(other, 100_000)
    with pytest.raises(TransactionRetrievalFailure):
        await world.exits.notice_forced()
    world.chain.gate = None
    await world.mine(PATIENCE)
    await world.exits.notice_forced()
    assert len(await exiting(world)) == 2


async def test_a_source_without_lists_of_blocks_is_asked_for_each_transaction(
    world: World, stranger: Stranger
) -> None:
    use(world, 0)
    spent = await stranger.board()
    await stranger.pay(spent, 100_000)
    await world.exits.notice_forced()

    def closed(name: str, when: str) -> None:
        if name == "block_txids":
            raise ChainUnavailable("esplora answered with HTTP status 403")

    world.chain.gate = closed
    await publish(world, *spent.exit_transactions())
    await world.mine(PATIENCE)
    assert await world.exits.notice_forced()
    assert len(await exiting(world)) == 1


# --- what it costs


async def test_a_block_costs_two_calls_however_many_coins_there_are(world: World) -> None:
    """A wallet with more coins than it is worth asking for."""
    use(world, 5)
    for _ in range(8):
        await world.hold(await world.mint.board(10_000))
    await world.exits.notice_forced()
    await world.mine()
    world.chain.calls.clear()
    await world.exits.notice_forced()
    assert sorted(world.chain.calls) == ["block_hash", "block_txids", "tip"]
    await world.hold(await world.mint.board(10_000))  # mines a block
    world.chain.calls.clear()
    await world.exits.notice_forced()
    assert sorted(world.chain.calls) == ["block_hash", "block_txids", "tip", "tx_status"]


def use(world: World, calls_per_block: int) -> None:
    world.exits._watch = OnChainWatch(
        world.store, world.chain, exit_margin=12, calls_per_block=calls_per_block
    )


# --- the pure parts


async def test_rivals(world: World, stranger: Stranger) -> None:
    board = await stranger.board()
    assert rivals_of(board, []) == [Rival.SERVER_AT_EXPIRY]
    (ours,) = await stranger.pay(board, 100_000)
    theirs = [Rival.SERVER_AT_EXPIRY, Rival.SOMEBODY, Rival.SERVER_AT_EXPIRY]
    assert rivals_of(ours, []) == theirs
    (again,) = await world.mint.pay(ours, [100_000])
    keys = arkoor_pubkeys(again)
    assert keys == {user_key_of(board), user_key_of(ours)}
    assert rivals_of(again, {user_key_of(ours)}) == [*theirs, Rival.NOBODY, Rival.SERVER_AT_EXPIRY]
    leaf, *_ = await world.mint.round([10_000, 10_000])
    assert set(rivals_of(leaf, [])) == {Rival.SERVER_AT_EXPIRY}

    key = await world.keychain.reserve()
    policy = ServerHtlcReceivePolicy(key.public_key, bytes(32), EXPIRY_HEIGHT, 10)
    (htlc,) = await world.mint.pay_to(ours, [(100_000, policy)])
    (out,) = await world.mint.pay_to(htlc, [(100_000, PubkeyPolicy(key.public_key))])
    assert rivals_of(out, {user_key_of(ours), key.public_key})[-2:] == [
        Rival.SOMEBODY,  # an HTLC, though we have a key to it
        Rival.SERVER_AT_EXPIRY,
    ]


async def test_what_exits_may_cost(world: World) -> None:
    """All of it together what they hold, however much they share, and as the rate would be at the start."""
    spent = await world.mint.board(40_000)
    vtxos = await world.mint.pay(spent, [10_000] * 4)
    bearers = [Bearer(vtxo.amount_sat, vtxo.exit_transactions()) for vtxo in vtxos]
    txs = {tx.txid: tx for vtxo in vtxos for tx in vtxo.exit_transactions()}
    total_sat = sum(
        bearable_rate(txid, bearers).fee_wu(tx.weight_wu + CANONICAL_CHILD_WEIGHT_WU)
        for txid, tx in txs.items()
    )
    rates = {bearable_rate(txid, bearers) for txid in txs}
    rate = min(rates)
    assert max(rates).sat_per_kwu - rate.sat_per_kwu <= rate.sat_per_kwu // 10
    assert 30_000 < total_sat < 40_000, "claims have their part too"
    assert worth_exiting(vtxos, [], FeeRate(rate.sat_per_kwu * 9 // 10)) == {vtxo.id for vtxo in vtxos}
    assert bearable_rate(next(iter(txs)), [Bearer(1, list(txs.values()))]) < MIN_FEE_RATE


async def test_what_several_share_is_shared(world: World, stranger: Stranger) -> None:
    """None of them could pay for the way by itself."""
    spent = await stranger.board(20_000)
    vtxos = await stranger.pay(spent, *[2_000] * 10)
    rate = FeeRate.from_sat_per_vb(4)
    assert worth_exiting(vtxos[:1], (), rate) == frozenset()
    assert worth_exiting(vtxos, (), rate) == {vtxo.id for vtxo in vtxos}
    done = [tx.txid for tx in vtxos[0].exit_transactions()[:2]]
    assert worth_exiting(vtxos[:1], done, rate) == {vtxos[0].id}
    assert worth_exiting(vtxos, (), FeeRate.from_sat_per_vb(20)) == frozenset()
