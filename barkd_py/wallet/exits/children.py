"""The children that pay for exit transactions: made, replaced, broadcast, given up.

The order around a child is law:

    1. the on-chain wallet stores the child, so that its coins are taken
    2. it is stored as the child of its exit transaction
    3. both are broadcast as a package

After a crash behind 1 the wallet knows a transaction that spends the anchor, and it is used instead of a new
one; behind 2 the stored child is broadcast. All children of one exit transaction spend the same anchor, so
not more than one of them can ever be confirmed, and nothing is paid twice.

A child that the node refuses is given up at once, and its coins are free again.

Source: sheet 06 §2.6, §4.
"""

import logging
from collections.abc import MutableMapping

from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.source import BroadcastError, BroadcastErrorKind, ChainSource, Mempool, PackageFee
from barkd_py.errors import BarkdError, ChainError, StateConflict, chain_text
from barkd_py.onchain.cpfp import InsufficientConfirmedFunds, fee_anchor_of
from barkd_py.onchain.types import SignedTx
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.errors import (
    ExitError,
    ExitPackageBroadcastFailure,
    InsufficientConfirmedFundsForExit,
    InternalExitError,
)
from barkd_py.wallet.exits.machine import ChildView, TxView
from barkd_py.wallet.exits.observe import KnownChild
from barkd_py.wallet.exits.states import ExitTxOrigin, WalletOrigin
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.exits import ExitChildRow

log = logging.getLogger(__name__)


def known_child(row: ExitChildRow) -> KnownChild:
    origin = payloads.decode_origin(row.origin)
    return KnownChild(Tx.parse(row.child_tx), isinstance(origin, WalletOrigin), origin)


def child_row(exit_txid: Txid, child: Tx, origin: ExitTxOrigin) -> ExitChildRow:
    return ExitChildRow(exit_txid, child.serialize(), payloads.encode_origin(origin))


class ChildPayer:
    """Makes, replaces and broadcasts the children of exit transactions.

    fees: of packages, by child; gets those that are made here, so that nobody has to ask for them.
    """

    def __init__(
        self,
        store: Store,
        chain: ChainSource,
        onchain: OnchainWallet,
        fees: MutableMapping[Txid, PackageFee],
    ) -> None:
        self._store = store
        self._chain = chain
        self._onchain = onchain
        self._fees = fees

    async def pay(self, parent: Tx, view: TxView, stored: KnownChild | None, rate: FeeRate) -> Txid | None:
        """See to it that a child pays for the parent at this rate; the child that was broadcast, if any was.

        stored: the child that is known. Raises ExitError: the next run tries again.
        """
        try:
            if view.child is None or stored is None:
                return await self._pay_first(parent, rate)
            if isinstance(view.status, Mempool):
                return await self._replace(parent, view.child, stored, rate)
            return await self._send_again(parent, stored, rate)
        except InsufficientConfirmedFunds as error:
            raise InsufficientConfirmedFundsForExit(error.needed_sat, error.available_sat) from error
        except ChainError as error:
            raise ExitPackageBroadcastFailure(parent.txid, chain_text(error)) from error
        except StateConflict:
            raise
        except ExitError:
            raise
        except BarkdError as error:
            raise InternalExitError(chain_text(error)) from error

    async def _pay_first(self, parent: Tx, rate: FeeRate) -> Txid | None:
        child = self._unused_child(parent)
        if child is None:
            child = self._noted(parent, await self._onchain.fund_child(parent, rate))
        return await self._store_and_send(parent, child, previous=None)

    def _noted(self, parent: Tx, child: SignedTx) -> Tx:
        """The child; what it pays is all that the package pays, for exit transactions pay nothing."""
        self._fees[child.tx.txid] = PackageFee(child.fee_sat, parent.weight_wu + child.tx.weight_wu)
        return child.tx

    async def _replace(self, parent: Tx, view: ChildView, stored: KnownChild, rate: FeeRate) -> Txid | None:
        if view.fee is None or rate <= view.fee.fee_rate:
            return None
        child = self._unused_child(parent, besides=view.txid)
        if child is None:
            try:
                replaced = view.txid if view.is_ours else None
                signed = await self._onchain.fund_child(
                    parent, rate, replaced_txid=replaced, replaces=view.fee
                )
            except InsufficientConfirmedFunds as error:
                log.warning("the child of %s stays at %s: %s", parent.txid, view.fee.fee_rate, error)
                return None
            child = self._noted(parent, signed)
        elif view.is_ours:
            await self._onchain.evict(view.txid)
        return await self._store_and_send(parent, child, previous=stored)

    async def _send_again(self, parent: Tx, stored: KnownChild, rate: FeeRate) -> Txid | None:
        """Broadcast a package that the node does not have (any more), or give it up."""
        child = stored.tx
        anchor, output = fee_anchor_of(parent)
        if stored.is_ours:
            await self._onchain.record(child, foreign_outputs={anchor: output})
        try:
            await self._chain.broadcast_package([parent, child])
        except BroadcastError as error:
            if error.kind is BroadcastErrorKind.KNOWN:
                return child.txid
            log.info("child %s of exit transaction %s is given up: %s", child.txid, parent.txid, error)
            await self._give_up(parent, child, previous=None)
            return await self._pay_first(parent, rate)
        return child.txid

    def _unused_child(self, parent: Tx, besides: Txid | None = None) -> Tx | None:
        """A child that the on-chain wallet has made, and a crash kept from being used."""
        anchor, _ = fee_anchor_of(parent)
        spenders = self._onchain.unconfirmed_spenders(anchor)
        return next((tx for tx in spenders if tx.txid != besides), None)

    async def _store_and_send(self, parent: Tx, child: Tx, previous: KnownChild | None) -> Txid | None:
        """The child is in the on-chain wallet. previous: the child that it replaces."""
        await self._save(parent.txid, KnownChild(child, True, WalletOrigin()))
        try:
            await self._chain.broadcast_package([parent, child])
        except BroadcastError as error:
            if error.kind is BroadcastErrorKind.KNOWN:
                return child.txid
            await self._give_up(parent, child, previous)
            if error.kind is BroadcastErrorKind.OTHER:
                raise ExitPackageBroadcastFailure(parent.txid, str(error)) from error
            log.info("the child of exit transaction %s was refused: %s", parent.txid, error)
            return None
        log.info("exit transaction %s was broadcast with child %s", parent.txid, child.txid)
        return child.txid

    async def _give_up(self, parent: Tx, child: Tx, previous: KnownChild | None) -> None:
        """The child cannot be; what was before it is again."""
        if previous is None:
            async with self._store.transaction() as tx:
                await tx.exits.delete_child(parent.txid)
        else:
            await self._save(parent.txid, previous)
        await self._onchain.evict(child.txid)
        if previous is not None and previous.is_ours:
            await self._onchain.record(previous.tx)

    async def _save(self, exit_txid: Txid, child: KnownChild) -> None:
        async with self._store.transaction() as tx:
            await tx.exits.save_child(child_row(exit_txid, child.tx, child.origin))
