"""The on-chain wallet: balance, addresses, building and signing, and the order of effects of a payment.

The stored rows are the truth (`store.py`), BDK is a view of them (`view.py`). Each change is stored before it
counts: an address before it is shown, a payment before it is broadcast. So nothing is lost by a kill -9, and
what a crash leaves undone the next sync does (a payment that was stored but not broadcast is sent again).

One lock guards rows and view; BDK runs in a thread while it is held. It is never held across the network: a
sync looks at the chain without it and takes it to store what it saw.

The store opens a database transaction of its own for each change: never call a method that stores (they say
so) inside another one.

Source: sheet 06 §7.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import bdkpython as bdk

from barkd_py.bitcoin.bip32 import Seed
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxOut
from barkd_py.bitcoin.units import BlockRef, FeeRate, Network
from barkd_py.chain.source import GENESIS_HASHES, ChainSource, PackageFee
from barkd_py.errors import BarkdError, ChainError
from barkd_py.onchain.coin_selection import truc_coins, untrusted_coins
from barkd_py.onchain.confirmed_coins import ConfirmedCoins
from barkd_py.onchain.cpfp import fee_anchor_of, plan_child
from barkd_py.onchain.errors import OnchainInsufficientFunds, OnchainStoreMismatch, TxBuildFailed
from barkd_py.onchain.keychain import CHANGE_GAP, STOP_GAP, Keychain, wallet_descriptor
from barkd_py.onchain.store import (
    BlockRow,
    OnchainChange,
    OnchainState,
    OnchainStore,
    OutputRow,
    TransactionRow,
    WalletRow,
)
from barkd_py.onchain.sync import (
    Scan,
    missing_transactions,
    observe,
    parents_first,
    plan_change,
    rebroadcast,
    scan,
)
from barkd_py.onchain.types import OnchainBalance, OnchainTransaction, OnchainUtxo, SignedTx
from barkd_py.onchain.view import BdkView

log = logging.getLogger(__name__)

_COINBASE_MATURITY = 100
_NULL_TXID = bytes(32)


class BirthdayRefused(BarkdError):
    """The birthday height is above the tip of the chain."""


class OnchainWallet:
    """Made by `create` or `open`. now: seconds since the epoch."""

    def __init__(
        self,
        store: OnchainStore,
        chain: ChainSource,
        descriptor: bdk.Descriptor,
        network: Network,
        state: OnchainState,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._chain = chain
        self._descriptor = descriptor
        self._network = network
        self._now = now
        self._state = state
        self._keychain = Keychain(descriptor, network, state.wallet.last_revealed)
        self._view: BdkView | None = None
        self._view_backlog: list[OnchainChange] = []
        self._snapshot: _Snapshot | None = None
        self._confirmed_coins = ConfirmedCoins()
        self._change: dict[int, Txid | None] = {}  # indexes for change alone; the transaction each is in
        self._lock = asyncio.Lock()
        self._syncing = asyncio.Lock()
        self._scanning = asyncio.Lock()

    # --- opening ---

    @classmethod
    async def create(
        cls,
        store: OnchainStore,
        chain: ChainSource,
        seed: Seed,
        network: Network,
        *,
        birthday_height: int | None = None,
        now: Callable[[], float] = time.time,
    ) -> "OnchainWallet":
        """Store a new wallet and search the chain for its past.

        birthday_height: the block from which a source that reads blocks starts; None: the tip (for a new
        mnemonic). Other sources always search everything and ignore it.
        Raises ChainError; a failed search of the latter kind leaves nothing stored, one that reads blocks
        goes on at the next `sync`.
        """
        descriptor = wallet_descriptor(seed, network)
        blocks = {0: bytes(GENESIS_HASHES[network])}
        if chain.reads_blocks:
            blocks |= await _birthday_block(chain, birthday_height)
        elif birthday_height is not None:
            log.warning("the birthday height is ignored: this chain source searches by address")
        state = OnchainState(WalletRow(network.bitcoin_name, str(descriptor), None), blocks)
        if chain.reads_blocks:
            await store.append(_everything(state))
            wallet = cls(store, chain, descriptor, network, state, now)
            await wallet.sync()
            return wallet
        scanned = cls(_Unstored(), chain, descriptor, network, state, now)
        await scanned._sync(stop_gap=STOP_GAP)
        await store.append(_everything(scanned._state))
        return cls(store, chain, descriptor, network, scanned._state, now)

    @classmethod
    async def open(
        cls,
        store: OnchainStore,
        chain: ChainSource,
        seed: Seed,
        network: Network,
        *,
        now: Callable[[], float] = time.time,
    ) -> "OnchainWallet":
        """Open what `create` stored. Raises OnchainStoreMismatch, StoreError; does not ask the network."""
        descriptor = wallet_descriptor(seed, network)
        state = await store.load()
        if state is None:
            raise OnchainStoreMismatch("there is no on-chain wallet in the database")
        if state.wallet.network != network.bitcoin_name:
            raise OnchainStoreMismatch(
                f"Network mismatch: loaded {state.wallet.network}, expected {network.bitcoin_name}"
            )
        if state.wallet.descriptor != str(descriptor):
            raise OnchainStoreMismatch("the on-chain wallet in the database belongs to another mnemonic")
        return cls(store, chain, descriptor, network, state, now)

    # --- reading ---

    @property
    def network(self) -> Network:
        return self._network

    @property
    def tip_height(self) -> int:
        """The newest block that the wallet knows."""
        return max(self._state.blocks)

    @property
    def tip(self) -> BlockRef:
        """The same block."""
        height = self.tip_height
        return BlockRef(height, BlockHash(self._state.blocks[height]))

    async def balance(self) -> OnchainBalance:
        return (await self._read()).balance

    async def utxos(self) -> tuple[OnchainUtxo, ...]:
        return (await self._read()).utxos

    async def transactions(self) -> tuple[OnchainTransaction, ...]:
        """Oldest first: confirmed ones by height, then unconfirmed ones by when they were first seen."""
        return (await self._read()).transactions

    def unconfirmed_spenders(self, outpoint: OutPoint) -> tuple[Tx, ...]:
        """The unconfirmed transactions that count and spend this output, whosever it is."""
        rows = self._state.transactions.values()
        return tuple(
            row.tx
            for row in rows
            if row.confirmation is None
            and row.last_seen is not None
            and any(tx_in.prevout == outpoint for tx_in in row.tx.inputs)
        )

    def is_mine(self, script_pubkey: bytes) -> bool:
        """Whether the script is one of ours, revealed or among the next ones."""
        return self._keychain.index_of(script_pubkey) is not None

    async def _read(self) -> "_Snapshot":
        if (snapshot := self._snapshot) is not None:
            return snapshot
        async with self._lock:
            if self._snapshot is None:
                self._snapshot = await asyncio.to_thread(self._take_snapshot)
            return self._snapshot

    def _take_snapshot(self) -> "_Snapshot":
        view = self._current_view()
        return _Snapshot(view.balance(), view.utxos(), _in_order(view.transactions(), self._state))

    # --- addresses ---

    async def next_address(self) -> str:
        """Reveal a new address; it is stored before it is returned."""
        async with self._lock:
            index = self._keychain.revealed_count
            self._change.pop(index, None)
            await self._apply(OnchainChange(wallet=replace(self._state.wallet, last_revealed=index)))
            return self._keychain.address(index)

    def _change_script(self, view: BdkView) -> bytes:
        """Of an address that was shown to nobody, lest somebody take our change for a payment to it; but of
        the lowest unused one, if the next new one is so far ahead that a search might end before it.

        One whose transaction never was, or was replaced, is used again.
        """
        free = (index for index, txid in self._change.items() if txid is None or not self._is_alive(txid))
        index = min(free, default=self._keychain.revealed_count)
        if index - self._last_paid_index() > CHANGE_GAP:
            return view.lowest_unused_script()
        self._change[index] = None
        view.reveal(index)
        return self._keychain.script(index)

    def _last_paid_index(self) -> int:
        """The highest address that a search finds paid, whatever becomes of what is not confirmed; or -1."""
        paid = (
            self._keychain.index_of(output.script_pubkey)
            for row in self._state.transactions.values()
            if row.confirmation is not None
            for output in row.tx.outputs
        )
        return max((index for index in paid if index is not None), default=-1)

    def _is_alive(self, txid: Txid) -> bool:
        row = self._state.transactions.get(txid)
        return row is not None and (row.confirmation is not None or row.last_seen is not None)

    def _note_change(self, rows: Iterable[TransactionRow]) -> None:
        for row in rows if self._change else ():
            for output in row.tx.outputs:
                index = self._keychain.index_of(output.script_pubkey)
                if index in self._change:
                    self._change[index] = Txid(row.txid)

    def _revealed_by_build(self) -> WalletRow | None:
        """The wallet row to store after a build, if that needed a new address for its change."""
        stored = self._state.wallet.last_revealed
        index = None if self._view is None else self._view.last_revealed
        if index is None or (stored is not None and index <= stored):
            return None
        return replace(self._state.wallet, last_revealed=index)

    # --- building ---

    async def build_tx(self, recipients: Sequence[TxOut], fee_rate: FeeRate) -> SignedTx:
        """Build and sign a payment: the recipients in this order, then the change.

        Only the change address is stored. The coins are not reserved before `record`: two builds without it
        may choose the same ones, so callers take turns. Raises TxBuildFailed.
        """
        return await self._build(lambda view: self._build_payment(view, recipients, fee_rate))

    async def build_drain(self, script_pubkey: bytes, fee_rate: FeeRate) -> SignedTx:
        """Build and sign a payment of every coin to one script; otherwise as `build_tx`."""
        return await self._build(
            lambda view: view.build_drain(
                script_pubkey, fee_rate, tip_height=self.tip_height, unspendable=self._truc_coins(view)
            )
        )

    async def _build(self, build: Callable[[BdkView], SignedTx]) -> SignedTx:
        async with self._lock:
            signed = await asyncio.to_thread(lambda: build(self._current_view()))
            await self._apply(OnchainChange(wallet=self._revealed_by_build()))
            return signed

    def _build_payment(self, view: BdkView, recipients: Sequence[TxOut], fee_rate: FeeRate) -> SignedTx:
        coins = view.utxos()
        change_script = self._change_script(view)
        unconfirmed = self._unconfirmed()
        forbidden = truc_coins(coins, unconfirmed)
        untrusted = untrusted_coins(coins, unconfirmed, self._our_outputs())
        if untrusted - forbidden:
            try:
                return view.build_tx(
                    recipients,
                    fee_rate,
                    change_script,
                    tip_height=self.tip_height,
                    unspendable=forbidden | untrusted,
                )
            except TxBuildFailed as error:
                if not isinstance(error.__cause__, OnchainInsufficientFunds):
                    raise
        return view.build_tx(
            recipients, fee_rate, change_script, tip_height=self.tip_height, unspendable=forbidden
        )

    def _truc_coins(self, view: BdkView) -> frozenset[OutPoint]:
        return truc_coins(view.utxos(), self._unconfirmed())

    def _unconfirmed(self) -> Mapping[Txid, Tx]:
        rows = self._state.transactions.values()
        return {Txid(row.txid): row.tx for row in rows if row.confirmation is None}

    def _our_outputs(self) -> frozenset[OutPoint]:
        return frozenset(
            tx.outpoint(vout)
            for tx in (row.tx for row in self._state.transactions.values())
            for vout, output in enumerate(tx.outputs)
            if self.is_mine(output.script_pubkey)
        )

    # --- paying for an exit ---

    async def fund_child(
        self,
        parent: Tx,
        fee_rate: FeeRate,
        *,
        replaced_txid: Txid | None = None,
        replaces: PackageFee | None = None,
    ) -> SignedTx:
        """Build and sign the fee child of a zero-fee parent, and record it; the caller broadcasts both.

        replaced_txid: a child of ours that this one replaces: it stops counting, and its coins may be used.
        replaces: what the package that is replaced pays, whoever made its child.
        Stores, before the child can be broadcast, so that its coins are taken. If the broadcast is refused
        the caller evicts the child. Raises MissingAnchor, FeeRateTooLow, InsufficientConfirmedFunds,
        TxBuildFailed: nothing was changed.
        """
        anchor = fee_anchor_of(parent)
        async with self._lock:
            replaced = self._state.transactions.get(replaced_txid) if replaced_txid is not None else None
            if replaced is not None and replaced.confirmation is None:
                await self._apply(OnchainChange(transactions=(replace(replaced, last_seen=None),)))
            try:
                child = await asyncio.to_thread(self._build_child, parent, anchor, fee_rate, replaces)
            except BarkdError:
                if replaced is not None and replaced.confirmation is None:
                    await self._apply(OnchainChange(transactions=(replaced,)))
                raise
            now_s = int(self._now())
            outpoint, output = anchor
            await self._apply(
                OnchainChange(
                    wallet=self._revealed_by_build(),
                    transactions=(TransactionRow(child.tx.txid, child.tx.serialize(), None, now_s, now_s),),
                    outputs=(
                        OutputRow(outpoint.txid, outpoint.vout, output.value_sat, output.script_pubkey),
                    ),
                )
            )
            return child

    def _build_child(
        self, parent: Tx, anchor: tuple[OutPoint, TxOut], fee_rate: FeeRate, replaces: PackageFee | None
    ) -> SignedTx:
        view = self._current_view()
        plan = plan_child(
            [coin for coin in self._confirmed_coins.find(view.utxos) if self._is_mature(coin)],
            parent_weight_wu=parent.weight_wu,
            anchor_value_sat=anchor[1].value_sat,
            fee_rate=fee_rate,
            replaces=replaces,
        )
        return view.build_child(anchor, plan, self._change_script(view), tip_height=self.tip_height)

    def _is_mature(self, coin: OnchainUtxo) -> bool:
        """Whether the confirmed coin can be spent in the next block: block rewards have to wait."""
        assert coin.confirmation_height is not None
        is_coinbase = self._state.transactions[coin.outpoint.txid].tx.inputs[0].prevout.txid == _NULL_TXID
        return not is_coinbase or self.tip_height + 1 - coin.confirmation_height >= _COINBASE_MATURITY

    # --- recording ---

    async def record(self, tx: Tx, *, foreign_outputs: Mapping[OutPoint, TxOut] | None = None) -> None:
        """Store a transaction of ours as unconfirmed, seen now; its inputs are spent from then on.

        foreign_outputs: what it spends of others' (a fee anchor), so that its fee is known. Recording twice
        is the same as once, and never undoes a confirmation.
        """
        now_s = int(self._now())
        async with self._lock:
            row = self._state.transactions.get(tx.txid)
            if row is None:
                row = TransactionRow(tx.txid, tx.serialize(), None, first_seen=now_s, last_seen=now_s)
            elif row.confirmation is None:
                first_seen = now_s if row.first_seen is None else row.first_seen
                row = TransactionRow(row.txid, row.raw, None, first_seen, now_s)
            outputs = tuple(
                OutputRow(outpoint.txid, outpoint.vout, output.value_sat, output.script_pubkey)
                for outpoint, output in (foreign_outputs or {}).items()
            )
            await self._apply(OnchainChange(transactions=(row,), outputs=outputs))

    async def evict(self, txid: Txid) -> None:
        """Stop counting an unconfirmed transaction at once; it counts again when it is seen again."""
        async with self._lock:
            row = self._state.transactions.get(txid)
            if row is None or row.confirmation is not None or row.last_seen is None:
                return
            evicted = TransactionRow(row.txid, row.raw, None, row.first_seen, last_seen=None)
            await self._apply(OnchainChange(transactions=(evicted,)))

    # --- paying ---

    async def send(self, script_pubkey: bytes, amount_sat: int) -> Txid:
        """Pay one script at the regular fee rate; as `send_many`."""
        return await self.send_many([(script_pubkey, amount_sat)])

    async def send_many(self, recipients: Sequence[tuple[bytes, int]]) -> Txid:
        """Pay (script, amount) pairs: build, sign, store, broadcast. Raises TxBuildFailed: nothing happened.

        A failed broadcast is only logged; later syncs send the transaction again.
        """
        outputs = [TxOut(amount_sat, script_pubkey) for script_pubkey, amount_sat in recipients]
        rates = await self._chain.fee_rates()
        return await self._pay(lambda view: self._build_payment(view, outputs, rates.regular))

    async def drain(self, script_pubkey: bytes) -> Txid:
        """Pay every coin to one script; as `send_many`."""
        rates = await self._chain.fee_rates()
        return await self._pay(
            lambda view: view.build_drain(
                script_pubkey, rates.regular, tip_height=self.tip_height, unspendable=self._truc_coins(view)
            )
        )

    async def _pay(self, build: Callable[[BdkView], SignedTx]) -> Txid:
        async with self._lock:  # build and record in one piece, so that no coin is chosen twice
            signed = await asyncio.to_thread(lambda: build(self._current_view()))
            now_s = int(self._now())
            row = TransactionRow(signed.tx.txid, signed.tx.serialize(), None, now_s, now_s)
            await self._apply(OnchainChange(wallet=self._revealed_by_build(), transactions=(row,)))
        try:
            await self._chain.broadcast(signed.tx)
        except ChainError as error:
            log.error("transaction %s was stored but not broadcast: %s", signed.tx.txid, error)
        return signed.tx.txid

    # --- syncing ---

    async def sync(self) -> None:
        """Bring the rows up to the tip; send again what is not known to the network. Stores.

        Raises ChainError; what was stored by then is consistent, and the next sync goes on from there.
        """
        await self._sync(stop_gap=None)

    async def rescan(self) -> None:
        """As `sync`, and look for payments that this wallet does not know it was given: to addresses that it
        does not know it has handed out, and in blocks that it has read or was made after.

        It takes long, and nobody who syncs has to wait for it. Stores. Raises ChainError.
        """
        async with self._scanning:  # a node does one at a time
            if self._chain.reads_blocks:
                await self.sync()
            keychain = Keychain(self._descriptor, self._network, self._keychain.last_revealed)
            scanned = await scan(self._chain, self._state, keychain, stop_gap=STOP_GAP)
            await self._sync(stop_gap=None, scanned=scanned)

    async def unheard_of_payments(self) -> tuple[Txid, ...]:
        """Transactions that spend coins of this wallet, and of which it has never heard: made by another one.

        Changes nothing, and tells nobody anything. Raises ChainError.
        """
        scout = OnchainWallet(
            _Unstored(), self._chain, self._descriptor, self._network, self._state, self._now
        )
        await scout._sync(stop_gap=None if self._chain.reads_blocks else STOP_GAP, sends_again=False)
        coins = scout._our_outputs()
        return tuple(
            Txid(txid)
            for txid, row in scout._state.transactions.items()
            if txid not in self._state.transactions and any(tx_in.prevout in coins for tx_in in row.tx.inputs)
        )

    async def _sync(
        self, *, stop_gap: int | None, sends_again: bool = True, scanned: Scan | None = None
    ) -> None:
        async with self._syncing:
            is_complete = False
            while not is_complete:
                observed = self._state
                observation = await observe(
                    self._chain, observed, self._keychain, stop_gap=stop_gap, scanned=scanned
                )
                is_complete = observation.is_complete
                missing = missing_transactions(observed, observation) if sends_again else ()
                alive = await rebroadcast(self._chain, observed, self._keychain, missing)
                async with self._lock:
                    change = plan_change(
                        self._state,
                        observation,
                        last_revealed=self._keychain.last_revealed,
                        alive=alive,
                        now_s=int(self._now()),
                    )
                    await self._apply(change)
                scanned = None  # it is stored, and so are the blocks since, up to where they were read

    # --- rows and view ---

    async def _apply(self, change: OnchainChange) -> None:
        """Store a change, then let it count. The lock is held. Raises StoreError: nothing changed."""
        if change.is_empty:
            return
        await self._store.append(change)
        before, self._state = self._state, self._state.apply(change)
        if change.wallet is not None and change.wallet.last_revealed is not None:
            self._keychain.found(change.wallet.last_revealed)
        self._note_change(change.transactions)
        if _needs_rebuild(before, self._state, change):
            self._view = None
            self._view_backlog.clear()
            self._confirmed_coins.forget()
        elif change.wallet is not None or change.transactions or change.outputs:
            self._view_backlog.append(change)
            self._confirmed_coins.follow(before, change)
        if self._view is None or change.transactions or change.outputs:
            self._snapshot = None

    def _current_view(self) -> BdkView:
        """The view with every row in it. Blocks; the lock is held."""
        backlog, self._view_backlog = self._view_backlog, []
        view, self._view = self._view, None  # unless the rest succeeds, it is built anew next time
        if view is None:
            view = BdkView(self._descriptor, self._network, self._state)
        else:
            for change in backlog:
                if change.wallet is not None and change.wallet.last_revealed is not None:
                    view.reveal(change.wallet.last_revealed)
                for row in change.outputs:
                    outpoint = OutPoint(Txid(row.txid), row.vout)
                    view.add_output(outpoint, TxOut(row.value_sat, row.script_pubkey))
                view.add_unconfirmed(change.transactions)
        self._view = view
        return view


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What the wallet holds, as of one state of its rows."""

    balance: OnchainBalance
    utxos: tuple[OnchainUtxo, ...]
    transactions: tuple[OnchainTransaction, ...]


class _Unstored:
    """The store of a wallet that must leave nothing behind: its first scan may fail, or it only looks."""

    async def load(self) -> OnchainState | None:
        return None

    async def append(self, change: OnchainChange) -> None:
        pass


async def _birthday_block(chain: ChainSource, birthday_height: int | None) -> dict[int, bytes]:
    if birthday_height is None:
        birthday_height = (await chain.fetch_tip()).height
    height = max(0, birthday_height - 1)
    block_hash = await chain.block_hash(height)
    if block_hash is None:
        raise BirthdayRefused(f"the birthday height {birthday_height} is above the tip of the chain")
    return {height: bytes(block_hash)}


def _everything(state: OnchainState) -> OnchainChange:
    return OnchainChange(
        wallet=state.wallet,
        blocks=tuple(BlockRow(height, block_hash) for height, block_hash in state.blocks.items()),
        transactions=tuple(state.transactions.values()),
        outputs=tuple(state.outputs.values()),
    )


def _needs_rebuild(before: OnchainState, after: OnchainState, change: OnchainChange) -> bool:
    """Whether the change goes beyond unconfirmed transactions that were seen."""
    for row in change.transactions:
        old = before.transactions.get(row.txid)
        if row.confirmation is not None or row.last_seen is None:
            return True
        if old is not None and old.confirmation is not None:
            return True
    return bool(change.blocks) and _has_young_coinbase(after)


def _has_young_coinbase(state: OnchainState) -> bool:
    """Whether a new block may make a coinbase output spendable."""
    youngest_mature = max(state.blocks) - _COINBASE_MATURITY
    return any(
        row.confirmation is not None
        and row.confirmation.height >= youngest_mature
        and row.tx.inputs[0].prevout.txid == _NULL_TXID
        for row in state.transactions.values()
    )


def _in_order(
    transactions: Sequence[OnchainTransaction], state: OnchainState
) -> tuple[OnchainTransaction, ...]:
    place = {tx.txid: index for index, tx in enumerate(parents_first([entry.tx for entry in transactions]))}

    def key(entry: OnchainTransaction) -> tuple[bool, int, int]:
        if entry.confirmation is not None:
            return False, entry.confirmation.height, place[entry.txid]
        row = state.transactions[entry.txid]
        return True, row.first_seen or 0, place[entry.txid]

    return tuple(sorted(transactions, key=key))
