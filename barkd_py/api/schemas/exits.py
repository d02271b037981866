"""Tag `exits`: emergency exits.

Three unions changed between the two versions of the contract (`api.contract`): the status of an exit
transaction, and with new members the state and the error of an exit. Here are the words of both; which ones
a client reads is decided in `api.render`.

Source: protocol sheet 07 §7.8; sheet 06 §3.
"""

import enum
from typing import Annotated, Literal

from pydantic import Field

from barkd_py.api.schemas.common import U32, U64, BlockRef, Schema, TransactionInfo

F64 = Annotated[float, Field(json_schema_extra={"format": "double"})]

# --- requests


class ExitStartRequest(Schema):
    vtxos: list[str]


class ExitProgressRequest(Schema):
    wait: bool | None = None
    """Accepted and ignored, as barkd does: a call makes one step."""
    fee_rate: U64 | None = None
    """In sat/kvB; the fast rate unless given."""


class ExitClaimAllRequest(Schema):
    destination: str
    fee_rate: U64 | None = None
    """In sat/kvB; the regular rate unless given."""


class ExitClaimVtxosRequest(Schema):
    destination: str
    vtxos: list[str]
    fee_rate: U64 | None = None
    """In sat/kvB; the regular rate unless given."""


class ExitStatusQuery(Schema):
    history: bool | None = None
    transactions: bool | None = None


class EmergencyExitFeeQuery(Schema):
    vtxo_ids: str | None = None
    """Ids separated by commas; every spendable VTXO unless given."""
    fee_rate_sat_per_vb: F64 | None = None
    destination: str | None = None
    fee_margin: F64 | None = None


# --- the transactions of an exit


class WalletOrigin(Schema):
    """The child was made by this wallet."""

    type: Literal["wallet"]
    confirmed_in: BlockRef | None


class MempoolOrigin(Schema):
    """Another party made the child. The fee, which includes ancestors, is 0 where it is not known."""

    type: Literal["mempool"]
    fee_rate_sat_per_kvb: U64
    fee_rate: Annotated[U64, Field(deprecated=True)]
    total_fee: U64


class BlockOrigin(Schema):
    """Another party made the child, and it is confirmed."""

    type: Literal["block"]
    confirmed_in: BlockRef


ExitTxOrigin = Annotated[WalletOrigin | MempoolOrigin | BlockOrigin, Field(discriminator="type")]


class VerifyInputs(Schema):
    type: Literal["verify-inputs"]


class AwaitingInputConfirmation(Schema):
    type: Literal["awaiting-input-confirmation"]
    txids: list[str]


class AwaitingCpfpBroadcast(Schema):
    """From 0.6 on."""

    type: Literal["awaiting-cpfp-broadcast"]


class AwaitingConfirmation(Schema):
    """From 0.6 on."""

    type: Literal["awaiting-confirmation"]
    child_txid: str
    origin: ExitTxOrigin


class NeedsSignedPackage(Schema):
    """Before 0.6: `awaiting-cpfp-broadcast`."""

    type: Literal["needs-signed-package"]


class NeedsReplacementPackage(Schema):
    """Before 0.6: `awaiting-confirmation` with another party's child that pays too little."""

    type: Literal["needs-replacement-package"]
    min_fee_rate_sat_per_kvb: U64
    min_fee_rate_kwu: Annotated[U64, Field(deprecated=True)]
    min_fee: U64


class NeedsBroadcasting(Schema):
    """Before 0.6: `awaiting-confirmation` that the mempool does not hold."""

    type: Literal["needs-broadcasting"]
    child_txid: str
    origin: ExitTxOrigin


class BroadcastWithCpfp(Schema):
    """Before 0.6: `awaiting-confirmation` otherwise."""

    type: Literal["broadcast-with-cpfp"]
    child_txid: str
    origin: ExitTxOrigin


class Confirmed(Schema):
    type: Literal["confirmed"]
    child_txid: str
    block: BlockRef
    origin: ExitTxOrigin


ExitTxStatus = Annotated[
    VerifyInputs
    | AwaitingInputConfirmation
    | AwaitingCpfpBroadcast
    | AwaitingConfirmation
    | NeedsSignedPackage
    | NeedsReplacementPackage
    | NeedsBroadcasting
    | BroadcastWithCpfp
    | Confirmed,
    Field(discriminator="type"),
]


class ExitTx(Schema):
    txid: str
    status: ExitTxStatus


class FeeInfo(Schema):
    """What an unconfirmed child pays, for itself and its unconfirmed ancestors."""

    fee_rate_sat_per_kvb: U64
    total_fee_sat: U64


class ChildTransactionInfo(Schema):
    info: TransactionInfo
    fee_info: FeeInfo | None = None
    origin: ExitTxOrigin


class ExitTransactionPackage(Schema):
    exit: TransactionInfo
    child: ChildTransactionInfo | None


# --- states


class ExitStateKind(enum.Enum):
    START = "start"
    PROCESSING = "processing"
    AWAITING_DELTA = "awaiting-delta"
    CLAIMABLE = "claimable"
    CLAIM_IN_PROGRESS = "claim-in-progress"
    CLAIMED = "claimed"
    VTXO_ALREADY_SPENT = "vtxo-already-spent"
    VTXO_SWEPT = "vtxo-swept"
    CANCELED = "canceled"


class _State(Schema):
    tip_height: U32
    """The chain's height when the state was entered."""


class ExitStartState(_State):
    type: Literal["start"]


class ExitProcessingState(_State):
    type: Literal["processing"]
    transactions: list[ExitTx]


class ExitAwaitingDeltaState(_State):
    type: Literal["awaiting-delta"]
    confirmed_block: BlockRef
    claimable_height: U32


class ExitClaimableState(_State):
    type: Literal["claimable"]
    claimable_since: BlockRef
    last_scanned_block: BlockRef | None


class ExitClaimInProgressState(_State):
    type: Literal["claim-in-progress"]
    claimable_since: BlockRef
    claim_txid: str


class ExitClaimedState(_State):
    type: Literal["claimed"]
    txid: str
    block: BlockRef


class ExitVtxoAlreadySpentState(_State):
    """From 0.6 on."""

    type: Literal["vtxo-already-spent"]


class ExitVtxoSweptState(_State):
    """From 0.8 on."""

    type: Literal["vtxo-swept"]
    spent_inputs: list[str]


class ExitCanceledState(_State):
    """From 0.6 on."""

    type: Literal["canceled"]


ExitState = Annotated[
    ExitStartState
    | ExitProcessingState
    | ExitAwaitingDeltaState
    | ExitClaimableState
    | ExitClaimInProgressState
    | ExitClaimedState
    | ExitVtxoAlreadySpentState
    | ExitVtxoSweptState
    | ExitCanceledState,
    Field(discriminator="type"),
]


# --- errors: one shape per set of fields


class PlainExitError(Schema):
    type: Literal["claim-missing-inputs"]


class ExitErrorWithText(Schema):
    type: Literal[
        "claim-signing-error",
        "database-child-retrieval-failure",
        "database-child-store-failure",
        "exit-package-finalize-failure",
        "internal-error",
        "invalid-wallet-state",
        "movement-registration-failure",
        "tip-retrieval-failure",
        "vtxo-script-pub-key-invalid",
    ]
    error: str


class TransactionExitError(Schema):
    type: Literal[
        "ancestor-retrieval-failure",
        "exit-package-broadcast-failure",
        "exit-package-store-failure",
        "transaction-retrieval-failure",
    ]
    txid: str
    error: str


class TxidExitError(Schema):
    type: Literal["missing-anchor-output", "missing-exit-transaction"]
    txid: str


class VtxoExitError(Schema):
    type: Literal[
        "claim-missing-signable-clause",
        "cyclic-exit-transactions",
        "not-exiting",
        "unknown-vtxo",
        "vtxo-already-exited",
        "vtxo-already-spent",
        "vtxo-not-claimable",
        "vtxo-swept",
    ]
    vtxo: str


class NonStandardVtxoError(Schema):
    type: Literal["non-standard-vtxo"]
    vtxo: str
    error: str


class BlockRetrievalError(Schema):
    type: Literal["block-retrieval-failure"]
    height: U32
    error: str


class CannotCancelExitError(Schema):
    type: Literal["cannot-cancel-exit"]
    vtxo: str
    state: ExitStateKind


class ClaimFeeExceedsOutputError(Schema):
    type: Literal["claim-fee-exceeds-output"]
    needed: U64
    output: U64


class VtxoStoreError(Schema):
    type: Literal["database-vtxo-store-failure"]
    vtxo_id: str
    error: str


class DustLimitError(Schema):
    """vtxo: the id; before 0.6 the amount."""

    type: Literal["dust-limit"]
    vtxo: str | U64
    amount: U64 | None = None
    dust: U64


class ExitTxAlreadyBroadcastError(Schema):
    type: Literal["exit-tx-already-broadcast"]
    vtxo: str
    txid: str


class InsufficientConfirmedFundsError(Schema):
    type: Literal["insufficient-confirmed-funds"]
    needed: U64
    available: U64


class InsufficientFeeToStartError(Schema):
    """Before 0.6; described for the clients that know it, `insufficient-confirmed-funds` is what they get."""

    type: Literal["insufficient-fee-to-start"]
    balance: U64
    total_fee: U64
    fee_rate_sat_per_kvb: U64
    fee_rate_kwu: Annotated[U64, Field(deprecated=True)]


class InvalidStatusError(Schema):
    type: Literal["invalid-exit-transaction-status"]
    txid: str
    status: ExitTxStatus
    error: str


class InvalidFeeMarginError(Schema):
    type: Literal["invalid-fee-margin"]
    margin: str


class InvalidLocktimeError(Schema):
    type: Literal["invalid-locktime"]
    tip: U32
    error: str


ExitError = Annotated[
    PlainExitError
    | ExitErrorWithText
    | TransactionExitError
    | TxidExitError
    | VtxoExitError
    | NonStandardVtxoError
    | BlockRetrievalError
    | CannotCancelExitError
    | ClaimFeeExceedsOutputError
    | VtxoStoreError
    | DustLimitError
    | ExitTxAlreadyBroadcastError
    | InsufficientConfirmedFundsError
    | InsufficientFeeToStartError
    | InvalidStatusError
    | InvalidFeeMarginError
    | InvalidLocktimeError,
    Field(discriminator="type"),
]


# --- answers


class ExitStartResponse(Schema):
    message: str


class ExitClaimResponse(Schema):
    message: str


class ExitCancelResponse(Schema):
    message: str


class ExitProgressStatus(Schema):
    vtxo_id: str
    state: ExitState
    error: ExitError | None = None


class ExitProgressResponse(Schema):
    exits: list[ExitProgressStatus]
    done: bool
    """Whether no exit waits for its transactions or for the exit delta: claim what is claimable."""
    claimable_height: U32 | None
    error: ExitError | None = None


class ExitTransactionStatus(Schema):
    vtxo_id: str
    state: ExitState
    history: list[ExitState] | None = None
    """Earlier states, oldest first."""
    transactions: list[ExitTransactionPackage] = Field(default_factory=list)


class EmergencyExitFeeEstimateResponse(Schema):
    exit_broadcast_fee_sat: U64
    claim_fee_sat: U64
    total_fee_sat: U64
    fee_rate_sat_per_vb: F64
    txs_to_broadcast: U64
    fundable: Annotated[bool, Field(deprecated=True)]
