"""Exits in every state, with made-up transactions and blocks."""

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Txid, TxOut
from barkd_py.bitcoin.units import BlockRef
from barkd_py.chain.source import PackageFee
from barkd_py.wallet.exits import states
from barkd_py.wallet.exits.errors import (
    AncestorRetrievalFailure,
    BlockRetrievalFailure,
    CannotCancelExit,
    ClaimFeeExceedsOutput,
    ClaimMissingInputs,
    ClaimMissingSignableClause,
    ClaimSigningError,
    DustLimit,
    ExitError,
    ExitPackageBroadcastFailure,
    ExitTxAlreadyBroadcast,
    InsufficientConfirmedFundsForExit,
    InternalExitError,
    InvalidFeeMargin,
    InvalidLocktime,
    InvalidWalletState,
    MissingAnchorOutput,
    NonStandardExit,
    NotExiting,
    SpentVtxo,
    SweptVtxo,
    TipRetrievalFailure,
    TransactionRetrievalFailure,
    UnknownExitVtxo,
    VtxoAlreadyExited,
    VtxoNotClaimable,
)
from tests.fakes.wallet import some_tx

PARENT = some_tx(91, TxOut(50_000, b"\x51\x20" + b"\x05" * 32))
CHILD = some_tx(92, TxOut(20_000, b"\x51\x20" + b"\x06" * 32))
BLOCK = BlockRef(120, BlockHash(b"\x0b" * 32))
LATER_BLOCK = BlockRef(132, BlockHash(b"\x0c" * 32))
FEE = PackageFee(2763, 1105)
"""2501 sat/kwu."""

OWN = states.WalletOrigin()
OWN_CONFIRMED = states.WalletOrigin(BLOCK)
FOREIGN = states.MempoolOrigin()
FOREIGN_CONFIRMED = states.BlockOrigin(BLOCK)


def vtxo_id(number: int) -> VtxoId:
    return VtxoId.parse(f"{bytes([number]).hex() * 32}:0")


def processing(*statuses: states.ExitTxStatus, tip_height: int = 119) -> states.Processing:
    """An exit with a transaction in each of the statuses."""
    txids = [PARENT.txid, *(Txid(bytes([number]) * 32) for number in range(1, len(statuses)))]
    txs = tuple(states.ExitTx(txid, status) for txid, status in zip(txids, statuses, strict=True))
    return states.Processing(tip_height, txs)


VERIFY = states.VerifyInputs()
WAITING = states.AwaitingInputConfirmation(frozenset({Txid(b"\x08" * 32), Txid(b"\x07" * 32)}))
UNPAID = states.AwaitingCpfpBroadcast()
BROADCAST = states.AwaitingConfirmation(CHILD.txid, OWN, fee=FEE)
BROADCAST_BY_OTHERS = states.AwaitingConfirmation(CHILD.txid, FOREIGN, fee=FEE)
BROADCAST_AT_UNKNOWN_FEE = states.AwaitingConfirmation(CHILD.txid, FOREIGN)
EVICTED = states.AwaitingConfirmation(CHILD.txid, OWN, in_mempool=False)
CONFIRMED = states.TxConfirmed(CHILD.txid, BLOCK, OWN_CONFIRMED)
CONFIRMED_BY_OTHERS = states.TxConfirmed(CHILD.txid, BLOCK, FOREIGN_CONFIRMED)
CONFIRMED_WITHOUT_CHILD = states.TxConfirmed(None, BLOCK, FOREIGN_CONFIRMED)

TX_STATUSES: tuple[states.ExitTxStatus, ...] = (
    VERIFY,
    WAITING,
    UNPAID,
    BROADCAST,
    BROADCAST_BY_OTHERS,
    BROADCAST_AT_UNKNOWN_FEE,
    EVICTED,
    CONFIRMED,
    CONFIRMED_BY_OTHERS,
    CONFIRMED_WITHOUT_CHILD,
)

STATES: tuple[states.ExitState, ...] = (
    states.Start(118),
    processing(*TX_STATUSES),
    states.AwaitingDelta(120, BLOCK, 132),
    states.Claimable(132, LATER_BLOCK),
    states.Claimable(132, LATER_BLOCK, LATER_BLOCK),
    states.ClaimInProgress(133, LATER_BLOCK, CHILD.txid),
    states.Claimed(134, CHILD.txid, LATER_BLOCK),
    states.VtxoAlreadySpent(119),
    states.VtxoSwept(150, (OutPoint(PARENT.txid, 0), OutPoint(PARENT.txid, 1))),
    states.Canceled(119),
)
"""Each kind of state, and a processing one with each kind of transaction status."""

PACKAGES = (
    states.ExitPackage(PARENT, states.ExitChild(CHILD, OWN, FEE)),
    states.ExitPackage(PARENT, states.ExitChild(CHILD, FOREIGN, FEE)),
    states.ExitPackage(PARENT, states.ExitChild(CHILD, FOREIGN_CONFIRMED)),
    states.ExitPackage(PARENT, None),
)

_VTXO = vtxo_id(0x61)
ERRORS: tuple[ExitError, ...] = (
    AncestorRetrievalFailure(PARENT.txid, "no answer"),
    BlockRetrievalFailure(132, "no answer"),
    CannotCancelExit(_VTXO, "claimable"),
    ClaimMissingInputs(),
    ClaimFeeExceedsOutput(1_000, 900),
    ClaimMissingSignableClause(_VTXO),
    ClaimSigningError("vtxo is not claimable yet"),
    DustLimit(_VTXO, 329),
    ExitPackageBroadcastFailure(PARENT.txid, "refused"),
    ExitTxAlreadyBroadcast(_VTXO, PARENT.txid),
    InsufficientConfirmedFundsForExit(3_093, 1_000),
    InternalExitError("odd"),
    InvalidFeeMargin("NaN"),
    InvalidLocktime(500_000_000, "too high"),
    InvalidWalletState("odd"),
    MissingAnchorOutput(PARENT.txid),
    NonStandardExit(_VTXO, "dust"),
    NotExiting(_VTXO),
    TipRetrievalFailure("no answer"),
    TransactionRetrievalFailure(PARENT.txid, "no answer"),
    VtxoNotClaimable(_VTXO),
    UnknownExitVtxo(_VTXO),
    VtxoAlreadyExited(_VTXO),
    SpentVtxo(_VTXO),
    SweptVtxo(_VTXO),
)
"""Each kind of error."""
