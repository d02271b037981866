"""One wallet's exits on a devnet chain: everything is real but for the Ark server, which is never asked."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.ark.wallet_keys import WalletKeys
from barkd_py.bitcoin.address import parse_address
from barkd_py.bitcoin.bip32 import Seed, parse_mnemonic
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import Tx, Txid, TxOut
from barkd_py.bitcoin.units import FeeRate, Network
from barkd_py.chain.source import ChainSource
from barkd_py.devnet.chain import faucet
from barkd_py.devnet.chain.local import LocalNode
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits.service import Exits
from barkd_py.wallet.exits.states import Claimable, ExitState, ExitStatus, Processing
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.mailbox.receipts import KeptMail
from barkd_py.wallet.movements import Movement
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.onchain import OnchainTables
from barkd_py.wallet.vtxo_states import NewVtxo, Spendable, VtxoState
from tests.fakes.chains import Clock, bitcoind_source, esplora_source
from tests.fakes.node_rpc import NodeRpc
from tests.wallet.exits.coins import Mint
from tests.wallet.exits.gates import GatedChain


async def _addresses_of(public_keys: Sequence[PublicKey]) -> Mapping[PublicKey, str]:
    return dict.fromkeys(public_keys, "ark1")


SEED = parse_mnemonic("legal winner thank year wave sausage worth useful legal winner thank yellow")


@dataclass
class World:
    """The wallet, and the chain around it.

    chain: what the wallet talks to; a gate that tests can close.
    """

    node: LocalNode
    chain: GatedChain
    clock: Clock
    store: Store
    seed: Seed
    keychain: Keychain
    onchain: OnchainWallet = field(init=False)
    exits: Exits = field(init=False)
    mint: Mint = field(init=False)

    @classmethod
    async def create(cls, node: LocalNode, chain: ChainSource, clock: Clock, store: Store) -> "World":
        """With a new wallet."""
        await OnchainWallet.create(OnchainTables(store), chain, SEED, Network.REGTEST, now=clock)
        return await cls.open(node, chain, clock, store)

    @classmethod
    async def open(cls, node: LocalNode, chain: ChainSource, clock: Clock, store: Store) -> "World":
        """With the wallet that is stored."""
        gated = GatedChain(chain)
        gated.fast = FeeRate(250)
        world = cls(node, gated, clock, store, SEED, Keychain(WalletKeys(SEED), store))
        world.mint = Mint(node, world.keychain)
        await world.restart()
        return world

    def _make_exits(self) -> None:
        self.exits = Exits(
            self.store,
            self.chain,
            self.onchain,
            self.keychain,
            NamedLocks(),
            Network.REGTEST,
            late_income=KeptMail(self.store, _addresses_of).on_chain,
        )

    async def restart(self) -> None:
        """As after a kill: what is in memory is gone."""
        self.onchain = await OnchainWallet.open(
            OnchainTables(self.store), self.chain, self.seed, Network.REGTEST, now=self.clock
        )
        self._make_exits()

    # --- money

    async def fund(self, *amounts_sat: int) -> None:
        """Confirmed coins for fees."""
        for amount_sat in amounts_sat:
            script = parse_address(await self.onchain.next_address(), Network.REGTEST)
            await faucet.pay(self.node, [TxOut(amount_sat, script)])
        await self.node.mine()
        await self.onchain.sync()

    async def hold(self, *vtxos: Vtxo, state: VtxoState | None = None) -> tuple[VtxoId, ...]:
        async with self.store.transaction() as tx:
            await tx.vtxos.insert([NewVtxo(vtxo, state or Spendable()) for vtxo in vtxos])
        return tuple(vtxo.id for vtxo in vtxos)

    async def onchain_sat(self) -> int:
        await self.onchain.sync()
        return (await self.onchain.balance()).total_sat

    # --- exits

    async def state(self, vtxo_id: VtxoId) -> ExitState:
        return (await self.exits.status(vtxo_id)).state

    async def status(self, vtxo_id: VtxoId) -> ExitStatus:
        return await self.exits.status(vtxo_id, with_history=True, with_packages=True)

    async def history(self, vtxo_id: VtxoId) -> list[str]:
        """The types of all states, the present one last."""
        status = await self.status(vtxo_id)
        return [state.type for state in (*status.history, status.state)]

    async def tx_statuses(self, vtxo_id: VtxoId) -> list[str]:
        state = await self.state(vtxo_id)
        assert isinstance(state, Processing), state
        return [entry.status.type for entry in state.transactions]

    async def mine(self, count: int = 1) -> None:
        await self.node.mine(count)

    async def until(
        self, done: Callable[[], Awaitable[bool]], *, blocks: int = 80, step: Callable[[], Awaitable[object]]
    ) -> int:
        """Repeat the step, and mine a block after each, until it is done; the number of blocks."""
        for mined in range(blocks):
            await step()
            if await done():
                return mined
            await self.mine()
        raise AssertionError("it never was done")

    async def until_claimable(self, *vtxo_ids: VtxoId) -> int:
        async def done() -> bool:
            return all([isinstance(await self.state(vtxo_id), Claimable) for vtxo_id in vtxo_ids])

        return await self.until(done, step=self.exits.tick)

    async def movements(self) -> tuple[Movement, ...]:
        async with self.store.read() as tx:
            return await tx.movements.list()

    # --- the mempool

    @property
    def mempool(self) -> dict[Txid, Tx]:
        return {entry.txid: entry.tx for entry in self.node.pool}

    def child_of(self, parent: Tx) -> Tx:
        """The one mempool transaction that spends the parent's anchor."""
        anchor = parent.outpoint(len(parent.outputs) - 1)
        (child,) = [tx for tx in self.mempool.values() if any(tx_in.prevout == anchor for tx_in in tx.inputs)]
        return child

    def evict(self, *txids: Txid) -> None:
        """Drop transactions from the mempool, as a full one does."""
        for txid in txids:
            self.node.pool.remove(txid)

    def fee_sat(self, *txs: Tx) -> int:
        """Of mempool transactions."""
        total = 0
        for tx in txs:
            entry = self.node.pool.get(tx.txid)
            assert entry is not None
            total += entry.fee_sat
        return total

    async def set_rates(self, fast: FeeRate) -> None:
        """What the chain source estimates from now on."""
        self.chain.fast = fast


_numbers = itertools.count()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[LocalNode]:
    """A chain with mature coins in the faucet."""
    local = LocalNode(tmp_path / "chain")
    await local.mine(130)
    yield local
    await local.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(str(tmp_path / "db.sqlite"))
    yield opened
    await opened.close()


def source(kind: str, node: LocalNode, clock: Clock) -> ChainSource:
    return esplora_source(node, clock) if kind == "esplora" else bitcoind_source(NodeRpc(node), clock)


@pytest.fixture
async def world(node: LocalNode, clock: Clock, store: Store) -> AsyncIterator[World]:
    """Over Esplora."""
    chain = source("esplora", node, clock)
    yield await World.create(node, chain, clock, store)
    await chain.close()


@pytest.fixture(params=["esplora", "bitcoind"])
async def either_world(
    request: pytest.FixtureRequest, node: LocalNode, clock: Clock, store: Store
) -> AsyncIterator[World]:
    """Over either kind of chain source."""
    chain = source(request.param, node, clock)
    yield await World.create(node, chain, clock, store)
    await chain.close()


def amounts(vtxos: Sequence[Vtxo]) -> int:
    return sum(vtxo.amount_sat for vtxo in vtxos)
