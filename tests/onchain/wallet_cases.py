"""The on-chain wallet against a chain: the tests get node, source, clock, seed and store from who imports
them, so that they run on the built-in node and on a real one, over both kinds of chain source."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.bip32 import Seed
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut, fee_anchor
from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.chain.source import ChainSource, Mempool
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node
from barkd_py.errors import chain_text
from barkd_py.onchain.cpfp import InsufficientConfirmedFunds
from barkd_py.onchain.errors import TxBuildFailed
from barkd_py.onchain.types import OnchainBalance, SignedTx
from barkd_py.onchain.view import BdkView
from barkd_py.onchain.wallet import OnchainWallet
from tests.fakes.chains import Clock
from tests.fakes.coins import Stranger
from tests.fakes.onchain_store import MemoryOnchainStore

RATE = FeeRate(1_250)
STRANGER = Stranger("payee").script


@pytest.fixture
async def wallet(source: ChainSource, store: MemoryOnchainStore, seed: Seed, clock: Clock) -> OnchainWallet:
    return await OnchainWallet.create(store, source, seed, Network.REGTEST, now=clock)


Reopen = Callable[[], Awaitable[OnchainWallet]]


@pytest.fixture
def reopen(source: ChainSource, store: MemoryOnchainStore, seed: Seed, clock: Clock) -> Reopen:
    """Open the wallet again from its rows, as after a kill."""
    return lambda: OnchainWallet.open(store, source, seed, Network.REGTEST, now=clock)


async def new_script(wallet: OnchainWallet) -> bytes:
    return parse_address(await wallet.next_address(), Network.REGTEST)


async def deposit(wallet: OnchainWallet, node: Node, amount_sat: int, *, blocks: int = 1) -> Tx:
    """A payment from the faucet to a new address, mined unless blocks is 0; the wallet has seen it."""
    tx = await faucet.pay(node, [TxOut(amount_sat, await new_script(wallet))])
    if blocks:
        await node.mine(blocks)
    await wallet.sync()
    return tx


# --- receiving ----------------------------------------------------------------------------------------------


async def test_deposit_is_pending_and_then_confirmed(wallet: OnchainWallet, node: Node) -> None:
    tx = await deposit(wallet, node, 50_000, blocks=0)
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=50_000)
    (coin,) = await wallet.utxos()
    assert coin.outpoint.txid == tx.txid
    assert coin.confirmation_height is None

    (block,) = await node.mine()
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000)
    (coin,) = await wallet.utxos()
    assert (coin.amount_sat, coin.confirmation_height) == (50_000, block.height)
    (entry,) = await wallet.transactions()
    assert entry.tx == tx
    assert (entry.confirmation, entry.balance_change_sat, entry.onchain_fee_sat) == (block, 50_000, None)
    assert wallet.tip_height == block.height


async def test_coinbase_matures(wallet: OnchainWallet, node: Node) -> None:
    script = await new_script(wallet)
    await node.mine(1, reward_script=script)
    await wallet.sync()
    reward_sat = (await wallet.balance()).immature_sat
    assert reward_sat > 0
    await node.mine(98)
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(immature_sat=reward_sat)
    await node.mine(2)
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=reward_sat)


async def test_payment_to_a_revealed_address_is_found_after_a_restart(
    wallet: OnchainWallet, node: Node, reopen: Reopen
) -> None:
    addresses = [await wallet.next_address() for _ in range(3)]
    await faucet.pay(node, [TxOut(7_000, parse_address(addresses[2], Network.REGTEST))])
    reopened = await reopen()
    await reopened.sync()
    assert (await reopened.balance()).total_sat == 7_000
    assert await reopened.next_address() not in addresses


# --- reorganisations ----------------------------------------------------------------------------------------


async def test_reorged_deposit_is_pending_and_confirms_again(wallet: OnchainWallet, node: Node) -> None:
    await deposit(wallet, node, 50_000)
    await node.reorg(1)
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=50_000)
    (entry,) = await wallet.transactions()
    assert entry.confirmation is None
    (block,) = await node.mine()
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000)
    (entry,) = await wallet.transactions()
    assert entry.confirmation == block


async def test_reorg_of_several_blocks_moves_confirmations(wallet: OnchainWallet, node: Node) -> None:
    first = await deposit(wallet, node, 50_000)
    second = await deposit(wallet, node, 60_000, blocks=3)
    await node.reorg(4, transactions=[first, second])
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=110_000)
    heights = {entry.confirmation.height for entry in await wallet.transactions() if entry.confirmation}
    assert len(heights) == 1


async def test_deposit_that_a_reorg_makes_impossible_is_gone(
    wallet: OnchainWallet, node: Node, source: ChainSource
) -> None:
    coin = await Stranger().fund(node, 50_000)
    to_us = Stranger().spend([coin], [TxOut(49_000, await new_script(wallet))])
    to_self = Stranger().spend([coin], [TxOut(48_000, Stranger().script)])
    await source.broadcast(to_us)
    await node.mine()
    await wallet.sync()
    assert (await wallet.balance()).confirmed_sat == 49_000
    await node.reorg(1, transactions=[to_self])
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance()
    assert await wallet.transactions() == ()


# --- eviction -----------------------------------------------------------------------------------------------


async def replaced_deposit(wallet: OnchainWallet, node: Node, source: ChainSource) -> None:
    """A payment to us that was seen, and then replaced by one that is not."""
    coin = await Stranger().fund(node, 50_000)
    to_us = Stranger().spend([coin], [TxOut(49_000, await new_script(wallet))])
    await source.broadcast(to_us)
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=49_000)
    await source.broadcast(Stranger().spend([coin], [TxOut(40_000, Stranger().script)]))


async def test_replaced_deposit_still_counts_after_29_seconds(
    wallet: OnchainWallet, node: Node, source: ChainSource, clock: Clock
) -> None:
    await replaced_deposit(wallet, node, source)
    clock.now_s += 29
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=49_000)


async def test_replaced_deposit_is_gone_after_31_seconds(
    wallet: OnchainWallet, node: Node, source: ChainSource, clock: Clock
) -> None:
    await replaced_deposit(wallet, node, source)
    clock.now_s += 31
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance()
    assert await wallet.transactions() == ()


async def test_grace_counts_from_when_it_was_last_seen(
    wallet: OnchainWallet, node: Node, source: ChainSource, clock: Clock
) -> None:
    await deposit(wallet, node, 50_000, blocks=0)
    clock.now_s += 3_600
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=50_000)


async def test_evicted_transaction_counts_again_when_it_is_mined(
    wallet: OnchainWallet, node: Node, source: ChainSource, clock: Clock
) -> None:
    coin = await Stranger().fund(node, 50_000)
    to_us = Stranger().spend([coin], [TxOut(49_000, await new_script(wallet))])
    await wallet.record(to_us)
    clock.now_s += 31
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance()
    await source.broadcast(to_us)
    await node.mine()
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=49_000)


async def test_evicting_by_hand_takes_effect_at_once(wallet: OnchainWallet, node: Node) -> None:
    await deposit(wallet, node, 50_000)
    built = await wallet.build_tx([TxOut(20_000, STRANGER)], RATE)
    await wallet.record(built.tx)
    assert (await wallet.balance()).confirmed_sat == 0
    await wallet.evict(built.tx.txid)
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000)


# --- paying -------------------------------------------------------------------------------------------------


async def test_payment_keeps_the_order_of_recipients_and_ends_with_change(
    wallet: OnchainWallet, node: Node
) -> None:
    await deposit(wallet, node, 100_000)
    recipients = [TxOut(9_000, STRANGER), TxOut(1_000, faucet.FAUCET_SCRIPT), TxOut(5_000, STRANGER)]
    built = await wallet.build_tx(recipients, RATE)
    assert list(built.tx.outputs[:3]) == recipients
    assert len(built.tx.outputs) == 4
    change = built.tx.outputs[3]
    assert wallet.is_mine(change.script_pubkey)
    assert built.fee_sat == 100_000 - 15_000 - change.value_sat
    assert built.tx.version == 2
    assert built.tx.locktime == node.index.tip_height
    assert {tx_in.sequence for tx_in in built.tx.inputs} == {0xFFFF_FFFD}
    # BDK counts one weight unit more per input than a signature needs
    assert 0 <= built.fee_sat - RATE.fee_wu(built.tx.weight_wu) <= 3


async def test_change_goes_to_no_address_that_was_shown(
    wallet: OnchainWallet, node: Node, reopen: Reopen
) -> None:
    """Whoever was given one, to be paid by, would take our change for the payment."""
    shown = [await new_script(wallet)]
    for _ in range(2):
        await deposit(wallet, node, 50_000)
    shown.append(await new_script(wallet))
    change: list[bytes] = []
    for _ in range(2):
        built = await wallet.build_tx([TxOut(9_000, STRANGER)], RATE)
        child = await wallet.fund_child(await exit_parent(node), RATE)
        change += [built.tx.outputs[-1].script_pubkey, child.tx.outputs[0].script_pubkey]
        shown.append(await new_script(wallet))
        await wallet.evict(child.tx.txid)
        wallet = await reopen()
    assert all(wallet.is_mine(script) for script in change)
    assert not set(change) & set(shown)
    assert len(set(shown)) == 4


async def test_change_that_never_was_leaves_its_address_to_the_next(
    wallet: OnchainWallet, node: Node
) -> None:
    """Otherwise each child that is replaced would use an address up, and a search ends at a gap of many."""
    await deposit(wallet, node, 100_000)
    parent = await exit_parent(node)
    built = await wallet.build_tx([TxOut(9_000, STRANGER)], RATE)
    children = [await wallet.fund_child(parent, RATE)]
    for sat_per_kwu in (2_500, 5_000):
        rate = FeeRate(sat_per_kwu)
        children.append(await wallet.fund_child(parent, rate, replaced_txid=children[-1].tx.txid))
    scripts = {child.tx.outputs[0].script_pubkey for child in children}
    assert scripts == {built.tx.outputs[-1].script_pubkey}


async def test_change_is_found_by_who_has_only_the_words(
    wallet: OnchainWallet, node: Node, source: ChainSource, seed: Seed
) -> None:
    """However many addresses were given out that nobody has paid to: a search ends at a gap."""
    await deposit(wallet, node, 100_000)
    for _ in range(60):
        await wallet.next_address()
    built = await wallet.build_tx([TxOut(9_000, STRANGER)], RATE)
    await wallet.record(built.tx)
    await source.broadcast(built.tx)
    await node.mine()
    await wallet.sync()
    twin = await OnchainWallet.create(MemoryOnchainStore(), source, seed, Network.REGTEST, birthday_height=1)
    assert await twin.balance() == await wallet.balance()
    assert (await twin.balance()).confirmed_sat == 91_000 - built.fee_sat


async def test_built_transaction_comes_with_its_final_psbt(wallet: OnchainWallet, node: Node) -> None:
    await deposit(wallet, node, 100_000)
    built = await wallet.build_tx([TxOut(9_000, STRANGER)], RATE)
    assert built.psbt[:5] == b"psbt\xff"
    unsigned = built.unsigned_tx
    assert unsigned.txid == built.tx.txid
    assert unsigned.serialize() == built.tx.serialize_without_witness()
    assert unsigned.serialize() in built.psbt
    assert built.tx.inputs[0].witness[0] in built.psbt


async def test_building_changes_nothing_until_it_is_recorded(wallet: OnchainWallet, node: Node) -> None:
    await deposit(wallet, node, 100_000)
    built = await wallet.build_tx([TxOut(9_000, STRANGER)], RATE)
    assert await wallet.balance() == OnchainBalance(confirmed_sat=100_000)
    await wallet.record(built.tx)
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=91_000 - built.fee_sat)


async def test_drain_of_one_coin_leaves_nothing(wallet: OnchainWallet, node: Node) -> None:
    """The amount is one that upstream's own tests expect. Source: sheet 03 §1.4."""
    await deposit(wallet, node, 100_000)
    built = await wallet.build_drain(STRANGER, RATE)
    assert built.tx.outputs == (TxOut(99_443, STRANGER),)
    assert built.fee_sat == 557


async def test_drain_spends_every_coin(wallet: OnchainWallet, node: Node, source: ChainSource) -> None:
    for amount_sat in (10_000, 20_000, 30_000):
        await deposit(wallet, node, amount_sat)
    txid = await wallet.drain(STRANGER)
    assert await wallet.balance() == OnchainBalance()
    assert await source.tx_status(txid) == Mempool()


async def test_send_is_broadcast_and_counts_at_once(
    wallet: OnchainWallet, node: Node, source: ChainSource
) -> None:
    await deposit(wallet, node, 100_000)
    txid = await wallet.send_many([(STRANGER, 10_000), (STRANGER, 20_000)])
    assert await source.tx_status(txid) == Mempool()
    _, entry = await wallet.transactions()
    assert entry.txid == txid
    assert entry.onchain_fee_sat is not None
    assert entry.balance_change_sat == -30_000 - entry.onchain_fee_sat
    change_sat = 100_000 + entry.balance_change_sat
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=change_sat)
    await node.mine()
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=change_sat)


async def test_own_unconfirmed_change_can_be_spent(
    wallet: OnchainWallet, node: Node, source: ChainSource
) -> None:
    await deposit(wallet, node, 100_000)
    await wallet.send(STRANGER, 10_000)
    txid = await wallet.send(STRANGER, 10_000)
    assert await source.tx_status(txid) == Mempool()


async def test_payment_beyond_the_funds_is_refused_with_the_shortfall(
    wallet: OnchainWallet, node: Node
) -> None:
    await deposit(wallet, node, 100_000)
    with pytest.raises(TxBuildFailed) as refusal:
        await wallet.build_tx([TxOut(100_000, STRANGER)], RATE)
    text = chain_text(refusal.value)
    assert text.startswith("error building tx: Insufficient funds: 0.00100000 BTC available of 0.001")
    assert text.endswith(" BTC needed")
    assert await wallet.balance() == OnchainBalance(confirmed_sat=100_000)


@pytest.mark.parametrize("amount_sat", [21_000_000 * 100_000_000 + 1, 2**63, 2**64 - 1, 2**64])
async def test_payment_beyond_all_money_is_insufficient_funds(wallet: OnchainWallet, amount_sat: int) -> None:
    with pytest.raises(TxBuildFailed) as refusal:
        await wallet.send(STRANGER, amount_sat)
    assert chain_text(refusal.value).startswith("error building tx: Insufficient funds: 0 BTC available of ")


async def test_dust_is_refused_by_its_place(wallet: OnchainWallet, node: Node) -> None:
    await deposit(wallet, node, 100_000)
    with pytest.raises(TxBuildFailed) as refusal:
        await wallet.build_tx([TxOut(329, STRANGER)], RATE)
    assert chain_text(refusal.value) == "error building tx: Output below the dust limit: 0"
    with pytest.raises(TxBuildFailed) as refusal:
        await wallet.build_tx([TxOut(330, STRANGER), TxOut(0, STRANGER)], RATE)
    assert chain_text(refusal.value) == "error building tx: Output below the dust limit: 1"


async def test_nobody_to_pay_is_refused(wallet: OnchainWallet) -> None:
    with pytest.raises(TxBuildFailed) as refusal:
        await wallet.send_many([])
    assert chain_text(refusal.value) == "error building tx: Cannot build tx without recipients"


async def test_empty_wallet_cannot_be_drained(wallet: OnchainWallet) -> None:
    with pytest.raises(TxBuildFailed) as refusal:
        await wallet.build_drain(STRANGER, FeeRate(250))
    assert (
        chain_text(refusal.value)
        == "error building tx: Insufficient funds: 0 BTC available of 0.00000011 BTC needed"
    )


# --- coins that need care -----------------------------------------------------------------------------------


async def test_foreign_unconfirmed_coins_are_the_last_resort(wallet: OnchainWallet, node: Node) -> None:
    confirmed = await deposit(wallet, node, 50_000)
    pending = await deposit(wallet, node, 60_000, blocks=0)
    built = await wallet.build_tx([TxOut(40_000, STRANGER)], RATE)
    assert {tx_in.prevout.txid for tx_in in built.tx.inputs} == {confirmed.txid}
    built = await wallet.build_tx([TxOut(100_000, STRANGER)], RATE)
    assert {tx_in.prevout.txid for tx_in in built.tx.inputs} == {confirmed.txid, pending.txid}


async def test_change_of_an_unconfirmed_version_3_transaction_is_left_alone(
    wallet: OnchainWallet, node: Node, source: ChainSource
) -> None:
    confirmed = await deposit(wallet, node, 50_000)
    coin = await Stranger().fund(node, 80_000)
    truc = Stranger().spend([coin], [TxOut(79_000, await new_script(wallet))], version=3)
    await source.broadcast(truc)
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000, untrusted_pending_sat=79_000)
    with pytest.raises(TxBuildFailed, match="error building tx"):
        await wallet.build_tx([TxOut(60_000, STRANGER)], RATE)
    drained = await wallet.build_drain(STRANGER, RATE)
    assert [tx_in.prevout.txid for tx_in in drained.tx.inputs] == [confirmed.txid]
    await node.mine()
    await wallet.sync()
    await source.broadcast((await wallet.build_tx([TxOut(100_000, STRANGER)], RATE)).tx)


async def test_fee_of_a_transaction_with_a_foreign_input_is_known_if_that_is_given(
    wallet: OnchainWallet, node: Node
) -> None:
    server_coin = await Stranger().fund(node, 20_000)
    parent = Stranger().spend([server_coin], [TxOut(20_000, STRANGER), fee_anchor()], version=3)
    child = Stranger("payer").spend(
        [await Stranger("payer").fund(node, 30_000)],
        [TxOut(29_000, await new_script(wallet))],
        version=3,
        anchors=[(parent.outpoint(1), parent.outputs[1])],
    )
    foreign = {
        child.inputs[0].prevout: TxOut(30_000, Stranger("payer").script),
        parent.outpoint(1): parent.outputs[1],
    }
    await wallet.record(child, foreign_outputs=foreign)
    (entry,) = await wallet.transactions()
    assert entry.onchain_fee_sat == 1_000
    assert entry.is_cpfp


# --- what a crash leaves ------------------------------------------------------------------------------------


async def test_everything_survives_a_restart(wallet: OnchainWallet, node: Node, reopen: Reopen) -> None:
    await deposit(wallet, node, 100_000)
    await wallet.send(STRANGER, 10_000)
    await deposit(wallet, node, 5_000, blocks=0)
    reopened = await reopen()
    assert await reopened.balance() == await wallet.balance()
    assert await reopened.utxos() == await wallet.utxos()
    assert await reopened.transactions() == await wallet.transactions()
    assert reopened.tip_height == wallet.tip_height
    assert await reopened.next_address() == await wallet.next_address()


async def test_stored_but_unsent_payment_is_sent_by_a_later_sync(
    wallet: OnchainWallet, node: Node, source: ChainSource, clock: Clock, reopen: Reopen
) -> None:
    """Killed between storing and broadcasting, and away for longer than the grace."""
    await deposit(wallet, node, 100_000)
    built = await wallet.build_tx([TxOut(10_000, STRANGER)], RATE)
    await wallet.record(built.tx)
    clock.now_s += 3_600
    reopened = await reopen()
    await reopened.sync()
    assert await source.tx_status(built.tx.txid) == Mempool()
    assert await reopened.balance() == OnchainBalance(untrusted_pending_sat=90_000 - built.fee_sat)


async def test_payment_that_became_impossible_gives_its_coins_back(
    wallet: OnchainWallet, node: Node, source: ChainSource, clock: Clock
) -> None:
    first = await deposit(wallet, node, 50_000)
    stranger_coin = await Stranger().fund(node, 30_000)
    built = await wallet.build_tx([TxOut(10_000, STRANGER)], RATE)
    spoilt = Tx(3, (*built.tx.inputs, Stranger().spend([stranger_coin], ()).inputs[0]), built.tx.outputs)
    await wallet.record(spoilt)  # its signatures are worth nothing
    assert (await wallet.balance()).confirmed_sat == 0
    clock.now_s += 31
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000)
    assert [coin.outpoint.txid for coin in await wallet.utxos()] == [first.txid]


async def test_sync_follows_many_blocks(wallet: OnchainWallet, node: Node) -> None:
    scripts = [await new_script(wallet) for _ in range(4)]
    for amount_sat, script in zip((1_000, 2_000, 3_000, 4_000), scripts, strict=True):
        await faucet.pay(node, [TxOut(amount_sat, script)])
        await node.mine(13)
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=10_000)
    assert [entry.balance_change_sat for entry in await wallet.transactions()] == [1_000, 2_000, 3_000, 4_000]


async def test_spend_by_another_wallet_of_the_same_seed_is_seen(
    wallet: OnchainWallet, node: Node, source: ChainSource, seed: Seed, clock: Clock
) -> None:
    await deposit(wallet, node, 100_000)
    twin = await OnchainWallet.create(
        MemoryOnchainStore(), source, seed, Network.REGTEST, birthday_height=1, now=clock
    )
    txid = await twin.send(STRANGER, 30_000)
    await wallet.sync()
    assert await wallet.balance() == await twin.balance()
    assert txid in {entry.txid for entry in await wallet.transactions()}


UNKNOWN = Txid(bytes(32))


async def test_evicting_the_unknown_and_the_confirmed_does_nothing(wallet: OnchainWallet, node: Node) -> None:
    tx = await deposit(wallet, node, 50_000)
    await wallet.evict(UNKNOWN)
    await wallet.evict(tx.txid)
    await wallet.record(tx)
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000)


# --- paying for an exit -------------------------------------------------------------------------------------


async def exit_parent(node: Node, *, anchor_value_sat: int = 0) -> Tx:
    """A zero-fee transaction as exits have them, ready to be confirmed."""
    server = Stranger("server")
    coin = await server.fund(node, 20_000)
    outputs = [TxOut(20_000 - anchor_value_sat, STRANGER), fee_anchor(anchor_value_sat)]
    return server.spend([coin], outputs, version=3)


async def test_child_pays_for_its_parent(wallet: OnchainWallet, node: Node, source: ChainSource) -> None:
    await deposit(wallet, node, 50_000)
    parent = await exit_parent(node)
    child = await wallet.fund_child(parent, FeeRate(2_500))
    assert child.tx.version == 3
    assert child.tx.weight_wu == 609
    assert child.fee_sat == FeeRate(2_500).fee_wu(parent.weight_wu + 609)
    await source.broadcast_package([parent, child.tx])
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=50_000 - child.fee_sat)
    entry = (await wallet.transactions())[-1]
    assert (entry.txid, entry.onchain_fee_sat, entry.is_cpfp) == (child.tx.txid, child.fee_sat, True)
    await node.mine()
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000 - child.fee_sat)


def _with_a_coin_more(child: Tx) -> Tx:
    return replace(child, inputs=(*child.inputs, TxIn(OutPoint(UNKNOWN, 0))))


def _with_an_output_more(child: Tx) -> Tx:
    return replace(child, outputs=(*child.outputs, TxOut(330, STRANGER)))


@pytest.mark.parametrize(
    "change",
    [
        lambda child: replace(child, tx=replace(child.tx, version=2)),
        lambda child: replace(child, tx=_with_a_coin_more(child.tx)),
        lambda child: replace(child, tx=_with_an_output_more(child.tx)),
        lambda child: replace(
            child, tx=replace(child.tx, outputs=(replace(child.tx.outputs[0], script_pubkey=STRANGER),))
        ),
        lambda child: replace(
            child,
            tx=replace(child.tx, outputs=(replace(child.tx.outputs[0], value_sat=40_000),)),
        ),
        lambda child: replace(child, fee_sat=child.fee_sat + 1),
    ],
    ids=["version", "input", "outputs", "stranger", "amount", "fee"],
)
async def test_a_child_that_is_not_the_one_planned_is_not_taken(
    wallet: OnchainWallet,
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[SignedTx], SignedTx],
) -> None:
    """Whatever the library builds: it is looked at before anything is stored of it, or broadcast."""
    await deposit(wallet, node, 50_000)
    parent = await exit_parent(node)
    honest = BdkView._finish
    with monkeypatch.context() as lying:
        lying.setattr(BdkView, "_finish", lambda view, builder: change(honest(view, builder)))
        with pytest.raises(TxBuildFailed) as refusal:
            await wallet.fund_child(parent, FeeRate(2_500))
    assert "not the one that was planned" in chain_text(refusal.value)
    assert wallet.unconfirmed_spenders(parent.outpoint(1)) == ()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000)
    child = await wallet.fund_child(parent, FeeRate(2_500))
    assert wallet.unconfirmed_spenders(parent.outpoint(1)) == (child.tx,)


async def test_child_may_have_fifteen_inputs(wallet: OnchainWallet, node: Node, source: ChainSource) -> None:
    scripts = [await new_script(wallet) for _ in range(20)]
    await faucet.pay(node, [TxOut(500, script) for script in scripts])
    await node.mine()
    await wallet.sync()
    parent = await exit_parent(node)
    child = await wallet.fund_child(parent, FeeRate(1_650))
    assert len(child.tx.inputs) == 16
    await source.broadcast_package([parent, child.tx])


async def test_anchor_with_money_pays_for_itself(
    wallet: OnchainWallet, node: Node, source: ChainSource
) -> None:
    parent = await exit_parent(node, anchor_value_sat=600)
    child = await wallet.fund_child(parent, FeeRate(300))
    assert len(child.tx.inputs) == 1
    assert child.tx.weight_wu == 376
    await source.broadcast_package([parent, child.tx])


async def test_child_needs_confirmed_coins(wallet: OnchainWallet, node: Node) -> None:
    await deposit(wallet, node, 50_000, blocks=0)
    with pytest.raises(InsufficientConfirmedFunds):
        await wallet.fund_child(await exit_parent(node), FeeRate(250))


async def test_immature_rewards_do_not_pay_for_children(wallet: OnchainWallet, node: Node) -> None:
    await node.mine(1, reward_script=await new_script(wallet))
    await wallet.sync()
    parent = await exit_parent(node)
    with pytest.raises(InsufficientConfirmedFunds):
        await wallet.fund_child(parent, FeeRate(250))


async def test_better_child_replaces_ours_with_the_same_coin(
    wallet: OnchainWallet, node: Node, source: ChainSource
) -> None:
    await deposit(wallet, node, 50_000)
    parent = await exit_parent(node)
    first = await wallet.fund_child(parent, FeeRate(1_000))
    await source.broadcast_package([parent, first.tx])
    paid = await source.package_fee(first.tx.txid)
    second = await wallet.fund_child(parent, FeeRate(2_000), replaced_txid=first.tx.txid, replaces=paid)
    await source.broadcast_package([parent, second.tx])
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=50_000 - second.fee_sat)
    await wallet.sync()
    await node.mine()
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000 - second.fee_sat)


async def test_child_that_cannot_be_paid_leaves_the_old_one(
    wallet: OnchainWallet, node: Node, source: ChainSource
) -> None:
    await deposit(wallet, node, 5_000)
    parent = await exit_parent(node)
    first = await wallet.fund_child(parent, FeeRate(1_000))
    with pytest.raises(InsufficientConfirmedFunds):
        await wallet.fund_child(parent, FeeRate(20_000), replaced_txid=first.tx.txid)
    assert await wallet.balance() == OnchainBalance(untrusted_pending_sat=5_000 - first.fee_sat)


async def test_coins_of_a_child_are_taken(wallet: OnchainWallet, node: Node) -> None:
    await deposit(wallet, node, 50_000)
    await wallet.fund_child(await exit_parent(node), FeeRate(1_000))
    with pytest.raises(TxBuildFailed):
        await wallet.build_tx([TxOut(10_000, STRANGER)], RATE)


async def test_child_of_a_lost_parent_is_evicted(wallet: OnchainWallet, node: Node, clock: Clock) -> None:
    """Stored, and then killed before the package was broadcast."""
    await deposit(wallet, node, 50_000)
    await wallet.fund_child(await exit_parent(node), FeeRate(1_000))
    clock.now_s += 29
    await wallet.sync()
    assert (await wallet.balance()).confirmed_sat == 0
    clock.now_s += 2
    await wallet.sync()
    assert await wallet.balance() == OnchainBalance(confirmed_sat=50_000)


async def test_children_take_turns_with_the_coins(
    wallet: OnchainWallet, node: Node, source: ChainSource, reopen: Reopen
) -> None:
    """Each has a coin of its own, and what an eviction frees can be used again."""
    scripts = [await new_script(wallet) for _ in range(3)]
    await faucet.pay(node, [TxOut(20_000, script) for script in scripts])
    await node.mine()
    await wallet.sync()
    parents = [await exit_parent(node) for _ in range(3)]
    children = [await wallet.fund_child(parent, RATE) for parent in parents]
    spent = [{tx_in.prevout for tx_in in child.tx.inputs} for child in children]
    assert len(set.union(*spent)) == sum(map(len, spent)) == 6
    fourth = await exit_parent(node)
    for each in (wallet, await reopen()):
        with pytest.raises(InsufficientConfirmedFunds):
            await each.fund_child(fourth, RATE)
    await wallet.evict(children[1].tx.txid)
    again = await wallet.fund_child(fourth, RATE)
    (coin,) = {tx_in.prevout for tx_in in again.tx.inputs} & spent[1]
    await source.broadcast_package([fourth, again.tx])
    assert coin in {tx_in.prevout for tx_in in children[1].tx.inputs}
