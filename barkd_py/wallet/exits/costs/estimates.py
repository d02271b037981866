"""Estimating what exits would cost: gathers the facts for `formula`, whose arithmetic is pure.

Source: sheet 06 §3.4.
"""

import logging
from collections.abc import Sequence

from barkd_py.ark.validation import NonStandardVtxo, verify_standard
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.tx import Tx
from barkd_py.bitcoin.units import FeeRate
from barkd_py.chain.source import ChainSource, Confirmed
from barkd_py.errors import ChainError, chain_text
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.wallet.exits import payloads
from barkd_py.wallet.exits.claim_tx import ClaimPaths, claim_fee_sat
from barkd_py.wallet.exits.costs.formula import DEFAULT_FEE_MARGIN, UnpaidTx, check_margin, estimate_broadcast
from barkd_py.wallet.exits.errors import (
    NonStandardExit,
    SpentVtxo,
    SweptVtxo,
    UnknownExitVtxo,
    VtxoAlreadyExited,
)
from barkd_py.wallet.exits.observe import ChainMemory
from barkd_py.wallet.exits.states import (
    AwaitingConfirmation,
    AwaitingDelta,
    Canceled,
    Claimable,
    Claimed,
    ClaimInProgress,
    ExitFeeEstimate,
    ExitState,
    ExitTxStatus,
    Processing,
    TxConfirmed,
    VtxoAlreadySpent,
    VtxoSwept,
)
from barkd_py.wallet.store import Store, Transaction
from barkd_py.wallet.vtxo_states import StateKind

log = logging.getLogger(__name__)

DUMMY_P2TR_SCRIPT = b"\x51\x20" + bytes(32)
"""Where the claim of an estimate goes if nobody has said."""


class Estimates:
    """Makes estimates. memory: what is known to be confirmed."""

    def __init__(
        self,
        store: Store,
        chain: ChainSource,
        onchain: OnchainWallet | None,
        paths: ClaimPaths,
        memory: ChainMemory,
    ) -> None:
        self._store = store
        self._chain = chain
        self._onchain = onchain
        self._paths = paths
        self._memory = memory

    async def estimate(
        self,
        vtxo_ids: Sequence[VtxoId] | None,
        *,
        fee_rate: FeeRate | None = None,
        margin: float = DEFAULT_FEE_MARGIN,
        script_pubkey: bytes | None = None,
    ) -> ExitFeeEstimate:
        """Of these VTXOs, or of all that are spendable. Raises ExitError."""
        check_margin(margin)
        rates = await self._chain.fee_rates()
        broadcast_rate, claim_rate = fee_rate or rates.fast, fee_rate or rates.regular
        candidates, skipped = await self._candidates(vtxo_ids)
        unpaid = [tx for vtxo, state in candidates for tx in await self._unpaid(vtxo, state)]
        estimate = estimate_broadcast(unpaid, broadcast_rate, margin)
        paths = await self._paths.find([vtxo for vtxo, _ in candidates])
        claims = [path for path in paths if path is not None]
        balance_sat = 0 if self._onchain is None else (await self._onchain.balance()).total_sat
        return ExitFeeEstimate(
            broadcast_fee_sat=estimate.fee_sat,
            claim_fee_sat=claim_fee_sat(claims, script_pubkey or DUMMY_P2TR_SCRIPT, claim_rate),
            fee_rate=broadcast_rate,
            txs_to_broadcast=estimate.txs_to_broadcast,
            is_fundable=self._onchain is not None and balance_sat >= estimate.fee_sat,
            skipped=skipped,
        )

    async def _candidates(
        self, vtxo_ids: Sequence[VtxoId] | None
    ) -> tuple[list[tuple[Vtxo, ExitState | None]], tuple[VtxoId, ...]]:
        """The VTXOs with the states of their exits; and those that were skipped, if none were named."""
        found: list[tuple[Vtxo, ExitState | None]] = []
        skipped: list[VtxoId] = []
        async with self._store.read() as tx:
            if vtxo_ids is None:
                wanted = [vtxo.id for vtxo in await tx.vtxos.list({StateKind.SPENDABLE})]
            else:
                wanted = list(dict.fromkeys(vtxo_ids))
            for vtxo_id in wanted:
                try:
                    found.append(await _estimable(tx, vtxo_id))
                except NonStandardExit:
                    if vtxo_ids is not None:
                        raise
                    skipped.append(vtxo_id)
        return found, tuple(skipped)

    async def _unpaid(self, vtxo: Vtxo, state: ExitState | None) -> list[UnpaidTx]:
        """The exit transactions that are not confirmed."""
        txs = vtxo.exit_transactions()
        match state:
            case Processing():
                statuses = {entry.txid: entry.status for entry in state.transactions}
                return [
                    _unpaid_tx(tx, statuses[tx.txid])
                    for tx in txs
                    if not isinstance(statuses[tx.txid], TxConfirmed)
                ]
            case AwaitingDelta() | Claimable() | ClaimInProgress():
                return []
            case _:
                confirmed = await self._count_confirmed(txs)
                return [UnpaidTx(tx.txid, tx.weight_wu) for tx in txs[confirmed:]]

    async def _count_confirmed(self, txs: Sequence[Tx]) -> int:
        """How many of the transactions, from the first on, are in blocks; 0 if nobody answers."""
        remembered = self._memory.confirmed
        for count, tx in enumerate(txs):
            try:
                is_confirmed = tx.txid in remembered or isinstance(
                    await self._chain.tx_status(tx.txid), Confirmed
                )
            except ChainError as error:
                log.warning("fee estimate: %s", chain_text(error))
                return count
            if not is_confirmed:
                return count
        return len(txs)


async def _estimable(tx: Transaction, vtxo_id: VtxoId) -> tuple[Vtxo, ExitState | None]:
    """A VTXO whose exit can be estimated, and its exit's state, if there was ever one.

    Raises UnknownExitVtxo, NonStandardExit, VtxoAlreadyExited, SpentVtxo, SweptVtxo.
    """
    vtxo = await tx.vtxos.find(vtxo_id)
    if vtxo is None:
        raise UnknownExitVtxo(vtxo_id)
    body = await tx.vtxos.body(vtxo_id)
    try:
        verify_standard(body)
    except NonStandardVtxo as error:
        # Not its cause: the message says it already.
        raise NonStandardExit(vtxo_id, str(error)) from None
    row = await tx.exits.find(vtxo_id)
    state = None if row is None else payloads.decode_state(row.state)
    match state:
        case Claimed():
            raise VtxoAlreadyExited(vtxo_id)
        case VtxoAlreadySpent():
            raise SpentVtxo(vtxo_id)
        case VtxoSwept():
            raise SweptVtxo(vtxo_id)
        case None | Canceled() if vtxo.state.kind is StateKind.SPENT:
            raise SpentVtxo(vtxo_id)
        case None | Canceled() if vtxo.state.kind is StateKind.EXITED:
            raise VtxoAlreadyExited(vtxo_id)
        case _:
            return body, state


def _unpaid_tx(tx: Tx, status: ExitTxStatus) -> UnpaidTx:
    if isinstance(status, AwaitingConfirmation):
        return UnpaidTx(tx.txid, tx.weight_wu, has_child=True, child_fee=status.fee)
    return UnpaidTx(tx.txid, tx.weight_wu)
