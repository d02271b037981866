"""Why an exit does not go on. Each error has the tag and the text that clients of barkd know.

Source: sheet 06 §3.5.
"""

from typing import ClassVar

from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import Txid
from barkd_py.bitcoin.units import DUST_SAT, format_btc
from barkd_py.errors import BarkdError, InsufficientFunds, InvalidInput, NotFound, StateConflict


class ExitError(BarkdError):
    """tag: the error's type in JSON; its fields there are the attributes of the class."""

    tag: ClassVar[str]


class OnchainSyncFailure(BarkdError):
    """The on-chain wallet, which pays for exits, could not be brought up to date; its cause says why."""

    def __init__(self) -> None:
        super().__init__("error syncing on-chain wallet")


class AncestorRetrievalFailure(ExitError):
    tag = "ancestor-retrieval-failure"

    def __init__(self, txid: Txid, error: str) -> None:
        super().__init__(
            f"Transaction Retrieval Failure: Unable to retrieve ancestral data for TX {txid}: {error}"
        )
        self.txid = txid
        self.error = error


class BlockRetrievalFailure(ExitError):
    tag = "block-retrieval-failure"

    def __init__(self, height: int, error: str) -> None:
        super().__init__(f"Block Retrieval Failure: Unable to retrieve a block at height {height}: {error}")
        self.height = height
        self.error = error


class CannotCancelExit(ExitError, StateConflict):
    """state: the type of the exit's state."""

    tag = "cannot-cancel-exit"

    def __init__(self, vtxo: VtxoId, state: str) -> None:
        super().__init__(
            f"Cannot Cancel Exit: The exit for VTXO {vtxo} can no longer be canceled (state: {state})"
        )
        self.vtxo = vtxo
        self.state = state


class ClaimMissingInputs(ExitError):
    tag = "claim-missing-inputs"

    def __init__(self) -> None:
        super().__init__("Claim Missing Inputs: No inputs given to claim")


class ClaimFeeExceedsOutput(ExitError, InsufficientFunds):
    """needed_sat: the fee and an output that is not dust. output_sat: what there is to claim."""

    tag = "claim-fee-exceeds-output"

    def __init__(self, needed_sat: int, output_sat: int) -> None:
        super().__init__(
            f"Claim Fee Exceeds Output: Cost to claim exits was {format_btc(needed_sat)}, "
            f"but the total output was {format_btc(output_sat)}"
        )
        self.needed_sat = needed_sat
        self.output_sat = output_sat


class ClaimMissingSignableClause(ExitError):
    tag = "claim-missing-signable-clause"

    def __init__(self, vtxo: VtxoId) -> None:
        super().__init__(f"Claim Missing Signable Clause: Couldn't find a signable clause for VTXO {vtxo}")
        self.vtxo = vtxo


class ClaimSigningError(ExitError):
    tag = "claim-signing-error"

    def __init__(self, error: str) -> None:
        super().__init__(f"Claim Signing Error: Unable to sign claim: {error}")
        self.error = error


class DustLimit(ExitError):
    tag = "dust-limit"

    def __init__(self, vtxo: VtxoId, amount_sat: int, dust_sat: int = DUST_SAT) -> None:
        super().__init__(
            f"Dust Limit Error: The dust limit for a VTXO is {format_btc(dust_sat)} "
            f"but vtxo {vtxo} is only {format_btc(amount_sat)}"
        )
        self.vtxo = vtxo
        self.amount_sat = amount_sat
        self.dust_sat = dust_sat


class ExitPackageBroadcastFailure(ExitError):
    """txid: of the exit transaction."""

    tag = "exit-package-broadcast-failure"

    def __init__(self, txid: Txid, error: str) -> None:
        super().__init__(
            f"Exit Package Broadcast Failure: Unable to broadcast exit transaction package {txid}: {error}"
        )
        self.txid = txid
        self.error = error


class ExitTxAlreadyBroadcast(ExitError, StateConflict):
    """txid: of the last exit transaction."""

    tag = "exit-tx-already-broadcast"

    def __init__(self, vtxo: VtxoId, txid: Txid) -> None:
        super().__init__(
            f"Exit Tx Already Broadcast: Cannot cancel the exit for VTXO {vtxo}, "
            f"its final exit tx {txid} has already been broadcast"
        )
        self.vtxo = vtxo
        self.txid = txid


class InsufficientConfirmedFundsForExit(ExitError, InsufficientFunds):
    """The on-chain wallet cannot pay for the next exit transaction; the exit goes on when it can.

    needed_sat: the fee, and change that is not dust. available_sat: confirmed and mature coins, and the
    anchor.
    """

    tag = "insufficient-confirmed-funds"

    def __init__(self, needed_sat: int, available_sat: int) -> None:
        super().__init__(
            f"Insufficient Confirmed Funds: {format_btc(needed_sat)} is needed "
            f"but only {format_btc(available_sat)} is available"
        )
        self.needed_sat = needed_sat
        self.available_sat = available_sat


class InternalExitError(ExitError):
    tag = "internal-error"

    def __init__(self, error: str) -> None:
        super().__init__(f"Internal Error: An unexpected problem occurred, {error}")
        self.error = error


class InvalidFeeMargin(ExitError, InvalidInput):
    tag = "invalid-fee-margin"

    def __init__(self, margin: str) -> None:
        super().__init__(f"Invalid fee margin {margin}")
        self.margin = margin


class InvalidLocktime(ExitError):
    tag = "invalid-locktime"

    def __init__(self, tip_height: int, error: str) -> None:
        super().__init__(f"Invalid Locktime ({tip_height}): {error}")
        self.tip_height = tip_height
        self.error = error


class InvalidWalletState(ExitError):
    tag = "invalid-wallet-state"

    def __init__(self, error: str) -> None:
        super().__init__(f"Invalid Wallet State: {error}")
        self.error = error


class MissingAnchorOutput(ExitError):
    tag = "missing-anchor-output"

    def __init__(self, txid: Txid) -> None:
        super().__init__(f"Missing Anchor Output: Malformed exit tx {txid}")
        self.txid = txid


class NonStandardExit(ExitError):
    """error: which output no node would relay."""

    tag = "non-standard-vtxo"

    def __init__(self, vtxo: VtxoId, error: str) -> None:
        super().__init__(f"Non-Standard VTXO {vtxo}: exit chain is not relayable: {error}")
        self.vtxo = vtxo
        self.error = error


class NotExiting(ExitError, NotFound):
    """There is no exit of this VTXO, and never was one."""

    tag = "not-exiting"

    def __init__(self, vtxo: VtxoId) -> None:
        NotFound.__init__(self, f"Not Exiting: VTXO {vtxo} has no unilateral exit", (str(vtxo),))
        self.vtxo = vtxo


class TipRetrievalFailure(ExitError):
    tag = "tip-retrieval-failure"

    def __init__(self, error: str) -> None:
        super().__init__(f"Tip Retrieval Failure: Unable to retrieve the blockchain tip height: {error}")
        self.error = error


class TransactionRetrievalFailure(ExitError):
    tag = "transaction-retrieval-failure"

    def __init__(self, txid: Txid, error: str) -> None:
        super().__init__(f"Transaction Retrieval Failure: Unable to check the status of TX {txid}: {error}")
        self.txid = txid
        self.error = error


class VtxoNotClaimable(ExitError, StateConflict):
    tag = "vtxo-not-claimable"

    def __init__(self, vtxo: VtxoId) -> None:
        super().__init__(
            f"VTXO Not Spendable Error: Attempted to claim a VTXO which is not in a spendable state: {vtxo}"
        )
        self.vtxo = vtxo


class UnknownExitVtxo(ExitError, NotFound):
    tag = "unknown-vtxo"

    def __init__(self, vtxo: VtxoId) -> None:
        NotFound.__init__(self, f"Unknown VTXO: {vtxo} is not known to this wallet", (str(vtxo),))
        self.vtxo = vtxo


class VtxoAlreadyExited(ExitError, StateConflict):
    tag = "vtxo-already-exited"

    def __init__(self, vtxo: VtxoId) -> None:
        super().__init__(f"VTXO Already Exited: {vtxo} has already completed its unilateral exit")
        self.vtxo = vtxo


class SpentVtxo(ExitError, StateConflict):
    tag = "vtxo-already-spent"

    def __init__(self, vtxo: VtxoId) -> None:
        super().__init__(f"VTXO Already Spent: {vtxo} has already been spent and can no longer be exited")
        self.vtxo = vtxo


class SweptVtxo(ExitError, StateConflict):
    tag = "vtxo-swept"

    def __init__(self, vtxo: VtxoId) -> None:
        super().__init__(
            f"VTXO Swept: an intermediate output of {vtxo} has been swept and the exit cannot be completed"
        )
        self.vtxo = vtxo
