"""Errors of the on-chain wallet. Texts: sheet 06 §7.4, sheet 07 §2.3."""

from barkd_py.bitcoin.units import format_btc
from barkd_py.errors import BarkdError, InsufficientFunds, StoreError


class TxBuildFailed(BarkdError):
    """No transaction was built; the cause says why. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("error building tx")


class OnchainInsufficientFunds(InsufficientFunds):
    """The coins do not cover the amount and the fee."""

    def __init__(self, text: str) -> None:
        super().__init__(text)

    @classmethod
    def of(cls, available_sat: int, needed_sat: int) -> "OnchainInsufficientFunds":
        return cls(
            f"Insufficient funds: {format_btc(available_sat)} available of {format_btc(needed_sat)} needed"
        )


class OutputBelowDust(BarkdError):
    """An output would hold less than its script type may.

    index: its place among the recipients.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"Output below the dust limit: {index}")
        self.index = index


class NoRecipients(BarkdError):
    """Nobody to pay."""

    def __init__(self) -> None:
        super().__init__("Cannot build tx without recipients")


class UnexpectedBuildError(BarkdError):
    """BDK refused for a reason that our own calls should not give it."""


class OnchainStoreMismatch(StoreError):
    """The stored wallet is not the one that the mnemonic and the network describe."""
