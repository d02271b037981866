"""What the paying and the receiving half of a wallet have in common: a database and keys."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.wallet.balance import Balance, BalanceReader
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.movements import Movement, Subsystem
from barkd_py.wallet.store import Transaction
from barkd_py.wallet.store.properties import WalletProperties
from barkd_py.wallet.vtxo_states import NewVtxo, Spendable, StateKind, WalletVtxo
from tests.wallet.flows.crashes import CrashingStore

ALICE = parse_mnemonic("abandon " * 11 + "about")


@dataclass
class Clocks:
    """seconds: Unix time. monotonic runs with it."""

    seconds: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds

    def date(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)


@dataclass
class Half:
    """clock: of the wallet."""

    store: CrashingStore
    keychain: Keychain
    clock: Clocks

    async def movements_of(self, subsystem: Subsystem) -> Sequence[Movement]:
        """Newest first."""
        async with self.store.read() as tx:
            return [each for each in await tx.movements.list() if each.subsystem == subsystem]

    async def vtxos(self, *kinds: StateKind) -> Sequence[WalletVtxo]:
        async with self.store.read() as tx:
            return await tx.vtxos.list(kinds)

    async def balance_at(self, height: int) -> Balance:
        return await BalanceReader(self.store).balance(height, 5)

    async def hold(self, coin: Vtxo) -> VtxoId:
        """The wallet has this VTXO from now on."""
        async with self.store.transaction() as tx:
            await tx.vtxos.insert([NewVtxo(coin, Spendable())], registered=True)
        return coin.id


@asynccontextmanager
async def open_half(database: str, clock: Clocks) -> AsyncIterator[Half]:
    """Alice's wallet on this database; it is made if it is not there."""
    store = await CrashingStore.open(database, clock=clock.date)
    assert isinstance(store, CrashingStore)
    try:
        keys = WalletKeys(ALICE)
        async with store.transaction() as tx:
            if await tx.properties.find() is None:
                await tx.properties.create(WalletProperties("regtest", keys.fingerprint))
        yield Half(store, Keychain(keys, store), clock)
    finally:
        await store.close()


async def nothing_due(tx: Transaction) -> frozenset[VtxoId]:
    """For `Registration`."""
    return frozenset()
