"""What became of a payment's HTLCs on the chain.

There they are both sides': the server may take one with the preimage as soon as the exit delta has passed, we
without it once the HTLC has expired and twice that delta has passed. If the server takes one, the preimage is
in its witness, and the payment was made. Only when no output is left that could be taken so, it was not.

Source: protocol sheet 05 §4.9; sheet 01 (clauses of HTLC-send VTXOs).
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from barkd_py.ark.claim import extract_preimage
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import OutPoint, Txid
from barkd_py.chain.source import ChainSource
from barkd_py.errors import ChainUnavailable
from barkd_py.wallet.exits.payloads import decode_state
from barkd_py.wallet.exits.states import (
    AwaitingDelta,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitState,
    Processing,
    Start,
    VtxoAlreadySpent,
    VtxoSwept,
)
from barkd_py.wallet.lightning.send.states import Payment
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import UNSPENT, StateKind


class Fate(enum.Enum):
    """What became of one HTLC."""

    OPEN = enum.auto()
    """Its exit goes on, or its output waits for whoever takes it."""
    CALLED_OFF = enum.auto()
    """It is no longer exiting, and still a VTXO."""
    TAKEN_BACK = enum.auto()
    """Its output was spent, and not with the preimage."""
    LOST = enum.auto()
    """It never came to the chain. Whether the payee was paid shows nowhere."""


@dataclass(frozen=True, slots=True)
class Sight:
    """fates: of HTLCs, in the order in which they were asked for. preimage: if the server has shown it."""

    fates: tuple[Fate, ...]
    preimage: bytes | None = None


class HtlcWatch:
    def __init__(self, store: Store, chain: ChainSource) -> None:
        self._store = store
        self._chain = chain

    async def look(self, payment: Payment, htlc_ids: Sequence[VtxoId]) -> Sight:
        """Raises ChainError if it cannot be seen now; nothing follows from that."""
        async with self._store.read() as tx:
            vtxos = await tx.vtxos.get_many(htlc_ids)
            rows = await tx.exits.find_many(htlc_ids)
        states = [decode_state(rows[vtxo.id].state) if vtxo.id in rows else None for vtxo in vtxos]
        for vtxo, state in zip(vtxos, states, strict=True):
            preimage = await self._preimage(payment, vtxo.id.outpoint, state)
            if preimage is not None:
                return Sight((), preimage)
        kinds = [vtxo.state.kind for vtxo in vtxos]
        return Sight(tuple(map(_fate, kinds, states)))

    async def _preimage(self, payment: Payment, point: OutPoint, state: ExitState | None) -> bytes | None:
        """The one with which the output was taken, if it was."""
        txid = await self._spender(point, state)
        if txid is None:
            return None
        async with self._store.read() as tx:
            if await tx.exits.find_claim(txid) is not None:
                return None  # our own
        spending = await self._chain.get_tx(txid)
        if spending is None or spending.txid != txid:
            raise ChainUnavailable(f"the transaction {txid}, which spends {point}, is not had")
        witness = [item for tx_in in spending.inputs if tx_in.prevout == point for item in tx_in.witness]
        return extract_preimage(witness, payment.payment_hash)

    async def _spender(self, point: OutPoint, state: ExitState | None) -> Txid | None:
        """What spends the output, as far as it is worth a call: exits look for it themselves only when we
        could claim it, and the server may be there long before.
        """
        match state:
            case AwaitingDelta(confirmed_block=block):
                spend = await self._chain.spender(point, since_height=block.height)
                return None if spend is None else spend.txid
            case ClaimInProgress(claim_txid=txid) | Claimed(txid=txid):
                return txid
            case _:
                return None


def _fate(kind: StateKind, state: ExitState | None) -> Fate:
    match state:
        case Claimed():
            return Fate.TAKEN_BACK
        case VtxoSwept() | VtxoAlreadySpent():
            return Fate.LOST
        case None | Canceled():
            if kind in UNSPENT:
                return Fate.CALLED_OFF
            return Fate.OPEN if kind is StateKind.EXITED else Fate.LOST
        case Start() | Processing() | AwaitingDelta() | Claimable() | ClaimInProgress():
            return Fate.OPEN
        case _:
            assert_never(state)
