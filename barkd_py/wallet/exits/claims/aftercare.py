"""Sees to it that confirmed claims stay confirmed.

An exit is over with the first block that confirms its claim. Should that block be lost, and the mempools have
forgotten the claim, nobody would bring it back; so claims of ours are looked at until they are deep enough,
and broadcast again if they are gone. The exit's state stays what it is.
"""

import logging

from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import ChainSource, Confirmed, NotFound
from barkd_py.errors import ChainError, chain_text
from barkd_py.wallet.exits.machine import SPEND_CONFIRMATIONS
from barkd_py.wallet.exits.rows import read_exits
from barkd_py.wallet.exits.states import Claimed
from barkd_py.wallet.store import Store

log = logging.getLogger(__name__)

_CLAIMED = "claimed"
"""The kind of the rows of `Claimed`."""


class ClaimAftercare:
    """young: the claims that are not deep enough yet; None until the stored exits were read."""

    def __init__(self, store: Store, chain: ChainSource) -> None:
        self._store = store
        self._chain = chain
        self._young: set[Txid] | None = None
        self._looked_at: BlockRef | None = None

    def note(self, claimed: Claimed) -> None:
        """An exit was just found claimed."""
        if self._young is not None:
            self._young.add(claimed.txid)

    async def look(self, tip: BlockRef) -> None:
        """Once per tip. Raises ChainError: the next tip makes up for it."""
        if self._young is None:
            self._young = await self._read_young(tip)
        if tip == self._looked_at:
            return
        for txid in tuple(self._young):
            status = await self._chain.tx_status(txid)
            if isinstance(status, Confirmed) and status.block.height <= tip.height - SPEND_CONFIRMATIONS:
                self._young.discard(txid)
            elif isinstance(status, NotFound):
                await self._send_again(txid)
        self._looked_at = tip

    async def _read_young(self, tip: BlockRef) -> set[Txid]:
        async with self._store.read() as tx:
            rows = [row for row in await tx.exits.list() if row.kind == _CLAIMED]
        exits, _ = read_exits(rows)
        return {
            exit_.state.txid
            for exit_ in exits
            if isinstance(exit_.state, Claimed)
            and exit_.state.block.height > tip.height - SPEND_CONFIRMATIONS
        }

    async def _send_again(self, txid: Txid) -> None:
        async with self._store.read() as tx:
            claim_tx = await tx.exits.find_claim(txid)
        if claim_tx is None:
            return  # not ours
        try:
            await self._chain.broadcast(claim_tx)
        except ChainError as error:
            log.warning("claim %s was lost, and cannot be sent again: %s", txid, chain_text(error))
        else:
            log.warning("claim %s was lost in a reorganisation, and was sent again", txid)
