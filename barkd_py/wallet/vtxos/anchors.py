"""Proving VTXOs against the transactions on chain that they hang off.

What a server cosigns is proven before it counts as money. Anchors never change, so they are fetched once.
"""

from collections.abc import Iterable

from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.tx import Tx, Txid
from barkd_py.chain.source import ChainSource
from barkd_py.errors import ChainError

MAX_KEPT = 256


class AnchorMissing(ChainError):
    """The chain source does not know the transaction that a VTXO hangs off; perhaps not yet."""

    def __init__(self, txid: Txid) -> None:
        super().__init__(f"chain anchor transaction {txid} not found")
        self.txid = txid


class Anchors:
    """The anchor transactions of this wallet's VTXOs."""

    def __init__(self, chain: ChainSource) -> None:
        self._chain = chain
        self._kept: dict[Txid, Tx] = {}

    async def validate(self, vtxos: Iterable[Vtxo]) -> None:
        """Raises VtxoInvalid for the first one that is not proven; ChainError if nothing is known."""
        for vtxo in vtxos:
            validate(vtxo, await self._get(vtxo.anchor_point.txid))

    async def _get(self, txid: Txid) -> Tx:
        found = self._kept.get(txid)
        if found is None:
            found = await self._chain.get_tx(txid)
            if found is None:
                raise AnchorMissing(txid)
            if len(self._kept) >= MAX_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[txid] = found
        return found
