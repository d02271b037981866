"""The granted VTXOs of one payment, as they are now: off-chain, exiting, taken by us or by somebody else."""

from collections.abc import Sequence
from dataclasses import dataclass

from barkd_py.ark.lightning_receive import Preimage
from barkd_py.ark.validation import is_standard
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import Txid
from barkd_py.chain.source import ChainSource
from barkd_py.wallet.exits.payloads import decode_state
from barkd_py.wallet.exits.states import Claimed, ClaimInProgress
from barkd_py.wallet.store import Store
from barkd_py.wallet.store.exits import ExitRow
from barkd_py.wallet.vtxo_states import StateKind, WalletVtxo

# The stored kinds of exits. Source: `exits.states`.
CLAIMABLE = "claimable"
_SWEPT = "vtxo-swept"
_CLAIM_IN_PROGRESS = "claim-in-progress"
_CLAIMED = "claimed"
_OVER = frozenset({_CLAIMED, _SWEPT})
_NOT_EXITING = frozenset({"canceled", "vtxo-already-spent", _SWEPT})


@dataclass(frozen=True, slots=True)
class Htlc:
    """A granted VTXO as it is now.

    exit: the kind of its exit's state, if there was ever one. claim_txid: what takes it, or has taken it, on
    the chain, whoever made that.
    """

    stored: WalletVtxo
    body: Vtxo
    exit: str | None
    claim_txid: Txid | None

    @property
    def is_on_chain(self) -> bool:
        return self.stored.state.kind is StateKind.EXITED

    @property
    def can_exit(self) -> bool:
        """Grants may contain dust, which only the server can turn into money."""
        return is_standard(self.body)

    def is_over(self, tip_height: int) -> bool:
        """Whether nothing will come of it any more, or everything has."""
        return self._has_ended or self.has_expired(tip_height)

    @property
    def _has_ended(self) -> bool:
        return self.exit in _OVER or self.stored.state.kind is StateKind.SPENT

    def has_expired(self, tip_height: int) -> bool:
        """Whether the server may have taken it off the chain by now, and nothing else has ended it."""
        is_exiting = self.exit is not None and self.exit not in _NOT_EXITING
        is_off_chain = not self._has_ended and not is_exiting and not self.is_on_chain
        return is_off_chain and tip_height >= self.body.expiry_height


class Htlcs:
    def __init__(self, store: Store, chain: ChainSource) -> None:
        self._store = store
        self._chain = chain

    async def read(self, vtxo_ids: Sequence[VtxoId]) -> Sequence[Htlc]:
        async with self._store.read() as tx:
            stored = await tx.vtxos.get_many(vtxo_ids)
            bodies = await tx.vtxos.bodies(vtxo_ids)
            exits = await tx.exits.find_many(vtxo_ids)
        rows = [exits.get(vtxo_id) for vtxo_id in vtxo_ids]
        return [
            Htlc(vtxo, body, None if row is None else row.kind, _claim_txid(row))
            for vtxo, body, row in zip(stored, bodies, rows, strict=True)
        ]

    async def are_claimed(self, htlcs: Sequence[Htlc]) -> bool:
        """Whether this wallet has claimed any, which has shown the preimage."""
        txids = [htlc.claim_txid for htlc in htlcs if htlc.claim_txid is not None]
        async with self._store.read() as tx:
            return any([await tx.exits.find_claim(txid) is not None for txid in txids])

    async def is_taken_by_us(self, htlc: Htlc, preimage: Preimage) -> bool:
        """Whether what has spent it is a claim of this wallet: by its own books, or else by the preimage in
        it, for the server takes an HTLC without. Raises ChainError.
        """
        if htlc.claim_txid is None or htlc.exit != _CLAIMED:
            return False
        if await self.are_claimed([htlc]):
            return True
        claim = await self._chain.get_tx(htlc.claim_txid)
        inputs = () if claim is None else claim.inputs
        return any(preimage.data in each.witness for each in inputs if each.prevout == htlc.body.point)


def _claim_txid(row: ExitRow | None) -> Txid | None:
    if row is None or row.kind not in (_CLAIM_IN_PROGRESS, _CLAIMED):
        return None
    match decode_state(row.state):
        case Claimed(txid=txid) | ClaimInProgress(claim_txid=txid):
            return txid
        case _:
            return None


def taken_by_others(htlcs: Sequence[Htlc], ours: Sequence[VtxoId]) -> Sequence[VtxoId]:
    """Those whose exits are over and brought nothing."""
    return [htlc.stored.id for htlc in htlcs if htlc.exit in _OVER and htlc.stored.id not in ours]
