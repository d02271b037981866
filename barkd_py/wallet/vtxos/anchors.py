"""Proving VTXOs against the transactions on chain that they hang off.

What a server cosigns is proven before it counts as money. Anchors never change, so they are fetched once.

What comes from others is proven to hang off something that is still there as well (`AnchorLook`): a signed
chain is worth nothing if whoever made its anchor can still make another transaction, or somebody else has
taken the anchor, or what follows it on the way to the VTXO. Of what has expired it is only said (swept): the
server may have taken it rightly, and gives a new VTXO for it all the same if it is honest. But nobody pays
with it, so it is no income.

Whatever is unfit may be fit later, after a block or a reorganisation, or when a chain source is mended: it is
a `ChainError`, after which one asks again. Source: sheet 01 §16.11.
"""

import time
from collections.abc import Callable, Iterable

from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid
from barkd_py.chain.source import ChainSource, Confirmed
from barkd_py.errors import ChainError

MAX_KEPT = 256
MAX_KEPT_BYTES = 4_000_000
"""Of all together; strangers choose which transactions they say that their payments hang off."""

MAX_VAIN_LOOKUPS_PER_MINUTE = 64


class AnchorUnfit(ChainError):
    """What a VTXO hangs off is not there to be had, or not yet."""


class AnchorMissing(AnchorUnfit):
    """The chain source does not know the transaction that a VTXO hangs off; perhaps not yet."""

    def __init__(self, txid: Txid) -> None:
        super().__init__(f"chain anchor transaction {txid} not found")
        self.txid = txid


class AnchorUnconfirmed(AnchorUnfit):
    """The transaction that a VTXO hangs off is not in a block yet, so it could still be undone."""

    def __init__(self, txid: Txid) -> None:
        super().__init__(f"chain anchor transaction {txid} is not confirmed yet")
        self.txid = txid


class AnchorSpent(AnchorUnfit):
    """An output on the way to a VTXO was spent in a block, and not by the VTXO's own exit transaction."""

    def __init__(self, outpoint: OutPoint) -> None:
        super().__init__(f"{outpoint} was spent by a transaction that does not lead to the VTXO")
        self.outpoint = outpoint


class AnchorLook:
    """One look at what VTXOs hang off. They share it, so everything is asked for once.

    asked: how often the chain source was.
    """

    def __init__(self, chain: ChainSource) -> None:
        self._chain = chain
        self.asked = 0
        self._confirmed: dict[Txid, bool] = {}
        self._spent: dict[OutPoint, bool] = {}

    async def check(self, vtxo: Vtxo) -> bool:
        """Whether a VTXO, proven against its anchor, could be brought to the chain.

        Returns whether it has expired and was swept, so that it could not. Raises AnchorUnconfirmed,
        AnchorSpent, ChainUnavailable.
        """
        if not await self._is_confirmed(vtxo.anchor_point.txid):
            raise AnchorUnconfirmed(vtxo.anchor_point.txid)
        taken = await self._taken(vtxo)
        if taken is not None and (await self._chain.tip()).height < vtxo.expiry_height:
            raise AnchorSpent(taken)
        return taken is not None

    async def _taken(self, vtxo: Vtxo) -> OutPoint | None:
        """What somebody else has taken on its way from its confirmed anchor.

        The first output that no block spends decides: it is the anchor, unless others have begun to publish
        what they share with us.
        """
        for exit_tx in vtxo.exit_transactions():
            (tx_in,) = exit_tx.inputs
            if not await self._is_spent(tx_in.prevout):
                return None
            if not await self._is_confirmed(exit_tx.txid):
                return tx_in.prevout
        return None

    async def _is_confirmed(self, txid: Txid) -> bool:
        if txid not in self._confirmed:
            self.asked += 1
            self._confirmed[txid] = isinstance(await self._chain.tx_status(txid), Confirmed)
        return self._confirmed[txid]

    async def _is_spent(self, outpoint: OutPoint) -> bool:
        """Of a confirmed transaction."""
        if outpoint not in self._spent:
            self.asked += 1
            self._spent[outpoint] = await self._chain.is_spent_confirmed(outpoint)
        return self._spent[outpoint]


class VainLookups:
    """How often the chain source was asked of late for what is no money.

    Whoever writes to us says what it is asked for, and it may be somebody's who bears only so much, of whom
    our exits need an answer. monotonic: seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._began_at = monotonic()
        self._count = 0

    def note(self, count: int) -> None:
        self._forget()
        self._count += count

    @property
    def are_enough(self) -> bool:
        self._forget()
        return self._count >= MAX_VAIN_LOOKUPS_PER_MINUTE

    def _forget(self) -> None:
        if self._monotonic() >= self._began_at + 60:
            self._began_at, self._count = self._monotonic(), 0


class Anchors:
    """The anchor transactions of this wallet's VTXOs. asked: how often the chain source was asked for one."""

    def __init__(self, chain: ChainSource) -> None:
        self._chain = chain
        self.asked = 0
        self._kept: dict[Txid, Tx] = {}
        self._kept_bytes = 0

    async def validate(self, vtxos: Iterable[Vtxo]) -> None:
        """Raises VtxoInvalid for the first one that is not proven; ChainError if nothing is known."""
        for vtxo in vtxos:
            validate(vtxo, await self._get(vtxo.anchor_point.txid))

    async def prove(self, vtxos: Iterable[Vtxo]) -> None:
        """`validate`, and that they hang off something that is still there.

        Raises VtxoInvalid, AnchorUnfit, ChainUnavailable for the first one of which that is not so.
        """
        look = AnchorLook(self._chain)
        for vtxo in vtxos:
            await self.validate([vtxo])
            await look.check(vtxo)

    async def _get(self, txid: Txid) -> Tx:
        found = self._kept.get(txid)
        if found is None:
            self.asked += 1
            found = await self._chain.get_tx(txid)
            if found is None:
                raise AnchorMissing(txid)
            self._keep(txid, found)
        return found

    def _keep(self, txid: Txid, tx: Tx) -> None:
        if txid in self._kept:
            return  # somebody else has asked meanwhile
        size = len(tx.serialize())
        while self._kept and (len(self._kept) >= MAX_KEPT or self._kept_bytes + size > MAX_KEPT_BYTES):
            oldest = self._kept.pop(next(iter(self._kept)))
            self._kept_bytes -= len(oldest.serialize())
        self._kept[txid] = tx
        self._kept_bytes += size
