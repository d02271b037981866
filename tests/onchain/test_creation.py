"""Keys, birthdays, first scans, and what is refused when a wallet is opened."""

import httpx
import pytest

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.bip32 import Seed, parse_mnemonic
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.chain.esplora import EsploraSource
from barkd_py.chain.source import GENESIS_HASHES, ChainSource
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node
from barkd_py.errors import ChainUnavailable, StoreError
from barkd_py.onchain.errors import OnchainStoreMismatch
from barkd_py.onchain.keychain import Keychain, bdk_network, wallet_descriptor
from barkd_py.onchain.store import BlockRow, OnchainChange, WalletRow
from barkd_py.onchain.wallet import BirthdayRefused, OnchainWallet
from tests.fakes.chains import FALLBACK, Clock, bitcoind_source, esplora_source
from tests.fakes.node_rpc import NodeRpc
from tests.fakes.onchain_store import MemoryOnchainStore

# --- keys ---------------------------------------------------------------------------------------------------


def test_addresses_are_those_of_the_known_mnemonic(seed: Seed) -> None:
    """Source: sheet 06 §7.1."""
    mainnet = Keychain(wallet_descriptor(seed, Network.MAINNET), Network.MAINNET, None)
    assert mainnet.address(0) == "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
    regtest = Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)
    assert regtest.address(0) == "bcrt1p8wpt9v4frpf3tkn0srd97pksgsxc5hs52lafxwru9kgeephvs7rqjeprhg"
    assert regtest.address(1) == "bcrt1p90h6z3p36n9hrzy7580h5l429uwchyg8uc9sz4jwzhdtuhqdl5eqkcyx0f"


def test_descriptor_shows_no_secret(seed: Seed) -> None:
    text = str(wallet_descriptor(seed, Network.REGTEST))
    assert text.startswith("tr([73c5da0a/86'/1'/0']tpub")
    assert "prv" not in text


def test_every_network_starts_with_its_own_block(seed: Seed) -> None:
    """BDK knows the first block of each network too."""
    import bdkpython as bdk

    for network in Network:
        wallet = bdk.Wallet.create_single(
            wallet_descriptor(seed, network), bdk_network(network), bdk.Persister.new_in_memory()
        )
        assert wallet.latest_checkpoint().hash.serialize() == GENESIS_HASHES[network]


def test_window_reaches_past_the_last_revealed_address(seed: Seed) -> None:
    descriptor = wallet_descriptor(seed, Network.REGTEST)
    keychain = Keychain(descriptor, Network.REGTEST, last_revealed=3)
    assert (keychain.revealed_count, keychain.window_count) == (4, 54)
    assert keychain.index_of(keychain.script(53)) == 53
    assert keychain.index_of(keychain.script(54)) is None
    keychain.found(10)
    keychain.found(2)
    assert keychain.last_revealed == 10
    assert keychain.index_of(keychain.script(60)) == 60


# --- birthdays ----------------------------------------------------------------------------------------------


@pytest.fixture
async def old_payments(node: Node, seed: Seed) -> tuple[int, int]:
    """Heights of two payments to the seed's first addresses, from before the wallet was made."""
    keychain = Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)
    heights = []
    for index, amount_sat in ((0, 10_000), (20, 20_000)):
        await faucet.pay(node, [TxOut(amount_sat, keychain.script(index))])
        (block,) = await node.mine()
        heights.append(block.height)
    return heights[0], heights[1]


async def test_node_is_read_from_the_birthday_on(
    node: Node, seed: Seed, store: MemoryOnchainStore, clock: Clock, old_payments: tuple[int, int]
) -> None:
    first, second = old_payments

    async def total_sat(birthday_height: int | None) -> int:
        wallet = await OnchainWallet.create(
            MemoryOnchainStore(),
            bitcoind_source(NodeRpc(node), clock),
            seed,
            Network.REGTEST,
            birthday_height=birthday_height,
            now=clock,
        )
        return (await wallet.balance()).total_sat

    assert await total_sat(0) == await total_sat(1) == await total_sat(first) == 30_000
    assert await total_sat(first + 1) == 20_000
    assert await total_sat(second + 1) == 0
    assert await total_sat(None) == 20_000  # the tip itself is read
    with pytest.raises(BirthdayRefused):
        await total_sat(node.index.tip_height + 2)


async def test_addresses_found_in_the_past_count_as_revealed(
    node: Node, seed: Seed, store: MemoryOnchainStore, clock: Clock, old_payments: tuple[int, int]
) -> None:
    source = bitcoind_source(NodeRpc(node), clock)
    wallet = await OnchainWallet.create(store, source, seed, Network.REGTEST, birthday_height=1, now=clock)
    keychain = Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)
    assert await wallet.next_address() == keychain.address(21)


async def test_esplora_is_searched_until_fifty_unused_addresses(node: Node, seed: Seed, clock: Clock) -> None:
    keychain = Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)
    for index, amount_sat in ((49, 1_000), (99, 2_000), (150, 4_000)):
        await faucet.pay(node, [TxOut(amount_sat, keychain.script(index))])
    await node.mine()
    wallet = await OnchainWallet.create(
        MemoryOnchainStore(), esplora_source(node, clock), seed, Network.REGTEST, birthday_height=3, now=clock
    )
    assert (await wallet.balance()).total_sat == 3_000
    assert await wallet.next_address() == keychain.address(100)


async def test_script_with_many_transactions_is_read_page_by_page(
    node: Node, seed: Seed, clock: Clock
) -> None:
    keychain = Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)
    for _ in range(51):
        await faucet.pay(node, [TxOut(1_000, keychain.script(0))])
        await node.mine()
    await faucet.pay(node, [TxOut(500, keychain.script(0))])
    wallet = await OnchainWallet.create(
        MemoryOnchainStore(), esplora_source(node, clock), seed, Network.REGTEST, now=clock
    )
    balance = await wallet.balance()
    assert (balance.confirmed_sat, balance.untrusted_pending_sat) == (51_000, 500)


async def test_failed_first_scan_leaves_nothing_behind(
    seed: Seed, store: MemoryOnchainStore, clock: Clock
) -> None:
    down = EsploraSource(
        "http://esplora",
        fallback_fee_rate=FALLBACK,
        sleep=clock.sleep,
        transport=httpx.MockTransport(lambda _request: httpx.Response(503)),
    )
    with pytest.raises(ChainUnavailable):
        await OnchainWallet.create(store, down, seed, Network.REGTEST, now=clock)
    assert store.state is None


async def test_both_kinds_of_source_see_the_same_wallet(node: Node, seed: Seed, clock: Clock) -> None:
    keychain = Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)
    for index, amount_sat in ((0, 11_000), (3, 22_000), (1, 33_000)):
        await faucet.pay(node, [TxOut(amount_sat, keychain.script(index))])
        await node.mine(2)
    sources: list[ChainSource] = [esplora_source(node, clock), bitcoind_source(NodeRpc(node), clock)]
    esplora, bitcoind = [
        await OnchainWallet.create(
            MemoryOnchainStore(), source, seed, Network.REGTEST, birthday_height=1, now=clock
        )
        for source in sources
    ]

    async def assert_equal() -> None:
        await esplora.sync()
        await bitcoind.sync()
        assert await esplora.balance() == await bitcoind.balance()
        assert await esplora.utxos() == await bitcoind.utxos()
        assert await esplora.transactions() == await bitcoind.transactions()
        assert esplora.tip_height == bitcoind.tip_height == node.index.tip_height

    await assert_equal()
    await esplora.send(faucet.FAUCET_SCRIPT, 40_000)
    await assert_equal()
    await node.mine()
    await faucet.pay(node, [TxOut(44_000, keychain.script(0))])
    await assert_equal()
    await node.reorg(3)
    await assert_equal()
    await node.mine(3)
    await assert_equal()
    assert (await esplora.balance()).confirmed_sat > 0


# --- opening ------------------------------------------------------------------------------------------------


@pytest.fixture
async def stored(
    source: ChainSource, store: MemoryOnchainStore, seed: Seed, clock: Clock
) -> MemoryOnchainStore:
    await OnchainWallet.create(store, source, seed, Network.REGTEST, now=clock)
    return store


async def test_nothing_stored_is_no_wallet(
    source: ChainSource, store: MemoryOnchainStore, seed: Seed
) -> None:
    with pytest.raises(OnchainStoreMismatch):
        await OnchainWallet.open(store, source, seed, Network.REGTEST)


async def test_other_network_is_refused(source: ChainSource, stored: MemoryOnchainStore, seed: Seed) -> None:
    with pytest.raises(OnchainStoreMismatch, match="loaded regtest, expected signet"):
        await OnchainWallet.open(stored, source, seed, Network.SIGNET)


async def test_mutinynet_wallet_is_a_signet_wallet(seed: Seed) -> None:
    """The wallet around this one remembers the network by its bitcoin name only."""
    descriptor = wallet_descriptor(seed, Network.MUTINYNET)
    genesis = BlockRow(0, bytes(GENESIS_HASHES[Network.MUTINYNET]))
    store = MemoryOnchainStore()
    await store.append(OnchainChange(WalletRow("signet", str(descriptor), None), (genesis,)))
    nowhere = EsploraSource("http://esplora", fallback_fee_rate=FALLBACK)
    for network in (Network.SIGNET, Network.MUTINYNET):
        wallet = await OnchainWallet.open(store, nowhere, seed, network)
        assert (await wallet.next_address()).startswith("tb1p")
    await nowhere.close()


async def test_other_mnemonic_is_refused(source: ChainSource, stored: MemoryOnchainStore) -> None:
    other = parse_mnemonic("zoo " * 11 + "wrong")
    with pytest.raises(OnchainStoreMismatch, match="another mnemonic"):
        await OnchainWallet.open(stored, source, other, Network.REGTEST)


async def test_opening_needs_no_network(stored: MemoryOnchainStore, seed: Seed) -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        raise AssertionError("the network was asked")

    offline = EsploraSource(
        "http://esplora", fallback_fee_rate=FALLBACK, transport=httpx.MockTransport(refuse)
    )
    wallet = await OnchainWallet.open(stored, offline, seed, Network.REGTEST)
    assert (await wallet.balance()).total_sat == 0
    assert await wallet.next_address()


# --- storing before counting --------------------------------------------------------------------------------


async def test_address_that_could_not_be_stored_is_not_shown(
    source: ChainSource, stored: MemoryOnchainStore, seed: Seed
) -> None:
    wallet = await OnchainWallet.open(stored, source, seed, Network.REGTEST)
    stored.fail_next = True
    with pytest.raises(StoreError):
        await wallet.next_address()
    assert stored.state is not None
    assert stored.state.wallet.last_revealed is None
    assert parse_address(await wallet.next_address(), Network.REGTEST)
    assert stored.state.wallet.last_revealed == 0


async def test_payment_that_could_not_be_stored_is_not_sent(
    source: ChainSource, stored: MemoryOnchainStore, seed: Seed, node: Node, clock: Clock
) -> None:
    wallet = await OnchainWallet.open(stored, source, seed, Network.REGTEST, now=clock)
    script = parse_address(await wallet.next_address(), Network.REGTEST)
    await faucet.pay(node, [TxOut(50_000, script)])
    await node.mine()
    await wallet.sync()
    balance = await wallet.balance()
    stored.fail_next = True
    with pytest.raises(StoreError):
        await wallet.send(faucet.FAUCET_SCRIPT, 10_000)
    assert len(node.pool) == 0
    assert await wallet.balance() == balance


async def test_change_address_is_stored_with_the_payment(
    source: ChainSource, stored: MemoryOnchainStore, seed: Seed, node: Node, clock: Clock
) -> None:
    wallet = await OnchainWallet.open(stored, source, seed, Network.REGTEST, now=clock)
    script = parse_address(await wallet.next_address(), Network.REGTEST)
    await faucet.pay(node, [TxOut(50_000, script)])
    await node.mine()
    await wallet.sync()
    await wallet.send(faucet.FAUCET_SCRIPT, 10_000)
    assert stored.state is not None
    assert stored.state.wallet.last_revealed == 1
    assert len(stored.changes[-1].transactions) == 1
