"""What boards refuse."""

from barkd_py.bitcoin.units import format_btc
from barkd_py.errors import BarkdError
from barkd_py.server_rpc.api import MAX_BOARD_FUNDING_INPUTS


class NoOnchainWallet(BarkdError):
    def __init__(self) -> None:
        super().__init__("no onchain wallet configured; cannot board")


class TooManyBoardInputs(BarkdError):
    def __init__(self, count: int) -> None:
        super().__init__(
            f"We need {count} inputs to board, exceeding the limit of {MAX_BOARD_FUNDING_INPUTS}"
        )


class WrongFundingOutput(BarkdError):
    """The funding transaction does not pay the board exactly once. Nothing was asked of the server."""


class BoardTooSmall(BarkdError):
    def __init__(self, amount_sat: int, minimum_sat: int) -> None:
        super().__init__(
            f"board amount of {format_btc(amount_sat)} is less than minimum board amount required by server"
            f" ({format_btc(minimum_sat)})"
        )


class BoardBelowMinimum(BarkdError):
    """As BoardTooSmall, in the words of the estimate."""

    def __init__(self, amount_sat: int, minimum_sat: int) -> None:
        super().__init__(
            f"board amount of {format_btc(amount_sat)} does not meet minimum value of"
            f" {format_btc(minimum_sat)}"
        )


class BoardTooLarge(BarkdError):
    def __init__(self, amount_sat: int, maximum_sat: int) -> None:
        super().__init__(
            f"board amount of {format_btc(amount_sat)} exceeds maximum value of {format_btc(maximum_sat)}"
        )
