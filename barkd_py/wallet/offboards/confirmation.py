"""After an offboard's transaction is out: until it is deep enough, or certain never to be.

A transaction that nobody has any more is offered again. If something else spends what it spends, and is
deep, our forfeits are worth nothing, and the VTXOs are ours again. Without such proof they stay locked: the
server may still let the transaction out.

Unless they have left meanwhile (`lets_go`): once claims of ours of all of them are deep, no forfeit can take
anything, and the exits say where the money went. Should the transaction come after all, the server pays it.

Source: sheet 03 §3.8.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Txid
from barkd_py.chain.source import (
    BroadcastError,
    BroadcastErrorKind,
    ChainSource,
    Confirmed,
    Mempool,
    NotFound,
)
from barkd_py.errors import chain_text
from barkd_py.wallet.actions.executor import Done, Outcome, Park
from barkd_py.wallet.conflicts import FINAL_CONFIRMATIONS, Conflict, find_conflict
from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.states import Claimed
from barkd_py.wallet.offboards.errors import OffboardDoubleSpent, OffboardInputsLeft, OffboardTxLost
from barkd_py.wallet.offboards.states import Confirming, State
from barkd_py.wallet.offboards.writes import undo, write_settled, write_tx
from barkd_py.wallet.store import Store

log = logging.getLogger(__name__)

POLL_SECS = 30.0


class OffboardConfirmation:
    """Looks what became of the transaction. now: Unix seconds."""

    def __init__(
        self,
        store: Store,
        chain: ChainSource,
        *,
        required_confirmations: int,
        lost_tx_grace_secs: int,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._chain = chain
        self._required_confirmations = required_confirmations
        self._lost_tx_grace_secs = lost_tx_grace_secs
        self._now = now

    async def look(self, action_id: str, state: Confirming) -> Outcome[State]:
        status = await self._chain.tx_status(state.txid)
        match status:
            case Confirmed(block):
                tip = await self._chain.fetch_tip()
                if tip.height - block.height + 1 >= self._required_confirmations:
                    return Done(write_settled(action_id, state.vtxo_ids))
            case Mempool() if self._required_confirmations == 0:
                return Done(write_settled(action_id, state.vtxo_ids))
            case NotFound():
                return await self._search(action_id, state)
        return Park(replace(state, trouble=None), POLL_SECS)

    async def _search(self, action_id: str, state: Confirming) -> Outcome[State]:
        """Nobody has the transaction: offer it once more, and find out why."""
        try:
            await self._chain.broadcast(state.tx)
            return Park(replace(state, trouble=None), POLL_SECS)
        except BroadcastError as error:
            log.warning("offboard %s: %s", action_id, chain_text(error))
            if error.kind is BroadcastErrorKind.MISSING_OR_SPENT:
                conflict = await find_conflict(self._chain, state.tx)
                if conflict is not None:
                    return await self._conflicted(action_id, state, conflict)
        if self._now() - state.since <= self._lost_tx_grace_secs:
            return Park(state, POLL_SECS)
        if await self.have_all_left(state.vtxo_ids):
            return undo(action_id, state, OffboardInputsLeft(state.txid))
        lost = OffboardTxLost(state.txid)
        log.error("offboard %s: %s", action_id, lost)
        return Park(replace(state, trouble=str(lost)), POLL_SECS, lost)

    async def have_all_left(self, vtxo_ids: Sequence[VtxoId]) -> bool:
        """Whether claims of ours of all of them are deep in the chain. Raises ChainError, StoreError."""
        claims: set[Txid] = set()
        async with self._store.read() as tx:
            for vtxo_id in vtxo_ids:
                row = await tx.exits.find(vtxo_id)
                exit_ = None if row is None else payloads.decode_state(row.state)
                if not isinstance(exit_, Claimed) or await tx.exits.find_claim(exit_.txid) is None:
                    return False
                claims.add(exit_.txid)
        tip = await self._chain.fetch_tip()
        for txid in claims:
            status = await self._chain.tx_status(txid)
            if not isinstance(status, Confirmed):
                return False
            if tip.height - status.block.height + 1 < FINAL_CONFIRMATIONS:
                return False
        return True

    async def _conflicted(self, action_id: str, state: Confirming, conflict: Conflict) -> Outcome[State]:
        """What spends it may be an earlier transaction of this very offboard, which pays as well.

        Else our forfeits spend a connector that will never be, and the VTXOs are ours again: to be exited.
        """
        for tx in state.earlier:
            if tx.txid == conflict.txid:
                tx = await self._chain.get_tx(tx.txid) or tx
                return Park(replace(state, tx=tx), POLL_SECS, writes=write_tx(action_id, tx))
        error = OffboardDoubleSpent(state.txid, conflict.txid)
        log.error("offboard %s: %s (%d confirmations)", action_id, error, conflict.confirmations)
        if not conflict.is_final:
            return Park(replace(state, trouble=str(error)), POLL_SECS, error)
        return undo(action_id, state, error)
