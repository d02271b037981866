"""The server's own wallet: keys, coins, and what the chain does to them. Source: sheet 10 §1, §5."""

import pytest

from barkd_py.bitcoin.address import address_from_script
from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.script import p2tr_script
from barkd_py.bitcoin.tx import Tx, TxOut
from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.devnet.ark_server.chain import ServerChain
from barkd_py.devnet.ark_server.funds.treasury import Draft, Treasury, TreasuryEmpty
from barkd_py.devnet.ark_server.server import ArkServer
from barkd_py.devnet.ark_server.server_keys import ServerKeys
from barkd_py.devnet.ark_server.store.database import Store
from tests.devnet.ark_server.rounds.conftest import COINS
from tests.fakes.server_chain import FakeServerChain
from tests.support.script_engine import is_spend_valid

RATE = FeeRate.from_sat_per_vb(2)
OUTPUT = TxOut(
    700_000, p2tr_script(bytes.fromhex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"))
)


async def record(treasury: Treasury, draft: Draft, store: Store) -> Tx:
    signed = treasury.sign(draft)
    await store.transact(lambda connection: treasury.record(connection, draft, signed))
    treasury.release(draft)
    return signed


@pytest.fixture
def treasury(server: ArkServer) -> Treasury:
    return server.treasury


@pytest.fixture
def store(server: ArkServer) -> Store:
    return server._store


async def test_first_address_is_that_of_the_real_server(store: Store, chain: ServerChain) -> None:
    keys = ServerKeys.from_seed(parse_mnemonic("abandon " * 11 + "about"))
    treasury = Treasury(keys.treasury, store, chain)
    script = treasury._keys.script(0)
    assert (
        address_from_script(script, Network.REGTEST)
        == "bcrt1p5eaawluhq4852c8y58zzunh896wcpg5nm5fa3x8mx90puyl20yrqpske5l"
    )


async def test_draft_pays_what_is_asked_and_the_rest_to_itself(treasury: Treasury) -> None:
    draft = await treasury.draft([OUTPUT], RATE)
    signed = treasury.sign(draft)
    assert signed.txid == draft.tx.txid
    assert signed.outputs[0] == OUTPUT
    spent = [TxOut(coin.value_sat, treasury._keys.script(coin.script_index)) for coin in draft.coins]
    assert is_spend_valid(signed, spent)
    paid_sat = sum(output.value_sat for output in signed.outputs)
    assert sum(coin.value_sat for coin in draft.coins) - paid_sat == RATE.fee_wu(signed.weight_wu)


async def test_change_that_is_dust_goes_to_the_miner(treasury: Treasury) -> None:
    draft = await treasury.draft([OUTPUT], RATE)
    whole_sat = COINS[1] - RATE.fee_wu(treasury.sign(draft).weight_wu - 172)
    exact = await treasury.draft([TxOut(whole_sat - 300, OUTPUT.script_pubkey)], RATE)
    assert len(exact.tx.outputs) == 1
    assert exact.change == {}


async def test_drafts_lock_their_coins(treasury: Treasury) -> None:
    drafts = [await treasury.draft([OUTPUT], RATE) for _ in COINS]
    spent = [coin.outpoint for draft in drafts for coin in draft.coins]
    assert len(set(spent)) == len(COINS)
    with pytest.raises(TreasuryEmpty):
        await treasury.draft([OUTPUT], RATE)
    treasury.release(drafts[1])
    assert (await treasury.draft([OUTPUT], RATE)).coins == drafts[1].coins


async def test_own_change_is_spent_before_it_confirms(treasury: Treasury, store: Store) -> None:
    for _ in COINS:
        await record(treasury, await treasury.draft([OUTPUT], RATE), store)
    chained = await treasury.draft([OUTPUT], RATE)
    assert not chained.coins[0].is_confirmed


async def test_money_of_others_counts_once_it_confirms(
    treasury: Treasury, server: ArkServer, chain: FakeServerChain
) -> None:
    deposit = chain.funding_tx(TxOut(123_456, await treasury.new_script()))
    chain.add_to_mempool(deposit)
    await server.follower.catch_up()
    assert await treasury.balance_sat() == sum(COINS)
    chain.mine(deposit)
    await server.follower.catch_up()
    assert await treasury.balance_sat() == sum(COINS) + 123_456
    chain.lose(1)
    chain.mine()
    await server.follower.catch_up()
    assert await treasury.balance_sat() == sum(COINS)


async def test_reorg_and_confirmation_of_own_transactions(
    treasury: Treasury, server: ArkServer, store: Store, chain: FakeServerChain
) -> None:
    signed = await record(treasury, await treasury.draft([OUTPUT], RATE), store)
    left_sat = sum(COINS[1:]) + signed.outputs[1].value_sat
    for _ in range(2):
        assert await treasury.balance_sat() == left_sat
        chain.mine(signed)
        await server.follower.catch_up()
        assert await treasury.balance_sat() == left_sat
        chain.lose(1)
        chain.mine()
        await server.follower.catch_up()
    await treasury.broadcast_unconfirmed()
    assert chain.broadcasts[-1] == signed


async def test_transaction_that_was_double_spent_is_forgotten_with_its_children(
    treasury: Treasury, server: ArkServer, store: Store, chain: FakeServerChain
) -> None:
    everything = sum(COINS) - 100_000
    first = await treasury.draft([TxOut(everything, OUTPUT.script_pubkey)], RATE)
    parent = await record(treasury, first, store)
    child = await treasury.draft([TxOut(50_000, OUTPUT.script_pubkey)], RATE)
    await record(treasury, child, store)
    conflicting = await treasury.double_spend(parent, RATE)
    chain.mine(conflicting)
    await server.follower.catch_up()
    assert await treasury.balance_sat() == conflicting.outputs[0].value_sat
    before = len(chain.broadcasts)
    await treasury.broadcast_unconfirmed()
    assert len(chain.broadcasts) == before
