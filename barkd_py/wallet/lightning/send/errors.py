"""Why a payment over Lightning is not started, or was not made."""

from barkd_py.errors import BarkdError


class AlreadyPaid(BarkdError):
    def __init__(self) -> None:
        super().__init__("Invoice has already been paid")


class PaymentInProgress(BarkdError):
    """Another call is paying this invoice at this moment."""

    def __init__(self) -> None:
        super().__init__("Payment operation already in progress for this invoice")


class HtlcsOnChain(PaymentInProgress):
    """An earlier payment of this invoice has failed for us, but the server can still make it a success."""

    def __init__(self) -> None:
        BarkdError.__init__(
            self,
            "Payment operation already in progress for this invoice: its HTLCs are being taken on chain, "
            "where the server may still claim them with the preimage",
        )


class PaymentNotMade(BarkdError):
    """The payment failed; what it cost is in the history."""

    def __init__(self) -> None:
        super().__init__("Lightning payment failed")
