"""The wallet on its real store: what a kill -9 leaves."""

import asyncio
import sys
from pathlib import Path

from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.bip32 import Seed
from barkd_py.bitcoin.tx import TxOut
from barkd_py.bitcoin.units import Network
from barkd_py.chain.source import ChainSource
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.node import Node
from barkd_py.onchain.keychain import Keychain, wallet_descriptor
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.store.onchain import OnchainTables
from barkd_py.wallet.store.transaction import Store
from tests.fakes.chains import Clock


async def everything(wallet: OnchainWallet) -> tuple[object, ...]:
    return await wallet.balance(), await wallet.utxos(), await wallet.transactions(), wallet.tip_height


async def test_everything_comes_back_from_the_database(
    node: Node, source: ChainSource, seed: Seed, clock: Clock, tmp_path: Path
) -> None:
    database = str(tmp_path / "wallet.sqlite")
    store = await Store.open(database)
    wallet = await OnchainWallet.create(OnchainTables(store), source, seed, Network.REGTEST, now=clock)
    script = parse_address(await wallet.next_address(), Network.REGTEST)
    await faucet.pay(node, [TxOut(100_000, script)])
    await node.mine(3)
    await wallet.sync()
    await node.reorg(2)
    await wallet.send(faucet.FAUCET_SCRIPT, 10_000)
    await wallet.sync()
    before = await everything(wallet)
    await store.close()

    store = await Store.open(database)
    again = await OnchainWallet.open(OnchainTables(store), source, seed, Network.REGTEST, now=clock)
    assert (
        await again.balance(),
        await again.utxos(),
        await again.transactions(),
        again.tip_height,
    ) == before
    await again.sync()
    assert await again.balance() == before[0]
    await store.close()


async def test_no_address_is_shown_twice_after_a_kill(
    node: Node, source: ChainSource, seed: Seed, clock: Clock, tmp_path: Path
) -> None:
    database = str(tmp_path / "wallet.sqlite")
    store = await Store.open(database)
    await OnchainWallet.create(OnchainTables(store), source, seed, Network.REGTEST, now=clock)
    await store.close()

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.onchain.killed_wallet", database, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    shown = [(await process.stdout.readline()).decode().strip() for _ in range(5)]
    process.kill()
    rest, _ = await process.communicate()
    shown += rest.decode().split()

    keychain = Keychain(wallet_descriptor(seed, Network.REGTEST), Network.REGTEST, None)
    assert shown[:5] == [keychain.address(index) for index in range(5)]
    store = await Store.open(database)
    again = await OnchainWallet.open(OnchainTables(store), source, seed, Network.REGTEST, now=clock)
    assert await again.next_address() not in shown
    await store.close()
