"""Coins of which the wallet does not know: whoever has put a backup back, or shares a seed, has such."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpx
import pytest

from barkd_py.bitcoin.bip32 import Seed
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.chain.bitcoind import BitcoindSource, RpcClient, UserPass
from barkd_py.chain.source import ChainSource, WalletQuery
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node
from barkd_py.errors import ChainUnavailable
from barkd_py.onchain.keychain import Keychain, wallet_descriptor
from barkd_py.onchain.wallet import OnchainWallet
from tests.fakes.chains import FALLBACK, Clock, bitcoind_source, esplora_source
from tests.fakes.node_rpc import NodeRpc
from tests.fakes.onchain_store import MemoryOnchainStore


@pytest.fixture
def keychain(seed: Seed) -> Keychain:
    return Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)


async def _total_sat(wallet: OnchainWallet) -> int:
    return (await wallet.balance()).total_sat


async def test_addresses_behind_the_last_one_are_looked_at(
    node: Node, source: ChainSource, seed: Seed, clock: Clock, keychain: Keychain
) -> None:
    """Fifty after the last that is known to be handed out, however many of these were never used."""
    wallet = await OnchainWallet.create(MemoryOnchainStore(), source, seed, Network.REGTEST, now=clock)
    for _ in range(60):
        await wallet.next_address()
    for index in (109, 159):
        await faucet.pay(node, [TxOut(1_000, keychain.script(index))])
        await node.mine()
    await wallet.rescan()
    assert await _total_sat(wallet) == 2_000
    assert await wallet.next_address() == keychain.address(160)


async def test_a_payment_that_is_not_confirmed_and_its_change_are_found(
    node: Node, source: ChainSource, seed: Seed, clock: Clock, keychain: Keychain
) -> None:
    wallet = await OnchainWallet.create(MemoryOnchainStore(), source, seed, Network.REGTEST, now=clock)
    await faucet.pay(node, [TxOut(50_000, keychain.script(3))])
    await node.mine()
    twin = await OnchainWallet.create(
        MemoryOnchainStore(), source, seed, Network.REGTEST, birthday_height=1, now=clock
    )
    await twin.send(faucet.FAUCET_SCRIPT, 20_000)
    await wallet.rescan()
    assert await wallet.utxos() == await twin.utxos()
    assert len(await wallet.utxos()) == 1


async def test_a_node_is_asked_for_coins_from_before_the_birthday(
    node: Node, seed: Seed, clock: Clock, keychain: Keychain
) -> None:
    """And for those in blocks that were read when nobody knew that the address was handed out."""
    await faucet.pay(node, [TxOut(10_000, keychain.script(0)), TxOut(20_000, keychain.script(300))])
    await faucet.pay(node, [TxOut(40_000, keychain.script(0))])
    await node.mine(3)
    rpc = NodeRpc(node)
    store = MemoryOnchainStore()
    wallet = await OnchainWallet.create(
        store, bitcoind_source(rpc, clock), seed, Network.REGTEST, birthday_height=None, now=clock
    )
    await node.mine(2)
    await wallet.sync()
    assert await _total_sat(wallet) == 0
    assert "scantxoutset" not in rpc.calls
    await wallet.rescan()
    assert await _total_sat(wallet) == 70_000
    before = await wallet.transactions()
    await wallet.rescan()
    assert await wallet.transactions() == before
    opened = await OnchainWallet.open(store, bitcoind_source(rpc, clock), seed, Network.REGTEST, now=clock)
    assert await opened.transactions() == before
    assert await opened.next_address() == keychain.address(301)
    # They are coins like any other.
    await opened.drain(faucet.FAUCET_SCRIPT)
    await node.mine()
    await opened.sync()
    assert await _total_sat(opened) == 0


async def test_a_node_that_looks_for_something_else_has_not_answered(
    node: Node, seed: Seed, clock: Clock
) -> None:
    rpc = NodeRpc(node)
    wallet = await OnchainWallet.create(
        MemoryOnchainStore(), bitcoind_source(rpc, clock), seed, Network.REGTEST, now=clock
    )
    real = rpc.transport()

    async def busy(request: httpx.Request) -> httpx.Response:
        if b"scantxoutset" not in request.content:
            return await real.handle_async_request(request)
        refusal = {"code": -8, "message": 'Scan already in progress, use action "abort" or "status"'}
        return httpx.Response(500, json={"result": None, "error": refusal, "id": 0})

    client = RpcClient("http://node", UserPass("__cookie__", "secret"), transport=httpx.MockTransport(busy))
    busy_wallet = OnchainWallet(
        MemoryOnchainStore(),
        BitcoindSource(client, fallback_fee_rate=FALLBACK, clock=clock),
        wallet_descriptor(seed, Network.REGTEST),
        Network.REGTEST,
        wallet._state,
        clock,
    )
    with pytest.raises(ChainUnavailable, match="Scan already in progress"):
        await busy_wallet.rescan()
    await busy_wallet.sync()


async def test_payments_of_another_wallet_of_the_seed_are_seen_and_nothing_is_changed(
    node: Node, source: ChainSource, seed: Seed, clock: Clock, keychain: Keychain
) -> None:
    """Also of coins that came in since, on addresses that were handed out since."""
    store = MemoryOnchainStore()
    old = await OnchainWallet.create(store, source, seed, Network.REGTEST, now=clock)
    await faucet.pay(node, [TxOut(50_000, keychain.script(0)), TxOut(60_000, keychain.script(30))])
    await node.mine()
    before = store.state
    assert await old.unheard_of_payments() == ()  # anybody may pay us
    new = await OnchainWallet.create(
        MemoryOnchainStore(), source, seed, Network.REGTEST, birthday_height=1, now=clock
    )
    first = await new.send(faucet.FAUCET_SCRIPT, 20_000)
    assert await old.unheard_of_payments() == (first,)
    await node.mine()
    await new.sync()
    second = await new.drain(faucet.FAUCET_SCRIPT)
    assert set(await old.unheard_of_payments()) == {first, second}
    assert store.state == before
    assert await _total_sat(old) == 0
    await old.rescan()
    assert await old.unheard_of_payments() == ()


async def test_who_only_looks_sends_nothing_again(
    node: Node, source: ChainSource, seed: Seed, clock: Clock, keychain: Keychain
) -> None:
    await faucet.pay(node, [TxOut(50_000, keychain.script(0))])
    await node.mine()
    wallet = await OnchainWallet.create(
        MemoryOnchainStore(), source, seed, Network.REGTEST, birthday_height=1, now=clock
    )
    txid = await wallet.send(faucet.FAUCET_SCRIPT, 20_000)
    node.pool.remove(txid)
    clock.now_s += 3_600
    assert await wallet.unheard_of_payments() == ()
    assert node.pool.get(txid) is None
    await wallet.sync()
    assert node.pool.get(txid) is not None


async def _on_scan(
    source: BitcoindSource, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[object]]
) -> list[int]:
    """Let something happen while the node looks, after it has seen all there is; grows with each look."""
    scans: list[int] = []
    real = source._scan_unspent

    async def scan(scripts: Iterable[bytes]) -> list[dict[str, Any]]:
        unspent = await real(scripts)
        scans.append(len(unspent))
        await happens()
        return unspent

    monkeypatch.setattr(source, "_scan_unspent", scan)
    return scans


async def test_blocks_that_come_while_a_node_looks_are_read_and_nothing_is_looked_for_again(
    node: Node, seed: Seed, clock: Clock, keychain: Keychain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In them coins that were just found are spent, and there are more, where only what was found leads."""
    source = bitcoind_source(NodeRpc(node), clock)
    wallet = await OnchainWallet.create(MemoryOnchainStore(), source, seed, Network.REGTEST, now=clock)
    await faucet.pay(node, [TxOut(50_000, keychain.script(0)), TxOut(60_000, keychain.script(300))])
    await faucet.pay(node, [TxOut(70_000, keychain.script(299))])
    await node.mine()
    twin = await OnchainWallet.create(
        MemoryOnchainStore(), source, seed, Network.REGTEST, birthday_height=1, now=clock
    )
    await twin.rescan()

    async def happens() -> None:
        await twin.drain(faucet.FAUCET_SCRIPT)
        await faucet.pay(node, [TxOut(1_000, keychain.script(340))])
        await node.mine()
        await faucet.pay(node, [TxOut(2_000, keychain.script(341))])
        await wallet.sync()  # nobody has to wait; and it knows none of these scripts yet
        await node.mine()
        await wallet.sync()
        await faucet.pay(node, [TxOut(4_000, keychain.script(342))])
        await wallet.sync()

    scans = await _on_scan(source, monkeypatch, happens)
    await asyncio.wait_for(wallet.rescan(), 60)
    assert scans == [3]
    await twin.sync()
    assert await _total_sat(wallet) == 7_000
    assert await wallet.utxos() == await twin.utxos()
    assert {each.txid for each in await wallet.transactions()} == {
        each.txid for each in await twin.transactions()
    }
    await wallet.sync()
    assert await wallet.utxos() == await twin.utxos()
    assert wallet.tip == twin.tip


async def test_nobody_waits_while_addresses_are_looked_at(
    node: Node, seed: Seed, clock: Clock, keychain: Keychain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes meanwhile, on an address that was just found or on one of ours, is found as well."""
    source = esplora_source(node, clock)
    wallet = await OnchainWallet.create(MemoryOnchainStore(), source, seed, Network.REGTEST, now=clock)
    assert await wallet.next_address() == keychain.address(0)
    await faucet.pay(node, [TxOut(10_000, keychain.script(30))])
    await node.mine()
    real = source._search_until_gap
    looks: list[int] = []

    async def search(query: WalletQuery, *args: Any) -> None:
        await real(query, *args)
        looks.append(query.scripts.revealed_count)
        await faucet.pay(node, [TxOut(20_000, keychain.script(0))])
        await faucet.pay(node, [TxOut(40_000, keychain.script(30))])
        await node.mine()
        await wallet.sync()
        assert await _total_sat(wallet) == 20_000

    monkeypatch.setattr(source, "_search_until_gap", search)
    await asyncio.wait_for(wallet.rescan(), 60)
    assert looks == [31]
    assert await _total_sat(wallet) == 70_000
    assert await wallet.next_address() == keychain.address(31)
    await source.close()


async def test_a_reorg_while_a_node_looks(
    node: Node, seed: Seed, clock: Clock, keychain: Keychain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found is in another block now, or in none."""
    source = bitcoind_source(NodeRpc(node), clock)
    await faucet.pay(node, [TxOut(50_000, keychain.script(0))])
    await node.mine(5)
    wallet = await OnchainWallet.create(MemoryOnchainStore(), source, seed, Network.REGTEST, now=clock)
    await faucet.pay(node, [TxOut(60_000, keychain.script(300))])
    await node.mine()
    moved = await faucet.pay(node, [TxOut(70_000, keychain.script(301))])
    await node.mine()
    lost = await faucet.pay(node, [TxOut(80_000, keychain.script(302))])
    await node.mine()
    await wallet.sync()

    async def happens() -> None:
        await node.reorg(2, transactions=[moved])
        await node.evict(lost.txid)
        await wallet.sync()  # it has the new blocks already

    scans = await _on_scan(source, monkeypatch, happens)
    await asyncio.wait_for(wallet.rescan(), 60)
    assert scans == [4]
    balance = await wallet.balance()
    assert (balance.total_sat, balance.confirmed_sat) == (180_000, 180_000)
    await wallet.sync()
    assert await _total_sat(wallet) == 180_000
