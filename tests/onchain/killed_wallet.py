"""A wallet in a process of its own, to be killed: reveals addresses and prints each, until it dies.

Usage: python -m tests.onchain.killed_wallet DATABASE
"""

import asyncio
import sys

import httpx

from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.chain.esplora import EsploraSource
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.store.onchain import OnchainTables
from barkd_py.wallet.store.transaction import Store
from tests.fakes.chains import FALLBACK


async def main(database: str) -> None:
    store = await Store.open(database)
    nowhere = EsploraSource(
        "http://esplora",
        fallback_fee_rate=FALLBACK,
        transport=httpx.MockTransport(lambda _request: httpx.Response(404)),
    )
    seed = parse_mnemonic("abandon " * 11 + "about")
    wallet = await OnchainWallet.open(OnchainTables(store), nowhere, seed, Network.REGTEST)
    while True:
        print(await wallet.next_address(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
